//! Saving beside training: a step waits for the copy of the state, a thread writes it.

use super::checkpoint::{Checkpoint, TrainProgress};
use super::{TrainError, TrainState};
use std::path::PathBuf;
use std::thread::JoinHandle;
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Config;

/// What became of a checkpoint.
type Outcome = Result<(PathBuf, u64), TrainError>;

/// Writes one checkpoint at a time.
pub(super) struct Saver<'a> {
    config: &'a Config,
    files: Checkpoint,
    writing: Option<(u64, JoinHandle<Outcome>)>,
}

impl<'a> Saver<'a> {
    pub(super) fn new(config: &'a Config, files: Checkpoint) -> Self {
        Self { config, files, writing: None }
    }

    /// Copies the state, with the tensors that other ranks `sent`, and begins to write it; waits where the one before is not
    /// written yet. Returns what went wrong with that one, in words: training goes on, since the checkpoints before it are
    /// whole.
    pub(super) fn begin(&mut self, state: &mut TrainState, sent: NamedTensors) -> Option<String> {
        let before = self.settled(state, true);
        let (config, files) = (self.config.clone(), self.files.clone());
        let step = state.step();
        let told = match state.snapshot(sent) {
            Ok((progress, tensors)) => {
                let write = move || files.save(&config, &progress, &tensors).map(|()| (files.latest(), progress.step));
                match std::thread::Builder::new().name("checkpoint".to_owned()).spawn(write) {
                    Ok(thread) => {
                        self.writing = Some((step, thread));
                        None
                    }
                    Err(error) => Some(failure(step, &error.to_string(), state)),
                }
            }
            Err(error) => Some(failure(step, &error.to_string(), state)),
        };
        before.or(told)
    }

    /// Takes note of a checkpoint that is written by now, or with `wait` of the one that is being written.
    pub(super) fn settled(&mut self, state: &mut TrainState, wait: bool) -> Option<String> {
        if !self.writing.as_ref().is_some_and(|(_, thread)| wait || thread.is_finished()) {
            return None;
        }
        let (step, thread) = self.writing.take()?;
        match thread.join() {
            Ok(Ok((path, step))) => {
                state.is_saved(path, step);
                None
            }
            Ok(Err(error)) => Some(failure(step, &error.to_string(), state)),
            Err(_) => Some(failure(step, "the thread that wrote it panicked", state)),
        }
    }

    /// Saves the state of a run's end, with the tensors that other ranks `sent`, and waits for it.
    ///
    /// # Errors
    /// [`TrainError`]: nothing goes on after it that could save it later.
    pub(super) fn last(&mut self, state: &mut TrainState, sent: NamedTensors) -> Result<(), TrainError> {
        // An earlier one that failed does not matter any more.
        let _ = self.settled(state, true);
        let (progress, tensors): (TrainProgress, _) = state.snapshot(sent)?;
        self.files.save(self.config, &progress, &tensors)?;
        state.is_saved(self.files.latest(), progress.step);
        Ok(())
    }
}

fn failure(step: u64, why: &str, state: &TrainState) -> String {
    let newest = match state.saved() {
        Some(path) => format!("the newest checkpoint is still {}", path.display()),
        None => "there is no checkpoint yet".to_owned(),
    };
    format!("the state after step {step} could not be saved ({why}); training goes on, and {newest}")
}
