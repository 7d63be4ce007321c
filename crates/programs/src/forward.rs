//! The forward graphs: encoder, predictor, probe, and pre-training objectives.

use super::CompileError;
use burn::module::Param;
use burn::tensor::Tensor;
use std::cell::RefCell;
use std::error::Error;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::trace::{Scope, TraceError, trace};
use vjepa_graphs::objectives::{Batch, Built, Input, Source};
use vjepa_graphs::{
    AnyObjective, AttentiveClassifier, Encoder, EncoderConfig, LinearProbe, ParameterVisitor, Predictor,
    PredictorConfig, Probe, ProbeConfig, averaged_views, cross_entropy, joined_segments, visit_parameters,
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

/// Like [`encoder`], with an output `layer_<i>` for each of the config's `out_layers`, and `after_block0` and `patch_embed`
/// without the final norm, for comparison with golden data.
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

/// The output of a deployed model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
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
/// [`CompileError`]; [`CompileError::Head`] for a head that needs another probe, or no `out_layers`.
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

/// `pretrain[B, N_ctx0, N_pred0, ...]`: an objective's losses, with the inputs and parameters that it declares; outputs
/// `loss` and its terms, each `f32[]`.
///
/// # Errors
/// [`CompileError`].
pub fn pretrain(objective: &AnyObjective) -> Result<Graph, CompileError> {
    losses("pretrain", objective, &objective.declaration().inputs)
}

/// `diagnose[B, N_ctx0, N_pred0, ...]`: like [`pretrain`], with context and targets of different clips: the inputs
/// [`Declaration::inputs_apart`](vjepa_graphs::Declaration::inputs_apart).
///
/// # Errors
/// [`CompileError`].
pub fn diagnose(objective: &AnyObjective) -> Result<Graph, CompileError> {
    losses("diagnose", objective, &objective.declaration().inputs_apart())
}

/// `monitored[B]`: the features an objective watches for collapse, `clip f32[B, C, T, H, W]` to `features f32[B, N, D]`, with
/// the parameters of that set.
///
/// # Errors
/// [`CompileError`].
pub fn monitored(objective: &AnyObjective) -> Result<Graph, CompileError> {
    let declaration = objective.declaration();
    let set = format!("{}.", declaration.monitor.features);
    traced("monitored", &["B"], |scope| {
        let built = objective.build(scope.device()).map_err(failed)?;
        declare_built(scope, &built, |name| name.starts_with(&set))?;
        let clips = batch_of_clips(scope, "clip", declaration.clip)?;
        scope.output("features", &built.monitored(clips).map_err(failed)?)
    })
}

/// An objective's losses over these inputs.
fn losses(name: &str, objective: &AnyObjective, inputs: &[Input]) -> Result<Graph, CompileError> {
    let clip = objective.declaration().clip;
    let symbol = |input: &Input| match input.source {
        Source::Clips(_) => None,
        Source::Indices(indices) => Some(indices.symbol()),
    };
    let symbols: Vec<String> = inputs.iter().filter_map(symbol).collect();
    let symbols: Vec<&str> = std::iter::once("B").chain(symbols.iter().map(String::as_str)).collect();
    traced(name, &symbols, |scope| {
        let built = objective.build(scope.device()).map_err(failed)?;
        declare_built(scope, &built, |_| true)?;
        // Both closures declare inputs.
        let scope = RefCell::new(scope);
        let batch = Batch::gather::<Box<dyn Error + Send + Sync>>(
            inputs,
            |name, _| Ok(batch_of_clips(&mut scope.borrow_mut(), name, clip)?),
            |name, indices| {
                let mut scope = scope.borrow_mut();
                let shape = [scope.size("B"), scope.size(&indices.symbol())];
                Ok(scope.index(name, shape)?)
            },
        );
        let out = built.losses(&batch.map_err(failed)?).map_err(failed)?;
        let scope = scope.into_inner();
        scope.output("loss", &out.loss)?;
        out.terms.iter().try_for_each(|(name, term)| scope.output(name, term))
    })
}

/// Declares the wanted parameters of an objective's modules, by their full names.
fn declare_built(scope: &mut Scope<'_>, built: &Built, wanted: impl Fn(&str) -> bool) -> Result<(), TraceError> {
    let mut outcome = Ok(());
    built.visit(wanted, |name, tensor| {
        if outcome.is_ok() {
            outcome = scope.param_of_any_rank(name, tensor);
        }
    });
    outcome
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
    batch_of_clips(scope, "clip", [config.channels, config.num_frames, config.height, config.width])
}

fn batch_of_clips(scope: &mut Scope<'_>, name: &str, [c, t, h, w]: [usize; 4]) -> Result<Tensor<5>, TraceError> {
    let batch = scope.size("B");
    scope.input(name, [batch, c, t, h, w])
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
