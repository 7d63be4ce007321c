//! The compiled plan behind a [`Session`](crate::Session): a `*.vjg` file with graph, plan and record, and the weights
//! beside it as safetensors.
//!
//! The record says for which program and device it was compiled, which file has the weights and what their SHA-256 is,
//! and carries the metadata that an ONNX file of the same model has (`vjepa.*`). `vjepa compile --export plan` writes it.

use crate::clips::{Feed, NamedOutput};
use crate::error::SessionError;
use crate::files::{Tree, hex, is_name};
use crate::onnx::{Dimension, TensorInfo};
use crate::options::Options;
use crate::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};
use safetensors::tensor::{Dtype, SafeTensors};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use vjepa_compiler::ir::{DType, Dim, Graph, ValueId};
use vjepa_compiler::serialize::{Record, decode};

/// Record: program and version that compiled it.
pub const PROGRAM: &str = "program";
/// Record: [kind](Device::kind) of the device.
pub const DEVICE: &str = "device";
/// Record: name of the weights' file, in the same folder.
pub const WEIGHTS: &str = "weights";
/// Record: SHA-256 of the weights' file, in hexadecimal.
pub const WEIGHTS_SHA256: &str = "weights.sha256";

/// What [`PROGRAM`] says for files that this build runs: another version may plan otherwise.
pub fn program() -> String {
    format!("vjepa {}", env!("CARGO_PKG_VERSION"))
}

/// A compiled model with its weights.
pub(crate) struct Model {
    /// A run writes into the plan's buffers.
    state: Mutex<(DeviceExecutor, DeviceParams)>,
    device: Device,
}

impl Model {
    pub fn new(executor: DeviceExecutor, params: DeviceParams) -> Self {
        let device = executor.device();
        Self { state: Mutex::new((executor, params)), device }
    }

    pub fn describe(&self) -> String {
        format!("the compiled plan on {} ({})", self.device, program())
    }

    /// Inputs and outputs.
    pub fn interface(&self, path: &Path) -> Result<(Vec<TensorInfo>, Vec<TensorInfo>), SessionError> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let graph = state.0.graph();
        let info = |name: &str, id: ValueId| tensor_info(graph, name, id).map_err(|why| compiled(path, why));
        let inputs = graph.inputs.iter().map(|id| info(graph.source_name(*id).unwrap_or_default(), *id));
        let outputs = graph.outputs.iter().map(|(name, id)| info(name, *id));
        Ok((inputs.collect::<Result<_, _>>()?, outputs.collect::<Result<_, _>>()?))
    }

    pub fn run(&self, feeds: &[Feed<'_>], outputs: &[TensorInfo]) -> Result<Vec<NamedOutput>, SessionError> {
        let failed = |reason: String| SessionError::Run { runtime: "the plan", reason };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (executor, params) = &mut *state;
        let tensor = |feed: &Feed<'_>| HostTensor::f32(feed.shape, feed.data.to_vec());
        let wrong = |feed: &Feed<'_>| failed(format!("{:?} is not the shape of `{}`", feed.shape, feed.name));
        let mut inputs = Vec::with_capacity(feeds.len());
        for feed in feeds {
            inputs.push((feed.name, tensor(feed).ok_or_else(|| wrong(feed))?));
        }
        let mut results = executor.run(params, inputs).map_err(|error| failed(error.to_string()))?;
        let named = outputs.iter().map(|info| {
            let tensor = results.remove(&info.name).ok_or_else(|| failed(format!("no output `{}`", info.name)))?;
            let shape = tensor.shape().to_vec();
            Ok(NamedOutput { name: info.name.clone(), shape, data: tensor.into_floats() })
        });
        named.collect()
    }
}

fn tensor_info(graph: &Graph, name: &str, id: ValueId) -> Result<TensorInfo, String> {
    let ty = graph.ty(id);
    let dimension = |dim: &Dim| match dim.as_const() {
        Some(size) => usize::try_from(size).map(Dimension::Size).map_err(|_| format!("`{name}` is {ty}")),
        None => Ok(Dimension::Symbol("batch".to_owned())),
    };
    let shape = ty.shape.iter().map(dimension).collect::<Result<_, _>>()?;
    Ok(TensorInfo { name: name.to_owned(), shape, is_f32: ty.dtype == DType::F32 })
}

