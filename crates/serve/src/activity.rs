//! Activity of a connection: requests being processed, and responses until their last byte is written. Hyper drops a
//! response once it is buffered, which says nothing about the client.

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use std::collections::HashMap;
use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Requests and responses of one connection.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// Requests being processed.
    worked_on: usize,
    /// Responses not fully written, by request number, with the time by which the client must have read them; none for a
    /// response that is itself waiting for data.
    answers: HashMap<u64, Option<Instant>>,
    /// Bytes of all of them not written yet.
    bytes: usize,
    /// Requests so far.
    requests: u64,
    /// When the last one was answered.
    since: Instant,
    /// When the first bytes of the next one arrived, if any.
    begun: Option<Instant>,
    /// When bytes were last written.
    written: Instant,
}

impl Activity {
    pub fn new() -> Self {
        let now = Instant::now();
        let answers = HashMap::new();
        Self(Mutex::new(State { worked_on: 0, answers, bytes: 0, requests: 0, since: now, begun: None, written: now }))
    }

    /// True while no request is being processed and no response is being sent.
    pub fn is_quiet(&self) -> bool {
        self.lock().is_quiet()
    }

    /// True if no request has arrived for too long.
    pub fn is_overdue(&self, timeouts: &Timeouts) -> bool {
        let state = self.lock();
        let longer = |since: Instant, most: Duration| since.elapsed() > most;
        state.is_quiet()
            && match (state.requests, state.begun, timeouts.head) {
                (0, ..) => longer(state.since, timeouts.first),
                (_, Some(begun), Some(head)) => longer(begun, head),
                _ => longer(state.since, timeouts.next),
            }
    }

    /// True if a response is waiting and nothing was written for `timeout`: its client reads nothing.
    pub fn is_stuck(&self, timeout: Duration) -> bool {
        let state = self.lock();
        state.worked_on == 0 && !state.answers.is_empty() && state.written.elapsed() > timeout
    }

    /// True if a response was not read in time.
    pub fn is_late(&self) -> bool {
        let now = Instant::now();
        self.lock().answers.values().flatten().any(|until| *until < now)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_quiet(&self) -> bool {
        self.worked_on == 0 && self.answers.is_empty()
    }
}

/// How long a connection may be without a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// Before the first one.
    pub first: Duration,
    /// After an answer.
    pub next: Duration,
    /// From the first byte of a request's head to the last; none where bytes need not be a request's.
    pub head: Option<Duration>,
}

/// A request, until its answer is written.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    number: u64,
    /// Time for a response, and for each MiB in flight.
    timeout: Duration,
}

impl Busy {
    pub fn new(activity: Arc<Activity>, timeout: Duration) -> Self {
        let mut state = activity.lock();
        state.worked_on += 1;
        state.requests += 1;
        state.begun = None;
        let number = state.requests;
        drop(state);
        Self { activity, number, timeout }
    }

    /// The request's response; processing has ended.
    pub fn answered(self, body: Body) -> Answer {
        let mut state = self.activity.lock();
        state.worked_on = state.worked_on.saturating_sub(1);
        state.written = Instant::now();
        let until = state.written + self.timeout;
        state.answers.insert(self.number, Some(until));
        drop(state);
        Answer { body, busy: Arc::new(self) }
    }

    /// A part of the response is queued behind what is not written yet.
    fn gives(self: &Arc<Self>, bytes: Bytes) -> Held {
        let mut state = self.activity.lock();
        state.bytes += bytes.len();
        let turns = u32::try_from(1 + (state.bytes >> 20)).unwrap_or(u32::MAX);
        let time = Instant::now().checked_add(self.timeout.saturating_mul(turns));
        if let (Some(until), Some(time)) = (state.answers.get_mut(&self.number), time) {
            *until = Some(time);
        }
        drop(state);
        Held { bytes, busy: self.clone() }
    }

