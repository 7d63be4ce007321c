//! Pixels as targets: predict the normalised pixels of masked tokens, the paper's ablation of features as targets.
//!
//! The same encoder, masks and predictor as V-JEPA's, whose last layer makes the values of a token instead of its features;
//! no target encoder. The loss is the mean of squares whatever `loss.loss_exp` says, as in both definitions' sources.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use vjepa_recipe::config::{LossConfig, PixelTarget};

use super::jepa::predicted;
use super::{Batch, Declaration, Losses, Models, Monitor, Objective, ParameterSet, Role, Start, named};
use crate::config::{EncoderConfig, PredictorConfig};
use crate::encoder::{Encoder, tubelets};
use crate::error::{ConfigError, ShapeError};
use crate::init;
use crate::layers::gather_tokens;
use crate::params::NamedTensors;
use crate::predictor::Predictor;

/// Added to a deviation (VideoMAE) or a variance (MAE).
const EPS: f64 = 1e-6;

/// Pixels as targets, over modules of given sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    /// Sizes of the encoder.
    pub encoder: EncoderConfig,
    /// Sizes of the predictor; it makes [`EncoderConfig::patch_values`] values per token.
    pub predictor: PredictorConfig,
    /// Mask generators.
    pub generators: usize,
    /// What of the pixels.
    pub targets: PixelTargets,
}

/// Which values of a token are its target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelTargets {
    /// How they are normalised.
    pub definition: PixelTarget,
    /// What each channel of the clips was divided by when they were prepared; VideoMAE's definition takes pixels in 0 to 1.
    /// Ones where that is not known, as with standardised clips: its epsilon is then one of prepared values.
    pub std: [f64; 3],
}

/// Its modules.
#[derive(Module, Debug)]
pub struct PixelModel {
    /// Sees the context.
    pub encoder: Encoder,
    /// Predicts pixels from it.
    pub predictor: Predictor,
}

impl Pixels {
    /// The objective of a `loss` section.
    pub fn new(loss: &LossConfig, models: &Models) -> Self {
        let Models { encoder, predictor, generators, normalization, .. } = models.clone();
        let predictor = PredictorConfig { output_dim: Some(encoder.patch_values()), ..predictor };
        let std = normalization.statistics().map_or([1.0; 3], |(_, std)| std.map(f64::from));
        let targets = PixelTargets { definition: loss.pixel_target, std };
        Self { encoder, predictor, generators, targets }
    }
}

impl PixelTargets {
    /// Targets of prepared clips `f32[B, C, T, H, W]`: `f32[B, N, dt·dy·dx·C]`, the colour fastest. Both definitions use unbiased
    /// deviations; see [`PixelTarget`]. Sources: MCG-NJU/VideoMAE `engine_for_pretraining.py`, facebookresearch/mae
    /// `models_mae.py`.
    pub fn of(&self, clips: Tensor<5>, [tubelet, patch]: [usize; 2]) -> Tensor<3> {
        let channels = clips.dims()[1];
        let device = clips.device();
        let values = tubelets(clips, tubelet, patch); // [B, N, C·P]
        let [batch, tokens, width] = values.dims();
        let pixels = width / channels.max(1);
        let apart = values.reshape([batch, tokens, channels, pixels]); // [B, N, C, P]
        let colour_last = |x: Tensor<4>| x.swap_dims(2, 3).reshape([batch, tokens, width]); // [B, N, P·C]
        match self.definition {
            PixelTarget::Mae => {
                let values = colour_last(apart); // [B, N, P·C]
                let centred = values.clone() - values.mean_dim(2);
                let variance = (centred.clone() * centred.clone()).sum_dim(2).div_scalar(unbiased(width)); // [B, N, 1]
                centred / variance.add_scalar(EPS).sqrt()
            }
            PixelTarget::Videomae => {
                let centred = apart.clone() - apart.mean_dim(3);
                let variance = (centred.clone() * centred.clone()).sum_dim(3).div_scalar(unbiased(pixels)); // [B, N, C, 1]
                // (x·s - mean(x·s)) / (s·deviation + eps), with both halves divided by s.
                let eps = self.std.iter().take(channels).map(|std| Tensor::<4>::full([1, 1, 1, 1], EPS / std, &device));
                let eps = Tensor::cat(eps.collect(), 2); // [1, 1, C, 1]
                colour_last(centred / (variance.sqrt() + eps))
            }
        }
    }

    /// Mean of the squared differences between predictions `[B, K, V]` and the targets `[B, N, V]` at `index` `[B, K]`: `[1]`.
    pub fn error(predictions: Tensor<3>, targets: Tensor<3>, index: Tensor<2, Int>) -> Tensor<1> {
        let error = predictions - gather_tokens(targets, index);
        (error.clone() * error).mean_dim(2).mean() // [B, K, 1], [1]
    }
}

/// What a sum of squares is divided by; the variance of a single value is 0 however it is divided.
fn unbiased(count: usize) -> f64 {
    count.saturating_sub(1).max(1) as f64
}

impl Objective for Pixels {
    type Model = PixelModel;

