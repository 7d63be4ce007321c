//! The Open Inference Protocol regardless of transport: checks of a request's tensors, the model's description.

use crate::error::InferError;
use crate::model::{BatchShape, ModelInfo};
use crate::state::shortened;
use vjepa_runtime::{Dimension, NamedOutput, TensorInfo};

/// The only element type.
pub(crate) const DATATYPE: &str = "FP32";

/// Protocol extensions that this server supports.
pub(crate) const EXTENSIONS: [&str; 4] =
    ["binary_tensor_data", "model_configuration", "model_repository", "statistics"];

/// Unsupported methods of the protocol by their gRPC names, with one sentence each.
const ABSENT: [(&str, &str); 18] = [
    ("ModelStreamInfer", "every request has one answer; call ModelInfer"),
    ("RepositoryModelLoad", ONE_MODEL),
    ("RepositoryModelUnload", ONE_MODEL),
    ("SystemSharedMemoryStatus", MEMORY),
    ("SystemSharedMemoryRegister", MEMORY),
    ("SystemSharedMemoryUnregister", MEMORY),
    ("CudaSharedMemoryStatus", MEMORY),
    ("CudaSharedMemoryRegister", MEMORY),
    ("CudaSharedMemoryUnregister", MEMORY),
    ("TpuSharedMemoryStatus", MEMORY),
    ("TpuSharedMemoryRegister", MEMORY),
    ("TpuSharedMemoryUnregister", MEMORY),
    ("TraceSetting", "requests are not traced; /metrics and the model's statistics count them"),
    ("LogSettings", LOGGING),
    ("Generate", GENERATION),
    ("GenerateStream", GENERATION),
    ("Predict", V1),
    ("Explain", V1),
];
const ONE_MODEL: &str = "the server has one model, from its start to its end; start another server for another model";
const MEMORY: &str = "shared memory is not supported; send tensors in the request";
const LOGGING: &str = "what is logged is chosen at the start, with --verbose and --json";
const GENERATION: &str = "the model takes clips and returns no text; send tensors to infer, or a video to /v1/classify";
const V1: &str = "version 1 of the protocol is not supported; send tensors to /v2/models/NAME/infer";

/// Why a method of the protocol or of Triton's extensions is not supported; none for unknown methods.
pub(crate) fn absent(method: &str) -> Option<&'static str> {
    ABSENT.iter().find(|(name, _)| *name == method).map(|(_, why)| *why)
}

/// The head of an input tensor in a request.
pub(crate) struct InputHead<'a> {
    pub name: &'a str,
    pub datatype: &'a str,
    pub shape: Vec<u64>,
}

/// Checks the head of a request's only input and returns its shape.
///
/// # Errors
/// [`InferError::Invalid`] with what the model takes.
pub(crate) fn clip_shape(info: &ModelInfo, max_clips: usize, head: &InputHead<'_>) -> Result<BatchShape, InferError> {
    let invalid = |what: String| Err(InferError::Invalid(format!("{what}; the model takes {}", info.input)));
    if head.name != info.input.name {
        return invalid(format!("there is no input `{}`", shortened(head.name)));
    }
    if head.datatype != DATATYPE {
        return invalid(format!("`{}` is {} instead of {DATATYPE}", head.name, shortened(head.datatype)));
    }
    let shown: Vec<u64> = head.shape.iter().copied().take(8).collect();
    let sizes: Vec<usize> = head.shape.iter().map_while(|size| usize::try_from(*size).ok()).collect();
    // A dimension that does not fit here made the list shorter.
    let Some(shape) = BatchShape::of(&sizes).filter(|_| sizes.len() == head.shape.len() && info.input.accepts(&sizes))
    else {
        return invalid(format!("`{}` has the shape {shown:?}", head.name));
    };
    if info.fixed_batch().is_none() && shape.rows > max_clips {
        let rows = shape.rows;
        return Err(InferError::Invalid(format!(
            "a batch of {rows} exceeds the {max_clips} clips allowed per request; send several requests"
        )));
    }
    Ok(shape)
}

/// A shape with a negative dimension.
pub(crate) fn negative(info: &ModelInfo) -> InferError {
    InferError::Invalid(format!(
        "a size of the shape is negative; the model takes {}, and a request has a number for every size",
        info.input
    ))
}

/// Checks the number of values against the shape.
///
/// # Errors
/// [`InferError::Invalid`].
pub(crate) fn check_count(shape: BatchShape, values: usize) -> Result<(), InferError> {
    let wanted = shape.values();
    if wanted == Some(values) {
        return Ok(());
    }
    let wanted = wanted.map_or_else(|| "more than there can be".to_owned(), |wanted| wanted.to_string());
    Err(InferError::Invalid(format!("the shape implies {wanted} values, but the request has {values}")))
}

