//! A bounded cache of ranges in a folder of this machine, for stores that are slow or cost money.
//!
//! Each range is one file, named by the SHA-256 of object and range, which holds the bytes and their SHA-256: what was cut off
//! or changed is read again, never handed out. The ranges used least recently go when the limit is reached. Objects are taken
//! never to change, as shards do not: a data set that is replaced needs another name, or an emptied folder.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use vjepa_runtime::files::hex;

use super::{Store, StoreError};

/// Ending of the files of the cache: nothing else in its folder is touched.
const ENDING: &str = "vjepa-range";
/// Bytes of the sum at the end of each.
const SUM: usize = 32;

/// A store whose ranges are kept.
#[derive(Debug)]
pub struct Cached<S> {
    inner: S,
    folder: PathBuf,
    limit: u64,
    kept: Mutex<Kept>,
}

/// Which ranges there are, and in which order they were used.
#[derive(Debug, Default)]
struct Kept {
    /// Size and last use by name.
    files: HashMap<String, (u64, u64)>,
    /// Names by last use.
    order: BTreeMap<u64, String>,
    uses: u64,
    bytes: u64,
}

impl Kept {
    fn touch(&mut self, name: &str, size: u64) {
        self.forget(name);
        self.uses += 1;
        self.files.insert(name.to_owned(), (size, self.uses));
        self.order.insert(self.uses, name.to_owned());
        self.bytes += size;
    }

    fn forget(&mut self, name: &str) {
        if let Some((size, used)) = self.files.remove(name) {
            self.order.remove(&used);
            self.bytes -= size;
        }
    }
}

impl<S: Store> Cached<S> {
    /// Keeps at most `limit` bytes in `folder`, which is made where it does not exist.
    ///
    /// # Errors
    /// [`StoreError::Storage`] for a folder that cannot be made or read.
    pub fn new(inner: S, folder: &Path, limit: u64) -> Result<Self, StoreError> {
        let fail = |error: std::io::Error| {
            StoreError::Storage(format!("the cache folder {} cannot be used: {error}", folder.display()))
        };
        fs::create_dir_all(folder).map_err(fail)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == ENDING) {
                let meta = entry.metadata().map_err(fail)?;
                let used = meta.modified().unwrap_or(std::time::UNIX_EPOCH);
                found.extend(entry.file_name().to_str().map(|name| (used, name.to_owned(), meta.len())));
            }
        }
        found.sort();
        let mut kept = Kept::default();
        for (_, name, size) in found {
            kept.touch(&name, size);
        }
        let cache = Self { inner, folder: folder.into(), limit, kept: Mutex::new(kept) };
        cache.shrink();
        Ok(cache)
    }

    /// Bytes kept now.
    pub fn bytes(&self) -> u64 {
        self.kept().bytes
    }

    /// Every change is complete when the lock is given back, so a panic elsewhere leaves it usable.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(path: &Path, range: &Range<u64>) -> String {
        let mut digest = Sha256::new();
        digest.update(path.as_os_str().as_encoded_bytes());
        digest.update([0]);
        digest.update(range.start.to_le_bytes());
        digest.update(range.end.to_le_bytes());
        format!("{}.{ENDING}", hex(&digest.finalize()))
    }

    /// The bytes of a file of the cache, if it is whole.
    fn lookup(&self, name: &str, length: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = fs::File::open(self.folder.join(name)).ok()?;
        file.take(length + SUM as u64 + 1).read_to_end(&mut bytes).ok()?;
        let at = usize::try_from(length).ok()?;
        let (content, sum) = bytes.split_at_checked(at)?;
        if sum != Sha256::digest(content).as_slice() {
            return None;
        }
        bytes.truncate(at);
        self.kept().touch(name, length + SUM as u64);
        Some(bytes)
    }

    /// Keeps a range; a full or read-only disk costs the cache, not the run.
    fn keep(&self, name: &str, bytes: &[u8]) {
        let size = bytes.len() as u64 + SUM as u64;
        if size > self.limit {
            return;
        }
        let written = || -> std::io::Result<()> {
            // Written beside and renamed, so that no reader sees half of it; several processes may share the folder.
            let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
            file.write_all(bytes)?;
            file.write_all(&Sha256::digest(bytes))?;
            file.persist(self.folder.join(name))?;
            Ok(())
        };
        if written().is_ok() {
            self.kept().touch(name, size);
            self.shrink();
        }
    }

    fn shrink(&self) {
        let mut kept = self.kept();
        while kept.bytes > self.limit {
            let Some((_, name)) = kept.order.pop_first() else { break };
            kept.forget(&name);
            // One that another process has removed already is gone all the same.
            let _ = fs::remove_file(self.folder.join(name));
        }
    }
}

impl<S: Store> Store for Cached<S> {
    fn size(&self, path: &Path) -> Result<u64, StoreError> {
        self.inner.size(path)
    }

    fn read(&self, path: &Path, range: Range<u64>) -> Result<Vec<u8>, StoreError> {
        let length = super::length(&range)? as u64;
        let name = Self::name(path, &range);
        if let Some(bytes) = self.lookup(&name, length) {
            return Ok(bytes);
        }
        let bytes = self.inner.read(path, range)?;
        self.keep(&name, &bytes);
        Ok(bytes)
    }

    fn list(&self, folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
        self.inner.list(folder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LocalFiles;

    #[test]
    fn it_is_bounded_survives_and_hands_out_nothing_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let (object, cache) = (folder.path().join("object"), folder.path().join("cache"));
        std::fs::write(&object, (0..=255u8).collect::<Vec<_>>()).unwrap();
        let open = |limit| Cached::new(LocalFiles, &cache, limit).unwrap();
        let store = open(300);
        for start in 0..16u64 {
            let bytes = store.read(&object, start * 16..start * 16 + 16).unwrap();
            assert_eq!(bytes.first(), Some(&(start as u8 * 16)));
            assert!(store.bytes() <= 300);
        }
        assert_eq!(store.bytes(), 6 * 48);
        assert_eq!(std::fs::read_dir(&cache).unwrap().count(), 6);
        // The object is gone: what was used last is still there, what came before is not.
        std::fs::remove_file(&object).unwrap();
        let store = open(300);
        assert_eq!(store.read(&object, 240..256).unwrap().len(), 16);
        assert!(store.read(&object, 0..16).is_err());
        for entry in std::fs::read_dir(&cache).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[3] ^= 1;
            std::fs::write(&path, bytes).unwrap();
        }
        assert!(store.read(&object, 240..256).is_err(), "a damaged range is not handed out");
        assert_eq!(open(100).bytes(), 96);
    }
}
