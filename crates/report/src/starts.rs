//! `run.json`: how a run was started, each time, and how it ended.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use vjepa_runtime::write_atomically;

use crate::ReportError;

/// The file's name in a run's folder.
pub const RUN_FILE: &str = "run.json";
/// The version this program writes.
const FORMAT: u32 = 1;
/// The commit checked out when this program was built; none outside of a git checkout. Changes that were not committed then
/// are not seen.
pub const COMMIT: Option<&str> = option_env!("VJEPA_COMMIT");

/// One start of a run: the first, or a resumption.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunStart {
    /// When, by RFC 3339.
    pub at: String,
    /// Prefix of the run's files (`logging.write_tag`).
    pub tag: String,
    /// Steps done before.
    pub from: u64,
    /// Steps of the whole run.
    pub steps: u64,
    /// The command line.
    pub command: Vec<String>,
    /// Version of the program.
    pub vjepa: String,
    /// [`COMMIT`].
    pub commit: Option<String>,
    /// Where it runs.
    pub machine: Machine,
    /// The configuration with every default filled in.
    pub config: Value,
    /// How it ended; none while it runs, and where it was killed.
    #[serde(default)]
    pub ended: Option<Ended>,
    /// What was said of its features, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Said>,
}

/// A verdict on the features of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Steps done by then.
    pub step: u64,
    /// The sentence, which says the step, too.
    pub sentence: String,
}

/// A machine that a run was started on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Its name.
    pub host: String,
    /// The run's process on it.
    pub pid: u32,
    /// Operating system and architecture.
    pub system: String,
    /// The processor, by its maker's name.
    pub processor: String,
    /// Extensions of the processor.
    pub extensions: Vec<String>,
    /// Threads there is work for.
    pub threads: Option<usize>,
    /// Instruction set of the CPU kernels.
    pub kernels: String,
    /// Instruction set of matrix products.
    pub products: String,
    /// Where the step is computed.
    pub device: String,
}

impl Machine {
    /// The one this process runs on, as far as the system tells; the compute back end's settings are left empty.
    pub fn here() -> Self {
        let processor = vjepa_runtime::cpu::Processor::here();
        Self {
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            pid: std::process::id(),
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: processor.model,
            extensions: processor.extensions.iter().map(|name| (*name).to_owned()).collect(),
            threads: vjepa_runtime::cores(),
            ..Self::default()
        }
    }

    /// Whether the run's process still runs; none where that cannot be known, since this is another machine.
    pub fn alive(&self) -> Option<bool> {
        let here = gethostname::gethostname().to_string_lossy() == self.host;
        if here { process_runs(self.pid) } else { None }
    }
}

#[cfg(unix)]
fn process_runs(pid: u32) -> Option<bool> {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
    Some(test_kill_process(pid) != Err(Errno::SRCH))
}

#[cfg(not(unix))]
fn process_runs(_: u32) -> Option<bool> {
    None
}

/// The end of a run, or of a part of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When, by RFC 3339.
    pub at: String,
    /// Steps done by then.
    pub steps: u64,
    /// How.
    pub how: How,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// After its last step.
    Done,
    /// After its last step, with an encoder that has collapsed.
    Collapsed,
    /// By a signal, with a checkpoint.
    Stopped,
    /// By an error.
    Failed(String),
}

impl How {
    /// In a word or a sentence.
    pub fn in_words(&self) -> String {
        match self {
            Self::Done => "done".to_owned(),
            Self::Collapsed => "collapsed".to_owned(),
            Self::Stopped => "stopped".to_owned(),
            Self::Failed(why) => format!("failed: {why}"),
        }
    }
}

/// The whole file.
#[derive(Debug, Serialize, Deserialize)]
struct RunFile {
    format: u32,
    starts: Vec<RunStart>,
}

/// The time now, by RFC 3339 in UTC and whole seconds.
pub fn now() -> String {
    let now = OffsetDateTime::now_utc();
    now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default()
}

/// All starts that a run's folder has a record of; none where it has none.
///
/// # Errors
/// [`ReportError::Read`], [`ReportError::Malformed`].
pub fn read_starts(folder: &Path) -> Result<Vec<RunStart>, ReportError> {
    let path = folder.join(RUN_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ReportError::read(&path, source)),
    };
    let malformed = |reason: String| ReportError::Malformed { path: path.clone(), reason };
    let file: RunFile = serde_json::from_slice(&bytes)
        .map_err(|error| malformed(format!("is not a record of runs ({error}): move it out of the folder")))?;
    if file.format != FORMAT {
        let other = file.format;
        return Err(malformed(format!(
            "has format {other}, and this program reads {FORMAT}: use the one that wrote it"
        )));
    }
    Ok(file.starts)
}