/// Checks the size of binary data against the shape.
///
/// # Errors
/// [`InferError::Invalid`].
pub(crate) fn check_bytes(shape: BatchShape, bytes: usize) -> Result<(), InferError> {
    if !bytes.is_multiple_of(size_of::<f32>()) {
        return Err(InferError::Invalid(format!(
            "{bytes} bytes are not a whole number of {DATATYPE} values (4 bytes each)"
        )));
    }
    check_count(shape, bytes / size_of::<f32>())
}

/// State of a model that accepts requests, as in Triton's index.
pub(crate) const READY: &str = "READY";

/// The model's state and its reason, as in Triton's index.
pub(crate) fn state(ready: Result<(), String>) -> (&'static str, String) {
    ready.map_or_else(|reason| ("UNAVAILABLE", reason), |()| (READY, String::new()))
}

/// Refuses the index of a named repository: the server has none.
///
/// # Errors
/// [`InferError::Invalid`] for a name.
pub(crate) fn check_repository(name: &str) -> Result<(), InferError> {
    if name.is_empty() {
        return Ok(());
    }
    let name = shortened(name);
    Err(InferError::Invalid(format!("there is no repository `{name}`; omit the name for the served model")))
}

/// Refuses tensors in shared memory.
///
/// # Errors
/// [`InferError::Invalid`] if a tensor has the parameter.
pub(crate) fn no_shared_memory(is_there: bool) -> Result<(), InferError> {
    let told = || InferError::Invalid("shared memory is not supported; send the tensor in the request".to_owned());
    if is_there { Err(told()) } else { Ok(()) }
}

/// Refuses outputs as classes.
///
/// # Errors
/// [`InferError::Invalid`] if an output has the parameter.
pub(crate) fn no_classification(is_there: bool) -> Result<(), InferError> {
    let told = || {
        InferError::Invalid("the classification extension is not supported; POST a video to /v1/classify".to_owned())
    };
    if is_there { Err(told()) } else { Ok(()) }
}

/// A requested output, by its index among the model's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    pub index: usize,
    /// As binary data after the JSON; HTTP only.
    pub binary: bool,
}

/// The outputs of a request: those named, or all.
///
/// # Errors
/// [`InferError::Invalid`] for an unknown name.
pub(crate) fn wanted<'a>(
    info: &ModelInfo,
    named: impl ExactSizeIterator<Item = (&'a str, bool)>,
    binary: bool,
) -> Result<Vec<Wanted>, InferError> {
    if named.len() == 0 {
        return Ok((0..info.outputs.len()).map(|index| Wanted { index, binary }).collect());
    }
    let mut all: Vec<Wanted> = Vec::new();
    for (name, binary) in named {
        let index = info.outputs.iter().position(|output| output.name == name);
        let index = index.filter(|index| all.iter().all(|other| other.index != *index)).ok_or_else(|| {
            let names: Vec<&str> = info.outputs.iter().map(|output| output.name.as_str()).collect();
            let name = shortened(name);
            InferError::Invalid(format!(
                "`{name}` is not an output, or is requested twice; the model has {}",
                names.join(", ")
            ))
        })?;
        all.push(Wanted { index, binary });
    }
    Ok(all)
}

/// Appends values as little-endian bytes.
pub(crate) fn append(body: &mut Vec<u8>, values: &[f32]) {
    if cfg!(target_endian = "little") {
        body.extend_from_slice(bytemuck::cast_slice(values));
    } else {
        values.iter().for_each(|value| body.extend_from_slice(&value.to_le_bytes()));
    }
}

/// One of a run's results.
///
/// # Errors
/// [`InferError::Failed`] if the model returned fewer than it declares.
pub(crate) fn pick(outputs: &[NamedOutput], wanted: Wanted) -> Result<&NamedOutput, InferError> {
    outputs.get(wanted.index).ok_or_else(|| InferError::Failed("the model did not return this output".to_owned()))
}

/// A shape as in the protocol, with -1 for dynamic dimensions.
pub(crate) fn dims(info: &TensorInfo) -> Vec<i64> {
    let size = |dim: &Dimension| dim.size().map_or(-1, |size| i64::try_from(size).unwrap_or(i64::MAX));
    info.shape.iter().map(size).collect()
}

/// The model as a Triton configuration: the maximum batch (0 if requests are not batched), inputs and outputs without
/// the batch dimension.
pub(crate) struct Configuration<'a> {
    pub max_batch: usize,
    pub tensors: Vec<(&'a str, Vec<i64>)>,
}

/// The configuration; the input is the first of its tensors.
pub(crate) fn configuration(info: &ModelInfo, max_clips: usize) -> Configuration<'_> {
    let batched = info.batched();
    let tensors = std::iter::once(&info.input).chain(&info.outputs);
    let without_batch = |tensor: &TensorInfo| dims(tensor).split_off(usize::from(batched));
    Configuration {
        max_batch: if batched { max_clips } else { 0 },
        tensors: tensors.map(|tensor| (tensor.name.as_str(), without_batch(tensor))).collect(),
    }
}
