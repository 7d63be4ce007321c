//! Parameters by name: out of a module, into a module, and one by one to a visitor.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

use vjepa_weights::{LoadError, Misshapen};

/// Tensors by official name: shape, and `f32` values in row-major order.
pub type NamedTensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Whether a parameter of this name is a position table, which is saved and averaged like a weight but never learned.
pub fn is_frozen(name: &str) -> bool {
    name.ends_with("pos_embed")
}

/// A visitor of every parameter of a module.
pub trait ParameterVisitor {
    /// Called once per parameter, with its official name (`blocks.0.attn.qkv.weight`). `parameter.val()` is the tensor: on a
    /// capture device a recorded `empty`, whose id is that of `parameter.val().try_into_primitive::<CaptureBackend>()`.
    fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>);
}

/// Visits every parameter, in the order of the module's fields.
pub fn visit_parameters<M: Module, V: ParameterVisitor>(module: &M, visitor: &mut V) {
    module.visit(&mut Visit { path: Path::default(), visitor });
}

/// Names of all parameters, in the order of the module's fields.
pub fn parameter_names<M: Module>(module: &M) -> Vec<String> {
    struct Names(Vec<String>);
    impl ParameterVisitor for Names {
        fn parameter<const D: usize>(&mut self, name: &str, _: &Param<Tensor<D>>) {
            self.0.push(name.to_owned());
        }
    }
    let mut names = Names(Vec::new());
    visit_parameters(module, &mut names);
    names.0
}

/// All parameters with their values, copied to the host.
pub fn parameters<M: Module>(module: &M) -> NamedTensors {
    struct Values(NamedTensors);
    impl ParameterVisitor for Values {
        fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            self.0.insert(name.to_owned(), host(parameter.val()));
        }
    }
    let mut values = Values(NamedTensors::new());
    visit_parameters(module, &mut values);
    values.0
}

/// Gradients of all parameters that have one, by name, copied to the host. It must be the same module the backward pass went
/// through.
pub fn gradients<M: Module>(module: &M, gradients: &Gradients) -> NamedTensors {
    struct Grads<'a>(&'a Gradients, NamedTensors);
    impl ParameterVisitor for Grads<'_> {
        fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            if let Some(gradient) = parameter.val().grad(self.0) {
                self.1.insert(name.to_owned(), host(gradient));
            }
        }
    }
    let mut found = Grads(gradients, NamedTensors::new());
    visit_parameters(module, &mut found);
    found.1
}

/// The module with every parameter replaced by the tensor of its name, on the same device and with the same gradient setting.
///
/// # Errors
/// [`LoadError`] listing every parameter without a tensor, tensor without a parameter, and tensor of the wrong shape.
pub fn load_parameters<M: Module>(module: M, tensors: NamedTensors) -> Result<M, LoadError> {
    let mut loader = Loader { path: Path::default(), tensors, faults: LoadError::default() };
    let module = module.map(&mut loader);
    let Loader { tensors, mut faults, .. } = loader;
    faults.unexpected = tensors.into_keys().collect();
    if faults == LoadError::default() { Ok(module) } else { Err(faults) }
}

fn host<const D: usize>(tensor: Tensor<D>) -> (Vec<usize>, Vec<f32>) {
    let shape = tensor.dims().to_vec();
    let values = tensor.into_data().try_into_vec_as::<f32>().expect("a float tensor converts to f32");
    (shape, values)
}

/// The dotted name of the current position of a traversal. Variants of enums are not part of it.
#[derive(Default)]
struct Path(Vec<String>);

impl Path {
    fn enter(&mut self, name: &str, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.push(name.to_owned());
        }
    }

    fn exit(&mut self, container: &str) {
        if !container.starts_with("Enum:") {
            self.0.pop();
        }
    }

    fn name(&self) -> String {
        self.0.join(".")
    }
}

struct Visit<'a, V> {
    path: Path,
    visitor: &'a mut V,
}

impl<V: ParameterVisitor> ModuleVisitor for Visit<'_, V> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.visitor.parameter(&self.path.name(), param);
    }
}

struct Loader {
    path: Path,
    tensors: NamedTensors,
    faults: LoadError,
}

impl ModuleMapper for Loader {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _: &str, container: &str) {
        self.path.exit(container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.name();
        let Some((got, values)) = self.tensors.remove(&name) else {
            self.faults.missing.push(name);
            return param;
        };
        let expected: Vec<usize> = param.lazy_shape().iter().copied().collect();
        if got != expected || values.len() != expected.iter().product::<usize>() {
            self.faults.misshapen.push(Misshapen { name, expected, got, values: values.len() });
            return param;
        }
        let tensor = Tensor::<D>::from_data(TensorData::new(values, expected), &param.lazy_device());
        let id = param.id;
        param.transform_for_load(tensor, id)
    }
}
