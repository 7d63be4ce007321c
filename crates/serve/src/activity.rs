//! What a connection is busy with: requests that are worked on, and answers until their last byte is written. Hyper lets go
//! of an answer once it is buffered, which says nothing about the client.

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

/// Requests and answers of one connection.
pub(crate) struct Activity(Mutex<State>);

struct State {
    /// Requests that are worked on.
    worked_on: usize,
    /// Answers that are not written yet, by their request's number, with the time by which a client has taken them.
    answers: HashMap<u64, Instant>,
    /// Bytes of all of them that are not written yet.
    bytes: usize,
    /// Requests so far.
    requests: u64,
    /// When the last of them was answered.
    since: Instant,
    /// When bytes were last written.
    written: Instant,
}

impl Activity {
    pub fn new() -> Self {
        let now = Instant::now();
        let answers = HashMap::new();
        Self(Mutex::new(State { worked_on: 0, answers, bytes: 0, requests: 0, since: now, written: now }))
    }

    /// For how long there has been no request; none while one is worked on or its answer on its way.
    pub fn silent(&self) -> Option<Duration> {
        let state = self.lock();
        (state.worked_on == 0 && state.answers.is_empty()).then(|| state.since.elapsed())
    }

    /// True when an answer waits and nothing was written for `patience`: its client takes nothing.
    pub fn is_stuck(&self, patience: Duration) -> bool {
        let state = self.lock();
        state.worked_on == 0 && !state.answers.is_empty() && state.written.elapsed() > patience
    }

    /// True when an answer was not taken in its time.
    pub fn is_late(&self) -> bool {
        let now = Instant::now();
        self.lock().answers.values().any(|until| *until < now)
    }

    /// True after the first request.
    pub fn was_used(&self) -> bool {
        self.lock().requests > 0
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request, until its answer is written.
pub(crate) struct Busy {
    activity: Arc<Activity>,
    number: u64,
    /// Time for an answer, and for each MiB that is on its way.
    patience: Duration,
}

impl Busy {
    pub fn new(activity: Arc<Activity>, patience: Duration) -> Self {
        let mut state = activity.lock();
        state.worked_on += 1;
        state.requests += 1;
        let number = state.requests;
        drop(state);
        Self { activity, number, patience }
    }

    /// The request's answer; nothing is worked on any more.
    pub fn answered(self, body: Body) -> Answer {
        let mut state = self.activity.lock();
        state.worked_on = state.worked_on.saturating_sub(1);
        state.written = Instant::now();
        let until = state.written + self.patience;
        state.answers.insert(self.number, until);
        drop(state);
        Answer { body, busy: Arc::new(self) }
    }

    /// A part of the answer is on its way, behind what is not written yet.
    fn gives(self: &Arc<Self>, bytes: Bytes) -> Held {
        let mut state = self.activity.lock();
        state.bytes += bytes.len();
        let turns = u32::try_from(1 + (state.bytes >> 20)).unwrap_or(u32::MAX);
        let time = Instant::now().checked_add(self.patience.saturating_mul(turns));
        if let (Some(until), Some(time)) = (state.answers.get_mut(&self.number), time) {
            *until = time;
        }
        drop(state);
        Held { bytes, busy: self.clone() }
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

/// An answer's body; its connection is busy until the last byte of it is dropped, which is after it was written.
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

/// Bytes of an answer.
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

/// A stream that tells when bytes are written.
pub(crate) struct Watched<S> {
    pub stream: S,
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
        Pin::new(&mut self.stream).poll_read(context, buffer)
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
        assert!(activity.silent().is_some() && !activity.was_used());
        drop(Busy::new(activity.clone(), Duration::ZERO));
        assert!(activity.silent().is_some() && activity.was_used());
        let answer = Busy::new(activity.clone(), Duration::ZERO).answered(Body::empty());
        let mut part = Bytes::from_owner(answer.busy.gives(Bytes::from_static(b"some")));
        drop(answer);
        let rest = part.split_off(2);
        drop(part);
        std::thread::sleep(Duration::from_millis(2));
        assert!(activity.silent().is_none() && activity.is_late() && activity.is_stuck(Duration::ZERO));
        drop(rest);
        assert!(activity.silent().is_some() && !activity.is_late() && !activity.is_stuck(Duration::ZERO));
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
}
