//! In front of gRPC's methods: the token, before any of a message is read, and the message, within limits of time and
//! memory and decompressed if necessary. How large a message may be is tonic's business; there is one in a
//! request.

use crate::coding::{CODINGS, Coding, WORTH_IT};
use crate::error::InferError;
use crate::listen::{is_grpc, refuse};
use crate::protocol;
use crate::settings::Limits;
use crate::state::{Core, blocking, shortened};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
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

/// The service of the protocol.
pub(crate) const SERVICE: &str = "inference.GRPCInferenceService";

/// Its methods that are there, with their names in metrics.
const METHODS: [(&str, &str); 9] = [
    ("ModelInfer", "grpc_infer"),
    ("ServerLive", "grpc_health"),
    ("ServerReady", "grpc_health"),
    ("ModelReady", "grpc_metadata"),
    ("ServerMetadata", "grpc_metadata"),
    ("ModelMetadata", "grpc_metadata"),
    ("ModelConfig", "grpc_metadata"),
    ("ModelStatistics", "grpc_metadata"),
    ("RepositoryIndex", "grpc_metadata"),
];

/// Bytes of a message: the body that the server takes, and a little for what is around a tensor.
pub(crate) fn message_limit(limits: &Limits) -> usize {
    limits.body.saturating_add(1 << 16)
}

/// The method's name in metrics; none for a method that is not there.
fn endpoint(path: &str) -> Option<&'static str> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match (service, method) {
        (SERVICE, _) => METHODS.iter().find(|(name, _)| *name == method).map(|(_, endpoint)| *endpoint),
        ("grpc.health.v1.Health", "Check" | "Watch") => Some("grpc_health"),
        (
            "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection",
            "ServerReflectionInfo",
        ) => Some("grpc_reflection"),
        _ => None,
    }
}

/// What is said of a method that is not there.
fn absent(path: &str) -> InferError {
    let method = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE)?.strip_prefix('/'));
    let known = method.and_then(|method| protocol::absent(method).map(|why| format!("{method} is not offered: {why}")));
    InferError::Unimplemented(known.unwrap_or_else(|| {
        let here: Vec<&str> = METHODS.iter().map(|(name, _)| *name).collect();
        format!(
            "there is no method `{}` here; {SERVICE} has {}, and there are grpc.health.v1.Health and reflection",
            shortened(path),
            here.join(", ")
        )
    }))
}

/// Answers a request; never fails.
pub(crate) async fn answer(core: Arc<Core>, methods: axum::Router, request: Request<Body>) -> Response<Body> {
    if !is_grpc(request.headers()) {
        let http = core.addresses.http.port();
        return refuse(core, format!("this port speaks gRPC; HTTP is answered at port {http}"), request).await;
    }
    let known = endpoint(request.uri().path());
    let endpoint = known.unwrap_or("grpc_unknown");
    let coded = request.headers().get(ENCODING).is_some_and(|name| name != "identity");
    let refused = Arc::new(OnceLock::new());
    let mut response = match admitted(&core, endpoint, request) {
        Ok((request, coding)) => {
            let guarded = |body| Body::new(Guarded::new(body, core.clone(), refused.clone(), coding));
            let response = methods.oneshot(request.map(guarded)).await.unwrap_or_else(|never| match never {});
            let response = in_our_words(&core, response, refused.get());
            match coding.filter(|_| endpoint == "grpc_infer") {
                Some(coding) => compressed(coding, response).await,
                None => response,
            }
        }
        Err(error) => Status::from(error).into_http(),
    };
    if coded {
        response.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity, gzip, deflate"));
    }
    count(&core, endpoint, refused.get(), response.extensions().get());
    response
}

/// What tonic refuses by itself, before a method has it, in a sentence of this server's.
fn in_our_words(core: &Core, response: Response<Body>, refused: Option<&InferError>) -> Response<Body> {
    let Some(status) = response.extensions().get::<Status>() else { return response };
    let ours = refused.is_some() || status.source().is_some_and(|source| source.is::<InferError>());
    let sentence = match status.code() {
        Code::OutOfRange => InferError::TooLarge(core.settings.limits.body).to_string(),
        Code::Internal | Code::Unimplemented | Code::Unknown => {
            "the request's message is damaged: it must be one byte for compression, 0 or 1, four for a length, and as many \
             bytes as that"
                .to_owned()
        }
        Code::Cancelled => "the request ended early".to_owned(),
        _ => return response,
    };
    if ours { response } else { Status::new(status.code(), sentence).into_http() }
}

