//! What can go wrong on the way to ONNX.

use crate::Target;
use std::path::PathBuf;

/// A graph could not be written as ONNX.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// An operation without a form for the target.
    #[error("the operation `{op}` cannot be written for the target `{target}`: {reason}")]
    Unsupported {
        /// Operation name.
        op: &'static str,
        /// What was exported for.
        target: Target,
        /// Why.
        reason: String,
    },
    /// A setting that the target cannot honour.
    #[error("{what} cannot be had for the target `{target}`; use {instead}")]
    Option {
        /// What was asked for.
        what: String,
        /// What was exported for.
        target: Target,
        /// What can be had.
        instead: String,
    },
    /// The graph trains: it updates parameters.
    #[error("the graph `{0}` updates parameters; only frozen graphs (encoder, probe) can be exported")]
    Training(String),
    /// The graph computes nothing.
    #[error("the graph `{0}` has no output; name at least one before exporting")]
    NoOutput(String),
    /// The weights lack a parameter.
    #[error("the weights hold no tensor `{0}`; export with the checkpoint that belongs to the graph")]
    MissingWeight(String),
    /// A weight does not have the parameter's shape.
    #[error(
        "`{name}` is {expected} in the graph but {found} in the weights; export with the checkpoint that belongs to the graph"
    )]
    WeightShape {
        /// Parameter name.
        name: String,
        /// Type in the graph.
        expected: String,
        /// Shape in the weights.
        found: String,
    },
    /// A weight could not be read.
    #[error("cannot read the weight `{name}`: {source}")]
    ReadWeight {
        /// Parameter name.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// Shapes the ONNX form cannot express, or a malformed graph.
    #[error("{0}")]
    Graph(String),
    /// Computing a constant failed.
    #[error("cannot compute the constant `{name}`: {reason}")]
    Fold {
        /// What the constant is called in the file.
        name: String,
        /// Why.
        reason: String,
    },
    /// More than a protobuf message can hold.
    #[error("the model needs {bytes} bytes, more than the 2 GB of one file; let it use external data")]
    TooLarge {
        /// Size of the file without external data.
        bytes: u64,
    },
    /// Writing failed.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}
