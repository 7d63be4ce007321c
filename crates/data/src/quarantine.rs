//! The list of videos that could not be read: each once, with the reason, one JSON object a line.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::DataError;

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineLine {
    /// The video.
    pub path: PathBuf,
    /// Why it could not be used.
    pub reason: String,
}

/// The list, in memory and, where a file was given, on disk.
#[derive(Debug, Default)]
pub struct Quarantine {
    seen: HashSet<PathBuf>,
    last: Option<String>,
    file: Option<File>,
    failure: Option<String>,
}

impl Quarantine {
    /// A list that appends to the file at `path` and leaves out what already stands there; none keeps it in memory.
    ///
    /// # Errors
    /// [`DataError::Setup`] where the file cannot be read or written.
    pub fn open(path: Option<&Path>) -> Result<Self, DataError> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let fail = |error: std::io::Error| {
            DataError::Setup(format!("cannot write the list of bad videos {}: {error}", path.display()))
        };
        let known = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(fail(error)),
        };
        // A line cut short by a crash is ignored; its video is listed again.
        let parse = |line: &[u8]| serde_json::from_slice::<QuarantineLine>(line).ok();
        let seen = known.split(|&b| b == b'\n').filter_map(parse).map(|line| line.path).collect();
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
        if known.last().is_some_and(|&b| b != b'\n') {
            file.write_all(b"\n").map_err(fail)?;
        }
        Ok(Self { seen, last: None, file: Some(file), failure: None })
    }

    /// Lists a bad video; one that is listed already is left alone.
    pub fn add(&mut self, path: &Path, reason: &str) {
        self.last = Some(reason.to_owned());
        if !self.seen.insert(path.to_path_buf()) {
            return;
        }
        let Some(file) = &mut self.file else { return };
        let line = QuarantineLine { path: path.to_path_buf(), reason: reason.to_owned() };
        // A path that is not UTF-8 has no JSON; it is counted, not listed.
        let Ok(mut text) = serde_json::to_string(&line) else { return };
        text.push('\n');
        // A full disk must not end a training run over this list; the failure is kept for the caller.
        if let Err(error) = file.write_all(text.as_bytes()) {
            self.failure = Some(error.to_string());
        }
    }

    /// Videos on the list.
    pub fn len(&self) -> usize {
        self.seen.len()
    }

    /// True where no video was bad.
    pub fn is_empty(&self) -> bool {
        self.seen.is_empty()
    }

    /// Why the last one that was added could not be used.
    pub fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// Why the file could not be written, if it could not.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_video_once_across_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.jsonl");
        for run in 0..2 {
            let mut list = Quarantine::open(Some(&file)).unwrap();
            assert_eq!(list.len(), run);
            list.add(Path::new("a \"quoted\".mp4"), "too\nshort");
            list.add(Path::new("a \"quoted\".mp4"), "again");
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let line: QuarantineLine = serde_json::from_str(text.trim_end()).unwrap();
        assert_eq!((line.path, line.reason), (PathBuf::from("a \"quoted\".mp4"), "too\nshort".to_owned()));
    }

    #[test]
    fn a_torn_line_is_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bad.jsonl");
        std::fs::write(&file, "{\"path\":\"a.mp4\",\"rea").unwrap();
        Quarantine::open(Some(&file)).unwrap().add(Path::new("b.mp4"), "bad");
        assert_eq!(Quarantine::open(Some(&file)).unwrap().len(), 1);
        assert!(Quarantine::open(Some(folder.path())).is_err());
    }
}