fn compiled(path: &Path, reason: impl std::fmt::Display) -> SessionError {
    SessionError::Compiled { path: path.to_owned(), reason: reason.to_string() }
}

/// Reads a compiled model and its weights.
pub(crate) fn open(
    path: &Path,
    options: &Options,
) -> Result<(DeviceExecutor, DeviceParams, BTreeMap<String, String>), SessionError> {
    let wrong = |reason: String| compiled(path, reason);
    crate::fork::plans()?;
    threads(options.threads)?;
    let bytes = std::fs::read(path).map_err(|error| wrong(format!("it cannot be read ({error})")))?;
    let artifact = decode(&bytes).map_err(|error| wrong(error.to_string()))?;
    let said = |key: &str| {
        artifact.record.get(key).ok_or_else(|| wrong(format!("it says no `{key}`, so it is not a model for clips")))
    };
    if *said(PROGRAM)? != program() {
        return Err(wrong(format!("it was compiled by {}, and this is {}", said(PROGRAM)?, program())));
    }
    let device = match said(DEVICE)?.as_str() {
        kind @ ("cuda" | "wgpu") => format!("{kind}:{}", options.gpu),
        other => other.to_owned(),
    };
    let device = Device::open(&device).map_err(|error| wrong(error.to_string()))?;
    let weights = weights_path(path, said(WEIGHTS)?).map_err(wrong)?;
    let stored = std::fs::read(&weights).map_err(|error| wrong(format!("its weights cannot be read ({error})")))?;
    if hex(&Sha256::digest(&stored)) != *said(WEIGHTS_SHA256)? {
        return Err(wrong(format!("{} does not hold the weights it was written with", weights.display())));
    }
    let params = params(&artifact.graph, device, &stored).map_err(wrong)?;
    let metadata = metadata(&artifact.record);
    let executor = device.take(artifact.graph, artifact.plan).map_err(|error| wrong(error.to_string()))?;
    Ok((executor, params, metadata))
}

/// The record's entries that an ONNX file would carry too.
fn metadata(record: &Record) -> BTreeMap<String, String> {
    let ours = record.iter().filter(|(key, _)| key.starts_with("vjepa."));
    ours.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The weights' file: under a name in the model's folder, in its [`Tree`].
fn weights_path(model: &Path, name: &str) -> Result<PathBuf, String> {
    if !is_name(name) {
        return Err(format!("its weights' file `{name}` is not a name in its folder"));
    }
    let tree = Tree::of(model).map_err(|error| format!("it cannot be read ({error})"))?;
    let (path, _) = tree.file(name).map_err(|why| format!("{} {why}", model.with_file_name(name).display()))?;
    Ok(path)
}

/// The graph's parameters from the bytes of a safetensors file.
fn params(graph: &Graph, device: Device, bytes: &[u8]) -> Result<DeviceParams, String> {
    let stored = SafeTensors::deserialize(bytes).map_err(|error| format!("its weights are damaged ({error})"))?;
    let mut params = device.params();
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap_or_default();
        let tensor = stored.tensor(name).map_err(|_| format!("its weights have no `{name}`"))?;
        let wanted = graph.ty(*id);
        let same = wanted.shape.iter().map(Dim::as_const).eq(tensor.shape().iter().map(|n| i64::try_from(*n).ok()));
        if !same || tensor.dtype() != Dtype::F32 || wanted.dtype != DType::F32 {
            let is = (tensor.dtype(), tensor.shape());
            return Err(format!("its weight `{name}` is {:?} {:?} instead of {wanted}", is.0, is.1));
        }
        let (words, _) = tensor.data().as_chunks::<4>();
        let values = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
        let tensor = HostTensor::f32(tensor.shape(), values).ok_or_else(|| format!("`{name}` is cut off"))?;
        params.set(name, tensor);
    }
    Ok(params)
}

/// The plan's threads are the process's, started once.
fn threads(asked: Option<usize>) -> Result<(), SessionError> {
    let Some(asked) = asked else { return Ok(()) };
    // An error means they run already; what counts is how many.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(asked).build_global();
    match rayon::current_num_threads() {
        running if running == asked => Ok(()),
        running => Err(SessionError::Threads { asked, running }),
    }
}
