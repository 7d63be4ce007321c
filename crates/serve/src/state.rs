//! Shared by both protocols: the model, its queue, the state of the server, and inference itself.

use crate::error::InferError;
use crate::metrics::{Counted, Metrics};
use crate::model::{BatchShape, ModelInfo, VERSION};
use crate::queue::{Answer, Job, Queue, Values};
use crate::readiness::Readiness;
use crate::settings::{Limits, Settings};
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

/// Reads the clips of one result, `[V, 3, T, S, S]`, from a video file, or says in a sentence why it cannot.
pub type VideoReader = dyn Fn(&Path) -> Result<Vec<f32>, String> + Send + Sync;

/// Bytes of a permit of [`Core::bodies`].
const BLOCK: usize = 1024;

/// The shared part of a server.
pub(crate) struct Core {
    pub info: ModelInfo,
    pub settings: Settings,
    pub queue: Arc<Queue>,
    pub metrics: Arc<Metrics>,
    pub video: Option<Arc<VideoReader>>,
    pub addresses: Addresses,
    pub readiness: Readiness,
    /// Memory for bodies, in blocks.
    pub bodies: Arc<Semaphore>,
    /// Videos decoded at a time.
    pub decoders: Arc<Semaphore>,
    /// Videos decoded or waiting for it.
    pub videos: Arc<Semaphore>,
    draining: AtomicBool,
    drained: Notify,
    running: AtomicUsize,
    idle: Notify,
}

/// Addresses of the server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub http: SocketAddr,
    pub grpc: Option<SocketAddr>,
}

/// An admitted inference; the server does not stop before it is dropped.
pub(crate) struct Admitted {
    core: Arc<Core>,
    _counted: Counted,
    began: Instant,
}

impl Admitted {
    /// When the request was admitted.
    pub fn began(&self) -> Instant {
        self.began
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.core.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.core.idle.notify_waiters();
        }
    }
}

