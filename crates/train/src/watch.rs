//! Diagnostics during a run: held-out clips drawn once, measured on request.

use std::path::{Path, PathBuf};

use vjepa_runtime::plan::Device;

use super::diagnostics::{Diagnostics, DiagnosticsReport, HeldOut};
use crate::TrainState;
use vjepa_data::DataSets;
use vjepa_eval::features::Features;
use vjepa_eval::{EvalError, write_atomic};
use vjepa_programs::objective;
use vjepa_recipe::config::{Config, DataConfig};

/// Held-out clips a run is measured on.
const CLIPS: usize = 64;

/// Measures a run and keeps the history.
pub struct Watch {
    diagnostics: Diagnostics,
    history: Vec<(u64, DiagnosticsReport)>,
    file: Option<PathBuf>,
    /// Lines of the file from before this run, by step.
    earlier: Vec<(u64, String)>,
}

impl Watch {
    /// Draws held-out clips of the run's data sets and compiles the diagnostics for the device of the run.
    ///
    /// # Errors
    /// [`EvalError`] when no clips are found or the configuration is not consistent.
    pub fn new(device: Device, config: &Config, data: &DataSets) -> Result<Self, EvalError> {
        // One clip of each video held out, however many are trained on.
        let one_clip = DataConfig { num_clips: 1, ..config.data.clone() };
        let source = data.source(&one_clip, &config.data_aug)?;
        let objective = objective(config).map_err(|error| EvalError::Setup(error.to_string()))?;
        let masks = config.masks().map_err(|error| EvalError::Setup(error.to_string()))?;
        let seed = config.meta.seed;
        let held_out = HeldOut::draw(source.as_ref(), seed, CLIPS)?.with_neighbours(source.as_ref(), seed)?;
        let draw = |number: u64, batch: usize| masks.pairs(seed, number, 0, batch);
        let batch = config.data.batch_size.min(CLIPS);
        let diagnostics = Diagnostics::new(device, &objective, held_out, batch, draw)?;
        Ok(Self { diagnostics, history: Vec::new(), file: None, earlier: Vec::new() })
    }

    /// Writes the history to `path` from now on, at every measurement, so that it survives however the run ends. A resumed
    /// run (`from` > 0) keeps the file's lines up to step `from`, a new one starts afresh.
    ///
    /// # Errors
    /// [`EvalError::File`].
    pub fn keep(&mut self, path: &Path, from: u64) -> Result<(), EvalError> {
        self.earlier = if from > 0 { lines_up_to(path, from) } else { Vec::new() };
        self.file = Some(path.to_owned());
        self.save(path)
    }

    /// Measures the run at its current step.
    ///
    /// # Errors
    /// [`EvalError::Run`]; [`EvalError::File`] when the history is kept in a file that cannot be written.
    pub fn measure(&mut self, state: &mut TrainState) -> Result<DiagnosticsReport, EvalError> {
        self.measure_showing(state, &mut |_, _| ())
    }

    /// Measures the run, and shows the held-out clips and their monitored features to whoever wants to draw them.
    ///
    /// # Errors
    /// As [`Watch::measure`].
    pub fn measure_showing(
        &mut self,
        state: &mut TrainState,
        show: &mut dyn FnMut(&HeldOut, &Features),
    ) -> Result<DiagnosticsReport, EvalError> {
        let step = state.step();
        let report = self.diagnostics.run_showing(state.params(), show)?;
        self.earlier.retain(|(seen, _)| *seen != step);
        self.history.retain(|(seen, _)| *seen != step);
        self.history.push((step, report));
        if let Some(path) = &self.file {
            self.save(path)?;
        }
        Ok(report)
    }

    /// The clips it is measured on.
    pub fn held_out(&self) -> &HeldOut {
        self.diagnostics.held_out()
    }

    /// All measurements so far, by step.
    pub fn history(&self) -> &[(u64, DiagnosticsReport)] {
        &self.history
    }

    /// Writes the history as JSON lines.
    ///
    /// # Errors
    /// [`EvalError::File`].
    pub fn save(&self, path: &Path) -> Result<(), EvalError> {
        let mut text: String = self.earlier.iter().map(|(_, line)| format!("{line}\n")).collect();
        for (step, report) in &self.history {
            let mut line = serde_json::to_value(report).map_err(|error| EvalError::file(path, error))?;
            line["step"] = (*step).into();
            text.push_str(&line.to_string());
            text.push('\n');
        }
        write_atomic(path, text.as_bytes())
    }
}

/// Lines of an earlier part of the run; none of a file that cannot be read.
fn lines_up_to(path: &Path, step: u64) -> Vec<(u64, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let step_of = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64();
    let lines = text.lines().filter_map(|line| Some((step_of(line)?, line.to_owned())));
    lines.filter(|(seen, _)| *seen <= step).collect()
}
