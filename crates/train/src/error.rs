//! Why a run cannot start or go on.

use std::path::PathBuf;

/// Pre-training failed.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration does not hold its rules.
    #[error(transparent)]
    Config(#[from] vjepa_recipe::config::ConfigError),
    /// No place for checkpoints.
    #[error("`logging.folder` is not set: give the run a folder, e.g. --set logging.folder=runs/first")]
    NoFolder,
    /// The data cannot be read, or too little of it.
    #[error(transparent)]
    Data(#[from] vjepa_data::DataError),
    /// Masks that cannot be drawn.
    #[error(transparent)]
    Mask(#[from] vjepa_recipe::masks::MaskError),
    /// The step cannot be compiled.
    #[error(transparent)]
    Compile(#[from] vjepa_programs::CompileError),
    /// The step compiled before cannot be used.
    #[error(transparent)]
    Artifact(#[from] vjepa_programs::ArtifactError),
    /// The compiled step cannot be run.
    #[error(transparent)]
    Run(#[from] vjepa_runtime::plan::RunError),
    /// Weights cannot be read or do not fit.
    #[error(transparent)]
    Weights(#[from] vjepa_weights::WeightsError),
    /// A file cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A loss or gradient that is no number any more.
    #[error(
        "the loss is {loss} at step {step}: the run stops and {} stays as it was. Lower `optimization.lr`, lengthen the \
         warm-up, or look at the clips of this step",
        checkpoint.as_ref().map_or_else(|| "no checkpoint".to_owned(), |path| path.display().to_string())
    )]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The loss.
        loss: f64,
        /// The latest checkpoint, if there is one.
        checkpoint: Option<PathBuf>,
    },
    /// `--resume` with another configuration than the checkpoint's.
    #[error("{}: {why}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A setting this build does not run.
    #[error("{0}")]
    Unsupported(String),
    /// An observer's own work failed.
    #[error("{0}")]
    Observer(String),
}
