//! Accepts connections of one protocol: how many, how long they may be silent, and how they end.

use crate::activity::{Activity, Busy, Watched};
use crate::settings::Limits;
use crate::state::Core;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// What answers requests; it never fails.
pub(crate) type Answerer =
    Arc<dyn Fn(Request<Body>) -> Pin<Box<dyn Future<Output = Response<Body>> + Send>> + Send + Sync>;

/// The two kinds of connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1.
    Http,
    /// HTTP/2, for gRPC.
    Grpc,
}

/// A listener with all its connections need.
pub(crate) struct Listener {
    pub core: Arc<Core>,
    pub socket: TcpListener,
    pub protocol: Protocol,
    pub tls: Option<TlsAcceptor>,
    pub answer: Answerer,
    /// True once connections shall end.
    pub closing: watch::Receiver<bool>,
}

/// Told to a client that comes when there are too many.
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
        let places = Arc::new(Semaphore::new(limits.connections.max(1)));
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
                    // Out of file descriptors, most likely; those that end give theirs back.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = places.clone().try_acquire_owned() else {
                self.turn_away(&stream);
                continue;
            };
            // A small answer shall not wait for more to send.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "no TCP_NODELAY");
            }
            let connection = Connection {
                answer: self.answer.clone(),
                closing: self.closing.clone(),
                protocol: self.protocol,
                limits,
                activity: Arc::new(Activity::new()),
            };
            let (tls, counted) = (self.tls.clone(), self.core.metrics.connected());
            connections.spawn(async move {
                let _until_the_end = (place, counted);
                match tls {
                    None => connection.serve(stream).await,
                    Some(tls) => {
                        if let Ok(Ok(stream)) = tokio::time::timeout(limits.head, tls.accept(stream)).await {
                            connection.serve(stream).await;
                        }
                    }
                }
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

/// Waits until connections shall end.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // The sender is only gone at the end.
    drop(closing.wait_for(|closing| *closing).await);
}

/// One connection.
struct Connection {
    answer: Answerer,
    closing: watch::Receiver<bool>,
    protocol: Protocol,
    limits: Limits,
    activity: Arc<Activity>,
}

impl Connection {
    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let (answer, activity, patience) = (self.answer.clone(), self.activity.clone(), self.limits.body_time);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let busy = Busy::new(activity.clone(), patience);
            let answering = answer(request.map(Body::new));
            async move { Ok::<_, Infallible>(answering.await.map(|body| busy.answered(body))) }
        });
        let stream = TokioIo::new(Watched { stream, activity: self.activity.clone() });
        match self.protocol {
            Protocol::Http => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                // Its own timer for heads runs while the answer before is still being written.
                builder.header_read_timeout(None).max_buf_size(1 << 18);
                let connection = pin!(builder.serve_connection(stream, service));
                self.watch(connection, |connection| connection.graceful_shutdown()).await;
            }
            Protocol::Grpc => {
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

    /// Drives a connection; asks it to end when the server closes or when it is silent for too long, and drops it when it
    /// does not, or when its client does not take an answer.
    async fn watch<C: Future<Output = Result<(), hyper::Error>>>(
        mut self,
        mut connection: Pin<&mut C>,
        end: impl Fn(Pin<&mut C>),
    ) {
        let patience = self.limits.head;
        let mut asked: Option<Instant> = None;
        loop {
            tokio::select! {
                outcome = connection.as_mut() => {
                    if let Err(error) = outcome {
                        tracing::debug!(%error, "connection broke off");
                    }
                    return;
                }
                () = closed(&mut self.closing), if asked.is_none() => {
                    asked = Some(Instant::now());
                    end(connection.as_mut());
                }
                () = tokio::time::sleep(patience / 4) => match (asked, self.activity.silent()) {
                    _ if self.is_stuck() => {
                        tracing::debug!("client takes nothing of its answer");
                        return;
                    }
                    (Some(since), Some(_)) if since.elapsed() > self.grace() => return,
                    (None, Some(silent)) if silent > self.silence() => {
                        asked = Some(Instant::now());
                        end(connection.as_mut());
                    }
                    _ => {}
                }
            }
        }
    }

    /// How long a connection may be without a request, the next one's head included. A gRPC client keeps its connection
    /// for later.
    fn silence(&self) -> Duration {
        match self.protocol {
            Protocol::Http => self.limits.head,
            Protocol::Grpc if self.activity.was_used() => self.limits.head * 30,
            Protocol::Grpc => self.limits.head * 2,
        }
    }

    /// How long a connection without a request may take to end. One of HTTP has nothing to say any more.
    fn grace(&self) -> Duration {
        match self.protocol {
            Protocol::Http => self.limits.head / 4,
            Protocol::Grpc => self.limits.head,
        }
    }

    /// True when the client does not take its answer. Over HTTP/2 pings move bytes too, so there each answer has its time.
    fn is_stuck(&self) -> bool {
        match self.protocol {
            Protocol::Http => self.activity.is_stuck(self.limits.body_time),
            Protocol::Grpc => self.activity.is_late(),
        }
    }
}
