//! `vjepa compile --graph`: the optimised graph of a configured model, as text, report or file.

use std::path::Path;

use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::passes::Pipeline;
use vjepa_compiler::plan::{Plan, Report};
use vjepa_graphs::{PretrainLoss, ProbeConfig};

use super::{Args, CliError, Emit, GraphName};
use crate::compile::{self, Probe, TrainOptions};
use crate::config::{Config, MaskConfig};
use crate::masks::{MaskCollator, MaskError, MaskPair, TubeCollator};
use crate::weights::{encoder_config, predictor_config, write_atomically};

/// Steps whose masks are drawn to find typical lengths.
const MASK_STEPS: u64 = 32;

pub(super) fn run(args: &Args, name: GraphName) -> Result<(), CliError> {
    let path = args.config.as_deref().ok_or("--graph needs --config FILE")?;
    let config = Config::from_file(path, &args.set)?;
    let traced = trace(name, &config, args.classes)?;
    let graph = Pipeline::standard().run(&traced)?.graph;
    match args.emit {
        Emit::Ir => text(args, &graph),
        Emit::Report => report(args, &graph, &sizes(name, &config)?),
        Emit::Vjg => {
            let out = args.out.as_deref().ok_or("--emit vjg needs --out FILE")?;
            let bytes = vjepa_compiler::serialize::encode(&graph);
            write(out, &bytes)?;
            let (nodes, length) = (graph.nodes.len(), bytes.len());
            say(args, out, serde_json::json!({"graph": graph.name, "nodes": nodes, "bytes": length}))
        }
    }
}

fn trace(name: GraphName, config: &Config, classes: usize) -> Result<Graph, CliError> {
    let encoder = encoder_config(config)?;
    Ok(match name {
        GraphName::Encoder => compile::encoder(&encoder, "encoder.")?,
        GraphName::Predictor => compile::predictor(&predictor_config(config)?, 0)?,
        GraphName::Probe => {
            let probe = ProbeConfig::for_encoder(&encoder, classes);
            compile::probe(&Probe::Attentive(probe), false)?
        }
        GraphName::Step => {
            let loss = PretrainLoss { loss_exp: config.loss.loss_exp, reg_coeff: config.loss.reg_coeff };
            let (betas, eps) = (config.optimization.betas, config.optimization.eps);
            let options = TrainOptions { betas, eps, ..TrainOptions::default() };
            compile::step(&encoder, &predictor_config(config)?, loss, config.mask.len(), options)?
        }
    })
}

/// The configured batch, and the mean mask lengths of a few drawn batches.
fn sizes(name: GraphName, config: &Config) -> Result<Sizes, CliError> {
    let batch = config.data.batch_size;
    let mut sizes = Sizes::from([("B".to_owned(), batch)]);
    match name {
        GraphName::Encoder => {}
        GraphName::Probe => {
            sizes.insert("N".to_owned(), config.data.grid().iter().product());
        }
        GraphName::Predictor => {
            if let Some((context, target)) = mask_lengths(config)?.first() {
                sizes.extend([("N_ctx".to_owned(), *context), ("N_pred".to_owned(), *target)]);
            }
        }
        GraphName::Step => {
            for (i, (context, target)) in mask_lengths(config)?.into_iter().enumerate() {
                sizes.extend([(format!("N_ctx{i}"), context), (format!("N_pred{i}"), target)]);
            }
        }
    }
    Ok(sizes)
}

/// Mean context and target length of each generator.
fn mask_lengths(config: &Config) -> Result<Vec<(usize, usize)>, CliError> {
    let (geometry, batch, seed) = (config.geometry(), config.data.batch_size, config.meta.seed);
    let draw: Box<dyn Fn(u64) -> Result<Vec<MaskPair>, MaskError>> = match &config.mask {
        MaskConfig::MultiBlock(blocks) => {
            let collator = MaskCollator::new(geometry, blocks.clone())?;
            Box::new(move |step| collator.sample_at(seed, step, batch))
        }
        MaskConfig::RandomTube(tubes) => {
            let collator = TubeCollator::new(geometry, tubes.clone())?;
            Box::new(move |step| collator.sample_at(seed, step, batch))
        }
    };
    let mut sums = vec![(0, 0); config.mask.len()];
    for step in 0..MASK_STEPS {
        for (sum, pair) in sums.iter_mut().zip(draw(step)?) {
            *sum = (sum.0 + pair.context.len, sum.1 + pair.target.len);
        }
    }
    let steps = MASK_STEPS as usize;
    Ok(sums.into_iter().map(|(context, target)| ((context / steps).max(1), (target / steps).max(1))).collect())
}

fn text(args: &Args, graph: &Graph) -> Result<(), CliError> {
    let text = vjepa_compiler::text::print(graph);
    match &args.out {
        Some(out) => {
            write(out, text.as_bytes())?;
            say(args, out, serde_json::json!({"graph": graph.name, "nodes": graph.nodes.len(), "bytes": text.len()}))
        }
        None if args.json => {
            println!("{}", serde_json::json!({"graph": graph.name, "nodes": graph.nodes.len(), "ir": text}));
            Ok(())
        }
        None => {
            print!("{text}");
            Ok(())
        }
    }
}

fn report(args: &Args, graph: &Graph, sizes: &Sizes) -> Result<(), CliError> {
    let report = Report::new(graph, &Plan::new(graph)?, sizes)?;
    let operations: Vec<_> = report
        .by_op
        .iter()
        .map(|(op, totals)| {
            serde_json::json!({"op": op, "count": totals.count, "flops": totals.flops, "bytes": totals.bytes})
        })
        .collect();
    let json = serde_json::json!({
        "graph": report.graph, "sizes": sizes, "nodes": report.total.count, "flops": report.total.flops,
        "bytes": report.total.bytes, "parameters": report.parameters, "parameter_bytes": report.memory.parameters,
        "peak_memory": report.memory.peak, "operations": operations,
    });
    let bound: Vec<String> = sizes.iter().map(|(symbol, size)| format!("{symbol} = {size}")).collect();
    let text = format!("{}: {}\n{report}", report.graph, bound.join(", "));
    match &args.out {
        Some(out) => {
            let json = serde_json::to_vec_pretty(&json)?;
            write(out, if args.json { &json } else { text.as_bytes() })?;
            say(args, out, serde_json::json!({"graph": report.graph}))
        }
        None => {
            if args.json {
                println!("{json}");
            } else {
                print!("{text}");
            }
            Ok(())
        }
    }
}

fn write(out: &Path, bytes: &[u8]) -> Result<(), CliError> {
    use std::io::Write;
    write_atomically(out, |file| file.write_all(bytes))
        .map_err(|error| format!("cannot write {}: {error}", out.display()).into())
}

fn say(args: &Args, out: &Path, mut about: serde_json::Value) -> Result<(), CliError> {
    if args.json {
        about["out"] = serde_json::to_value(out)?;
        println!("{about}");
    } else {
        println!("wrote {}", out.display());
    }
    Ok(())
}
