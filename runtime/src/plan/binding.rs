//! What a run is given: sizes of the symbols from the shapes, inputs on the device, parameters in place.

use super::error::RunError;
use super::executor::Executor;
use super::params::{Params, upload};
use super::{HostTensor, Operand, PlanBackend};
use burn_backend::tensor::Device;
use std::collections::BTreeMap;
use vjepa_compiler::ir::{DType, Def, Dim, Sizes, TensorType};

impl<B: PlanBackend> Executor<B> {
    /// Sizes of the symbols, from the shapes of what was given; every declared shape is checked against them.
    pub(super) fn bind_sizes(
        &self,
        inputs: &BTreeMap<&str, HostTensor>,
        params: &Params<B>,
    ) -> Result<Sizes, RunError> {
        let mut sizes = Sizes::new();
        let sources = self.graph().inputs.iter().chain(&self.graph().params);
        let mut pending = Vec::new();
        for id in sources {
            let value = self.graph().value(*id);
            let (name, shape, dtype) = match &value.def {
                Def::Input(name) => {
                    let tensor = inputs.get(name.as_str()).ok_or_else(|| RunError::MissingInput(name.clone()))?;
                    if tensor.values() != tensor.shape().iter().product::<usize>() {
                        let (expected, got) = (format!("{:?}", tensor.shape()), format!("{} values", tensor.values()));
                        return Err(RunError::Shape { name: name.clone(), expected, got });
                    }
                    (name, tensor.shape().to_vec(), tensor.dtype())
                }
                Def::Param(name) => {
                    let tensor = params.operand(name).ok_or_else(|| RunError::MissingParam(name.clone()))?;
                    let dtype = if matches!(tensor, Operand::Float(_)) { DType::F32 } else { DType::I32 };
                    let mut shape = tensor.shape().to_vec();
                    if value.ty.rank() == 0 && shape == [1] {
                        shape.clear();
                    }
                    (name, shape, dtype)
                }
                Def::Node { .. } => continue,
            };
            for (dim, size) in value.ty.shape.iter().zip(&shape) {
                if let Some(symbol) = self.graph().symbols.iter().find(|s| *dim == Dim::symbol(s)) {
                    sizes.entry(symbol.clone()).or_insert(*size);
                }
            }
            pending.push((name, &value.ty, shape, dtype));
        }
        for (name, ty, shape, dtype) in pending {
            check_shape(name, ty, &shape, dtype, &sizes)?;
        }
        Ok(sizes)
    }

    /// Parameters that are updated are moved out of the store, so that their update can be written in place.
    pub(super) fn bind_params(&self, values: &mut [Option<Operand<B>>], params: &mut Params<B>) {
        for id in &self.graph().params {
            let name = self.graph().source_name(*id).unwrap_or_default();
            values[id.0] = if self.updated.contains(id) { params.take(name) } else { params.operand(name).cloned() };
        }
    }
}

/// An input on its way to the device.
pub(super) fn send<B: PlanBackend>(tensor: HostTensor, device: &Device<B>, memory: &mut B::Memory) -> Operand<B> {
    match tensor {
        HostTensor::Pixels(pixels) => Operand::Float(B::pixels(pixels, device, memory)),
        floats_or_indices => upload::<B>(floats_or_indices, device),
    }
}

fn check_shape(name: &str, ty: &TensorType, shape: &[usize], dtype: DType, sizes: &Sizes) -> Result<(), RunError> {
    let fits = ty.rank() == shape.len() && ty.shape.iter().zip(shape).all(|(dim, n)| dim.eval(sizes) == Some(*n));
    if fits && ty.dtype == dtype {
        return Ok(());
    }
    let bound: Vec<String> = sizes.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
    let expected = if bound.is_empty() { ty.to_string() } else { format!("{ty} with {}", bound.join(", ")) };
    Err(RunError::Shape { name: name.to_owned(), expected, got: format!("{}{shape:?}", dtype.name()) })
}
