//! The session: one exported model, run by tract or by ONNX Runtime.

use crate::onnx::{Dimension, OnnxError, OnnxFile, TensorInfo};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

/// What runs a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Runtime {
    /// tract, which is always there; where it is not compiled in, ONNX Runtime.
    #[default]
    Auto,
    /// tract: pure Rust, compiled in.
    Tract,
    /// ONNX Runtime: faster, a shared library that must be installed.
    Ort,
}

impl std::str::FromStr for Runtime {
    type Err = SessionError;

    fn from_str(word: &str) -> Result<Self, SessionError> {
        match word {
            "auto" => Ok(Runtime::Auto),
            "tract" => Ok(Runtime::Tract),
            "ort" => Ok(Runtime::Ort),
            _ => Err(SessionError::UnknownRuntime(word.to_owned())),
        }
    }
}

/// How to open a model.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What runs it.
    pub runtime: Runtime,
    /// ONNX Runtime's shared library; searched for when not given (see [`crate::library`]).
    pub ort_lib: Option<PathBuf>,
    /// More folders to search for it.
    pub ort_dirs: Vec<PathBuf>,
    /// Threads; not given, tract uses one and ONNX Runtime one for each core.
    pub threads: Option<usize>,
}

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
    #[error("this build has no {0}; rebuild vjepa-runtime with the feature `{0}`")]
    NotBuilt(&'static str),
    /// An unknown word for a runtime.
    #[error("there is no runtime `{0}`; use `auto`, `tract` or `ort`")]
    UnknownRuntime(String),
    /// The model takes something else than one clip.
    #[error("{} takes {inputs}; a model for clips has one input f32[B, 3, T, H, W]", path.display())]
    Inputs {
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
    /// The runtime refused the model.
    #[error("{runtime} cannot load {}: {reason}", path.display())]
    Load {
        /// Which runtime.
        runtime: &'static str,
        /// The model.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The runtime failed.
    #[error("{runtime} failed to run the model: {reason}")]
    Run {
        /// Which runtime.
        runtime: &'static str,
        /// Why.
        reason: String,
    },
}

/// A batch of clips, `[B, 3, T, H, W]` row-major, prepared as the model's preprocessing record says.
#[derive(Clone, Copy, Debug)]
pub struct ClipBatch<'a> {
    shape: [usize; 5],
    data: &'a [f32],
}

impl<'a> ClipBatch<'a> {
    /// A view of `data` as clips of `shape`.
    ///
    /// # Errors
    /// [`SessionError::Values`] when the shape needs another number of values, or none.
    pub fn new(shape: [usize; 5], data: &'a [f32]) -> Result<Self, SessionError> {
        let elements = shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        if elements != Some(data.len()) || data.is_empty() {
            return Err(SessionError::Values { shape: shape.to_vec(), values: data.len() });
        }
        Ok(Self { shape, data })
    }

    /// Its shape.
    pub fn shape(&self) -> [usize; 5] {
        self.shape
    }

    /// Its values.
    pub fn data(&self) -> &'a [f32] {
        self.data
    }
}

/// A result of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedOutput {
    /// Name of the output.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its values, row-major.
    pub data: Vec<f32>,
}

enum Engine {
    #[cfg(feature = "tract")]
    Tract(crate::tract::Model),
    #[cfg(feature = "ort")]
    Ort(crate::ort::Model),
}

/// An open model.
pub struct Session {
    input: TensorInfo,
    outputs: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    engine: Engine,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("input", &self.input).field("runtime", &self.runtime()).finish_non_exhaustive()
    }
}

impl Session {
    /// Reads, checks and loads a model.
    ///
    /// # Errors
    /// [`SessionError`]; a damaged or hostile file is an error, never a panic.
    pub fn open(path: &Path, options: &Options) -> Result<Self, SessionError> {
        let file = OnnxFile::read(path)?;
        let [input] = file.inputs.as_slice() else { return Err(inputs_error(&file)) };
        if !input.is_f32 || input.shape.len() != 5 {
            return Err(inputs_error(&file));
        }
        let engine = match options.runtime {
            Runtime::Auto if cfg!(feature = "tract") => open_tract(&file, options)?,
            Runtime::Auto | Runtime::Ort => open_ort(&file, options)?,
            Runtime::Tract => open_tract(&file, options)?,
        };
        let OnnxFile { mut inputs, outputs, metadata, .. } = file;
        Ok(Self { input: inputs.remove(0), outputs, metadata, engine })
    }

    /// Runs a batch of clips.
    ///
    /// # Errors
    /// [`SessionError::Shape`] when the clips are not what the model takes; [`SessionError::Run`].
    pub fn run(&self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, SessionError> {
        let fits = self.input.shape.iter().zip(clips.shape).all(|(dim, size)| match dim {
            Dimension::Size(wanted) => *wanted == size,
            Dimension::Symbol(_) => size > 0,
        });
        if !fits {
            return Err(SessionError::Shape { expected: self.input.to_string(), got: clips.shape.to_vec() });
        }
        match &self.engine {
            #[cfg(feature = "tract")]
            Engine::Tract(model) => model.run(clips, &self.outputs),
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.run(clips, &self.outputs),
        }
    }

    /// The input: a clip.
    pub fn input(&self) -> &TensorInfo {
        &self.input
    }

    /// The outputs.
    pub fn outputs(&self) -> &[TensorInfo] {
        &self.outputs
    }

    /// The model's `metadata_props`, `vjepa.preprocessing` among them.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The preprocessing record, how clips must be prepared.
    ///
    /// # Errors
    /// [`crate::PreprocessError`] when the model has none, or a malformed one.
    pub fn preprocessing(&self) -> Result<crate::Preprocessing, crate::PreprocessError> {
        crate::Preprocessing::from_metadata(&self.metadata)
    }

    /// What runs the model, with its version and place: `ONNX Runtime 1.32 (/usr/lib/libonnxruntime.so)`.
    pub fn runtime(&self) -> String {
        match &self.engine {
            #[cfg(feature = "tract")]
            Engine::Tract(model) => model.describe(),
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.describe(),
        }
    }
}

fn inputs_error(file: &OnnxFile) -> SessionError {
    let inputs: Vec<String> = file.inputs.iter().map(TensorInfo::to_string).collect();
    let inputs = if inputs.is_empty() { "nothing".to_owned() } else { inputs.join(" and ") };
    SessionError::Inputs { path: file.path.clone(), inputs }
}

#[cfg(feature = "tract")]
fn open_tract(file: &OnnxFile, options: &Options) -> Result<Engine, SessionError> {
    crate::tract::Model::open(file, options.threads).map(Engine::Tract)
}

#[cfg(not(feature = "tract"))]
fn open_tract(_: &OnnxFile, _: &Options) -> Result<Engine, SessionError> {
    Err(SessionError::NotBuilt("tract"))
}

#[cfg(feature = "ort")]
fn open_ort(file: &OnnxFile, options: &Options) -> Result<Engine, SessionError> {
    let search = crate::library::Search { explicit: options.ort_lib.clone(), folders: options.ort_dirs.clone() };
    crate::ort::Model::open(file, &search, options.threads).map(Engine::Ort)
}

#[cfg(not(feature = "ort"))]
fn open_ort(_: &OnnxFile, _: &Options) -> Result<Engine, SessionError> {
    Err(SessionError::NotBuilt("ort"))
}
