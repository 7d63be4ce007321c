//! Evaluation of frozen encoders: their features, and probes on them.
//!
//! [`FrozenEncoder`] runs the compiled encoder over clips, [`foreign`] those of others; their [`Features`] feed [`logistic`]
//! regression (the linear figures), the [`attentive`] probe (trained through the compiled step) and [`neighbours`].
//! [`protocols::heads`] trains several at once, [`protocols::online`] with augmentation. [`mod@extract`] writes the features of
//! many windows of many videos. [`labels`] are what lists of videos say about classes; accuracies and votes are
//! `vjepa_metrics`'; [`protocols`] holds whole evaluations, from labelled clips to a report.

#![warn(missing_docs)]

pub mod attentive;
pub mod cache;
pub mod extract;
pub mod features;
pub mod foreign;
pub mod labels;
pub mod logistic;
pub mod neighbours;
pub mod probe_file;
pub mod protocols;
pub mod videos;

pub use attentive::{ProbeOptions, ProbeRunner, ProbeTrainer};
pub use features::{ClipEncoder, EncoderPlan, Features, FrozenEncoder};
pub use protocols::textures::{TextureProtocol, TextureReport, evaluate_textures};
pub use vjepa_linalg as linalg;

use std::path::PathBuf;

use vjepa_runtime::plan::RunError;

use vjepa_collective::CollectiveError;
use vjepa_data::DataError;
use vjepa_programs::CompileError;
use vjepa_programs::frozen::FrozenError;
use vjepa_weights::WeightsError;
use vjepa_weights::rows::RowsError;

/// How far a long evaluation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The current operation, worded to follow "now:".
    pub what: &'a str,
    /// Units done of this.
    pub done: usize,
    /// Units there are.
    pub total: usize,
}

/// Progress callback.
pub type OnProgress<'a> = &'a mut dyn FnMut(Progress<'_>);

/// An evaluation that failed.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// A graph could not be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// A plan could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The clips could not be had.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Numbers, labels or sizes that do not fit together.
    #[error("{0}")]
    Setup(String),
    /// A loss that is not a number.
    #[error("the probe's loss is {loss} at step {step}; lower the learning rate, or check the features")]
    Diverged {
        /// Step, from 0.
        step: u64,
        /// The loss.
        loss: f32,
    },
    /// Weights that cannot be read or written.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A model that could not be compiled or run.
    #[error(transparent)]
    Frozen(#[from] FrozenError),
    /// Processes that share the work and cannot go on together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A table of features that could not be written.
    #[error(transparent)]
    Rows(#[from] RowsError),
    /// A file that could not be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl EvalError {
    /// Numbers, labels or sizes that do not fit together.
    pub fn setup(message: impl Into<String>) -> Self {
        Self::Setup(message.into())
    }

    /// A file that cannot be read or written.
    pub fn file(path: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Writes a file whole or not at all.
pub fn write_atomic(path: &std::path::Path, bytes: &[u8]) -> Result<(), EvalError> {
    use std::io::Write;
    vjepa_runtime::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|error| EvalError::file(path, format!("cannot be written: {error}")))
}
