//! Training: data and rates in, the compiled step, checkpoints and metrics out.
//!
//! [`train_task`] reads like the algorithm: a run begins (`run.rs`), and then come its steps (`steps.rs`). [`train`] is
//! pre-training, [`finetuning`] and [`mixture`] (images beside videos, clips of several lengths) the other [tasks](Task). Around
//! it: the state of a run and its compiled step (`state.rs`), the numbers of a step (`metrics.rs`), how it is compiled
//! (`step_executor.rs`; `mixed.rs` where a step has several kinds of samples), the groups of its samples (`feeds.rs`), its
//! gradients added up over groups and ranks (`sums.rs`), who of these updates what (`shards.rs`), ranks that mean the same run
//! and begin with the same weights (`together.rs`), files that survive a kill (`checkpoint.rs`), written beside training
//! (`saver.rs`) in a folder that is the run's own (`lock.rs`), which settings a resumed run may change (`resume.rs`), how many
//! clips it has seen (`seen.rs`), runs of the official code (`official.rs`), Burn's autodiff in place of the compiled gradients
//! (`eager.rs`), and the signals that end a run early (`interrupt.rs`).
//!
//! What is minimised is an [objective](vjepa_graphs::objectives): nothing here knows a module, a parameter set or a scalar
//! by name.

mod checkpoint;
pub mod diagnostics;
mod diverged;
mod eager;
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
mod run;
mod saver;
mod seen;
mod shards;
mod state;
mod step_executor;
mod steps;
mod sums;
mod task;
mod together;
pub mod verdict;
mod watch;

pub use checkpoint::{Checkpoint, CheckpointRecord, FoundCheckpoint, TrainProgress};
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

use mixture::Mixture;
use run::Asked;
use std::path::{Path, PathBuf};
use steps::Steps;
use task::Pretraining;
use vjepa_collective::{Collective, any};
use vjepa_data::DataSets;
use vjepa_programs::Passes;
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
    /// The commit that the program was built from, where it knows: ranks compare it.
    pub commit: Option<&'static str>,
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
/// As [`train`], of any [task](Task).
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
    let asked = Asked { config, task, run, ranks };
    let folder = asked.folder(observer)?;
    let supplies = task.supplies(config)?;
    let plan = asked.plan(&supplies)?;
    let state = asked.begin(&folder, &supplies, plan, observer)?;
    let mut steps = Steps::open(asked, &folder, supplies, plan, state)?;
    observer.begins(steps.first, plan.steps)?;
    observer.phase("training");
    while steps.remain() && !any(ranks, interrupt.raised())? {
        steps.step(observer)?;
    }
    steps.end(observer)
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
