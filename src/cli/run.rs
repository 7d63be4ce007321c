//! `vjepa run`: an exported model on videos.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vjepa_runtime::{NamedOutput, Options, Runtime};

use super::CliError;
use super::runner::Runner;
use crate::clips;

/// Run an exported model on videos.
#[derive(clap::Args)]
pub struct Args {
    /// The model, as `vjepa compile --export onnx` writes it, or a bundle; with --runtime plan a checkpoint.
    #[arg(value_name = "MODEL|BUNDLE|CHECKPOINT")]
    model: PathBuf,
    /// Videos, or .safetensors files with `clip_u8` [B, 3, T, H, W].
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// What runs the model; `auto` takes what needs no installation, `plan` compiles a checkpoint here and now.
    #[arg(long, default_value = "auto", value_parser = ["auto", "tract", "ort", "plan"])]
    runtime: String,
    /// With --runtime plan: a probe to put on the encoder.
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    /// With --runtime plan: the model's sizes, where the checkpoint does not tell them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    let mut runner = if args.runtime == "plan" {
        if args.threads.is_some() {
            return Err("--threads is for exported models; the plan takes RAYON_NUM_THREADS".into());
        }
        Runner::plan(&args.model, args.probe.as_deref(), args.config.as_deref())?
    } else {
        if args.probe.is_some() || args.config.is_some() {
            return Err("--probe and --config are for --runtime plan; an exported model has its probe inside".into());
        }
        let runtime: Runtime = args.runtime.parse()?;
        let options = Options { runtime, ort_lib: args.ort_lib.clone(), threads, ..Options::default() };
        Runner::exported(&args.model, &options)?
    };
    if !args.json {
        println!("{} on {}", args.model.display(), runner.about());
        println!("clips: {}", clips::in_words(&runner.record));
    }
    let mut failed = 0;
    for input in &args.inputs {
        if let Err(error) = one(args, &mut runner, input) {
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

fn one(args: &Args, runner: &mut Runner, input: &Path) -> Result<(), CliError> {
    let began = Instant::now();
    let clips = clips::read(input, &runner.record)?;
    let prepared = began.elapsed().as_secs_f64() * 1e3;
    let one = clips.data.len() / clips.count.max(1);
    for (number, clip) in clips.data.chunks_exact(one.max(1)).enumerate() {
        let began = Instant::now();
        let outputs = runner.run(clip)?;
        let latency = began.elapsed().as_secs_f64() * 1e3;
        let name = if clips.count > 1 { format!("{}[{number}]", input.display()) } else { input.display().to_string() };
        let top = outputs.iter().find(|output| output.name == "logits").map(|logits| top_k(&logits.data, args.top_k));
        let label = |class: usize| runner.labels.get(class).cloned().unwrap_or_else(|| format!("class {class}"));
        if args.json {
            let mut line = serde_json::json!({
                "input": name, "runtime": runner.about(), "prepare_ms": prepared / clips.count.max(1) as f64,
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
