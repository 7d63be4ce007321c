//! The queue of requests: bounded, and combined into batches as instances take from it.
//!
//! An idle instance takes whatever is queued, up to a full batch. It waits for more only while there are fewer clips than
//! came together last time, and never longer than the delay: under load batches fill up, and a lone client never waits.

use crate::error::InferError;
use crate::metrics::Metrics;
use crate::model::BatchShape;
use crate::settings::Batching;
use bytes::Bytes;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use vjepa_runtime::NamedOutput;

/// The values of a request's clips.
#[derive(Debug)]
pub(crate) enum Values {
    /// As numbers.
    Floats(Vec<f32>),
    /// Little-endian `f32`, where the network left them.
    Bytes(Bytes),
}

impl Values {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Floats(values) => values.len(),
            Self::Bytes(bytes) => bytes.len() / size_of::<f32>(),
        }
    }

    /// The values, copied only if their alignment requires it.
    pub fn as_floats(&self) -> Cow<'_, [f32]> {
        match self {
            Self::Floats(values) => Cow::Borrowed(values),
            Self::Bytes(bytes) => match bytemuck::try_cast_slice(bytes) {
                Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
                _ => Cow::Owned(floats(bytes).collect()),
            },
        }
    }

    /// Appends the values.
    pub fn append_to(&self, all: &mut Vec<f32>) {
        match self {
            Self::Floats(values) => all.extend_from_slice(values),
            Self::Bytes(bytes) => all.extend(floats(bytes)),
        }
    }
}

fn floats(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// A request in the queue.
#[derive(Debug)]
pub(crate) struct Job {
    /// Checked against the model.
    pub shape: BatchShape,
    /// The clips.
    pub values: Values,
    /// When it arrived.
    pub entered: Instant,
    /// When its client stops waiting.
    pub deadline: Instant,
    /// Receives the result.
    pub answer: oneshot::Sender<Result<Answer, InferError>>,
    /// Its share of the memory for bodies.
    #[allow(dead_code, reason = "given back when the request is dropped")]
    pub held: Option<OwnedSemaphorePermit>,
}

impl Job {
    fn is_dead(&self, now: Instant) -> bool {
        self.answer.is_closed() || self.deadline <= now
    }
}

/// The result of a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub outputs: Vec<NamedOutput>,
    /// Time in the queue.
    pub queued: Duration,
    /// Time of the run that it was part of.
    pub computed: Duration,
    /// Clips of that run.
    pub batch: usize,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
    batching: Batching,
    /// False for models whose requests run alone.
    joined: bool,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Clips that came together last time.
    together: usize,
    closed: bool,
}

