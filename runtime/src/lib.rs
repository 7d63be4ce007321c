//! Runs vjepa's models.
//!
//! - [`Session`]: an exported ONNX model on tract (feature `tract`, pure Rust) or ONNX Runtime (feature `ort`, a shared
//!   library found at run time), with its [`Preprocessing`]. This half needs neither Burn nor a video library nor a GPU.
//! - `plan` (feature `burn`): the executor of compiled training and inference plans; a [`Session`] then runs `*.vjg` too.

#![warn(missing_docs)]

#[cfg(feature = "burn")]
pub mod plan;

mod atomic;
mod classify;
mod clip_views;
mod clips;
mod compare;
#[cfg(feature = "burn")]
pub mod compiled;
mod cores;
pub mod cpu;
mod engine;
mod error;
pub mod files;
mod fork;
mod kinds;
#[cfg(feature = "ort")]
pub mod library;
mod memory;
mod named;
mod names;
pub mod onnx;
mod options;
#[cfg(feature = "ort")]
mod ort;
pub mod preprocess;
#[cfg(feature = "ort")]
mod providers;
mod quiet;
mod session;
#[cfg(feature = "tract")]
mod tract;

pub use atomic::write_atomically;
pub use classify::{CLASS_OUTPUTS, ClassifyError, LABELS_KEY, Prediction, predictions, probabilities, top};
pub use clip_views::ClipViews;
pub use clips::{ClipBatch, NamedInput, NamedOutput};
pub use compare::{CompareError, Difference, Tolerance, compare, compare_named};
pub use cores::cores;
pub use error::SessionError;
pub use fork::ForkError;
pub use kinds::FileKind;
pub use memory::{available_memory, peak_memory, resident_memory};
pub use names::is_model_name;
pub use onnx::{Dimension, OnnxError, TensorInfo};
pub use options::{Batches, OnNotice, Options, Runtime};
pub use preprocess::{Framing, Normalization, PreprocessError, Preprocessing, Sampling};
pub use quiet::{caught, without_panic_message};
pub use session::{Session, is_compiled};
