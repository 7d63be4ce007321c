//! The interface a Burn back end implements to execute plans.

use super::{Address, Pixels, Resident, SimdError};
use burn_backend::tensor::{Device, FloatTensor};
use burn_backend::{Backend, TensorData};
use vjepa_compiler::ir::{Sizes, TensorType};
use vjepa_compiler::ops::Op;
pub use vjepa_lower::{KernelError, Lowering, Operand};
pub(super) use vjepa_lower::{exactly, number, shape_of};

/// Arguments of a kernel: the operands, and the types of the results under the sizes of the run.
///
/// The verifier has checked types and shapes against the operation's rule. Operands are moved in at their last use, so a
/// kernel may write into one it holds alone.
pub struct Call<'a, B: PlanBackend> {
    /// The operands, in the operation's order.
    pub operands: Vec<Operand<B>>,
    /// Types of the results.
    pub results: &'a [&'a TensorType],
    /// Sizes of the symbols.
    pub sizes: &'a Sizes,
    /// Where it runs.
    pub device: &'a Device<B>,
    /// The executor's memory.
    pub memory: &'a mut B::Memory,
}

/// Runs one operation, whose attributes it holds. It returns one value per result.
pub type Kernel<'a, B> = Box<dyn Fn(Call<'_, B>) -> Result<Vec<Operand<B>>, KernelError> + 'a>;

/// A Burn back end that plans can run on.
pub trait PlanBackend: Backend {
    /// Whether kernels can run as the environment asks; checked before anything is planned.
    ///
    /// # Errors
    /// [`SimdError`] when `VJEPA_SIMD` names an instruction set that is not available.
    fn check() -> Result<(), SimdError> {
        Ok(())
    }

    /// The kernel for an operation; `None` for one that is lowered to Burn's operations or decomposed instead.
    fn kernel(op: &Op) -> Option<Kernel<'_, Self>>;

    /// Whether that kernel is chosen over Burn's operations on operands of these types; asked when a graph is planned.
    fn chooses(_op: &Op, _operands: &[&TensorType]) -> bool {
        true
    }

    /// Whether memory and kernels are a device's own: its [passes](vjepa_compiler::passes::Pipeline::device) run, and indices
    /// of tokens are checked before they are sent.
    const IS_DEVICE: bool = false;

    /// How Burn's operations run an operation that has no kernel; `None` for one that is decomposed instead.
    fn lowering(op: &Op) -> Option<Lowering<'_, Self>> {
        vjepa_lower::lowering(op)
    }

    /// Bytes of the largest buffer that the device can have.
    fn largest_buffer(_device: &Device<Self>) -> u64 {
        u64::MAX
    }

    /// Bytes the device's allocator holds; `None` where the system knows.
    fn reserved(_device: &Device<Self>) -> Option<u64> {
        None
    }

    /// The tensor with memory of its own, all of which it fills, and where that is on a GPU.
    ///
    /// # Errors
    /// Why there is no such place, in words.
    fn resident(_tensor: FloatTensor<Self>) -> Result<(FloatTensor<Self>, Resident), String> {
        Err("memory of this device has no address".to_owned())
    }

    /// Where a tensor's memory is; none where the back end does not tell.
    fn address(_operand: &Operand<Self>) -> Option<Address> {
        None
    }

    /// Lays the device's memory out for values of this many bytes and less. False where it stays as it is.
    ///
    /// # Errors
    /// Why that cannot be had, in words.
    fn lay_out(_device: &Device<Self>, _largest: u64) -> Result<bool, String> {
        Ok(false)
    }

    /// Bytes of the device's memory that nothing has been put into; `None` where that is not known.
    fn unused(_device: &Device<Self>) -> Option<u64> {
        None
    }

    /// Why the device can no longer be used, where something failed that no call said.
    fn failure(_device: &Device<Self>) -> Option<String> {
        None
    }

    /// Memory that one executor keeps from node to node and from run to run.
    type Memory: Default + Send;

    /// Takes a value that the plan frees.
    fn recycle(_operand: Operand<Self>, _memory: &mut Self::Memory) {}

    /// Memory on the host of exactly this many floats that a run took as an input and has no more use for; none where inputs
    /// are not kept.
    fn spare(_len: usize, _memory: &mut Self::Memory) -> Option<Vec<f32>> {
        None
    }

    /// Bytes as the floats they stand for, `f32` of their shape.
    fn pixels(pixels: Pixels, device: &Device<Self>, memory: &mut Self::Memory) -> FloatTensor<Self> {
        let floats = pixels.scaled(Self::spare(pixels.data.len(), memory).unwrap_or_default());
        Self::float_from_data(TensorData::new(floats, pixels.shape), device)
    }

    /// Runs `walk`, which calls the kernels, on a thread from which they can fork.
    fn on_workers<R: Send>(walk: impl FnOnce() -> R + Send) -> R {
        walk()
    }

    /// A run is over.
    fn end_run(_memory: &mut Self::Memory) {}
}
