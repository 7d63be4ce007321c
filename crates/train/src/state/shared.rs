//! What of a run's state is on this rank, where ranks share the optimiser's.

use super::{TrainError, TrainState};
use vjepa_collective::Collective;
use vjepa_graphs::NamedTensors;

impl TrainState {
    /// The moments that other ranks keep, on rank 0. All ranks call it before a checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Collective`]; [`TrainError::Unsupported`] for a device that lost its memory.
    pub(in super::super) fn sent_moments(&mut self, ranks: &dyn Collective) -> Result<NamedTensors, TrainError> {
        match self.step_executor.shards() {
            Some(shards) => shards.moments(&mut self.params, ranks),
            None => Ok(NamedTensors::new()),
        }
    }

    /// Gives the moments back that other ranks keep.
    pub(in super::super) fn keep_own(&mut self) {
        let Some(shards) = self.step_executor.shards() else { return };
        let others: Vec<String> = self.params.names().filter(|name| !shards.keeps(name)).map(str::to_owned).collect();
        for name in others {
            self.params.remove(&name);
        }
    }

    /// Whether a tensor of the run's state is kept on this rank.
    pub(in super::super) fn keeps(&self, tensor: &str) -> bool {
        self.step_executor.shards().is_none_or(|shards| shards.keeps(tensor))
    }

    /// Bytes of the optimiser's moments that this rank holds.
    pub fn moment_bytes(&self) -> u64 {
        let moments = self.params.names().filter(|name| name.starts_with("adam."));
        moments.filter_map(|name| self.params.elements(name)).map(|elements| 4 * elements as u64).sum()
    }
}
