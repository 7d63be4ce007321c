//! `vjepa convert`: a checkpoint from one format into another.

use std::path::PathBuf;

use super::CliError;
use vjepa_recipe::config::Config;
use vjepa_train::{CheckpointRecord, official};
use vjepa_weights::{Converted, Format, Options, convert};

/// Most keys that are named one by one.
const NAMED: usize = 4;

/// Write a checkpoint in another format, every number bit for bit.
///
/// OUT's name says which: .safetensors has the official names under their models; .pth.tar, .pth, .pt, .ckpt and .bin are
/// PyTorch files in the official layout, which `torch.load(weights_only=True)` and the official code read. Moments, counters
/// and settings of the optimiser go along, either way.
#[derive(clap::Args)]
pub struct Args {
    /// A checkpoint of this program, of the official code, or of what else `vjepa inspect` knows.
    input: PathBuf,
    /// The file to write; one of that name is replaced.
    out: PathBuf,
    /// Make an official checkpoint one of this program, for the run of this configuration: `vjepa train --resume` takes it
    /// under the name TAG-latest.safetensors in the run's folder.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting, e.g. --set optimization.ipe=300 (repeatable).
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Leave out the optimiser's moments, counters and settings.
    #[arg(long, conflicts_with = "config")]
    weights_only: bool,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    let format = format(args)?;
    let mut options = Options { weights_only: args.weights_only, ..Options::default() };
    if let Some(path) = &args.config {
        if format != Format::Safetensors {
            return Err("--config is for files of this program: name OUT something.safetensors".into());
        }
        let config = Config::from_file(path, &args.sets)?;
        let run = official::Run::read(&args.input, &config, &config.optimization.plan(None)?)?;
        for change in run.progress.history.iter().flat_map(|continuation| &continuation.changed) {
            eprintln!(
                "note: the configuration has another setting: {}: {}, was {}",
                change.key, change.now, change.was
            );
        }
        options.metadata = CheckpointRecord::metadata(&config, &run.progress)?;
    }
    let converted = convert(&args.input, &args.out, format, &options)?;
    tell(args, &converted);
    Ok(())
}

/// What OUT is to be.
fn format(args: &Args) -> Result<Format, CliError> {
    let extension = args.out.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("safetensors") => Ok(Format::Safetensors),
        Some("tar" | "pth" | "pt" | "ckpt" | "bin") => Ok(Format::PyTorch),
        _ => {
            Err(format!("{}: name the file .safetensors or .pth.tar, for the format it is to have", args.out.display())
                .into())
        }
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
