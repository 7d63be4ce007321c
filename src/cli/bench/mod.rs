//! `vjepa bench`: this program compared with others, in turns within one run.

mod decode;
mod kernels;
mod loader;
mod models;
mod result;
mod show;

use super::CliError;
use super::device::DeviceArg;
use super::runtime::{RuntimeArgs, words};
use super::whole::whole;
use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use result::{json_of, print_result};
use std::path::{Path, PathBuf};
use std::process::Command;
use vjepa_lab::bench::{
    Comparison, Program, What, Worker, WorkerRequest, Workload, WorkloadRequest, compare, product_peak, serve,
};
use vjepa_programs::Precision;
use vjepa_recipe::config::Config;
use vjepa_runtime::Options;
use vjepa_runtime::files::{self, Overwrites};
use vjepa_runtime::plan::Device;
use vjepa_runtime::write_atomically;

/// The PyTorch program, written for this comparison.
const TORCH: &str = include_str!("../../../benches/torch_step.py");

/// Compare speed and memory with PyTorch and other runtimes
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Training step: compiled plan, Burn eager, and PyTorch if given
    Step(StepArgs),
    /// Inference: exported models on their runtimes, or without a file the encoder's plan, Burn eager and PyTorch
    Infer(InferArgs),
    /// Single CPU kernels against plain matrix products and copies, per instruction set (or only VJEPA_SIMD's)
    Kernels(kernels::KernelArgs),
    /// Decoding: training clips a second of processor time, and with --python those of decord, torchcodec and PyAV
    Decode(decode::DecodeArgs),
    /// Loading: what the path from files to batches costs beside decoding and resizing alone
    Loader(loader::LoaderArgs),
    /// One of our decoders in a comparison, driven through standard input
    #[command(hide = true)]
    Decoder(decode::DecoderArgs),
    /// One program of a comparison, driven through standard input
    #[command(hide = true)]
    Worker(WorkerArgs),
}

#[derive(clap::Args)]
struct Common {
    /// Size of the encoder
    #[arg(long, default_value = "small", conflicts_with = "config", value_parser = ["tiny", "small", "base", "large", "huge", "giant"])]
    model: String,
    /// Configuration, instead of --model and the sizes below
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Frames per clip
    #[arg(long, default_value_t = 16, conflicts_with = "config")]
    frames: usize,
    /// Height and width of a clip in pixels
    #[arg(long, default_value_t = 112, conflicts_with = "config")]
    size: usize,
    /// Clips per batch [default: 4; 1 for model files]
    #[arg(long, value_name = "N", value_parser = whole::<u32>(1..=4096), conflicts_with = "config")]
    batch: Option<u32>,
    /// Number of measured rounds
    #[arg(long, default_value_t = 12, value_parser = whole::<usize>(1..))]
    rounds: usize,
    /// Number of warm-up rounds
    #[arg(long, default_value_t = 4)]
    warmup: usize,
    /// Python interpreter with PyTorch, to compare with it (eager and compiled)
    #[arg(long, value_name = "PYTHON")]
    torch: Option<PathBuf>,
    /// Skip torch.compile, which takes minutes to compile
    #[arg(long, requires = "torch")]
    no_torch_compile: bool,
    /// Another program to compare with, which takes the case's file as its last argument and is driven through standard input as
    /// benches/torch_step.py is, e.g. 'HF eager=python3 benches/hf_vjepa2.py' (repeatable)
    #[arg(long, value_name = "NAME=COMMAND")]
    beside: Vec<String>,
    /// Skip Burn eager
    #[arg(long)]
    no_burn: bool,
    #[command(flatten)]
    device: DeviceArg,
    /// Precision of matrix products: f32, bf16, for `infer` f16, or several (f32,bf16); on a GPU, f32 means TF32 for all programs
    #[arg(long, default_value = "f32", value_delimiter = ',')]
    precision: Vec<Precision>,
    /// Number of threads per program [default: all cores]
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// Afterwards time every operation of the plan over five steps: print a table and write a trace for Chrome or Perfetto
    /// to this file
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Write the results to a JSON file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct StepArgs {
    #[command(flatten)]
    common: Common,
    /// Width of the predictor [default: half the encoder's]
    #[arg(long, value_name = "N", conflicts_with = "config")]
    pred_width: Option<usize>,
    /// Depth of the predictor
    #[arg(long, default_value_t = 6, value_name = "N", conflicts_with = "config")]
    pred_depth: usize,
    /// Number of different mask sets to cycle through
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = whole::<usize>(1..))]
    mask_sets: usize,
}

