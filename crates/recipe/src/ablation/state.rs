//! What was run: a JSON file beside the runs, replaced whole after each, so that a table goes on where it was stopped.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Ablation, AblationError, AblationRun};
use crate::config::Config;

/// What one run gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Figures by evaluation.
    pub figures: BTreeMap<String, f64>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The configuration that it ran with, whole: figures of another one are not taken for this run's.
    pub config: String,
}

/// All finished runs of a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AblationState {
    /// By the run's id.
    pub runs: BTreeMap<String, Outcome>,
}

impl AblationState {
    /// Reads the file; nothing was run where there is none.
    ///
    /// # Errors
    /// [`AblationError::State`] for one that is damaged.
    pub fn read(path: &Path) -> Result<Self, AblationError> {
        let fail = |why: String| AblationError::State { path: path.into(), why };
        match std::fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                fail(format!("is not a record of runs ({error}): move it away to run the table from the start"))
            }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(fail(format!("cannot be read: {error}"))),
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// [`AblationError::State`].
    pub fn write(&self, path: &Path) -> Result<(), AblationError> {
        let fail = |why: String| AblationError::State { path: path.into(), why };
        let text = serde_json::to_string_pretty(self).map_err(|error| fail(error.to_string()))?;
        vjepa_runtime::write_atomically(path, |out| out.write_all(text.as_bytes()))
            .map_err(|error| fail(format!("cannot be written: {error}")))
    }

    /// Keeps what a run gave.
    ///
    /// # Errors
    /// [`AblationError`] for a configuration that cannot be written, which would be a bug.
    pub fn finish(
        &mut self,
        run: &AblationRun,
        config: &Config,
        figures: BTreeMap<String, f64>,
        seconds: f64,
    ) -> Result<(), AblationError> {
        self.runs.insert(run.id.clone(), Outcome { figures, seconds, config: config.to_yaml()? });
        Ok(())
    }

    /// Whether a run is finished, with this configuration and all evaluations of the table. Figures of another configuration are
    /// refused: the table would mix them.
    ///
    /// # Errors
    /// [`AblationError::Table`] naming the run.
    pub fn finished(&self, table: &Ablation, run: &AblationRun, config: &Config) -> Result<bool, AblationError> {
        let Some(outcome) = self.runs.get(&run.id) else { return Ok(false) };
        if outcome.config != config.to_yaml()? {
            let why = format!(
                "the run `{}` has figures of another configuration: choose another folder, or remove its entry to run it again",
                run.id
            );
            return Err(AblationError::Table { at: String::new(), why });
        }
        Ok(table.evaluations.iter().all(|evaluation| outcome.figures.contains_key(evaluation)))
    }
}
