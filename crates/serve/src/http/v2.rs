//! `/v2`: the Open Inference Protocol over HTTP, with JSON tensors and the extension for binary ones.

use super::body::{self, Whole};
use super::reply::json;
use super::request::{self, Described, Object, Parameters};
use super::tensor::{Floats, Written};
use super::words;
use crate::error::InferError;
use crate::metrics::Sum;
use crate::model::{BatchShape, VERSION};
use crate::protocol::{self, DATATYPE, EXTENSIONS, InputHead, Wanted};
use crate::queue::{Answer, Values};
use crate::state::{Core, blocking, shortened};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, header, request::Parts};
use axum::response::Response;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
    // Triton counts copies along with each run; perf_analyzer requires equal counts.
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
    shape: BatchShape,
    values: Values,
    wanted: Vec<Wanted>,
    timeout: Duration,
}

/// `POST /v2/models/M/infer`.
///
/// # Errors
/// [`InferError`].
pub(super) async fn infer(core: &Arc<Core>, parts: &Parts, body: &mut Body) -> Result<Response, InferError> {
    let admitted = core.admit()?;
    let json_length = json_length(&parts.headers)?;
    let batch = asked_batch(parts.uri.query().unwrap_or_default())?;
    if batch.is_some() && json_length != Some(0) {
        let reason =
            "`batch` is for raw bodies, with Inference-Header-Content-Length 0; in JSON, `shape` has the batch";
        return Err(InferError::Invalid(reason.to_owned()));
    }
    let Whole { bytes, held } = body::read(core, &parts.headers, body, json_length.unwrap_or(0)).await?;
    let checked = blocking(bytes.len(), || match json_length {
        Some(0) => raw(core, &bytes, batch),
        length => check(core, &bytes, length.unwrap_or(bytes.len())),
    })?;
    let Checked { id, shape, values, wanted, timeout } = checked;
    drop(bytes);
    let answer = core.infer(&admitted, shape, values, held, timeout).await?;
    let values: usize = answer.outputs.iter().map(|output| output.data.len()).sum();
    blocking(values * size_of::<f32>(), || reply(core, &id, &answer, &wanted))
}