#[derive(clap::Args)]
struct InferArgs {
    /// Models (.onnx, .vjg) or bundles to measure as they are; the first is the reference
    #[arg(value_name = "MODEL")]
    files: Vec<PathBuf>,
    /// With models: runtimes, each of which runs each model; `auto` is the plan for .vjg and tract for the others
    #[arg(long, value_name = "R,R,..", value_delimiter = ',', requires = "files", default_value = "auto",
          value_parser = words())]
    runtime: Vec<String>,
    #[command(flatten)]
    session: RuntimeArgs,
    #[command(flatten)]
    common: Common,
    /// Without models: exported model to compare with the plan, e.g. tract=model.onnx (repeatable)
    #[arg(long = "onnx", value_name = "RUNTIME=FILE")]
    models: Vec<String>,
}

#[derive(clap::Args)]
struct WorkerArgs {
    /// plan, burn, or the runtime of an exported model
    kind: String,
    /// Workload to run; none for a model on clips of noise
    case: Option<PathBuf>,
    /// An exported model.
    #[arg(long)]
    model: Option<PathBuf>,
    #[arg(long)]
    threads: Option<usize>,
    #[arg(long, default_value_t = 1)]
    batch: usize,
    #[command(flatten)]
    session: RuntimeArgs,
    #[command(flatten)]
    device: DeviceArg,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    super::stay_when_a_worker_ends();
    match &args.what {
        Bench::Step(args) => {
            let common = &args.common;
            common.spare(&[])?;
            let config = match &common.config {
                Some(path) => Config::from_file(path, &common.sets)?,
                None => config(common, args.pred_width, args.pred_depth)?,
            };
            comparison(common, What::Step, &config, args.mask_sets, (&[], None))
        }
        Bench::Kernels(args) => kernels::run(args),
        Bench::Decode(args) => decode::run(args),
        Bench::Decoder(args) => decode::serve(args),
        Bench::Loader(args) => loader::run(args),
        Bench::Infer(args) if !args.files.is_empty() => models::run(args),
        Bench::Infer(args) => {
            let common = &args.common;
            let models = args.models.iter().filter_map(|model| model.split_once('='));
            common.spare(&models.map(|(_, file)| file.into()).collect::<Vec<PathBuf>>())?;
            let config = match &common.config {
                Some(path) => Config::from_file(path, &common.sets)?,
                None => config(common, None, 1)?,
            };
            comparison(common, What::Encoder, &config, 1, (&args.models, Some(&args.session)))
        }
        Bench::Worker(args) => {
            let program = match args.kind.as_str() {
                "plan" if args.case.is_some() => Program::Plan,
                "burn" => Program::Burn,
                runtime => Program::Model(runtime.parse()?),
            };
            let device = args.device.open()?;
            let (case, model) = (args.case.as_deref(), args.model.as_deref());
            let options = Options { threads: args.threads, ..args.session.options() };
            Ok(serve(&WorkerRequest { program, case, model, batch: args.batch, options, device })?)
        }
    }
}

impl Common {
    /// Refuses results, or a trace, in the place of what is measured.
    fn spare(&self, models: &[PathBuf]) -> Result<(), Overwrites> {
        for (flag, out) in [("--out", &self.out), ("--profile", &self.profile)] {
            if let Some(out) = out {
                files::spare(flag, out, &[out], models.iter().chain(&self.config).map(PathBuf::as_path))?;
            }
        }
        Ok(())
    }
}

