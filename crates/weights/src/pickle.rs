//! A pickle interpreter that executes nothing.
//!
//! It reads protocols 0 to 5. Calls (`REDUCE`, `NEWOBJ`, ...) are recorded with their arguments and never made, so a pickle
//! can describe anything and do nothing. Values live in one arena and refer to each other by number: what a pickle shares
//! stays shared, and memory grows with the number of opcodes, never with what they describe.

mod input;
mod stack;

use std::collections::HashMap;
use std::io::{self, BufRead};

use super::heap::{FALSE, Heap, Id, NONE, OPAQUE, Object, TRUE, Value};

/// Most opcodes of one pickle; each keeps about 40 bytes at most, and its text.
const MOST_OPCODES: usize = 1 << 23;
/// Most bytes of text kept from one pickle. Bytes objects are skipped and do not count.
const MOST_TEXT: usize = 1 << 28;

/// Why a pickle cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum PickleError {
    /// The file cannot be read.
    #[error("{0}")]
    Read(io::Error),
    /// The input ends before the pickle does.
    #[error("its pickle is cut off")]
    CutOff,
    /// A byte that starts no opcode.
    #[error("its pickle has the unknown opcode 0x{0:02x}")]
    Opcode(u8),
    /// A protocol that is newer than this reader.
    #[error("its pickle has protocol {0}; protocols up to 5 are read")]
    Protocol(u8),
    /// Opcodes that do not fit together.
    #[error("its pickle is damaged ({0})")]
    Damaged(&'static str),
    /// More than [`MOST_OPCODES`] or [`MOST_TEXT`].
    #[error("its pickle describes too many Python objects; save the state dict alone")]
    TooLarge,
}

impl From<io::Error> for PickleError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::CutOff,
            _ => Self::Read(error),
        }
    }
}

/// Reads one pickle, up to and with its `STOP`; gives all values and the one that was pickled.
///
/// # Errors
/// [`PickleError`].
pub(super) fn read(input: &mut impl BufRead) -> Result<(Heap, Id), PickleError> {
    let mut machine =
        Machine { input, values: Heap::first(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new(), text: 0 };
    for _ in 0..MOST_OPCODES {
        if let Some(root) = machine.step()? {
            return Ok((Heap(machine.values), root));
        }
    }
    Err(PickleError::TooLarge)
}

struct Machine<'a, R> {
    input: &'a mut R,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Bytes of text so far.
    text: usize,
}

