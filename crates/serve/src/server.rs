//! The life of a server, from start to shutdown.

use crate::connection::Responder;
use crate::error::ServeError;
use crate::grpc::Service;
use crate::instance::Instance;
use crate::listen::{Listener, Protocol};
use crate::metrics::Metrics;
use crate::model::Model;
use crate::queue::Queue;
use crate::readiness;
use crate::settings::Settings;
use crate::state::{Addresses, Core, VideoReader};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// Stages of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Running,
    /// Admits no requests and finishes running ones.
    Draining,
    /// Stops immediately.
    Stopped,
}

/// A running server. Stops immediately when dropped.
pub struct Server {
    http: SocketAddr,
    grpc: Option<SocketAddr>,
    stage: watch::Sender<Stage>,
    done: Mutex<mpsc::Receiver<()>>,
    queue: Arc<Queue>,
    runtime: Option<Runtime>,
}

/// Stops a server from another thread.
#[derive(Clone, Debug)]
pub struct Handle(watch::Sender<Stage>);

impl Handle {
    /// Finishes running requests, admits no more, and stops.
    pub fn drain(&self) {
        self.advance(Stage::Draining);
    }

    /// Stops immediately.
    pub fn stop(&self) {
        self.advance(Stage::Stopped);
    }

    fn advance(&self, to: Stage) {
        self.0.send_if_modified(|stage| {
            let later = to > *stage;
            *stage = to.max(*stage);
            later
        });
    }
}

