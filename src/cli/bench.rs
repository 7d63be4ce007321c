//! `vjepa bench`: this program beside others, interleaved in one run.

use super::CliError;
use super::train::require_cpu;
use crate::bench::{Case, CaseRequest, Comparison, Contender, Side, What, compare, product_peak, serve};
use crate::config::Config;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The PyTorch side, written for this comparison.
const TORCH: &str = include_str!("../../benches/torch_step.py");

/// Compare speed and memory with other programs, taking turns.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// The training step: compiled plan, Burn eager, and PyTorch where there is one
    Step(StepArgs),
    /// The encoder on whole clips: compiled plan, exported models, Burn eager, and PyTorch where there is one
    Infer(InferArgs),
    /// One side of a comparison, driven through standard input
    #[command(hide = true)]
    Side(SideArgs),
}

#[derive(clap::Args)]
struct Common {
    /// Encoder: tiny, small, base, large, huge or giant.
    #[arg(long, default_value = "small", value_parser = ["tiny", "small", "base", "large", "huge", "giant"])]
    model: String,
    /// A configuration instead of --model and the sizes below.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a value of the configuration.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Frames of a clip.
    #[arg(long, default_value_t = 16)]
    frames: usize,
    /// Side of a clip in pixels.
    #[arg(long, default_value_t = 112)]
    size: usize,
    /// Clips of a batch.
    #[arg(long, default_value_t = 4)]
    batch: usize,
    /// Rounds that count.
    #[arg(long, default_value_t = 12)]
    rounds: usize,
    /// Rounds before, which do not.
    #[arg(long, default_value_t = 4)]
    warmup: usize,
    /// A Python with PyTorch, for its side (eager and compiled).
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Leave out torch.compile, which takes minutes to compile.
    #[arg(long, requires = "torch")]
    no_torch_compile: bool,
    /// Leave out Burn eager.
    #[arg(long)]
    no_burn: bool,
    /// Where to run; this build has `cpu`.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Arithmetic.
    #[arg(long, default_value = "f32", value_parser = ["f32"])]
    precision: String,
    /// Threads of every side; all cores unless given.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Write the figures to a file as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The figures as JSON on standard output.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct StepArgs {
    #[command(flatten)]
    common: Common,
    /// Width of the predictor; half the encoder's unless given.
    #[arg(long, value_name = "N")]
    pred_width: Option<usize>,
    /// Blocks of the predictor.
    #[arg(long, default_value_t = 6, value_name = "N")]
    pred_depth: usize,
    /// Different sets of masks that the rounds go through.
    #[arg(long, default_value_t = 4, value_name = "N")]
    mask_sets: usize,
}

#[derive(clap::Args)]
struct InferArgs {
    #[command(flatten)]
    common: Common,
    /// Exported models to run beside the plan, as RUNTIME=FILE (tract=model.onnx, ort=model.onnx).
    #[arg(long = "onnx", value_name = "RUNTIME=FILE")]
    models: Vec<String>,
}

#[derive(clap::Args)]
struct SideArgs {
    /// plan, burn, tract or ort.
    kind: String,
    /// The case to run.
    case: PathBuf,
    /// An exported model.
    #[arg(long)]
    model: Option<PathBuf>,
    #[arg(long)]
    threads: Option<usize>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    match &args.what {
        Bench::Step(args) => {
            let common = &args.common;
            let config = match &common.config {
                Some(path) => Config::from_file(path, &common.sets)?,
                None => config(common, args.pred_width, args.pred_depth)?,
            };
            comparison(common, What::Step, &config, args.mask_sets, &[])
        }
        Bench::Infer(args) => {
            let common = &args.common;
            let config = match &common.config {
                Some(path) => Config::from_file(path, &common.sets)?,
                None => config(common, None, 1)?,
            };
            comparison(common, What::Encoder, &config, 1, &args.models)
        }
        Bench::Side(args) => {
            let contender = match args.kind.as_str() {
                "plan" => Contender::Plan,
                "burn" => Contender::Burn,
                runtime => Contender::Model(runtime.parse()?),
            };
            Ok(serve(&contender, &args.case, args.model.as_deref(), args.threads)?)
        }
    }
}

