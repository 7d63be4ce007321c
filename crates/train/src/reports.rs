//! Where the reports of steps go.

use super::metrics::Metrics;
use super::seen::clips_seen;
use super::sums::Travel;
use super::{Observer, StepReport, TrainState};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;
use vjepa_recipe::config::Config;

/// Metrics, sums over the run, and the times of steps that are not reported yet.
pub(super) struct Reports {
    /// On rank 0.
    metrics: Option<Metrics>,
    /// How long each step waited for data, and took in all.
    untold: VecDeque<[Duration; 2]>,
    travel: Travel,
}

impl Reports {
    pub(super) fn to(metrics: Option<Metrics>) -> Self {
        Self { metrics, untold: VecDeque::new(), travel: Travel::default() }
    }

    /// Keeps the times of a step until it is reported: how long it waited for data, and took in all.
    pub(super) fn took(&mut self, times: [Duration; 2]) {
        self.untold.push_back(times);
    }

    /// Tells of the first step that has not been reported.
    pub(super) fn tell(
        &mut self,
        mut report: StepReport,
        config: &Config,
        state: &TrainState,
        observer: &mut dyn Observer,
    ) {
        [report.waited, report.took] = self.untold.pop_front().unwrap_or_default();
        report.clips = clips_seen(report.step + 1, config, state.history());
        self.travel += report.travel;
        if let Some(note) = self.metrics.as_mut().and_then(|metrics| metrics.add(&report)) {
            observer.note(&note);
        }
        observer.step(&report);
    }

    /// Writes what is left; the file of the metrics, nothing on other ranks, and how sums travelled.
    pub(super) fn end(mut self, observer: &mut dyn Observer) -> (PathBuf, Travel) {
        if let Some(error) = self.metrics.as_mut().and_then(|metrics| metrics.flush().err()) {
            observer.note(&format!("the last metrics cannot be written ({error})"));
        }
        (self.metrics.map(|metrics| metrics.path().to_owned()).unwrap_or_default(), self.travel)
    }
}

/// How a step of several groups is computed here, and how long it takes, from the time of the first group.
pub(super) fn announcement(config: &Config, world: u64, group: Duration) -> String {
    let (groups, batch) = (config.optimization.groups(), config.data.batch_size);
    let own = groups / world.max(1);
    let how = match (world, own) {
        (1, _) => "one after another here".to_owned(),
        (_, 1) => format!("one on each of {world} ranks"),
        _ => format!("{own} on each of {world} ranks, one after another"),
    };
    // What a group of another kind takes is not known yet.
    if config.img_data.is_some() {
        return format!("{groups} groups a step, {how}");
    }
    let seconds = group.as_secs_f64() * own as f64;
    let time = if seconds < 90.0 { format!("{seconds:.0} seconds") } else { format!("{:.0} minutes", seconds / 60.0) };
    format!(
        "{groups} groups of {batch} clips a step, {how}: about {time} a step; `--set optimization.groups={world}` trains on {}",
        world * batch as u64
    )
}
