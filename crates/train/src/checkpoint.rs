//! Checkpoints that survive a kill: written next to the old one, synced, then renamed over it.

use super::TrainError;
use super::resume::Continuation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vjepa_data::Contents;
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::{Config, Preprocessing};
use vjepa_weights as weights;

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
    /// Every time the run was resumed, first to last.
    #[serde(default)]
    pub history: Vec<Continuation>,
}

impl CheckpointRecord {
    /// The version this program writes.
    pub const FORMAT: u32 = 1;

    /// The metadata that makes a file of a run's tensors its checkpoint.
    ///
    /// # Errors
    /// [`TrainError::Config`].
    pub fn metadata(config: &Config, progress: &Progress) -> Result<BTreeMap<String, String>, TrainError> {
        let Progress { step, loss, contents, history } = progress.clone();
        let record = Self {
            format: Self::FORMAT,
            step,
            loss,
            contents,
            history,
            config: config.to_yaml()?,
            preprocessing: config.preprocessing(),
            vjepa: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let json = serde_json::to_string(&record).map_err(|error| TrainError::Observer(error.to_string()))?;
        Ok(BTreeMap::from([(weights::RECORD_KEY.to_owned(), json)]))
    }
}

/// The part of a record that does not follow from the configuration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Steps done.
    pub step: u64,
    /// Loss of the last of them.
    pub loss: Option<f64>,
    /// The videos learned from.
    pub contents: Option<Contents>,
    /// Every time the run was resumed.
    pub history: Vec<Continuation>,
}

/// The checkpoint files of a run.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    latest: PathBuf,
}

impl Checkpoint {
    /// `<folder>/<tag>-latest.safetensors`.
    pub fn new(folder: &Path, tag: &str) -> Self {
        Self { latest: folder.join(format!("{tag}-latest.safetensors")) }
    }

    /// The latest checkpoint.
    pub fn latest(&self) -> PathBuf {
        self.latest.clone()
    }

    /// Replaces the latest checkpoint. A failure (a full disk, say) leaves the old one untouched.
    ///
    /// # Errors
    /// [`TrainError::Weights`] or [`TrainError::Config`].
    pub fn save(&self, config: &Config, progress: &Progress, tensors: &NamedTensors) -> Result<(), TrainError> {
        let metadata = CheckpointRecord::metadata(config, progress)?;
        weights::save_safetensors(&self.latest, tensors, &metadata)?;
        Ok(())
    }

    /// Reads the latest checkpoint: its tensors and its record.
    ///
    /// # Errors
    /// [`TrainError::Weights`] when the file cannot be read, [`TrainError::Resume`] when this program did not write it.
    pub fn load(&self) -> Result<(NamedTensors, CheckpointRecord), TrainError> {
        let loaded = weights::load(&self.latest)?;
        let not_ours = |why: String| TrainError::Resume { path: self.latest.clone(), why };
        let json = loaded.metadata().get("vjepa").ok_or_else(|| {
            not_ours("holds weights but no training state; start a new run from it with `meta.read_checkpoint`".into())
        })?;
        let record: CheckpointRecord =
            serde_json::from_str(json).map_err(|error| not_ours(format!("its record cannot be read: {error}")))?;
        if record.format != CheckpointRecord::FORMAT {
            return Err(not_ours(format!(
                "has format {}, and this program reads {}: use the version that wrote it, {}",
                record.format,
                CheckpointRecord::FORMAT,
                record.vjepa
            )));
        }
        Ok((loaded.all()?, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_from_before_there_was_a_history_can_be_read() {
        let record = CheckpointRecord {
            format: 1,
            step: 2,
            loss: None,
            config: String::new(),
            preprocessing: Config::default().preprocessing(),
            vjepa: "0.1.0".into(),
            contents: Some(Contents { videos: 4, sha256: "ab".into() }),
            history: vec![Continuation { from: 1, vjepa: "0.1.0".into(), changed: Vec::new() }],
        };
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!(serde_json::from_value::<CheckpointRecord>(json.clone()).unwrap(), record);
        let keys = json.as_object_mut().unwrap();
        keys.remove("contents");
        keys.remove("history");
        let old: CheckpointRecord = serde_json::from_value(json).unwrap();
        assert_eq!(old, CheckpointRecord { contents: None, history: Vec::new(), ..record });
    }

    #[test]
    fn a_record_without_a_loss_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = Checkpoint::new(folder.path(), "jepa");
        let quickstart = include_str!("../../../configs/quickstart.yaml");
        let config = Config::from_yaml(quickstart, "", &[]).unwrap();
        for loss in [None, Some(0.25)] {
            files.save(&config, &Progress { step: 3, loss, ..Progress::default() }, &NamedTensors::new()).unwrap();
            let (_, record) = files.load().unwrap();
            assert_eq!((record.step, record.loss), (3, loss));
        }
    }
}
