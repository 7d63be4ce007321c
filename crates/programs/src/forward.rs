//! The forward graphs: encoder, predictor, probe, and pre-training objectives.

mod deployed;
mod objectives;

pub use deployed::{DeployedHead, deployed, deployed_views, frozen};
pub use objectives::{diagnose, monitored, pixels, pretrain, tuned_logits};

use super::CompileError;
use burn::module::Param;
use burn::tensor::Tensor;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::trace::{Scope, TraceError, trace};
use vjepa_graphs::{
    ActionClassifier, AttentiveClassifier, Embedded, Encoder, EncoderConfig, LinearProbe, Modality, ParameterVisitor,
    Predictor, PredictorConfig, Probe, ProbeConfig, TunedClassifier, cross_entropy, normalised_targets,
    visit_parameters,
};

/// `encoder[B]`: `clip f32[B, C, T, H, W]` to `encoder_out f32[B, N, D]`; parameters under `prefix` (`encoder.`).
///
/// # Errors
/// [`CompileError`].
pub fn encoder(config: &EncoderConfig, prefix: &str) -> Result<Graph, CompileError> {
    traced("encoder", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        let out = model.forward(clip, None).map_err(failed)?;
        scope.output("encoder_out", &out)
    })
}

/// `encoder_masked[B, K]`: like [`encoder`], over the tokens that `mask_enc i32[B, K]` keeps: `encoder_out f32[B, K, D]`.
///
/// # Errors
/// [`CompileError`].
pub fn encoder_masked(config: &EncoderConfig, prefix: &str) -> Result<Graph, CompileError> {
    traced("encoder_masked", &["B", "K"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        let [batch, kept] = ["B", "K"].map(|symbol| scope.size(symbol));
        let mask = scope.index("mask_enc", [batch, kept])?;
        let out = model.forward(clip, Some(mask)).map_err(failed)?;
        scope.output("encoder_out", &out)
    })
}

/// `levels[B]`, or `levels[B, K]` with a mask: like [`encoder`] and [`encoder_masked`], with an encoder's levels side by side:
/// `encoder_levels f32[B, N or K, L·D]`. Without a mask also `patch_embed f32[B, N, D]`, before positions and modality, of an
/// image or a video as the config's clip is.
///
/// # Errors
/// [`CompileError`].
pub fn levels(config: &EncoderConfig, prefix: &str, masked: bool) -> Result<Graph, CompileError> {
    let symbols: &[&str] = if masked { &["B", "K"] } else { &["B"] };
    traced("levels", symbols, |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        let mask = match masked {
            true => Some(scope.index("mask_enc", [scope.size("B"), scope.size("K")])?),
            false => None,
        };
        if !masked {
            let embed = model.patch_embed_img.as_ref().filter(|_| config.is_image(config.num_frames));
            scope.output("patch_embed", &embed.unwrap_or(&model.patch_embed).forward(clip.clone()))?;
        }
        scope.output("encoder_levels", &model.forward_levels(clip, mask).map_err(failed)?)
    })
}

/// `targets[B]`: what training predicts, `clip f32[B, C, T, H, W]` to `targets f32[B, N, L·D]`, each level normalised.
///
/// # Errors
/// [`CompileError`].
pub fn targets(config: &EncoderConfig, prefix: &str) -> Result<Graph, CompileError> {
    traced("targets", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        scope.output("targets", &normalised_targets(&model, clip).map_err(failed)?)
    })
}

/// Like [`predictor`], of either modality, and with `predictor_context_out f32[B, N_ctx, out]` of a predictor that predicts
/// the context too.
///
/// # Errors
/// [`CompileError`].
pub fn predictions(config: &PredictorConfig, mask_index: usize, modality: Modality) -> Result<Graph, CompileError> {
    traced("predictor", &["B", "N_ctx", "N_pred"], |scope| {
        let model = Predictor::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "predictor.")?;
        let [batch, kept, wanted] = ["B", "N_ctx", "N_pred"].map(|symbol| scope.size(symbol));
        let context = scope.input("context", [batch, kept, config.input_dim()])?;
        let masks = [scope.index("mask_enc", [batch, kept])?, scope.index("mask_pred", [batch, wanted])?];
        let out = model.predict(context, masks, mask_index, modality).map_err(failed)?;
        scope.output("predictor_out", &out.targets)?;
        match out.context {
            Some(context) => scope.output("predictor_context_out", &context),
            None => Ok(()),
        }
    })
}

