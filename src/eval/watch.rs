//! Diagnostics during a run: held-out clips drawn once, measured whenever the run asks.

use std::path::Path;

use vjepa_graphs::PretrainLoss;
use vjepa_runtime::plan::Device;

use super::diagnostics::{Diagnostics, DiagnosticsReport, HeldOut};
use super::{EvalError, write_atomic};
use crate::config::Config;
use crate::data::open_source;
use crate::train::{Masks, TrainState, model_configs};

/// Held-out clips a run is measured on.
const CLIPS: usize = 64;

/// Measures a run and remembers what it found.
pub struct Watch {
    diagnostics: Diagnostics,
    history: Vec<(u64, DiagnosticsReport)>,
}

impl Watch {
    /// Draws held-out clips of the run's data and compiles the diagnostics for the device of the run.
    ///
    /// # Errors
    /// [`EvalError`] when no clips are found, or the configuration's parts do not fit together.
    pub fn new(device: Device, config: &Config) -> Result<Self, EvalError> {
        let setup = |error: crate::train::TrainError| EvalError::Setup(error.to_string());
        let source = open_source(config)?;
        let models = model_configs(config).map_err(setup)?;
        let masks = Masks::new(config).map_err(setup)?;
        let loss = PretrainLoss { loss_exp: config.loss.loss_exp, reg_coeff: config.loss.reg_coeff };
        let seed = config.meta.seed;
        let held_out = HeldOut::draw(source.as_ref(), seed, CLIPS)?;
        let draw = |number: u64, batch: usize| masks.at(seed, number, batch);
        let batch = config.data.batch_size.min(CLIPS);
        let diagnostics = Diagnostics::new(device, &models.encoder, &models.predictor, loss, held_out, batch, draw)?;
        Ok(Self { diagnostics, history: Vec::new() })
    }

    /// Measures the run where it stands.
    ///
    /// # Errors
    /// [`EvalError::Run`].
    pub fn measure(&mut self, state: &mut TrainState) -> Result<DiagnosticsReport, EvalError> {
        let step = state.step();
        let report = self.diagnostics.run(state.params())?;
        self.history.retain(|(seen, _)| *seen != step);
        self.history.push((step, report));
        Ok(report)
    }

    /// Everything measured so far, by step.
    pub fn history(&self) -> &[(u64, DiagnosticsReport)] {
        &self.history
    }

    /// Writes the history as JSON lines.
    ///
    /// # Errors
    /// [`EvalError::File`].
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        let mut text = String::new();
        for (step, report) in &self.history {
            let mut line = serde_json::to_value(report).map_err(|error| EvalError::file(path, error))?;
            line["step"] = (*step).into();
            text.push_str(&line.to_string());
            text.push('\n');
        }
        write_atomic(path, text.as_bytes())
    }
}
