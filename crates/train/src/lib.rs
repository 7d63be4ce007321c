//! Training: data and rates in, the compiled step, checkpoints and metrics out.
//!
//! [`train_task`] reads like the algorithm; [`train`] is pre-training, [`finetuning`] and [`mixture`] (images beside videos, clips
//! of several lengths) the other [tasks](Task). Around it: the state of a run and its compiled step (`state.rs`), the numbers of a
//! step (`metrics.rs`), how it is compiled (`engine.rs`; `mixed.rs` where a step has several kinds of samples), the groups of its
//! samples (`feeds.rs`), its gradients added up over groups and ranks (`sums.rs`), who of these updates what (`shards.rs`), ranks
//! that mean the same run and begin with the same weights (`together.rs`), files that survive a kill (`checkpoint.rs`), written beside training (`saver.rs`) in a folder that is the run's own (`lock.rs`), which settings a resumed run may
//! change (`resume.rs`), how many clips it has seen (`seen.rs`),
//! runs of the official code (`official.rs`), Burn's autodiff in place of the compiled gradients (`eager.rs`), and the signals that end a run early (`interrupt.rs`).
//!
//! What is minimised is an [objective](vjepa_graphs::objectives): nothing here knows a module, a parameter set or a scalar
//! by name.

mod checkpoint;
pub mod diagnostics;
mod diverged;
mod eager;
mod engine;
mod error;
mod feeds;
pub mod finetuning;
mod interrupt;
mod lock;
mod metrics;
mod mixed;
pub mod mixture;
pub mod official;
mod profile;
mod reports;
mod resume;
mod saver;
mod seen;
mod shards;
mod state;
mod sums;
mod task;
mod together;
pub mod verdict;
mod watch;

pub use checkpoint::{Checkpoint, CheckpointRecord, Found, Progress};
pub use diagnostics::{Diagnostics, DiagnosticsReport, HeldOut};
pub use diverged::Culprit;
pub use error::TrainError;
pub use interrupt::Interrupt;
pub use metrics::{Metrics, StepReport};
pub use profile::ProfileRequest;
pub use resume::{Change, Continuation};
pub use seen::clips_seen;
pub use state::{StepSource, TrainState};
pub use sums::Travel;
pub use task::{Group, Supply, Task};
pub use watch::Watch;

use diverged::Replay;
use feeds::Feeds;
use lock::Lock;
use mixture::Mixture;
use profile::Profiler;
use reports::{Reports, announcement};
use saver::Saver;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use task::Pretraining;
use vjepa_collective::{Collective, any, shares};
use vjepa_data::{ClipValues, DataSets};
use vjepa_graphs::NamedTensors;
use vjepa_programs::{Passes, TrainGraph, load_step};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, Profile, Recorded};

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
    /// The data sets, where they have been read already.
    pub data: Option<DataSets>,
    /// Those of images, likewise.
    pub images: Option<DataSets>,
    /// Steps to profile.
    pub profile: Option<ProfileRequest>,
    /// Whether losses are read when the next step has been sent to the device ([`TrainState::read_late`]); none: where it is not
    /// the CPU.
    pub read_late: Option<bool>,
    /// Whether launches are recorded and replayed ([`TrainState::record_launches`]).
    pub record_launches: bool,
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
    /// Something that whoever runs this should know; the run goes on.
    fn note(&mut self, _what: &str) {}
    /// Some groups of a step are done, of those that this process computes.
    fn group(&mut self, _done: u64, _of: u64) {}
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
    /// Another twentieth of the run is done, the time for a verdict on it: graphs may be run on the state, which must not
    /// change.
    ///
    /// # Errors
    /// Whatever the observer's own work fails with; the run then stops.
    fn judge(&mut self, _state: &mut TrainState) -> Result<(), TrainError> {
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
    /// Steps skipped since their loss was above `optimization.skip_above`.
    pub skipped: u64,
    /// Whether a signal ended the run before its last step.
    pub interrupted: bool,
    /// How sums of gradients travelled between the ranks in this part of the run, as this rank saw it; none for one process.
    pub travel: Option<Travel>,
    /// How steps were launched, where launches are recorded.
    pub recorded: Option<Recorded>,
}

