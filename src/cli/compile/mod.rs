//! `vjepa compile`: a checkpoint as a deployable model, or a graph to look at.

mod export;
mod form;
mod graph;
mod show;

use std::path::PathBuf;

use clap::ValueEnum;

use super::CliError;
use super::device::DeviceArg;
use super::runtime::RuntimeArgs;
use vjepa_deploy::Origin;

/// Compile a checkpoint (and a probe) to ONNX or to a plan, or show a graph.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["checkpoint", "random_weights", "graph"])))]
pub struct Args {
    /// The encoder: an official .pth.tar or .pt, or safetensors with official names.
    #[arg(long, value_name = "FILE", requires = "export")]
    checkpoint: Option<PathBuf>,
    /// Instead of a checkpoint: weights drawn from a seed, of the configured sizes, to try a deployment with.
    #[arg(long, value_name = "SEED", requires = "export", requires = "config")]
    random_weights: Option<u64>,
    /// A probe to put on the encoder, as `vjepa probe` writes it.
    #[arg(long, value_name = "FILE", requires = "export")]
    probe: Option<PathBuf>,
    /// Show a graph of the configured model instead.
    #[arg(long, value_name = "GRAPH", requires = "config")]
    graph: Option<GraphName>,
    /// Configuration with the model's sizes; needed where the checkpoint does not tell them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of the configuration.
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// What to compile to.
    #[arg(long, requires = "out", conflicts_with = "graph")]
    export: Option<ExportFormat>,
    #[command(flatten)]
    form: form::FormArgs,
    /// The model's name in a Triton repository.
    #[arg(long, default_value = "vjepa", conflicts_with = "graph")]
    name: String,
    /// The licence of the weights, for a bundle's record.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "not stated: that of the checkpoint applies",
        conflicts_with = "graph"
    )]
    licence: String,
    /// What to print of a graph; by default the report, or what --out FILE.vjg or FILE.ir asks for.
    #[arg(long, value_enum, requires = "graph")]
    emit: Option<Emit>,
    /// End the passes here: PASS (on a training step: on the whole step), forward/PASS (before it is differentiated,
    /// and no pass after), or none.
    #[arg(long, value_name = "PASS", requires = "graph")]
    stop_after: Option<String>,
    /// Check the graph after every pass.
    #[arg(long, requires = "graph")]
    verify_ir: bool,
    #[command(flatten)]
    session: RuntimeArgs,
    #[command(flatten)]
    device: DeviceArg,
    /// Classes of the probe whose graph is shown.
    #[arg(long, default_value_t = 400, value_name = "N", requires = "graph")]
    classes: usize,
    /// Where to write: the model, or the graph instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The most memory a step may take (800MB, 1.5GiB): what does not fit is computed again in its backward part.
    #[arg(long, value_name = "BYTES", requires = "graph")]
    memory_budget: Option<super::memory::Bytes>,
    /// Run the exported model and compare it with the plan (the default).
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Do not run the exported model.
    #[arg(long)]
    no_verify: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Formats of exported models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// An ONNX file.
    Onnx,
    /// A folder with model, preprocessing, labels, provenance, sums and parity vectors.
    Bundle,
    /// A Triton model repository.
    Triton,
    /// A typed ONNX file and its TensorRT engine, or the trtexec line where TensorRT is not installed.
    Tensorrt,
    /// A compiled plan (FILE.vjg) and its weights beside it: what `vjepa run`, `serve` and `bench infer` run fastest here.
    Plan,
}

/// Graphs that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GraphName {
    /// Clip to tokens.
    Encoder,
    /// Context tokens to target tokens.
    Predictor,
    /// Tokens to classes, attentive.
    Probe,
    /// The whole training step: forward, gradients, clipping, AdamW, moving average.
    Step,
}

/// Ways to show a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// Text that parses back.
    Ir,
    /// Operations, arithmetic, bytes, parameters and peak memory.
    Report,
    /// The plan for the typical sizes: order, shapes, memory held, what is freed and overwritten.
    Plan,
    /// Each pass: time, nodes, changes, arithmetic and traffic before and after.
    Passes,
    /// Graph, plan and what they were compiled for as a file, for --out FILE.vjg and `vjepa train --plan`.
    Vjg,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    match (&args.checkpoint, args.random_weights, args.graph) {
        (Some(checkpoint), _, _) => export::run(args, Origin::Checkpoint(checkpoint)),
        (None, Some(seed), _) => export::run(args, Origin::Drawn(seed)),
        (None, None, Some(name)) => graph::run(args, name),
        (None, None, None) => {
            Err("give --checkpoint FILE --export onnx --out FILE, or --graph NAME --config FILE".into())
        }
    }
}
