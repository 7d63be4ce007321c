//! What stands before gRPC's methods: the token, before anything of a message is read, and the message within limits of time
//! and memory. How large a message may be is tonic's business; there is one in a request.

use crate::error::InferError;
use crate::settings::Limits;
use crate::state::Core;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response, header};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tonic::{Code, Status};
use tower::ServiceExt;

/// Where the methods are.
const SERVICE: &str = "/inference.GRPCInferenceService/";

/// Bytes of a message: the body that the server takes, and a little for what is around a tensor.
pub(crate) fn message_limit(limits: &Limits) -> usize {
    limits.body.saturating_add(1 << 16)
}

/// The method's name in metrics.
fn endpoint(path: &str) -> &'static str {
    match path.strip_prefix(SERVICE) {
        Some("ModelInfer") => "grpc_infer",
        Some("ServerLive" | "ServerReady") => "grpc_health",
        Some(_) => "grpc_metadata",
        None => "grpc_unknown",
    }
}

/// Answers a request; never fails.
pub(crate) async fn answer(core: Arc<Core>, methods: axum::Router, request: Request<Body>) -> Response<Body> {
    let endpoint = endpoint(request.uri().path());
    let refused = Arc::new(OnceLock::new());
    let response = match admitted(&core, endpoint, request) {
        Ok(request) => {
            let guarded = |body| Body::new(Guarded::new(body, core.clone(), refused.clone()));
            methods.oneshot(request.map(guarded)).await.unwrap_or_else(|never| match never {})
        }
        Err(error) => Status::from(error).into_http(),
    };
    count(&core, endpoint, refused.get(), response.extensions().get());
    response
}

/// Lets a request in: whether it may come, and from when on its time runs.
fn admitted(core: &Arc<Core>, endpoint: &str, mut request: Request<Body>) -> Result<Request<Body>, InferError> {
    // Health tells nothing but health.
    if endpoint != "grpc_health" && !has_token(core, request.headers()) {
        return Err(InferError::Unauthorized);
    }
    if endpoint == "grpc_infer" {
        // Its time begins before its message comes, as over HTTP.
        request.extensions_mut().insert(Arc::new(core.admit()?));
    }
    Ok(request)
}

/// Counts the end of a request: why its body was refused, or what its status, if it has one, comes from.
fn count(core: &Core, endpoint: &'static str, refused: Option<&InferError>, status: Option<&Status>) {
    let source = status.and_then(|status| status.source()?.downcast_ref());
    let outcome = match (refused.or(source), status.map(Status::code)) {
        (Some(error), _) => Err(error),
        (None, None) => Ok(200),
        // What tonic says by itself.
        (None, Some(Code::OutOfRange)) => Err(&InferError::TooLarge(core.settings.limits.body)),
        (None, Some(Code::Unimplemented)) => Ok(404),
        (None, Some(_)) => Ok(400),
    };
    core.answered(endpoint, outcome);
}

fn has_token(core: &Core, headers: &HeaderMap) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    core.settings.security.token.as_ref().is_none_or(|token| token.admits(given))
}

/// A body that must come in time, and whose bytes count among those of all bodies.
struct Guarded {
    body: Body,
    core: Arc<Core>,
    /// Why it was refused; tonic passes a status on without its source.
    refused: Arc<OnceLock<InferError>>,
    held: Option<OwnedSemaphorePermit>,
    bytes: usize,
    late: Pin<Box<Sleep>>,
}

impl Guarded {
    /// Guards a body from now on.
    fn new(body: Body, core: Arc<Core>, refused: Arc<OnceLock<InferError>>) -> Self {
        let late = Box::pin(tokio::time::sleep(core.settings.limits.body_time));
        Self { body, core, refused, held: None, bytes: 0, late }
    }

    /// Takes memory for the bytes that came.
    fn take(&mut self) -> Result<(), InferError> {
        let limits = &self.core.settings.limits;
        // A message has five bytes before it.
        if self.bytes > message_limit(limits).saturating_add(5) {
            return Err(InferError::TooLarge(limits.body));
        }
        self.core.hold(&mut self.held, self.bytes)
    }

    /// Ends the body; tonic finds the status in the error.
    fn refuse<T>(&self, error: InferError) -> Poll<Option<Result<T, axum::Error>>> {
        // It is the first, as nothing comes after it.
        let _ = self.refused.set(error.clone());
        Poll::Ready(Some(Err(axum::Error::new(Status::from(error)))))
    }
}

impl HttpBody for Guarded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Pending => match this.late.as_mut().poll(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => this.refuse(InferError::SlowBody(this.core.settings.limits.body_time)),
            },
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes += frame.data_ref().map_or(0, Bytes::len);
                match this.take() {
                    Ok(()) => Poll::Ready(Some(Ok(frame))),
                    Err(error) => this.refuse(error),
                }
            }
            done => done,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
