//! V-JEPA's objective: predict the features of masked tokens, as a moving average of the encoder sees them.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::{LossConfig, Positions};

use super::dense::Dense;
use super::{
    Batch, ClipUse, Declaration, Indices, Input, Losses, MaskPair, Models, Monitor, Objective, ParameterSet, Role,
    Source, Start, named,
};
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
    /// V-JEPA 2.1's loss, which predicts the context too.
    pub dense: Option<Dense>,
    /// Further streams of each step: clips of other lengths, or images beside videos.
    pub others: Vec<ClipStream>,
    /// Which length bucket of its group the first stream is, from 0; those of its kind among the others follow it. It chooses
    /// the mask token.
    pub bucket: usize,
}

/// Clips of one size within a step, with masks of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClipStream {
    /// Frames, height and width; as many frames as an image's token has make it a stream of images.
    pub clip: [usize; 3],
    /// Mask generators.
    pub generators: usize,
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
    /// The objective over one stream of clips, without a loss on the context.
    pub fn plain(encoder: EncoderConfig, predictor: PredictorConfig, generators: usize, loss: JepaLoss) -> Self {
        Self { encoder, predictor, generators, loss, dense: None, others: Vec::new(), bucket: 0 }
    }

    /// The objective of a `loss` section.
    pub fn new(loss: &LossConfig, models: &Models) -> Self {
        let Models { encoder, predictor, generators, context_weight, bucket, .. } = models.clone();
        let share = context_weight.filter(|_| predictor.predicts_context);
        let dense = share.map(|share| Dense { weighted: loss.weight_distance_loss, share });
        let loss = JepaLoss { loss_exp: loss.loss_exp, reg_coeff: loss.reg_coeff };
        Self { encoder, predictor, generators, loss, dense, others: Vec::new(), bucket }
    }

    /// What of the configuration is compiled in.
    fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = vec![
            ("loss.loss_exp", self.loss.loss_exp.to_string()),
            ("loss.reg_coeff", self.loss.reg_coeff.to_string()),
        ];
        settings.extend(self.dense.map(|dense| ("loss.weight_distance_loss", dense.weighted.to_string())));
        settings
    }

    /// Distance and regulariser of a batch; the last of the models sees the targets.
    pub(super) fn losses_of(&self, of: (&Encoder, &Predictor, &Encoder), batch: &Batch) -> Result<Losses, ShapeError> {
        let mut predictions = Vec::new();
        for (bucket, batch) in (self.bucket..).zip(std::iter::once(batch).chain(&batch.others)) {
            let clips = [batch.context.clone(), batch.target.clone()];
            predictions.push(self.loss.predictions(of, clips, &batch.pairs, bucket)?);
        }
        let out = self.loss.combine(predictions);
        Ok(Losses { loss: out.loss, terms: vec![("loss_jepa", out.loss_jepa), ("loss_reg", out.loss_reg)] })
    }

    /// All streams, the first one first.
    fn streams(&self) -> Vec<ClipStream> {
        let EncoderConfig { num_frames, height, width, .. } = self.encoder;
        let first = ClipStream { clip: [num_frames, height, width], generators: self.generators };
        std::iter::once(first).chain(self.others.iter().cloned()).collect()
    }

    /// `clip`, then `mask_enc.<i>`, `mask_pred.<i>` and, with a dense loss that weighs context tokens, `weights.<i>` of each
    /// mask generator; `clip<s>` of further streams, whose generators are counted on; at last `context_share`.
    fn inputs(&self) -> Vec<Input> {
        let weighted = self.dense.is_some_and(|dense| dense.weighted);
        let [_, height, width] = self.predictor.grid;
        let mut inputs = Vec::new();
        let mut first = 0;
        for (stream, ClipStream { generators, .. }) in self.streams().into_iter().enumerate() {
            let mut input = |name: String, source: Source| inputs.push(Input { name, source, stream });
            let clip = if stream == 0 { "clip".to_owned() } else { format!("clip{stream}") };
            input(clip, Source::Clips(ClipUse::Both));
            for i in first..first + generators {
                input(format!("mask_enc.{i}"), Source::Indices(Indices::Context(i)));
                input(format!("mask_pred.{i}"), Source::Indices(Indices::Target(i)));
                if weighted {
                    input(format!("weights.{i}"), Source::ContextWeights { generator: i, grid: [height, width] });
                }
            }
            first += generators;
        }
        if self.dense.is_some() {
            inputs.push(Input { name: "context_share".to_owned(), source: Source::ContextShare, stream: 0 });
        }
        inputs
    }
}

impl Objective for Jepa {
    type Model = JepaModel;

