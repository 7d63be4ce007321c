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
    /// [`TrainError::Locked`] names the process that has it; [`TrainError::Folder`] where the folder cannot be written.
    pub(super) fn take(folder: &Path, tag: &str) -> Result<Self, TrainError> {
        let path = folder.join(format!("{tag}.lock"));
        let io = |source| TrainError::Folder { path: path.clone(), source };
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
    let user = user(&|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
    let host = host.unwrap_or_else(|| "this machine".into());
    format!("process {} of {user} on {}", std::process::id(), host.trim())
}

/// Who runs it: containers set no variable and have a user all the same, by name or by number.
fn user(variable: &dyn Fn(&str) -> Option<String>) -> String {
    let named = ["USER", "LOGNAME"].into_iter().find_map(|name| variable(name).filter(|user| !user.trim().is_empty()));
    let passwd = || std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let numbered = || uid().map(|uid| name_of(&passwd(), uid).unwrap_or_else(|| format!("user {uid}")));
    named.or_else(numbered).unwrap_or_else(|| "someone".into())
}

/// The number of the user that this process runs as.
#[cfg(unix)]
fn uid() -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    // Where there is no such folder, variables name the user.
    Some(std::fs::metadata("/proc/self").ok()?.uid())
}

#[cfg(not(unix))]
fn uid() -> Option<u32> {
    None
}

/// The name of a user in a `passwd` file, whose lines are `name:password:number:...`.
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    let entry = |line: &str| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid) && !name.is_empty()).then(|| name.to_owned())
    };
    passwd.lines().find_map(entry)
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
    fn an_owner_has_a_name_without_variables() {
        let passwd = "# users\nroot:x:0:0:root:/root:/bin/sh\n\nalice:x:1000:1000::/home/alice:\nnobody:x:-2:\n";
        assert_eq!((name_of(passwd, 1000).as_deref(), name_of(passwd, 0).as_deref()), (Some("alice"), Some("root")));
        assert_eq!(name_of(passwd, 7), None);
        assert_eq!(user(&|name| (name == "LOGNAME").then(|| "bob".into())), "bob");
        if cfg!(target_os = "linux") {
            // A variable may be set to nothing.
            for nothing in [None, Some(String::new())] {
                let said = user(&|_| nothing.clone());
                let own = uid().unwrap();
                let known = name_of(&std::fs::read_to_string("/etc/passwd").unwrap_or_default(), own);
                assert_eq!(said, known.unwrap_or_else(|| format!("user {own}")));
            }
        }
    }

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
