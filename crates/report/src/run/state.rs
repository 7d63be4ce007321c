//! Whether a run goes on.

use std::time::{Duration, SystemTime};

use super::Run;
use crate::starts::How;

/// A run is said to stall once it has written nothing for this long, and for this many times as long as usual.
const PATIENCE: Duration = Duration::from_secs(60);
const TIMES: f64 = 10.0;

/// What a run is doing.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// It writes metrics.
    Running,
    /// Its process is there, or may be, but it has written nothing for this long.
    Stalled(Duration),
    /// Its process is gone and it did not say why: it was killed, or its machine restarted.
    Gone,
    /// It has ended.
    Ended(How),
}

impl State {
    /// In a sentence.
    pub fn in_words(&self) -> String {
        match self {
            Self::Running => "running".to_owned(),
            Self::Stalled(time) => format!("stalled: nothing written for {}", in_time(*time)),
            Self::Gone => "killed: its process is gone; --resume goes on from the latest checkpoint".to_owned(),
            Self::Ended(how) => how.in_words(),
        }
    }

    /// In a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stalled(_) => "stalled",
            Self::Gone => "killed",
            Self::Ended(How::Done) => "done",
            Self::Ended(How::Collapsed) => "collapsed",
            Self::Ended(How::Stopped) => "stopped",
            Self::Ended(How::Failed(_)) => "failed",
        }
    }
}

impl Run {
    /// What it is doing at a time.
    pub fn state(&self, now: SystemTime) -> State {
        let last = self.starts.last();
        if let Some(ended) = last.and_then(|start| start.ended.as_ref()) {
            return State::Ended(ended.how.clone());
        }
        if last.and_then(|start| start.machine.alive()) == Some(false) {
            return State::Gone;
        }
        let silent = now.duration_since(self.written).unwrap_or_default();
        let usual = self.between_lines().map_or(Duration::ZERO, |line| line.mul_f64(TIMES));
        if silent > usual.max(PATIENCE) { State::Stalled(silent) } else { State::Running }
    }

    /// The usual time between two lines of metrics.
    fn between_lines(&self) -> Option<Duration> {
        let took = self.metrics.points("step_ms");
        let (first, last) = (took.first()?, took.last()?);
        let lines = took.len().saturating_sub(1).max(1) as f64;
        let mean = took.iter().map(|point| point.1).sum::<f64>() / took.len() as f64;
        Duration::try_from_secs_f64(mean / 1e3 * ((last.0 - first.0) / lines).max(1.0)).ok()
    }

    /// How long the rest takes at the latest speed; none where that is unknown.
    pub fn time_left(&self) -> Option<Duration> {
        let took = self.metrics.points("step_ms");
        let recent: Vec<f64> = took.iter().rev().take(20).map(|point| point.1).collect();
        let mean = recent.iter().sum::<f64>() / recent.len().max(1) as f64;
        let left = self.steps()?.saturating_sub(self.steps_done());
        (!recent.is_empty()).then(|| Duration::try_from_secs_f64(mean / 1e3 * left as f64).ok())?
    }
}

/// A time in the two units that say enough.
pub(crate) fn in_time(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {} min", minutes % 60),
        (days, hours, _) => format!("{days} d {} h", hours % 24),
    }
}
