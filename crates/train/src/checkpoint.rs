//! Checkpoints that survive a kill: written next to the old one, synced, then renamed over it.
//!
//! `<tag>-latest.safetensors` is the newest. Before it is replaced it gets a second name, `<tag>-step00000300.safetensors`, and
//! the oldest of these go (`logging.keep_last`, `logging.keep_every`). The sum of a checkpoint's tensors stands in the file
//! itself, so that a kill between two files leaves no contradiction; `<tag>-checkpoints.json` lists them for others to check.

mod record;

use super::TrainError;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Config;
use vjepa_runtime::files::hex;
use vjepa_runtime::write_atomically;
use vjepa_weights as weights;

pub use record::{CheckpointRecord, TrainProgress};

/// The checkpoint files of a run.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    tag: String,
}

/// A whole checkpoint.
pub struct FoundCheckpoint {
    /// The file.
    pub path: PathBuf,
    /// Its tensors.
    pub tensors: NamedTensors,
    /// Its record.
    pub record: CheckpointRecord,
    /// Newer ones that cannot be used, each with the reason.
    pub passed_over: Vec<String>,
}

/// A line of the list of checkpoints.
#[derive(Serialize)]
struct Listed {
    file: String,
    step: u64,
    loss: Option<f64>,
    bytes: u64,
    /// Of names, shapes and values of all tensors.
    sha256: Option<String>,
}

impl Checkpoint {
    /// `<folder>/<tag>-latest.safetensors` and its predecessors.
    pub fn new(folder: &Path, tag: &str) -> Self {
        Self { folder: folder.to_owned(), tag: tag.to_owned() }
    }

    /// The run's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The latest checkpoint.
    pub fn latest(&self) -> PathBuf {
        self.folder.join(format!("{}-latest.safetensors", self.tag))
    }

    /// Where the list of checkpoints is.
    pub fn list(&self) -> PathBuf {
        self.folder.join(format!("{}-checkpoints.json", self.tag))
    }

    /// The file of a step that is no longer the latest.
    fn of_step(&self, step: u64) -> PathBuf {
        self.folder.join(format!("{}-step{step:08}.safetensors", self.tag))
    }

    /// Those files, newest first.
    fn earlier(&self) -> Vec<(u64, PathBuf)> {
        let Ok(entries) = std::fs::read_dir(&self.folder) else { return Vec::new() };
        let prefix = format!("{}-step", self.tag);
        let step = |name: &str| name.strip_prefix(&prefix)?.strip_suffix(".safetensors")?.parse::<u64>().ok();
        let steps = entries.filter_map(|entry| {
            let entry = entry.ok()?;
            Some((step(entry.file_name().to_str()?)?, entry.path()))
        });
        let mut steps: Vec<(u64, PathBuf)> = steps.collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        steps
    }

    /// A checkpoint of the run, if there is any.
    pub fn any(&self) -> Option<PathBuf> {
        let latest = Some(self.latest()).filter(|path| path.exists());
        latest.or_else(|| self.earlier().into_iter().map(|(_, path)| path).next())
    }

