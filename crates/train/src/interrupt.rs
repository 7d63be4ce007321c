//! Ctrl-C, SIGTERM and SIGUSR1 (SLURM's warning before preemption): the current step is finished, the state is saved, the run
//! ends.

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A request to end the run.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
    /// The signal that came; 0 for none.
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Raised by Ctrl-C, SIGTERM and SIGUSR1 from now on; a second Ctrl-C or SIGTERM ends the program at once.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let interrupt = Self::default();
        for signal in [SIGINT, SIGTERM] {
            // Registered first, so that it sees whether an earlier signal has already raised the flag.
            signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, interrupt.raised.clone())?;
            signal_hook::flag::register(signal, interrupt.raised.clone())?;
        }
        // Schedulers may warn several times.
        signal_hook::flag::register(SIGUSR1, interrupt.raised.clone())?;
        for (signal, number) in [(SIGINT, SIGINT as usize), (SIGTERM, SIGTERM as usize), (SIGUSR1, SIGUSR1 as usize)] {
            signal_hook::flag::register_usize(signal, interrupt.signal.clone(), number)?;
        }
        Ok(interrupt)
    }

    /// Whether the run should end.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
    }

    /// Whether the terminal asked for the end, and no scheduler.
    pub fn by_hand(&self) -> bool {
        self.signal.load(Ordering::Relaxed) == SIGINT as usize
    }

    /// The run is over and nothing is left to save: the next signal ends the program at once. (Removing the handlers instead
    /// would leave the signals ignored.)
    pub fn release(&self) {
        self.raise();
    }

    /// Requests the end of the run, as a signal would.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Relaxed);
    }
}
