//! `vjepa run`: an exported model on videos.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vjepa_runtime::{ClipBatch, NamedOutput, Options, Preprocessing, Runtime, Session};

use super::CliError;
use crate::clips;
use crate::deploy::bundle;

/// Run an exported model on videos.
#[derive(clap::Args)]
pub struct Args {
    /// The model, as `vjepa compile --export onnx` writes it, or a bundle.
    #[arg(value_name = "MODEL|BUNDLE")]
    model: PathBuf,
    /// Videos, or .safetensors files with `clip_u8` [B, 3, T, H, W].
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// What runs the model; `auto` takes what needs no installation.
    #[arg(long, default_value = "auto", value_parser = ["auto", "tract", "ort"])]
    runtime: String,
    /// ONNX Runtime's shared library.
    #[arg(long, value_name = "FILE")]
    ort_lib: Option<PathBuf>,
    /// Classes to print.
    #[arg(long, default_value_t = 5, value_name = "K")]
    top_k: usize,
    /// Threads; all cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// One JSON object a clip on standard output.
    #[arg(long)]
    json: bool,
}

/// Runs the command. An input that cannot be used is told and the others are run all the same.
pub fn run(args: &Args) -> Result<(), CliError> {
    let threads = args.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from));
    let runtime: Runtime = args.runtime.parse()?;
    let options = Options { runtime, ort_lib: args.ort_lib.clone(), threads, ..Options::default() };
    let session = Session::open(&bundle::model_of(&args.model)?, &options)?;
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", args.model.display());
    let record = session.preprocessing().map_err(|error| at(&error))?;
    let labels: Vec<String> = match session.metadata().get("vjepa.labels") {
        None => Vec::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| at(&format!("its `vjepa.labels` are no list of names ({error}); export it again")))?,
    };
    if !args.json {
        println!("{} on {}", args.model.display(), session.runtime());
        println!("clips: {}", clips::in_words(&record));
    }
    let mut failed = 0;
    for input in &args.inputs {
        if let Err(error) = one(args, &session, &record, &labels, input) {
            failed += 1;
            if args.json {
                println!("{}", serde_json::json!({"input": input, "error": error.to_string()}));
            }
            eprintln!("error: {error}");
        }
    }
    if failed > 0 {
        return Err(format!("{failed} of {} inputs could not be run", args.inputs.len()).into());
    }
    Ok(())
}

fn one(
    args: &Args,
    session: &Session,
    record: &Preprocessing,
    labels: &[String],
    input: &Path,
) -> Result<(), CliError> {
    let began = Instant::now();
    let clips = clips::read(input, record)?;
    let prepared = began.elapsed().as_secs_f64() * 1e3;
    let side = record.crop_size;
    let one = clips.data.len() / clips.count.max(1);
    for (number, clip) in clips.data.chunks_exact(one.max(1)).enumerate() {
        let batch = ClipBatch::new([1, 3, record.num_frames, side, side], clip)?;
        let began = Instant::now();
        let outputs = session.run(&batch)?;
        let latency = began.elapsed().as_secs_f64() * 1e3;
        let name = if clips.count > 1 { format!("{}[{number}]", input.display()) } else { input.display().to_string() };
        let top = outputs.iter().find(|output| output.name == "logits").map(|logits| top_k(&logits.data, args.top_k));
        let label = |class: usize| labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        if args.json {
            let mut line = serde_json::json!({
                "input": name, "runtime": session.runtime(), "prepare_ms": prepared / clips.count.max(1) as f64,
                "latency_ms": latency,
            });
            match &top {
                Some(top) => {
                    let entry = |(class, p): &(usize, f64)| serde_json::json!({"class": class, "label": label(*class), "probability": p});
                    line["top"] = top.iter().map(entry).collect();
                }
                None => line["outputs"] = outputs.iter().map(described).collect(),
            }
            println!("{line}");
            continue;
        }
        println!("\n{name}  ({latency:.1} ms; decoding and preparing {prepared:.1} ms)");
        match top {
            Some(top) => {
                top.iter().for_each(|(class, p)| println!("  {:>6.2} %  {}", 100.0 * p, label(*class)));
            }
            None => {
                for output in &outputs {
                    println!("  {} {:?}, norm {:.4}", output.name, output.shape, norm(output));
                }
            }
        }
    }
    Ok(())
}

/// The most probable classes and their probabilities.
fn top_k(logits: &[f32], k: usize) -> Vec<(usize, f64)> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    let mut classes: Vec<(usize, f64)> = weights.into_iter().map(|weight| weight / total).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes.truncate(k);
    classes
}

fn norm(output: &NamedOutput) -> f64 {
    output.data.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn described(output: &NamedOutput) -> serde_json::Value {
    serde_json::json!({"name": output.name, "shape": output.shape, "norm": norm(output)})
}

#[cfg(test)]
mod tests {
    use super::top_k;

    #[test]
    fn probabilities_are_sorted_and_sum_to_one() {
        let top = top_k(&[0.0, 2.0, 1.0], 5);
        assert_eq!(top.iter().map(|(class, _)| *class).collect::<Vec<_>>(), [1, 2, 0]);
        assert!((top.iter().map(|(_, p)| p).sum::<f64>() - 1.0).abs() < 1e-12);
        assert_eq!(top_k(&[1000.0, -1000.0], 1), [(0, 1.0)]);
    }
}