/// The configuration that the flags describe; its rates stay where they are.
fn config(common: &Common, pred_width: Option<usize>, pred_depth: usize) -> Result<Config, CliError> {
    let Common { model, frames, size, batch, .. } = common;
    let base = Config::from_yaml(&format!("model: {{model_name: vit_{model}}}\n"), "", &[])?;
    let pred_width = pred_width.unwrap_or(base.model.sizes()?.embed_dim / 2);
    let yaml = format!(
        "model: {{model_name: vit_{model}, pred_embed_dim: {pred_width}, pred_depth: {pred_depth}}}\n\
         data: {{dataset_type: DriftingTextures, batch_size: {batch}, num_frames: {frames}, crop_size: {size}}}\n\
         meta: {{dtype: float32, seed: 0}}\n\
         optimization: {{steps: 1000000, warmup_steps: 0, clip_grad: null, start_lr: 1.0e-4, lr: 1.0e-4, final_lr: 1.0e-4,\
         weight_decay: 0.04, final_weight_decay: 0.04, ema: [0.998, 0.998]}}\n"
    );
    Ok(Config::from_yaml(&yaml, "the flags", &common.sets)?)
}

fn comparison(
    common: &Common,
    what: What,
    config: &Config,
    mask_sets: usize,
    models: &[String],
) -> Result<(), CliError> {
    require_cpu(&common.device)?;
    let folder = tempfile::tempdir()?;
    let case = Case::write(&CaseRequest { what, config, mask_sets }, folder.path())?;
    let peak = product_peak();
    let mut sides = start(common, &case.path(), models)?;
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar:.cyan/blue} {pos}/{len} rounds")?);
    let mut result = compare(&mut sides, mask_sets, common.warmup, common.rounds, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    result.product_peak = Some(peak);
    show(common, what, config, &result)
}

fn start(common: &Common, case: &Path, models: &[String]) -> Result<Vec<Side>, CliError> {
    let own = std::env::current_exe()?;
    let side = |kind: &str, model: Option<&str>| {
        let mut command = Command::new(&own);
        command.args(["bench", "side", kind]).arg(case);
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        if let Some(threads) = common.threads {
            command.args(["--threads", &threads.to_string()]).env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    };
    let mut sides = vec![Side::start("plan", side("plan", None))?];
    for model in models {
        let (runtime, file) = model
            .split_once('=')
            .ok_or_else(|| format!("--onnx {model}: write RUNTIME=FILE, as in tract=model.onnx"))?;
        sides.push(Side::start(&format!("{runtime} {}", file_name(file)), side(runtime, Some(file)))?);
    }
    if !common.no_burn {
        sides.push(Side::start("Burn eager", side("burn", None))?);
    }
    if let Some(python) = &common.torch {
        for compiled in [false, true] {
            if compiled && common.no_torch_compile {
                continue;
            }
            let mut command = Command::new(python);
            command.args(["-c", TORCH]).arg(case).args(compiled.then_some("--compile"));
            if let Some(threads) = common.threads {
                command.args(["--threads", &threads.to_string()]);
            }
            sides.push(Side::start(if compiled { "torch.compile" } else { "torch eager" }, command)?);
        }
    }
    Ok(sides)
}

fn file_name(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}

fn show(common: &Common, what: What, config: &Config, result: &Comparison) -> Result<(), CliError> {
    let sizes = config.model.sizes()?;
    let json = serde_json::json!({
        "what": what, "width": sizes.embed_dim, "depth": sizes.depth, "heads": sizes.num_heads,
        "frames": config.data.num_frames, "size": config.data.crop_size, "batch": config.data.batch_size,
        "device": common.device, "precision": common.precision, "version": env!("CARGO_PKG_VERSION"),
        "threads": common.threads.or_else(|| std::thread::available_parallelism().ok().map(usize::from)),
        "result": result,
    });
    if let Some(out) = &common.out {
        std::fs::write(out, serde_json::to_vec_pretty(&json)?)
            .map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    if common.json {
        println!("{json}");
    } else {
        let (frames, side, batch) = (config.data.num_frames, config.data.crop_size, config.data.batch_size);
        let name = match what {
            What::Step => "training step",
            What::Encoder => "encoder",
        };
        println!(
            "{name}: width {}, depth {}, heads {}; {frames}x{side}x{side}, batch {batch}; {} rounds, {}",
            sizes.embed_dim, sizes.depth, sizes.num_heads, result.rounds, common.precision
        );
        print!("{result}");
    }
    Ok(())
}
