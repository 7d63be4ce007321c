//! `vjepa graph`: what the compiler makes of a configured model, to look at or to train from.

mod emit;
mod old;
mod show;

pub(super) use emit::options;
pub(super) use old::respelled;

use std::path::PathBuf;

use clap::ValueEnum;
use vjepa_compiler::plan::Accelerator;

use super::CliError;
use super::device::DeviceArg;
use super::named::named;
use super::whole::whole;

/// Show what the compiler makes of a model, or compile the training step ahead of time
#[derive(clap::Args)]
pub struct Args {
    /// Graph to show or compile
    graph: GraphName,
    /// Configuration of the model
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a setting, e.g. --set data.batch_size=8 (repeatable)
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// What to write; the default is the report, or what the name of --out asks for (FILE.vjg, FILE.ir)
    #[arg(long, value_enum)]
    emit: Option<Emit>,
    /// Where to write it instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Stop after this pass: PASS, forward/PASS (of a step, before it is differentiated) or none
    #[arg(long = "stop-after-pass", alias = "stop-after", value_name = "PASS")]
    stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long)]
    verify_ir: bool,
    /// Memory limit of a step, e.g. 800MB or 1.5GiB; what does not fit is recomputed in the backward pass
    /// [default: none]
    #[arg(long, value_name = "BYTES")]
    memory_budget: Option<super::memory::Bytes>,
    /// Round mask lengths of a step up to multiples of N, so that its shapes repeat, with the padding masked out; the report says
    /// how many shapes 1,000 steps have, and what that costs
    #[arg(long, value_name = "N", value_parser = whole::<u64>(1..=4096))]
    mask_buckets: Option<u64>,
    /// With the report, estimate the time on an accelerator from its published peaks (a roofline; nothing is measured)
    #[arg(long, value_name = "ACCELERATOR", value_parser = named(&Accelerator::ALL, Accelerator::name, Accelerator::about))]
    estimate: Option<Accelerator>,
    /// Number of classes of the probe
    #[arg(long, default_value_t = 400, value_name = "N")]
    classes: usize,
    #[command(flatten)]
    device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The graphs of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum GraphName {
    /// Clip to tokens
    Encoder,
    /// Context tokens to target tokens
    Predictor,
    /// Tokens to classes (attentive)
    Probe,
    /// The training step: forward pass, gradients, clipping, AdamW and moving average
    Step,
    /// The first half of a step of several groups or processes: forward pass, and gradients added to their sums
    Gradients,
    /// The second half: norms, clipping, AdamW and moving average from the sums
    Update,
}

/// Ways to show a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Emit {
    /// Text that can be parsed back
    Ir,
    /// FLOPs and memory traffic per operation, parameters and peak memory
    Report,
    /// The execution plan: order, shapes, memory in use, buffers freed and overwritten
    Plan,
    /// Per pass: time, nodes, rewrites, FLOPs and memory traffic before and after
    Passes,
    /// Graph and plan as a file for `vjepa train --plan` (needs --out)
    Vjg,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    emit::run(args)
}
