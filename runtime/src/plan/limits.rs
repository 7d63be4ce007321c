//! What does not fit a device's buffers, which are smaller than its memory.

use super::executor::{Executor, RunError};
use super::{DeviceError, PlanBackend};
use burn_backend::tensor::Device;
use vjepa_compiler::ir::{Def, Dim, Sizes, TensorType};
use vjepa_compiler::ops::Op;

impl<B: PlanBackend> Executor<B> {
    /// Refuses a run with a tensor that is larger than the device's buffers; a tensor that has no size yet fits.
    pub(super) fn fits(&self, sizes: &Sizes, device: &Device<B>) -> Result<(), RunError> {
        let largest = B::largest_buffer(device);
        if largest == u64::MAX {
            return Ok(());
        }
        // Lowered to Burn's operations, kernels compute in f32, whatever the values' type.
        let bytes =
            |dims: &[Dim]| dims.iter().try_fold(4u64, |n, dim| n.checked_mul(u64::try_from(dim.eval(sizes)?).ok()?));
        for value in &self.graph().values {
            let (what, bytes) = match &value.def {
                // A view of its operand.
                Def::Node { node, .. } if matches!(self.graph().nodes[node.0].op, Op::Broadcast { .. }) => continue,
                Def::Node { node, .. } => (self.graph().nodes[node.0].op.name(), bytes(&value.ty.shape)),
                Def::Input(name) | Def::Param(name) => (name.as_str(), bytes(&value.ty.shape)),
            };
            if let Some(bytes) = bytes.filter(|bytes| *bytes > largest) {
                return Err(too_large(format!("`{what}`, {},", sized(&value.ty, sizes)), bytes, largest));
            }
        }
        // Scores of one clip at least are in memory, where nothing but Burn's operations computes attention.
        for node in &self.graph().nodes {
            let lowered = !self.kernels || B::kernel(&node.op).is_none();
            if let (true, Op::Attention { .. } | Op::AttentionGrad { .. }, [q, k, ..]) =
                (lowered, &node.op, &*node.inputs)
                && let ([_, heads, rows, _], [_, _, keys, _]) =
                    (&*self.graph().ty(*q).shape, &*self.graph().ty(*k).shape)
                && let Some(bytes) =
                    bytes(&[heads.clone(), rows.clone(), keys.clone()]).filter(|bytes| *bytes > largest)
            {
                return Err(too_large(format!("the scores of one clip in `{}`", node.op.name()), bytes, largest));
            }
        }
        Ok(())
    }
}

fn too_large(what: String, bytes: u64, largest: u64) -> RunError {
    DeviceError::TooLarge { what, bytes, largest }.into()
}

/// The type with sizes in place of symbols, where they are known.
fn sized(ty: &TensorType, sizes: &Sizes) -> String {
    ty.sized(sizes).unwrap_or_else(|| ty.to_string())
}
