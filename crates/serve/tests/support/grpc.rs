//! gRPC below the generated client: any method, any bytes.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use tonic::Status;
use tonic::body::Body;
use tonic::transport::Channel;
use vjepa_serve::Server;

/// The path of an inference.
pub const MODEL_INFER: &str = "/inference.GRPCInferenceService/ModelInfer";

/// What came back for a call.
pub struct Answered {
    pub status: Status,
    pub headers: HeaderMap,
    /// The message with its frame; empty after a refusal.
    pub message: Bytes,
}

pub async fn channel(server: &Server) -> Channel {
    let address = format!("http://{}", server.grpc().unwrap());
    Channel::from_shared(address).unwrap().connect().await.unwrap()
}

/// A message with the five bytes that gRPC puts before it.
pub fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    [&[flag][..], &u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

/// A body of these bytes.
pub fn body(bytes: Vec<u8>) -> Body {
    Body::new(Full::new(bytes.into()))
}

/// Calls a method with a body as it is.
pub async fn call(channel: &mut Channel, path: &str, encoding: Option<&str>, body: Body) -> Answered {
    let mut request = hyper::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(encoding) = encoding {
        request = request.header("grpc-encoding", encoding);
    }
    let ready = tower::ServiceExt::ready(channel).await.unwrap();
    let (parts, body) = tower::Service::call(ready, request.body(body).unwrap()).await.unwrap().into_parts();
    if let Some(status) = Status::from_header_map(&parts.headers) {
        return Answered { status, headers: parts.headers, message: Bytes::new() };
    }
    let whole = body.collect().await.unwrap();
    let status = Status::from_header_map(whole.trailers().unwrap()).unwrap();
    Answered { status, headers: parts.headers, message: whole.to_bytes() }
}

/// The status of an inference whose body is as it is.
pub async fn infer(channel: &mut Channel, body: Body) -> Status {
    call(channel, MODEL_INFER, None, body).await.status
}
