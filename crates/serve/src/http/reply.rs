//! Responses: JSON, and errors as `{"error": "a sentence"}`.

use crate::coding::{CODINGS, Coding, WORTH_IT};
use crate::error::InferError;
use crate::state::blocking;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Body as _;

/// A JSON document.
pub(super) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Redirects to another path, keeping method and body.
pub(super) fn moved(to: &str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    if let Ok(to) = HeaderValue::try_from(to) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

/// Compresses a response as its client accepts, if it is long enough to be worth it.
pub(super) async fn encoded(asked: &HeaderMap, mut response: Response) -> Response {
    if usize::try_from(response.body().size_hint().lower()).is_ok_and(|length| length < WORTH_IT) {
        return response;
    }
    response.headers_mut().append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    let accept = asked.get(header::ACCEPT_ENCODING).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let Some(coding) = Coding::accepted(accept) else { return response };
    let (mut parts, body) = response.into_parts();
    // Responses of this server are complete before they are sent.
    let Ok(bytes) = axum::body::to_bytes(body, usize::MAX).await else {
        return refusal(&InferError::Failed("the response ended early".to_owned()), None);
    };
    match blocking(bytes.len(), || coding.deflate(&bytes)) {
        Ok(packed) => {
            parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
            Response::from_parts(parts, Body::from(packed))
        }
        Err(_) => Response::from_parts(parts, Body::from(bytes)),
    }
}

/// An error as a document, with the headers that belong to its status.
pub(super) fn refusal(error: &InferError, allow: Option<&'static str>) -> Response {
    let mut response = json(&serde_json::json!({"error": error.to_string()}));
    *response.status_mut() = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    match error {
        InferError::Busy(_) | InferError::Draining => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        InferError::MediaType(_) => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(CODINGS));
        }
        InferError::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    if let Some(allow) = allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    // The rest of an unread body would be taken for the next request.
    if matches!(error, InferError::TooLarge(_) | InferError::SlowBody(_) | InferError::Draining | InferError::Port(_)) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
