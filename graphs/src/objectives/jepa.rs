//! V-JEPA's objective: predict the features of masked tokens, as a moving average of the encoder sees them.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::LossConfig;

use super::{Batch, Declaration, Losses, MaskPair, Models, Monitor, Objective, ParameterSet, Role, Start};
use crate::config::{EncoderConfig, PredictorConfig};
use crate::encoder::Encoder;
use crate::error::{ConfigError, ShapeError};
use crate::init;
use crate::layers::{gather_tokens, layer_norm_no_affine};
use crate::params::NamedTensors;
use crate::predictor::Predictor;

/// Epsilon of the targets' layer norm.
const TARGET_EPS: f64 = 1e-5;
/// Added to the variance under the regulariser's root.
const VARIANCE_EPS: f64 = 1e-4;

/// The released objective (`app/vjepa/train.py`) over modules of given sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Jepa {
    /// Sizes of the encoder and of the target encoder.
    pub encoder: EncoderConfig,
    /// Sizes of the predictor.
    pub predictor: PredictorConfig,
    /// Mask generators.
    pub generators: usize,
    /// The distance and the regulariser's weight.
    pub loss: JepaLoss,
}

/// Its modules. The fields' names are those of the official checkpoints.
#[derive(Module, Debug)]
pub struct JepaModel {
    /// Sees the context.
    pub encoder: Encoder,
    /// Predicts the targets from it.
    pub predictor: Predictor,
    /// Sees the whole clip; the moving average of the encoder.
    pub target_encoder: Encoder,
}

impl Jepa {
    /// The objective of a `loss` section.
    pub fn new(loss: &LossConfig, models: &Models) -> Self {
        let Models { encoder, predictor, generators } = models.clone();
        let loss = JepaLoss { loss_exp: loss.loss_exp, reg_coeff: loss.reg_coeff };
        Self { encoder, predictor, generators, loss }
    }
}

impl Objective for Jepa {
    type Model = JepaModel;

    fn declaration(&self) -> Declaration {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.encoder;
        let encoder = self.encoder.parameter_shapes();
        Declaration {
            clip: [channels, num_frames, height, width],
            inputs: Declaration::masked_clips(self.generators),
            sets: vec![
                ParameterSet { name: "encoder", shapes: encoder.clone(), role: Role::Trained },
                ParameterSet { name: "predictor", shapes: self.predictor.parameter_shapes(), role: Role::Trained },
                ParameterSet { name: "target_encoder", shapes: encoder, role: Role::Average { of: "encoder" } },
            ],
            terms: vec!["loss_jepa", "loss_reg"],
            monitor: Monitor { gradient: "encoder", features: "target_encoder" },
            settings: vec![
                ("loss.loss_exp", self.loss.loss_exp.to_string()),
                ("loss.reg_coeff", self.loss.reg_coeff.to_string()),
            ],
        }
    }

    fn model(&self, device: &Device) -> Result<JepaModel, ConfigError> {
        Ok(JepaModel {
            encoder: Encoder::empty(&self.encoder, device)?,
            predictor: Predictor::empty(&self.predictor, device)?,
            target_encoder: Encoder::empty(&self.encoder, device)?,
        })
    }

    fn initial(&self, Start { init, zero_mask_tokens, seed }: Start) -> NamedTensors {
        let predictor_seed = seed.wrapping_add(1);
        let sets = [
            ("encoder", init::encoder(&self.encoder, init, seed)),
            ("predictor", init::predictor(&self.predictor, init, zero_mask_tokens, predictor_seed)),
        ];
        let named = sets.into_iter().flat_map(|(set, tensors)| {
            tensors.into_iter().map(move |(name, tensor)| (format!("{set}.{name}"), tensor))
        });
        named.collect()
    }

    fn losses(&self, model: &JepaModel, batch: &Batch) -> Result<Losses, ShapeError> {
        let JepaModel { encoder, predictor, target_encoder } = model;
        let clips = [batch.context.clone(), batch.target.clone()];
        let out = self.loss.forward_across(encoder, predictor, target_encoder, clips, &batch.pairs)?;
        Ok(Losses { loss: out.loss, terms: vec![("loss_jepa", out.loss_jepa), ("loss_reg", out.loss_reg)] })
    }

