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
