//! The forward graphs: encoder, predictor, probe, and pre-training objectives.

use super::CompileError;
use burn::module::Param;
use burn::tensor::{Int, Tensor};
use std::error::Error;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::trace::{Scope, TraceError, trace};
use vjepa_graphs::objectives::{
    Batch, Built, Clips, Declaration, Gate, Indices, Input, Inputs, Objective, PixelTargets, Source, batch_symbol,
};
use vjepa_graphs::{
    ActionClassifier, AnyObjective, AttentiveClassifier, Embedded, Encoder, EncoderConfig, Finetune, LinearProbe,
    Modality, ParameterVisitor, Predictor, PredictorConfig, Probe, ProbeConfig, ShapeError, TunedClassifier,
    averaged_views, cross_entropy, joined_segments, normalised_targets, visit_parameters,
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
        let tokens = tokens_for(&model, Some(probe), clips).map_err(failed)?; // [B·V·K, N, D]
        // A classifier that was trained with its encoder has seen one clip at a time.
        let joined = if matches!(probe, Probe::Tuned(_)) { 1 } else { clip_views.clips };
        let tokens = joined_segments(tokens, joined).map_err(failed)?; // [B·V, K·N, D]
        let logits = classify(scope, probe, tokens)?; // [B·V, classes]
        scope.output("probabilities", &averaged_views(logits, count / joined).map_err(failed)?)
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
        (Head::Pooled, None | Some(Probe::Linear { .. } | Probe::Tuned(_))) => {
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
        let read = probe.filter(|_| head == Head::Probe);
        let tokens = tokens_for(&model, read, clip).map_err(failed)?;
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

/// The tokens of a clip as a classifier reads them; without one, after the final norm.
fn tokens_for(model: &Encoder, probe: Option<&Probe>, clip: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    match probe.is_none_or(Probe::reads_normed) {
        true => model.forward(clip, None),
        false => model.forward_gated(clip, &[], false),
    }
}

/// `tuned[B]`: logits of fine-tuning in training, `clip f32[B, C, T, H, W]` and the objective's gates to `logits f32[B, classes]`,
/// for comparison with golden data. Parameters as the objective has them.
///
/// # Errors
/// [`CompileError`].
pub fn tuned_logits(objective: &Finetune) -> Result<Graph, CompileError> {
    let declaration = Objective::declaration(objective);
    let erased = AnyObjective::from(objective.clone());
    let inputs: Vec<Input> =
        declaration.inputs.iter().filter(|input| !matches!(input.source, Source::Targets { .. })).cloned().collect();
    traced("tuned", &["B"], |scope| {
        let model = Objective::model(objective, scope.device()).map_err(failed)?;
        declare(scope, &model, "")?;
        let batch = Batch::gather(&inputs, &mut Recorded { scope, declaration: erased.declaration() });
        let logits = objective.logits(&model, &batch.map_err(failed)?).map_err(failed)?;
        scope.output("logits", &logits)
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

/// `pixels[B, K]`: prepared clips `clip f32[B, C, T, H, W]`, cut into tokens of `[frames, side]`, `predictions f32[B, K, V]` and the
/// tokens they are of, `mask_pred i32[B, K]`, to `targets f32[B, N, V]` and `loss f32[]`, for comparison with golden data.
///
/// # Errors
/// [`CompileError`].
pub fn pixels(targets: PixelTargets, clip: [usize; 4], token: [usize; 2]) -> Result<Graph, CompileError> {
    let [channels, ..] = clip;
    let [tubelet, patch] = token;
    traced("pixels", &["B", "K"], |scope| {
        let clips = batch_of_clips(scope, "clip", clip)?;
        let [batch, masked] = ["B", "K"].map(|symbol| scope.size(symbol));
        let predictions = scope.input("predictions", [batch, masked, channels * tubelet * patch * patch])?;
        let index = scope.index("mask_pred", [batch, masked])?;
        let wanted = targets.of(clips, token);
        // A copy is kept, so that the recording does not give the targets' memory away.
        let loss = PixelTargets::error(predictions, wanted.clone(), index);
        scope.output("targets", &wanted)?;
        scope.output("loss", &loss)
    })
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
    let declaration = objective.declaration();
    let symbol = |input: &Input| match input.source {
        Source::Clips(_) => batch_symbol(input.stream),
        Source::Indices(indices) => indices.symbol(),
        Source::ContextWeights { generator, .. } => Indices::Context(generator).symbol(),
        Source::ContextShare => batch_symbol(0),
        Source::Targets { .. } | Source::Gate(_) => batch_symbol(input.stream),
    };
    let mut symbols: Vec<String> = Vec::new();
    for input in inputs {
        let symbol = symbol(input);
        if !symbols.contains(&symbol) {
            symbols.push(symbol);
        }
    }
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    traced(name, &symbols, |scope| {
        let built = objective.build(scope.device()).map_err(failed)?;
        declare_built(scope, &built, |_| true)?;
        let batch = Batch::gather(inputs, &mut Recorded { scope, declaration });
        let out = built.losses(&batch.map_err(failed)?).map_err(failed)?;
        scope.output("loss", &out.loss)?;
        out.terms.iter().try_for_each(|(name, term)| scope.output(name, term))
    })
}

/// Inputs of an objective declared in a recording.
struct Recorded<'a, 'b> {
    scope: &'a mut Scope<'b>,
    declaration: &'a Declaration,
}

impl Inputs for Recorded<'_, '_> {
    type Error = Box<dyn Error + Send + Sync>;

    fn clips(&mut self, input: &Input, _: Clips) -> Result<Tensor<5>, Self::Error> {
        let [c, t, h, w] = self.declaration.clip_of(input.stream);
        let batch = self.scope.size(&batch_symbol(input.stream));
        Ok(self.scope.input(&input.name, [batch, c, t, h, w])?)
    }

    fn indices(&mut self, input: &Input, which: Indices) -> Result<Tensor<2, Int>, Self::Error> {
        let shape = [self.scope.size(&batch_symbol(input.stream)), self.scope.size(&which.symbol())];
        Ok(self.scope.index(&input.name, shape)?)
    }

    fn numbers(&mut self, input: &Input, weights_of: Option<usize>) -> Result<Tensor<2>, Self::Error> {
        let shape = match weights_of {
            Some(generator) => {
                let kept = self.scope.size(&Indices::Context(generator).symbol());
                [self.scope.size(&batch_symbol(input.stream)), kept]
            }
            None => [1, 1],
        };
        Ok(self.scope.input(&input.name, shape)?)
    }

    fn targets(&mut self, input: &Input, classes: usize) -> Result<Tensor<2>, Self::Error> {
        let batch = self.scope.size(&batch_symbol(input.stream));
        Ok(self.scope.input(&input.name, [batch, classes])?)
    }

    fn gate(&mut self, input: &Input, gate: Gate) -> Result<Tensor<3>, Self::Error> {
        let batch = self.scope.size(&batch_symbol(input.stream));
        Ok(self.scope.input(&input.name, [batch, 1, gate.width.unwrap_or(1)])?)
    }
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
