//! The threads that compute clips ahead, and what they share with who takes them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::MAX_TRIES;
use crate::source::{ClipSource, DataError, SampleInfo, SampleKey};
use crate::stream::SampleStream;
use crate::values::ClipValues;

pub(super) struct Shared {
    pub(super) source: Arc<dyn ClipSource>,
    pub(super) stream: SampleStream,
    /// Values of all clips of a sample.
    pub(super) sample_len: usize,
    pub(super) stop: AtomicBool,
    pub(super) state: Mutex<State>,
    /// There is room in the window, or the end has come.
    pub(super) room: Condvar,
    /// A result has come in, or a worker has gone.
    pub(super) ready: Condvar,
}

pub(super) struct State {
    /// Ticket of the first result not handed out yet.
    pub(super) first: u64,
    pub(super) window: usize,
    /// Claimed tickets from `first` on, with their results.
    pub(super) slots: VecDeque<Option<Outcome>>,
    /// Buffers of clips handed out.
    pub(super) free: Vec<ClipValues>,
    pub(super) alive: usize,
}

/// State of a ticket.
pub(super) struct Outcome {
    pub(super) clip: ClipValues,
    pub(super) bad: Vec<DataError>,
    pub(super) result: Result<SampleInfo, DataError>,
}

impl Shared {
    /// The state, also after a panic elsewhere: every change to it is complete when the lock is given back.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Taking the lock makes sure that no worker is between its check and its wait.
        drop(self.lock());
        self.room.notify_all();
    }

    /// Computes the clip of a ticket, trying stand-ins for bad ones.
    pub(super) fn compute(&self, ticket: u64, buffer: Option<ClipValues>) -> Outcome {
        let mut clip = buffer.unwrap_or_else(|| ClipValues::empty(self.source.scaling()));
        clip.resize(self.sample_len);
        let mut bad = Vec::new();
        for retry in 0..MAX_TRIES {
            let key = SampleKey { retry, ..self.stream.key(ticket) };
            match self.sample(key, &mut clip) {
                Err(error) if error.is_bad_sample() => bad.push(error),
                result => return Outcome { clip, bad, result },
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        let last = bad.last().cloned().unwrap_or_else(|| DataError::Setup("no sample was tried".into()));
        Outcome { clip, bad, result: Err(last) }
    }

    /// One try; a panic of the source becomes an error.
    fn sample(&self, key: SampleKey, clip: &mut ClipValues) -> Result<SampleInfo, DataError> {
        let write = || match clip {
            ClipValues::Floats(values) => self.source.sample(key, values),
            ClipValues::Bytes { values, .. } => self.source.sample_bytes(key, values),
        };
        // The clip may be half written after a panic; it is written anew or thrown away.
        catch_unwind(AssertUnwindSafe(write))
            .unwrap_or_else(|panic| Err(DataError::Panic { index: key.position, message: message(panic.as_ref()) }))
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Tells the consumer when a worker ends, however it ends.
struct Alive<'a>(&'a Shared);

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        self.0.lock().alive -= 1;
        self.0.ready.notify_all();
    }
}

pub(super) fn work(shared: &Shared) {
    let _alive = Alive(shared);
    loop {
        let mut state = shared.lock();
        while !shared.stop.load(Ordering::Relaxed) && state.slots.len() >= state.window {
            state = shared.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let ticket = state.first + state.slots.len() as u64;
        state.slots.push_back(None);
        let buffer = state.free.pop();
        drop(state);
        let outcome = shared.compute(ticket, buffer);
        let mut state = shared.lock();
        let place = ticket - state.first;
        if let Some(slot) = usize::try_from(place).ok().and_then(|i| state.slots.get_mut(i)) {
            *slot = Some(outcome);
        }
        drop(state);
        shared.ready.notify_all();
    }
}
