//! `POST /v1/classify`: a video file in, labels with probabilities out.

use super::body::{self, Whole};
use super::reply::json;
use crate::error::InferError;
use crate::model::BatchShape;
use crate::queue::{Answer, Values};
use crate::readiness::bare;
use crate::state::{Admitted, Core, VideoReader, blocking, shortened, without_paths};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use axum::response::Response;
use bytes::Bytes;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vjepa_runtime::{NamedOutput, predictions};

/// Default number of labels in a response.
const TOP: usize = 5;

/// Parameters in the URL's query.
struct Asked {
    top: usize,
    timeout: Option<Duration>,
}

/// Classifies the video in the body.
///
/// # Errors
/// [`InferError`]; [`InferError::Invalid`] if the body is not a video.
pub(super) async fn classify(
    core: &Arc<Core>,
    headers: &HeaderMap,
    query: Option<&str>,
    body: &mut Body,
) -> Result<Response, InferError> {
    let admitted = core.admit()?;
    let asked = asked(query)?;
    let timeout = core.timeout(asked.timeout);
    let Whole { bytes, held } = body::read(core, headers, body, 0).await?;
    let file = file_of(headers, bytes).await?;
    if file.is_empty() {
        return Err(InferError::Invalid("the body is empty; send a video file".to_owned()));
    }
    let began = Instant::now();
    let deadline = tokio::time::Instant::from_std(admitted.began() + timeout);
    let reading = tokio::time::timeout_at(deadline, clip_of(core, file));
    let clip = reading.await.map_err(|_| InferError::Expired(timeout))??;
    let read = began.elapsed();
    let (shape, values) = fill(core, clip)?;
    let answer = core.infer(&admitted, shape, Values::Floats(values), held, timeout).await?;
    let mut reply = serde_json::json!({"model": core.info.name});
    let values: usize = answer.outputs.iter().map(|output| output.data.len()).sum();
    blocking(values * size_of::<f32>(), || describe(core, &answer, asked.top, &mut reply));
    reply["timing_ms"] = timing(&admitted, read, &answer);
    Ok(json(&reply))
}

fn timing(admitted: &Admitted, read: Duration, answer: &Answer) -> Value {
    let ms = |time: Duration| (time.as_secs_f64() * 1e5).round() / 100.0;
    serde_json::json!({
        "read": ms(read), "queue": ms(answer.queued), "compute": ms(answer.computed),
        "total": ms(admitted.began().elapsed()), "batch": answer.batch,
    })
}

fn asked(query: Option<&str>) -> Result<Asked, InferError> {
    let mut asked = Asked { top: TOP, timeout: None };
    let mut seen = Vec::new();
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if seen.contains(&key) {
            return Err(InferError::Invalid(format!("`{}` is given twice", shortened(key))));
        }
        seen.push(key);
        let wrong = || InferError::Invalid(format!("`{}` must be a positive integer", shortened(pair)));
        let number = || value.parse::<u32>().ok().filter(|number| *number > 0).ok_or_else(wrong);
        match key {
            "top_k" => asked.top = number()? as usize,
            "timeout_ms" => asked.timeout = Some(Duration::from_millis(number()?.into())),
            _ => {
                let key = shortened(key);
                return Err(InferError::Invalid(format!("unknown parameter `{key}`; use `top_k` or `timeout_ms`")));
            }
        }
    }
    Ok(asked)
}

/// The file in a body: the body itself, or the first file of a form.
async fn file_of(headers: &HeaderMap, bytes: Bytes) -> Result<Bytes, InferError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.get(..19).is_some_and(|start| start.eq_ignore_ascii_case("multipart/form-data")) {
        return Ok(bytes);
    }
    let boundary = multer::parse_boundary(kind).map_err(|error| form_error(&error))?;
    let whole = http_body_util::BodyDataStream::new(http_body_util::Full::new(bytes));
    let mut form = multer::Multipart::new(whole, boundary);
    let mut file = None;
    while let Some(field) = form.next_field().await.map_err(|error| form_error(&error))? {
        if matches!(field.name(), Some("top_k" | "timeout_ms")) {
            let name = field.name().unwrap_or_default().to_owned();
            return Err(invalid(&format!("`{name}` belongs in the address: /v1/classify?{name}=...")));
        }
        if field.file_name().is_some() || field.name() == Some("file") {
            if file.is_some() {
                return Err(invalid("it has more than one file; send one request per file"));
            }
            file = Some(field.bytes().await.map_err(|error| form_error(&error))?);
        }
    }
    file.ok_or_else(|| invalid("it has no file; send one as `file`"))
}

fn invalid(what: &str) -> InferError {
    InferError::Invalid(format!("the form cannot be read: {what}"))
}

