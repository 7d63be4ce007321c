//! What executes vjepa's models.
//!
//! - [`Session`]: an exported ONNX model on tract (feature `tract`, pure Rust) or ONNX Runtime (feature `ort`, a shared
//!   library found at run time), with its [`Preprocessing`]. This half needs neither Burn nor a video library nor a GPU.
//! - `plan` (feature `burn`): the executor of compiled training and inference plans; a [`Session`] then runs `*.vjg` too.

#![warn(missing_docs)]

#[cfg(feature = "burn")]
pub mod plan;

mod classify;
mod compare;
#[cfg(feature = "burn")]
pub mod compiled;
pub mod cpu;
#[cfg(feature = "ort")]
mod engines;
pub mod files;
#[cfg(feature = "ort")]
pub mod library;
pub mod onnx;
mod options;
#[cfg(feature = "ort")]
mod ort;
pub mod preprocess;
mod quiet;
mod session;
#[cfg(feature = "tract")]
mod tract;

pub use classify::{CLASS_OUTPUTS, ClassifyError, LABELS_KEY, Prediction, predictions, probabilities, top};
pub use compare::{CompareError, Difference, Tolerance, compare};
pub use onnx::{Dimension, OnnxError, TensorInfo};
pub use options::{Batches, Options, Progress, Runtime};
pub use preprocess::{Framing, Normalization, PreprocessError, Preprocessing, Sampling};
pub use quiet::{caught, without_panic_message};
pub use session::{ClipBatch, NamedOutput, Session, SessionError, is_compiled};