/// Runs the configured pre-training, on `ranks` processes each of which calls this with the same configuration. Rank 0 writes
/// all files but the lists of bad videos and what another rank found where the run diverged.
///
/// # Errors
/// [`TrainError`]; a loss or gradient that is NaN or infinite ends the run before anything is saved over.
pub fn train(
    config: &Config,
    run: &TrainRun,
    ranks: &dyn Collective,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<TrainOutcome, TrainError> {
    config.check_training()?;
    let (data, go) = (run.data.clone(), |task: &dyn Task, observer: &mut dyn Observer| {
        train_task(config, task, run, ranks, interrupt, observer)
    });
    match config.is_mixed() {
        true => go(&Mixture::new(config, data, run.images.clone())?, observer),
        false => go(&Pretraining::new(config, data)?, observer),
    }
}

/// Like [`train`], learning from a task's samples.
///
/// # Errors
/// As [`train`].
pub fn train_task(
    config: &Config,
    task: &dyn Task,
    run: &TrainRun,
    ranks: &dyn Collective,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<TrainOutcome, TrainError> {
    let groups = config.optimization.groups();
    let own = shares(ranks, groups)?;
    let folder = PathBuf::from(config.logging.folder.clone().ok_or(TrainError::NoFolder)?);
    std::fs::create_dir_all(&folder).map_err(|source| TrainError::Io { path: folder.clone(), source })?;
    let lock = if ranks.rank() == 0 { Some(Lock::take(&folder, &config.logging.write_tag)?) } else { None };
    if let Some(note) = lock.as_ref().and_then(|lock| lock.note.as_ref()) {
        observer.note(note);
    }
    let files = Checkpoint::new(&folder, &config.logging.write_tag);
    if ranks.rank() == 0 {
        state::check_folder(config, &files, run.resume)?;
    }
    let supplies = task.supplies(config)?;
    let videos = supplies.iter().find(|supply| !supply.kind.images).and_then(|supply| supply.source.len());
    let batch = groups.saturating_mul(config.data.batch_size as u64);
    let plan = config.optimization.plan(videos.map(|clips| clips / batch))?;

    observer.phase("compiling the training step");
    let step = step_source(config, run)?;
    let mut state = TrainState::of_rank(run.device, config, plan, step, ranks)?;
    let contents = mixture::contents(&supplies);
    together::agree(ranks, config, &state, contents.clone())?;
    state.learns_from(contents);
    if ranks.rank() == 0 {
        match &run.resume_from {
            Some(path) => state.begin_from_official(config, &files, path)?,
            None if run.resume => state.begin(config, &files, true)?,
            None => match task.weights(state.objective())? {
                Some(weights) => state.begin_with(&files, weights)?,
                None => state.begin(config, &files, false)?,
            },
        }
    }
    together::begin_alike(ranks, &mut state)?;
    if let Some(note) = together::sharing(ranks, config, &state)? {
        observer.note(&note);
    }
    state.take_notes().iter().for_each(|note| observer.note(note));
    if let Some(continuation) = state.history().last() {
        observer.resumed(continuation);
    }

    let first = state.step();
    let last = run.stop_at.unwrap_or(plan.steps).min(plan.steps);
    let every = config.logging.checkpoint_every.unwrap_or(plan.checkpoint_every()).max(1);
    let metrics = match ranks.rank() {
        0 => {
            let (tag, columns) = (&config.logging.write_tag, state.objective().declaration());
            Some(Metrics::open(&folder, tag, columns, first, config.logging.metrics_every)?)
        }
        _ => None,
    };
    let mut reports = Reports::to(metrics);
    if run.read_late.unwrap_or(!run.device.is_cpu()) {
        state.read_late();
    }
    if run.record_launches {
        state.record_launches();
    }
    let (rank, world) = (ranks.rank(), ranks.world());
    let mut feeds = Feeds::open(&supplies, config, first, (rank, world), |settings| settings)?;
    let replay = Replay { config, supplies, task, rank, world, folder: &folder };
    let mut saver = Saver::new(config, files);
    let profiler = Profiler::new(run.profile.as_ref(), first, last);
    observer.begins(first, plan.steps)?;
    observer.phase("training");
    while state.step() < last && !any(ranks, interrupt.raised())? {
        let began = Instant::now();
        let mut waited = Duration::ZERO;
        profiler.before(&mut state);
        for done in 0..own {
            let asked = Instant::now();
            let (kind, clips) = feeds.next()?;
            waited += asked.elapsed();
            let values = clips.shape.iter().product();
            let parts = task.parts(kind, clips)?;
            let computed = if done + 1 == own { state.add_last(parts, ranks) } else { state.add_parts(parts) };
            computed.map_err(|error| replay.explain(error, &mut state))?;
            // Bytes become floats in the executor, which keeps their memory itself.
            if let Some(loader) = feeds.takes_back(kind)
                && let Some(memory) = state.spare(values)
            {
                loader.recycle(ClipValues::Floats(memory));
            }
            if own > 1 {
                observer.group(done + 1, own);
            }
            if groups > 1 && state.step() == first && done == 0 {
                observer.note(&announcement(config, ranks.world() as u64, began.elapsed()));
            }
        }
        let ended = state.end_step(ranks).map_err(|error| replay.explain(error, &mut state))?;
        reports.took([waited, began.elapsed()]);
        let due = |n: u64| state.step() < last && state.step().is_multiple_of(n.max(1));
        let (measure, save) = (config.logging.diagnostics_every.is_some_and(due), due(every));
        let judge = due(plan.steps / 20) && ranks.rank() == 0;
        // Nothing is saved or judged before it is known to be sound.
        let settled = if measure || save || judge { state.settle() } else { Ok(None) };
        let settled = settled.map_err(|error| replay.explain(error, &mut state))?;
        for report in [ended, settled].into_iter().flatten() {
            reports.tell(report, config, &state, observer);
        }
        profiler.after(&mut state, observer)?;
        let sent = if save { state.sent_moments(ranks)? } else { NamedTensors::new() };
        let told = match save && ranks.rank() == 0 {
            true => saver.begin(&mut state, sent),
            false => saver.settled(&mut state, false),
        };
        if let Some(note) = told {
            observer.note(&note);
        }
        if measure && ranks.rank() == 0 {
            observer.diagnose(&mut state)?;
        }
        if judge {
            observer.judge(&mut state)?;
        }
    }
    if let Some(report) = state.settle().map_err(|error| replay.explain(error, &mut state))? {
        reports.tell(report, config, &state, observer);
    }
    let (metrics, travel) = reports.end(observer);
    // A run without a step has nothing new to save.
    let sent = if state.step() > first { state.sent_moments(ranks)? } else { NamedTensors::new() };
    if state.step() > first && ranks.rank() == 0 {
        saver.last(&mut state, sent)?;
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
        metrics,
        bad_videos: feeds.bad(),
        skipped: state.skipped(),
        interrupted: state.step() < last,
        travel: (ranks.world() > 1).then_some(travel),
        recorded: state.recorded(),
    })
}

/// Where the step comes from; in two halves where gradients are added up, or steps may be skipped.
fn step_source(config: &Config, run: &TrainRun) -> Result<StepSource, TrainError> {
    let halves = config.adds_up();
    let load = |path: &Path, graph| load_step(path, config, run.device, graph).map(Box::new);
    Ok(match (&run.plan, halves) {
        _ if run.eager => StepSource::Eager,
        (None, _) if config.is_mixed() => StepSource::Mixed(run.passes.clone(), Box::new(config.clone())),
        (Some(path), false) => StepSource::Compiled(load(path, TrainGraph::Step)?),
        (Some(path), true) => StepSource::CompiledHalf(load(path, TrainGraph::Gradients)?),
        (None, false) => StepSource::Passes(run.passes.clone()),
        (None, true) => StepSource::Halves(run.passes.clone()),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// A new objective must not need a change here.
    #[test]
    fn no_module_and_no_loss_of_an_objective_is_named_here() {
        let mut seen = 0;
        let mut paths = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
        while let Some(path) = paths.pop() {
            if path.is_dir() {
                paths.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
                continue;
            }
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
