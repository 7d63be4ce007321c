//! What can be wrong with a weights file.

use std::path::PathBuf;

use vjepa_graphs::LoadError;

/// Why weights cannot be had. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The file cannot be read.
    #[error("cannot read the checkpoint {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is damaged, cut off, or something else.
    #[error(
        "{} is not a usable checkpoint: {why}; expected a PyTorch file (.pth.tar, .pt) or safetensors, whole",
        path.display()
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A tensor whose numbers are no floats.
    #[error("tensor `{name}` of {} is {found}; weights are F32, F16, BF16 or F64", path.display())]
    Type {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Its type.
        found: String,
    },
    /// There is no such tensor.
    #[error("{} holds no tensor `{name}`", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// The tensor asked for.
        name: String,
    },
    /// The file holds other models than the one asked for.
    #[error("{} holds no {wanted}, only {found}; name a checkpoint that does", path.display())]
    NoModel {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// Names or shapes do not fit the model.
    #[error("{}: {error}; use the configuration this checkpoint was made with (--config)", path.display())]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Every name at fault.
        error: LoadError,
    },
    /// The sizes of the model cannot be told from the weights.
    #[error("{}: {why}; pass --config with the model's sizes", path.display())]
    Sizes {
        /// The file.
        path: PathBuf,
        /// What cannot be told.
        why: String,
    },
    /// The description stored with the weights cannot be used.
    #[error("{}: its stored {what} cannot be used: {why}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// Which description.
        what: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// Sizes that no model has.
    #[error("{}: {error}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// The rule that was broken.
        error: vjepa_graphs::ConfigError,
    },
    /// Writing failed; what was there before is untouched.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}