impl<R: BufRead> Machine<'_, R> {
    /// Carries out one opcode; gives the result at `STOP`.
    fn step(&mut self) -> Result<Option<Id>, PickleError> {
        let [opcode] = self.bytes()?;
        match opcode {
            b'.' => return Ok(Some(self.pop()?)),
            0x80 => {
                let [protocol] = self.bytes()?;
                if protocol > 5 {
                    return Err(PickleError::Protocol(protocol));
                }
            }
            // FRAME, READONLY_BUFFER: nothing depends on them.
            0x95 => self.skip(8)?,
            0x98 => {}
            b'(' => self.marks.push(self.stack.len()),
            b'0' => self.discard()?,
            b'1' => drop(self.since_mark()?),
            b'2' => self.stack.push(self.top()?),
            b'N' => self.stack.push(NONE),
            0x88 => self.stack.push(TRUE),
            0x89 => self.stack.push(FALSE),
            b'I' | b'L' | b'K' | b'M' | b'J' | 0x8a | 0x8b => self.integer(opcode)?,
            b'F' | b'G' => self.float(opcode)?,
            b'B' | b'C' | 0x8e | 0x96 | 0x97 | 0x82..=0x84 => self.opaque(opcode)?,
            b'S' | b'V' | b'T' | b'U' | b'X' | 0x8c | 0x8d => self.string(opcode)?,
            b')' | b't' | 0x85..=0x87 | 0x91 | b']' | b'l' | 0x8f | b'}' | b'd' => self.container(opcode)?,
            b'a' | b'e' | 0x90 | b's' | b'u' => self.extend(opcode)?,
            b'c' | 0x93 | b'R' | 0x81 | 0x92 | b'i' | b'o' | b'b' => self.object(opcode)?,
            b'p' | b'q' | b'r' | 0x94 => self.remember(opcode)?,
            b'g' | b'h' | b'j' => self.recall(opcode)?,
            b'P' => {
                let name = self.line()?;
                let name = self.keep_text(name)?;
                self.push(Value::Persistent(name));
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Value::Persistent(id));
            }
            other => return Err(PickleError::Opcode(other)),
        }
        Ok(None)
    }

    fn integer(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'K' => Value::Int(u8::from_le_bytes(self.bytes()?).into()),
            b'M' => Value::Int(u16::from_le_bytes(self.bytes()?).into()),
            b'J' => Value::Int(i32::from_le_bytes(self.bytes()?).into()),
            0x8a | 0x8b => {
                let length = match opcode {
                    0x8a => u64::from(self.bytes::<1>()?[0]),
                    _ => u64::from(u32::from_le_bytes(self.bytes()?)),
                };
                self.long(length)?.map_or(Value::Opaque, Value::Int)
            }
            _ => {
                let line = self.line()?;
                let text = String::from_utf8_lossy(&line);
                match (opcode, text.trim().trim_end_matches('L')) {
                    (b'I', "00") => Value::Bool(false),
                    (b'I', "01") => Value::Bool(true),
                    (_, digits) => digits.parse().map_or(Value::Opaque, Value::Int),
                }
            }
        };
        self.push(value);
        Ok(())
    }

    /// A two's complement integer of up to 16 bytes; longer ones are skipped.
    fn long(&mut self, length: u64) -> Result<Option<i128>, PickleError> {
        let mut word = [0; 16];
        let Some(part) = usize::try_from(length).ok().and_then(|length| word.get_mut(..length)) else {
            self.skip(length)?;
            return Ok(None);
        };
        self.input.read_exact(part)?;
        if part.last().is_some_and(|byte| *byte >= 0x80) {
            let from = part.len();
            word.get_mut(from..).unwrap_or_default().fill(0xff);
        }
        Ok(Some(i128::from_le_bytes(word)))
    }

    fn float(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b'G' => Value::Float(f64::from_be_bytes(self.bytes()?)),
            _ => {
                let line = self.line()?;
                String::from_utf8_lossy(&line).trim().parse().map_or(Value::Opaque, Value::Float)
            }
        };
        self.push(value);
        Ok(())
    }

    /// What nothing depends on: bytes, extensions, buffers kept elsewhere.
    fn opaque(&mut self, opcode: u8) -> Result<(), PickleError> {
        let length = match opcode {
            b'B' => u64::from(u32::from_le_bytes(self.bytes()?)),
            b'C' => u64::from(self.bytes::<1>()?[0]),
            0x8e | 0x96 => u64::from_le_bytes(self.bytes()?),
            0x82 => 1,
            0x83 => 2,
            0x84 => 4,
            _ => 0,
        };
        self.skip(length)?;
        self.stack.push(OPAQUE);
        Ok(())
    }

    fn string(&mut self, opcode: u8) -> Result<(), PickleError> {
        let text = match opcode {
            b'V' => self.line()?,
            b'S' => {
                let line = self.line()?;
                let quote = |byte: &u8| matches!(byte, b'\'' | b'"');
                let start = usize::from(line.first().is_some_and(quote));
                let end = line.len() - usize::from(line.len() > start && line.last().is_some_and(quote));
                line.get(start..end).unwrap_or_default().to_vec()
            }
            b'U' | 0x8c => {
                let length = u64::from(self.bytes::<1>()?[0]);
                self.take(length)?
            }
            b'T' | b'X' => {
                let length = u64::from(u32::from_le_bytes(self.bytes()?));
                self.take(length)?
            }
            _ => {
                let length = u64::from_le_bytes(self.bytes()?);
                self.take(length)?
            }
        };
        let id = self.keep_text(text)?;
        self.stack.push(id);
        Ok(())
    }

    fn container(&mut self, opcode: u8) -> Result<(), PickleError> {
        let value = match opcode {
            b')' => Value::Tuple(Vec::new()),
            b'}' => Value::Dict(Vec::new()),
            b']' | 0x8f => Value::List(Vec::new()),
            b't' | 0x91 => Value::Tuple(self.since_mark()?),
            b'l' => Value::List(self.since_mark()?),
            b'd' => Value::Dict(pairs(&self.since_mark()?)),
            _ => {
                let count = usize::from(opcode - 0x84);
                let from = self.stack.len().checked_sub(count).filter(|from| *from >= self.floor());
                Value::Tuple(self.stack.split_off(from.ok_or(PickleError::Damaged("a tuple lacks elements"))?))
            }
        };
        self.push(value);
        Ok(())
    }

    /// Adds to the container that is on the stack.
    fn extend(&mut self, opcode: u8) -> Result<(), PickleError> {
        let new = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.since_mark()?,
        };
        let container = self.top()?;
        match (opcode, self.values.get_mut(container as usize)) {
            (b's' | b'u', Some(Value::Dict(items))) => items.extend(pairs(&new)),
            (b's' | b'u', Some(Value::Object(object))) => object.items.extend(pairs(&new)),
            (_, Some(Value::List(elements))) => elements.extend(new),
            // A subclass of list or set: opaque.
            _ => {}
        }
        Ok(())
    }

    fn object(&mut self, opcode: u8) -> Result<(), PickleError> {
        let (class, args) = match opcode {
            b'c' => {
                let [module, name] = [self.line()?, self.line()?];
                let global = self.keep_global(&module, &name)?;
                self.stack.push(global);
                return Ok(());
            }
            0x93 => {
                let [name, module] = [self.pop()?, self.pop()?];
                let part = |id| match self.values.get(id as usize) {
                    Some(Value::Text(text)) => Ok(text.as_bytes().to_vec()),
                    _ => Err(PickleError::Damaged("a class without a name")),
                };
                let [module, name] = [part(module)?, part(name)?];
                let global = self.keep_global(&module, &name)?;
                self.stack.push(global);
                return Ok(());
            }
            b'b' => {
                let state = self.pop()?;
                let object = self.top()?;
                if let Some(Value::Object(object)) = self.values.get_mut(object as usize) {
                    object.state = Some(state);
                }
                return Ok(());
            }
            b'i' => {
                let [module, name] = [self.line()?, self.line()?];
                let class = self.keep_global(&module, &name)?;
                let args = Value::Tuple(self.since_mark()?);
                (class, self.keep(args))
            }
            b'o' => {
                let mut all = self.since_mark()?.into_iter();
                let class = all.next().ok_or(PickleError::Damaged("an object without a class"))?;
                let args = Value::Tuple(all.collect());
                (class, self.keep(args))
            }
            // NEWOBJ_EX: keyword arguments are on top.
            0x92 => {
                self.pop()?;
                let args = self.pop()?;
                (self.pop()?, args)
            }
            _ => {
                let args = self.pop()?;
                (self.pop()?, args)
            }
        };
        self.push(Value::Object(Box::new(Object { class, args, state: None, items: Vec::new() })));
        Ok(())
    }

    fn remember(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'q' => u32::from(self.bytes::<1>()?[0]),
            b'r' => u32::from_le_bytes(self.bytes()?),
            0x94 => self.memo.len() as u32,
            _ => self.memo_key()?,
        };
        let value = self.top()?;
        self.memo.insert(key, value);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), PickleError> {
        let key = match opcode {
            b'h' => u32::from(self.bytes::<1>()?[0]),
            b'j' => u32::from_le_bytes(self.bytes()?),
            _ => self.memo_key()?,
        };
        let value = self.memo.get(&key).copied();
        self.stack.push(value.ok_or(PickleError::Damaged("it refers to a value that is not there"))?);
        Ok(())
    }

    fn memo_key(&mut self) -> Result<u32, PickleError> {
        let line = self.line()?;
        let text = String::from_utf8_lossy(&line);
        text.trim().parse().map_err(|_| PickleError::Damaged("a reference that is not a number"))
    }
}

/// Keys and values that follow each other.
fn pairs(flat: &[Id]) -> Vec<(Id, Id)> {
    flat.as_chunks::<2>().0.iter().map(|[key, value]| (*key, *value)).collect()
}