/// The configuration that the flags describe, with constant rates.
fn config(common: &Common, pred_width: Option<usize>, pred_depth: usize) -> Result<Config, CliError> {
    let Common { model, frames, size, .. } = common;
    let batch = common.batch.unwrap_or(4);
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
    (models, session): (&[String], Option<&RuntimeArgs>),
) -> Result<(), CliError> {
    let device = common.device.open()?;
    if !device.is_cpu() && !models.is_empty() {
        return Err("--onnx models run on the CPU; omit --onnx or use --device cpu".into());
    }
    if common.torch.is_some() && common.precision.contains(&Precision::F16) {
        return Err("PyTorch's side of a benchmark has no f16: leave --torch out".into());
    }
    let mut figures = Vec::new();
    for precision in &common.precision {
        let folder = tempfile::tempdir()?;
        let case = Workload::write(&WorkloadRequest { what, config, precision: *precision, mask_sets }, folder.path())?;
        let cpu_peak = device.is_cpu().then(product_peak);
        let mut sides = start(common, device, *precision, &case.path(), (models, session))?;
        let result = turns(&mut sides, mask_sets, common)?;
        let peak = match cpu_peak {
            Some(peak) => peak,
            None => {
                sides.iter_mut().map(Worker::products).try_fold(0.0, |best: f64, side| side.map(|own| own.max(best)))?
            }
        };
        let result = result.with_peak(peak);
        let profiled = match (&common.profile, sides.first_mut()) {
            (Some(trace), Some(plan)) => Some((plan.profile(trace)?, trace)),
            _ => None,
        };
        figures.push(json_of(common, device, *precision, what, config, &result)?);
        if !common.json {
            print_result(what, config, *precision, device, &result)?;
            if let Some((table, trace)) = profiled {
                print!("\n{table}trace       {}\n", trace.display());
            }
        }
        // Kept even if a later precision fails.
        save(common.out.as_deref(), &one_or_all(&figures))?;
    }
    if common.json {
        println!("{}", one_or_all(&figures));
    }
    Ok(())
}

/// Lets the programs take turns, with a progress bar.
fn turns(sides: &mut [Worker], mask_sets: usize, common: &Common) -> Result<Comparison, CliError> {
    let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template("{wide_bar:.cyan/blue} {pos}/{len} rounds")?);
    let result = compare(sides, mask_sets, common.warmup, common.rounds, |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    Ok(result)
}

fn one_or_all(figures: &[serde_json::Value]) -> serde_json::Value {
    match figures {
        [one] => one.clone(),
        all => all.into(),
    }
}

/// Writes figures as JSON where a file is asked for.
fn save(out: Option<&Path>, figures: &impl serde::Serialize) -> Result<(), CliError> {
    let Some(out) = out else { return Ok(()) };
    let json = serde_json::to_vec_pretty(figures)?;
    Ok(write_atomically(out, |file| std::io::Write::write_all(file, &json))
        .map_err(|error| format!("cannot write {}: {error}", out.display()))?)
}

fn start(
    common: &Common,
    device: Device,
    precision: Precision,
    case: &Path,
    (models, session): (&[String], Option<&RuntimeArgs>),
) -> Result<Vec<Worker>, CliError> {
    let own = std::env::current_exe()?;
    let side = |kind: &str, device: Device, model: Option<&str>| {
        let mut command = Command::new(&own);
        command.args(["bench", "worker", kind, "--device", &device.to_string()]).arg(case);
        if let Some(model) = model {
            command.args(["--model", model]);
        }
        if let Some(threads) = common.threads {
            command.args(["--threads", &threads.to_string()]).env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    };
    let mut sides = vec![Worker::start("plan", side("plan", device, None))?];
    for model in models {
        let (runtime, file) = model
            .split_once('=')
            .ok_or_else(|| format!("--onnx must be RUNTIME=FILE, as in tract=model.onnx; got {model}"))?;
        let mut command = side(runtime, Device::CPU, Some(file));
        session.iter().for_each(|flags| flags.pass_on(&mut command));
        sides.push(Worker::start(&format!("{runtime} {}", file_name(file)), command)?);
    }
    for program in &common.beside {
        let (name, command) = program
            .split_once('=')
            .ok_or_else(|| format!("--beside must be NAME=COMMAND, as in `mine=python3 mine.py`; got {program}"))?;
        let mut words = command.split_whitespace();
        let mut command = Command::new(words.next().ok_or_else(|| format!("--beside {name}= names no program"))?);
        command.args(words).arg(case);
        sides.push(Worker::start(name, command)?);
    }
    // Burn's modules run eagerly on the CPU only, and have no autocast.
    if !common.no_burn && device.is_cpu() && precision == Precision::F32 {
        sides.push(Worker::start("Burn eager", side("burn", Device::CPU, None))?);
    }
    if let Some(python) = &common.torch {
        for compiled in [false, true] {
            if compiled && common.no_torch_compile {
                continue;
            }
            let name = device.to_string();
            let name = if device.is_cpu() { "cpu" } else { &name };
            let mut command = Command::new(python);
            command.args(["-c", TORCH]).arg(case).args(["--device", name, "--dtype", &precision.to_string()]);
            command.args(compiled.then_some("--compile"));
            if let Some(threads) = common.threads {
                command.args(["--threads", &threads.to_string()]);
            }
            sides.push(Worker::start(if compiled { "torch.compile" } else { "torch eager" }, command)?);
        }
    }
    Ok(sides)
}

fn file_name(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}