/// `actions[B, N]`: `features f32[B, N, D]` of a clip and its future to the logits of what happens next, `verb`, `noun` and
/// `action`, `f32[B, classes]` each. Parameters under `probe.`.
///
/// # Errors
/// [`CompileError`].
pub fn actions(config: &ProbeConfig, classes: [usize; 3]) -> Result<Graph, CompileError> {
    traced("actions", &["B", "N"], |scope| {
        let model = ActionClassifier::empty(config, classes, scope.device()).map_err(failed)?;
        declare(scope, &model, "probe.")?;
        let [batch, tokens] = ["B", "N"].map(|symbol| scope.size(symbol));
        let features = scope.input("features", [batch, tokens, config.embed_dim])?;
        let logits = model.forward(features).map_err(failed)?;
        ["verb", "noun", "action"].into_iter().zip(&logits).try_for_each(|(name, logits)| scope.output(name, logits))
    })
}

/// Like [`encoder`], with an output `layer_<i>` for each of the config's `out_layers`, `after_block0` and `patch_embed`
/// without the final norm, and the first block's turned `block0_q_rot` and `block0_k_rot`, `f32[B, heads, N, d]`, where
/// positions are rotary, for comparison with golden data.
///
/// # Errors
/// [`CompileError`].
pub fn layers(config: &EncoderConfig, prefix: &str) -> Result<Graph, CompileError> {
    traced("layers", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        scope.output("patch_embed", &model.patch_embed.forward(clip.clone()))?;
        if let Some(block) = model.blocks.first() {
            let Embedded { tokens, angles } = model.embed(clip.clone(), None).map_err(failed)?;
            if angles.is_some() {
                let [q, k, _] = block.attn.heads(block.norm1.forward(tokens.clone()), angles.as_ref());
                scope.output("block0_q_rot", &q)?;
                scope.output("block0_k_rot", &k)?;
            }
            scope.output("after_block0", &block.forward(tokens, angles.as_ref()))?;
        }
        let wanted = config.out_layers.clone().unwrap_or_default();
        for (layer, out) in wanted.iter().zip(model.forward_layers(clip, None).map_err(failed)?) {
            scope.output(&format!("layer_{layer}"), &out)?;
        }
        Ok(())
    })
}

/// `joined[B]`: like [`encoder`], with the tokens after each of the config's `out_layers`, those of one block after those of
/// the one before: `encoder_out f32[B, L·N, D]`.
///
/// # Errors
/// [`CompileError`].
pub fn joined_layers(config: &EncoderConfig, prefix: &str) -> Result<Graph, CompileError> {
    traced("joined", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, prefix)?;
        let clip = clip(scope, config)?;
        let layers = model.forward_layers(clip, None).map_err(failed)?;
        scope.output("encoder_out", &Tensor::cat(layers, 1))
    })
}

/// `predictor[B, N_ctx, N_pred]`: `context f32[B, N_ctx, D]`, `mask_enc i32[B, N_ctx]` and `mask_pred i32[B, N_pred]` to
/// `predictor_out f32[B, N_pred, D]` with mask token `mask_index`; parameters under `predictor.`.
///
/// # Errors
/// [`CompileError`].
pub fn predictor(config: &PredictorConfig, mask_index: usize) -> Result<Graph, CompileError> {
    traced("predictor", &["B", "N_ctx", "N_pred"], |scope| {
        let model = Predictor::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "predictor.")?;
        let [batch, kept, wanted] = ["B", "N_ctx", "N_pred"].map(|symbol| scope.size(symbol));
        let context = scope.input("context", [batch, kept, config.input_dim()])?;
        let mask_context = scope.index("mask_enc", [batch, kept])?;
        let mask_target = scope.index("mask_pred", [batch, wanted])?;
        let out = model.forward(context, mask_context, mask_target, mask_index).map_err(failed)?;
        scope.output("predictor_out", &out)
    })
}

