//! The cross entropy of probes and of fine-tuning.

use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor, TensorData};

use crate::error::ShapeError;

/// Cross entropy of logits `f32[B, classes]` with targets `f32[B, classes]`, one-hot or soft, mean over the batch: `f32[1]`.
///
/// # Errors
/// [`ShapeError`] where the two differ in shape.
pub fn cross_entropy(logits: Tensor<2>, targets: Tensor<2>) -> Result<Tensor<1>, ShapeError> {
    let dims = logits.dims();
    ShapeError::require(targets.dims() == dims && dims[0] > 0, "the targets", &targets.dims(), || {
        format!("{dims:?} like the logits, of at least one sample")
    })?;
    let picked = (log_softmax(logits, 1) * targets).sum_dim(1); // [B, 1]
    Ok(picked.mean().neg()) // [1]
}

/// Labels as rows `f32[B, classes]` with a single 1.
///
/// # Errors
/// [`ShapeError`] for a label that is not below `classes`.
pub fn one_hot(labels: &[usize], classes: usize, device: &Device) -> Result<Tensor<2>, ShapeError> {
    let mut rows = vec![0f32; labels.len() * classes];
    for (row, &label) in labels.iter().enumerate() {
        ShapeError::require(label < classes, "a label", &[label], || format!("below {classes}"))?;
        rows[row * classes + label] = 1.0;
    }
    Ok(Tensor::from_data(TensorData::new(rows, [labels.len(), classes]), device))
}
