//! What does not fit a device's buffers, which are smaller than its memory.

use super::{DeviceError, HostTensor, KernelError, PlanBackend};
use super::{Executor, RunError};
use burn_backend::tensor::Device;
use std::collections::BTreeMap;
use vjepa_compiler::ir::{Def, Dim, Sizes, TensorType, ValueId};
use vjepa_compiler::ops::Op;
use vjepa_compiler::plan::bytes_in_f32;

impl<B: PlanBackend> Executor<B> {
    /// Refuses a run with a tensor that is larger than the device's buffers; a tensor that has no size yet fits.
    pub(super) fn fits(&self, sizes: &Sizes, device: &Device<B>) -> Result<(), RunError> {
        let largest = B::largest_buffer(device);
        if largest == u64::MAX {
            return Ok(());
        }
        let bytes = |dims: &[Dim]| bytes_in_f32(dims, sizes);
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
        for (position, node) in self.graph().nodes.iter().enumerate() {
            if let (false, Op::Attention { .. } | Op::AttentionGrad { .. }, [q, k, ..]) =
                (self.is_by_kernel(position), &node.op, &*node.inputs)
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

    /// Refuses indices of tokens that are not there, as the CPU's kernels do: a device would read what its memory holds beside
    /// the tokens, and write there.
    pub(super) fn tokens_exist(&self, inputs: &BTreeMap<&str, HostTensor>, sizes: &Sizes) -> Result<(), RunError> {
        if !B::IS_DEVICE {
            return Ok(());
        }
        for (position, node) in self.graph().nodes.iter().enumerate() {
            let of = |x: &ValueId| self.graph().ty(*x).shape.get(1).and_then(|tokens| tokens.eval(sizes));
            let (tokens, index) = match (&node.op, &*node.inputs) {
                (Op::GatherTokens, [x, index]) => (of(x), index),
                (Op::TokenL1 { .. } | Op::TokenL1Grad { .. }, [_, x, index]) => (of(x), index),
                (Op::ScatterTokens { tokens }, [_, index]) => (tokens.eval(sizes), index),
                _ => continue,
            };
            let Some(tokens) = tokens else { continue };
            let mut open = vec![*index];
            while let Some(id) = open.pop() {
                match &self.graph().value(id).def {
                    Def::Input(name) => {
                        let Some(HostTensor::I32 { data, .. }) = inputs.get(name.as_str()) else { continue };
                        let exists = |token: i32| usize::try_from(token).is_ok_and(|token| token < tokens);
                        if let Some(token) = data.iter().copied().find(|token| !exists(*token)) {
                            let source = KernelError::Token { token: token.into(), tokens };
                            return Err(RunError::Kernel { op: node.op.name(), node: position, source });
                        }
                    }
                    // No operation computes with indices: others move them.
                    Def::Node { node, .. } => open.extend(&self.graph().nodes[node.0].inputs),
                    Def::Param(_) => {}
                }
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
