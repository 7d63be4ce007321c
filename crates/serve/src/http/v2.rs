//! `/v2`: the Open Inference Protocol over HTTP, with JSON tensors and the extension for binary ones.

use super::body::{self, Whole};
use super::reply::json;
use super::request::{self, Parameters};
use super::tensor::{Floats, Written};
use crate::error::InferError;
use crate::metrics::Sum;
use crate::model::{Clips, VERSION};
use crate::protocol::{self, DATATYPE, EXTENSIONS, InputHead, Wanted};
use crate::queue::{Answer, Values};
use crate::state::{Core, beside};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Header with the length of the JSON before binary tensors.
pub(super) const JSON_LENGTH: &str = "inference-header-content-length";

/// `GET /v2`.
pub(super) fn server_metadata() -> Response {
    json(&serde_json::json!({"name": "vjepa", "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}))
}

/// `GET /v2/models/M`.
pub(super) fn model_metadata(core: &Core) -> Response {
    let tensor = |info| serde_json::json!({"name": name_of(info), "datatype": DATATYPE, "shape": protocol::dims(info)});
    json(&serde_json::json!({
        "name": core.info.name, "versions": [VERSION], "platform": core.info.runtime,
        "inputs": [tensor(&core.info.input)],
        "outputs": core.info.outputs.iter().map(tensor).collect::<Vec<_>>(),
    }))
}

fn name_of(info: &vjepa_runtime::TensorInfo) -> &str {
    &info.name
}

/// `GET /v2/models/M/config`, which Triton's clients ask for.
pub(super) fn configuration(core: &Core) -> Response {
    let batching = core.settings.batching;
    let configuration = protocol::configuration(&core.info, batching.max_clips);
    let mut tensors = configuration.tensors.iter().map(
        |(name, dims)| serde_json::json!({"name": name, "data_type": "TYPE_FP32", "format": "FORMAT_NONE", "dims": dims}),
    );
    let input: Vec<Value> = tensors.by_ref().take(1).collect();
    let mut answer = serde_json::json!({
        "name": core.info.name, "platform": core.info.runtime, "backend": "vjepa",
        "version_policy": {"latest": {"num_versions": 1}}, "max_batch_size": configuration.max_batch,
        "input": input, "output": tensors.collect::<Vec<_>>(), "parameters": {},
    });
    if core.info.joined() {
        let delay = u64::try_from(batching.max_delay.as_micros()).unwrap_or(u64::MAX);
        answer["dynamic_batching"] = serde_json::json!({"max_queue_delay_microseconds": delay});
    }
    json(&answer)
}

/// `GET /v2/models/M/stats`.
pub(super) fn statistics(core: &Core) -> Response {
    let all = core.metrics.statistics();
    let sum = |sum: Sum| serde_json::json!({"count": sum.count, "ns": sum.ns});
    // Triton counts copies beside each run; perf_analyzer insists that the counts are equal.
    let none = |run: Sum| sum(run.without_time());
    let batches: Vec<Value> = all
        .batches
        .iter()
        .map(|(clips, time)| {
            serde_json::json!({
                "batch_size": clips, "compute_input": none(*time), "compute_infer": sum(*time), "compute_output": none(*time),
            })
        })
        .collect();
    json(&serde_json::json!({"model_stats": [{
        "name": core.info.name, "version": VERSION, "last_inference": all.last_ms,
        "inference_count": all.clips, "execution_count": all.runs,
        "inference_stats": {
            "success": sum(all.success), "fail": sum(all.fail), "queue": sum(all.queue),
            "compute_input": none(all.compute), "compute_infer": sum(all.compute), "compute_output": none(all.compute),
            "cache_hit": sum(Sum::default()), "cache_miss": sum(Sum::default()),
        },
        "batch_stats": batches,
    }]}))
}

/// A request that was read and checked.
struct Checked {
    id: String,
    shape: Clips,
    values: Values,
    wanted: Vec<Wanted>,
    patience: Duration,
}

/// `POST /v2/models/M/infer`.
///
/// # Errors
/// [`InferError`].
pub(super) async fn infer(core: &Arc<Core>, headers: &HeaderMap, body: &mut Body) -> Result<Response, InferError> {
    let admitted = core.admit()?;
    let json_length = json_length(headers)?;
    let Whole { bytes, held } = body::read(core, headers, body, json_length.unwrap_or(0)).await?;
    let checked = beside(bytes.len(), || match json_length {
        Some(0) => raw(core, &bytes),
        length => check(core, &bytes, length.unwrap_or(bytes.len())),
    })?;
    let Checked { id, shape, values, wanted, patience } = checked;
    drop(bytes);
    let answer = core.infer(&admitted, shape, values, held, patience).await?;
    let values: usize = answer.outputs.iter().map(|output| output.data.len()).sum();
    beside(values * size_of::<f32>(), || reply(core, &id, &answer, &wanted))
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let Some(value) = headers.get(JSON_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    let wrong = || InferError::Invalid("Inference-Header-Content-Length is no number of bytes".to_owned());
    length.map(Some).ok_or_else(wrong)
}

/// A body that is nothing but the clips' bytes.
fn raw(core: &Core, bytes: &Bytes) -> Result<Checked, InferError> {
    let free = || InferError::Invalid(format!("the sizes of a clip vary in {}; send them as JSON", core.info.input));
    let row = core.info.row().ok_or_else(free)?;
    let most = core.info.fixed_batch().unwrap_or(core.settings.batching.max_clips);
    let rows = bytes.len() / size_of::<f32>() / row.values().unwrap_or(usize::MAX).max(1);
    let shape = row.with_rows(rows.clamp(core.info.fixed_batch().unwrap_or(1), most));
    protocol::check_bytes(shape, bytes.len())?;
    let wanted = protocol::wanted(&core.info, std::iter::empty(), true)?;
    Ok(Checked {
        id: String::new(),
        shape,
        values: Values::Bytes(bytes.clone()),
        wanted,
        patience: core.patience(None),
    })
}

/// A request as JSON, with binary data behind it or without.
fn check(core: &Core, bytes: &Bytes, length: usize) -> Result<Checked, InferError> {
    let invalid = |what: String| InferError::Invalid(what);
    let head = bytes.get(..length).ok_or_else(|| {
        invalid(format!("Inference-Header-Content-Length is {length}, but the body has {} bytes", bytes.len()))
    })?;
    let mut request: request::Request = serde_json::from_slice(head)
        .map_err(|error| invalid(format!("the request is no inference request as JSON ({error})")))?;
    let (Some(input), true) = (request.inputs.pop(), request.inputs.is_empty()) else {
        return Err(invalid(format!("the request must have one input; the model takes {}", core.info.input)));
    };
    let tensor = InputHead { name: &input.name, datatype: &input.datatype, shape: input.shape };
    let shape = protocol::clip_shape(&core.info, core.settings.batching.max_clips, &tensor)?;
    protocol::no_shared_memory(input.parameters.shared_memory_region.is_there())?;
    let binary = bytes.slice(length..);
    let values = match (input.parameters.binary_data_size.whole("binary_data_size")?, input.data) {
        (Some(_), Some(_)) => return Err(invalid("an input has either `data` or `binary_data_size`".to_owned())),
        (None, None) => return Err(invalid("the input has neither `data` nor `binary_data_size`".to_owned())),
        (Some(size), None) => {
            if binary.len() as u64 != size {
                let have = binary.len();
                return Err(invalid(format!("binary_data_size is {size}, but {have} bytes follow the JSON")));
            }
            protocol::check_bytes(shape, binary.len())?;
            Values::Bytes(binary)
        }
        (None, Some(Floats(values))) => {
            if !binary.is_empty() {
                return Err(invalid(format!("{} bytes follow the JSON and belong to no input", binary.len())));
            }
            protocol::check_count(shape, values.len())?;
            Values::Floats(values)
        }
    };
    let all_binary = request.parameters.binary_data_output.flag("binary_data_output")?;
    let mut named = Vec::with_capacity(request.outputs.len());
    for output in &request.outputs {
        let Parameters { shared_memory_region, classification, class_count, binary_data, .. } = &output.parameters;
        protocol::no_shared_memory(shared_memory_region.is_there())?;
        protocol::no_classification(classification.is_there() || class_count.is_there())?;
        named.push((output.name.as_str(), binary_data.flag("binary_data")?.unwrap_or(all_binary == Some(true))));
    }
    let wanted = protocol::wanted(&core.info, named.into_iter(), all_binary == Some(true))?;
    let asked = request.parameters.timeout.whole("timeout")?.map(Duration::from_micros);
    Ok(Checked { id: request.id, shape, values, wanted, patience: core.patience(asked) })
}

/// The JSON of an answer.
#[derive(Serialize)]
struct Reply<'a> {
    model_name: &'a str,
    model_version: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    id: &'a str,
    outputs: Vec<ReplyOutput<'a>>,
}

#[derive(Serialize)]
struct ReplyOutput<'a> {
    name: &'a str,
    datatype: &'static str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinarySize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Written<'a>>,
}

#[derive(Serialize)]
struct BinarySize {
    binary_data_size: usize,
}

fn reply(core: &Core, id: &str, answer: &Answer, wanted: &[Wanted]) -> Result<Response, InferError> {
    let mut outputs = Vec::with_capacity(wanted.len());
    let mut binary = Vec::new();
    for one in wanted {
        let output = protocol::pick(&answer.outputs, *one)?;
        if one.binary {
            binary.push(output.data.as_slice());
        }
        outputs.push(ReplyOutput {
            name: &output.name,
            datatype: DATATYPE,
            shape: &output.shape,
            parameters: one.binary.then(|| BinarySize { binary_data_size: size_of_val(output.data.as_slice()) }),
            data: (!one.binary).then(|| Written(&output.data)),
        });
    }
    let reply = Reply { model_name: &core.info.name, model_version: VERSION, id, outputs };
    let mut body = serde_json::to_vec(&reply).map_err(|error| InferError::Failed(error.to_string()))?;
    let length = body.len();
    body.reserve_exact(binary.iter().map(|values| size_of_val(*values)).sum());
    for values in &binary {
        protocol::append(&mut body, values);
    }
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    if binary.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    } else {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        headers.insert(JSON_LENGTH, HeaderValue::from(length));
    }
    Ok(response)
}
