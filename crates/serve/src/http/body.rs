//! Reads request bodies within limits of size, time and memory.

use crate::coding::{CODINGS, Coding};
use crate::error::InferError;
use crate::state::{Core, blocking, shortened};
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::error::Error;
use std::io::ErrorKind;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Alignment of tensors in memory.
const ALIGN: usize = size_of::<f32>();

/// A body with its reservation of the memory for bodies.
pub(super) struct Whole {
    pub bytes: Bytes,
    pub held: Option<OwnedSemaphorePermit>,
}

/// Reads a body. If the client announced its length, byte `tensor` is aligned to four, so that a tensor after a header of
/// that length needs no copy. Compressed bodies are decompressed within the same limits.
///
/// # Errors
/// [`InferError::TooLarge`], [`InferError::SlowBody`], [`InferError::BrokenBody`]; [`InferError::Busy`] when other bodies
/// fill the memory; [`InferError::MediaType`] for a coding that is not read, and what decompressing gives.
pub(super) async fn read(
    core: &Core,
    headers: &HeaderMap,
    body: &mut Body,
    tensor: usize,
) -> Result<Whole, InferError> {
    let coding = coding(headers)?;
    let limit = core.settings.limits.body;
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|announced| announced > limit) {
        return Err(InferError::TooLarge(limit));
    }
    let within = core.settings.limits.body_time;
    let reading = collect(core, body, announced.unwrap_or(0), tensor);
    let whole = tokio::time::timeout(within, reading).await.map_err(|_| InferError::SlowBody(within))??;
    let Some(coding) = coding else { return Ok(whole) };
    let Whole { bytes, mut held } = whole;
    // Few bytes may expand to many.
    let bytes = blocking(usize::MAX, || coding.inflate(core, &bytes, limit, &mut held))?;
    Ok(Whole { bytes, held })
}

/// The coding of a body.
fn coding(headers: &HeaderMap) -> Result<Option<Coding>, InferError> {
    let names: Vec<String> = headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .flat_map(|value| String::from_utf8_lossy(value.as_bytes()).split(',').map(str::to_owned).collect::<Vec<_>>())
        .filter(|name| !name.trim().is_empty() && !name.trim().eq_ignore_ascii_case("identity"))
        .collect();
    match names.as_slice() {
        [] => Ok(None),
        [name] if Coding::named(name).is_some() => Ok(Coding::named(name)),
        names => {
            let names = shortened(&names.join(","));
            Err(InferError::MediaType(format!(
                "Content-Encoding `{names}` is not supported; use one of {CODINGS}, or send the body uncompressed"
            )))
        }
    }
}

/// Reads and discards the rest of a refused request's body, for a while: a connection closed with unread bytes is reset,
/// and the client would never see the refusal.
pub(super) fn discard(core: &Core, headers: &HeaderMap, mut body: Body) {
    // A client that expects 100-continue will not send.
    if body.is_end_stream() || headers.contains_key(header::EXPECT) {
        return;
    }
    let mut left = core.settings.limits.body;
    let within = core.settings.limits.body_time.min(Duration::from_secs(5));
    tokio::spawn(tokio::time::timeout(within, async move {
        while let Some(Ok(frame)) = body.frame().await {
            let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
            left = rest;
        }
    }));
}

/// Why a body ended early.
fn why(error: &axum::Error) -> &'static str {
    let mut source = error.source();
    while let Some(cause) = source {
        match cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind) {
            Some(ErrorKind::UnexpectedEof) => {
                return "fewer bytes arrived than Content-Length or the last chunk announced";
            }
            Some(ErrorKind::InvalidInput | ErrorKind::InvalidData) => {
                return "its chunks are not valid; see Transfer-Encoding";
            }
            _ => source = cause.source(),
        }
    }
    "the client ended it, or the connection was lost"
}

async fn collect(core: &Core, body: &mut Body, announced: usize, tensor: usize) -> Result<Whole, InferError> {
    let limit = core.settings.limits.body;
    let mut held = None;
    // Reserved memory costs nothing before bytes arrive.
    let mut buffer = BytesMut::with_capacity(announced + ALIGN);
    // The length is only announced by the client: just its remainder is used.
    let shift = ALIGN - 1 - (buffer.as_ptr() as usize % ALIGN + tensor % ALIGN + ALIGN - 1) % ALIGN;
    buffer.resize(shift, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| InferError::BrokenBody(why(&error).to_owned()))?;
        let Some(data) = frame.data_ref() else { continue };
        if buffer.len() - shift + data.len() > limit {
            return Err(InferError::TooLarge(limit));
        }
        core.hold(&mut held, buffer.len() + data.len())?;
        buffer.extend_from_slice(data);
    }
    Ok(Whole { bytes: buffer.freeze().slice(shift..), held })
}