    fn declaration(&self) -> Declaration {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.encoder;
        let encoder = self.encoder.parameter_shapes();
        Declaration {
            clip: [channels, num_frames, height, width],
            others: self.others.iter().map(|ClipStream { clip: [t, h, w], .. }| [channels, *t, *h, *w]).collect(),
            inputs: self.inputs(),
            sets: vec![
                ParameterSet { name: "encoder", shapes: encoder.clone(), role: Role::Trained },
                ParameterSet { name: "predictor", shapes: self.predictor.parameter_shapes(), role: Role::Trained },
                ParameterSet { name: "target_encoder", shapes: encoder, role: Role::Average { of: "encoder" } },
            ],
            terms: match self.dense {
                Some(_) => vec!["loss_pred", "loss_context"],
                None => vec!["loss_jepa", "loss_reg"],
            },
            context_share: self.dense.map(|dense| dense.share),
            monitor: Monitor { gradient: "encoder", features: "target_encoder" },
            settings: self.settings(),
        }
    }

    fn model(&self, device: &Device) -> Result<JepaModel, ConfigError> {
        if self.dense.is_some() && self.loss.reg_coeff != 0.0 {
            let got = self.loss.reg_coeff;
            return Err(ConfigError::new(
                "reg_coeff",
                format!("must be 0, the dense loss has no regulariser: got {got}"),
            ));
        }
        let targets = self.encoder.num_levels() * self.encoder.embed_dim;
        if self.predictor.predicted_dim() != targets {
            let got = self.predictor.predicted_dim();
            let rule = format!("must be the width of the targets, {targets}, to train: got {got}");
            return Err(ConfigError::new("teacher_embed_dim", rule));
        }
        Ok(JepaModel {
            encoder: Encoder::empty(&self.encoder, device)?,
            predictor: Predictor::empty(&self.predictor, device)?,
            target_encoder: Encoder::empty(&self.encoder, device)?,
        })
    }

    fn initial(&self, Start { init, zero_mask_tokens, seed }: Start) -> NamedTensors {
        named([
            ("encoder", init::encoder(&self.encoder, init, seed)),
            ("predictor", init::predictor(&self.predictor, init, zero_mask_tokens, seed.wrapping_add(1))),
        ])
    }

    fn losses(&self, model: &JepaModel, batch: &Batch) -> Result<Losses, ShapeError> {
        if let Some(dense) = self.dense {
            return dense.losses(self.loss.loss_exp, model, batch, self.bucket);
        }
        let JepaModel { encoder, predictor, target_encoder } = model;
        self.losses_of((encoder, predictor, target_encoder), batch)
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
        clips: [Tensor<5>; 2],
        pairs: &[MaskPair],
    ) -> Result<JepaLosses, ShapeError> {
        Ok(self.combine(vec![self.predictions((encoder, predictor, target_encoder), clips, pairs, 0)?]))
    }

    /// Predictions and targets, `[B, K, L·D]` each, of the clips of one length, which is the `bucket`th of the step.
    fn predictions(
        &self,
        (encoder, predictor, target_encoder): (&Encoder, &Predictor, &Encoder),
        [context_clips, target_clips]: [Tensor<5>; 2],
        pairs: &[MaskPair],
        bucket: usize,
    ) -> Result<Vec<(Tensor<3>, Tensor<3>)>, ShapeError> {
        ShapeError::require(!pairs.is_empty(), "the mask pairs", &[0], || "at least one pair".to_owned())?;
        let targets = normalised_targets(target_encoder, target_clips)?; // [B, N, D]
        let mut predictions = Vec::with_capacity(pairs.len());
        for (index, pair) in pairs.iter().enumerate() {
            ShapeError::require(pair.target.dims()[1] > 1, "the target mask", &pair.target.dims(), || {
                "[B, K] with K at least 2".to_owned()
            })?;
            let z = predicted(encoder, predictor, context_clips.clone(), pair, [index, bucket])?; // [B, K, D]
            predictions.push((z, gather_tokens(targets.clone(), pair.target.clone())));
        }
        Ok(predictions)
    }