/// The error for a malformed form.
fn form_error(error: &multer::Error) -> InferError {
    use multer::Error as E;
    match error {
        E::NoMultipart | E::DecodeContentType(_) => {
            invalid("its Content-Type is not valid; leave it to the client, as `curl --form file=@clip.mp4` does")
        }
        E::NoBoundary => invalid(
            "its Content-Type names no `boundary`; leave that header to the client, as `curl --form file=@clip.mp4` does",
        ),
        E::IncompleteStream | E::IncompleteFieldData { .. } | E::IncompleteHeaders => {
            invalid("it ends before its last boundary; is it cut off, or is the boundary in Content-Type another one?")
        }
        E::ReadHeaderFailed(_) | E::DecodeHeaderName { .. } | E::DecodeHeaderValue { .. } => invalid(
            "a part of it has headers that are not valid; a part begins `Content-Disposition: form-data; name=\"file\"`",
        ),
        _ => invalid("it is damaged; send the video as the body, as `curl --data-binary @clip.mp4` does"),
    }
}

/// Decodes a file on a blocking thread.
async fn clip_of(core: &Arc<Core>, file: Bytes) -> Result<Vec<f32>, InferError> {
    let Some(reader) = core.video.clone() else {
        return Err(InferError::Invalid("this server does not accept videos; send clips to /v2".to_owned()));
    };
    let busy = |_| InferError::Busy("too many videos are already waiting".to_owned());
    let place = core.videos.clone().try_acquire_owned().map_err(busy)?;
    let turn = core.decoders.clone().acquire_owned().await.map_err(|_| InferError::Draining)?;
    let folder = core.settings.temporary();
    let work = tokio::task::spawn_blocking(move || {
        let _until_done = (place, turn);
        decode(&*reader, &folder, &file)
    });
    work.await.map_err(|_| InferError::Failed("the video decoder failed; the server keeps running".to_owned()))?
}

fn decode(reader: &VideoReader, folder: &Path, file: &[u8]) -> Result<Vec<f32>, InferError> {
    // The reason, with the path, is for the log and not for the client.
    let failed = |error: std::io::Error| {
        let error = bare(error);
        tracing::error!(folder = %folder.display(), %error, "a video cannot be stored");
        InferError::Failed("the server could not store the video; its log says why".to_owned())
    };
    let mut place = tempfile::Builder::new().prefix("vjepa-video-").tempfile_in(folder).map_err(failed)?;
    place.write_all(file).map_err(failed)?;
    let path = place.path();
    let told = |error: String| without_paths(&error.replace(&path.display().to_string(), "the video"));
    reader(path).map_err(|error| InferError::Invalid(told(error)))
}

/// The clip as the model's input, repeated if the batch is fixed.
fn fill(core: &Core, clip: Vec<f32>) -> Result<(BatchShape, Vec<f32>), InferError> {
    let wrong = || InferError::Failed(format!("the video's clip does not match {}", core.info.input));
    let row = core.info.row().filter(|row| row.values() == Some(clip.len())).ok_or_else(wrong)?;
    let rows = core.info.fixed_batch().unwrap_or(1);
    let values = if rows == 1 { clip } else { clip.repeat(rows) };
    Ok((row.with_rows(rows), values))
}

/// Labels for a classifier; for other models the outputs' shapes and means over tokens. With a fixed batch all clips are
/// the same, and the first result is used.
fn describe(core: &Core, answer: &Answer, top: usize, reply: &mut Value) {
    let rows: Vec<NamedOutput> = answer.outputs.iter().map(first_row).collect();
    match predictions(&rows, &core.info.labels, top) {
        Some(top) => {
            let entry = |one: vjepa_runtime::Prediction| serde_json::json!({"class": one.class, "label": one.label, "probability": one.probability});
            reply["top"] = top.into_iter().map(entry).collect();
        }
        None => reply["outputs"] = rows.iter().map(features).collect(),
    }
}

fn first_row(output: &NamedOutput) -> NamedOutput {
    let shape = output.shape.get(1..).unwrap_or_default().to_vec();
    let data = output.data.get(..shape.iter().product()).unwrap_or(&output.data).to_vec();
    NamedOutput { name: output.name.clone(), shape, data }
}

/// A row's shape, and its mean over all axes but the last.
fn features(row: &NamedOutput) -> Value {
    let width = row.shape.last().copied().unwrap_or(1).max(1);
    let mut mean = vec![0.0f64; width];
    for token in row.data.chunks_exact(width) {
        mean.iter_mut().zip(token).for_each(|(sum, value)| *sum += f64::from(*value));
    }
    let tokens = (row.data.len() / width).max(1) as f64;
    let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / tokens) as f32).collect();
    serde_json::json!({"name": row.name, "shape": row.shape, "mean": mean})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_means_over_tokens() {
        let output =
            NamedOutput { name: "x".to_owned(), shape: vec![1, 2, 3], data: vec![1.0, 2.0, 3.0, 3.0, 4.0, 5.0] };
        assert_eq!(features(&first_row(&output))["mean"], serde_json::json!([2.0, 3.0, 4.0]));
    }

    #[test]
    fn the_query_is_read_strictly() {
        assert_eq!(asked(Some("top_k=3&timeout_ms=250")).unwrap().top, 3);
        assert_eq!(asked(None).unwrap().top, TOP);
        for bad in ["top_k=0", "top_k=x", "top_k", "k=1", "timeout_ms=-1", "top_k=1&top_k=2"] {
            assert!(asked(Some(bad)).is_err(), "{bad}");
        }
    }
}
