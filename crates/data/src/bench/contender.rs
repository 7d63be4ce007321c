//! A contender: a process that decodes clips on request and answers with its processor time.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde::Deserialize;

use super::{Answer, Request};
use crate::source::DataError;

/// A running contender.
#[derive(Debug)]
pub struct Contender {
    /// Its name in the report.
    pub name: String,
    /// Library and version.
    pub about: String,
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// What came of starting a contender.
#[derive(Debug)]
pub enum Started {
    /// It waits for requests.
    Ready(Box<Contender>),
    /// It cannot take part, for this reason: its library is not installed.
    Missing(String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Greeting {
    Ready { ready: String },
    Missing { missing: String },
}

impl Contender {
    /// Starts the process and waits for its first line. What it says on standard error is passed on.
    ///
    /// # Errors
    /// [`DataError::Setup`] when it cannot be started or says something else.
    pub fn start(name: &str, command: &mut Command) -> Result<Started, DataError> {
        let failed = |why: String| DataError::Setup(format!("{name} cannot be started: {why}"));
        // Decoders compare on one thread each.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).env("OMP_NUM_THREADS", "1");
        let mut child =
            command.spawn().map_err(|error| failed(format!("{}: {error}", command.get_program().to_string_lossy())))?;
        let (Some(requests), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failed("it has no standard input and output".into()));
        };
        let answers = BufReader::new(answers);
        let mut this = Self { name: name.to_owned(), about: String::new(), child, requests, answers };
        match this.line()? {
            Greeting::Ready { ready } => {
                this.about = ready;
                Ok(Started::Ready(Box::new(this)))
            }
            Greeting::Missing { missing } => Ok(Started::Missing(missing)),
        }
    }

    pub(super) fn ask(&mut self, request: &Request) -> Result<Answer, DataError> {
        let sent = serde_json::to_string(request).map_err(std::io::Error::from).and_then(|line| {
            writeln!(self.requests, "{line}")?;
            self.requests.flush()
        });
        sent.map_err(|error| DataError::Setup(format!("{} ended: {error}", self.name)))?;
        self.line()
    }

    fn line<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, DataError> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line);
        let ended = || DataError::Setup(format!("{} ended or failed; its output is above", self.name));
        match read {
            Ok(1..) => serde_json::from_str(&line).map_err(|_| {
                DataError::Setup(format!("{} said something else than an answer: {}", self.name, line.trim()))
            }),
            Ok(0) | Err(_) => Err(ended()),
        }
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        // It is idle, and nothing of it is to be kept; neither call can fail in a way that matters here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