/// `probe[B, N]`: `features f32[B, N, D]` to `logits f32[B, classes]`; with `targets` also `labels f32[B, classes]`
/// (one-hot) to `loss f32[]`. Parameters under `probe.`.
///
/// # Errors
/// [`CompileError`].
pub fn probe(probe: &Probe, with_loss: bool) -> Result<Graph, CompileError> {
    traced("probe", &["B", "N"], |scope| {
        let [batch, tokens] = ["B", "N"].map(|symbol| scope.size(symbol));
        let features = scope.input("features", [batch, tokens, probe.embed_dim()])?;
        let logits = classify(scope, probe, features)?;
        if with_loss {
            let labels = scope.input("labels", [batch, probe.num_classes()])?;
            scope.output("loss", &cross_entropy(logits.clone(), labels).map_err(failed)?)?;
        }
        scope.output("logits", &logits)
    })
}

/// `pooled[B, N]`: `features f32[B, N, D]` to the token an attentive probe's linear layer reads, `pooled f32[B, 1, D]`,
/// for comparison with golden data. Parameters under `probe.`.
///
/// # Errors
/// [`CompileError`].
pub fn pooled(config: &ProbeConfig) -> Result<Graph, CompileError> {
    traced("pooled", &["B", "N"], |scope| {
        let model = AttentiveClassifier::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "probe.")?;
        let [batch, tokens] = ["B", "N"].map(|symbol| scope.size(symbol));
        let features = scope.input("features", [batch, tokens, config.embed_dim])?;
        let pooled = model.pool(features).map_err(failed)?;
        scope.output("pooled", &pooled)
    })
}

/// Tokens to logits, parameters under `probe.`.
fn classify(scope: &mut Scope<'_>, probe: &Probe, features: Tensor<3>) -> Result<Tensor<2>, TraceError> {
    match probe {
        Probe::Attentive(config) => {
            let model = AttentiveClassifier::empty(config, scope.device()).map_err(failed)?;
            declare(scope, &model, "probe.")?;
            model.forward(features).map_err(failed)
        }
        Probe::Linear { embed_dim, num_classes } => {
            let model = LinearProbe::empty(*embed_dim, *num_classes, scope.device());
            declare(scope, &model, "probe.")?;
            model.forward(features).map_err(failed)
        }
        Probe::Tuned(head) => {
            let model = TunedClassifier::empty(head, scope.device());
            declare(scope, &model, "probe.")?;
            model.forward(features, None).map_err(failed)
        }
    }
}

pub(super) fn traced(
    name: &str,
    symbols: &[&str],
    forward: impl Fn(&mut Scope<'_>) -> Result<(), TraceError>,
) -> Result<Graph, CompileError> {
    trace(name, symbols, forward).map_err(|source| CompileError::Trace { graph: name.to_owned(), source })
}

pub(super) fn failed(error: impl std::fmt::Display) -> TraceError {
    TraceError::Traced(error.to_string())
}

fn clip(scope: &mut Scope<'_>, config: &EncoderConfig) -> Result<Tensor<5>, TraceError> {
    batch_of_clips(scope, "clip", [config.channels, config.num_frames, config.height, config.width])
}

pub(super) fn batch_of_clips(
    scope: &mut Scope<'_>,
    name: &str,
    [c, t, h, w]: [usize; 4],
) -> Result<Tensor<5>, TraceError> {
    let batch = scope.size("B");
    scope.input(name, [batch, c, t, h, w])
}

/// Declares every parameter of a module under its official name.
pub(super) fn declare<M: burn::module::Module>(
    scope: &mut Scope<'_>,
    module: &M,
    prefix: &str,
) -> Result<(), TraceError> {
    struct Declare<'a, 'b> {
        scope: &'a mut Scope<'b>,
        prefix: &'a str,
        outcome: Result<(), TraceError>,
    }
    impl ParameterVisitor for Declare<'_, '_> {
        fn parameter<const D: usize>(&mut self, name: &str, parameter: &Param<Tensor<D>>) {
            if self.outcome.is_ok() {
                self.outcome = self.scope.param(&format!("{}{name}", self.prefix), &parameter.val());
            }
        }
    }
    let mut visitor = Declare { scope, prefix, outcome: Ok(()) };
    visit_parameters(module, &mut visitor);
    visitor.outcome
}
