//! The stack of a pickle with its marks, and the values that opcodes keep.

use std::io::BufRead;

use super::{MOST_TEXT, Machine, PickleError};
use crate::heap::{Id, Value};

impl<R: BufRead> Machine<'_, R> {
    /// Height of the stack that opcodes may not go below: the last mark.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    /// Takes off the value, or the mark, that is on top.
    pub(super) fn discard(&mut self) -> Result<(), PickleError> {
        if self.marks.last() == Some(&self.stack.len()) {
            self.marks.pop();
            return Ok(());
        }
        self.pop().map(|_| ())
    }

    pub(super) fn top(&self) -> Result<Id, PickleError> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or(PickleError::Damaged("its stack is empty"))
    }

    pub(super) fn pop(&mut self) -> Result<Id, PickleError> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    pub(super) fn since_mark(&mut self) -> Result<Vec<Id>, PickleError> {
        let mark = self.marks.pop().ok_or(PickleError::Damaged("a mark is missing"))?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn keep(&mut self, value: Value) -> Id {
        self.values.push(value);
        // Opcodes are counted, and each keeps three values at most.
        (self.values.len() - 1) as Id
    }

    pub(super) fn push(&mut self, value: Value) {
        let id = self.keep(value);
        self.stack.push(id);
    }

    pub(super) fn keep_text(&mut self, text: Vec<u8>) -> Result<Id, PickleError> {
        self.account(text.len())?;
        Ok(self.keep(Value::Text(String::from_utf8_lossy(&text).into())))
    }

    pub(super) fn keep_global(&mut self, module: &[u8], name: &[u8]) -> Result<Id, PickleError> {
        self.account(module.len() + name.len())?;
        let name = format!("{}.{}", String::from_utf8_lossy(module), String::from_utf8_lossy(name));
        Ok(self.keep(Value::Global(name.into())))
    }

    pub(super) fn account(&mut self, bytes: usize) -> Result<(), PickleError> {
        self.text += bytes;
        if self.text > MOST_TEXT { Err(PickleError::TooLarge) } else { Ok(()) }
    }
}
