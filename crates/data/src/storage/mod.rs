//! Where the bytes of samples lie: one trait, files of this machine, and with the feature `cloud` object stores.
//!
//! A [`Store`] reads ranges of named objects. What is missing or too short is the sample's fault ([`StoreError::Sample`])
//! and costs one sample; what the store itself refuses, after its retries, ends the run ([`StoreError::Storage`]): a network
//! that fails for a while must not change which clips a step sees.

mod cache;
#[cfg(feature = "cloud")]
mod cloud;

use std::fmt;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

pub use cache::Cached;
#[cfg(feature = "cloud")]
pub use cloud::{CloudStore, Limits};

/// Largest object, or part of one, that is read into memory: 4 GiB.
pub const MOST_BYTES: u64 = 1 << 32;

/// Why bytes cannot be had; each message follows the object's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// This object is missing, too short, or no file: another sample may be tried.
    #[error("{0}")]
    Sample(String),
    /// The store cannot be reached or refuses: nothing else would fare better.
    #[error("{0}")]
    Storage(String),
}

/// Reads ranges of named objects.
pub trait Store: Send + Sync + fmt::Debug {
    /// Size of an object in bytes.
    ///
    /// # Errors
    /// [`StoreError`].
    fn size(&self, path: &Path) -> Result<u64, StoreError>;

    /// The bytes of a range, all of them.
    ///
    /// # Errors
    /// [`StoreError::Sample`] where the object ends before the range does.
    fn read(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StoreError>;

    /// The objects whose names begin with a folder's, at any depth, sorted.
    ///
    /// # Errors
    /// [`StoreError`]; not every store can list.
    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError>;

    /// All bytes of an object.
    ///
    /// # Errors
    /// As [`Store::read`]; [`StoreError::Sample`] for one of more than [`MOST_BYTES`].
    fn read_all(&self, path: &Path) -> Result<Vec<u8>, StoreError> {
        let size = self.size(path)?;
        self.read(path, 0..size)
    }
}

/// The length of a range that is small enough to be read into memory.
pub(crate) fn length(range: &Range<u64>) -> Result<usize, StoreError> {
    let length = range.end.checked_sub(range.start).filter(|&length| length <= MOST_BYTES);
    length.and_then(|length| usize::try_from(length).ok()).ok_or_else(|| {
        StoreError::Sample(format!(
            "has {} bytes to read; at most {MOST_BYTES} are",
            range.end - range.start.min(range.end)
        ))
    })
}

/// True for names such as `s3://bucket/key`.
pub fn is_url(path: &Path) -> bool {
    let bytes = path.as_os_str().as_encoded_bytes();
    let Some(end) = bytes.windows(3).position(|three| three == b"://") else { return false };
    end > 0 && bytes.iter().take(end).all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
}

/// Files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct LocalFiles;

impl Store for LocalFiles {
    fn size(&self, path: &Path) -> Result<u64, StoreError> {
        let meta = std::fs::metadata(path).map_err(unreadable)?;
        match meta.is_file() {
            true => Ok(meta.len()),
            false => Err(StoreError::Sample("is a folder or device, not a file".into())),
        }
    }

    fn read(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let length = length(&range)?;
        let mut file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().map_err(unreadable)?.len();
        if range.end > size {
            return Err(too_short(size, range.end));
        }
        file.seek(SeekFrom::Start(range.start)).map_err(unreadable)?;
        let mut bytes = Vec::with_capacity(length);
        file.take(length as u64).read_to_end(&mut bytes).map_err(unreadable)?;
        match bytes.len() == length {
            true => Ok(bytes),
            // Cut off between the look at its size and now.
            false => Err(too_short(range.start + bytes.len() as u64, range.end)),
        }
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).map_err(unreadable)? {
                let path = entry.map_err(unreadable)?.path();
                if path.is_dir() { folders.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        Ok(found)
    }
}

pub(crate) fn too_short(size: u64, end: u64) -> StoreError {
    StoreError::Sample(format!("has {size} bytes and was to be read up to byte {end}: it was cut off or replaced"))
}

fn unreadable(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Sample("does not exist".into()),
        _ => StoreError::Sample(format!("cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for url in ["s3://bucket/a.tar", "https://host/x", "gs://b"] {
            assert!(is_url(Path::new(url)), "{url}");
        }
        for path in ["/data/a.mp4", "a://b".trim_start_matches('a'), "x y://z", "C:\\a", "a:/b"] {
            assert!(!is_url(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn ranges_are_whole_or_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, b"0123456789").unwrap();
        assert_eq!(LocalFiles.read(&path, 2..5).unwrap(), b"234");
        assert_eq!(LocalFiles.read_all(&path).unwrap(), b"0123456789");
        assert!(LocalFiles.read(&path, 8..11).unwrap_err().to_string().contains("has 10 bytes"));
        #[expect(clippy::reversed_empty_ranges)]
        let reversed = 5..2;
        assert!(LocalFiles.read(&path, reversed).is_err());
        assert!(LocalFiles.read(&path, 0..u64::MAX).is_err());
        assert_eq!(
            LocalFiles.read_all(folder.path()),
            Err(StoreError::Sample("is a folder or device, not a file".into()))
        );
        assert_eq!(LocalFiles.list(folder.path()).unwrap(), [path]);
    }
}
