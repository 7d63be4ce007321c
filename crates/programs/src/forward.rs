//! The forward graphs: encoder, predictor, probe, and the pre-training objective.

use super::CompileError;
use burn::module::Param;
use burn::tensor::Tensor;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::trace::{Scope, TraceError, trace};
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, LinearProbe, MaskPair, ParameterVisitor, Predictor, PredictorConfig,
    PretrainLoss, Probe, ProbeConfig, averaged_views, cross_entropy, joined_segments, normalised_targets,
    visit_parameters,
};
use vjepa_runtime::ClipViews;

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

/// `encoder_masked[B, K]`: like [`encoder`], of the tokens that `mask_enc i32[B, K]` keeps: `encoder_out f32[B, K, D]`.
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

/// Like [`encoder`], after each of the config's `out_layers`: outputs `layer_<i>`, and `after_block0` and `patch_embed`
/// without norm, for comparison with golden data.
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
            let embedded = model.embed(clip.clone(), None).map_err(failed)?;
            scope.output("after_block0", &block.forward(embedded))?;
        }
        let wanted = config.out_layers.clone().unwrap_or_default();
        for (layer, out) in wanted.iter().zip(model.forward_layers(clip, None).map_err(failed)?) {
            scope.output(&format!("layer_{layer}"), &out)?;
        }
        Ok(())
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
        let context = scope.input("context", [batch, kept, config.encoder_dim])?;
        let mask_context = scope.index("mask_enc", [batch, kept])?;
        let mask_target = scope.index("mask_pred", [batch, wanted])?;
        let out = model.forward(context, mask_context, mask_target, mask_index).map_err(failed)?;
        scope.output("predictor_out", &out)
    })
}

/// `targets[B]`: the layer-normalised tokens of the target encoder, `targets f32[B, N, D]`; parameters under
/// `target_encoder.`.
///
/// # Errors
/// [`CompileError`].
pub fn targets(config: &EncoderConfig) -> Result<Graph, CompileError> {
    traced("targets", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "target_encoder.")?;
        let clip = clip(scope, config)?;
        let out = normalised_targets(&model, clip).map_err(failed)?;
        scope.output("targets", &out)
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

/// `frozen[B]`: what is deployed. `clip f32[B, C, T, H, W]` to `logits f32[B, classes]` through encoder and probe, or
/// without a probe to `encoder_out f32[B, N, D]`; parameters under `encoder.` and `probe.`.
///
/// # Errors
/// [`CompileError`].
pub fn frozen(config: &EncoderConfig, probe: Option<&Probe>) -> Result<Graph, CompileError> {
    traced("frozen", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let clip = clip(scope, config)?;
        let features = model.forward(clip, None).map_err(failed)?;
        match probe {
            None => scope.output("encoder_out", &features),
            Some(probe) => {
                let logits = classify(scope, probe, features)?;
                scope.output("logits", &logits)
            }
        }
    })
}

/// What a deployed model gives for a clip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// `logits f32[B, classes]` of the probe.
    Probe,
    /// `features f32[B, D]`, the mean of the tokens.
    Features,
    /// `pooled f32[B, D]`, the token that an attentive probe's linear layer reads.
    Pooled,
    /// `encoder_out f32[B, N, D]`, all tokens.
    Tokens,
}

/// `deployed[B]` of several clips and views, as the official evaluations make a prediction: `clip f32[B, V·K, 3, T, H, W]`,
/// the K clips of a view one after the other, to `probabilities f32[B, classes]`.
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
        let tokens = model.forward(clips, None).map_err(failed)?; // [B·V·K, N, D]
        let tokens = joined_segments(tokens, clip_views.clips).map_err(failed)?; // [B·V, K·N, D]
        let logits = classify(scope, probe, tokens)?; // [B·V, classes]
        scope.output("probabilities", &averaged_views(logits, clip_views.views).map_err(failed)?)
    })
}

/// `deployed[B]`: encoder and head. With the config's `out_layers`, tokens or features after each of these blocks, as
/// `layer_<i>`.
///
/// # Errors
/// [`CompileError`]; [`CompileError::Head`] for a head that probe or layers do not give.
pub fn deployed(config: &EncoderConfig, probe: Option<&Probe>, head: Head) -> Result<Graph, CompileError> {
    let several = config.out_layers.is_some();
    match (head, probe) {
        (Head::Probe, None) => return Err(CompileError::Head("the head `probe` needs a probe; give --probe FILE")),
        (Head::Pooled, None | Some(Probe::Linear { .. })) => {
            return Err(CompileError::Head("the head `pooled` needs an attentive probe; `features` is the mean token"));
        }
        (Head::Probe | Head::Pooled, _) if several => {
            return Err(CompileError::Head(
                "a probe reads the last block only; with --out-layers use the head `tokens` or `features`",
            ));
        }
        _ => {}
    }
    traced("deployed", &["B"], |scope| {
        let model = Encoder::empty(config, scope.device()).map_err(failed)?;
        declare(scope, &model, "encoder.")?;
        let clip = clip(scope, config)?;
        if let Some(layers) = config.out_layers.as_deref() {
            let mut wanted = layers.to_vec();
            wanted.sort_unstable();
            wanted.dedup();
            for (layer, tokens) in wanted.iter().zip(model.forward_layers(clip, None).map_err(failed)?) {
                let name = format!("layer_{layer}");
                match head {
                    Head::Features => scope.output(&name, &mean_token(tokens))?,
                    _ => scope.output(&name, &tokens)?,
                }
            }
            return Ok(());
        }
        let tokens = model.forward(clip, None).map_err(failed)?;
        match (head, probe) {
            (Head::Probe, Some(probe)) => {
                let logits = classify(scope, probe, tokens)?;
                scope.output("logits", &logits)
            }
            (Head::Pooled, Some(Probe::Attentive(config))) => {
                let model = AttentiveClassifier::empty(config, scope.device()).map_err(failed)?;
                declare(scope, &model, "probe.")?;
                let pooled = model.pool(tokens).map_err(failed)?;
                scope.output("pooled", &pooled.squeeze_dim::<2>(1))
            }
            (Head::Features, _) => scope.output("features", &mean_token(tokens)),
            _ => scope.output("encoder_out", &tokens),
        }
    })
}

