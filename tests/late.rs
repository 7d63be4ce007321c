//! Losses that are read a step late, as on GPUs: the same run, and the same end where it diverges.

mod support;

use std::path::Path;

use support::{SMALL_RUN, losses, recipe};
use vjepa_collective::Alone;
use vjepa_recipe::config::Config;
use vjepa_train::{
    Checkpoint, Culprit, Interrupt, Observer, StepReport, TrainError, TrainOutcome, TrainRun, TrainState, train,
};

/// Keeps what it is told.
#[derive(Default)]
struct Seen {
    reports: Vec<StepReport>,
    /// Steps done, and reported, when diagnostics were due.
    diagnosed: Vec<(u64, usize)>,
}

impl Observer for Seen {
    fn phase(&mut self, _: &str) {}

    fn step(&mut self, report: &StepReport) {
        self.reports.push(report.clone());
    }

    fn diagnose(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        self.diagnosed.push((state.step(), self.reports.len()));
        Ok(())
    }
}

fn run(folder: &Path, more: &[&str], asked: TrainRun) -> (Result<TrainOutcome, TrainError>, Seen) {
    let sets = SMALL_RUN.iter().chain(more).map(|set| (*set).to_owned());
    let sets: Vec<String> = sets.chain([format!("logging.folder={}", folder.display())]).collect();
    let config = Config::from_file(&recipe(), &sets).unwrap();
    let mut seen = Seen::default();
    (train(&config, &asked, &Alone, &Interrupt::default(), &mut seen), seen)
}

fn late() -> TrainRun {
    TrainRun { read_late: Some(true), ..TrainRun::default() }
}

/// A report without its times.
fn timeless(report: &StepReport) -> StepReport {
    StepReport { waited: Default::default(), took: Default::default(), ..report.clone() }
}

#[test]
fn a_run_whose_losses_are_read_late_is_the_same_run() {
    let [at_once, one_late, parts] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let every_two = ["logging.diagnostics_every=2"];
    let (ended, seen) = run(at_once.path(), &every_two, TrainRun::default());
    let (ended_late, seen_late) = run(one_late.path(), &every_two, late());
    let (ended, ended_late) = (ended.unwrap(), ended_late.unwrap());
    assert_eq!((ended.steps, ended.loss), (ended_late.steps, ended_late.loss));
    let reports = |seen: &Seen| seen.reports.iter().map(timeless).collect::<Vec<_>>();
    assert_eq!((reports(&seen), seen.reports.len()), (reports(&seen_late), 6));
    assert!(seen_late.reports.iter().all(|report| report.took > std::time::Duration::ZERO));
    // Whatever is looked at has been reported.
    assert_eq!(seen_late.diagnosed, [(2, 2), (4, 4), (6, 6)]);
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap();
    let ((a, record), (b, record_late)) = (load(at_once.path()), load(one_late.path()));
    assert!(a == b, "weights or moments differ");
    assert_eq!((record.step, record.loss), (record_late.step, record_late.loss));
    assert_eq!(losses(at_once.path()), losses(one_late.path()));
    // Stopped between two savings, and resumed.
    let (first, _) = run(parts.path(), &every_two, TrainRun { stop_at: Some(4), ..late() });
    assert_eq!(first.unwrap().steps, 4);
    run(parts.path(), &every_two, TrainRun { resume: true, ..late() }).0.unwrap();
    assert!(load(parts.path()).0 == a, "weights or moments differ after resuming");
    assert_eq!(losses(parts.path()), losses(at_once.path()));
}

#[test]
fn a_step_that_diverges_is_named_and_nothing_is_saved_over() {
    let [at_once, one_late] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    // The fourth step's rate is the first above the warm-up's; the third's checkpoint is the last.
    let grows = [
        "optimization.lr=1e30",
        "optimization.start_lr=1e-4",
        "optimization.warmup_steps=3",
        "optimization.clip_grad=null",
    ];
    let step_of = |ended: Result<TrainOutcome, TrainError>| match ended.unwrap_err() {
        TrainError::Diverged { step, saved, culprit, .. } => ((step, saved.map(|(_, step)| step)), culprit),
        other => panic!("{other}"),
    };
    let (ended, seen) = run(at_once.path(), &grows, TrainRun::default());
    let (ended_late, seen_late) = run(one_late.path(), &grows, late());
    let ((found, culprit), (found_late, culprit_late)) = (step_of(ended), step_of(ended_late));
    assert_eq!((found, seen.reports.len()), (found_late, seen_late.reports.len()));
    // Read at once, a step is stopped before its update; read late, weights have it, and no clips are blamed.
    let tensor = |culprit: &Culprit| culprit.tensor.clone().unwrap();
    assert!(!tensor(&culprit).starts_with("the weight") && culprit.clips.len() == 4, "{culprit:?}");
    assert!(tensor(&culprit_late).starts_with("the weight") && culprit_late.clips.is_empty(), "{culprit_late:?}");
    let record = |folder: &Path| Checkpoint::new(folder, "jepa").load().ok().map(|(_, record)| record.step);
    assert_eq!(record(one_late.path()), record(at_once.path()));
}
