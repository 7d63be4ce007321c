//! One connection: how long it may be idle, and how it ends.

use crate::activity::{Activity, Busy, Timeouts, Watched};
use crate::listen::{Protocol, closed};
use crate::settings::Limits;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Request, Response, header};
use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// Answers requests; never fails.
pub(crate) type Responder =
    Arc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// Versions of HTTP on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// 1.1, or 1.0.
    Http1,
    /// 2.
    Http2,
}

/// One connection.
pub(crate) struct Connection {
    pub answer: Responder,
    pub closing: watch::Receiver<bool>,
    pub protocol: Protocol,
    pub version: Version,
    pub limits: Limits,
    pub activity: Arc<Activity>,
}

impl Connection {
    /// Serves a stream from which some bytes have been read already.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S, read: Bytes) {
        let (answer, activity, timeout) = (self.answer.clone(), self.activity.clone(), self.limits.body_time);
        let kept = (self.version == Version::Http1).then_some(self.limits.keep_alive);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let busy = Busy::new(activity.clone(), timeout);
            let kept = kept.filter(|_| !asks_to_close(request.headers()));
            let answering = answer(request.map(Body::new));
            async move {
                let mut response = answering.await;
                if let Some(time) = kept {
                    keep(time, response.headers_mut());
                }
                Ok::<_, Infallible>(response.map(|body| busy.answered(body)))
            }
        });
        let stream = TokioIo::new(Watched { stream, read, activity: self.activity.clone() });
        match self.version {
            Version::Http1 => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                // Hyper's own timer for heads also runs while the previous response is being written.
                builder.header_read_timeout(None).max_buf_size(1 << 18);
                let connection = pin!(builder.serve_connection(stream, service));
                self.watch(connection, |connection| connection.graceful_shutdown()).await;
            }
            Version::Http2 => {
                let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(self.limits.head)
                    .keep_alive_timeout(self.limits.head)
                    .max_concurrent_streams(u32::try_from(self.limits.queue).unwrap_or(u32::MAX).clamp(16, 1024))
                    .max_header_list_size(1 << 16)
                    .max_frame_size(1 << 20)
                    .initial_stream_window_size(1 << 22)
                    .initial_connection_window_size(1 << 24);
                let connection = pin!(builder.serve_connection(stream, service));
                self.watch(connection, |connection| connection.graceful_shutdown()).await;
            }
        }
    }

    /// Drives a connection. Shuts it down when the server closes or when it is idle for too long, and drops it if it does
    /// not end, or if its client does not read a response.
    async fn watch<C: Future<Output = Result<(), hyper::Error>>>(
        mut self,
        mut connection: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
    ) {
        let timeouts = self.timeouts();
        let often = self.limits.head.min(self.limits.keep_alive.max(Duration::from_millis(40))) / 4;
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "connection failed");
                    }
                    return;
                }
                () = closed(&mut self.closing), if asked.is_none() => {
                    asked = Some(Instant::now());
                    end(connection.as_mut());
                }
                () = tokio::time::sleep(often) => match asked {
                    _ if self.is_stuck() => {
                        tracing::debug!("client does not read its response");
                        return;
                    }
                    Some(since) if since.elapsed() > self.grace() && self.activity.is_quiet() => return,
                    None if self.activity.is_overdue(&timeouts) => {
                        asked = Some(Instant::now());
                        end(connection.as_mut());
                    }
                    _ => {}
                }
            }
        }
    }

    /// How long it may be without a request. gRPC clients keep their connections for later.
    fn timeouts(&self) -> Timeouts {
        let Limits { head, keep_alive, .. } = self.limits;
        match self.version {
            Version::Http1 => Timeouts { first: head, next: keep_alive, head: Some(head) },
            Version::Http2 => {
                let next = if self.protocol == Protocol::Grpc { keep_alive.max(head * 30) } else { keep_alive };
                Timeouts { first: head * 2, next, head: None }
            }
        }
    }

    /// How long a connection without a request may take to end. With HTTP/1 nothing remains to be sent.
    fn grace(&self) -> Duration {
        match self.version {
            Version::Http1 => self.limits.head / 4,
            Version::Http2 => self.limits.head,
        }
    }

    /// True when the client does not read its response. Over HTTP/2 pings move bytes too, so each response has its own time.
    fn is_stuck(&self) -> bool {
        match self.version {
            Version::Http1 => self.activity.is_stuck(self.limits.body_time),
            Version::Http2 => self.activity.is_late(),
        }
    }
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    headers.get(header::CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

/// Announces how long the connection is kept, for proxies and clients that pool connections.
fn keep(time: Duration, headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        return;
    }
    match time.as_secs() {
        0 if time.is_zero() => drop(headers.insert(header::CONNECTION, HeaderValue::from_static("close"))),
        0 => {}
        seconds => {
            if let Ok(value) = HeaderValue::try_from(format!("timeout={seconds}")) {
                headers.insert("keep-alive", value);
            }
        }
    }
}
