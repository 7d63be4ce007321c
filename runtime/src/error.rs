//! Why a model cannot be opened or run.

use crate::fork::ForkError;
use crate::onnx::OnnxError;
use crate::options::Runtime;
use std::path::PathBuf;

/// A model could not be opened or run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The file is not usable.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// ONNX Runtime was asked for and is not there.
    #[cfg(feature = "ort")]
    #[error(transparent)]
    Library(#[from] crate::library::LibraryError),
    /// A runtime that this build leaves out.
    #[error("this build cannot run this model; rebuild vjepa-runtime with the feature `{0}`")]
    NotBuilt(&'static str),
    /// An unknown word for a runtime.
    #[error("there is no runtime `{0}`; use auto, tract, ort, cuda, tensorrt or plan")]
    UnknownRuntime(String),
    /// A model for another runtime than the requested one.
    #[error("{} is not a model for the runtime {runtime}: {remedy}", path.display())]
    OtherRuntime {
        /// The model.
        path: PathBuf,
        /// The runtime asked for.
        runtime: Runtime,
        /// What to do.
        remedy: &'static str,
    },
    /// A GPU provider of ONNX Runtime that cannot be used.
    #[error("{provider} cannot be used with {library}: {reason}; {remedy}, or run on the CPU with --runtime ort")]
    Provider {
        /// CUDA or TensorRT.
        provider: &'static str,
        /// The library, with version and place.
        library: String,
        /// What it says.
        reason: String,
        /// What to install.
        remedy: &'static str,
    },
    /// The folder for TensorRT's engines.
    #[error("cannot keep TensorRT's engines in {}: {reason}; give a folder with --engine-cache", folder.display())]
    EngineCache {
        /// The folder.
        folder: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A compiled model that is unusable.
    #[error("{}: {reason}; make it again with `vjepa compile --export plan`", path.display())]
    Compiled {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A number of threads that is not available.
    #[error(
        "the plan runs on {running} threads, not {asked}; they are started once in a process: set RAYON_NUM_THREADS"
    )]
    Threads {
        /// Asked for.
        asked: usize,
        /// Running.
        running: usize,
    },
    /// The class names are malformed.
    #[error("{}: {reason}; export it again", path.display())]
    Labels {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model does not take one clip.
    #[error(
        "{} takes {inputs}; a model for clips has one input f32[B, 3, T, H, W], or f32[B, V, 3, T, H, W] for V views",
        path.display()
    )]
    Inputs {
        /// The model.
        path: PathBuf,
        /// What it takes.
        inputs: String,
    },
    /// The model takes something else than 32-bit floats.
    #[error("{} takes {inputs}; the inputs of a session are f32", path.display())]
    Elements {
        /// The model.
        path: PathBuf,
        /// What it takes.
        inputs: String,
    },
    /// A clip of the wrong shape.
    #[error("the model expects {expected} but got a clip of shape {got:?}")]
    Shape {
        /// The model's input.
        expected: String,
        /// Shape of the clip.
        got: Vec<usize>,
    },
    /// A clip whose values do not fill its shape.
    #[error("a clip of shape {shape:?} has {values} values")]
    Values {
        /// Shape of the clip.
        shape: Vec<usize>,
        /// How many values there are.
        values: usize,
    },
    /// An input that the model does not have.
    #[error("the model has no input `{name}`; it takes {expected}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The model's inputs.
        expected: String,
    },
    /// An input that was given nothing.
    #[error("nothing was given for the input `{name}`; the model takes {expected}")]
    MissingInput {
        /// The input.
        name: String,
        /// The model's inputs.
        expected: String,
    },
    /// An input that was given twice.
    #[error("the input `{0}` was given twice")]
    RepeatedInput(String),
    /// A tensor of another shape than its input.
    #[error("the input {expected} was given a tensor of shape {got:?}")]
    InputShape {
        /// The input.
        expected: String,
        /// Shape of the tensor.
        got: Vec<usize>,
    },
    /// Inputs of one batch that are of several sizes.
    #[error("`{symbol}` is {} in the input `{}` and {} in the input `{}`; it is one size in a run", first.1, first.0, second.1, second.0)]
    InputSizes {
        /// The size by its name in the model.
        symbol: String,
        /// An input and what it makes of it.
        first: (String, usize),
        /// Another.
        second: (String, usize),
    },
    /// A tensor whose values do not fill its shape.
    #[error("a tensor of shape {shape:?} for the input `{name}` has {values} values")]
    InputValues {
        /// The input.
        name: String,
        /// Shape of the tensor.
        shape: Vec<usize>,
        /// How many values there are.
        values: usize,
    },
    /// A model of several inputs was given clips alone.
    #[error("the model takes {inputs}; give it a tensor for each of them by name")]
    Several {
        /// The model's inputs.
        inputs: String,
    },
    /// The runtime refused the model.
    #[error("{runtime} cannot load {}: {reason}", path.display())]
    Load {
        /// Which runtime.
        runtime: &'static str,
        /// The model.
        path: PathBuf,
        /// Why.
        reason: String,
        /// Whether that is because the runtime lacks operators of the model, which `reason` names: another may have them.
        lacks_operators: bool,
    },
    /// tract cannot load the model, and ONNX Runtime does not either or is not there.
    #[error("{tract}; {instead}")]
    NoRuntime {
        /// What tract says.
        tract: Box<SessionError>,
        /// Why ONNX Runtime does not run it instead, and what to do.
        instead: String,
    },
    /// The process was forked from the one that opened the session.
    #[error(transparent)]
    Forked(#[from] ForkError),
    /// The runtime failed.
    #[error("{runtime} failed to run the model: {reason}")]
    Run {
        /// Which runtime.
        runtime: &'static str,
        /// Why.
        reason: String,
    },
}

impl SessionError {
    /// Whether the runtime lacks operators of the model, so that another may run it.
    pub fn lacks_operators(&self) -> bool {
        matches!(self, Self::Load { lacks_operators: true, .. })
    }
}
