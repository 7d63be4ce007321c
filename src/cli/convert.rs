//! `vjepa convert`: a checkpoint from one format into another.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::CliError;
use super::named::named;
use vjepa_recipe::config::Config;
use vjepa_runtime::files;
use vjepa_train::{CheckpointRecord, official};
use vjepa_weights::{Converted, Options, Target, convert, files_of};

/// Most keys that are named one by one.
const NAMED: usize = 4;

/// Convert a checkpoint to another format without changing any value
///
/// Without --to the extension of OUT selects the format: .safetensors (official tensor names, prefixed with the model), or
/// .pth.tar, .pth, .pt, .ckpt or .bin (PyTorch in the official layout, as `torch.load(weights_only=True)` and the official code
/// read it). The optimiser's state is included in both.
#[derive(clap::Args)]
pub struct Args {
    /// Checkpoint to convert, in any format that `vjepa inspect` recognises; of Hugging Face's format the folder
    input: PathBuf,
    /// File to write, or with --to hf a folder; an existing file is overwritten
    out: PathBuf,
    /// What to write
    #[arg(long, value_parser = named(&Target::ALL, Target::name, Target::about))]
    to: Option<Target>,
    /// Convert an official checkpoint so that `vjepa train --resume` can continue it with this configuration; save it as
    /// TAG-latest.safetensors in the run's folder. With --to hub or hf, or --weights-only: what the file does not say of its
    /// model, its attention heads and the size of its clips
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting, e.g. --set optimization.ipe=300 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Leave out the optimiser's moments, counters and settings
    #[arg(long)]
    weights_only: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let target = target(args)?;
    let read = files_of(&args.input);
    let read = read.iter().chain(&args.config).map(PathBuf::as_path);
    files::spare("OUT", &args.out, &target.files(&args.out), read)?;
    let mut options = Options { weights_only: args.weights_only, ..Options::default() };
    if let Some(path) = &args.config {
        let config = Config::from_file(path, &args.sets)?;
        let alone = args.weights_only || matches!(target, Target::Hub | Target::HuggingFace);
        if !alone {
            options.metadata = resumable(args, target, &config)?;
        }
        options.config = Some(config);
    }
    let converted = convert(&args.input, &args.out, target, &options)?;
    tell(args, &converted);
    Ok(())
}

/// The record by which a run of this program goes on from an official checkpoint.
fn resumable(args: &Args, target: Target, config: &Config) -> Result<BTreeMap<String, String>, CliError> {
    if target != Target::Safetensors {
        return Err("--config is for files of this program: name OUT something.safetensors".into());
    }
    let run = official::OfficialRun::read(&args.input, config, &config.optimization.plan(None)?)?;
    for change in run.progress.history.iter().flat_map(|continuation| &continuation.changed) {
        eprintln!("note: the configuration has another setting: {}: {}, was {}", change.key, change.now, change.was);
    }
    Ok(CheckpointRecord::metadata(config, &run.progress)?)
}

/// What OUT is to be.
fn target(args: &Args) -> Result<Target, CliError> {
    if let Some(target) = args.to {
        return Ok(target);
    }
    let extension = args.out.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("safetensors") => Ok(Target::Safetensors),
        Some("tar" | "pth" | "pt" | "ckpt" | "bin") => Ok(Target::Official),
        _ => Err(format!(
            "{}: unknown extension; use .safetensors or .pth.tar to choose the format, or --to hf for a folder",
            args.out.display()
        )
        .into()),
    }
}

fn tell(args: &Args, converted: &Converted) {
    if args.json {
        let about = serde_json::json!({
            "out": args.out, "tensors": converted.tensors, "bytes": converted.bytes, "training": converted.training,
            "left_out": converted.left_out,
        });
        println!("{about}");
        return;
    }
    let held = converted.tensors.iter().map(|(model, count)| match model.as_str() {
        "adam" => format!("{count} moments"),
        model => format!("{} {count}", model.replace('_', " ")),
    });
    println!("wrote {}: tensors of {}", args.out.display(), held.collect::<Vec<_>>().join(", "));
    if !converted.left_out.is_empty() {
        let named: Vec<&str> = converted.left_out.iter().take(NAMED).map(String::as_str).collect();
        let more = converted.left_out.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        println!("left out {}{more}", named.join(", "));
    }
}
