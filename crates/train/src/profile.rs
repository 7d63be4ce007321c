//! `--profile`: a few steps of a run, with the time of every node.

use super::{Observer, TrainError, TrainState};
use std::path::PathBuf;
use vjepa_runtime::write_atomically;

/// Steps before the first profiled one: the first steps touch fresh memory and cold caches.
const WARM_UP: u64 = 3;

/// Steps to profile, and where the trace goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProfileRequest {
    /// Path of the trace, JSON for Chrome and Perfetto.
    pub path: PathBuf,
    /// How many steps.
    pub steps: u64,
}

/// Follows a run and profiles its steps `first..end`.
pub(super) struct Profiler<'a> {
    request: Option<&'a ProfileRequest>,
    first: u64,
    end: u64,
}

impl<'a> Profiler<'a> {
    /// For a run of the steps `begin..last`. A short run has a shorter warm-up.
    pub(super) fn new(request: Option<&'a ProfileRequest>, begin: u64, last: u64) -> Self {
        let steps = request.map_or(0, |request| request.steps.max(1));
        let first = begin + WARM_UP.min(last.saturating_sub(begin).saturating_sub(steps));
        Self { request, first, end: first.saturating_add(steps).min(last) }
    }

    /// To be called before each step.
    pub(super) fn before(&self, state: &mut TrainState) {
        if self.request.is_some() && state.step() == self.first {
            state.executor().profile();
        }
    }

    /// To be called after each step. After the last profiled one, writes the trace and notifies the observer.
    ///
    /// # Errors
    /// [`TrainError::Io`] when the trace cannot be written.
    pub(super) fn after(&self, state: &mut TrainState, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let Some(request) = self.request.filter(|_| state.step() == self.end) else { return Ok(()) };
        let profile = state.executor().take_profile();
        let written = write_atomically(&request.path, |file| profile.write_trace(file));
        written.map_err(|source| TrainError::Io { path: request.path.clone(), source })?;
        observer.profiled(&profile, &request.path);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiled_steps_follow_a_warm_up_if_the_run_is_long_enough() {
        let request = ProfileRequest { path: "p.json".into(), steps: 5 };
        let steps = |begin, last| {
            let profiler = Profiler::new(Some(&request), begin, last);
            (profiler.first, profiler.end)
        };
        assert_eq!(steps(0, 100), (3, 8));
        assert_eq!(steps(50, 100), (53, 58));
        assert_eq!(steps(0, 6), (1, 6));
        assert_eq!(steps(0, 2), (0, 2));
    }
}
