//! ONNX Runtime's GPU providers: CUDA, and TensorRT with its engines kept in a folder one can read.
//!
//! A TensorRT engine fits one model, one set of batches, one version of the libraries and one kind of GPU. The folder of an
//! engine is named by all of them, so that nothing stale is ever loaded, and `engine.json` in it says what it is for. A
//! provider takes all of the model or the session does not open: nothing is left to the CPU in silence.

use crate::error::SessionError;
use crate::files::{hash_all, hex};
use crate::library::{Library, LibraryError};
use crate::onnx::{OnnxFile, TensorInfo};
use crate::options::{Batches, OnNotice, Options, Runtime};
use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

mod gpu;

/// What is installed for CUDA and for TensorRT.
const CUDA_REMEDY: &str =
    "install onnxruntime-gpu with the CUDA and cuDNN it names, and point --ort-lib to its libonnxruntime";
const TENSORRT_REMEDY: &str = "install onnxruntime-gpu and TensorRT 10 (libnvinfer.so.10, libnvonnxparser.so.10) where the \
                               loader finds them, and point --ort-lib to its libonnxruntime";

/// A GPU provider's name.
pub(crate) fn name(provider: Runtime) -> &'static str {
    if provider == Runtime::TensorRt { "TensorRT" } else { "CUDA" }
}

/// A GPU provider that cannot be used, and what to install.
pub(crate) fn unusable(provider: Runtime, library: &Library, reason: String) -> SessionError {
    SessionError::Provider { provider: name(provider), library: library.to_string(), reason, remedy: remedy(provider) }
}

/// What is to be installed for a provider.
fn remedy(provider: Runtime) -> &'static str {
    if provider == Runtime::TensorRt { TENSORRT_REMEDY } else { CUDA_REMEDY }
}

/// No usable ONNX Runtime: for a GPU the usual package would not do.
pub(crate) fn without_library(runtime: Runtime, error: LibraryError) -> SessionError {
    match (runtime, error) {
        (Runtime::Cuda | Runtime::TensorRt, LibraryError::NotFound) => SessionError::Provider {
            provider: name(runtime),
            library: "ONNX Runtime".to_owned(),
            reason: "it was not found".to_owned(),
            remedy: remedy(runtime),
        },
        (_, error) => error.into(),
    }
}

/// The CUDA provider in plain f32: TF32 would lose what the parity tolerances ask for.
pub(crate) fn cuda(gpu: usize) -> ExecutionProviderDispatch {
    CUDA::default().with_device_id(id(gpu)).with_tf32(false).build().error_on_failure()
}

/// TensorRT for one model.
pub(crate) struct TensorRtEngine {
    /// Where the engine is kept.
    pub folder: PathBuf,
    /// Whether one was kept before.
    pub built: bool,
    /// The provider.
    pub provider: ExecutionProviderDispatch,
}

/// The TensorRT provider with engine and timing caches. Precision is the model's own: no flag that would narrow it is set,
/// which leaves the network strongly typed.
pub(crate) fn tensorrt(file: &OnnxFile, library: &Library, options: &Options) -> Result<TensorRtEngine, SessionError> {
    let machine = gpu::describe(options.gpu).map_err(|reason| unusable(Runtime::TensorRt, library, reason))?;
    let batches = batches(file, options.batches)?;
    let base = match &options.engine_cache {
        Some(folder) => folder.clone(),
        None => default_cache().ok_or_else(|| SessionError::EngineCache {
            folder: PathBuf::from("$XDG_CACHE_HOME"),
            reason: "neither XDG_CACHE_HOME nor HOME is set".to_owned(),
        })?,
    };
    let folder = base.join(key(file, library, &machine, batches)?);
    let refused =
        |error: std::io::Error| SessionError::EngineCache { folder: folder.clone(), reason: error.to_string() };
    std::fs::create_dir_all(&folder).map_err(refused)?;
    let note = serde_json::json!({
        "model": file.path, "onnxruntime": format!("1.{}", library.minor), "tensorrt": machine.tensorrt,
        "gpu": machine.name, "compute_capability": machine.capability, "driver": machine.driver,
        "batches": batches.map(|b| [b.min, b.opt, b.max]),
    });
    std::fs::write(folder.join("engine.json"), format!("{note:#}\n")).map_err(refused)?;
    let built = kept(&folder).map_err(refused)?;
    let place = folder.to_str().ok_or_else(|| SessionError::EngineCache {
        folder: folder.clone(),
        reason: "its name is not UTF-8".to_owned(),
    })?;
    let mut provider = TensorRT::default()
        .with_device_id(id(options.gpu))
        .with_engine_cache(true)
        .with_engine_cache_path(place)
        .with_timing_cache(true)
        .with_timing_cache_path(place);
    let shapes = |batch| file.inputs.first().and_then(|input| input.with_batch(batch));
    if let Some(Batches { min, opt, max }) = batches
        && let (Some(min), Some(opt), Some(max)) = (shapes(min), shapes(opt), shapes(max))
    {
        provider = provider.with_profile_min_shapes(min).with_profile_opt_shapes(opt).with_profile_max_shapes(max);
    }
    Ok(TensorRtEngine { folder, built, provider: provider.build().error_on_failure() })
}

