//! The cross entropy of probes and of fine-tuning, and the focal loss of anticipated actions.

use burn::tensor::activation::{log_softmax, relu};
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

/// Sigmoid focal loss (alpha 0.25, gamma 2) of logits `f32[B, classes]` with one-hot targets `f32[B, classes]`, summed over both:
/// `f32[1]`. The loss of V-JEPA 2's action anticipation.
///
/// # Errors
/// [`ShapeError`] where the two differ in shape.
pub fn focal_loss(logits: Tensor<2>, targets: Tensor<2>) -> Result<Tensor<1>, ShapeError> {
    let dims = logits.dims();
    ShapeError::require(targets.dims() == dims && dims[0] > 0, "the targets", &targets.dims(), || {
        format!("{dims:?} like the logits, of at least one sample")
    })?;
    // How far the logit is on the wrong side: negated where the class is the wanted one.
    let wrong = logits * targets.clone().mul_scalar(-2.0).add_scalar(1.0);
    let alpha = targets.mul_scalar(-0.5).add_scalar(0.75);
    // 1 - p of the true answer, and -ln p of it, which overflow nowhere.
    let miss = wrong.clone().mul_scalar(0.5).tanh().add_scalar(1.0).mul_scalar(0.5);
    let entropy = relu(wrong.clone()) + wrong.abs().neg().exp().add_scalar(1.0).log();
    Ok((alpha * miss.clone() * miss * entropy).sum_dim(1).sum_dim(0).reshape([1])) // [B, 1], [1, 1], [1]
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
