//! The optimised graph of a configured model as text, report, plan or file.

use std::path::Path;

use super::{Args, CliError, Emit, GraphName, show};
use crate::cli::fit::Remedies;
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::passes::Pipeline;
use vjepa_compiler::plan::Plan;
use vjepa_graphs::ProbeConfig;
use vjepa_programs as compile;
use vjepa_programs::{MaskSizes, drawn_sizes, in_buckets};
use vjepa_programs::{Passes, Probe, Shapes, TrainOptions};
use vjepa_programs::{encoder_config, predictor_config};
use vjepa_recipe::config::Config;
use vjepa_runtime::files;

pub(super) fn run(args: &Args) -> Result<(), CliError> {
    let name = args.graph;
    if let Some(out) = &args.out {
        files::spare("--out", out, &[out], [args.config.as_path()])?;
    }
    let device = args.device.open()?;
    let config = Config::from_file(&args.config, &args.set)?;
    let buckets = buckets(args)?;
    let sizes = in_buckets(sizes(name, &config)?, buckets);
    let emit = args.emit.unwrap_or_else(|| emit_for(args.out.as_deref()));
    if args.estimate.is_some() && emit != Emit::Report {
        return Err("--estimate goes with the report; omit --emit and --out FILE.vjg or FILE.ir".into());
    }
    let stop_after = args.stop_after.as_deref().map(str::parse).transpose()?;
    let mut passes = Passes { stop_after, verify: args.verify_ir, ..Passes::default() };
    if let Some(budget) = args.memory_budget {
        passes.memory = Some((budget.0, in_buckets(drawn_sizes(&config, MaskSizes::Largest)?, buckets)));
    }
    if emit == Emit::Passes {
        passes.sizes = Some(sizes.clone());
    }
    let graph = compiled(name, &config, (args.classes, buckets), &mut passes)?;
    match emit {
        Emit::Ir => show::text(args, &graph),
        Emit::Report => {
            // What a device fuses is a fact of devices, not of the machine that this runs on.
            let graph = if args.estimate.is_some() { Pipeline::device().run(&graph)?.graph } else { graph };
            let largest = in_buckets(largest(name, &config)?, buckets);
            let shapes = buckets.map(|multiple| shapes(&config, multiple)).transpose()?;
            let fit = |memory: u64| {
                remedies(memory, &graph, &largest, |budget| {
                    let mut passes = Passes { memory: Some((budget, largest.clone())), ..Passes::default() };
                    Ok(Pipeline::device().run(&compiled(name, &config, (args.classes, buckets), &mut passes)?)?.graph)
                })
            };
            show::report(args, &graph, (&sizes, &largest), shapes.as_ref(), &fit)
        }
        Emit::Plan => {
            let lowered = device.lower(&graph)?;
            show::plan(args, &lowered, (&Plan::new(&lowered)?, &device.by_kernel(&lowered)), &sizes)
        }
        Emit::Passes => {
            let mut lowered = graph;
            passes.stage("lower", &mut lowered, |graph| -> Result<(), CliError> {
                *graph = device.lower(graph)?;
                Ok(())
            })?;
            passes.stage("plan", &mut lowered, |graph| Plan::new(graph))?;
            show::passes(args, &lowered.name, &passes, &sizes)
        }
        Emit::Vjg => {
            let out = args.out.as_deref().ok_or("--emit vjg needs --out FILE")?;
            let mut artifact = compile::artifact(&graph, &config, device)?;
            if let Some(stop) = &passes.stop_after {
                // For whoever inspects the file; the graph computes the same.
                artifact.record.insert("passes until".to_owned(), stop.to_string());
            }
            let bytes = compile::save_artifact(out, &artifact)?;
            let (nodes, steps) = (artifact.graph.nodes.len(), artifact.plan.steps.len());
            let about = serde_json::json!({
                "graph": artifact.graph.name, "nodes": nodes, "steps": steps, "bytes": bytes, "record": artifact.record,
            });
            show::say(args, out, about)
        }
    }
}

/// What mask lengths are rounded up to a multiple of, of a graph that has masks.
fn buckets(args: &Args) -> Result<Option<usize>, CliError> {
    match (args.mask_buckets, args.graph) {
        (None, _) => Ok(None),
        (Some(multiple), GraphName::Step | GraphName::Gradients) => Ok(usize::try_from(multiple).ok()),
        (Some(_), _) => Err("--mask-buckets goes with the graphs that have masks: step and gradients".into()),
    }
}

/// Steps whose shapes are counted.
const COUNTED: u64 = 1000;

