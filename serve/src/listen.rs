//! Accepts connections of one protocol: how many, how long they may be silent, and how they end.

use crate::settings::Limits;
use crate::state::Core;
use axum::body::Body;
use axum::http::{Request, Response};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::task::{Context, Poll};
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
        let (answer, activity) = (self.answer.clone(), self.activity.clone());
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let busy = Busy::new(activity.clone());
            let answering = answer(request.map(Body::new));
            async move {
                let response = answering.await;
                Ok::<_, Infallible>(response.map(|body| Guarded { body, _busy: busy }))
            }
        });
        let stream = TokioIo::new(stream);
        match self.protocol {
            Protocol::Http => {
                let mut builder = hyper::server::conn::http1::Builder::new();
                builder.timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(1 << 18);
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
    /// does not.
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
                () = tokio::time::sleep(patience / 4) => {
                    let silent = self.activity.silent();
                    match asked {
                        Some(since) if silent.is_some() && since.elapsed() > patience => return,
                        None if silent.is_some_and(|silent| silent > self.silence()) => {
                            asked = Some(Instant::now());
                            end(connection.as_mut());
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    /// How long a connection may be without a request. A gRPC client keeps its connection for later.
    fn silence(&self) -> Duration {
        match self.protocol {
            Protocol::Grpc if self.activity.was_used() => self.limits.head * 30,
            _ => self.limits.head * 2,
        }
    }
}

/// Requests of a connection: how many run, and since when none does.
struct Activity(Mutex<(usize, Instant, bool)>);

impl Activity {
    fn new() -> Self {
        Self(Mutex::new((0, Instant::now(), false)))
    }

    fn silent(&self) -> Option<Duration> {
        let (running, since, _) = *self.lock();
        (running == 0).then(|| since.elapsed())
    }

    fn was_used(&self) -> bool {
        self.lock().2
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (usize, Instant, bool)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer's body; the connection is busy until the last of it is handed over.
struct Guarded {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Guarded {
    type Data = bytes::Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<bytes::Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// A request that runs.
struct Busy(Arc<Activity>);

impl Busy {
    fn new(activity: Arc<Activity>) -> Self {
        activity.lock().0 += 1;
        Self(activity)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut activity = self.0.lock();
        *activity = (activity.0.saturating_sub(1), Instant::now(), true);
    }
}
