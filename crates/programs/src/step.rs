//! The training steps: forward, gradients, clipping, AdamW and moving averages in one graph, or in two where gradients are
//! added up over groups of clips or over processes.

use super::buckets::with_buckets;
use super::drops::draw_gates;
use super::forward;
use super::{CompileError, Passes, Precision};
use vjepa_compiler::accumulate::{SUM, append_sums};
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::ir::{Dim, Graph, GraphError, TensorType, ValueId};
use vjepa_compiler::optimizer::{ClipGroup, TrainSpec, append_optimizer};
use vjepa_compiler::passes::Recomputed;
use vjepa_graphs::objectives::decays_officially;
use vjepa_graphs::{AnyObjective, Probe, is_frozen};
use vjepa_recipe::config::Config;

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
    /// Whether an objective's gates stay inputs, for comparisons; otherwise a step draws them.
    pub gates_given: bool,
    /// Values of gradients that travel between ranks together.
    pub bucket: usize,
    /// Whether they travel while the rest of the step is computed.
    pub overlap: bool,
    /// What the lengths of mask lists are rounded up to a multiple of; none leaves them as they are drawn.
    pub mask_buckets: Option<usize>,
    /// Whether what is minimised is the loss times the input [`WEIGHT`], for clips that are a part of their group.
    pub weighted: bool,
}

/// The input that says how much a computation counts within its group, `f32[]`.
pub const WEIGHT: &str = "weight";

impl TrainOptions {
    /// The optimiser's constants and the precision of a configuration; none for float16, as [`Precision::of`].
    pub fn of(config: &Config) -> Option<Self> {
        let optimization = &config.optimization;
        Some(Self {
            betas: optimization.betas,
            eps: optimization.eps,
            precision: Precision::of(config.meta.dtype)?,
            bucket: optimization.bucket(),
            overlap: optimization.overlap,
            mask_buckets: optimization.mask_buckets,
            ..Self::default()
        })
    }
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
            gates_given: false,
            bucket: 1 << 20,
            overlap: true,
            mask_buckets: None,
            weighted: false,
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
    let graph = traced(objective, "step", options, passes)?;
    let declaration = objective.declaration();
    let groups: Vec<&str> = declaration.trained().map(|set| set.name).collect();
    let averages = declaration.averages().flat_map(|(average, of)| pairs(&graph, average.name, of)).collect();
    let rules = Rules { decays: &|name, rank| objective.decays(name, rank), rate: &|name| objective.rate(name) };
    train(graph, &groups, averages, rules, options, passes)
}

/// The first half of a step whose gradients are added up: [`pretrain`](super::pretrain) with every gradient added to the
/// parameter `grad/<parameter>`, which is to be zero before the first of a step's runs. It changes nothing else. In a run with
/// other ranks, the last of a step, these become the sums over all ranks, in buckets.
///
/// # Errors
/// [`CompileError`].
pub fn gradients_with(
    objective: &AnyObjective,
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Graph, CompileError> {
    let graph = traced(objective, "gradients", options, passes)?;
    let groups: Vec<&str> = objective.declaration().trained().map(|set| set.name).collect();
    let Differentiated { mut graph, gradients, .. } = differentiated(graph, &groups, options, passes)?;
    passes.stage("sums", &mut graph, |graph| append_sums(graph, &gradients))?;
    // The moments are in memory too, though this half does not read them.
    let elements = gradients.iter().map(|(param, _)| graph.ty(*param).elements().as_const().unwrap_or(0));
    let moments = 2 * 4 * elements.map(i64::unsigned_abs).sum::<u64>();
    let graph = passes.beside(moments, |passes| passes.whole(graph, options.recompute, options.precision))?;
    passes.ranks(graph, options.bucket, options.overlap)
}

/// The second half: norms, clipping, AdamW and moving averages from the sums that [`gradients_with`] leaves, read as the
/// parameters `grad/<parameter>`, and the input `share`, one over the number of gradients in each. Otherwise like [`step`].
///
/// # Errors
/// [`CompileError`].
pub fn update(objective: &AnyObjective, options: TrainOptions, gradients: &Graph) -> Result<Graph, CompileError> {
    update_of(objective, options, &[gradients], &|_| true)
}

/// Like [`update`], from the sums that any of several graphs leaves, and of the parameters that are `mine`, with their moments
/// and averages alone. Norms are of all gradients. A parameter without a sum is left alone, as AdamW leaves one without a
/// gradient: it neither decays nor do its moments.
///
/// # Errors
/// [`CompileError`].
pub fn update_of(
    objective: &AnyObjective,
    options: TrainOptions,
    gradients: &[&Graph],
    mine: &dyn Fn(&str) -> bool,
) -> Result<Graph, CompileError> {
    let summed = |full: &str| gradients.iter().any(|graph| graph.find(&format!("{SUM}{full}")).is_some());
    update_where(objective, options, &summed, mine)
}

/// Like [`update_of`], of the parameters for which `summed` says, by their full names, that there is a sum.
///
/// # Errors
/// [`CompileError`].
pub fn update_where(
    objective: &AnyObjective,
    options: TrainOptions,
    summed: &dyn Fn(&str) -> bool,
    mine: &dyn Fn(&str) -> bool,
) -> Result<Graph, CompileError> {
    let whose = |full: &str| match summed(full) {
        false => Whose::Nobodys,
        true if mine(full) => Whose::Mine,
        true => Whose::Others,
    };
    optimiser("update", objective, options, true, &whose)
}

/// Who updates a parameter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// It has no gradient.
    Nobodys,
    /// This process.
    Mine,
    /// Another one; its gradient is here too.
    Others,
}

