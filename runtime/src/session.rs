//! The session: one model, run by tract, by ONNX Runtime or as a compiled plan.

use crate::clips::{ClipBatch, Feed, NamedOutput};
use crate::cpu::Processor;
use crate::engine::{Engine, open_auto, open_on_tract, open_ort};
use crate::error::SessionError;
use crate::fork::{Calls, ForkError, setting_up};
use crate::onnx::{Dimension, OnnxFile, TensorInfo};
use crate::options::{Options, Runtime};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
        clip_input(&file.path, &file.inputs, options.pictures)?;
        let full_range_int8 = file.has_full_range_int8();
        let engine = match options.runtime {
            Runtime::Auto if cfg!(feature = "tract") => open_auto(&mut file, options)?,
            Runtime::Tract => open_on_tract(&file, options)?,
            _ => open_ort(&mut file, options)?,
        };
        let OnnxFile { inputs, outputs, metadata, .. } = file;
        let mut session = Self::of(path, inputs, outputs, metadata, engine, options.pictures)?;
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
        Self::of(name, inputs, outputs, metadata, Engine::Plan(Box::new(model)), false)
    }

    fn of(
        path: &Path,
        inputs: Vec<TensorInfo>,
        outputs: Vec<TensorInfo>,
        metadata: BTreeMap<String, String>,
        engine: Engine,
        pictures: bool,
    ) -> Result<Self, SessionError> {
        let input = clip_input(path, &inputs, pictures)?.clone();
        let labels = crate::classify::labels(&metadata)
            .map_err(|reason| SessionError::Labels { path: path.to_owned(), reason })?;
        let (engine, calls, last_batch) = (Arc::new(engine), Calls::here(), AtomicUsize::new(0));
        Ok(Self { input, outputs, metadata, labels, engine, calls, last_batch, full_range_int8: false })
    }

    /// Runs a batch of clips. A model for several [views](Session::views) takes as many clips for each result; one of pictures
    /// ([`Options::pictures`]) takes clips of one frame.
    ///
    /// # Errors
    /// [`SessionError::Shape`] when the clips are not what the model takes; [`SessionError::Run`]; [`SessionError::Forked`]
    /// in a child process that cannot run what its parent opened.
    pub fn run(&self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, SessionError> {
        let [count, clip @ ..] = clips.shape();
        let mut shape = vec![count / self.views()];
        if self.input.shape.len() == 6 {
            shape.push(self.views());
        }
        match (self.input.shape.len(), clip) {
            (4, [channels, 1, height, width]) => shape.extend([channels, height, width]),
            _ => shape.extend(clip),
        }
        if !self.input.accepts(&shape) || count % self.views() != 0 {
            return Err(SessionError::Shape { expected: self.input.to_string(), got: clips.shape().to_vec() });
        }
        let feed = Feed { shape: &shape, data: clips.data() };
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

    /// A warning for a model whose 8-bit products need VNNI when ONNX Runtime runs it on a processor without it.
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
            _ => match *self.engine {},
        }
    }

    /// The engine that runs the model, with its version and path: `ONNX Runtime 1.32 (/usr/lib/libonnxruntime.so)`.
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

/// The one input, when it is clips or views of clips, or where they are asked for, pictures.
fn clip_input<'a>(path: &Path, inputs: &'a [TensorInfo], pictures: bool) -> Result<&'a TensorInfo, SessionError> {
    if let [input] = inputs {
        let views = matches!(input.shape.as_slice(), [_, Dimension::Size(1..), _, _, _, _]);
        if input.is_f32 && (views || input.shape.len() == 5 || (pictures && input.shape.len() == 4)) {
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
