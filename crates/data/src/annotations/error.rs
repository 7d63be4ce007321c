//! What is wrong with an annotation file.

use std::path::{Path, PathBuf};

use vjepa_recipe::text;

/// Why annotations cannot be used: the file, where it is known the line, and a sentence with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnotationError {
    /// The file or folder as a whole.
    #[error("{}: {why}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong and what to do.
        why: String,
    },
    /// One line of it.
    #[error("{}: line {line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong and what to do.
        why: String,
    },
}

impl AnnotationError {
    pub(super) fn file(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::File { path: path.into(), why: why.to_string() }
    }

    pub(super) fn line(path: &Path, line: usize, why: impl std::fmt::Display) -> Self {
        Self::Line { path: path.into(), line, why: why.to_string() }
    }
}

/// The text of an annotation file.
pub(super) fn read(path: &Path) -> Result<String, AnnotationError> {
    let text = text::read(path).map_err(|error| AnnotationError::file(path, error))?.text;
    match text.trim().is_empty() {
        true => Err(AnnotationError::file(path, "is empty: download it again")),
        false => Ok(text),
    }
}

/// Its lines that are not blank, each with its number from 1.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())).filter(|(_, line)| !line.is_empty())
}
