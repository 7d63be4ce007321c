//! The training steps: forward, gradients, clipping, AdamW and moving average in one graph.

use super::forward;
use super::{CompileError, Passes, Precision};
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::{Dim, Graph, GraphError, TensorType, ValueId};
use vjepa_compiler::optimizer::{ClipGroup, TrainSpec, append_optimizer};
use vjepa_compiler::passes::Recomputed;
use vjepa_graphs::Probe;
use vjepa_graphs::{EncoderConfig, PredictorConfig, PretrainLoss, is_frozen};

/// Constants of the optimiser that are compiled in; rates are inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainOptions {
    /// AdamW's betas.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Whether the gradients are outputs too, `grad/<parameter>`.
    pub export_gradients: bool,
    /// What the backward part computes again instead of keeping it.
    pub recompute: Option<Recomputed>,
    /// What products are computed in.
    pub precision: Precision,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            export_gradients: false,
            recompute: Some(Recomputed::Elementwise),
            precision: Precision::F32,
        }
    }
}

/// The pre-training step: [`forward::pretrain`] with gradients, clipping per model (`grad_norm.encoder`,
/// `grad_norm.predictor`; input `max_norm`), AdamW (inputs `lr`, `wd`, `c1`, `c2`) and the target's moving average (input
/// `momentum`). Biases and vectors do not decay; mask tokens do (FACTS: official groups).
///
/// # Errors
/// [`CompileError`].
pub fn step(
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    loss: PretrainLoss,
    generators: usize,
    options: TrainOptions,
) -> Result<Graph, CompileError> {
    step_with(encoder, predictor, loss, generators, options, &mut Passes::default())
}

/// As [`step`], with a say in which passes run and a record of what was done.
///
/// # Errors
/// [`CompileError`].
pub fn step_with(
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    loss: PretrainLoss,
    generators: usize,
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Graph, CompileError> {
    let mut graph = Graph::default();
    passes.stage("trace", &mut graph, |graph| {
        *graph = forward::pretrain(encoder, predictor, loss, generators)?;
        Ok::<_, CompileError>(())
    })?;
    graph.name = "step".to_owned();
    let groups = ["encoder", "predictor"];
    let ema = pairs(&graph, "target_encoder.", "encoder.");
    train(graph, &groups, ema, options, passes)
}

/// The optimiser alone: gradients are the inputs `grad/<parameter>`; otherwise as [`step`]. For gradients that come from
/// elsewhere.
///
/// # Errors
/// [`CompileError`].
pub fn optimizer(
    encoder: &EncoderConfig,
    predictor: &PredictorConfig,
    options: TrainOptions,
) -> Result<Graph, CompileError> {
    let mut graph = Graph::new("optimizer", &[]);
    let mut spec =
        TrainSpec { beta1: options.betas[0], beta2: options.betas[1], eps: options.eps, ..Default::default() };
    for (group, shapes) in [("encoder", encoder.parameter_shapes()), ("predictor", predictor.parameter_shapes())] {
        let mut params = Vec::new();
        for (name, shape) in shapes.into_iter().filter(|(name, _)| !is_frozen(name)) {
            let ty = TensorType::f32(shape.into_iter().map(Dim::from));
            let param = graph.param(&format!("{group}.{name}"), ty.clone())?;
            let gradient = graph.input(&format!("grad/{group}.{name}"), ty.clone())?;
            if group == "encoder" {
                let target = graph.param(&format!("target_encoder.{name}"), ty.clone())?;
                spec.ema.push((target, param));
            }
            if ty.rank() > 1 && !is_bias(&name) {
                spec.decay.push(param);
            }
            spec.gradients.push((param, gradient));
            params.push(param);
        }
        spec.clip.push(ClipGroup { name: group.to_owned(), params });
    }
    append_optimizer(&mut graph, &spec)?;
    super::optimised(&graph)
}

/// A probe's training step: cross entropy, one clipped group, AdamW.
///
/// # Errors
/// [`CompileError`].
pub fn probe_step(probe: &Probe, options: TrainOptions) -> Result<Graph, CompileError> {
    let mut graph = forward::probe(probe, true)?;
    graph.name = "probe_step".to_owned();
    train(graph, &["probe"], Vec::new(), options, &mut Passes::default())
}

fn train(
    graph: Graph,
    groups: &[&str],
    ema: Vec<(String, String)>,
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Graph, CompileError> {
    let mut graph = passes.forward(graph)?;
    let loss = graph.find_output("loss").ok_or_else(|| GraphError::Other("the graph has no loss".to_owned()))?;
    let mut trained: Vec<ValueId> = Vec::new();
    let mut clip = Vec::new();
    for group in groups {
        let prefix = format!("{group}.");
        let params: Vec<ValueId> = learned(&graph, &prefix).collect();
        trained.extend(&params);
        clip.push(ClipGroup { name: (*group).to_owned(), params });
    }
    let gradients = passes.stage("grad", &mut graph, |graph| differentiate(graph, loss, &trained))?;
    if options.export_gradients {
        for (param, gradient) in trained.iter().zip(&gradients) {
            let name = format!("grad/{}", graph.source_name(*param).unwrap_or_default());
            graph.output(&name, *gradient);
        }
    }
    let decays = |id: &ValueId| graph.ty(*id).rank() > 1 && !is_bias(graph.source_name(*id).unwrap_or_default());
    let spec = TrainSpec {
        decay: trained.iter().copied().filter(decays).collect(),
        gradients: trained.iter().copied().zip(gradients).collect(),
        clip,
        ema: ema.iter().filter_map(|(target, source)| Some((graph.find(target)?, graph.find(source)?))).collect(),
        beta1: options.betas[0],
        beta2: options.betas[1],
        eps: options.eps,
    };
    passes.stage("optimizer", &mut graph, |graph| append_optimizer(graph, &spec))?;
    passes.whole(graph, options.recompute, options.precision)
}

/// Parameters under `prefix` that are learned: all but the position tables and those nothing reads (the probe's output
/// projection exists in the official state dict but is never applied, so it gets neither a gradient nor decay).
fn learned<'a>(graph: &'a Graph, prefix: &'a str) -> impl Iterator<Item = ValueId> + 'a {
    let read: std::collections::HashSet<ValueId> =
        graph.nodes.iter().flat_map(|node| node.inputs.iter().copied()).collect();
    graph.params.iter().copied().filter(move |id| {
        let name = graph.source_name(*id).unwrap_or_default();
        name.starts_with(prefix) && !is_frozen(name) && read.contains(id)
    })
}

/// `(target, source)` names of learned parameters that differ only in their prefix.
fn pairs(graph: &Graph, target: &str, source: &str) -> Vec<(String, String)> {
    let name = |id: ValueId| graph.source_name(id).unwrap_or_default().to_owned();
    learned(graph, source).map(name).map(|from| (from.replacen(source, target, 1), from)).collect()
}

/// The official rule: no decay where `bias` occurs in the name.
fn is_bias(name: &str) -> bool {
    name.contains("bias")
}
