//! ONNX Runtime, loaded from its shared library at run time.

use crate::clips::{Feed, NamedOutput};
use crate::error::SessionError;
use crate::files::Tree;
use crate::library::{Library, LibraryError, Search};
use crate::onnx::{OnnxFile, TensorInfo};
use crate::options::{Options, Runtime};
use crate::providers;
use ort::environment::Environment;
use ort::ep::ExecutionProviderDispatch;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{Session, SessionInputValue};
use ort::value::TensorRef;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// The library of this process: there can be only one.
static LOADED: Mutex<Option<(Library, Environment)>> = Mutex::new(None);

/// A model loaded by ONNX Runtime.
pub(crate) struct Model {
    session: Mutex<Session>,
    library: Library,
    runs_on: Runtime,
    /// Whether the calling thread does all the work.
    single: bool,
}

impl Model {
    /// Loads the file from its place; its bytes are given up for that.
    pub fn open(file: &mut OnnxFile, search: &Search, options: &Options) -> Result<Self, SessionError> {
        let (library, environment) =
            environment(search).map_err(|error| providers::without_library(options.runtime, error))?;
        let engine = match options.runtime {
            Runtime::TensorRt => Some(providers::tensorrt(file, &library, options)?),
            _ => None,
        };
        file.bytes = prost::bytes::Bytes::new();
        let far = far_data(file)?;
        let load = |provider| load(&environment, &file.path, options.threads, &far, provider);
        let (runs_on, loaded) = match &engine {
            Some(engine) => {
                let loaded = || load(Some(engine.provider.clone()));
                (Runtime::TensorRt, providers::watched(options.on_notice.as_ref(), engine, loaded))
            }
            None if options.runtime == Runtime::Cuda => (Runtime::Cuda, load(Some(providers::cuda(options.gpu)))),
            None => (Runtime::Ort, load(None)),
        };
        let session = loaded.map_err(|failure| match failure {
            Failure::Provider(reason) => providers::unusable(runs_on, &library, reason),
            Failure::Load(reason) => {
                let reason = crate::quiet::shortened(&reason);
                SessionError::Load { runtime: "ONNX Runtime", path: file.path.clone(), reason, lacks_operators: false }
            }
        })?;
        Ok(Self { session: Mutex::new(session), library, runs_on, single: options.threads == Some(1) })
    }

    /// Whether it runs in a child of the process that opened it: without threads of its own, and on the CPU.
    pub fn survives_fork(&self) -> bool {
        self.single && self.runs_on == Runtime::Ort
    }

    /// CUDA, TensorRT, or the CPU as [`Runtime::Ort`].
    pub fn runs_on(&self) -> Runtime {
        self.runs_on
    }

    pub fn describe(&self) -> String {
        match self.runs_on {
            Runtime::Ort => self.library.to_string(),
            provider => format!("{} through {}", providers::name(provider), self.library),
        }
    }

    pub fn run(&self, feeds: &[Feed<'_>], outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |error: ort::Error| SessionError::Run { runtime: "ONNX Runtime", reason: error.to_string() };
        let mut values: Vec<(&str, SessionInputValue<'_>)> = Vec::with_capacity(feeds.len());
        for feed in feeds {
            values.push((feed.name, TensorRef::from_array_view((feed.shape, feed.data)).map_err(error)?.into()));
        }
        let results = session.run(values).map_err(error)?;
        let named = outputs.iter().map(|info| {
            let missing =
                || SessionError::Run { runtime: "ONNX Runtime", reason: format!("no output `{}`", info.name) };
            let value = results.get(&info.name).ok_or_else(missing)?;
            let (shape, data) = value.try_extract_tensor::<f32>().map_err(error)?;
            let shape = shape.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
            Ok(NamedOutput { name: info.name.clone(), shape, data: data.to_vec() })
        });
        named.collect()
    }
}

/// Where loading failed.
enum Failure {
    /// The GPU provider does not start.
    Provider(String),
    /// The model does not load.
    Load(String),
}

fn load(
    environment: &Environment,
    path: &Path,
    threads: Option<usize>,
    far: &[(String, Arc<[u8]>)],
    provider: Option<ExecutionProviderDispatch>,
) -> Result<Session, Failure> {
    let plain = || -> ort::Result<SessionBuilder> {
        let builder = Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?;
        // Left to itself it counts the machine's cores, whatever the process may use of them.
        Ok(match threads.or_else(crate::cores::fewer_than_the_machine_has) {
            Some(threads) => builder.with_intra_threads(threads)?,
            None => builder,
        })
    };
    let mut builder = plain().map_err(|error| Failure::Load(error.to_string()))?;
    for (name, data) in far {
        let given = builder.with_external_initializer_file_in_memory(name, data.clone());
        builder = given.map_err(|error| Failure::Load(error.to_string()))?;
    }
    if let Some(provider) = provider {
        let failed = |reason: String| Failure::Provider(reason);
        builder = builder.with_execution_providers([provider]).map_err(|error| failed(error.to_string()))?;
        // What the GPU cannot run would otherwise run on the CPU without a word.
        builder = builder.with_disable_cpu_fallback().map_err(|error| failed(error.to_string()))?;
    }
    builder.commit_from_file(path).map_err(|error| Failure::Load(error.to_string()))
}

/// A file of weights as the model names it, and its bytes.
type NamedBytes = (String, Arc<[u8]>);

/// External data that ONNX Runtime would not open: it follows links to the folder of the model's own file and no further,
/// not through a store of files named by their digest.
fn far_data(file: &OnnxFile) -> Result<Vec<NamedBytes>, SessionError> {
    let Some(tree) = (!file.external.is_empty()).then(|| Tree::of(&file.path)).transpose().ok().flatten() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for name in &file.external {
        // What is not there any more is ONNX Runtime's to say.
        let Ok((target, _)) = tree.file(name) else { continue };
        if !tree.is_near(&target) {
            let data = std::fs::read(&target).map_err(|source| crate::OnnxError::Read { path: target, source })?;
            found.push((name.clone(), data.into()));
        }
    }
    Ok(found)
}

/// Loads the library, once in a process.
fn environment(search: &Search) -> Result<(Library, Environment), LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((library, environment)) = loaded.as_ref() {
        return match &search.explicit {
            // The same file may be named in several ways.
            Some(path)
                if crate::library::meant(path.clone()).canonicalize().ok() != library.path.canonicalize().ok() =>
            {
                Err(LibraryError::AlreadyLoaded { wanted: path.clone(), loaded: library.path.clone() })
            }
            _ => Ok((library.clone(), environment.clone())),
        };
    }
    let library = crate::library::find(search)?;
    let refused =
        |reason: String| LibraryError::Refused { path: library.path.clone(), reason: crate::quiet::shortened(&reason) };
    // It panics where a library has not the interface that its version stands for.
    let built = crate::quiet::caught(|| {
        let builder = ort::init_from(&library.path).map_err(|error| error.to_string())?;
        let environment =
            builder.with_name("vjepa").with_telemetry(false).build().map_err(|error| error.to_string())?;
        environment.set_log_level(ort::logging::LogLevel::Error);
        Ok(environment)
    });
    let environment = built.and_then(|built| built).map_err(refused)?;
    *loaded = Some((library.clone(), environment.clone()));
    Ok((library, environment))
}
