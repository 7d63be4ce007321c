//! What a state says of itself.

use vjepa_compiler::ir::Graph;
use vjepa_data::Contents;
use vjepa_graphs::AnyObjective;
use vjepa_runtime::plan::{DeviceExecutor, DeviceParams};

use super::TrainState;
use crate::resume::Continuation;

impl TrainState {
    /// What should be said about the state the run began with; said once.
    pub(crate) fn take_notes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notes)
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Loss of the last of them; none before the first.
    pub fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// Sets which videos the run learns from, for its record. Call it before [`TrainState::begin`], which compares them.
    pub fn learns_from(&mut self, contents: Option<Contents>) {
        self.contents = contents;
    }

    /// Every time the run was resumed, this one included.
    pub fn history(&self) -> &[Continuation] {
        &self.history
    }

    /// What is minimised.
    pub fn objective(&self) -> &AnyObjective {
        &self.objective
    }

    /// The tensors, for other graphs that read them, such as diagnostics.
    pub fn params(&mut self) -> &mut DeviceParams {
        &mut self.params
    }

    /// The compiled step, or the half of it that computes gradients.
    pub fn graph(&self) -> &Graph {
        self.step_executor.main().graph()
    }

    /// Its executor, for profiles.
    pub fn executor(&mut self) -> &mut DeviceExecutor {
        self.step_executor.main_mut()
    }
}