    /// Removes every checkpoint of the run, and their list.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn remove_all(&self) -> Result<(), TrainError> {
        let files = self.earlier().into_iter().map(|(_, path)| path).chain([self.latest(), self.list()]);
        for path in files.filter(|path| path.exists()) {
            std::fs::remove_file(&path).map_err(|source| TrainError::Io { path, source })?;
        }
        Ok(())
    }

    /// Replaces the latest checkpoint and drops those that are not to be kept. A failure (a full disk, say) leaves the old
    /// ones untouched.
    ///
    /// # Errors
    /// [`TrainError::Weights`], [`TrainError::Config`] or [`TrainError::Io`].
    pub fn save(&self, config: &Config, progress: &TrainProgress, tensors: &NamedTensors) -> Result<(), TrainError> {
        let mut metadata = CheckpointRecord::metadata(config, progress)?;
        metadata.insert(weights::SUM_KEY.to_owned(), sum(tensors));
        let latest = self.latest();
        if let Some(old) = step_of(&latest).filter(|old| *old != progress.step) {
            let logging = &config.logging;
            if logging.keep_last > 1 || logging.keep_every.is_some_and(|every| old.is_multiple_of(every)) {
                self.keep(old)?;
            }
        }
        weights::save_safetensors(&latest, tensors, &metadata)?;
        self.prune(config)?;
        self.write_list()
    }

    /// Gives the latest checkpoint, of step `old`, its second name.
    fn keep(&self, old: u64) -> Result<(), TrainError> {
        let (latest, kept) = (self.latest(), self.of_step(old));
        if kept.exists() {
            std::fs::remove_file(&kept).map_err(|source| TrainError::Io { path: kept.clone(), source })?;
        }
        // Not every file system has links; there the latest is away until the new one is written.
        std::fs::hard_link(&latest, &kept)
            .or_else(|_| std::fs::rename(&latest, &kept))
            .map_err(|source| TrainError::Io { path: kept, source })
    }

    /// Removes what is neither among the last nor to be kept for good.
    fn prune(&self, config: &Config) -> Result<(), TrainError> {
        let logging = &config.logging;
        let recent = usize::try_from(logging.keep_last.saturating_sub(1)).unwrap_or(usize::MAX);
        for (step, path) in self.earlier().into_iter().skip(recent) {
            if !logging.keep_every.is_some_and(|every| step.is_multiple_of(every)) {
                std::fs::remove_file(&path).map_err(|source| TrainError::Io { path, source })?;
            }
        }
        Ok(())
    }

    /// Writes the list of the checkpoints that are there, newest first.
    fn write_list(&self) -> Result<(), TrainError> {
        let files = std::iter::once(self.latest()).chain(self.earlier().into_iter().map(|(_, path)| path));
        let listed = files.filter_map(|path| {
            let index = weights::load(&path).ok()?;
            let record: CheckpointRecord = serde_json::from_str(index.metadata().get(weights::RECORD_KEY)?).ok()?;
            Some(Listed {
                file: path.file_name()?.to_string_lossy().into_owned(),
                step: record.step,
                loss: record.loss,
                bytes: path.metadata().ok()?.len(),
                sha256: index.metadata().get(weights::SUM_KEY).cloned(),
            })
        });
        let text = serde_json::to_vec_pretty(&listed.collect::<Vec<_>>())
            .map_err(|error| TrainError::Observer(error.to_string()))?;
        let path = self.list();
        write_atomically(&path, |file| std::io::Write::write_all(file, &text))
            .map_err(|source| TrainError::Io { path, source })
    }

    /// Reads the newest whole checkpoint: its tensors and its record.
    ///
    /// # Errors
    /// As [`Checkpoint::newest`].
    pub fn load(&self) -> Result<(NamedTensors, CheckpointRecord), TrainError> {
        self.newest().map(|found| (found.tensors, found.record))
    }

    /// Reads the newest whole checkpoint, passing over those that are gone or damaged.
    ///
    /// # Errors
    /// What is wrong with the latest, where no other is whole: [`TrainError::Weights`] when the file cannot be read,
    /// [`TrainError::Resume`] when this program did not write it.
    pub fn newest(&self) -> Result<FoundCheckpoint, TrainError> {
        let latest = self.latest();
        let mut first = None;
        let mut passed_over = Vec::new();
        let steps = self.earlier().into_iter().map(|(_, path)| path);
        for path in std::iter::once(latest.clone()).chain(steps) {
            match read(&path) {
                Ok((tensors, record)) => return Ok(FoundCheckpoint { path, tensors, record, passed_over }),
                Err(error) => {
                    let gone = path == latest && !path.exists();
                    passed_over.push(if gone { format!("{} is gone", path.display()) } else { error.to_string() });
                    first.get_or_insert(error);
                }
            }
        }
        Err(first.unwrap_or(TrainError::NoFolder))
    }
}

