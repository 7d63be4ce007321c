//! Accepts connections on one port, limits their number, and answers clients that speak the wrong protocol.

use crate::activity::Activity;
use crate::connection::{Connection, Responder, Version};
use crate::error::InferError;
use crate::sniff::{HANDSHAKE, Spoken, first};
use crate::state::{Addresses, Core};
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// What a port is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, and HTTP/2 for clients that begin with it.
    Http,
    /// HTTP/2, for gRPC.
    Grpc,
}

/// A listener with everything its connections need.
pub(crate) struct Listener {
    pub core: Arc<Core>,
    pub socket: TcpListener,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub answer: Responder,
    /// True once connections should end.
    pub closing: watch::Receiver<bool>,
}

/// Response to a client over the limit.
static TOO_MANY: LazyLock<String> = LazyLock::new(|| {
    let body = r#"{"error": "too many connections; try again in a second"}"#;
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
});

impl Listener {
    /// Accepts until closing, then waits for the connections.
    pub async fn run(mut self) {
        let limits = self.core.settings.limits;
        let slots = Arc::new(Semaphore::new(limits.connections.max(1)));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = closed(&mut self.closing) => break,
                Some(_) = connections.join_next() => continue,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Most likely out of file descriptors; connections that end release theirs.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else {
                self.turn_away(&stream);
                continue;
            };
            // Send small responses without delay.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            let incoming = Incoming {
                core: self.core.clone(),
                protocol: self.protocol,
                tls: self.tls.clone(),
                answer: self.answer.clone(),
                closing: self.closing.clone(),
            };
            let counted = self.core.metrics.connected();
            connections.spawn(async move {
                let _until_the_end = (slot, counted);
                incoming.accept(stream).await;
            });
        }
        drop(self.socket);
        while connections.join_next().await.is_some() {}
    }

    fn turn_away(&self, stream: &TcpStream) {
        self.core.metrics.rejected("connections");
        if self.protocol == Protocol::Http && self.tls.is_none() {
            // As much as the socket takes at once.
            drop(stream.try_write(TOO_MANY.as_bytes()));
        }
    }
}

/// Waits until connections should end.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender is dropped only at the end.
    drop(closing.wait_for(|closing| *closing).await);
}

/// A connection before its protocol is known.
struct Incoming {
    core: Arc<Core>,
    protocol: Protocol,
    tls: Option<TlsAcceptor>,
    answer: Responder,
    closing: watch::Receiver<bool>,
}

impl Incoming {
    async fn accept(mut self, stream: TcpStream) {
        let head = self.core.settings.limits.head;
        let Some(tls) = self.tls.take() else { return self.serve(stream, false).await };
        let mut byte = [0];
        let Ok(Ok(1..)) = tokio::time::timeout(head, stream.peek(&mut byte)).await else { return };
        if byte != [HANDSHAKE] {
            return self.serve(stream, true).await;
        }
        if let Ok(Ok(stream)) = tokio::time::timeout(head, tls.accept(stream)).await {
            self.serve(stream, false).await;
        }
    }

    /// Serves a stream, or answers on it what the port is for; `bare` if TLS is missing.
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(mut self, mut stream: S, bare: bool) {
        let limits = self.core.settings.limits;
        let activity = Arc::new(Activity::new());
        let begun = tokio::select! {
            begun = tokio::time::timeout(limits.head, first(&mut stream)) => begun,
            () = closed(&mut self.closing) => return,
        };
        let Ok(Ok((spoken, read))) = begun else { return };
        let answer: Responder = match self.mistaken(spoken, bare) {
            None => self.answer,
            Some(sentence) => {
                tracing::debug!(sentence, "a client spoke the wrong protocol for this port");
                let core = self.core.clone();
                Arc::new(move |request| Box::pin(refuse(core.clone(), sentence.clone(), request)))
            }
        };
        let version = if spoken == Spoken::Http2 { Version::Http2 } else { Version::Http1 };
        // A handshake cannot be answered in words, but they can be found in the bytes.
        let read = if spoken == Spoken::Tls { Bytes::from_static(b"GET / HTTP/1.0\r\n\r\n") } else { read };
        let connection =
            Connection { answer, closing: self.closing, protocol: self.protocol, version, limits, activity };
        connection.serve(stream, read).await;
    }

    /// Message to a client that mistook the port for another one.
    fn mistaken(&self, spoken: Spoken, bare: bool) -> Option<String> {
        let Addresses { http, .. } = self.core.addresses;
        match (spoken, self.protocol) {
            _ if bare => Some("this port requires TLS: use https://, or for gRPC a secure channel".to_owned()),
            (Spoken::Tls, _) => {
                Some("this server does not use TLS: use http://, or for gRPC an insecure channel".to_owned())
            }
            (Spoken::Http1, Protocol::Grpc) => {
                Some(format!("this port speaks gRPC, over HTTP/2; HTTP is answered at port {}", http.port()))
            }
            (Spoken::Http1 | Spoken::Http2, _) => None,
        }
    }
}

/// Answers a request to the wrong port, in a form that its client can read.
pub(crate) async fn refuse(core: Arc<Core>, sentence: String, request: Request<Body>) -> Response<Body> {
    let error = InferError::Port(sentence);
    core.answered("wrong_port", Err(&error));
    if is_grpc(request.headers()) {
        return tonic::Status::from(error).into_http();
    }
    crate::http::refusal(&core, &error, request)
}

/// True for a gRPC request.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    kind.strip_prefix(b"application/grpc").is_some_and(|rest| !rest.starts_with(b"-web"))
}
