//! The graphs of frozen and deployed models: an encoder with what reads it.

use super::{classify, clip, declare, failed, traced};
use crate::CompileError;
use burn::tensor::Tensor;
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{AttentiveClassifier, Encoder, EncoderConfig, Probe, ShapeError, averaged_views, joined_segments};
use vjepa_runtime::ClipViews;

/// `frozen[B]`: `clip f32[B, C, T, H, W]` to `logits f32[B, classes]` through encoder and probe, or without a probe to
/// `encoder_out f32[B, N, D]`; parameters under `encoder.` and `probe.`.
///
/// # Errors
/// [`CompileError`].
pub fn frozen(config: &EncoderConfig, probe: Option<&Probe>) -> Result<Graph, CompileError> {
    traced("frozen", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let clip = clip(scope, config)?;
        let features = tokens_for(&model, probe, clip).map_err(failed)?;
        match probe {
            None => scope.output("encoder_out", &features),
            Some(probe) => {
                let logits = classify(scope, probe, features)?;
                scope.output("logits", &logits)
            }
        }
    })
}

/// The output of a deployed model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeployedHead {
    /// `logits f32[B, classes]` of the probe.
    Probe,
    /// `features f32[B, D]`, the mean token.
    Features,
    /// `pooled f32[B, D]`, the token that an attentive probe's linear layer reads.
    Pooled,
    /// `encoder_out f32[B, N, D]`, all tokens.
    Tokens,
}

/// `deployed[B]` for several clips and views, combined as in the official evaluations: `clip f32[B, V·K, 3, T, H, W]`, with
/// the K clips of a view next to each other, to `probabilities f32[B, classes]`.
///
/// # Errors
/// [`CompileError`].
pub fn deployed_views(config: &EncoderConfig, probe: &Probe, clip_views: ClipViews) -> Result<Graph, CompileError> {
    traced("deployed", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let (batch, count) = (scope.size("B"), clip_views.count());
        let clip = [config.channels, config.num_frames, config.height, config.width];
        let clips: Tensor<6> = scope.input("clip", [batch, count, clip[0], clip[1], clip[2], clip[3]])?;
        let clips = clips.reshape([batch * count, clip[0], clip[1], clip[2], clip[3]]);
        let tokens = tokens_for(&model, Some(probe), clips).map_err(failed)?; // [B·V·K, N, D]
        // A classifier that was trained with its encoder has seen one clip at a time.
        let joined = if matches!(probe, Probe::Tuned(_)) { 1 } else { clip_views.clips };
        let tokens = joined_segments(tokens, joined).map_err(failed)?; // [B·V, K·N, D]
        let logits = classify(scope, probe, tokens)?; // [B·V, classes]
        scope.output("probabilities", &averaged_views(logits, count / joined).map_err(failed)?)
    })
}

/// `deployed[B]`: encoder and head. With the config's `out_layers`, tokens or features after each of these blocks, as
/// `layer_<i>`; a probe reads the tokens of all of them, those of one block after those of the other.
///
/// # Errors
/// [`CompileError`]; [`CompileError::Head`] for a head that needs another probe.
pub fn deployed(config: &EncoderConfig, probe: Option<&Probe>, head: DeployedHead) -> Result<Graph, CompileError> {
    match (head, probe) {
        (DeployedHead::Probe, None) => {
            return Err(CompileError::Head("the head `probe` needs a probe; give --probe FILE"));
        }
        (DeployedHead::Pooled, None | Some(Probe::Linear { .. } | Probe::Tuned(_))) => {
            return Err(CompileError::Head("the head `pooled` needs an attentive probe; `features` is the mean token"));
        }
        _ => {}
    }
    traced("deployed", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let clip = clip(scope, config)?;
        let apart =
            config.out_layers.as_deref().filter(|_| matches!(head, DeployedHead::Tokens | DeployedHead::Features));
        if let Some(layers) = apart {
            let mut wanted = layers.to_vec();
            wanted.sort_unstable();
            wanted.dedup();
            for (layer, tokens) in wanted.iter().zip(model.forward_layers(clip, None).map_err(failed)?) {
                let name = format!("layer_{layer}");
                match head {
                    DeployedHead::Features => scope.output(&name, &mean_token(tokens))?,
                    _ => scope.output(&name, &tokens)?,
                }
            }
            return Ok(());
        }
        let read = probe.filter(|_| matches!(head, DeployedHead::Probe | DeployedHead::Pooled));
        let tokens = tokens_for(&model, read, clip).map_err(failed)?;
        match (head, probe) {
            (DeployedHead::Probe, Some(probe)) => {
                let logits = classify(scope, probe, tokens)?;
                scope.output("logits", &logits)
            }
            (DeployedHead::Pooled, Some(Probe::Attentive(config))) => {
                let model = AttentiveClassifier::empty(config, scope.device()).map_err(failed)?;
                declare(scope, &model, "probe.")?;
                let pooled = model.pool(tokens).map_err(failed)?;
                scope.output("pooled", &pooled.squeeze_dim::<2>(1))
            }
            (DeployedHead::Features, _) => scope.output("features", &mean_token(tokens)),
            _ => scope.output("encoder_out", &tokens),
        }
    })
}

/// The tokens of a clip as a classifier reads them, of all `out_layers` where there are some; without one, after the final norm.
fn tokens_for(model: &Encoder, probe: Option<&Probe>, clip: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    match probe {
        Some(_) if model.config().out_layers.is_some() => Ok(Tensor::cat(model.forward_layers(clip, None)?, 1)),
        Some(probe) if !probe.reads_normed() => model.forward_gated(clip, &[], false),
        _ => model.forward(clip, None),
    }
}

/// Tokens `[B, N, D]` to their mean `[B, D]`.
fn mean_token(tokens: Tensor<3>) -> Tensor<2> {
    tokens.mean_dim(1).squeeze_dim::<2>(1)
}
