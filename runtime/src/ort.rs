//! ONNX Runtime, loaded from its shared library at run time.

use crate::library::{Library, LibraryError, Search};
use crate::onnx::{OnnxFile, TensorInfo};
use crate::session::{ClipBatch, NamedOutput, SessionError};
use ort::environment::Environment;
use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::TensorRef;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The library of this process: there can be only one.
static LOADED: Mutex<Option<(Library, Environment)>> = Mutex::new(None);

/// A model loaded by ONNX Runtime.
pub(crate) struct Model {
    session: Mutex<Session>,
    library: Library,
}

impl Model {
    pub fn open(file: &OnnxFile, search: &Search, threads: Option<usize>) -> Result<Self, SessionError> {
        let (library, environment) = environment(search)?;
        let session = load(&environment, &file.path, threads).map_err(|error| SessionError::Load {
            runtime: "ONNX Runtime",
            path: file.path.clone(),
            reason: error.to_string(),
        })?;
        Ok(Self { session: Mutex::new(session), library })
    }

    pub fn describe(&self) -> String {
        self.library.to_string()
    }

    pub fn run(&self, clips: &ClipBatch<'_>, outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let error = |error: ort::Error| SessionError::Run { runtime: "ONNX Runtime", reason: error.to_string() };
        let clip = TensorRef::from_array_view((clips.shape(), clips.data())).map_err(error)?;
        let results = session.run(ort::inputs![clip]).map_err(error)?;
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

fn load(environment: &Environment, path: &Path, threads: Option<usize>) -> ort::Result<Session> {
    let mut builder: SessionBuilder =
        Session::builder(environment)?.with_optimization_level(GraphOptimizationLevel::All)?;
    if let Some(threads) = threads {
        builder = builder.with_intra_threads(threads)?;
    }
    builder.commit_from_file(path)
}

/// Loads the library, once in a process.
fn environment(search: &Search) -> Result<(Library, Environment), LibraryError> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((library, environment)) = loaded.as_ref() {
        return match &search.explicit {
            Some(path) if *path != library.path => {
                Err(LibraryError::AlreadyLoaded { wanted: path.clone(), loaded: library.path.clone() })
            }
            _ => Ok((library.clone(), environment.clone())),
        };
    }
    let library = crate::library::find(search)?;
    let refused = |reason: String| LibraryError::Refused { path: library.path.clone(), reason };
    let builder = ort::init_from(&library.path).map_err(|error| refused(error.to_string()))?;
    let environment = builder.with_name("vjepa").with_telemetry(false).build();
    let environment = environment.map_err(|error| refused(error.to_string()))?;
    environment.set_log_level(ort::logging::LogLevel::Error);
    *loaded = Some((library.clone(), environment.clone()));
    Ok((library, environment))
}
