//! ONNX Runtime's GPU providers: CUDA, and TensorRT with its engines kept in a folder one can read.
//!
//! A TensorRT engine fits one model, one set of batches, one version of the libraries and one kind of GPU. The folder of an
//! engine is named by all of them, so that nothing stale is ever loaded, and `engine.json` in it says what it is for. A
//! provider takes all of the model or the session does not open: nothing is left to the CPU in silence.

use crate::library::Library;
use crate::onnx::{Dimension, OnnxFile};
use crate::options::{Batches, Options, Progress};
use crate::session::SessionError;
use ort::ep::{CUDA, ExecutionProviderDispatch, TensorRT};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

mod gpu;

/// What is installed for CUDA and for TensorRT.
pub(crate) const CUDA_REMEDY: &str =
    "install onnxruntime-gpu with the CUDA and cuDNN it names, and point --ort-lib to its libonnxruntime";
pub(crate) const TENSORRT_REMEDY: &str = "install onnxruntime-gpu and TensorRT 10 (libnvinfer.so.10, libnvonnxparser.so.10) where the \
                               loader finds them, and point --ort-lib to its libonnxruntime";

/// The CUDA provider in plain f32: TF32 would lose what the parity tolerances ask for.
pub(crate) fn cuda(gpu: usize) -> ExecutionProviderDispatch {
    CUDA::default().with_device_id(id(gpu)).with_tf32(false).build().error_on_failure()
}

/// TensorRT for one model.
pub(crate) struct Engine {
    /// Where the engine is kept.
    pub folder: PathBuf,
    /// Whether one was kept before.
    pub built: bool,
    /// The provider.
    pub provider: ExecutionProviderDispatch,
}

/// The TensorRT provider with engine and timing caches. Precision is the model's own: no flag that would narrow it is set,
/// which leaves the network strongly typed.
pub(crate) fn tensorrt(file: &OnnxFile, library: &Library, options: &Options) -> Result<Engine, SessionError> {
    let missing = |reason: String| SessionError::Provider {
        provider: "TensorRT",
        library: library.to_string(),
        reason,
        remedy: TENSORRT_REMEDY,
    };
    let machine = gpu::describe(options.gpu).map_err(missing)?;
    let batches = batches(file, options.batches)?;
    let base = match &options.engine_cache {
        Some(folder) => folder.clone(),
        None => default_cache().ok_or_else(|| SessionError::EngineCache {
            folder: PathBuf::from("$XDG_CACHE_HOME"),
            reason: "neither XDG_CACHE_HOME nor HOME is set".to_owned(),
        })?,
    };
    let folder = base.join(key(file, library, &machine, batches)?);
    let unusable =
        |error: std::io::Error| SessionError::EngineCache { folder: folder.clone(), reason: error.to_string() };
    std::fs::create_dir_all(&folder).map_err(unusable)?;
    let note = serde_json::json!({
        "model": file.path, "onnxruntime": format!("1.{}", library.minor), "tensorrt": machine.tensorrt,
        "gpu": machine.name, "compute_capability": machine.capability, "driver": machine.driver,
        "batches": batches.map(|b| [b.min, b.opt, b.max]),
    });
    std::fs::write(folder.join("engine.json"), format!("{note:#}\n")).map_err(unusable)?;
    let built = kept(&folder).map_err(unusable)?;
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
    if let (Some(batches), Some(shapes)) = (batches, shapes(file)) {
        provider = provider
            .with_profile_min_shapes(shapes(batches.min))
            .with_profile_opt_shapes(shapes(batches.opt))
            .with_profile_max_shapes(shapes(batches.max));
    }
    Ok(Engine { folder, built, provider: provider.build().error_on_failure() })
}

/// Runs `open`, telling every few seconds that it is not stuck: the first build takes minutes.
pub(crate) fn watched<R: Send>(progress: Option<&Progress>, engine: &Engine, open: impl FnOnce() -> R + Send) -> R {
    let Some(Progress(tell)) = progress else { return open() };
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
        Err(SessionError::Load { runtime: "TensorRT", path: file.path.clone(), reason: reason.to_owned() })
    };
    let dynamic = file.inputs.iter().any(|input| matches!(input.shape.first(), Some(Dimension::Symbol(_))));
    match asked {
        Some(_) if !dynamic => refuse("its batch is fixed; leave the batches out, or export with --batch dynamic"),
        Some(Batches { min, opt, max }) if min == 0 || opt < min || max < opt => {
            refuse("the batches of an engine are MIN <= OPT <= MAX, from 1")
        }
        _ => Ok(dynamic.then(|| asked.unwrap_or_default())),
    }
}

/// `clip:1x3x16x224x224` for a batch.
fn shapes(file: &OnnxFile) -> Option<impl Fn(usize) -> String> {
    let input = file.inputs.first()?;
    let rest = input.shape.iter().skip(1).map(|dim| match dim {
        Dimension::Size(size) => Some(format!("x{size}")),
        Dimension::Symbol(_) => None,
    });
    let (name, rest) = (input.name.clone(), rest.collect::<Option<String>>()?);
    Some(move |batch: usize| format!("{name}:{batch}{rest}"))
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
        let read = |source| crate::OnnxError::Read { path: path.clone(), source };
        let mut reader = std::fs::File::open(&path).map_err(read)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut reader, &mut buffer).map_err(read)? {
                0 => break,
                count => hash.update(&buffer[..count]),
            }
        }
    }
    let digest: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
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
