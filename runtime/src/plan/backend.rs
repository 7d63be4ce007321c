//! What a Burn back end has to offer to execute plans.

use super::SimdError;
use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_backend::{Backend, Shape, TensorMetadata};
use vjepa_compiler::ir::{Sizes, TensorType};
use vjepa_compiler::ops::Op;

/// A tensor of a back end.
#[derive(Clone)]
pub enum Operand<B: Backend> {
    /// Floats.
    Float(FloatTensor<B>),
    /// Token indices.
    Int(IntTensor<B>),
}

impl<B: Backend> Operand<B> {
    /// Dimensions; a scalar is `[1]`.
    pub fn shape(&self) -> Shape {
        match self {
            Operand::Float(tensor) => tensor.shape(),
            Operand::Int(tensor) => tensor.shape(),
        }
    }
}

/// A Burn back end that plans can run on.
pub trait PlanBackend: Backend {
    /// Whether kernels can run as the environment asks; asked before anything is planned.
    ///
    /// # Errors
    /// [`SimdError`] when `VJEPA_SIMD` names what is not there.
    fn check() -> Result<(), SimdError> {
        Ok(())
    }

    /// Whether [`PlanBackend::kernel`] runs this operation; what it does not run is lowered or decomposed.
    fn has_kernel(op: &Op) -> bool;

    /// Memory that one executor keeps from node to node and from run to run.
    type Memory: Default + Send;

    /// Runs `op`. Operands are moved in at their last use, so a kernel may write into one it holds alone.
    ///
    /// Types have been checked: `results` are the types of the results, to be evaluated under `sizes`.
    fn kernel(
        op: &Op,
        operands: Vec<Operand<Self>>,
        results: &[&TensorType],
        sizes: &Sizes,
        memory: &mut Self::Memory,
    ) -> Vec<Operand<Self>>;

    /// Takes a value that the plan frees.
    fn recycle(_operand: Operand<Self>, _memory: &mut Self::Memory) {}

    /// Runs `walk`, which calls the kernels, where they find their threads.
    fn on_workers<R: Send>(walk: impl FnOnce() -> R + Send) -> R {
        walk()
    }

    /// A run is over.
    fn end_run(_memory: &mut Self::Memory) {}
}
