//! Answers: JSON, and errors as `{"error": "a sentence"}`.

use crate::error::InferError;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

/// A JSON document.
pub(super) fn json(value: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
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
        InferError::Unauthorized => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        _ => {}
    }
    if let Some(allow) = allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    // What is left of a body that is not read would be taken for the next request.
    if matches!(error, InferError::TooLarge(_) | InferError::SlowBody(_) | InferError::Draining) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
