//! Keeps the pool's threads awake while a plan is walked.

use rayon::Yield;
use std::sync::atomic::{AtomicBool, Ordering};

/// Looks for work between two pauses of an idle thread.
const PAUSES: usize = 32;

/// Runs `walk` on a thread of the pool, while the others look for work without going to sleep.
///
/// A step has some thousand short parallel sections. A thread that falls asleep after each is woken by the system, which
/// takes as long as a small kernel; OpenMP's threads spin for the same reason. They stop when the walk is over.
pub(super) fn awake<R: Send>(walk: impl FnOnce() -> R + Send) -> R {
    let over = Over(AtomicBool::new(false));
    rayon::scope(|scope| {
        let walker = rayon::current_thread_index();
        let over = &over;
        scope.spawn_broadcast(move |_, thread| {
            // The walker itself gets here when it waits for others; it has to go on.
            while Some(thread.index()) != walker && !over.0.load(Ordering::Acquire) {
                if rayon::yield_now() != Some(Yield::Executed) {
                    (0..PAUSES).for_each(|_| std::hint::spin_loop());
                }
            }
        });
        // Also when the walk panics: the scope waits for the others.
        let _guard = Guard(over);
        walk()
    })
}

struct Over(AtomicBool);

struct Guard<'a>(&'a Over);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::awake;
    use rayon::prelude::*;

    #[test]
    fn walks_side_by_side_and_panics_end() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let sum: u64 = awake(|| (0..100).map(|_| (0..1000u64).into_par_iter().sum::<u64>()).sum());
                    assert_eq!(sum, 100 * 499_500);
                });
            }
        });
        assert!(std::panic::catch_unwind(|| awake(|| panic!("as planned"))).is_err());
        assert_eq!(awake(|| 1), 1);
    }
}
