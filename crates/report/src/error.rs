//! Why a run's folder cannot be written or read.

use std::io;
use std::path::{Path, PathBuf};

/// What a run leaves could not be written, or not be read again.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A file that cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file that is not what its name says.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A folder without a run in it.
    #[error("{}: {reason}", path.display())]
    NoRun {
        /// The folder.
        path: PathBuf,
        /// What was looked for.
        reason: String,
    },
    /// A picture that cannot be made.
    #[error(transparent)]
    Picture(#[from] vjepa_view::ViewError),
    /// A terminal that cannot be drawn on.
    #[error("cannot draw on the terminal: {0}; use --once for a snapshot as text")]
    Terminal(io::Error),
}

impl ReportError {
    pub(crate) fn write(path: &Path, source: io::Error) -> Self {
        Self::Write { path: path.to_owned(), source }
    }

    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read { path: path.to_owned(), source }
    }
}
