//! The session: one model, run by tract, by ONNX Runtime or as a compiled plan.

use crate::clips::{ClipBatch, Feed, NamedInput, NamedOutput};
use crate::cpu::Processor;
use crate::engine::{Engine, open_auto, open_on_tract, open_ort};
use crate::error::SessionError;
use crate::fork::{Calls, ForkError, setting_up};
use crate::named;
use crate::onnx::{Dimension, OnnxFile, TensorInfo};
use crate::options::{Options, Runtime};
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open model.
///
/// In a child made by `fork()` a session of the parent runs, or fails at once with [`SessionError::Forked`]: see
/// [`ForkError`] and `docs/edge.md`. Dropped there, it frees nothing.
pub struct Session {
    /// At least one.
    inputs: Vec<TensorInfo>,
    outputs: Vec<TensorInfo>,
    metadata: BTreeMap<String, String>,
    labels: Vec<String>,
    engine: Arc<Engine>,
    calls: Calls,
    /// The shapes of the last run, hashed; 0 before the first.
    last_shapes: AtomicU64,
    full_range_int8: bool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("inputs", &self.inputs)
            .field("runtime", &self.runtime())
            .finish_non_exhaustive()
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
        check_inputs(&file.path, &file.inputs, options)?;
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

    /// A compiled model of clips that is already in memory, with the metadata its file would have; `name` stands in messages.
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
        Self::of_plan(name, executor, params, metadata, &Options::default())
    }

    #[cfg(feature = "burn")]
    fn of_plan(
        name: &Path,
        executor: crate::plan::DeviceExecutor,
        params: crate::plan::DeviceParams,
        metadata: BTreeMap<String, String>,
        options: &Options,
    ) -> Result<Self, SessionError> {
        crate::fork::plans()?;
        let model = crate::compiled::Model::new(executor, params);
        let (inputs, outputs) = model.interface(name)?;
        check_inputs(name, &inputs, options)?;
        Self::of(name, inputs, outputs, metadata, Engine::Plan(Box::new(model)))
    }

    fn of(
        path: &Path,
        inputs: Vec<TensorInfo>,
        outputs: Vec<TensorInfo>,
        metadata: BTreeMap<String, String>,
        engine: Engine,
    ) -> Result<Self, SessionError> {
        let labels = crate::classify::labels(&metadata)
            .map_err(|reason| SessionError::Labels { path: path.to_owned(), reason })?;
        let (engine, calls, last_shapes) = (Arc::new(engine), Calls::here(), AtomicU64::new(0));
        Ok(Self { inputs, outputs, metadata, labels, engine, calls, last_shapes, full_range_int8: false })
    }

    /// Runs a batch of clips. A model for several [views](Session::views) takes as many clips for each result; one of pictures
    /// ([`Options::pictures`]) takes clips of one frame.
    ///
    /// # Errors
    /// [`SessionError::Shape`] when the clips are not what the model takes; [`SessionError::Several`] for a model of more than
    /// clips ([`Options::any_inputs`]); [`SessionError::Run`]; [`SessionError::Forked`] in a child process that cannot run what
    /// its parent opened.
    pub fn run(&self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, SessionError> {
        let [input] = self.inputs.as_slice() else {
            return Err(SessionError::Several { inputs: named::in_words(&self.inputs) });
        };
        let [count, clip @ ..] = clips.shape();
        let mut shape = vec![count / self.views()];
        if input.shape.len() == 6 {
            shape.push(self.views());
        }
        match (input.shape.len(), clip) {
            (4, [channels, 1, height, width]) => shape.extend([channels, height, width]),
            _ => shape.extend(clip),
        }
        if !input.accepts(&shape) || count % self.views() != 0 {
            return Err(SessionError::Shape { expected: input.to_string(), got: clips.shape().to_vec() });
        }
        self.run_feeds(&[Feed { name: &input.name, shape: &shape, data: clips.data() }])
    }

    /// Runs a tensor for each input of the model, given in any order. Sizes that the model leaves open and calls by one name, as
    /// `batch`, are the same in all of them.
    ///
    /// # Errors
    /// [`SessionError::UnknownInput`], [`SessionError::MissingInput`], [`SessionError::RepeatedInput`],
    /// [`SessionError::InputShape`] and [`SessionError::InputSizes`] name the input at fault; [`SessionError::Run`];
    /// [`SessionError::Forked`] as [`Session::run`].
    pub fn run_named(&self, inputs: &[NamedInput<'_>]) -> Result<Vec<NamedOutput>, SessionError> {
        self.run_feeds(&named::feeds(&self.inputs, inputs)?)
    }

    fn run_feeds(&self, feeds: &[Feed<'_>]) -> Result<Vec<NamedOutput>, SessionError> {
        let _call = self.calls.enter(self.engine.survives_fork()).map_err(ForkError::session)?;
        let shapes = hashed(feeds);
        let _first = (self.last_shapes.load(Ordering::Acquire) != shapes).then(setting_up).transpose()?;
        let results = self.engine.run(feeds, &self.outputs)?;
        self.last_shapes.store(shapes, Ordering::Release);
        Ok(results)
    }

    /// Clips the model averages for one result; 1 for a model of single clips.
    pub fn views(&self) -> usize {
        match self.input().shape.as_slice() {
            [_, Dimension::Size(views), _, _, _, _] => (*views).max(1),
            _ => 1,
        }
    }

    /// Names of the classes; none where the model carries none.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The first input: for a model of clips the only one.
    pub fn input(&self) -> &TensorInfo {
        // No session is made of a model without inputs.
        &self.inputs[0]
    }

    /// The inputs, in the model's order: at least one, and more than one only with [`Options::any_inputs`].
    pub fn inputs(&self) -> &[TensorInfo] {
        &self.inputs
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
        record.suits(self.input()).map(|()| record)
    }

    /// A warning for a model whose 8-bit products need VNNI when ONNX Runtime runs it on a processor without it.
    pub fn caution(&self) -> Option<String> {
        self.caution_on(&Processor::here())
    }

    /// [`Session::caution`], were this the processor.
    pub fn caution_on(&self, processor: &Processor) -> Option<String> {
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

/// Takes a model of clips or views of clips alone, or where they are asked for, of pictures, or of any inputs.
fn check_inputs(path: &Path, inputs: &[TensorInfo], options: &Options) -> Result<(), SessionError> {
    let (path, all) = (path.to_owned(), || named::in_words(inputs));
    match inputs {
        [] => Err(SessionError::Inputs { path, inputs: all() }),
        _ if options.any_inputs && inputs.iter().all(|input| input.is_f32) => Ok(()),
        _ if options.any_inputs => Err(SessionError::Elements { path, inputs: all() }),
        [input] if input.is_f32 && is_clips(input, options.pictures) => Ok(()),
        _ => Err(SessionError::Inputs { path, inputs: all() }),
    }
}

fn is_clips(input: &TensorInfo, pictures: bool) -> bool {
    let views = matches!(input.shape.as_slice(), [_, Dimension::Size(1..), _, _, _, _]);
    views || input.shape.len() == 5 || (pictures && input.shape.len() == 4)
}

/// The shapes of a run as one number, never 0.
fn hashed(feeds: &[Feed<'_>]) -> u64 {
    let mut hash = DefaultHasher::new();
    feeds.iter().for_each(|feed| feed.shape.hash(&mut hash));
    hash.finish().max(1)
}

#[cfg(feature = "burn")]
fn open_compiled(path: &Path, options: &Options) -> Result<Session, SessionError> {
    let (executor, params, metadata) = crate::compiled::open(path, options)?;
    Session::of_plan(path, executor, params, metadata, options)
}

#[cfg(not(feature = "burn"))]
fn open_compiled(_: &Path, _: &Options) -> Result<Session, SessionError> {
    Err(SessionError::NotBuilt("burn"))
}
