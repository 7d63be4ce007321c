//! Pre-training: data, masks and rates in, the compiled step, checkpoints and metrics out.
//!
//! [`train`] reads like the algorithm. Around it: the state of a run and its compiled step (`state.rs`), the numbers of a
//! step (`metrics.rs`), files that survive a kill (`checkpoint.rs`), which settings a resumed run may change (`resume.rs`),
//! how many clips it has seen (`seen.rs`),
//! runs of the official code (`official.rs`), Burn's autodiff in place of the compiled gradients (`eager.rs`), and the signals that end a run early (`interrupt.rs`).
//!
//! What is minimised is an [objective](vjepa_graphs::objectives): nothing here knows a module, a parameter set or a scalar
//! by name.

mod checkpoint;
pub mod diagnostics;
mod eager;
mod error;
mod interrupt;
mod metrics;
pub mod official;
mod profile;
mod resume;
mod seen;
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
pub use seen::clips_seen;
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
    /// Continue from the latest checkpoint in the folder.
    pub resume: bool,
    /// Go on from this checkpoint of the official code.
    pub resume_from: Option<PathBuf>,
    /// Take gradients from Burn's autodiff instead of the compiled step (slow; for comparison).
    pub eager: bool,
    /// Where to run.
    pub device: Device,
    /// Stop after this step instead of the configured last one; the schedules do not change.
    pub stop_at: Option<u64>,
    /// A step compiled ahead of time, instead of compiling it now.
    pub plan: Option<PathBuf>,
    /// How the step is compiled.
    pub passes: Passes,
    /// Steps to profile.
    pub profile: Option<ProfileRequest>,
}

/// Callbacks during a run, for progress bars and diagnostics.
pub trait Observer {
    /// A phase that takes a while begins.
    fn phase(&mut self, what: &str);
    /// Step `from` of `of` is about to run: the first one, of this part of a resumed run.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with; the run then does not start.
    fn begins(&mut self, _from: u64, _of: u64) -> Result<(), TrainError> {
        Ok(())
    }
    /// The run continues from a checkpoint.
    fn resumed(&mut self, _continuation: &Continuation) {}
    /// A step is done.
    fn step(&mut self, report: &StepReport);
    /// The requested steps are profiled and the trace is written.
    fn profiled(&mut self, _profile: &Profile<'_>, _trace: &Path) {}
    /// Every `logging.diagnostics_every` steps and after the last: graphs may be run on the state, which must not change.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with; the run then stops.
    fn diagnose(&mut self, _state: &mut TrainState) -> Result<(), TrainError> {
        Ok(())
    }
    /// The last step is done, saved and diagnosed: graphs may be run on the state, which must not change.
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
    /// Loss of the last of them; none if no step was ever done.
    pub loss: Option<f64>,
    /// The latest checkpoint; none if no step was ever done, which leaves nothing to save.
    pub checkpoint: Option<PathBuf>,
    /// The file of metrics.
    pub metrics: PathBuf,
    /// Unreadable videos that were skipped.
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
    let (tag, columns) = (&config.logging.write_tag, state.objective().declaration());
    let mut metrics = Metrics::open(&folder, tag, columns, first, config.logging.metrics_every)?;
    let mut loader = Loader::new(source, LoaderConfig::from_config(config, first))?;
    let profiler = Profiler::new(run.profile.as_ref(), first, last);
    observer.begins(first, plan.steps)?;
    observer.phase("training");
    while state.step() < last && !interrupt.raised() {
        let began = Instant::now();
        let clips = loader.next_batch()?;
        let waited = began.elapsed();
        // Clips of one video share its masks.
        let pairs = masks.pairs(config.meta.seed, state.step(), 0, config.data.batch_size)?;
        let pairs: Vec<_> = pairs.iter().map(|pair| pair.repeated(config.data.num_clips)).collect();
        profiler.before(&mut state);
        let mut report = state.train_step(clips.clips, clips.shape, &pairs)?;
        report.waited = waited;
        report.took = began.elapsed();
        report.clips = clips_seen(state.step(), config, state.history());
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
    // A run without a step has nothing new to save.
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// A new objective must not need a change here.
    #[test]
    fn no_module_and_no_loss_of_an_objective_is_named_here() {
        let mut seen = 0;
        for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap() {
            let path = entry.unwrap().path();
            // What maps a file of the official code names what that file holds.
            if path.ends_with("official.rs") {
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap();
            for word in ["encoder", "predictor", "loss_jepa", "loss_reg", "Jepa"] {
                assert!(!code.contains(word), "{} names `{word}`", path.display());
            }
            seen += 1;
        }
        assert!(seen > 8, "{seen}");
    }
}
