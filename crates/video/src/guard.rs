//! Bounds around third-party parsers and decoders: panics are contained, endless loops run out of budget.

use std::cell::Cell;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::Fault;

/// Run `f`; a panic inside becomes [`Fault::Panicked`].
///
/// The state `f` touched may be half-written after a panic, so callers drop the decoder they lent to it.
pub(crate) fn contained<T>(f: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(result) => result,
        Err(payload) => {
            let text = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_string())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "panic".into());
            Err(Fault::Panicked(text))
        }
    }
}

/// A reader over bytes in memory that fails after a set number of calls.
///
/// Box parsers seek by sizes found in the file; a size of zero makes some of them visit the same box for ever. A parser
/// that makes progress needs at most a few calls per byte, so a budget ends the loop without limiting honest files.
pub(crate) struct Budgeted<'a> {
    inner: std::io::Cursor<&'a [u8]>,
    calls_left: Cell<u64>,
}

impl<'a> Budgeted<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        let calls = 4096 + 8 * bytes.len() as u64;
        Budgeted { inner: std::io::Cursor::new(bytes), calls_left: Cell::new(calls) }
    }

    fn spend(&self) -> std::io::Result<()> {
        match self.calls_left.get().checked_sub(1) {
            Some(left) => {
                self.calls_left.set(left);
                Ok(())
            }
            None => Err(std::io::Error::other("the table loops")),
        }
    }
}

impl Read for Budgeted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.spend()?;
        self.inner.read(buf)
    }
}

impl Seek for Budgeted<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        self.spend()?;
        self.inner.seek(to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_fault() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| {}));
        let fault = contained::<()>(|| panic!("boom"));
        std::panic::set_hook(hook);
        assert_eq!(fault, Err(Fault::Panicked("boom".into())));
    }

    #[test]
    fn a_loop_runs_out_of_budget() {
        let mut r = Budgeted::new(&[0; 16]);
        let mut calls = 0u64;
        while r.seek(SeekFrom::Start(0)).is_ok() {
            calls += 1;
        }
        assert_eq!(calls, 4096 + 8 * 16);
    }
}
