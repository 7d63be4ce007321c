//! Features of many windows of many videos as one table: a row per window, written in parts that survive an interruption.
//!
//! [`Rows`] keeps parts of bounded size in `OUT.parts/` beside the file they become, each a safetensors file that says which row comes
//! next; [`Rows::finish`] joins them to a [`Format`] without holding more than one row group in memory. [`RowsFile`] reads such
//! a file.

mod npy;
mod parquet;
mod parts;
mod read;

use std::io;
use std::path::{Path, PathBuf};

pub use parts::{Finished, Rows};
pub use read::RowsFile;

/// Metadata key of the paths that the tensor `video` counts, a JSON list.
pub const PATHS_KEY: &str = "vjepa.paths";
/// Metadata key of the labels of those paths, a JSON list; there where every one has a label.
pub const LABELS_KEY: &str = "vjepa.labels";

/// What the metadata keys of columns' shapes in Parquet files begin with.
const SHAPE_KEY: &str = "vjepa.shape.";

/// A row in formats that name its video: path, window and time.
type Line = (String, i64, f64);

/// A table of features that cannot be written or read. Every message names the file.
#[derive(Debug, thiserror::Error)]
pub enum RowsError {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What the file holds is not what was expected, with the remedy.
    #[error("{}: {why}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl RowsError {
    fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content { path: path.into(), why: why.into() }
    }
}

/// Features of one kind, `f32`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its name: `encoder_out`, `features`, `layer_11`, ...
    pub name: String,
    /// Shape of one row.
    pub shape: Vec<usize>,
}

impl Column {
    /// Values of one row.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for rows without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Which window a row is of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The video, counted from 0 in the list of paths.
    pub video: usize,
    /// The window in it, from 0.
    pub window: usize,
    /// When it begins, in seconds; NaN where that is not known.
    pub time: f64,
}

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One tensor per column, `video` and `window` (I64) and `time` (F64) per row, paths in the metadata.
    Safetensors,
    /// One array, with `path,window,time` of each row in a `.csv` of the same name.
    Npy,
    /// Columns `path`, `window`, `time`, and a list of floats per column of features.
    Parquet,
}

impl Format {
    /// By the ending of a file's name.
    ///
    /// # Errors
    /// [`RowsError::Content`] for another ending.
    pub fn of(path: &Path) -> Result<Self, RowsError> {
        match path.extension().and_then(|ending| ending.to_str()) {
            Some("safetensors") => Ok(Self::Safetensors),
            Some("npy") => Ok(Self::Npy),
            Some("parquet") => Ok(Self::Parquet),
            _ => Err(RowsError::content(
                path,
                "not a table of features: its name must end in .safetensors, .npy or .parquet",
            )),
        }
    }
}