/// Tokens `[B, N, D]` to their mean `[B, D]`.
fn mean_token(tokens: Tensor<3>) -> Tensor<2> {
    tokens.mean_dim(1).squeeze_dim::<2>(1)
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

/// `pretrain[B, N_ctx0, N_pred0, ...]`: the whole objective. Inputs `clip`, and `mask_enc.<i>`, `mask_pred.<i>` for each
/// mask generator; outputs `loss`, `loss_jepa` and `loss_reg`, each `f32[]`; parameters under `encoder.`, `predictor.`
/// and `target_encoder.`.
///
/// # Errors
/// [`CompileError`].
pub fn pretrain(
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    loss: PretrainLoss,
    generators: usize,
) -> Result<Graph, CompileError> {
    objective("pretrain", ["clip"; 2], encoder, predictor, loss, generators)
}

/// `diagnose[B, N_ctx0, N_pred0, ...]`: like [`pretrain`], but context and targets are of the inputs `clip_context` and
/// `clip_target`.
///
/// # Errors
/// [`CompileError`].
pub fn diagnose(
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    loss: PretrainLoss,
    generators: usize,
) -> Result<Graph, CompileError> {
    objective("diagnose", ["clip_context", "clip_target"], encoder, predictor, loss, generators)
}

/// The objective over the inputs named `clips`: what the context is of and what the targets are of.
fn objective(
    name: &str,
    clips: [&str; 2],
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    loss: PretrainLoss,
    generators: usize,
) -> Result<Graph, CompileError> {
    let names: Vec<String> = (0..generators).flat_map(|i| [format!("N_ctx{i}"), format!("N_pred{i}")]).collect();
    let symbols: Vec<&str> = std::iter::once("B").chain(names.iter().map(String::as_str)).collect();
    traced(name, &symbols, |scope| {
        let student = Encoder::empty(encoder, scope.device()).map_err(failed)?;
        let narrow = Predictor::empty(predictor, scope.device()).map_err(failed)?;
        let teacher = Encoder::empty(encoder, scope.device()).map_err(failed)?;
        declare(scope, &student, "encoder.")?;
        declare(scope, &narrow, "predictor.")?;
        declare(scope, &teacher, "target_encoder.")?;
        let context = named_clip(scope, clips[0], encoder)?;
        let target = if clips[1] == clips[0] { context.clone() } else { named_clip(scope, clips[1], encoder)? };
        let batch = scope.size("B");
        let mut pairs = Vec::with_capacity(generators);
        for i in 0..generators {
            let [kept, wanted] = [format!("N_ctx{i}"), format!("N_pred{i}")].map(|symbol| scope.size(&symbol));
            let context = scope.index(&format!("mask_enc.{i}"), [batch, kept])?;
            let target = scope.index(&format!("mask_pred.{i}"), [batch, wanted])?;
            pairs.push(MaskPair { context, target });
        }
        let out = loss.forward_across(&student, &narrow, &teacher, [context, target], &pairs).map_err(failed)?;
        scope.output("loss", &out.loss)?;
        scope.output("loss_jepa", &out.loss_jepa)?;
        scope.output("loss_reg", &out.loss_reg)
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
    }
}

fn traced(
    name: &str,
    symbols: &[&str],
    forward: impl Fn(&mut Scope<'_>) -> Result<(), TraceError>,
) -> Result<Graph, CompileError> {
    trace(name, symbols, forward).map_err(|source| CompileError::Trace { graph: name.to_owned(), source })
}

fn failed(error: impl std::fmt::Display) -> TraceError {
    TraceError::Traced(error.to_string())
}

fn clip(scope: &mut Scope<'_>, config: &EncoderConfig) -> Result<Tensor<5>, TraceError> {
    named_clip(scope, "clip", config)
}

fn named_clip(scope: &mut Scope<'_>, name: &str, config: &EncoderConfig) -> Result<Tensor<5>, TraceError> {
    let batch = scope.size("B");
    scope.input(name, [batch, config.channels, config.num_frames, config.height, config.width])
}

/// Declares every parameter of a module under its official name.
fn declare<M: burn::module::Module>(scope: &mut Scope<'_>, module: &M, prefix: &str) -> Result<(), TraceError> {
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