fn json_length(headers: &HeaderMap) -> Result<Option<usize>, InferError> {
    let mut values = headers.get_all(JSON_LENGTH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let length = digits.and_then(|text| text.parse().ok()).filter(|_| values.next().is_none());
    let wrong = || {
        InferError::Invalid(
            "Inference-Header-Content-Length is not a number of bytes; give the length of the JSON once, or 0 for a body \
             without JSON"
                .to_owned(),
        )
    };
    length.map(Some).ok_or_else(wrong)
}

/// The clips that a raw body is said to have.
fn asked_batch(query: &str) -> Result<Option<usize>, InferError> {
    let mut batches = query.split('&').filter_map(|pair| match pair.split_once('=').unwrap_or((pair, "")) {
        ("batch", value) => Some(value),
        _ => None,
    });
    let Some(batch) = batches.next() else { return Ok(None) };
    let number = batch.parse::<usize>().ok().filter(|batch| *batch > 0 && batches.next().is_none());
    let wrong = || InferError::Invalid(format!("`batch={}` must be a positive integer", shortened(batch)));
    number.map(Some).ok_or_else(wrong)
}

/// A body that is nothing but the clips' bytes. Their number does not determine what they are: the bytes of two clips are also
/// those of one in FP64. So it is one clip, unless the request says how many.
fn raw(core: &Core, bytes: &Bytes, batch: Option<usize>) -> Result<Checked, InferError> {
    let free = || InferError::Invalid(format!("the sizes of a clip vary in {}; send them as JSON", core.info.input));
    let row = core.info.row().ok_or_else(free)?;
    let asked = batch.unwrap_or(1);
    let fixed = core.info.fixed_batch().unwrap_or(asked);
    if fixed != asked {
        let input = &core.info.input;
        return Err(InferError::Invalid(format!(
            "the model takes {input}, and a raw body is one clip unless the address says more; send {fixed} with \
             `?batch={fixed}`"
        )));
    }
    let most = core.settings.batching.max_clips;
    if core.info.fixed_batch().is_none() && asked > most {
        return Err(InferError::Invalid(format!(
            "a batch of {asked} exceeds the {most} clips allowed per request; send several requests"
        )));
    }
    let shape = row.with_rows(asked);
    if shape.values().and_then(|values| values.checked_mul(size_of::<f32>())) != Some(bytes.len()) {
        return Err(unfit(core, row, asked, bytes.len()));
    }
    let wanted = protocol::wanted(&core.info, std::iter::empty(), true)?;
    Ok(Checked { id: String::new(), shape, values: Values::Bytes(bytes.clone()), wanted, timeout: core.timeout(None) })
}

/// A raw body of another length than its clips have, with what it may have been meant to be.
fn unfit(core: &Core, row: BatchShape, asked: usize, bytes: usize) -> InferError {
    let one = row.values().unwrap_or(usize::MAX).saturating_mul(size_of::<f32>());
    let clips = if asked == 1 { "a clip".to_owned() } else { format!("{asked} clips") };
    let whole = one.saturating_mul(asked);
    let mut sentence =
        format!("the body has {bytes} bytes, and {clips} of {DATATYPE} {whole}; the model takes {}", core.info.input);
    if bytes > one && bytes.is_multiple_of(one) {
        let rows = bytes / one;
        sentence.push_str(&format!(
            ". For {rows} clips of {DATATYPE} say so with `?batch={rows}`; other types are not supported"
        ));
    }
    InferError::Invalid(sentence)
}

/// `POST /v2/repository/index`: the one model that there is.
///
/// # Errors
/// [`InferError`].
pub(super) async fn index(core: &Arc<Core>, headers: &HeaderMap, body: &mut Body) -> Result<Response, InferError> {
    let Whole { bytes, .. } = body::read(core, headers, body, 0).await?;
    let asked = if bytes.is_empty() { request::Index::default() } else { read(&bytes)? };
    let (state, reason) = protocol::state(core.ready().await);
    let model = serde_json::json!({"name": core.info.name, "version": VERSION, "state": state, "reason": reason});
    let only_ready = asked.ready.flag("ready")? == Some(true);
    let models = if only_ready && state != protocol::READY { Vec::new() } else { vec![model] };
    Ok(json(&Value::Array(models)))
}

/// Reads JSON.
fn read<'a, T: Deserialize<'a> + Described>(bytes: &'a [u8]) -> Result<T, InferError> {
    serde_json::from_slice::<Object<T>>(bytes)
        .map(|read| read.0)
        .map_err(|error| InferError::Invalid(words::of(bytes, &error)))
}

/// A request as JSON, with binary data behind it or without.
fn check(core: &Core, bytes: &Bytes, length: usize) -> Result<Checked, InferError> {
    let invalid = |what: String| InferError::Invalid(what);
    let head = bytes.get(..length).ok_or_else(|| {
        invalid(format!("Inference-Header-Content-Length is {length}, but the body has {} bytes", bytes.len()))
    })?;
    let mut request: request::Request = read(head)?;
    let (Some(Object(input)), true) = (request.inputs.pop(), request.inputs.is_empty()) else {
        return Err(invalid(format!("the request must have one input; the model takes {}", core.info.input)));
    };
    let missing = |key: &str| invalid(format!("the input has no `{key}`; the model takes {}", core.info.input));
    let sizes = input.shape.iter().map(|size| u64::try_from(size.0)).collect::<Result<Vec<u64>, _>>();
    let tensor = InputHead {
        name: input.name.as_deref().ok_or_else(|| missing("name"))?,
        datatype: input.datatype.as_deref().ok_or_else(|| missing("datatype"))?,
        shape: sizes.map_err(|_| protocol::negative(&core.info))?,
    };
    if tensor.shape.is_empty() {
        return Err(missing("shape"));
    }
    let nested: Vec<usize> = tensor.shape.iter().map_while(|size| usize::try_from(*size).ok()).collect();
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
        (None, Some(Floats { values, nesting })) => {
            if !binary.is_empty() {
                return Err(invalid(format!("{} bytes after the JSON belong to no input", binary.len())));
            }
            if nesting.len() > 1 && nesting != nested {
                let nesting: Vec<usize> = nesting.into_iter().take(8).collect();
                return Err(invalid(format!(
                    "`data` is nested as {nesting:?} and `shape` is {nested:?}; write `data` flat, or nested as `shape` says"
                )));
            }
            protocol::check_count(shape, values.len())?;
            Values::Floats(values)
        }
    };
    let all_binary = request.parameters.binary_data_output.flag("binary_data_output")?;
    let mut named = Vec::with_capacity(request.outputs.len());
    for Object(output) in &request.outputs {
        let Parameters { shared_memory_region, classification, class_count, binary_data, .. } = &output.parameters;
        protocol::no_shared_memory(shared_memory_region.is_there())?;
        protocol::no_classification(classification.is_there() || class_count.is_there())?;
        let name = output.name.as_deref().ok_or_else(|| invalid("an output has no `name`".to_owned()))?;
        named.push((name, binary_data.flag("binary_data")?.unwrap_or(all_binary == Some(true))));
    }
    let wanted = protocol::wanted(&core.info, named.into_iter(), all_binary == Some(true))?;
    let asked = request.parameters.timeout.whole("timeout")?.map(Duration::from_micros);
    Ok(Checked { id: request.id.unwrap_or_default(), shape, values, wanted, timeout: core.timeout(asked) })
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