    fn declaration(&self) -> Declaration {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.encoder;
        let PixelTargets { definition, std } = self.targets;
        let mut settings = vec![("loss.pixel_target", definition.name().to_owned())];
        if definition == PixelTarget::Videomae {
            settings.push(("data.normalization", format!("{std:?}")));
        }
        Declaration {
            clip: [channels, num_frames, height, width],
            others: Vec::new(),
            inputs: Declaration::masked_clips(self.generators),
            sets: vec![
                ParameterSet { name: "encoder", shapes: self.encoder.parameter_shapes(), role: Role::Trained },
                ParameterSet { name: "predictor", shapes: self.predictor.parameter_shapes(), role: Role::Trained },
            ],
            terms: Vec::new(),
            context_share: None,
            monitor: Monitor { gradient: "encoder", features: "encoder" },
            settings,
        }
    }

    fn model(&self, device: &Device) -> Result<PixelModel, ConfigError> {
        let (got, want) = (self.predictor.predicted_dim(), self.encoder.patch_values());
        if got != want || self.predictor.predicts_context {
            let rule = format!("must be the values of a token, {want}, to predict pixels: got {got}");
            return Err(ConfigError::new("output_dim", rule));
        }
        Ok(PixelModel {
            encoder: Encoder::empty(&self.encoder, device)?,
            predictor: Predictor::empty(&self.predictor, device)?,
        })
    }

    fn initial(&self, Start { init, zero_mask_tokens, seed }: Start) -> NamedTensors {
        named([
            ("encoder", init::encoder(&self.encoder, init, seed)),
            ("predictor", init::predictor(&self.predictor, init, zero_mask_tokens, seed.wrapping_add(1))),
        ])
    }

    fn losses(&self, model: &PixelModel, batch: &Batch) -> Result<Losses, ShapeError> {
        ShapeError::require(!batch.pairs.is_empty(), "the mask pairs", &[0], || "at least one pair".to_owned())?;
        let EncoderConfig { tubelet, patch, .. } = self.encoder;
        let targets = self.targets.of(batch.target.clone(), [tubelet, patch]); // [B, N, V]
        let mut errors = Vec::with_capacity(batch.pairs.len());
        for (index, pair) in batch.pairs.iter().enumerate() {
            let z = predicted(&model.encoder, &model.predictor, batch.context.clone(), pair, [index, 0])?; // [B, K, V]
            errors.push(PixelTargets::error(z, targets.clone(), pair.target.clone()));
        }
        let share = 1.0 / errors.len() as f64;
        let Some(sum) = errors.into_iter().reduce(|a, b| a + b) else { unreachable!("there is a pair") };
        Ok(Losses { loss: sum.mul_scalar(share), terms: Vec::new() })
    }

    /// The encoder's tokens.
    fn monitored(&self, model: &PixelModel, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        model.encoder.forward(clips, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    /// Two tokens of 2 frames of 1 x 1 pixels; by hand.
    #[test]
    fn both_definitions_by_hand() {
        let device = Device::flex();
        // [1, 3, 2, 1, 2]: red 0 1 | 4 1 (frames), green 1 0 | 1 0, blue 2 2 | 2 4.
        let values = vec![0f32, 1.0, 4.0, 1.0, 1.0, 0.0, 1.0, 0.0, 2.0, 2.0, 2.0, 4.0];
        let clip = || Tensor::<5>::from_data(TensorData::new(values.clone(), [1, 3, 2, 1, 2]), &device);
        let of = |definition, std| {
            let targets = PixelTargets { definition, std }.of(clip(), [2, 1]);
            assert_eq!(targets.dims(), [1, 2, 6]);
            targets.into_data().try_into_vec_as::<f32>().unwrap()
        };
        let near = |got: &[f32], want: &[f64]| {
            assert!(got.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5), "{got:?} {want:?}");
        };
        // The first token: red 0, 4; green 1, 1; blue 2, 2. Deviations sqrt(8), 0, 0.
        let half = 0.5f64.sqrt();
        let each = of(PixelTarget::Videomae, [0.2, 0.2, 0.2]);
        near(&each[..6], &[-half, 0.0, 0.0, half, 0.0, 0.0]);
        // As a whole: 0 1 2 4 1 2, mean 10/6, sum of squares 26 - 100/6, over 5.
        let whole = of(PixelTarget::Mae, [1.0; 3]);
        let (mean, deviation) = (10.0 / 6.0, ((26.0 - 100.0 / 6.0) / 5.0f64).sqrt());
        near(&whole[..6], &[0.0, 1.0, 2.0, 4.0, 1.0, 2.0].map(|x: f64| (x - mean) / deviation));
    }

    /// The epsilon is one of pixels in 0 to 1, whatever they were divided by.
    #[test]
    fn small_deviations_are_those_of_pixels() {
        let device = Device::flex();
        let values = vec![1e-3f32, -1e-3, 0.0, 0.0, 0.0, 0.0];
        let clip = Tensor::<5>::from_data(TensorData::new(values, [1, 3, 2, 1, 1]), &device);
        let targets = PixelTargets { definition: PixelTarget::Videomae, std: [1e-3, 1.0, 1.0] }.of(clip, [2, 1]);
        let got = targets.into_data().try_into_vec_as::<f32>().unwrap();
        // Pixels are 1e-6 and -1e-6: deviation sqrt(2) 1e-6, plus 1e-6.
        assert!((f64::from(got[0]) - 1.0 / (2f64.sqrt() + 1.0)).abs() < 1e-5, "{got:?}");
    }
}
