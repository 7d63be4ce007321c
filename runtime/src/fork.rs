//! Sessions in a child process made by `fork()`.
//!
//! Only the thread that called `fork()` exists in the child. Thread pools are gone, and a lock that another thread held at
//! that moment is never released: waiting for either lasts for ever. So calls that are under way are counted together with
//! the process they are made in, without a lock. A child sees that the count is another process's, and whether it was 0.

use std::sync::atomic::{AtomicU64, Ordering};

/// Calls that are under way, and the process that makes them.
///
/// The upper half is the process, the lower one the number of calls.
#[derive(Debug)]
pub(crate) struct Calls(AtomicU64);

/// A call under way; counted until it is dropped.
#[derive(Debug)]
pub(crate) struct Call<'a>(&'a Calls);

/// The calls are those of the process that this one was forked from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// That process.
    pub parent: u32,
    /// Whether another thread had a call under way when it forked.
    pub busy: bool,
}

/// A child process cannot do what was asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForkError {
    /// The session belongs to the parent.
    #[error(
        "this session was opened by process {parent} before it forked, and the threads that run it do not exist in process \
         {child}; open the session after fork(), or start the process anew (in Python: multiprocessing's `spawn`)"
    )]
    Session {
        /// Which opened the session.
        parent: u32,
        /// This process.
        child: u32,
    },
    /// Another thread of the parent was in the library.
    #[error(
        "process {parent} forked while another of its threads was opening or running a model, and the locks it held stay \
         locked in process {child}; fork while none does, or start the process anew (in Python: multiprocessing's `spawn`)"
    )]
    Busy {
        /// The process that forked.
        parent: u32,
        /// This process.
        child: u32,
    },
    /// The parent started the threads that run plans; a process has them once.
    #[error(
        "process {parent} ran plans before it forked, and the threads for them do not exist in process {child}; run plans in \
         the child alone, or start the process anew (in Python: multiprocessing's `spawn`)"
    )]
    Plans {
        /// The process that ran plans.
        parent: u32,
        /// This process.
        child: u32,
    },
}

impl ForkError {
    /// The session is the parent's.
    pub(crate) fn session(Inherited { parent, busy }: Inherited) -> Self {
        let child = std::process::id();
        if busy { Self::Busy { parent, child } } else { Self::Session { parent, child } }
    }
}

impl Calls {
    /// None yet, of whichever process comes first.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// None yet, of this process.
    pub fn here() -> Self {
        Self(AtomicU64::new(state(std::process::id(), 0)))
    }

    /// Counts a call. With `adopt` a child takes over what its parent left idle.
    pub fn enter(&self, adopt: bool) -> Result<Call<'_>, Inherited> {
        let here = std::process::id();
        let mut now = self.0.load(Ordering::Acquire);
        loop {
            let (process, calls) = parts(now);
            let next = match inherited(process, calls, here) {
                Some(inherited) if inherited.busy || !adopt => return Err(inherited),
                Some(_) => state(here, 1),
                None => state(here, calls.saturating_add(1)),
            };
            match self.0.compare_exchange_weak(now, next, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(Call(self)),
                Err(other) => now = other,
            }
        }
    }

    /// Whether they are the parent's.
    pub fn inherited(&self) -> Option<Inherited> {
        let (process, calls) = parts(self.0.load(Ordering::Acquire));
        inherited(process, calls, std::process::id())
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn inherited(process: u32, calls: u32, here: u32) -> Option<Inherited> {
    (process != here && process != 0).then_some(Inherited { parent: process, busy: calls != 0 })
}

fn state(process: u32, calls: u32) -> u64 {
    u64::from(process) << 32 | u64::from(calls)
}

fn parts(state: u64) -> (u32, u32) {
    ((state >> 32) as u32, state as u32)
}

/// What is set up once in a process and waited for by all: libraries, kernels chosen for the processor, tables. A model
/// that is opened, or run on clips of a size that it has not run on, may be doing that.
static SETTING_UP: Calls = Calls::new();

/// Counts a call that may set something up.
pub(crate) fn setting_up() -> Result<Call<'static>, ForkError> {
    let busy = |Inherited { parent, .. }| ForkError::Busy { parent, child: std::process::id() };
    SETTING_UP.enter(true).map_err(busy)
}

/// The process in which plans run: the threads for them are a process's own, and those of the parent cannot be replaced.
#[cfg(feature = "burn")]
pub(crate) fn plans() -> Result<(), ForkError> {
    static PLANS: Calls = Calls::new();
    let forked = |Inherited { parent, .. }| ForkError::Plans { parent, child: std::process::id() };
    PLANS.enter(false).map(drop).map_err(forked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that is not this one.
    fn other() -> u32 {
        std::process::id().wrapping_add(1)
    }

    #[test]
    fn calls_are_counted() {
        for calls in [Calls::new(), Calls::here()] {
            let (first, second) = (calls.enter(false).unwrap(), calls.enter(false).unwrap());
            assert_eq!(parts(calls.0.load(Ordering::Relaxed)), (std::process::id(), 2));
            drop((first, second));
            assert_eq!(parts(calls.0.load(Ordering::Relaxed)), (std::process::id(), 0));
            assert_eq!(calls.inherited(), None);
        }
    }

    #[test]
    fn a_child_takes_over_what_was_idle() {
        let calls = Calls(AtomicU64::new(state(other(), 0)));
        assert_eq!(calls.enter(false).unwrap_err(), Inherited { parent: other(), busy: false });
        drop(calls.enter(true).unwrap());
        assert_eq!(calls.inherited(), None);
    }

    #[test]
    fn a_child_leaves_what_was_busy() {
        let calls = Calls(AtomicU64::new(state(other(), 3)));
        for _ in 0..2 {
            assert_eq!(calls.enter(true).unwrap_err(), Inherited { parent: other(), busy: true });
        }
    }

    #[test]
    fn threads_count_at_once() {
        let calls = Calls::here();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| drop(calls.enter(true).unwrap())));
            }
        });
        assert_eq!(parts(calls.0.load(Ordering::Relaxed)), (std::process::id(), 0));
    }
}
