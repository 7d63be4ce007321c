//! The bytes of a pickle, of which no more is kept than there is.

use std::io::{self, BufRead, Read};

use super::{MOST_TEXT, Machine, PickleError};

impl<R: BufRead> Machine<'_, R> {
    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N], PickleError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Exactly `length` bytes; memory grows with the bytes that are there.
    pub(super) fn take(&mut self, length: u64) -> Result<Vec<u8>, PickleError> {
        if length > MOST_TEXT as u64 {
            return Err(PickleError::TooLarge);
        }
        let mut bytes = Vec::new();
        let found = self.input.by_ref().take(length).read_to_end(&mut bytes)?;
        if found as u64 == length { Ok(bytes) } else { Err(PickleError::CutOff) }
    }

    pub(super) fn skip(&mut self, length: u64) -> Result<(), PickleError> {
        let found = io::copy(&mut self.input.by_ref().take(length), &mut io::sink())?;
        if found == length { Ok(()) } else { Err(PickleError::CutOff) }
    }

    /// The bytes up to the next line feed, which is left out.
    pub(super) fn line(&mut self) -> Result<Vec<u8>, PickleError> {
        let mut line = Vec::new();
        self.input.by_ref().take(MOST_TEXT as u64).read_until(b'\n', &mut line)?;
        if line.pop() == Some(b'\n') { Ok(line) } else { Err(PickleError::CutOff) }
    }
}
