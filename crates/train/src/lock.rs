//! One run in a folder at a time.

use super::TrainError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Holds a run's folder until it is dropped, however the process ends.
pub(super) struct Lock {
    _file: File,
    /// What whoever runs this should know: there is no lock on this file system.
    pub(super) note: Option<String>,
}

impl Lock {
    /// Takes `<folder>/<tag>.lock`, and removes what a killed run has left half written.
    ///
    /// # Errors
    /// [`TrainError::Locked`] names the process that has it; [`TrainError::Io`] where the folder cannot be written.
    pub(super) fn take(folder: &Path, tag: &str) -> Result<Self, TrainError> {
        let path = folder.join(format!("{tag}.lock"));
        let io = |source| TrainError::Io { path: path.clone(), source };
        // The owner's name stays until the lock is held.
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
        let note = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // A file that cannot be read has no name to tell.
                let _ = file.read_to_string(&mut owner);
                let owner = if owner.trim().is_empty() { "another process" } else { owner.trim() }.to_owned();
                return Err(TrainError::Locked { path: path.clone(), owner });
            }
            Err(TryLockError::Error(error)) => Some(format!(
                "{} cannot be locked ({error}): nothing keeps a second run out of the folder",
                path.display()
            )),
        };
        file.set_len(0).map_err(io)?;
        file.seek(SeekFrom::Start(0)).map_err(io)?;
        writeln!(file, "{}", owner()).map_err(io)?;
        sweep(folder);
        Ok(Self { _file: file, note })
    }
}

/// This process: `process 4711 of alice on node3`.
fn owner() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_else(|| "someone".into());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.unwrap_or_else(|| "this machine".into());
    format!("process {} of {user} on {}", std::process::id(), host.trim())
}

/// Removes the parts of files that a killed process was writing: whoever has the lock is alone in the folder.
fn sweep(folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".vjepa-") && name.ends_with(".part") {
            // What cannot be removed does no harm.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_run_is_told_whose_folder_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join(".vjepa-x.part");
        std::fs::write(&part, "half").unwrap();
        let lock = Lock::take(folder.path(), "jepa").unwrap();
        assert!(!part.exists() && lock.note.is_none());
        let error = Lock::take(folder.path(), "jepa").err().unwrap().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        Lock::take(folder.path(), "other").unwrap();
        drop(lock);
        Lock::take(folder.path(), "jepa").unwrap();
    }
}
