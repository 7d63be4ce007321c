//! The session: one model, run by tract, by ONNX Runtime or as a compiled plan.

use crate::cpu::Processor;
use crate::engine::{Engine, open_auto, open_on_tract, open_ort};
use crate::fork::{Calls, ForkError, setting_up};
use crate::onnx::{Dimension, OnnxError, OnnxFile, TensorInfo};
use crate::options::{Options, Runtime};
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
    /// A file for another runtime than the one asked for.
    #[error("{} is no file for the runtime {runtime}: {remedy}", path.display())]
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
    /// A compiled model that cannot be used.
    #[error("{}: {reason}; make it again with `vjepa compile --export plan`", path.display())]
    Compiled {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A number of threads that cannot be had.
    #[error(
        "the plan runs on {running} threads, not {asked}; they are started once in a process: set RAYON_NUM_THREADS"
    )]
    Threads {
        /// Asked for.
        asked: usize,
        /// Running.
        running: usize,
    },
    /// The classes' names are not what they should be.
    #[error("{}: {reason}; export it again", path.display())]
    Labels {
        /// The model.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The model takes something else than one clip.
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

/// What a run feeds an engine: clips in the shape that the model's input has.
#[derive(Clone, Copy)]
pub(crate) struct Feed<'a> {
    pub shape: &'a [usize],
    pub data: &'a [f32],
}

/// An open model.
///
/// In a child made by `fork()` a session of the parent runs, or fails at once with [`SessionError::Forked`]: see
/// [`ForkError`] and `docs/edge.md`. Dropped there, it frees nothing.
pub struct Session {
    input: TensorInfo,
    outputs: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    labels: Vec<String>,
    engine: Arc<Engine>,
    calls: Calls,
    /// The batch of the last run; 0 before the first.
    last_batch: AtomicUsize,
    full_range_int8: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("input", &self.input).field("runtime", &self.runtime()).finish_non_exhaustive()
    }
}

impl Session {
    /// Reads, checks and loads a model: an ONNX file, or with feature `burn` a `*.vjg`.
    ///
    /// # Errors
    /// [`SessionError`]; a damaged or hostile file is an error, never a panic.
    pub fn open(path: &Path, options: &Options) -> Result<Self, SessionError> {
        let _call = setting_up()?;
        let compiled = is_compiled(path);
        let other = |remedy| SessionError::OtherRuntime { path: path.to_owned(), runtime: options.runtime, remedy };
        match options.runtime {
            Runtime::Auto | Runtime::Plan if compiled => return open_compiled(path, options),
            Runtime::Plan => return Err(other("make a *.vjg with `vjepa compile --export plan`")),
            _ if compiled => return Err(other("export with `vjepa compile --export onnx`, or use --runtime plan")),
            _ => {}
        }
        let mut file = OnnxFile::read(path)?;
        clip_input(&file.path, &file.inputs)?;
        let full_range_int8 = file.has_full_range_int8();
        let engine = match options.runtime {
            Runtime::Auto if cfg!(feature = "tract") => open_auto(&mut file, options)?,
            Runtime::Tract => open_on_tract(&file, options)?,
            _ => open_ort(&mut file, options)?,
        };
        let OnnxFile { inputs, outputs, metadata, .. } = file;
        let mut session = Self::of(path, inputs, outputs, metadata, engine)?;
        session.full_range_int8 = full_range_int8;
        Ok(session)
    }