/// Runs `open`, telling every few seconds that it is not stuck: the first build takes minutes.
pub(crate) fn watched<R: Send>(
    on_notice: Option<&OnNotice>,
    engine: &TensorRtEngine,
    open: impl FnOnce() -> R + Send,
) -> R {
    let Some(OnNotice(tell)) = on_notice else { return open() };
    let folder = engine.folder.display();
    if engine.built {
        tell(&format!("loading the TensorRT engine kept in {folder}"));
    } else {
        tell(&format!("building a TensorRT engine, which takes minutes once; it is kept in {folder}"));
    }
    let began = Instant::now();
    let (done, waiting) = channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            while waiting.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                tell(&format!("still building the TensorRT engine: {} s", began.elapsed().as_secs()));
            }
        });
        let result = open();
        drop(done);
        result
    })
}

/// From one sign of life to the next.
const TICK: Duration = Duration::from_secs(10);

/// The batches of the engine; none for a model whose batch is fixed.
fn batches(file: &OnnxFile, asked: Option<Batches>) -> Result<Option<Batches>, SessionError> {
    let refuse = |reason: &str| {
        Err(SessionError::Load {
            runtime: "TensorRT",
            path: file.path.clone(),
            reason: reason.to_owned(),
            lacks_operators: false,
        })
    };
    let dynamic = file.inputs.iter().any(TensorInfo::has_free_batch);
    match asked {
        Some(_) if !dynamic => refuse("its batch is fixed; leave the batches out, or export with --batch dynamic"),
        Some(Batches { min, opt, max }) if min == 0 || opt < min || max < opt => {
            refuse("the batches of an engine are MIN <= OPT <= MAX, from 1")
        }
        _ => Ok(dynamic.then(|| asked.unwrap_or_default())),
    }
}

/// Name of an engine's folder.
fn key(
    file: &OnnxFile,
    library: &Library,
    machine: &gpu::Machine,
    batches: Option<Batches>,
) -> Result<String, SessionError> {
    let mut hash = Sha256::new();
    hash.update(&file.bytes);
    for data in &file.external {
        let path = file.path.with_file_name(data);
        let hashed = std::fs::File::open(&path).and_then(|mut file| hash_all(&mut hash, &mut file));
        hashed.map_err(|source| crate::OnnxError::Read { path: path.clone(), source })?;
    }
    let digest = hex(hash.finalize().first_chunk::<8>().map_or(&[], |first| first.as_slice()));
    let batches = batches.map_or(String::new(), |b| format!("-b{}.{}.{}", b.min, b.opt, b.max));
    let gpu::Machine { capability, driver, tensorrt, .. } = machine;
    Ok(format!("{digest}-ort1.{}-trt{tensorrt}-sm{capability}-driver{driver}{batches}", library.minor))
}

/// Whether an engine lies in the folder.
fn kept(folder: &Path) -> std::io::Result<bool> {
    let mut entries = std::fs::read_dir(folder)?.flatten();
    Ok(entries.any(|entry| entry.path().extension().is_some_and(|extension| extension == "engine")))
}

fn default_cache() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| variable("LOCALAPPDATA"));
    Some(cache.or_else(|| Some(variable("HOME")?.join(".cache")))?.join("vjepa/engines"))
}

fn id(gpu: usize) -> i32 {
    i32::try_from(gpu).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
