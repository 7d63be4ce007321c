//! The graphs of pre-training objectives and of fine-tuning: losses over the inputs that they declare.

use super::{batch_of_clips, declare, failed, traced};
use crate::CompileError;
use burn::tensor::{Int, Tensor};
use std::error::Error;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::trace::{Scope, TraceError};
use vjepa_graphs::objectives::{
    Batch, Built, ClipUse, Declaration, Gate, Indices, Input, Inputs, Objective, PixelTargets, Source, batch_symbol,
};
use vjepa_graphs::{AnyObjective, Finetune};

/// `tuned[B]`: logits of fine-tuning in training, `clip f32[B, C, T, H, W]` and the objective's gates to `logits f32[B,
/// classes]`, for comparison with golden data. Parameters as the objective has them.
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

/// `pretrain[B, N_ctx0, N_pred0, ...]`: an objective's losses, with the inputs and parameters that it declares; outputs
/// `loss` and its terms, each `f32[]`.
///
/// # Errors
/// [`CompileError`].
pub fn pretrain(objective: &AnyObjective) -> Result<Graph, CompileError> {
    losses("pretrain", objective, &objective.declaration().inputs)
}

/// `pixels[B, K]`: prepared clips `clip f32[B, C, T, H, W]`, cut into tokens of `[frames, side]`, `predictions f32[B, K, V]`
/// and the tokens they are of, `mask_pred i32[B, K]`, to `targets f32[B, N, V]` and `loss f32[]`, for comparison with golden
/// data.
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

    fn clips(&mut self, input: &Input, _: ClipUse) -> Result<Tensor<5>, Self::Error> {
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