/// The record of a run that is going on.
#[derive(Debug)]
pub struct RunRecord {
    path: PathBuf,
    starts: Vec<RunStart>,
}

impl RunRecord {
    /// Adds a start. What the file says of earlier ones is kept if the run goes on with them (`from` > 0).
    ///
    /// # Errors
    /// [`ReportError`]; a file that cannot be understood is left as it is.
    pub fn begin(folder: &Path, start: RunStart) -> Result<Self, ReportError> {
        let mut starts = if start.from > 0 { read_starts(folder)? } else { Vec::new() };
        starts.push(start);
        let record = Self { path: folder.join(RUN_FILE), starts };
        record.save()?;
        Ok(record)
    }

    /// Notes a verdict.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn say(&mut self, said: Said) -> Result<(), ReportError> {
        if let Some(start) = self.starts.last_mut() {
            start.verdicts.push(said);
        }
        self.save()
    }

    /// Notes how it ended.
    ///
    /// # Errors
    /// [`ReportError::Write`].
    pub fn end(&mut self, steps: u64, how: How) -> Result<(), ReportError> {
        if let Some(start) = self.starts.last_mut() {
            start.ended = Some(Ended { at: now(), steps, how });
        }
        self.save()
    }

    fn save(&self) -> Result<(), ReportError> {
        let write = |source| ReportError::write(&self.path, source);
        let file = RunFile { format: FORMAT, starts: self.starts.clone() };
        let mut text = serde_json::to_vec_pretty(&file).map_err(|error| write(error.into()))?;
        text.push(b'\n');
        write_atomically(&self.path, |out| out.write_all(&text)).map_err(write)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use serde_json::json;

    pub(crate) fn start(from: u64) -> RunStart {
        RunStart {
            at: "2026-03-01T10:00:00Z".into(),
            tag: "jepa".into(),
            from,
            steps: 400,
            command: vec!["vjepa".into(), "train".into(), "--set".into(), "meta.seed=<1>".into()],
            vjepa: "0.1.0".into(),
            commit: Some("0123456789abcdef0123456789abcdef01234567".into()),
            machine: Machine {
                kernels: "avx2".into(),
                products: "avx2".into(),
                device: "cpu".into(),
                ..Machine::here()
            },
            config: json!({"optimization": {"lr": 0.001}, "data": {"batch_size": 16}}),
            ended: None,
            verdicts: Vec::new(),
        }
    }

    #[test]
    fn a_resumed_run_adds_a_start_and_a_new_one_begins_afresh() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read_starts(folder.path()).unwrap(), []);
        let mut first = RunRecord::begin(folder.path(), start(0)).unwrap();
        first.say(Said { step: 20, sentence: "fine".into() }).unwrap();
        first.end(100, How::Stopped).unwrap();
        let mut second = RunRecord::begin(folder.path(), start(100)).unwrap();
        second.end(120, How::Failed("the loss is NaN".into())).unwrap();
        let starts = read_starts(folder.path()).unwrap();
        let ends: Vec<_> = starts.iter().filter_map(|start| Some(start.ended.as_ref()?.how.clone())).collect();
        assert_eq!(ends, [How::Stopped, How::Failed("the loss is NaN".into())]);
        assert_eq!((starts[1].from, starts[0].verdicts.len(), starts[1].verdicts.len()), (100, 1, 0));
        RunRecord::begin(folder.path(), start(0)).unwrap();
        assert_eq!(read_starts(folder.path()).unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_record_is_refused_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(RUN_FILE);
        for text in ["{\"format\": 1", "{\"format\": 2, \"starts\": []}", "[]"] {
            std::fs::write(&path, text).unwrap();
            let message = RunRecord::begin(folder.path(), start(3)).unwrap_err().to_string();
            assert!(message.contains("run.json"), "{message}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn this_process_is_alive_and_another_machines_unknown() {
        let here = Machine::here();
        assert_eq!(here.alive(), cfg!(unix).then_some(true));
        assert_eq!(Machine { host: "elsewhere".into(), ..here.clone() }.alive(), None);
        assert_eq!(Machine { pid: i32::MAX as u32, ..here }.alive(), cfg!(unix).then_some(false));
        let now = now();
        assert!(now.ends_with('Z') && now.len() == 20, "{now}");
    }
}