impl Core {
    pub fn new(
        info: ModelInfo,
        settings: Settings,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
        addresses: Addresses,
    ) -> Self {
        let Limits { bodies, decoders, queue: waiting, .. } = settings.limits;
        let decoders = decoders.clamp(1, 1 << 16);
        Self {
            bodies: Arc::new(Semaphore::new((bodies / BLOCK).clamp(1, Semaphore::MAX_PERMITS))),
            decoders: Arc::new(Semaphore::new(decoders)),
            videos: Arc::new(Semaphore::new(decoders + waiting.min(1 << 16))),
            info,
            settings,
            queue,
            metrics,
            video: None,
            addresses,
            readiness: Readiness::default(),
            draining: AtomicBool::new(false),
            drained: Notify::new(),
            running: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// False once the server is shutting down.
    pub fn is_open(&self) -> bool {
        !self.draining.load(Ordering::SeqCst)
    }

    /// Stops admitting inferences.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.drained.notify_waiters();
    }

    /// Waits until the server is shutting down.
    pub async fn drained(&self) {
        let mut notified = pin!(self.drained.notified());
        // Whoever comes after the notification sees the flag, which is set before it.
        notified.as_mut().enable();
        if self.is_open() {
            notified.await;
        }
    }

    /// Waits until no inference is running.
    pub async fn idle(&self) {
        loop {
            let notified = self.idle.notified();
            if self.running.load(Ordering::SeqCst) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Admits an inference.
    ///
    /// # Errors
    /// [`InferError::Draining`].
    pub fn admit(self: &Arc<Self>) -> Result<Admitted, InferError> {
        // Counted first: a drain that starts now either sees this request or is seen by it. Each side writes one and then
        // reads the other, which only holds in one order for all threads.
        self.running.fetch_add(1, Ordering::SeqCst);
        let admitted = Admitted { core: self.clone(), _counted: self.metrics.in_flight(), began: Instant::now() };
        if self.is_open() { Ok(admitted) } else { Err(InferError::Draining) }
    }

    /// Reserves memory for a body of `bytes`, of which `held` is already reserved.
    ///
    /// # Errors
    /// [`InferError::Busy`] when all bodies together would be too large.
    pub fn hold(&self, held: &mut Option<OwnedSemaphorePermit>, bytes: usize) -> Result<(), InferError> {
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(BLOCK).saturating_sub(have);
        if more == 0 {
            return Ok(());
        }
        let busy = |_| InferError::Busy("bodies of other requests fill the memory reserved for them".to_owned());
        let more = u32::try_from(more).map_err(|_| InferError::TooLarge(self.settings.limits.body))?;
        let more = self.bodies.clone().try_acquire_many_owned(more).map_err(busy)?;
        match held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
        Ok(())
    }

    /// Checks the model's name and version; an empty version is any.
    ///
    /// # Errors
    /// [`InferError::UnknownModel`].
    pub fn check_model(&self, name: &str, version: &str) -> Result<(), InferError> {
        if name == self.info.name && (version.is_empty() || version == VERSION) {
            return Ok(());
        }
        let wanted = if version.is_empty() { name.to_owned() } else { format!("{name}, version {version}") };
        Err(InferError::UnknownModel { wanted: shortened(&wanted), here: self.info.name.clone() })
    }

    /// The time limit of a request: what it asks for, within the server's limit.
    pub fn timeout(&self, asked: Option<Duration>) -> Duration {
        let longest = self.settings.limits.request;
        asked.filter(|asked| !asked.is_zero()).map_or(longest, |asked| asked.min(longest))
    }

    /// Queues clips and waits for their results. Values that are larger than the body they came from reserve more of the
    /// memory for bodies.
    ///
    /// # Errors
    /// [`InferError`]; an expired request has left the queue.
    pub async fn infer(
        &self,
        admitted: &Admitted,
        shape: BatchShape,
        values: Values,
        mut held: Option<OwnedSemaphorePermit>,
        timeout: Duration,
    ) -> Result<Answer, InferError> {
        self.hold(&mut held, values.len() * size_of::<f32>())?;
        let (answer, receiver) = oneshot::channel();
        let deadline = admitted.began + timeout;
        let mut waiting = Waiting { queue: &self.queue, receiver, queued: false };
        let outcome = match self.queue.push(Job { shape, values, entered: Instant::now(), deadline, answer, held }) {
            Err(error) => Err(error),
            Ok(()) => waiting.outcome(deadline).await.unwrap_or(Err(InferError::Expired(timeout))),
        };
        let total = admitted.began.elapsed();
        match &outcome {
            Ok(answer) => self.metrics.succeeded(answer.queued, answer.computed, total),
            Err(_) => self.metrics.failed(total),
        }
        outcome
    }

    /// Counts the end of a request.
    pub fn answered(&self, endpoint: &'static str, outcome: Result<u16, &InferError>) {
        let status = outcome.unwrap_or_else(|error| {
            if let Some(reason) = error.rejection() {
                self.metrics.rejected(reason);
            }
            if matches!(error, InferError::Expired(_)) {
                self.metrics.expired();
            }
            tracing::debug!(endpoint, status = error.status(), %error, "refused");
            error.status()
        });
        self.metrics.answered(endpoint, status);
    }
}

/// Waits for a result; a client that goes away takes its request out of the queue.
struct Waiting<'a> {
    queue: &'a Queue,
    receiver: oneshot::Receiver<Result<Answer, InferError>>,
    /// True while the request may be in the queue.
    queued: bool,
}

impl Waiting<'_> {
    /// The outcome of a queued request; none once its time is over.
    async fn outcome(&mut self, deadline: Instant) -> Option<Result<Answer, InferError>> {
        self.queued = true;
        let outcome = tokio::time::timeout_at(deadline.into(), &mut self.receiver).await.ok()?;
        self.queued = false;
        // The queue drops a request that expired.
        outcome.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.queued {
            self.receiver.close();
            self.queue.sweep();
        }
    }
}

/// A client's text, shortened to be sent back in an error.
pub(crate) fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

/// A sentence for clients from one for the log: without paths of the server.
pub(crate) fn without_paths(sentence: &str) -> String {
    let is_edge = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`' | '(' | ')' | '<' | '>' | ',' | ';');
    let is_path = |word: &str| {
        let word = word.trim_start_matches("file://");
        let drive = word.as_bytes();
        let windows = matches!(drive, [letter, b':', b'\\' | b'/', ..] if letter.is_ascii_alphabetic());
        windows
            || (word.starts_with('/') && word.get(1..).is_some_and(|rest| rest.contains(|c: char| c.is_alphanumeric())))
    };
    sentence
        .split_inclusive(is_edge)
        .map(|part| {
            let word = part.trim_end_matches(is_edge);
            // `at=/a/b` and `/a/b:` hold one too.
            let (before, path) = word.find('=').map_or(("", word), |at| word.split_at(at + 1));
            if !is_path(path) {
                return part.to_owned();
            }
            let colon = if path.ends_with(':') { ":" } else { "" };
            format!("{before}a file{colon}{}", part.get(word.len()..).unwrap_or_default())
        })
        .collect()
}

/// Runs work that is long enough to delay other requests on a blocking thread.
pub(crate) fn blocking<R>(bytes: usize, work: impl FnOnce() -> R) -> R {
    const LONG: usize = 1 << 17;
    if bytes > LONG { tokio::task::block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Batching;

    #[test]
    fn paths_are_left_out_of_sentences_and_nothing_else_is() {
        for (sentence, wanted) in [
            ("cannot open /srv/models/a.onnx: no memory", "cannot open a file: no memory"),
            ("at path \"/tmp/vjepa-video-1\"", "at path \"a file\""),
            ("(/opt/lib/x.so, C:\\models\\b.onnx)", "(a file, a file)"),
            ("at=/a/b and file:///c", "at=a file and a file"),
            ("3/4 of f32[1, 3] are NaN / inf; see ONNX 1.2/3", "3/4 of f32[1, 3] are NaN / inf; see ONNX 1.2/3"),
        ] {
            assert_eq!(without_paths(sentence), wanted);
        }
    }

    #[tokio::test]
    async fn only_a_request_that_still_waits_sweeps_the_queue() {
        let metrics = Arc::new(Metrics::new("m", "r"));
        let queue = Queue::new(9, Batching::default(), true, metrics.clone());
        let later = Instant::now() + Duration::from_secs(60);
        let holds = |jobs: usize| metrics.text().contains(&format!("vjepa_queue_depth {jobs}\n"));
        // Nobody waits for this one.
        let shape = BatchShape { rows: 1, views: 1, clip: [1, 1, 1, 1] };
        let (answer, _) = oneshot::channel();
        let values = Values::Floats(vec![0.0]);
        queue.push(Job { shape, values, entered: Instant::now(), deadline: later, answer, held: None }).unwrap();
        let (answer, receiver) = oneshot::channel();
        drop(answer.send(Err(InferError::Draining)));
        let mut answered = Waiting { queue: &queue, receiver, queued: false };
        assert!(answered.outcome(later).await.is_some());
        drop(answered);
        assert!(holds(1));
        let (_answer, receiver) = oneshot::channel();
        let mut late = Waiting { queue: &queue, receiver, queued: false };
        assert!(late.outcome(Instant::now()).await.is_none());
        drop(late);
        assert!(holds(0));
    }
}
