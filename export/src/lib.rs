//! A frozen graph of the compiler as ONNX.
//!
//! [`to_onnx`] lowers a [`vjepa_compiler::ir::Graph`] (an encoder, an encoder with a probe) to an [`OnnxModel`], and
//! [`OnnxModel::write`] puts it on disk, streaming the weights. What is written is meant to leave nothing for a
//! simplifier to remove:
//!
//! - every value is a *view* of one tensor, and a `Reshape` appears only where a consumer needs another shape: token
//!   streams stay two-dimensional from the position embedding to the end (see [`lower`]);
//! - query, key and value are three `Gemm`s, however the graph arranged their projection, and the softmax scale is
//!   folded into the query's ([`heads`]);
//! - what depends on weights only is computed here ([`fold`]), and a probe's one query goes through its key projection
//!   beforehand ([`passes`]).
//!
//! Which form is written for which [`Target`] and [`Precision`] was chosen by measurement.
//!
//! The crate does not depend on Burn and knows no model by name.

#![warn(missing_docs)]
#![forbid(unsafe_code)]

mod emit;
mod error;
mod fold;
mod heads;
mod lower;
mod model;
mod names;
mod options;
mod passes;
mod weights;

/// The ONNX messages, generated from `proto/onnx.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, rustdoc::all)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

pub use error::ExportError;
pub use lower::to_onnx;
pub use model::{OnnxModel, Written};
pub use options::{ExternalData, Int8, OPSETS, OnnxOptions, PatchEmbedForm, Precision, Target, WeightRange};
pub use passes::{round_to, rounded};
pub use weights::{WeightSource, Weights};
