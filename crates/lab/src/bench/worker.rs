//! A worker of a comparison: a process that runs a step on request.

use serde::Deserialize;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A worker failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// It could not be started.
    #[error("cannot start {name} ({program}): {source}")]
    Start {
        /// The worker.
        name: String,
        /// Its program.
        program: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// It ended, or printed something other than an answer. Its earlier output is on standard error.
    #[error("{name} could not be measured and is to be left out; its output is above{}", said.as_ref().map_or(String::new(), |s| format!(" ({s})")))]
    Silent {
        /// The worker.
        name: String,
        /// The line that is not an answer.
        said: Option<String>,
    },
}

/// A worker's answer to `run`.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Answer {
    /// Wall time in milliseconds.
    pub ms: f64,
    /// CPU time of all its threads in milliseconds.
    pub cpu_ms: f64,
    /// Loss of the step, or mean |y| of the encoder's output; none if it is NaN or infinite.
    pub loss: Option<f64>,
}

#[derive(Deserialize)]
struct Ready {
    ready: String,
    /// FLOPs of each mask set, where the worker counts them.
    #[serde(default)]
    flops: Vec<f64>,
}

#[derive(Deserialize)]
struct Products {
    flops: f64,
}

#[derive(Deserialize)]
struct Peak {
    peak_bytes: Option<u64>,
}

#[derive(Deserialize)]
struct Table {
    table: String,
}

/// A running worker.
pub struct Worker {
    /// Its name in the table.
    pub name: String,
    /// Its description: library and version.
    pub about: String,
    /// Arithmetic of each mask set, if it counted it.
    pub flops: Vec<f64>,
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts the process and waits until it has built its model.
    ///
    /// # Errors
    /// [`WorkerError`].
    pub fn start(name: &str, mut command: Command) -> Result<Self, WorkerError> {
        let program = PathBuf::from(command.get_program()).display().to_string();
        let failed = |source| WorkerError::Start { name: name.to_owned(), program: program.clone(), source };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(failed)?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(WorkerError::Silent { name: name.to_owned(), said: None });
        };
        let stdout = BufReader::new(stdout);
        let mut side = Self { name: name.to_owned(), about: String::new(), flops: Vec::new(), child, stdin, stdout };
        let ready: Ready = side.answer()?;
        (side.about, side.flops) = (ready.ready, ready.flops);
        Ok(side)
    }

    /// Runs one step with the masks of this set.
    ///
    /// # Errors
    /// [`WorkerError::Silent`].
    pub fn run(&mut self, set: usize) -> Result<Answer, WorkerError> {
        self.tell(&format!("run {set}"))?;
        self.answer()
    }

    /// Runs a few steps with the time of every node, writes the trace to a file and returns the table.
    ///
    /// # Errors
    /// [`WorkerError::Silent`], for workers other than the plan as well.
    pub fn profile(&mut self, trace: &Path) -> Result<String, WorkerError> {
        self.tell(&format!("profile {}", trace.display()))?;
        let Table { table } = self.answer()?;
        Ok(table)
    }

    /// Peak memory in bytes: of the device where the worker knows it, else of the process (all, and without mapped files).
    ///
    /// # Errors
    /// [`WorkerError::Silent`].
    pub fn peak(&mut self) -> Result<[u64; 2], WorkerError> {
        self.tell("memory")?;
        let Peak { peak_bytes } = self.answer()?;
        Ok(match peak_bytes {
            Some(bytes) => [bytes; 2],
            None => {
                let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
                let field = |key: &str| -> u64 {
                    let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
                    let kib = line.trim().trim_end_matches("kB").trim();
                    kib.parse::<u64>().unwrap_or(0) * 1024
                };
                let peak = field("VmHWM:");
                [peak, peak.saturating_sub(field("RssFile:"))]
            }
        })
    }

    /// FLOP/s of plain matrix products through this worker's library, on its device and in its precision.
    ///
    /// # Errors
    /// [`WorkerError::Silent`].
    pub fn products(&mut self) -> Result<f64, WorkerError> {
        self.tell("products")?;
        let Products { flops } = self.answer()?;
        Ok(flops)
    }

    fn tell(&mut self, line: &str) -> Result<(), WorkerError> {
        let sent = writeln!(self.stdin, "{line}").and_then(|()| self.stdin.flush());
        sent.map_err(|_| WorkerError::Silent { name: self.name.clone(), said: None })
    }

    fn answer<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, WorkerError> {
        let mut line = String::new();
        let read = self.stdout.read_line(&mut line);
        let said = (!line.trim().is_empty()).then(|| line.trim().to_owned());
        let silent = WorkerError::Silent { name: self.name.clone(), said };
        match read {
            Ok(n) if n > 0 => serde_json::from_str(&line).map_err(|_| silent),
            _ => Err(silent),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends by itself when its input ends; a worker that hangs is killed.
        let _ = writeln!(self.stdin, "quit");
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