fn traced(
    objective: &AnyObjective,
    name: &str,
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Graph, CompileError> {
    let mut graph = Graph::default();
    passes.stage("trace", &mut graph, |graph| {
        *graph = forward::pretrain(objective)?;
        Ok::<_, CompileError>(())
    })?;
    if !options.gates_given {
        passes.stage("drops", &mut graph, |graph| {
            *graph = draw_gates(graph, objective.declaration())?;
            Ok::<_, CompileError>(())
        })?;
    }
    if let Some(multiple) = options.mask_buckets {
        passes.stage("pad-tokens", &mut graph, |graph| {
            *graph = with_buckets(graph, objective.declaration(), multiple)?;
            Ok::<_, CompileError>(())
        })?;
    }
    graph.name = name.to_owned();
    Ok(graph)
}

/// The optimiser alone: gradients are the inputs `grad/<parameter>`; otherwise like [`step`]. For gradients computed
/// elsewhere.
///
/// # Errors
/// [`CompileError`].
pub fn optimizer(objective: &AnyObjective, options: TrainOptions) -> Result<Graph, CompileError> {
    optimiser("optimizer", objective, options, false, &|_| Whose::Mine)
}

/// The optimiser over the trained parameters that are this process's; gradients are inputs, or `shared` sums in parameters.
fn optimiser(
    name: &str,
    objective: &AnyObjective,
    options: TrainOptions,
    shared: bool,
    whose: &dyn Fn(&str) -> Whose,
) -> Result<Graph, CompileError> {
    let mut graph = Graph::new(name, &[]);
    let mut spec =
        TrainSpec { beta1: options.betas[0], beta2: options.betas[1], eps: options.eps, shared, ..Default::default() };
    let declaration = objective.declaration();
    for set in declaration.trained() {
        let (mut params, mut gradients) = (Vec::new(), Vec::new());
        for (name, shape) in set.shapes.iter().filter(|(name, _)| !is_frozen(name)) {
            let full = format!("{}.{name}", set.name);
            let whose = whose(&full);
            if whose == Whose::Nobodys {
                continue;
            }
            let ty = TensorType::f32(shape.iter().copied().map(Dim::from));
            let gradient = format!("{SUM}{full}");
            let gradient =
                if shared { graph.param(&gradient, ty.clone())? } else { graph.input(&gradient, ty.clone())? };
            gradients.push(gradient);
            if whose == Whose::Others {
                continue;
            }
            let param = graph.param(&full, ty.clone())?;
            for (average, _) in declaration.averages().filter(|(_, of)| *of == set.name) {
                let target = graph.param(&format!("{}.{name}", average.name), ty.clone())?;
                spec.ema.push((target, param));
            }
            if options.decay_all || objective.decays(&full, ty.rank()) {
                spec.decay.push(param);
            }
            spec.rates.push((param, objective.rate(&full)));
            spec.gradients.push((param, gradient));
            params.push(param);
        }
        spec.clip.push(ClipGroup { name: set.name.to_owned(), params, norm_of: Some(gradients) });
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
    plain_step(graph, &["probe"], options)
}

/// The training step of a forward graph with the output `loss`, without averages; `sets` are the trained parameter sets.
pub(super) fn plain_step(graph: Graph, sets: &[&str], options: TrainOptions) -> Result<Graph, CompileError> {
    let rules = Rules { decays: &decays_officially, rate: &|_| 1.0 };
    train(graph, sets, Vec::new(), rules, options, &mut Passes::default())
}

/// What distinguishes parameters to the optimiser.
#[derive(Clone, Copy)]
struct Rules<'a> {
    /// Whether weight decay applies to a parameter, by its full name and rank.
    decays: &'a dyn Fn(&str, usize) -> bool,
    /// Factor on its learning rate, by its full name.
    rate: &'a dyn Fn(&str) -> f64,
}

/// From a forward graph with the output `loss` to a training step. `groups` are the trained sets, `averages` the
/// `(average, source)` pairs of parameters.
fn train(
    graph: Graph,
    groups: &[&str],
    averages: Vec<(String, String)>,
    rules: Rules<'_>,
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Graph, CompileError> {
    let Differentiated { mut graph, gradients, clip } = differentiated(graph, groups, options, passes)?;
    let trained = || gradients.iter().map(|(param, _)| *param);
    let decays = |id: &ValueId| {
        options.decay_all || (rules.decays)(graph.source_name(*id).unwrap_or_default(), graph.ty(*id).rank())
    };
    let rate = |id: ValueId| (id, (rules.rate)(graph.source_name(id).unwrap_or_default()));
    let ema = averages.iter().filter_map(|(average, source)| Some((graph.find(average)?, graph.find(source)?)));
    let spec = TrainSpec {
        decay: trained().filter(decays).collect(),
        rates: trained().map(rate).collect(),
        gradients: gradients.clone(),
        clip,
        ema: ema.collect(),
        beta1: options.betas[0],
        beta2: options.betas[1],
        eps: options.eps,
        shared: false,
    };
    passes.stage("optimizer", &mut graph, |graph| append_optimizer(graph, &spec))?;
    passes.whole(graph, options.recompute, options.precision)
}

/// A forward graph with its gradients.
struct Differentiated {
    graph: Graph,
    /// `(parameter, its gradient)`.
    gradients: Vec<(ValueId, ValueId)>,
    clip: Vec<ClipGroup>,
}

/// Appends the gradients of the output `loss` with respect to the trained sets `groups`.
fn differentiated(
    graph: Graph,
    groups: &[&str],
    options: TrainOptions,
    passes: &mut Passes,
) -> Result<Differentiated, CompileError> {
    let mut graph = passes.forward(graph)?;
    let loss = graph.find_output("loss").ok_or_else(|| GraphError::Other("the graph has no loss".to_owned()))?;
    let mut trained: Vec<ValueId> = Vec::new();
    let mut clip = Vec::new();
    for group in groups {
        let prefix = format!("{group}.");
        let params: Vec<ValueId> = learned(&graph, &prefix).collect();
        trained.extend(&params);
        clip.push(ClipGroup { name: (*group).to_owned(), params, norm_of: None });
    }
    let gradients = passes.stage("grad", &mut graph, |graph| {
        let minimised = match options.weighted {
            true => {
                let weight = graph.input(WEIGHT, TensorType::f32([]))?;
                graph.mul(loss, weight)?
            }
            false => loss,
        };
        Ok::<_, CompileError>(differentiate(graph, minimised, &trained)?)
    })?;
    if options.export_gradients {
        for (param, gradient) in trained.iter().zip(&gradients) {
            let name = format!("{SUM}{}", graph.source_name(*param).unwrap_or_default());
            graph.output(&name, *gradient);
        }
    }
    let gradients = trained.into_iter().zip(gradients).collect();
    Ok(Differentiated { graph, gradients, clip })
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