    /// A compiled model that is already in memory, with the metadata its file would have; `name` stands in messages.
    ///
    /// # Errors
    /// As [`Session::open`].
    #[cfg(feature = "burn")]
    pub fn of_compiled(
        name: &Path,
        executor: crate::plan::DeviceExecutor,
        params: crate::plan::DeviceParams,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, SessionError> {
        crate::fork::plans()?;
        let model = crate::compiled::Model::new(executor, params);
        let (inputs, outputs) = model.interface(name)?;
        Self::of(name, inputs, outputs, metadata, Engine::Plan(Box::new(model)))
    }

    fn of(
        path: &Path,
        inputs: Vec<TensorInfo>,
        outputs: Vec<TensorInfo>,
        metadata: BTreeMap<String, String>,
        engine: Engine,
    ) -> Result<Self, SessionError> {
        let input = clip_input(path, &inputs)?.clone();
        let labels = crate::classify::labels(&metadata)
            .map_err(|reason| SessionError::Labels { path: path.to_owned(), reason })?;
        let (engine, calls, last_batch) = (Arc::new(engine), Calls::here(), AtomicUsize::new(0));
        Ok(Self { input, outputs, metadata, labels, engine, calls, last_batch, full_range_int8: false })
    }

    /// Runs a batch of clips. A model for several [views](Session::views) takes as many clips for each result.
    ///
    /// # Errors
    /// [`SessionError::Shape`] when the clips are not what the model takes; [`SessionError::Run`]; [`SessionError::Forked`]
    /// in a child process that cannot run what its parent opened.
    pub fn run(&self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, SessionError> {
        let [count, clip @ ..] = clips.shape;
        let mut shape = vec![count / self.views()];
        if self.input.shape.len() == 6 {
            shape.push(self.views());
        }
        shape.extend(clip);
        if !self.input.accepts(&shape) || count % self.views() != 0 {
            return Err(SessionError::Shape { expected: self.input.to_string(), got: clips.shape.to_vec() });
        }
        let feed = Feed { shape: &shape, data: clips.data };
        let _call = self.calls.enter(self.engine.survives_fork()).map_err(ForkError::session)?;
        let batch = shape.first().copied().unwrap_or(0);
        let _first = (self.last_batch.load(Ordering::Acquire) != batch).then(setting_up).transpose()?;
        let results = self.engine.run(feed, &self.outputs)?;
        self.last_batch.store(batch, Ordering::Release);
        Ok(results)
    }

    /// Clips the model averages for one result; 1 for a model of single clips.
    pub fn views(&self) -> usize {
        match self.input.shape.as_slice() {
            [_, Dimension::Size(views), _, _, _, _] => (*views).max(1),
            _ => 1,
        }
    }

    /// Names of the classes; none where the model carries none.
    pub fn labels(&self) -> &[String] {
        &self.labels
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
        let record = crate::Preprocessing::from_metadata(&self.metadata)?;
        record.suits(&self.input).map(|()| record)
    }

    /// What is to be said of a model whose 8-bit products need VNNI, where ONNX Runtime runs it on a processor without.
    pub fn caution(&self) -> Option<String> {
        let processor = Processor::here();
        (self.full_range_int8 && self.runs_on() == Runtime::Ort && processor.saturates()).then(|| {
            format!(
                "this model's 8-bit weights have the full range, which needs VNNI, and {processor} does not have it: \
                 ONNX Runtime's sums saturate and its results may be wrong; use --runtime tract, or export the model \
                 again without --int8-range full"
            )
        })
    }

    /// Which runtime runs the model; never [`Runtime::Auto`].
    pub fn runs_on(&self) -> Runtime {
        match &*self.engine {
            #[cfg(feature = "tract")]
            Engine::Tract(_) => Runtime::Tract,
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.runs_on(),
            #[cfg(feature = "burn")]
            Engine::Plan(_) => Runtime::Plan,
            #[cfg(not(any(feature = "tract", feature = "ort", feature = "burn")))]
            _ => Runtime::Auto,
        }
    }

    /// What runs the model, with its version and place: `ONNX Runtime 1.32 (/usr/lib/libonnxruntime.so)`.
    pub fn runtime(&self) -> String {
        self.engine.describe()
    }
}

impl Drop for Session {
    /// In a child process the session is left as it is: what it would wait for, or wake, is not there.
    fn drop(&mut self) {
        if self.calls.inherited().is_some() {
            std::mem::forget(Arc::clone(&self.engine));
        }
    }
}

/// Whether a file is a compiled plan by its name, `*.vjg`, and no ONNX file.
pub fn is_compiled(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "vjg")
}

/// The one input, when it is clips or views of clips.
fn clip_input<'a>(path: &Path, inputs: &'a [TensorInfo]) -> Result<&'a TensorInfo, SessionError> {
    if let [input] = inputs {
        let views = matches!(input.shape.as_slice(), [_, Dimension::Size(1..), _, _, _, _]);
        if input.is_f32 && (views || input.shape.len() == 5) {
            return Ok(input);
        }
    }
    let words: Vec<String> = inputs.iter().map(TensorInfo::to_string).collect();
    let inputs = if words.is_empty() { "nothing".to_owned() } else { words.join(" and ") };
    Err(SessionError::Inputs { path: path.to_owned(), inputs })
}

#[cfg(feature = "burn")]
fn open_compiled(path: &Path, options: &Options) -> Result<Session, SessionError> {
    let (executor, params, metadata) = crate::compiled::open(path, options)?;
    Session::of_compiled(path, executor, params, metadata)
}

#[cfg(not(feature = "burn"))]
fn open_compiled(_: &Path, _: &Options) -> Result<Session, SessionError> {
    Err(SessionError::NotBuilt("burn"))
}
