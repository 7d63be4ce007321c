//! Bytes as a file that decoders open by its path: in memory on Linux, elsewhere a temporary file.
//!
//! The decoders read files by name, for FFmpeg opens some itself. On Linux a file may lie in memory alone (`memfd_create`) and be
//! opened by its name under `/proc`, so nothing is written to a disk.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The bytes, as long as it lives.
#[derive(Debug)]
pub(crate) struct Held {
    path: PathBuf,
    _file: Kept,
}

#[derive(Debug)]
enum Kept {
    #[cfg(target_os = "linux")]
    Memory(#[expect(dead_code, reason = "kept open")] std::fs::File),
    Temporary(#[expect(dead_code, reason = "removed when dropped")] tempfile::NamedTempFile),
}

impl Held {
    /// Holds these bytes.
    ///
    /// # Errors
    /// What the system says when memory, or the disk for temporary files, is full.
    pub fn new(bytes: &[u8]) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if let Some(held) = Self::in_memory(bytes)? {
            return Ok(held);
        }
        let mut file = tempfile::NamedTempFile::new()?;
        file.write_all(bytes)?;
        file.flush()?;
        Ok(Self { path: file.path().to_path_buf(), _file: Kept::Temporary(file) })
    }

    /// None where the system has no such files or no `/proc`.
    #[cfg(target_os = "linux")]
    fn in_memory(bytes: &[u8]) -> io::Result<Option<Self>> {
        use std::os::fd::AsRawFd;

        let Ok(file) = rustix::fs::memfd_create("vjepa-sample", rustix::fs::MemfdFlags::CLOEXEC) else {
            return Ok(None);
        };
        let mut file = std::fs::File::from(file);
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        if !path.exists() {
            return Ok(None);
        }
        file.write_all(bytes)?;
        Ok(Some(Self { path, _file: Kept::Memory(file) }))
    }

    /// Where decoders find it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A decoder's message with the sample's name where it names this file, and without it at the beginning.
    pub fn renamed(&self, message: &str, name: &Path) -> String {
        let (own, name) = (self.path.display().to_string(), name.display().to_string());
        let message = message.strip_prefix(&format!("{own}: ")).unwrap_or(message);
        // What is the file's name with another ending is the sample's, too.
        message.replace(&own, &name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_by_its_path_and_gone_afterwards() {
        let (one, two) = (Held::new(b"one").unwrap(), Held::new(b"two").unwrap());
        assert_eq!(std::fs::read(one.path()).unwrap(), b"one");
        assert_eq!(std::fs::read(two.path()).unwrap(), b"two");
        let message = format!("{0}: not supported: ffmpeg -i \"{0}\" \"{0}.mp4\"", one.path().display());
        assert_eq!(
            one.renamed(&message, Path::new("a.tar/b.mp4")),
            "not supported: ffmpeg -i \"a.tar/b.mp4\" \"a.tar/b.mp4.mp4\""
        );
        // Another test may have the descriptor's number next: what is there then is another file.
        let path = one.path().to_path_buf();
        let which = || std::fs::metadata(&path).ok().map(|meta| (meta.len(), meta.modified().ok()));
        let before = which();
        drop((one, two));
        assert!(before.is_some() && which() != before);
    }
}
