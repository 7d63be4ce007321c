//! Evaluation of frozen encoders: their features, probes on them, diagnostics of pre-training, and pictures.
//!
//! [`FrozenEncoder`] runs the compiled encoder over clips; its [`Features`] feed [`logistic`] regression (the linear
//! figures), the [`attentive`] probe (trained through the compiled step) and [`neighbours`]. [`textures`] is the whole
//! protocol on drifting textures; [`video_probe`] is that of labelled video files ([`videos`], their [`labels`], features kept by [`cache`]). [`diagnostics`] tells learning
//! from a falling loss, and [`verdict`] a run that has collapsed; [`pictures`] and [`chart`] draw what a person wants to see.

pub mod attentive;
pub mod cache;
pub mod canvas;
pub mod chart;
pub mod diagnostics;
pub mod features;
mod font;
pub mod labels;
pub mod linalg;
pub mod logistic;
pub mod metrics;
pub mod neighbours;
pub mod pictures;
pub mod probe_file;
pub mod textures;
pub mod verdict;
pub mod video_probe;
pub mod videos;
mod watch;

pub use attentive::{ProbeOptions, ProbeRunner, ProbeTrainer};
pub use diagnostics::{Diagnostics, DiagnosticsReport, HeldOut};
pub use features::{EncoderPlan, Features, FrozenEncoder};
pub use textures::{TextureProtocol, TextureReport, evaluate_textures};
pub use watch::Watch;

use std::path::PathBuf;

use vjepa_runtime::plan::RunError;

use crate::compile::CompileError;
use crate::data::DataError;
use crate::weights::WeightsError;

/// How far a long evaluation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// What is being done, to follow "now:".
    pub what: &'a str,
    /// Units done of this.
    pub done: usize,
    /// Units there are.
    pub total: usize,
}

/// Who is told of it.
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
    /// A file that could not be read or written.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

impl EvalError {
    pub(crate) fn setup(message: impl Into<String>) -> Self {
        Self::Setup(message.into())
    }

    pub(crate) fn file(path: &std::path::Path, reason: impl std::fmt::Display) -> Self {
        Self::File { path: path.to_owned(), reason: reason.to_string() }
    }
}

/// Writes a file whole or not at all.
pub(crate) fn write_atomic(path: &std::path::Path, bytes: &[u8]) -> Result<(), EvalError> {
    use std::io::Write;
    crate::weights::write_atomically(path, |out| out.write_all(bytes))
        .map_err(|error| EvalError::file(path, format!("cannot be written: {error}")))
}
