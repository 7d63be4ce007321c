//! From Burn modules to the IR: a forward pass is recorded on Burn's capture device at three sizes, and the recordings
//! are unified into one graph with symbolic dimensions.
//!
//! A recording is concrete: its shapes are numbers. So [`trace`] runs the caller's closure at three sets of sizes, each
//! symbol a different prime in each. The recordings must have the same operations in the same order; every dimension and
//! every scalar that differs between them must be exactly one expression over the symbols (`B*N`, `K - 1`) at all three.
//! Anything else is an error, never a guess.
//!
//! Burn records some of the IR's semantic operations in pieces, and linear layers in two forms: `normalise.rs` recognises
//! `linear`, `layer_norm` without weights, `tubelets` and `patch_embed`. Only this folder knows
//! `burn-ir`'s operation enumeration and its capture.

mod capture;
mod import;
mod normalise;
mod solve;

use crate::ir::{DType, Graph, GraphError, Sizes};
use burn::tensor::{Device, DispatchTensor, Int, Tensor};
use burn_capture::{CaptureBackend, TensorId};

/// Tracing failed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The closure itself failed.
    #[error("the traced function failed: {0}")]
    Traced(String),
    /// Burn refused the recording.
    #[error("recording failed: {0}")]
    Capture(String),
    /// Two recordings differ in more than sizes.
    #[error("operation {position} is {first} at one size and {second} at another: the graph depends on the size")]
    Structure {
        /// Position in the recording.
        position: usize,
        /// In the first recording.
        first: String,
        /// In another.
        second: String,
    },
    /// A size that is not an expression over the symbols.
    #[error("{what} is {values:?} at the three traced sizes, which is not an expression over {symbols}")]
    NoExpression {
        /// Which dimension or scalar.
        what: String,
        /// What it was.
        values: [f64; 3],
        /// The symbols, for the message.
        symbols: String,
    },
    /// A size that several expressions over the symbols have.
    #[error("{what} is {first} and {second} at the three traced sizes: they do not tell which")]
    Ambiguous {
        /// Which dimension or scalar.
        what: String,
        /// One expression.
        first: String,
        /// Another.
        second: String,
    },
    /// An operation the IR has no counterpart for.
    #[error("operation {position}, {op}, has no counterpart in the IR")]
    Unsupported {
        /// Position in the recording.
        position: usize,
        /// Which operation.
        op: String,
    },
    /// A tensor that is neither computed nor declared.
    #[error("operation {position} reads a tensor that is neither an input nor a parameter: declare it in the scope")]
    UnknownTensor {
        /// Position in the recording.
        position: usize,
    },
    /// The imported operation does not fit the IR's rules.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// A declared source of the recording.
#[derive(Clone, Debug)]
struct Source {
    name: String,
    param: bool,
    dtype: DType,
    shape: Vec<usize>,
    id: TensorId,
}

/// Declares the inputs, parameters and outputs of the traced closure.
pub struct Scope<'a> {
    device: Device,
    sizes: &'a Sizes,
    sources: Vec<Source>,
    outputs: Vec<(String, TensorId)>,
}

impl Scope<'_> {
    /// The recording device: build modules here, with parameters as `Tensor::empty`.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The size of a symbol in this recording.
    ///
    /// # Panics
    /// When the symbol was not given to [`trace`]: a bug of the caller.
    pub fn size(&self, symbol: &str) -> usize {
        self.sizes.get(symbol).copied().unwrap_or_else(|| panic!("`{symbol}` is not a symbol of this trace"))
    }

    /// Declares a float input and returns it.
    pub fn input<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D>, TraceError> {
        let tensor = Tensor::<D>::empty(shape, &self.device);
        self.declare(name, false, &tensor)?;
        Ok(tensor)
    }

    /// Declares an index input `[B, K]` and returns it.
    pub fn index<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Result<Tensor<D, Int>, TraceError> {
        let tensor = Tensor::<D, Int>::empty(shape, &self.device);
        let primitive = tensor.clone().try_into_primitive::<CaptureBackend>();
        let id = primitive.map_err(|error| TraceError::Capture(format!("{error:?}")))?.id();
        self.sources.push(Source { name: name.to_owned(), param: false, dtype: DType::I32, shape: shape.to_vec(), id });
        Ok(tensor)
    }

    /// Declares a tensor of a module as the parameter `name`.
    pub fn param<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) -> Result<(), TraceError> {
        self.declare(name, true, tensor)
    }

    /// Declares a float tensor whose rank is not known at compile time as the parameter `name`.
    pub fn param_of_any_rank(&mut self, name: &str, tensor: DispatchTensor) -> Result<(), TraceError> {
        // The rank of a `Tensor` is a type without a value: id and shape come from the primitive.
        self.declare(name, true, &Tensor::<1>::from_dispatch(tensor))
    }

    /// Names a result.
    pub fn output<const D: usize>(&mut self, name: &str, tensor: &Tensor<D>) -> Result<(), TraceError> {
        let id = float_id(tensor)?;
        self.outputs.push((name.to_owned(), id));
        Ok(())
    }

    fn declare<const D: usize>(&mut self, name: &str, param: bool, tensor: &Tensor<D>) -> Result<(), TraceError> {
        let id = float_id(tensor)?;
        let shape = tensor.shape().to_vec();
        self.sources.push(Source { name: name.to_owned(), param, dtype: DType::F32, shape, id });
        Ok(())
    }
}

fn float_id<const D: usize>(tensor: &Tensor<D>) -> Result<TensorId, TraceError> {
    let primitive = tensor.clone().try_into_primitive::<CaptureBackend>();
    Ok(primitive.map_err(|error| TraceError::Capture(format!("{error:?}")))?.id())
}

/// Traces `forward` into a graph called `name` over `symbols`.
///
/// `forward` is called three times, with a [`Scope`] of other sizes each time; it must declare the same inputs,
/// parameters and outputs in the same order. A one-element output becomes a scalar, `f32[]`.
///
/// # Errors
/// [`TraceError`].
pub fn trace(
    name: &str,
    symbols: &[&str],
    forward: impl Fn(&mut Scope<'_>) -> Result<(), TraceError>,
) -> Result<Graph, TraceError> {
    let sizes = solve::prime_sizes(symbols);
    let recordings = [
        capture::record(&sizes[0], &forward)?,
        capture::record(&sizes[1], &forward)?,
        capture::record(&sizes[2], &forward)?,
    ];
    let graph = import::import(name, symbols, sizes, recordings)?;
    Ok(normalise::normalise(&graph)?)
}