fn shapes(config: &Config, multiple: usize) -> Result<Shapes, CliError> {
    let (masks, objective) = (config.masks()?, compile::objective(config)?);
    let drawn = (config.meta.seed, config.data.batch_size * config.data.num_clips, COUNTED);
    Ok(compile::mask_shapes(masks.as_ref(), drawn, &objective, (options(config)?, multiple))?)
}

/// What to write to a file of this name.
fn emit_for(out: Option<&Path>) -> Emit {
    match out.and_then(Path::extension).and_then(|extension| extension.to_str()) {
        Some("vjg") => Emit::Vjg,
        Some("ir") => Emit::Ir,
        _ => Emit::Report,
    }
}

fn compiled(
    name: GraphName,
    config: &Config,
    (classes, mask_buckets): (usize, Option<usize>),
    passes: &mut Passes,
) -> Result<Graph, CliError> {
    let encoder = encoder_config(config)?;
    match name {
        GraphName::Step => {
            let mut options = options(config)?;
            options.mask_buckets = mask_buckets.or(options.mask_buckets);
            return Ok(compile::step_with(&compile::objective(config)?, options, passes)?);
        }
        GraphName::Gradients => {
            let mut options = options(config)?;
            options.mask_buckets = mask_buckets.or(options.mask_buckets);
            return Ok(compile::gradients_with(&compile::objective(config)?, options, passes)?);
        }
        GraphName::Update => {
            let (objective, options) = (compile::objective(config)?, options(config)?);
            let gradients = compile::gradients_with(&objective, options, &mut Passes::none())?;
            return Ok(compile::update(&objective, options, &gradients)?);
        }
        GraphName::Encoder | GraphName::Predictor | GraphName::Probe => {}
    }
    let mut graph = Graph::default();
    passes.stage("trace", &mut graph, |graph| -> Result<(), CliError> {
        *graph = match name {
            GraphName::Predictor => compile::predictor(&predictor_config(config)?, 0)?,
            GraphName::Probe => compile::probe(&Probe::Attentive(ProbeConfig::for_encoder(&encoder, classes)), false)?,
            GraphName::Encoder | GraphName::Step | GraphName::Gradients | GraphName::Update => {
                compile::encoder(&encoder, "encoder.")?
            }
        };
        Ok(())
    })?;
    Ok(passes.run(graph)?)
}

/// The optimiser's constants and the precision of a training step.
pub(in crate::cli) fn options(config: &Config) -> Result<TrainOptions, CliError> {
    let refused = "`meta.dtype: float16` is not supported; use bfloat16 or float32";
    TrainOptions::of(config).ok_or_else(|| refused.into())
}

/// What would make a graph fit that takes more than `memory` bytes at its largest sizes.
fn remedies(
    memory: u64,
    graph: &Graph,
    largest: &Sizes,
    compiled: impl FnOnce(u64) -> Result<Graph, CliError>,
) -> Result<Remedies, CliError> {
    let plan = Plan::new(graph)?;
    let peak = |clips: usize| {
        let sizes: Sizes = largest.clone().into_iter().chain([("B".to_owned(), clips)]).collect();
        Ok(plan.memory(graph, &sizes)?.peak)
    };
    let compile = |budget: u64| {
        let graph = compiled(budget)?;
        Ok(Plan::new(&graph)?.memory(&graph, largest)?.peak)
    };
    Remedies::search(memory, largest.get("B").copied().unwrap_or(1), peak, compile)
}

/// As [`sizes`], with the largest masks that can be drawn where the graph has masks.
fn largest(name: GraphName, config: &Config) -> Result<Sizes, CliError> {
    match name {
        GraphName::Step | GraphName::Gradients => {
            let mut sizes = sizes(name, config)?;
            sizes.extend(drawn_sizes(config, MaskSizes::Largest)?);
            Ok(sizes)
        }
        GraphName::Encoder | GraphName::Predictor | GraphName::Probe | GraphName::Update => sizes(name, config),
    }
}

/// The configured batch, and the mean mask lengths of a few drawn batches.
fn sizes(name: GraphName, config: &Config) -> Result<Sizes, CliError> {
    let batch = config.data.batch_size;
    let mut sizes = Sizes::from([("B".to_owned(), batch)]);
    match name {
        GraphName::Encoder | GraphName::Update => {}
        GraphName::Probe => {
            sizes.insert("N".to_owned(), config.data.grid().iter().product());
        }
        GraphName::Predictor => {
            let step = drawn_sizes(config, MaskSizes::Mean)?;
            for (symbol, of) in [("N_ctx", "N_ctx0"), ("N_pred", "N_pred0")] {
                sizes.extend(step.get(of).map(|size| (symbol.to_owned(), *size)));
            }
        }
        GraphName::Step | GraphName::Gradients => {
            sizes.extend(drawn_sizes(config, MaskSizes::Mean)?);
        }
    }
    Ok(sizes)
}
