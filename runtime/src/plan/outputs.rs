//! What a run computed, before it is read.

use super::{HostTensor, Operand, PlanBackend, RunError};
use std::collections::BTreeMap;
use vjepa_lower::{read_floats, read_indices};

/// Outputs where they were computed: name, shape and values.
pub(super) type Outputs<B> = Vec<(String, Vec<usize>, Operand<B>)>;

/// Outputs on the host; waits for a device that is not done with them.
///
/// # Errors
/// [`RunError::Lost`].
pub(super) fn read<B: PlanBackend>(outputs: Outputs<B>) -> Result<BTreeMap<String, HostTensor>, RunError> {
    let one = |(name, shape, values): (String, Vec<usize>, Operand<B>)| {
        let read = match values {
            Operand::Float(tensor) => read_floats::<B>(tensor).map(|data| HostTensor::F32 { shape, data }),
            Operand::Int(tensor) => read_indices::<B>(tensor).map(|data| HostTensor::I32 { shape, data }),
        };
        match read {
            Ok(tensor) => Ok((name, tensor)),
            Err(why) => Err(RunError::Lost { name, why }),
        }
    };
    outputs.into_iter().map(one).collect()
}
