//! What of a run's state is kept in files.

use std::path::{Path, PathBuf};

use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Config;

use super::TrainState;
use crate::TrainError;
use crate::checkpoint::{Checkpoint, TrainProgress};

impl TrainState {
    /// Saves weights, moving averages and moments.
    ///
    /// # Errors
    /// [`TrainError`]; the old checkpoint is then left alone.
    pub fn save(&mut self, config: &Config, files: &Checkpoint) -> Result<(), TrainError> {
        let (progress, tensors) = self.snapshot(NamedTensors::new())?;
        files.save(config, &progress, &tensors)?;
        self.is_saved(files.latest(), progress.step);
        Ok(())
    }

    /// A copy of what a checkpoint holds: this rank's tensors, and those that others [sent](TrainState::sent_moments).
    ///
    /// # Errors
    /// [`TrainError::Unsupported`] for a device that lost its memory and returns nothing: an old checkpoint is better than half
    /// a new one.
    pub(crate) fn snapshot(&self, sent: NamedTensors) -> Result<(TrainProgress, NamedTensors), TrainError> {
        let mut weights = self.weights();
        if weights.len() != self.params.names().count() {
            return Err(TrainError::Unsupported(format!(
                "{} lost the weights: nothing was saved",
                self.params.device()
            )));
        }
        weights.extend(sent);
        Ok((self.progress(), weights))
    }

    /// A checkpoint of this step is written.
    pub(crate) fn is_saved(&mut self, path: PathBuf, step: u64) {
        self.saved = Some((path, step));
    }

    /// A copy of all tensors on the host.
    pub fn weights(&self) -> NamedTensors {
        self.params.names().filter_map(|name| Some((name.to_owned(), self.params.get(name)?))).collect()
    }

    /// The checkpoint the run was resumed from, or the latest it has saved.
    pub fn saved(&self) -> Option<&Path> {
        self.saved.as_ref().map(|(path, _)| path.as_path())
    }
}
