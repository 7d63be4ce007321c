//! `vjepa run`: an exported model on videos.

use std::path::{Path, PathBuf};
use std::time::Instant;

use vjepa_runtime::{NamedOutput, Options, Prediction, Runtime, is_compiled, predictions};

use super::CliError;
use super::probe_number::ProbeNumber;
use super::runner::Runner;
use super::runtime::{RuntimeArgs, caution, words};
use vjepa_data::clips;
use vjepa_recipe::config::Config;
use vjepa_runtime::ClipViews;
use vjepa_runtime::cores;

/// Run an exported model on videos
#[derive(clap::Args)]
pub struct Args {
    /// Exported model (.onnx, .vjg) or bundle; with --runtime plan also a checkpoint
    #[arg(value_name = "MODEL|BUNDLE|CHECKPOINT")]
    model: PathBuf,
    /// Videos, pictures, folders of numbered frames, or .safetensors files with `clip_u8` [B, 3, T, H, W]
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Runtime. `auto` needs no installation: tract, or the plan of a *.vjg; models that tract cannot load run on ONNX
    /// Runtime if it is installed, which is reported on stderr. `plan` also compiles checkpoints on the fly
    #[arg(long, default_value = "auto", value_parser = words())]
    runtime: String,
    /// With --runtime plan: probe to put on top of the encoder
    #[arg(long, value_name = "FILE")]
    probe: Option<PathBuf>,
    #[command(flatten)]
    probe_number: ProbeNumber,
    /// With --runtime plan: configuration of the model, if the checkpoint does not record its sizes
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Number of classes to print
    #[arg(long, default_value_t = 5, value_name = "K")]
    top_k: usize,
    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    #[command(flatten)]
    session: RuntimeArgs,
    /// Print one JSON object per clip
    #[arg(long)]
    json: bool,
}

/// Runs the command. An unusable input is reported, and the others are still run.
pub fn run(args: &Args) -> Result<(), CliError> {
    let threads = args.threads.or_else(cores);
    let runtime: Runtime = args.runtime.parse()?;
    let runner = if runtime == Runtime::Plan && !is_compiled(&args.model) {
        if args.threads.is_some() {
            return Err("--threads is for exported models; for plans set RAYON_NUM_THREADS".into());
        }
        let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
        let number = args.probe_number.of(args.probe.as_deref(), true)?;
        Runner::plan(&args.model, (args.probe.as_deref(), number), config.as_ref())?
    } else {
        if args.probe.is_some() || args.probe_number.given() || args.config.is_some() {
            return Err(
                "--probe, --probe-number and --config are for --runtime plan; an exported model contains its probe"
                    .into(),
            );
        }
        let options = Options { runtime, threads, ..args.session.options() };
        Runner::exported(&args.model, &options)?
    };
    caution(&args.model, &runner.session);
    if !args.json {
        println!("{} on {}", args.model.display(), runner.session.runtime());
        let several = match runner.clip_views {
            ClipViews::SINGLE => String::new(),
            ClipViews { clips, views } => format!("; {clips} clips x {views} views averaged"),
        };
        println!("clips: {}{several}", clips::in_words(&runner.record));
    }
    let mut failed = 0;
    for input in &args.inputs {
        if let Err(error) = one(args, &runner, input) {
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

fn one(args: &Args, runner: &Runner, input: &Path) -> Result<(), CliError> {
    let began = Instant::now();
    let clips = clips::read_views(input, &runner.record, runner.clip_views)?;
    let prepared = began.elapsed().as_secs_f64() * 1e3;
    let one = clips.data.len() / clips.count.max(1) * runner.clip_views.count();
    let results = clips.count / runner.clip_views.count();
    for (number, clip) in clips.data.chunks_exact(one.max(1)).enumerate() {
        let began = Instant::now();
        let outputs = runner.run(clip)?;
        let latency = began.elapsed().as_secs_f64() * 1e3;
        let bad = outputs.iter().flat_map(|output| &output.data).filter(|value| !value.is_finite()).count();
        if bad > 0 {
            let name = input.display();
            return Err(format!(
                "{name}: {bad} outputs are NaN or infinite; re-export the model (in f32 if it was exported at lower precision)"
            )
            .into());
        }
        let name = if results > 1 { format!("{}[{number}]", input.display()) } else { input.display().to_string() };
        let top = predictions(&outputs, runner.session.labels(), args.top_k);
        let label = |p: &Prediction| p.label.clone().unwrap_or_else(|| format!("class {}", p.class));
        if args.json {
            let mut line = serde_json::json!({
                "input": name, "runtime": runner.session.runtime(), "prepare_ms": prepared / results.max(1) as f64,
                "latency_ms": latency,
            });
            match &top {
                Some(top) => {
                    let entry = |p: &Prediction| serde_json::json!({"class": p.class, "label": label(p), "probability": p.probability});
                    line["top"] = top.iter().map(entry).collect();
                }
                None => line["outputs"] = outputs.iter().map(described).collect(),
            }
            println!("{line}");
            continue;
        }
        println!("\n{name}  ({latency:.1} ms; decoding and preprocessing {prepared:.1} ms)");
        match top {
            Some(top) => {
                top.iter().for_each(|p| println!("  {:>6.2} %  {}", 100.0 * p.probability, label(p)));
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

fn norm(output: &NamedOutput) -> f64 {
    output.data.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt()
}

fn described(output: &NamedOutput) -> serde_json::Value {
    serde_json::json!({"name": output.name, "shape": output.shape, "norm": norm(output)})
}
