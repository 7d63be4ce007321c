//! V-JEPA 2.1's loss: the features of context tokens are predicted too, those far from what is masked counting less.

use burn::tensor::Tensor;
use vjepa_recipe::schedules::ContextWeight;

use super::jepa::{JepaLoss, JepaModel, normalised_targets};
use super::{Batch, Losses};
use crate::error::ShapeError;
use crate::layers::gather_tokens;
use crate::predictor::{Modality, Predictions};

/// The dense loss (`app/vjepa_2_1/train.py`): `loss_pred + context_share · loss_context`, the mean over the modalities of a
/// step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dense {
    /// Whether a context token counts the inverse of its distance to the masked ones
    /// ([`context_weights`](super::context_weights)), as in pre-training; in the cool-down all count alike.
    pub weighted: bool,
    /// How much the context's loss counts.
    pub share: ContextWeight,
}

impl Default for Dense {
    fn default() -> Self {
        Self { weighted: true, share: ContextWeight { value: 0.5, progressive: true } }
    }
}

/// Sums of the two terms and how many there are of each.
#[derive(Default)]
struct Terms {
    predicted: Option<Tensor<1>>,
    context: Option<Tensor<1>>,
    count: usize,
}

impl Terms {
    fn add(&mut self, predicted: Tensor<1>, context: Tensor<1>) {
        let sum = |so_far: Option<Tensor<1>>, term: Tensor<1>| match so_far {
            Some(so_far) => so_far + term,
            None => term,
        };
        self.predicted = Some(sum(self.predicted.take(), predicted));
        self.context = Some(sum(self.context.take(), context));
        self.count += 1;
    }

    /// Their means.
    fn means(self) -> Option<[Tensor<1>; 2]> {
        let share = 1.0 / self.count as f64;
        Some([self.predicted?.mul_scalar(share), self.context?.mul_scalar(share)])
    }
}

impl Dense {
    /// The losses of a step; the first stream is the length bucket `first` of its group, those of its kind after it follow.
    pub(super) fn losses(
        self,
        exponent: f64,
        model: &JepaModel,
        batch: &Batch,
        first: usize,
    ) -> Result<Losses, ShapeError> {
        let (mut video, mut image) = (Terms::default(), Terms::default());
        let (mut videos, mut images) = (first, 0);
        for stream in std::iter::once(batch).chain(&batch.others) {
            let frames = stream.context.dims()[2];
            let of_images = model.encoder.config().is_image(frames);
            let (modality, terms, bucket) = match of_images {
                true => (Modality::Image, &mut image, &mut images),
                false => (Modality::Video, &mut video, &mut videos),
            };
            self.stream(exponent, model, stream, (modality, *bucket), terms)?;
            *bucket += 1;
        }
        let means: Vec<[Tensor<1>; 2]> = [video, image].into_iter().filter_map(Terms::means).collect();
        let share = 1.0 / means.len().max(1) as f64;
        let sums = means.into_iter().reduce(|[a, b], [c, d]| [a + c, b + d]);
        let (Some([predicted, context]), Some(weight)) = (sums, batch.context_share.clone()) else {
            let expected = "mask pairs and the context's share".to_owned();
            return Err(ShapeError { input: "the objective's inputs", expected, got: Vec::new() });
        };
        let (predicted, context) = (predicted.mul_scalar(share), context.mul_scalar(share));
        let loss = predicted.clone() + context.clone() * weight.reshape([1]);
        Ok(Losses { loss, terms: vec![("loss_pred", predicted), ("loss_context", context)] })
    }

    /// Adds the terms of one stream's mask pairs.
    fn stream(
        self,
        exponent: f64,
        model: &JepaModel,
        batch: &Batch,
        (modality, bucket): (Modality, usize),
        terms: &mut Terms,
    ) -> Result<(), ShapeError> {
        let plain = JepaLoss { loss_exp: exponent, reg_coeff: 0.0 };
        let targets = normalised_targets(&model.target_encoder, batch.target.clone())?; // [B, N, L·D]
        for pair in &batch.pairs {
            let (kept, wanted) = (pair.context.clone(), pair.target.clone());
            let context = model.encoder.forward_levels(batch.context.clone(), Some(kept.clone()))?; // [B, Kc, L·D]
            let Predictions { targets: z, context: of_context } =
                model.predictor.predict(context, [kept.clone(), wanted.clone()], bucket, modality)?;
            let Some(of_context) = of_context else {
                let expected = "a predictor that predicts the context".to_owned();
                return Err(ShapeError { input: "the dense loss's predictor", expected, got: Vec::new() });
            };
            let predicted = plain.distance(z, gather_tokens(targets.clone(), wanted));
            let known = gather_tokens(targets.clone(), kept);
            let context = match (&pair.weights, self.weighted) {
                (Some(weights), true) => weighted_distance(exponent, [of_context, known], weights.clone()),
                (None, false) => plain.distance(of_context, known),
                (given, _) => {
                    let expected = if self.weighted { "weights of context tokens" } else { "no weights" }.to_owned();
                    let got = given.as_ref().map_or_else(Vec::new, |given| given.dims().to_vec());
                    return Err(ShapeError { input: "the dense loss's weights", expected, got });
                }
            };
            terms.add(predicted, context);
        }
        Ok(())
    }
}

/// Mean of `w · |z - target|^p / p`: `[B, K, D]` and `w` `[B, K]` to `[1]`.
fn weighted_distance(exponent: f64, [z, target]: [Tensor<3>; 2], weights: Tensor<2>) -> Tensor<1> {
    let [batch, kept] = weights.dims();
    let distance = (z - target).abs();
    let powered = if exponent == 1.0 { distance } else { distance.powf_scalar(exponent) };
    let mean = (powered.mean_dim(2) * weights.reshape([batch, kept, 1])).mean(); // [B, K, 1], [1]
    if exponent == 1.0 { mean } else { mean.div_scalar(exponent) }
}

#[cfg(test)]
mod tests {
    use crate::objectives::context_weights;

    #[test]
    fn neighbours_count_fully_and_distant_tokens_less() {
        // A grid of 4 by 4: token 0 beside 1; token 3 two columns from 1; token 16 one step in time from 0.
        let weights = context_weights([&[0, 3, 16], &[1]], [4, 4]);
        let root = |squared: f32| 1.0 / squared.sqrt().sqrt();
        assert_eq!(weights, [1.0, root(4.0), root(2.0)]);
        assert_eq!(context_weights([&[5], &[5]], [4, 4]), [1.0]);
    }
}
