//! The pre-training objective and the probe's cross entropy.

use burn::tensor::activation::{log_softmax, relu};
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::encoder::Encoder;
use crate::error::ShapeError;
use crate::layers::{gather_tokens, layer_norm_no_affine};
use crate::predictor::Predictor;

/// Epsilon of the targets' layer norm.
const TARGET_EPS: f64 = 1e-5;
/// Added to the variance under the regulariser's root.
const VARIANCE_EPS: f64 = 1e-4;

/// What one mask generator gives for a batch: token indices, context `[B, Kc]` and targets `[B, Kt]`.
#[derive(Debug, Clone)]
pub struct MaskPair {
    /// Tokens the encoder sees.
    pub context: Tensor<2, Int>,
    /// Tokens the predictor predicts.
    pub target: Tensor<2, Int>,
}

/// The three numbers of a training step, each `f32[1]`.
#[derive(Debug, Clone)]
pub struct PretrainOutput {
    /// What is minimised: `loss_jepa + reg_coeff · loss_reg`.
    pub loss: Tensor<1>,
    /// Distance of predictions and targets.
    pub loss_jepa: Tensor<1>,
    /// How far the predictions' deviation over tokens falls below 1.
    pub loss_reg: Tensor<1>,
}

/// The pre-training objective (`app/vjepa/train.py`).
///
/// Per mask pair: mean over `[B, K, D]` of `|prediction - target|^loss_exp / loss_exp`; pairs weigh the same whatever
/// their K.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PretrainLoss {
    /// Exponent; 1 in the released recipes.
    pub loss_exp: f64,
    /// Weight of the variance regulariser; 0 in the released recipes, where it is computed and reported only.
    pub reg_coeff: f64,
}

impl Default for PretrainLoss {
    fn default() -> Self {
        Self { loss_exp: 1.0, reg_coeff: 0.0 }
    }
}

impl PretrainLoss {
    /// Loss of a clip `f32[B, C, T, H, W]`: targets from `target_encoder` over the whole clip, then encoder and predictor
    /// once a mask pair. Gradients flow to `encoder` and `predictor` only.
    ///
    /// # Errors
    /// [`ShapeError`] for no pairs at all, for inputs that do not fit the models, or for fewer than two targets, whose
    /// variance is undefined.
    pub fn forward(
        &self,
        encoder: &Encoder,
        predictor: &Predictor,
        target_encoder: &Encoder,
        clip: Tensor<5>,
        pairs: &[MaskPair],
    ) -> Result<PretrainOutput, ShapeError> {
        self.forward_across(encoder, predictor, target_encoder, [clip.clone(), clip], pairs)
    }

    /// The same with context and targets of different clips, `[context, target]`: what a predictor loses by looking at the
    /// wrong context tells whether it looks at its context at all.
    ///
    /// # Errors
    /// As [`PretrainLoss::forward`].
    pub fn forward_across(
        &self,
        encoder: &Encoder,
        predictor: &Predictor,
        target_encoder: &Encoder,
        [context_clip, target_clip]: [Tensor<5>; 2],
        pairs: &[MaskPair],
    ) -> Result<PretrainOutput, ShapeError> {
        ShapeError::require(!pairs.is_empty(), "the mask pairs", &[0], || "at least one pair".to_owned())?;
        let targets = normalised_targets(target_encoder, target_clip)?; // [B, N, D]
        let mut predictions = Vec::with_capacity(pairs.len());
        for (index, pair) in pairs.iter().enumerate() {
            ShapeError::require(pair.target.dims()[1] > 1, "the target mask", &pair.target.dims(), || {
                "[B, K] with K at least 2".to_owned()
            })?;
            let context = encoder.forward(context_clip.clone(), Some(pair.context.clone()))?; // [B, Kc, D]
            let z = predictor.forward(context, pair.context.clone(), pair.target.clone(), index)?; // [B, K, D]
            predictions.push((z, gather_tokens(targets.clone(), pair.target.clone())));
        }
        Ok(self.combine(predictions))
    }

    /// The same from predictions and targets already made, a pair `[B, K, D]` each (K may differ from pair to pair).
    fn combine(&self, pairs: Vec<(Tensor<3>, Tensor<3>)>) -> PretrainOutput {
        let share = 1.0 / pairs.len() as f64;
        let terms = pairs.into_iter().map(|(z, target)| (self.distance(z.clone(), target), token_deviation(z)));
        let sums = terms.reduce(|(distances, deviations), (distance, deviation)| {
            (distances + distance, deviations + deviation) // [1], [B, 1, D]
        });
        let Some((distance, deviation)) = sums else { unreachable!("`forward` refuses an empty list of pairs") };
        let loss_jepa = distance.mul_scalar(share);
        let loss_reg = relu(deviation.mul_scalar(share).neg().add_scalar(1.0)).mean(); // [B, 1, D] to [1]
        let loss = match self.reg_coeff {
            0.0 => loss_jepa.clone(),
            weight => loss_jepa.clone() + loss_reg.clone().mul_scalar(weight),
        };
        PretrainOutput { loss, loss_jepa, loss_reg }
    }

    /// Mean of `|z - target|^p / p`: `[B, K, D]` to `[1]`; recorded as sub, abs, (powf by p,) mean_dim 2, mean, (div by p).
    fn distance(&self, z: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
        // Features first, then tokens: a batch has millions of values, and one running f32 sum of them all loses digits.
        let mean = |distance: Tensor<3>| distance.mean_dim(2).mean(); // [B, K, 1], [1]
        let distance = (z - target).abs();
        match self.loss_exp {
            1.0 => mean(distance),
            p => mean(distance.powf_scalar(p)).div_scalar(p),
        }
    }
}

/// Standard deviation over tokens, unbiased, with 1e-4 under the root: `[B, K, D]` to `[B, 1, D]`.
fn token_deviation(z: Tensor<3>) -> Tensor<3> {
    let tokens = z.dims()[1];
    let centred = z.clone() - z.mean_dim(1); // [B, K, D]
    let variance = (centred.clone() * centred).sum_dim(1).div_scalar((tokens - 1) as f64); // [B, 1, D]
    variance.add_scalar(VARIANCE_EPS).sqrt()
}

/// Targets of a clip `f32[B, C, T, H, W]`: the target encoder's output over all tokens, layer-normalised once more
/// without weight and bias (eps 1e-5), cut off from gradients: `f32[B, N, D]`.
///
/// # Errors
/// [`ShapeError`] for a clip of another shape.
pub fn normalised_targets(target_encoder: &Encoder, clip: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    let tokens = target_encoder.forward(clip, None)?; // [B, N, D]
    Ok(layer_norm_no_affine(tokens, TARGET_EPS).detach())
}

/// Cross entropy of logits `f32[B, classes]` with one-hot targets `f32[B, classes]`, mean over the batch: `f32[1]`.
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
