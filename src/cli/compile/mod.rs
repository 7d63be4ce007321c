//! `vjepa compile`: a checkpoint as a model to deploy.

mod export;
mod form;

use std::path::PathBuf;

use clap::ValueEnum;

use super::CliError;
use super::probe_number::ProbeNumber;
use super::runtime::RuntimeArgs;

/// Export a checkpoint, with or without a probe, as an ONNX model, a bundle, a compiled plan or a TensorRT engine
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("weights").required(true).args(["checkpoint", "random_weights"])))]
pub struct Args {
    /// Checkpoint of vjepa or of the official code (.safetensors, .pt, .pth.tar), or a Hugging Face folder
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Random weights from this seed instead of a checkpoint, to try out a deployment (needs --config)
    #[arg(long, value_name = "SEED", requires = "config")]
    random_weights: Option<u64>,
    /// Probe to put on top of the encoder, as `vjepa probe` writes it
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    #[command(flatten)]
    probe_number: ProbeNumber,
    /// Configuration of the model; needed if the checkpoint does not record its sizes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration (repeatable)
    #[arg(long, value_name = "KEY=VALUE", requires = "config")]
    set: Vec<String>,
    /// Format to write
    #[arg(long, value_enum)]
    export: ExportFormat,
    /// File or folder to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    form: form::FormArgs,
    /// Model name in a Triton repository [default: vjepa]
    #[arg(long)]
    name: Option<String>,
    /// Licence of the weights, recorded in a bundle [default: not stated: that of the checkpoint applies]
    #[arg(long, value_name = "TEXT")]
    licence: Option<String>,
    #[command(flatten)]
    session: RuntimeArgs,
    /// Accepted for `cpu` only, as before `vjepa graph` was a command of its own.
    #[arg(long, hide = true)]
    device: Option<String>,
    /// Run the exported model and compare it with the plan (the default)
    #[arg(long, overrides_with = "no_verify")]
    verify: bool,
    /// Skip running the exported model
    #[arg(long)]
    no_verify: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Formats of exported models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// An ONNX file
    Onnx,
    /// A folder with model, preprocessing, labels, provenance, checksums and test vectors
    Bundle,
    /// A Triton model repository
    Triton,
    /// A typed ONNX file and its TensorRT engine, or the trtexec command where TensorRT is not installed
    Tensorrt,
    /// A folder with the two ONNX files of V-JEPA 2-AC: the encoder of single frames, and the predictor from actions
    Action,
    /// A compiled plan (FILE.vjg, weights alongside), for `vjepa run`, `serve` and `bench infer`
    Plan,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    export::run(args)
}
