//! What stands beside the weights in a checkpoint.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use vjepa_data::Contents;
use vjepa_programs::run_metadata;
use vjepa_recipe::config::{Config, Preprocessing};
use vjepa_weights as weights;

use crate::TrainError;
use crate::resume::Continuation;

/// The counters and settings stored with the weights, in the file's metadata under `vjepa`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Version of this record.
    pub format: u32,
    /// Steps done.
    pub step: u64,
    /// Loss of the last of them; none before the first.
    pub loss: Option<f64>,
    /// The whole configuration, as YAML.
    pub config: String,
    /// How clips are prepared for this model.
    pub preprocessing: Preprocessing,
    /// Version of the program.
    pub vjepa: String,
    /// The videos it learns from; none for clips generated on the fly, and in records written before this was kept.
    #[serde(default)]
    pub contents: Option<Contents>,
    /// Steps that changed nothing, since their loss was above `optimization.skip_above`.
    #[serde(default)]
    pub skipped: u64,
    /// Updates that AdamW had made before the run, in the checkpoint that a cool-down begins with.
    #[serde(default)]
    pub updates_before: u64,
    /// Every time the run was resumed, first to last.
    #[serde(default)]
    pub history: Vec<Continuation>,
    /// What a step is made of, one line a kind of samples; empty of one kind in one group, and in records written before this
    /// was kept.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub step_of: Vec<String>,
}

impl CheckpointRecord {
    /// The version this program writes.
    pub const FORMAT: u32 = 1;

    /// The metadata that makes a file of a run's tensors its checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Config`].
    pub fn metadata(config: &Config, progress: &TrainProgress) -> Result<BTreeMap<String, String>, TrainError> {
        let TrainProgress { step, loss, skipped, updates_before, contents, history } = progress.clone();
        let record = Self {
            format: Self::FORMAT,
            step,
            loss,
            skipped,
            updates_before,
            contents,
            history,
            step_of: kinds_in_words(config)?,
            config: config.to_yaml()?,
            preprocessing: config.preprocessing(),
            vjepa: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let json = serde_json::to_string(&record).map_err(|error| TrainError::Observer(error.to_string()))?;
        let mut metadata = run_metadata(config)?;
        metadata.insert(weights::RECORD_KEY.to_owned(), json);
        Ok(metadata)
    }
}

/// What a step of several kinds of samples, or of clips of several lengths, is made of, in words.
fn kinds_in_words(config: &Config) -> Result<Vec<String>, TrainError> {
    let kinds = if config.is_mixed() { config.kinds()? } else { Vec::new() };
    Ok(kinds.iter().map(ToString::to_string).collect())
}

/// The part of a record that does not follow from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TrainProgress {
    /// Steps done.
    pub step: u64,
    /// Loss of the last of them.
    pub loss: Option<f64>,
    /// Steps that changed nothing.
    pub skipped: u64,
    /// Updates that AdamW had made before the run.
    pub updates_before: u64,
    /// The videos learned from.
    pub contents: Option<Contents>,
    /// Every time the run was resumed.
    pub history: Vec<Continuation>,
}