    fn monitored(&self, model: &JepaModel, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        normalised_targets(&model.target_encoder, clips)
    }
}

/// The scalars of a training step, each `f32[1]`.
#[derive(Debug, Clone)]
pub struct JepaLosses {
    /// What is minimised: `loss_jepa + reg_coeff · loss_reg`.
    pub loss: Tensor<1>,
    /// Distance between predictions and targets.
    pub loss_jepa: Tensor<1>,
    /// How far the predictions' standard deviation over tokens falls below 1.
    pub loss_reg: Tensor<1>,
}

/// Distance and regulariser.
///
/// For each mask pair: the mean over `[B, K, D]` of `|prediction - target|^loss_exp / loss_exp`. Pairs have equal weight,
/// whatever their K.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JepaLoss {
    /// Exponent; 1 in the released recipes.
    pub loss_exp: f64,
    /// Weight of the variance regulariser; 0 in the released recipes, where it is only reported.
    pub reg_coeff: f64,
}

impl Default for JepaLoss {
    fn default() -> Self {
        Self { loss_exp: 1.0, reg_coeff: 0.0 }
    }
}

impl JepaLoss {
    /// Losses of clips `f32[B, C, T, H, W]`: targets from `target_encoder` over the whole clip, then encoder and predictor
    /// once per mask pair. Gradients flow to `encoder` and `predictor` only.
    ///
    /// # Errors
    /// [`ShapeError`] without any pair, for inputs that do not fit the models, or for fewer than two targets, whose variance
    /// is undefined.
    pub fn forward(
        &self,
        encoder: &Encoder,
        predictor: &Predictor,
        target_encoder: &Encoder,
        clips: Tensor<5>,
        pairs: &[MaskPair],
    ) -> Result<JepaLosses, ShapeError> {
        self.forward_across(encoder, predictor, target_encoder, [clips.clone(), clips], pairs)
    }

    /// The same with context and targets of different clips, `[context, target]`. A predictor that loses nothing by a wrong
    /// context does not use its context.
    ///
    /// # Errors
    /// As [`JepaLoss::forward`].
    pub fn forward_across(
        &self,
        encoder: &Encoder,
        predictor: &Predictor,
        target_encoder: &Encoder,
        [context_clips, target_clips]: [Tensor<5>; 2],
        pairs: &[MaskPair],
    ) -> Result<JepaLosses, ShapeError> {
        ShapeError::require(!pairs.is_empty(), "the mask pairs", &[0], || "at least one pair".to_owned())?;
        let targets = normalised_targets(target_encoder, target_clips)?; // [B, N, D]
        let mut predictions = Vec::with_capacity(pairs.len());
        for (index, pair) in pairs.iter().enumerate() {
            ShapeError::require(pair.target.dims()[1] > 1, "the target mask", &pair.target.dims(), || {
                "[B, K] with K at least 2".to_owned()
            })?;
            let context = encoder.forward(context_clips.clone(), Some(pair.context.clone()))?; // [B, Kc, D]
            let z = predictor.forward(context, pair.context.clone(), pair.target.clone(), index)?; // [B, K, D]
            predictions.push((z, gather_tokens(targets.clone(), pair.target.clone())));
        }
        Ok(self.combine(predictions))
    }

    /// The losses from predictions and targets `[B, K, D]`, one pair per mask generator (K may differ between pairs).
    fn combine(&self, pairs: Vec<(Tensor<3>, Tensor<3>)>) -> JepaLosses {
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
        JepaLosses { loss, loss_jepa, loss_reg }
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

/// Targets of clips `f32[B, C, T, H, W]`: the target encoder's output over all tokens, layer-normalised once more without
/// weight and bias (eps 1e-5) and detached from the gradient: `f32[B, N, D]`.
///
/// # Errors
/// [`ShapeError`] for clips of another shape.
pub fn normalised_targets(target_encoder: &Encoder, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    let tokens = target_encoder.forward(clips, None)?; // [B, N, D]
    Ok(layer_norm_no_affine(tokens, TARGET_EPS).detach())
}
