//! Results of one file each, kept as lines of JSON, so that work over many files goes on where it was stopped.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How every line begins: the path is the first field of each kind of result.
const BEGINNING: &[u8] = b"{\"path\":";

/// A result about one file.
pub trait Line: Serialize + DeserializeOwned {
    /// The file.
    fn path(&self) -> &Path;
    /// Its size in bytes when it was looked at; a file of another size now is looked at again.
    fn bytes(&self) -> u64;
}

/// Results so far.
#[derive(Debug)]
pub struct Journal<L> {
    known: HashMap<PathBuf, L>,
    file: Option<Mutex<File>>,
    path: PathBuf,
}

impl<L: Line> Journal<L> {
    /// Reads what an earlier run left and appends to it; none keeps results in memory alone.
    ///
    /// # Errors
    /// One sentence: a file that cannot be read or written, or that is no journal.
    pub fn open(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else { return Ok(Self { known: HashMap::new(), file: None, path: PathBuf::new() }) };
        let fail = |error: std::io::Error| format!("{}: cannot be used: {error}", path.display());
        let mut known = HashMap::new();
        // Where the last line begins that was cut off with the run that wrote it.
        let (mut at, mut torn) = (0u64, None);
        match File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(fail(error)),
            Ok(file) => {
                let mut reader = BufReader::new(file);
                let mut line = Vec::new();
                for number in 1.. {
                    line.clear();
                    if reader.read_until(b'\n', &mut line).map_err(fail)? == 0 {
                        break;
                    }
                    // Nothing of a file that this command did not write is cut off.
                    let ours = line.starts_with(BEGINNING) || BEGINNING.starts_with(&line);
                    let whole = line.last() == Some(&b'\n') || !ours;
                    match serde_json::from_slice::<L>(&line) {
                        Ok(_) | Err(_) if !whole => torn = Some(at),
                        Ok(read) => {
                            known.insert(read.path().to_path_buf(), read);
                        }
                        Err(error) => {
                            let path = path.display();
                            return Err(format!(
                                "{path}: line {number} is not what this command writes ({error}): name another file, or \
                                 remove this one to begin anew"
                            ));
                        }
                    }
                    at += line.len() as u64;
                }
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(fail)?;
        if let Some(end) = torn {
            file.set_len(end).map_err(fail)?;
        }
        Ok(Self { known, file: Some(Mutex::new(file)), path: path.into() })
    }

    /// The result about a file that still has this size.
    pub fn get(&self, path: &Path, bytes: u64) -> Option<&L> {
        self.known.get(path).filter(|line| line.bytes() == bytes)
    }

    /// Appends a result.
    ///
    /// # Errors
    /// One sentence, where the disk is full.
    pub fn add(&self, line: &L) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let fail = |error: &dyn std::fmt::Display| format!("{}: cannot be written: {error}", self.path.display());
        let mut text = serde_json::to_string(line).map_err(|error| fail(&error))?;
        text.push('\n');
        // One call, so that lines of several threads do not mix.
        let written = file.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
        written.map_err(|error| fail(&error))
    }
}
