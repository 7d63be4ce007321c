//! Reads a request's body within limits of size, time and memory.

use crate::error::InferError;
use crate::state::Core;
use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Alignment of tensors in memory.
const ALIGN: usize = size_of::<f32>();

/// A body with its share of the memory for bodies.
pub(super) struct Whole {
    pub bytes: Bytes,
    pub held: Option<OwnedSemaphorePermit>,
}

/// Reads a body. Byte `tensor` of it will lie on a multiple of four where the client told the body's length, so that a
/// tensor behind a header of that length needs no copy.
///
/// # Errors
/// [`InferError::TooLarge`], [`InferError::SlowBody`], [`InferError::BrokenBody`]; [`InferError::Busy`] when other bodies
/// fill the memory; [`InferError::MediaType`] for a compressed body.
pub(super) async fn read(
    core: &Core,
    headers: &HeaderMap,
    body: &mut Body,
    tensor: usize,
) -> Result<Whole, InferError> {
    if let Some(coding) = headers.get(header::CONTENT_ENCODING).filter(|coding| *coding != "identity") {
        let coding = String::from_utf8_lossy(coding.as_bytes()).into_owned();
        return Err(InferError::MediaType(format!(
            "bodies of Content-Encoding `{coding}` are not read; send it as it is"
        )));
    }
    let limit = core.settings.limits.body;
    let told = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if told.is_some_and(|told| told > limit) {
        return Err(InferError::TooLarge(limit));
    }
    let within = core.settings.limits.body_time;
    let reading = collect(core, body, told.unwrap_or(0), tensor);
    tokio::time::timeout(within, reading).await.map_err(|_| InferError::SlowBody(within))?
}

/// Takes what is left of a refused request's body and forgets it, for a while: a connection that is closed with bytes
/// unread resets, and the client would never see the refusal.
pub(super) fn discard(core: &Core, headers: &HeaderMap, mut body: Body) {
    // A client that asks first will not send.
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

async fn collect(core: &Core, body: &mut Body, told: usize, tensor: usize) -> Result<Whole, InferError> {
    let limit = core.settings.limits.body;
    let mut held = None;
    // Memory that was only asked for costs nothing before bytes arrive.
    let mut buffer = BytesMut::with_capacity(told + ALIGN);
    // The length is the client's word: only its remainder counts.
    let shift = ALIGN - 1 - (buffer.as_ptr() as usize % ALIGN + tensor % ALIGN + ALIGN - 1) % ALIGN;
    buffer.resize(shift, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| InferError::BrokenBody(error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        if buffer.len() - shift + data.len() > limit {
            return Err(InferError::TooLarge(limit));
        }
        core.hold(&mut held, buffer.len() + data.len())?;
        buffer.extend_from_slice(data);
    }
    Ok(Whole { bytes: buffer.freeze().slice(shift..), held })
}