impl Server {
    /// Starts serving; both addresses are listening when this returns.
    ///
    /// # Errors
    /// [`ServeError`]: an address in use, one that others reach without token or TLS, or a temporary folder that cannot
    /// be written to.
    pub fn start(model: Model, settings: Settings, video: Option<Arc<VideoReader>>) -> Result<Self, ServeError> {
        if settings.batching.max_clips == 0 || settings.limits.queue == 0 {
            return Err(ServeError::Setting("--max-batch and --queue must be at least 1".to_owned()));
        }
        for address in std::iter::once(settings.http).chain(settings.grpc) {
            settings.security.allows(address.ip())?;
        }
        if settings.web.admits_all() && settings.security.token.is_none() {
            let reason =
                "--allow-origin '*' admits every page, so a token is needed: give --token-file, or list the origins";
            return Err(ServeError::Setting(reason.to_owned()));
        }
        if video.is_some() {
            let folder = settings.temporary();
            readiness::store(&folder).map_err(|source| ServeError::Temporary { folder, source })?;
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("vjepa-serve")
            .worker_threads(vjepa_runtime::cores().unwrap_or(2).clamp(2, 8))
            .max_blocking_threads(64)
            .enable_all()
            .build()
            .map_err(ServeError::Threads)?;
        let inside = runtime.enter();
        let http = bind(settings.http)?;
        let grpc = settings.grpc.map(bind).transpose()?;
        drop(inside);
        let address_of = |socket: &TcpListener, asked| socket.local_addr().unwrap_or(asked);
        let http_at = address_of(&http, settings.http);
        let grpc_at = grpc.as_ref().zip(settings.grpc).map(|(socket, asked)| address_of(socket, asked));

        let metrics = Arc::new(Metrics::new(&model.info.name, &model.info.runtime));
        let joined = model.info.joined();
        let queue = Arc::new(Queue::new(settings.limits.queue, settings.batching, joined, metrics.clone()));
        start_instances(model.engines, model.info.run_sizes(), &queue, &metrics)?;
        let addresses = Addresses { http: http_at, grpc: grpc_at };
        let mut core = Core::new(model.info, settings, queue.clone(), metrics, addresses);
        core.video = video;
        let core = Arc::new(core);
        let (stage, _) = watch::channel(Stage::Running);
        let (ended, done) = mpsc::channel();
        let running = run(core, http, grpc, stage.subscribe());
        runtime.spawn(async move {
            running.await;
            // The receiver may be gone.
            let _ = ended.send(());
        });
        Ok(Self { http: http_at, grpc: grpc_at, stage, done: Mutex::new(done), queue, runtime: Some(runtime) })
    }

    /// Address of HTTP.
    pub fn http(&self) -> SocketAddr {
        self.http
    }

    /// Address of gRPC.
    pub fn grpc(&self) -> Option<SocketAddr> {
        self.grpc
    }

    /// A handle that stops the server from another thread.
    pub fn handle(&self) -> Handle {
        Handle(self.stage.clone())
    }

    /// Lets SIGTERM and Ctrl-C drain the server, and a second one stop it.
    ///
    /// # Errors
    /// [`ServeError::Threads`] when the system gives no signals.
    pub fn obey_signals(&self) -> Result<(), ServeError> {
        let (Some(runtime), handle) = (&self.runtime, self.handle()) else { return Ok(()) };
        let _inside = runtime.enter();
        let mut signals = Signals::new().map_err(ServeError::Threads)?;
        runtime.spawn(async move {
            signals.next().await;
            tracing::info!("finishing running requests; another signal exits immediately");
            handle.drain();
            signals.next().await;
            handle.stop();
        });
        Ok(())
    }

    /// Waits for the end.
    pub fn wait(mut self) {
        // It also returns if the server's task panicked, which has been logged.
        let _ = self.done.get_mut().unwrap_or_else(PoisonError::into_inner).recv();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.handle().stop();
        self.queue.close();
        // A run in an engine cannot be interrupted; its thread ends with the process.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Listens, inside a runtime.
fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        TcpListener::from_std(socket)
    };
    listen().map_err(|source| ServeError::Listen { address, source })
}

fn start_instances(
    engines: Vec<Box<dyn crate::model::ServingEngine>>,
    sizes: crate::model::BatchSizes,
    queue: &Arc<Queue>,
    metrics: &Arc<Metrics>,
) -> Result<(), ServeError> {
    for (number, engine) in engines.into_iter().enumerate() {
        let instance = Instance { engine, sizes, queue: queue.clone(), metrics: metrics.clone() };
        let thread = std::thread::Builder::new().name(format!("vjepa-instance-{number}"));
        thread.spawn(move || instance.work()).map_err(ServeError::Threads)?;
    }
    Ok(())
}

/// Serves until the end of the drain.
async fn run(core: Arc<Core>, http: TcpListener, grpc: Option<TcpListener>, mut stage: watch::Receiver<Stage>) {
    let (close, closing) = watch::channel(false);
    // The gRPC port accepts HTTP/1.1 too, to answer which port is HTTP's.
    let alpn: &[&[u8]] = &[b"h2", b"http/1.1"];
    let listener = |socket, protocol, answer| Listener {
        core: core.clone(),
        socket,
        protocol,
        tls: core.settings.security.tls.as_ref().map(|tls| tls.acceptor(alpn)),
        answer,
        closing: closing.clone(),
    };
    let mut listeners = tokio::task::JoinSet::new();
    let shared = core.clone();
    let answer: Responder = Arc::new(move |request| Box::pin(crate::http::answer(shared.clone(), request)));
    listeners.spawn(listener(http, Protocol::Http, answer).run());
    if let Some(grpc) = grpc {
        let router = Service(core.clone()).into_router();
        let shared = core.clone();
        let answer: Responder =
            Arc::new(move |request| Box::pin(crate::guard::answer(shared.clone(), router.clone(), request)));
        listeners.spawn(listener(grpc, Protocol::Grpc, answer).run());
    }
    // The server is the sender; once it is dropped, there is no reason to continue.
    let draining = stage.wait_for(|stage| *stage >= Stage::Draining).await.map_or(Stage::Stopped, |stage| *stage);
    core.drain();
    if draining == Stage::Draining {
        let finished = async {
            core.idle().await;
            core.queue.close();
            close.send_replace(true);
            // Responses are still being sent.
            while listeners.join_next().await.is_some() {}
        };
        tokio::select! {
            () = finished => {}
            () = tokio::time::sleep(core.settings.limits.drain) => tracing::warn!("requests were still running after the drain time"),
            _ = stage.wait_for(|stage| *stage >= Stage::Stopped) => {}
        }
    }
    core.queue.close();
    tracing::info!("ended");
}

/// SIGTERM and Ctrl-C.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
