//! The engine that runs a model behind a [`Session`](crate::Session), and how [`Runtime::Auto`](crate::Runtime::Auto) chooses it.

use crate::clips::{Feed, NamedOutput};
use crate::error::SessionError;
use crate::onnx::{OnnxFile, TensorInfo};
use crate::options::{OnNotice, Options};

/// A model loaded by a runtime.
pub(crate) enum Engine {
    #[cfg(feature = "tract")]
    Tract(crate::tract::Model),
    #[cfg(feature = "ort")]
    Ort(crate::ort::Model),
    #[cfg(feature = "burn")]
    Plan(Box<crate::compiled::Model>),
}

impl Engine {
    /// Runs it on a tensor for each of its inputs, in their order.
    pub(crate) fn run(&self, feeds: &[Feed<'_>], outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        match self {
            #[cfg(feature = "tract")]
            Engine::Tract(model) => model.run(feeds, outputs),
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.run(feeds, outputs),
            #[cfg(feature = "burn")]
            Engine::Plan(model) => model.run(feeds, outputs),
            #[cfg(not(any(feature = "tract", feature = "ort", feature = "burn")))]
            _ => {
                let fed: Vec<String> = feeds
                    .iter()
                    .map(|feed| format!("{} {:?} ({} values)", feed.name, feed.shape, feed.data.len()))
                    .collect();
                let (fed, outputs) = (fed.join(" and "), outputs.len());
                let reason = format!("this build runs nothing, not {fed} for {outputs} outputs either");
                Err(SessionError::Run { runtime: "no runtime", reason })
            }
        }
    }

    /// Its name, with version and path.
    pub(crate) fn describe(&self) -> String {
        match self {
            #[cfg(feature = "tract")]
            Engine::Tract(model) => model.describe(),
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.describe(),
            #[cfg(feature = "burn")]
            Engine::Plan(model) => model.describe(),
            #[cfg(not(any(feature = "tract", feature = "ort", feature = "burn")))]
            _ => match *self {},
        }
    }

    /// Whether it runs in a child of the process that opened it.
    pub(crate) fn survives_fork(&self) -> bool {
        match self {
            #[cfg(feature = "tract")]
            Engine::Tract(_) => true,
            #[cfg(feature = "ort")]
            Engine::Ort(model) => model.survives_fork(),
            #[cfg(feature = "burn")]
            Engine::Plan(_) => false,
            #[cfg(not(any(feature = "tract", feature = "ort", feature = "burn")))]
            _ => match *self {},
        }
    }
}

/// Opens a model with tract, or else with ONNX Runtime, which is reported to the caller.
pub(crate) fn open_auto(file: &mut OnnxFile, options: &Options) -> Result<Engine, SessionError> {
    let tract = match open_tract(file, options) {
        Err(error @ SessionError::Load { .. }) => error,
        other => return other,
    };
    match open_ort(file, options) {
        Ok(engine) => {
            if let Some(OnNotice(tell)) = &options.on_notice {
                tell(&format!("{tract}; running it on {}", engine.describe()));
            }
            Ok(engine)
        }
        Err(error) => Err(SessionError::NoRuntime { instead: instead(&error), tract: Box::new(tract) }),
    }
}

/// Opens a model with tract, which was asked for.
pub(crate) fn open_on_tract(file: &OnnxFile, options: &Options) -> Result<Engine, SessionError> {
    open_tract(file, options).map_err(|error| match error {
        SessionError::Load { runtime, path, reason, lacks_operators } => {
            let reason = format!("{reason}; --runtime ort may run it");
            SessionError::Load { runtime, path, reason, lacks_operators }
        }
        other => other,
    })
}

/// Why ONNX Runtime does not run the model, and what to do.
fn instead(error: &SessionError) -> String {
    match error {
        SessionError::NotBuilt(_) => "this build has no other runtime; build it with the feature `ort`".to_owned(),
        SessionError::Load { reason, .. } => format!("nor can ONNX Runtime ({reason}); export it again"),
        other => format!("ONNX Runtime cannot run it instead: {other}"),
    }
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
pub(crate) fn open_ort(file: &mut OnnxFile, options: &Options) -> Result<Engine, SessionError> {
    let search = crate::library::Search { explicit: options.ort_lib.clone(), folders: options.ort_dirs.clone() };
    crate::ort::Model::open(file, &search, options).map(Engine::Ort)
}

#[cfg(not(feature = "ort"))]
pub(crate) fn open_ort(_: &mut OnnxFile, _: &Options) -> Result<Engine, SessionError> {
    Err(SessionError::NotBuilt("ort"))
}
