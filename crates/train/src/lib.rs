//! Pre-training: data, masks and rates in, the compiled step, checkpoints and metrics out.
//!
//! [`train`] reads like the algorithm; what it stands on is beside it: the run's state and its compiled step
//! (`state.rs`), what a step costs and says (`metrics.rs`), files that survive being killed (`checkpoint.rs`), what a
//! run may go on with (`resume.rs`), runs of the official code (`official.rs`), Burn's autodiff in place of the compiled gradients (`eager.rs`), and the signals that end a run early (`interrupt.rs`).

mod checkpoint;
pub mod diagnostics;
mod eager;
mod error;
mod interrupt;
mod metrics;
pub mod official;
mod profile;
mod resume;
mod state;
pub mod verdict;
mod watch;

pub use checkpoint::{Checkpoint, CheckpointRecord, Progress};
pub use diagnostics::{Diagnostics, DiagnosticsReport, HeldOut};
pub use error::TrainError;
pub use interrupt::Interrupt;
pub use metrics::{Metrics, StepReport};
pub use profile::ProfileRequest;
pub use resume::{Change, Continuation};
pub use state::{StepSource, TrainState};
pub use watch::Watch;

use profile::Profiler;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vjepa_data::{Loader, LoaderConfig, open_source};
use vjepa_programs::{Passes, load_step};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, Profile};

/// How a run is started.
#[derive(Clone, Debug, Default)]
pub struct TrainRun {
    /// Go on from the latest checkpoint in the folder.
    pub resume: bool,
    /// Go on from this checkpoint of the official code.
    pub resume_from: Option<PathBuf>,
    /// Take gradients from Burn's autodiff instead of the compiled step (slow; for comparison).
    pub eager: bool,
    /// Where to run.
    pub device: Device,
    /// Stop after this step instead of the configured one; the schedules do not change.
    pub stop_at: Option<u64>,
    /// The step compiled before, instead of compiling it now.
    pub plan: Option<PathBuf>,
    /// How the step is compiled.
    pub passes: Passes,
    /// Steps to profile.
    pub profile: Option<ProfileRequest>,
}

/// What happens during a run, for progress bars and diagnostics.
pub trait Observer {
    /// Something that takes a while begins.
    fn phase(&mut self, what: &str);
    /// The first step is about to be done, or, when resumed, the one numbered `from`.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with; the run then does not begin.
    fn begins(&mut self, _from: u64) -> Result<(), TrainError> {
        Ok(())
    }
    /// The run goes on from a checkpoint.
    fn resumed(&mut self, _continuation: &Continuation) {}
    /// A step is done.
    fn step(&mut self, report: &StepReport);
    /// The steps asked for are profiled, and the trace is written.
    fn profiled(&mut self, _profile: &Profile<'_>, _trace: &Path) {}
    /// Every `logging.diagnostics_every` steps, and after the last: the state may be read and run, not changed.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with; the run then stops.
    fn diagnose(&mut self, _state: &mut TrainState) -> Result<(), TrainError> {
        Ok(())
    }
    /// The last step is done, saved and diagnosed: the state may be read and run, not changed.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with.
    fn ends(&mut self, _state: &mut TrainState) -> Result<(), TrainError> {
        Ok(())
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainOutcome {
    /// Steps done in all.
    pub steps: u64,
    /// Loss of the last of them; none where no step was ever done.
    pub loss: Option<f64>,
    /// The latest checkpoint; none where no step was ever done, which leaves nothing to save.
    pub checkpoint: Option<PathBuf>,
    /// The metrics.
    pub metrics: PathBuf,
    /// Videos that were left out.
    pub bad_videos: u64,
    /// Whether a signal ended the run before its last step.
    pub interrupted: bool,
}

/// Runs the configured pre-training.
///
/// # Errors
/// [`TrainError`]; a loss or gradient that is NaN or infinite ends the run before anything is saved over.
pub fn train(
    config: &Config,
    run: &TrainRun,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<TrainOutcome, TrainError> {
    config.check_training()?;
    let folder = PathBuf::from(config.logging.folder.clone().ok_or(TrainError::NoFolder)?);
    std::fs::create_dir_all(&folder).map_err(|source| TrainError::Io { path: folder.clone(), source })?;
    let source = open_source(&config.data, &config.data_aug)?;
    let batch = config.data.batch_size as u64;
    let plan = config.optimization.plan(source.len().map(|clips| clips / batch))?;
    let masks = config.masks()?;

    observer.phase("compiling the training step");
    let step = match &run.plan {
        _ if run.eager => StepSource::Eager,
        Some(path) => StepSource::Compiled(Box::new(load_step(path, config, run.device)?)),
        None => StepSource::Passes(run.passes.clone()),
    };
    let mut state = TrainState::from_source(run.device, config, plan, step)?;
    let files = Checkpoint::new(&folder, &config.logging.write_tag);
    state.learns_from(source.contents());
    match &run.resume_from {
        Some(path) => state.begin_from_official(config, &files, path)?,
        None => state.begin(config, &files, run.resume)?,
    }
    if let Some(continuation) = state.history().last() {
        observer.resumed(continuation);
    }

    let first = state.step();
    let last = run.stop_at.unwrap_or(plan.steps).min(plan.steps);
    let every = config.logging.checkpoint_every.unwrap_or(plan.checkpoint_every()).max(1);
    let mut metrics = Metrics::open(&folder, &config.logging.write_tag, first, config.logging.metrics_every)?;
    let mut loader = Loader::new(source, LoaderConfig::from_config(config, first))?;
    let profiler = Profiler::new(run.profile.as_ref(), first, last);
    observer.begins(first)?;
    observer.phase("training");
    while state.step() < last && !interrupt.raised() {
        let began = Instant::now();
        let clips = loader.next_batch()?;
        let waited = began.elapsed();
        let pairs = masks.pairs(config.meta.seed, state.step(), 0, config.data.batch_size)?;
        profiler.before(&mut state);
        let mut report = state.train_step(clips.clips, clips.shape, &pairs)?;
        report.waited = waited;
        report.took = began.elapsed();
        metrics.add(&report)?;
        observer.step(&report);
        profiler.after(&mut state, observer)?;
        let due = |n: u64| state.step() < last && state.step().is_multiple_of(n.max(1));
        let (measure, save) = (config.logging.diagnostics_every.is_some_and(due), due(every));
        if save {
            state.save(config, &files)?;
        }
        if measure {
            observer.diagnose(&mut state)?;
        }
    }
    metrics.flush()?;
    // What a run without a step would save is there already, or never began.
    if state.step() > first {
        state.save(config, &files)?;
        if state.step() == last {
            if config.logging.diagnostics_every.is_some() {
                observer.diagnose(&mut state)?;
            }
            observer.ends(&mut state)?;
        }
    }
    Ok(TrainOutcome {
        steps: state.step(),
        loss: state.loss(),
        checkpoint: state.saved().map(Path::to_owned),
        metrics: metrics.path().to_owned(),
        bad_videos: loader.quarantine().len() as u64,
        interrupted: state.step() < last,
    })
}
