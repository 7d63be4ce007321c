//! Ctrl-C and SIGTERM: the current step is finished, the state is saved, the run ends.

use signal_hook::consts::{SIGINT, SIGTERM};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A request to end the run.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicBool>,
}

impl Interrupt {
    /// Raised by Ctrl-C and SIGTERM from now on; a second signal ends the program at once.
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
        Ok(interrupt)
    }

    /// Whether the run should end.
    pub fn raised(&self) -> bool {
        self.raised.load(Ordering::Relaxed)
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
