//! Our own workers: the compiled plan, Burn without a compiler, exported models. Each runs in a process of its own.

use super::eager::EagerStep;
use super::encoder::EncoderMean;
use super::machine::device_peak;
use super::{BenchError, What, Workload};
use cpu_time::ProcessTime;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;
use vjepa_compiler::ir::Sizes;
use vjepa_compiler::plan::{Plan, Report};
use vjepa_programs::{model_configs, step_sizes};
use vjepa_recipe::counter::noise;
use vjepa_recipe::masks::MaskPair;
use vjepa_runtime::cores;
use vjepa_runtime::plan::{Device, DeviceExecutor};
use vjepa_runtime::write_atomically;
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};
use vjepa_train::TrainState;

/// What a worker process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// The compiled plan.
    Plan,
    /// Burn's modules and autodiff, run as they are written.
    Burn,
    /// An exported model on a runtime.
    Model(Runtime),
}

/// Runs one step on the masks of a set and returns its loss.
enum LoadedProgram {
    Step { state: Box<TrainState>, clip: (Vec<usize>, Vec<f32>), masks: Vec<Vec<MaskPair>> },
    Eager { step: Box<EagerStep>, masks: Vec<Vec<MaskPair>> },
    Encoder { encoder: Box<EncoderMean>, clip: (Vec<usize>, Vec<f32>) },
    Model { session: Box<Session>, clip: (Vec<usize>, Vec<f32>) },
}

/// Parameters of a worker.
pub struct WorkerRequest<'a> {
    /// What it runs.
    pub program: Program,
    /// The workload file; a [`Program::Model`] does without one.
    pub case: Option<&'a Path>,
    /// The exported model of a [`Program::Model`].
    pub model: Option<&'a Path>,
    /// Clips of a run of a model without a workload.
    pub batch: usize,
    /// How the model is opened, but for the runtime.
    pub options: Options,
    /// Where the plan runs; the others have the CPU.
    pub device: Device,
}

/// Builds the program's model, then answers commands on standard input until `quit`.
///
/// # Errors
/// [`BenchError`]; a closed standard output ends it without one.
pub fn serve(request: &WorkerRequest<'_>) -> Result<(), BenchError> {
    let Some(path) = request.case else {
        let session = open(request)?;
        let clip = noise_clip(&session, request.batch)?;
        let about = session.runtime();
        return respond(LoadedProgram::Model { session: Box::new(session), clip }, &about, &[], 1, || None);
    };
    let case = Workload::read(path)?;
    let (program, about, flops) = build(request, &case)?;
    let precision = case.precision()?;
    let device = request.device;
    respond(program, &about, &flops, case.mask_sets(), move || Some(device_peak(device, precision)))
}

/// Answers commands on standard input.
fn respond(
    mut program: LoadedProgram,
    about: &str,
    flops: &[f64],
    sets: usize,
    products: impl Fn() -> Option<Result<f64, BenchError>>,
) -> Result<(), BenchError> {
    let mut out = std::io::stdout();
    let mut say = |value: serde_json::Value| writeln!(out, "{value}").and_then(|()| out.flush()).is_ok();
    if !say(serde_json::json!({"ready": about, "flops": flops})) {
        return Ok(());
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let mut words = line.split_whitespace();
        let answered = match (words.next(), words.next().and_then(|set| set.parse().ok())) {
            (Some("run"), Some(set)) => {
                let (began, cpu) = (Instant::now(), ProcessTime::now());
                let loss = program.run(set)?;
                let ms = began.elapsed().as_secs_f64() * 1e3;
                say(serde_json::json!({"ms": ms, "cpu_ms": cpu.elapsed().as_secs_f64() * 1e3, "loss": loss}))
            }
            (Some("profile"), _) => {
                let table = program.profile(sets, Path::new(line["profile".len()..].trim()))?;
                say(serde_json::json!({"table": table}))
            }
            (Some("memory"), _) => say(serde_json::json!({"peak_bytes": program.device_memory()})),
            (Some("products"), _) => match products() {
                Some(flops) => say(serde_json::json!({"flops": flops?})),
                None => break,
            },
            _ => break,
        };
        if !answered {
            break;
        }
    }
    Ok(())
}