impl Queue {
    pub fn new(capacity: usize, batching: Batching, joined: bool, metrics: Arc<Metrics>) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), capacity, batching, joined, metrics }
    }

    /// Puts a request at the end.
    ///
    /// # Errors
    /// [`InferError::Busy`] when it is full, [`InferError::Draining`] when it is closed.
    pub fn push(&self, job: Job) -> Result<(), InferError> {
        let mut state = self.lock();
        if state.closed {
            return Err(InferError::Draining);
        }
        if state.jobs.len() >= self.capacity {
            state.sweep();
        }
        if state.jobs.len() >= self.capacity {
            return Err(InferError::Busy(format!("{} requests are already waiting, the maximum", self.capacity)));
        }
        state.jobs.push_back(job);
        self.metrics.queue_depth(state.jobs.len());
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Drops requests whose clients no longer wait.
    pub fn sweep(&self) {
        let mut state = self.lock();
        state.sweep();
        self.metrics.queue_depth(state.jobs.len());
    }

    /// Accepts no more requests; instances finish those queued and end.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Waits for requests that can run together; none once the queue is closed and empty.
    pub fn take(&self) -> Option<Vec<Job>> {
        let mut state = self.lock();
        loop {
            state.sweep();
            self.metrics.queue_depth(state.jobs.len());
            match state.jobs.front() {
                None if state.closed => return None,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(first) => {
                    let wait = self.remaining_wait(&state, first);
                    if wait.is_zero() {
                        let jobs = state.batch(self.batching.max_clips, self.joined);
                        self.metrics.queue_depth(state.jobs.len());
                        if !state.jobs.is_empty() {
                            self.changed.notify_one();
                        }
                        return Some(jobs);
                    }
                    let waited = self.changed.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }

    /// How much longer `first` should wait for others.
    fn remaining_wait(&self, state: &State, first: &Job) -> Duration {
        let here: usize = state.jobs.iter().map(|job| job.shape.rows).sum();
        if !self.joined || state.closed || here >= state.together.min(self.batching.max_clips) {
            return Duration::ZERO;
        }
        self.batching.max_delay.saturating_sub(first.entered.elapsed())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn sweep(&mut self) {
        let now = Instant::now();
        self.jobs.retain(|job| !job.is_dead(now));
    }

    /// Takes the first request and, if requests are batched, all that fit with it.
    fn batch(&mut self, max_clips: usize, joined: bool) -> Vec<Job> {
        self.together = self.jobs.iter().map(|job| job.shape.rows).sum();
        let Some(first) = self.jobs.pop_front() else { return Vec::new() };
        let mut clips = first.shape.rows;
        let shape = first.shape;
        let mut taken = vec![first];
        let mut left = VecDeque::with_capacity(self.jobs.len());
        for job in self.jobs.drain(..) {
            let alike = job.shape.with_rows(shape.rows) == shape;
            let fits = joined && alike && clips + job.shape.rows <= max_clips;
            if fits {
                clips += job.shape.rows;
                taken.push(job);
            } else {
                left.push_back(job);
            }
        }
        self.jobs = left;
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Receiver = oneshot::Receiver<Result<Answer, InferError>>;

    fn queue(capacity: usize, max_clips: usize, max_delay: Duration) -> Queue {
        Queue::new(capacity, Batching { max_clips, max_delay }, true, Arc::new(Metrics::new("m", "r")))
    }

    fn job(clips: usize, side: usize, lives: Duration) -> (Job, Receiver) {
        let (answer, receiver) = oneshot::channel();
        let now = Instant::now();
        let values = Values::Floats(vec![0.0; clips]);
        let shape = BatchShape { rows: clips, views: 1, clip: [1, 1, side, 1] };
        (Job { shape, values, entered: now, deadline: now + lives, answer, held: None }, receiver)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_fits_runs_together_in_order() {
        let queue = queue(9, 4, Duration::ZERO);
        let jobs: Vec<_> = [(1, 1), (2, 1), (1, 2), (3, 1), (1, 1)].map(|(b, side)| job(b, side, LONG)).into();
        let mut receivers = Vec::new();
        for (job, receiver) in jobs {
            queue.push(job).unwrap();
            receivers.push(receiver);
        }
        let batch = || queue.take().unwrap().iter().map(|job| (job.shape.rows, job.shape.clip[2])).collect::<Vec<_>>();
        assert_eq!(batch(), [(1, 1), (2, 1), (1, 1)]);
        assert_eq!(batch(), [(1, 2)]);
        assert_eq!(batch(), [(3, 1)]);
        queue.close();
        assert!(queue.take().is_none());
        assert!(matches!(queue.push(job(1, 1, LONG).0), Err(InferError::Draining)));
    }

    #[test]
    fn the_queue_is_bounded_and_dead_requests_leave_it() {
        let queue = queue(2, 1, Duration::ZERO);
        let (first, waits) = job(1, 1, LONG);
        let (second, gone) = job(1, 1, LONG);
        queue.push(first).unwrap();
        queue.push(second).unwrap();
        let (third, _receiver) = job(1, 1, LONG);
        assert!(matches!(queue.push(third), Err(InferError::Busy(_))));
        drop(gone);
        let (expired, _receiver) = job(1, 1, Duration::ZERO);
        queue.push(expired).unwrap();
        queue.push(job(1, 1, LONG).0).unwrap();
        drop(waits);
        queue.close();
        assert!(queue.take().is_none());
    }

    #[test]
    fn a_lone_request_does_not_wait_and_one_after_a_crowd_does() {
        let queue = Arc::new(queue(9, 4, LONG));
        let (lone, _a) = job(1, 1, LONG);
        queue.push(lone).unwrap();
        assert_eq!(queue.take().unwrap().len(), 1);
        let crowd: Vec<_> = (0..2).map(|_| job(1, 1, LONG)).collect();
        let _receivers: Vec<Receiver> = crowd.into_iter().map(|(job, r)| (queue.push(job).unwrap(), r).1).collect();
        assert_eq!(queue.take().unwrap().len(), 2);
        let (first, _b) = job(1, 1, LONG);
        queue.push(first).unwrap();
        let taker = {
            let queue = queue.clone();
            std::thread::spawn(move || queue.take().unwrap().len())
        };
        let (second, _c) = job(1, 1, LONG);
        queue.push(second).unwrap();
        assert_eq!(taker.join().unwrap(), 2);
    }

    #[test]
    fn bytes_are_values_wherever_they_lie() {
        let bytes: Vec<u8> = [1.5f32, -2.0, 3.25].iter().flat_map(|value| value.to_le_bytes()).collect();
        for shift in 0..4 {
            let moved = Bytes::from([vec![0; shift], bytes.clone()].concat()).slice(shift..);
            let values = Values::Bytes(moved);
            assert_eq!((values.len(), values.as_floats().as_ref()), (3, &[1.5, -2.0, 3.25][..]));
            let mut all = vec![0.0];
            values.append_to(&mut all);
            assert_eq!(all, [0.0, 1.5, -2.0, 3.25]);
        }
    }
}
