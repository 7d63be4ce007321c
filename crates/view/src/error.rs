//! Why a picture cannot be written.

use std::path::PathBuf;

/// A picture that could not be encoded or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ViewError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}