fn build(request: &WorkerRequest<'_>, case: &Workload) -> Result<(LoadedProgram, String, Vec<f64>), BenchError> {
    let config = case.config()?;
    let device = request.device;
    let precision = case.precision()?;
    let mut tensors = case.tensors()?;
    let clip = tensors.remove("clip").unwrap_or_default();
    let masks = (0..case.mask_sets()).map(|set| case.masks(set)).collect::<Result<Vec<_>, _>>()?;
    let about = format!("vjepa {}, compiled plan on {device}, {precision}", env!("CARGO_PKG_VERSION"));
    Ok(match (&request.program, case.what) {
        (Program::Plan, What::Step) => {
            let mut state = TrainState::on(device, &config, config.optimization.plan(Some(1))?, false)?;
            state.set_weights(tensors)?;
            let graph = state.graph();
            let plan = Plan::new(graph)?;
            let flops = masks
                .iter()
                .map(|pairs| Ok(Report::new(graph, &plan, &sizes(config.data.batch_size, pairs))?.total.flops as f64))
                .collect::<Result<Vec<_>, BenchError>>()?;
            (LoadedProgram::Step { state: Box::new(state), clip, masks }, about, flops)
        }
        (Program::Plan, What::Encoder) => {
            let models = model_configs(&config)?;
            tensors.retain(|name, _| name.starts_with("encoder."));
            let encoder = EncoderMean::new(device, precision, &models.encoder, tensors)?;
            let graph = encoder.graph();
            let report = Report::new(graph, &Plan::new(graph)?, &sizes(config.data.batch_size, &[]))?;
            let flops = vec![report.total.flops as f64; case.mask_sets()];
            (LoadedProgram::Encoder { encoder: Box::new(encoder), clip }, about, flops)
        }
        (Program::Burn, _) => {
            let step = Box::new(EagerStep::new(&config, tensors, clip, case.what)?);
            (LoadedProgram::Eager { step, masks }, "Burn 0.22 on Flex".to_owned(), Vec::new())
        }
        (Program::Model(_), _) => {
            let session = open(request)?;
            let about = session.runtime();
            (LoadedProgram::Model { session: Box::new(session), clip }, about, Vec::new())
        }
    })
}

/// The exported model of a worker, on all cores as the other workers unless told otherwise.
fn open(request: &WorkerRequest<'_>) -> Result<Session, BenchError> {
    let (Some(path), Program::Model(runtime)) = (request.model, &request.program) else {
        return Err(BenchError::Refused("a worker for a model needs a model file".to_owned()));
    };
    let threads = request.options.threads.or_else(cores);
    Ok(Session::open(path, &Options { runtime: *runtime, threads, ..request.options.clone() })?)
}

/// Clips of noise that a model takes, with their shape.
fn noise_clip(session: &Session, batch: usize) -> Result<(Vec<usize>, Vec<f32>), BenchError> {
    let row = session.input().row();
    let clip = row.as_ref().and_then(|row| row.last_chunk::<4>()).ok_or_else(|| {
        BenchError::Refused(format!("the model takes {}: clips of any size cannot be made up", session.input()))
    })?;
    let shape: Vec<usize> = std::iter::once(batch * session.views()).chain(*clip).collect();
    let values = noise(shape.iter().product());
    Ok((shape, values))
}

impl LoadedProgram {
    /// Peak memory on the device, where it is not the process's.
    fn device_memory(&mut self) -> Option<u64> {
        match self {
            Self::Step { state, .. } => state.params().device_memory(),
            Self::Encoder { encoder, .. } => encoder.device_memory(),
            Self::Eager { .. } | Self::Model { .. } => None,
        }
    }

    fn run(&mut self, set: usize) -> Result<f64, BenchError> {
        match self {
            Self::Step { state, clip: (shape, data), masks } => {
                let pairs = masks.get(set).map(Vec::as_slice).unwrap_or_default();
                let shape: [usize; 5] = shape.as_slice().try_into().unwrap_or_default();
                Ok(state.train_step(data.clone(), shape, pairs)?.loss)
            }
            Self::Eager { step, masks } => step.run(masks.get(set).map(Vec::as_slice).unwrap_or_default()),
            Self::Encoder { encoder, clip: (shape, data) } => encoder.run(shape.clone(), data.clone()),
            Self::Model { session, clip: (shape, data) } => {
                let shape: [usize; 5] = shape.as_slice().try_into().unwrap_or_default();
                let outputs = session.run(&ClipBatch::new(shape, data)?)?;
                Ok(outputs.first().map_or(f64::NAN, |output| mean_abs(&output.data)))
            }
        }
    }
}

/// Steps of a profile.
const PROFILED: usize = 5;

impl LoadedProgram {
    /// Runs a few steps of a plan with the time of every node; writes the trace and returns the table.
    fn profile(&mut self, sets: usize, trace: &Path) -> Result<String, BenchError> {
        if let Some(executor) = self.executor() {
            executor.profile();
        }
        for step in 0..PROFILED {
            self.run(step % sets.max(1))?;
        }
        let executor = self.executor().ok_or_else(|| BenchError::Refused("only a plan has a profile".to_owned()))?;
        let profile = executor.take_profile();
        let written = write_atomically(trace, |file| profile.write_trace(file));
        written.map_err(|source| BenchError::Io { path: trace.to_owned(), source })?;
        Ok(profile.to_string())
    }

    fn executor(&mut self) -> Option<&mut DeviceExecutor> {
        match self {
            Self::Step { state, .. } => Some(state.executor()),
            Self::Encoder { encoder, .. } => Some(encoder.executor()),
            Self::Eager { .. } | Self::Model { .. } => None,
        }
    }
}

/// Mean |y|.
pub(super) fn mean_abs(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).sum::<f64>() / values.len().max(1) as f64
}

fn sizes(batch: usize, pairs: &[MaskPair]) -> Sizes {
    step_sizes(batch, pairs.iter().map(|pair| [pair.context.len, pair.target.len]))
}