/// Reads and checks a checkpoint.
fn read(path: &Path) -> Result<(NamedTensors, CheckpointRecord), TrainError> {
    let loaded = weights::load(path)?;
    let not_ours = |why: String| TrainError::Resume { path: path.to_owned(), why };
    let json = loaded.metadata().get(weights::RECORD_KEY).ok_or_else(|| {
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
    let tensors = loaded.all()?;
    // Checkpoints from before there were sums have none.
    if loaded.metadata().get(weights::SUM_KEY).is_some_and(|written| *written != sum(&tensors)) {
        return Err(not_ours("is damaged: its values are not those that were written".to_owned()));
    }
    Ok((tensors, record))
}

/// The step of a checkpoint, if its head can be read.
fn step_of(path: &Path) -> Option<u64> {
    let index = weights::load(path).ok()?;
    let record: CheckpointRecord = serde_json::from_str(index.metadata().get(weights::RECORD_KEY)?).ok()?;
    Some(record.step)
}

/// SHA-256 over names, shapes and values.
fn sum(tensors: &NamedTensors) -> String {
    let mut digest = Sha256::new();
    let mut bytes = Vec::new();
    for (name, (shape, data)) in tensors {
        digest.update((name.len() as u64).to_le_bytes());
        digest.update(name);
        digest.update((shape.len() as u64).to_le_bytes());
        shape.iter().for_each(|size| digest.update((*size as u64).to_le_bytes()));
        for chunk in data.chunks(1 << 16) {
            bytes.clear();
            bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
            digest.update(&bytes);
        }
    }
    hex(&digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::Contents;

    use crate::resume::Continuation;

    #[test]
    fn a_record_from_before_there_was_a_history_can_be_read() {
        let record = CheckpointRecord {
            format: 1,
            step: 2,
            loss: None,
            config: String::new(),
            preprocessing: Config::default().preprocessing(),
            vjepa: "0.1.0".into(),
            skipped: 3,
            updates_before: 5,
            step_of: vec!["4 groups".into()],
            contents: Some(Contents { videos: 4, sha256: "ab".into() }),
            history: vec![Continuation { from: 1, vjepa: "0.1.0".into(), changed: Vec::new() }],
        };
        let mut json = serde_json::to_value(&record).unwrap();
        assert_eq!(serde_json::from_value::<CheckpointRecord>(json.clone()).unwrap(), record);
        let keys = json.as_object_mut().unwrap();
        keys.remove("contents");
        keys.remove("history");
        keys.remove("skipped");
        keys.remove("step_of");
        keys.remove("updates_before");
        let old: CheckpointRecord = serde_json::from_value(json).unwrap();
        assert_eq!(
            old,
            CheckpointRecord {
                contents: None,
                history: Vec::new(),
                skipped: 0,
                updates_before: 0,
                step_of: Vec::new(),
                ..record
            }
        );
    }

    #[test]
    fn a_record_without_a_loss_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = Checkpoint::new(folder.path(), "jepa");
        let quickstart = include_str!("../../../configs/quickstart.yaml");
        let config = Config::from_yaml(quickstart, "", &[]).unwrap();
        for loss in [None, Some(0.25)] {
            files
                .save(&config, &TrainProgress { step: 3, loss, ..TrainProgress::default() }, &NamedTensors::new())
                .unwrap();
            let (_, record) = files.load().unwrap();
            assert_eq!((record.step, record.loss), (3, loss));
        }
    }

    fn saved(files: &Checkpoint, steps: impl IntoIterator<Item = u64>, sets: &[&str]) {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let config = Config::from_yaml(include_str!("../../../configs/quickstart.yaml"), "", &sets).unwrap();
        for step in steps {
            let tensors = NamedTensors::from([("encoder.norm.bias".to_owned(), (vec![2], vec![step as f32, 1.0]))]);
            files.save(&config, &TrainProgress { step, ..TrainProgress::default() }, &tensors).unwrap();
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = entries.filter(|name| name.ends_with(".safetensors")).collect();
        names.sort();
        names
    }

    #[test]
    fn the_last_and_every_so_many_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = Checkpoint::new(folder.path(), "jepa");
        saved(&files, (1..=9).map(|n| n * 10), &["logging.keep_last=3", "logging.keep_every=40"]);
        let kept = ["jepa-latest", "jepa-step00000040", "jepa-step00000070", "jepa-step00000080"];
        assert_eq!(names(folder.path()), kept.map(|name| format!("{name}.safetensors")));
        let list: serde_json::Value = serde_json::from_slice(&std::fs::read(files.list()).unwrap()).unwrap();
        let steps: Vec<u64> = list.as_array().unwrap().iter().map(|line| line["step"].as_u64().unwrap()).collect();
        assert_eq!(steps, [90, 80, 70, 40]);
        assert!(list[0]["sha256"].as_str().is_some_and(|sum| sum.len() == 64));
        saved(&files, [100], &["logging.keep_last=1"]);
        assert_eq!(names(folder.path()), ["jepa-latest.safetensors"]);
    }

    #[test]
    fn the_newest_whole_one_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let files = Checkpoint::new(folder.path(), "jepa");
        saved(&files, [10, 20, 30], &["logging.keep_last=3"]);
        let found = files.newest().unwrap();
        assert_eq!((found.record.step, found.passed_over.len()), (30, 0));
        // Cut short, a flipped bit of a value, gone.
        let bytes = std::fs::read(files.latest()).unwrap();
        let flipped = [&bytes[..bytes.len() - 1], &[bytes[bytes.len() - 1] ^ 1]].concat();
        for (damaged, words) in
            [(Some(&bytes[..bytes.len() - 3]), "cut off"), (Some(&flipped[..]), "is damaged"), (None, "is gone")]
        {
            match damaged {
                Some(damaged) => std::fs::write(files.latest(), damaged).unwrap(),
                None => std::fs::remove_file(files.latest()).unwrap(),
            }
            let found = files.newest().unwrap();
            assert_eq!((found.record.step, found.passed_over.len()), (20, 1));
            assert!(found.passed_over[0].contains(words), "{}", found.passed_over[0]);
            assert_eq!(found.tensors["encoder.norm.bias"].1, [20.0, 1.0]);
        }
        // The next save does not need the lost one.
        saved(&files, [30], &["logging.keep_last=3"]);
        assert_eq!(files.newest().unwrap().record.step, 30);
        assert_eq!(names(folder.path()).len(), 3);
        files.remove_all().unwrap();
        assert!(files.any().is_none() && files.newest().is_err());
    }
}
