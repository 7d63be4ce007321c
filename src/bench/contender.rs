//! Our own sides: the compiled plan, Burn without a compiler, exported models. Each runs in a process of its own.

use super::eager::EagerStep;
use super::{BenchError, Case, What};
use crate::frozen::Frozen;
use crate::masks::MaskPair;
use crate::train::{TrainState, model_configs};
use cpu_time::ProcessTime;
use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;
use vjepa_compiler::ir::Sizes;
use vjepa_compiler::plan::{Plan, Report};
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};

/// Which side this process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The compiled plan.
    Plan,
    /// Burn's modules and autodiff, run as they are written.
    Burn,
    /// An exported model on a runtime.
    Model(Runtime),
}

/// Something that runs one step on the masks of a set and says its loss.
enum Engine {
    Step { state: Box<TrainState>, clip: (Vec<usize>, Vec<f32>), masks: Vec<Vec<MaskPair>> },
    Eager { step: Box<EagerStep>, masks: Vec<Vec<MaskPair>> },
    Encoder { frozen: Box<Frozen>, clip: Vec<f32> },
    Model { session: Box<Session>, clip: (Vec<usize>, Vec<f32>) },
}

/// Builds the contender's model, then answers commands on standard input until `quit`.
///
/// # Errors
/// [`BenchError`]; standard output that nobody reads ends it without one.
pub fn serve(
    contender: &Contender,
    case: &Path,
    model: Option<&Path>,
    threads: Option<usize>,
) -> Result<(), BenchError> {
    let case = Case::read(case)?;
    let (mut engine, about, flops) = build(contender, &case, model, threads)?;
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
                let loss = engine.run(set)?;
                let ms = began.elapsed().as_secs_f64() * 1e3;
                say(serde_json::json!({"ms": ms, "cpu_ms": cpu.elapsed().as_secs_f64() * 1e3, "loss": loss}))
            }
            (Some("memory"), _) => say(serde_json::json!({"peak_bytes": null})),
            _ => break,
        };
        if !answered {
            break;
        }
    }
    Ok(())
}

fn build(
    contender: &Contender,
    case: &Case,
    model: Option<&Path>,
    threads: Option<usize>,
) -> Result<(Engine, String, Vec<f64>), BenchError> {
    let config = case.config()?;
    let mut tensors = case.tensors()?;
    let clip = tensors.remove("clip").unwrap_or_default();
    let masks = (0..case.mask_sets()).map(|set| case.masks(set)).collect::<Result<Vec<_>, _>>()?;
    let version = env!("CARGO_PKG_VERSION");
    Ok(match (contender, case.what) {
        (Contender::Plan, What::Step) => {
            let mut state = TrainState::new(&config, config.optimization.plan(Some(1))?, false)?;
            state.set_weights(tensors)?;
            let graph = state.graph();
            let plan = Plan::new(graph)?;
            let flops = masks
                .iter()
                .map(|pairs| Ok(Report::new(graph, &plan, &sizes(config.data.batch_size, pairs))?.total.flops as f64))
                .collect::<Result<Vec<_>, BenchError>>()?;
            (Engine::Step { state: Box::new(state), clip, masks }, format!("vjepa {version}, compiled plan"), flops)
        }
        (Contender::Plan, What::Encoder) => {
            let models = model_configs(&config)?;
            tensors.retain(|name, _| name.starts_with("encoder."));
            let frozen = Frozen::new(&models.encoder, None, &tensors)?;
            let report = Report::new(frozen.graph(), &Plan::new(frozen.graph())?, &sizes(config.data.batch_size, &[]))?;
            let flops = vec![report.total.flops as f64; case.mask_sets()];
            let engine = Engine::Encoder { frozen: Box::new(frozen), clip: clip.1 };
            (engine, format!("vjepa {version}, compiled plan"), flops)
        }
        (Contender::Burn, _) => {
            let step = Box::new(EagerStep::new(&config, tensors, clip, case.what)?);
            (Engine::Eager { step, masks }, "Burn 0.22 on Flex".to_owned(), Vec::new())
        }
        (Contender::Model(runtime), _) => {
            let path = model.ok_or_else(|| BenchError::Eager("a model side needs a model file".to_owned()))?;
            let options = Options { runtime: *runtime, threads, ..Options::default() };
            let session = Session::open(path, &options)?;
            let about = session.runtime();
            (Engine::Model { session: Box::new(session), clip }, about, Vec::new())
        }
    })
}

impl Engine {
    fn run(&mut self, set: usize) -> Result<f64, BenchError> {
        match self {
            Self::Step { state, clip: (shape, data), masks } => {
                let pairs = masks.get(set).map(Vec::as_slice).unwrap_or_default();
                let shape: [usize; 5] = shape.as_slice().try_into().unwrap_or_default();
                Ok(state.train_step(data.clone(), shape, pairs)?.loss)
            }
            Self::Eager { step, masks } => step.run(masks.get(set).map(Vec::as_slice).unwrap_or_default()),
            Self::Encoder { frozen, clip } => {
                let outputs = frozen.run(clip.clone())?;
                Ok(outputs.get("encoder_out").map_or(f64::NAN, |tensor| mean_abs(tensor.floats())))
            }
            Self::Model { session, clip: (shape, data) } => {
                let shape: [usize; 5] = shape.as_slice().try_into().unwrap_or_default();
                let outputs = session.run(&ClipBatch::new(shape, data)?)?;
                Ok(outputs.first().map_or(f64::NAN, |output| mean_abs(&output.data)))
            }
        }
    }
}

/// Mean |y|.
pub(super) fn mean_abs(values: &[f32]) -> f64 {
    values.iter().map(|value| f64::from(value.abs())).sum::<f64>() / values.len().max(1) as f64
}

fn sizes(batch: usize, pairs: &[MaskPair]) -> Sizes {
    let lengths = pairs
        .iter()
        .enumerate()
        .flat_map(|(i, pair)| [(format!("N_ctx{i}"), pair.context.len), (format!("N_pred{i}"), pair.target.len)]);
    std::iter::once(("B".to_owned(), batch)).chain(lengths).collect()
}