    /// The losses from predictions and targets `[B, K, D]`, one pair per mask generator (K may differ between pairs) of each
    /// stream (B may differ between streams). All distances count alike; the regulariser is the mean of the streams'.
    fn combine(&self, streams: Vec<Vec<(Tensor<3>, Tensor<3>)>>) -> JepaLosses {
        let share = 1.0 / streams.iter().map(Vec::len).sum::<usize>() as f64;
        let of_streams = 1.0 / streams.len() as f64;
        let (distances, deviations): (Vec<_>, Vec<_>) = streams.into_iter().map(|pairs| self.sums(pairs)).unzip();
        let sum = |terms: Vec<Tensor<1>>| terms.into_iter().reduce(|a, b| a + b);
        let Some(distance) = sum(distances) else { unreachable!("a step has at least one stream") };
        let loss_jepa = distance.mul_scalar(share);
        let regulariser = |(deviation, share): (Tensor<3>, f64)| {
            relu(deviation.mul_scalar(share).neg().add_scalar(1.0)).mean() // [B, 1, D] to [1]
        };
        let regularisers = deviations.into_iter().map(regulariser);
        let Some(loss_reg) = sum(regularisers.collect()) else { unreachable!("a step has at least one stream") };
        let loss_reg = if of_streams == 1.0 { loss_reg } else { loss_reg.mul_scalar(of_streams) };
        let loss = match self.reg_coeff {
            0.0 => loss_jepa.clone(),
            weight => loss_jepa.clone() + loss_reg.clone().mul_scalar(weight),
        };
        JepaLosses { loss, loss_jepa, loss_reg }
    }

    /// The sum of the distances of a stream's pairs, and that of their deviations, `[B, 1, D]`, with each pair's share.
    fn sums(&self, pairs: Vec<(Tensor<3>, Tensor<3>)>) -> (Tensor<1>, (Tensor<3>, f64)) {
        let share = 1.0 / pairs.len() as f64;
        let terms = pairs.into_iter().map(|(z, target)| (self.distance(z.clone(), target), token_deviation(z)));
        let sums = terms.reduce(|(distances, deviations), (distance, deviation)| {
            (distances + distance, deviations + deviation) // [1], [B, 1, D]
        });
        let Some((distance, deviation)) = sums else { unreachable!("`predictions` refuses an empty list of pairs") };
        (distance, (deviation, share))
    }

    /// Mean of `|z - target|^p / p`: `[B, K, D]` to `[1]`; recorded as sub, abs, (powf by p,) mean_dim 2, mean, (div by p).
    pub(super) fn distance(&self, z: Tensor<3>, target: Tensor<3>) -> Tensor<1> {
        // Features first, then tokens: a batch has millions of values, and one running f32 sum of them all loses digits.
        let mean = |distance: Tensor<3>| distance.mean_dim(2).mean(); // [B, K, 1], [1]
        let distance = (z - target).abs();
        match self.loss_exp {
            1.0 => mean(distance),
            p => mean(distance.powf_scalar(p)).div_scalar(p),
        }
    }
}

/// What the predictor makes of a mask pair's context: clips `f32[B, C, T, H, W]` to `f32[B, K, out]`. The pair is the
/// `index`th of the clips of one length, which are the `bucket`th of the step.
///
/// # Errors
/// [`ShapeError`] for inputs that do not fit the models.
pub(super) fn predicted(
    encoder: &Encoder,
    predictor: &Predictor,
    clips: Tensor<5>,
    pair: &MaskPair,
    [index, bucket]: [usize; 2],
) -> Result<Tensor<3>, ShapeError> {
    let context = encoder.forward_levels(clips, Some(pair.context.clone()))?; // [B, Kc, D]
    // V-JEPA 2's tokens belong to lengths of clips, not to mask generators.
    let token = match predictor.config().positions {
        Positions::Table => index,
        Positions::Rotary(_) => bucket,
    };
    predictor.forward(context, pair.context.clone(), pair.target.clone(), token)
}

/// Standard deviation over tokens, unbiased, with 1e-4 under the root: `[B, K, D]` to `[B, 1, D]`.
fn token_deviation(z: Tensor<3>) -> Tensor<3> {
    let tokens = z.dims()[1];
    let centred = z.clone() - z.mean_dim(1); // [B, K, D]
    let variance = (centred.clone() * centred).sum_dim(1).div_scalar((tokens - 1) as f64); // [B, 1, D]
    variance.add_scalar(VARIANCE_EPS).sqrt()
}

/// Targets of clips `f32[B, C, T, H, W]`: the target encoder's output over all tokens, each level layer-normalised once more
/// without weight and bias (eps 1e-5), and detached from the gradient: `f32[B, N, L·D]`.
///
/// # Errors
/// [`ShapeError`] for clips of another shape.
pub fn normalised_targets(target_encoder: &Encoder, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    let tokens = target_encoder.forward_levels(clips, None)?; // [B, N, L·D]
    let levels = target_encoder.config().num_levels();
    if levels == 1 {
        return Ok(layer_norm_no_affine(tokens, TARGET_EPS).detach());
    }
    let [batch, count, width] = tokens.dims();
    let apart = tokens.reshape([batch, count * levels, width / levels]); // [B, N·L, D]
    Ok(layer_norm_no_affine(apart, TARGET_EPS).reshape([batch, count, width]).detach()) // [B, N, L·D]
}