/// Lets a request in: whether it may come, and from when on its time runs.
fn admitted(
    core: &Arc<Core>,
    endpoint: &str,
    mut request: Request<Body>,
) -> Result<(Request<Body>, Option<Coding>), InferError> {
    // Health reveals nothing else.
    if endpoint != "grpc_health" && !has_token(core, request.headers()) {
        return Err(InferError::Unauthorized);
    }
    if endpoint == "grpc_unknown" {
        return Err(absent(request.uri().path()));
    }
    let coding = match request.headers_mut().remove(ENCODING) {
        Some(name) if name != "identity" => {
            let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
            let unread = || {
                let name = shortened(&name);
                InferError::Unimplemented(format!(
                    "messages compressed with `{name}` are not supported; use {CODINGS} or none"
                ))
            };
            Some(Coding::named(&name).ok_or_else(unread)?)
        }
        _ => None,
    };
    if endpoint == "grpc_infer" {
        // Its time begins before its message comes, as over HTTP.
        request.extensions_mut().insert(Arc::new(core.admit()?));
    }
    Ok((request, coding))
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
    /// Where messages are compressed: how, and what came of the next one.
    coded: Option<(Coding, BytesMut)>,
}

impl Guarded {
    /// Guards a body from now on.
    fn new(body: Body, core: Arc<Core>, refused: Arc<OnceLock<InferError>>, coding: Option<Coding>) -> Self {
        let late = Box::pin(tokio::time::sleep(core.settings.limits.body_time));
        let coded = coding.map(|coding| (coding, BytesMut::new()));
        Self { body, core, refused, held: None, bytes: 0, late, coded }
    }

    /// What may go on of the bytes that came: all of them, or the next message, decompressed.
    fn pass(&mut self, bytes: Bytes) -> Result<Option<Bytes>, InferError> {
        let limit = message_limit(&self.core.settings.limits);
        let Some((coding, waiting)) = &mut self.coded else { return Ok(Some(bytes)) };
        waiting.extend_from_slice(&bytes);
        let mut whole = BytesMut::new();
        while let Some((head, rest)) = waiting.split_first_chunk::<PREFIX>() {
            let [flag, length @ ..] = *head;
            let length = u32::from_be_bytes(length) as usize;
            let Some(message) = rest.get(..length) else { break };
            if flag == 1 {
                let message = blocking(usize::MAX, || coding.inflate(&self.core, message, limit, &mut self.held))?;
                put(&mut whole, 0, &message);
            } else {
                // Tonic says what a flag may be.
                put(&mut whole, flag, message);
            }
            waiting.advance(PREFIX + length);
        }
        Ok((!whole.is_empty()).then(|| whole.freeze()))
    }

    /// What came of a message that never ended.
    fn left(&mut self) -> Option<Bytes> {
        self.coded.as_mut().map(|(_, waiting)| waiting.split().freeze()).filter(|left| !left.is_empty())
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
        loop {
            let frame = match Pin::new(&mut this.body).poll_frame(context) {
                Poll::Pending => {
                    return match this.late.as_mut().poll(context) {
                        Poll::Pending => Poll::Pending,
                        Poll::Ready(()) => this.refuse(InferError::SlowBody(this.core.settings.limits.body_time)),
                    };
                }
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(None) => return Poll::Ready(this.left().map(|left| Ok(Frame::data(left)))),
                failed => return failed,
            };
            let bytes = match frame.into_data() {
                Ok(bytes) => bytes,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            };
            this.bytes += bytes.len();
            match this.take().and_then(|()| this.pass(bytes)) {
                Ok(Some(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Ok(None) => {}
                Err(error) => return this.refuse(error),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.coded.as_ref().is_none_or(|(_, waiting)| waiting.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        if self.coded.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

/// Bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

fn put(whole: &mut BytesMut, flag: u8, message: &[u8]) {
    whole.put_u8(flag);
    whole.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    whole.extend_from_slice(message);
}

/// Compresses the message of an answer whose request was compressed; short ones are left as they are.
async fn compressed(coding: Coding, response: Response<Body>) -> Response<Body> {
    if response.extensions().get::<Status>().is_some() {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let Ok(whole) = body.collect().await else { return Response::from_parts(parts, Body::empty()) };
    let trailers = whole.trailers().cloned();
    let mut bytes = whole.to_bytes();
    if let Some(message) = bytes.get(PREFIX..).filter(|message| message.len() >= WORTH_IT) {
        let packed = blocking(usize::MAX, || coding.deflate(message));
        // A vector takes what is written to it.
        if let Ok(packed) = packed {
            let mut framed = BytesMut::with_capacity(PREFIX + packed.len());
            put(&mut framed, 1, &packed);
            bytes = framed.freeze();
            parts.headers.insert(ENCODING, HeaderValue::from_static(coding.name()));
        }
    }
    let body = Full::new(bytes).with_trailers(std::future::ready(trailers.map(Ok)));
    Response::from_parts(parts, Body::new(body))
}

const ENCODING: &str = "grpc-encoding";
const ACCEPT_ENCODING: &str = "grpc-accept-encoding";
