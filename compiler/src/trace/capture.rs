//! One recording.

use super::{Scope, Source, TraceError};
use crate::ir::Sizes;
use burn::tensor::Device;
use burn_capture::TensorId;
use burn_ir::OperationIr;

/// Operations and boundary of one recording.
pub(super) struct Recording {
    pub(super) operations: Vec<OperationIr>,
    pub(super) sources: Vec<Source>,
    pub(super) outputs: Vec<(String, TensorId)>,
}

/// Runs `forward` on a fresh recording device.
pub(super) fn record(
    sizes: &Sizes,
    forward: &impl Fn(&mut Scope<'_>) -> Result<(), TraceError>,
) -> Result<Recording, TraceError> {
    let device = Device::capture();
    let mut scope = Scope { device: device.clone(), sizes, sources: Vec::new(), outputs: Vec::new() };
    let mut outcome = Ok(());
    let captured = device.capture_scope(|capture| {
        outcome = forward(&mut scope);
        // One tensor may be a result under several names; Burn wants it once.
        let mut outputs: Vec<TensorId> = Vec::new();
        for (_, id) in scope.outputs.iter().filter(|_| outcome.is_ok()) {
            if !outputs.contains(id) {
                outputs.push(*id);
            }
        }
        capture.complete([], outputs)
    });
    outcome?;
    let captured = captured.map_err(|error| TraceError::Capture(error.to_string()))?;
    if let Some((id, data)) = captured.values.iter().next() {
        // A constant would be kept in the recording and copied with it; models take such tables as parameters.
        let what = format!("tensor {id} {:?} holds data; pass it as an input or a parameter", data.shape);
        return Err(TraceError::Capture(what));
    }
    Ok(Recording { operations: captured.graph.operations, sources: scope.sources, outputs: scope.outputs })
}
