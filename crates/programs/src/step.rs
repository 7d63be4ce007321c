//! The training steps: forward, gradients, clipping, AdamW and moving averages in one graph.

use super::forward;
use super::{CompileError, Passes, Precision};
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::{Dim, Graph, GraphError, TensorType, ValueId};
use vjepa_compiler::optimizer::{ClipGroup, TrainSpec, append_optimizer};
use vjepa_compiler::passes::Recomputed;
use vjepa_graphs::objectives::decays_officially;
use vjepa_graphs::{AnyObjective, Probe, is_frozen};

/// Constants of the optimiser that are compiled in; rates are inputs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainOptions {
    /// AdamW's betas.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Whether the gradients are outputs too, `grad/<parameter>`.
    pub export_gradients: bool,
    /// What the backward pass recomputes instead of keeping it.
    pub recompute: Option<Recomputed>,
    /// Precision of products.
    pub precision: Precision,
    /// Whether everything decays, biases and norms too, as in V-JEPA 2's probes.
    pub decay_all: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            betas: [0.9, 0.999],
            eps: 1e-8,
            export_gradients: false,
            recompute: Some(Recomputed::Elementwise),
            precision: Precision::F32,
            decay_all: false,
        }
    }
}

/// The training step of an objective: [`pretrain`](super::pretrain) with gradients, clipping per trained set (outputs
/// `grad_norm.<set>`, input `max_norm`), AdamW (inputs `lr`, `wd`, `c1`, `c2`) and the moving averages (input `momentum`,
/// where there are any).
///
/// # Errors
/// [`CompileError`].
pub fn step(objective: &AnyObjective, options: TrainOptions) -> Result<Graph, CompileError> {
    step_with(objective, options, &mut Passes::default())
}

/// Like [`step`], with a choice of passes and a record of what they did.
///
/// # Errors
/// [`CompileError`].
pub fn step_with(objective: &AnyObjective, options: TrainOptions, passes: &mut Passes) -> Result<Graph, CompileError> {
    let mut graph = Graph::default();
    passes.stage("trace", &mut graph, |graph| {
        *graph = forward::pretrain(objective)?;
        Ok::<_, CompileError>(())
    })?;
    graph.name = "step".to_owned();
    let declaration = objective.declaration();
    let groups: Vec<&str> = declaration.trained().map(|set| set.name).collect();
    let averages = declaration.averages().flat_map(|(average, of)| pairs(&graph, average.name, of)).collect();
    train(graph, &groups, averages, &|name, rank| objective.decays(name, rank), options, passes)
}

/// The optimiser alone: gradients are the inputs `grad/<parameter>`; otherwise like [`step`]. For gradients computed
/// elsewhere.
///
/// # Errors
/// [`CompileError`].
pub fn optimizer(objective: &AnyObjective, options: TrainOptions) -> Result<Graph, CompileError> {
    let mut graph = Graph::new("optimizer", &[]);
    let mut spec =
        TrainSpec { beta1: options.betas[0], beta2: options.betas[1], eps: options.eps, ..Default::default() };
    let declaration = objective.declaration();
    for set in declaration.trained() {
        let mut params = Vec::new();
        for (name, shape) in set.shapes.iter().filter(|(name, _)| !is_frozen(name)) {
            let full = format!("{}.{name}", set.name);
            let ty = TensorType::f32(shape.iter().copied().map(Dim::from));
            let param = graph.param(&full, ty.clone())?;
            let gradient = graph.input(&format!("grad/{full}"), ty.clone())?;
            for (average, _) in declaration.averages().filter(|(_, of)| *of == set.name) {
                let target = graph.param(&format!("{}.{name}", average.name), ty.clone())?;
                spec.ema.push((target, param));
            }
            if objective.decays(&full, ty.rank()) {
                spec.decay.push(param);
            }
            spec.gradients.push((param, gradient));
            params.push(param);
        }
        spec.clip.push(ClipGroup { name: set.name.to_owned(), params });
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
    train(graph, &["probe"], Vec::new(), &decays_officially, options, &mut Passes::default())
}

/// Whether weight decay applies to a parameter, by its full name and rank.
type Decays<'a> = &'a dyn Fn(&str, usize) -> bool;

/// From a forward graph with the output `loss` to a training step. `groups` are the trained sets, `averages` the
/// `(average, source)` pairs of parameters.
fn train(
    graph: Graph,
    groups: &[&str],
    averages: Vec<(String, String)>,
    decays: Decays<'_>,
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
    let decays =
        |id: &ValueId| options.decay_all || decays(graph.source_name(*id).unwrap_or_default(), graph.ty(*id).rank());
    let ema = averages.iter().filter_map(|(average, source)| Some((graph.find(average)?, graph.find(source)?)));
    let spec = TrainSpec {
        decay: trained.iter().copied().filter(decays).collect(),
        gradients: trained.iter().copied().zip(gradients).collect(),
        clip,
        ema: ema.collect(),
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

/// `(average, source)` names of the learned parameters of a set and of the set that averages it.
fn pairs(graph: &Graph, average: &str, source: &str) -> Vec<(String, String)> {
    let prefix = format!("{source}.");
    let named = learned(graph, &prefix).filter_map(|id| {
        let name = graph.source_name(id)?;
        Some((format!("{average}.{}", name.strip_prefix(&prefix)?), name.to_owned()))
    });
    named.collect()
}