    /// The response has no data for now: its client is not late.
    fn waits(&self) {
        if let Some(until) = self.activity.lock().answers.get_mut(&self.number) {
            *until = None;
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        if state.answers.remove(&self.number).is_none() {
            state.worked_on = state.worked_on.saturating_sub(1);
        }
        state.since = Instant::now();
    }
}

/// A response body; its connection is busy until its last byte is dropped, which is after it was written.
pub(crate) struct Answer {
    body: Body,
    busy: Arc<Busy>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let busy = &self.busy;
        if frame.is_pending() {
            busy.waits();
        }
        let held = |bytes: Bytes| Bytes::from_owner(busy.gives(bytes));
        frame.map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(held))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bytes of a response.
struct Held {
    bytes: Bytes,
    busy: Arc<Busy>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.busy.activity.lock();
        state.bytes = state.bytes.saturating_sub(self.bytes.len());
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A stream that records when bytes arrive and when they are written.
pub(crate) struct Watched<S> {
    pub stream: S,
    /// Bytes of the stream that have been read already.
    pub read: Bytes,
    pub activity: Arc<Activity>,
}

impl<S> Watched<S> {
    fn note(&self, outcome: Poll<Result<usize>>) -> Poll<Result<usize>> {
        if matches!(outcome, Poll::Ready(Ok(1..))) {
            self.activity.lock().written = Instant::now();
        }
        outcome
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let before = buffer.filled().len();
        let outcome = if self.read.is_empty() {
            Pin::new(&mut self.stream).poll_read(context, buffer)
        } else {
            let count = self.read.len().min(buffer.remaining());
            buffer.put_slice(&self.read.split_to(count));
            Poll::Ready(Ok(()))
        };
        if buffer.filled().len() > before {
            let mut state = self.activity.lock();
            if state.is_quiet() && state.begun.is_none() {
                state.begun = Some(Instant::now());
            }
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.note(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.note(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_busy_until_the_last_byte_of_its_answer_is_dropped() {
        let activity = Arc::new(Activity::new());
        assert!(activity.is_quiet());
        drop(Busy::new(activity.clone(), Duration::ZERO));
        assert!(activity.is_quiet());
        let answer = Busy::new(activity.clone(), Duration::ZERO).answered(Body::empty());
        let mut part = Bytes::from_owner(answer.busy.gives(Bytes::from_static(b"some")));
        drop(answer);
        let rest = part.split_off(2);
        drop(part);
        std::thread::sleep(Duration::from_millis(2));
        assert!(!activity.is_quiet() && activity.is_late() && activity.is_stuck(Duration::ZERO));
        drop(rest);
        assert!(activity.is_quiet() && !activity.is_late() && !activity.is_stuck(Duration::ZERO));
    }

    #[test]
    fn an_answer_has_time_for_what_is_on_its_way() {
        let activity = Arc::new(Activity::new());
        let answer = Busy::new(activity.clone(), Duration::from_millis(1)).answered(Body::empty());
        let large = answer.busy.gives(vec![0; 1000 << 20].into());
        std::thread::sleep(Duration::from_millis(10));
        assert!(!activity.is_late(), "1000 MiB at a millisecond each");
        drop(large);
        let _small = answer.busy.gives(Bytes::from_static(b"some"));
        std::thread::sleep(Duration::from_millis(10));
        assert!(activity.is_late());
    }

    #[test]
    fn a_connection_has_its_time_for_the_first_request_for_a_head_and_for_the_next_one() {
        let (short, long) = (Duration::ZERO, Duration::from_secs(60));
        let overdue = |activity: &Activity, first, next, head| {
            std::thread::sleep(Duration::from_millis(2));
            activity.is_overdue(&Timeouts { first, next, head })
        };
        let activity = Arc::new(Activity::new());
        assert!(overdue(&activity, short, long, None) && !overdue(&activity, long, short, Some(short)));
        drop(Busy::new(activity.clone(), long));
        assert!(overdue(&activity, long, short, None) && !overdue(&activity, short, long, Some(short)));
        activity.lock().begun = Some(Instant::now());
        assert!(overdue(&activity, long, long, Some(short)) && !overdue(&activity, short, long, None));
        let _busy = Busy::new(activity.clone(), long);
        assert!(!overdue(&activity, short, short, Some(short)));
    }

    #[test]
    fn an_answer_that_waits_for_its_next_words_is_not_late() {
        let activity = Arc::new(Activity::new());
        let answer = Busy::new(activity.clone(), Duration::ZERO).answered(Body::empty());
        answer.busy.waits();
        std::thread::sleep(Duration::from_millis(2));
        assert!(!activity.is_late() && !activity.is_quiet());
        let _more = answer.busy.gives(Bytes::from_static(b"some"));
        std::thread::sleep(Duration::from_millis(2));
        assert!(activity.is_late());
    }
}
