//! A run's folder, read: metrics, diagnostics, starts, bad videos, pictures, probes.

mod figures;
mod state;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;
use vjepa_recipe::records::{DiagnosticsReport, PROBE_RESULT_KEY, ProbeResult};

pub(crate) use figures::grouped;
pub use figures::{Figure, figures};
pub use state::State;
pub(crate) use state::in_time;
pub use table::{MetricsTable, Points};

use crate::ReportError;
use crate::starts::{RunStart, Said, read_starts};

/// Folder of a run's pictures, in its own; a picture is `<name>-<step>.png`.
pub const PICTURES: &str = "pictures";
const METRICS: &str = "-metrics.csv";

/// What a run has left so far.
#[derive(Clone, Debug)]
pub struct Run {
    /// What to call it: the folder's name, or among several runs whose folders have one name, the whole path.
    pub called: String,
    /// The folder.
    pub folder: PathBuf,
    /// Prefix of its files.
    pub tag: String,
    /// Numbers by step.
    pub metrics: MetricsTable,
    /// When the metrics were written last.
    pub written: SystemTime,
    /// Diagnostics by step.
    pub diagnostics: Vec<(u64, DiagnosticsReport)>,
    /// Every start of it; none where the run's program did not keep them.
    pub starts: Vec<RunStart>,
    /// Videos that could not be read.
    pub bad: Vec<BadVideo>,
    /// Pictures by name and step.
    pub pictures: BTreeMap<String, BTreeMap<u64, PathBuf>>,
    /// Probes in the folder, by file.
    pub probes: Vec<(PathBuf, ProbeResult)>,
    /// What could not be understood.
    pub notes: Vec<String>,
}

/// A video that could not be read.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct BadVideo {
    /// The video.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// A line of the diagnostics.
#[derive(Deserialize)]
struct Measured {
    step: u64,
    #[serde(flatten)]
    report: DiagnosticsReport,
}

impl Run {
    /// Reads a run: its folder, or its file of metrics where a folder holds several.
    ///
    /// # Errors
    /// [`ReportError::NoRun`], [`ReportError::Read`], [`ReportError::Malformed`].
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let file = if path.is_dir() { metrics_in(path)? } else { path.to_owned() };
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let Some(tag) = name.strip_suffix(METRICS).map(str::to_owned) else {
            let reason = format!("is neither the folder of a run nor its file of metrics (*{METRICS})");
            return Err(ReportError::NoRun { path: path.to_owned(), reason });
        };
        let metrics = MetricsTable::read(&file)?;
        let written = std::fs::metadata(&file).and_then(|about| about.modified());
        let mut notes = Vec::new();
        if metrics.damaged > 0 {
            notes.push(format!("{name}: {} damaged lines were left out", metrics.damaged));
        }
        let lines: Vec<Measured> = lines(&folder.join(format!("{tag}-diagnostics.jsonl")), &mut notes)?;
        let starts = read_starts(folder).unwrap_or_else(|error| {
            notes.push(error.to_string());
            Vec::new()
        });
        Ok(Self {
            called: name_of(folder).unwrap_or_else(|| tag.clone()),
            metrics,
            written: written.map_err(|source| ReportError::read(&file, source))?,
            diagnostics: lines.into_iter().map(|line| (line.step, line.report)).collect(),
            starts: starts.into_iter().filter(|start| start.tag == tag).collect(),
            bad: lines_of(folder, &tag, &mut notes)?,
            pictures: pictures(folder),
            probes: probes(folder),
            notes,
            folder: folder.to_owned(),
            tag,
        })
    }

    /// Reads several runs, and calls each by a name of its own.
    ///
    /// # Errors
    /// As [`Run::read`].
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Self>, ReportError> {
        let mut runs = paths.iter().map(|path| Self::read(path)).collect::<Result<Vec<_>, _>>()?;
        let names: Vec<String> = runs.iter().map(Self::name).collect();
        for (run, path) in runs.iter_mut().zip(paths) {
            if names.iter().filter(|name| **name == run.called).count() > 1 {
                run.called = path.display().to_string();
            }
        }
        Ok(runs)
    }

    /// What to call it.
    pub fn name(&self) -> String {
        self.called.clone()
    }

    /// Steps done, as far as the metrics say.
    pub fn steps_done(&self) -> u64 {
        let ended = self.starts.last().and_then(|start| start.ended.as_ref()).map(|ended| ended.steps);
        ended.unwrap_or(0).max(self.metrics.step().map_or(0, |step| step + 1))
    }

    /// Steps of the whole run, if it has a record.
    pub fn steps(&self) -> Option<u64> {
        self.starts.last().map(|start| start.steps)
    }

    /// The verdicts on its features, without those on steps that a later start did again.
    pub fn verdicts(&self) -> impl Iterator<Item = &Said> {
        let next = self.starts.iter().skip(1).map(|start| start.from).chain([u64::MAX]);
        self.starts
            .iter()
            .zip(next)
            .flat_map(|(start, next)| start.verdicts.iter().filter(move |said| said.step <= next))
    }

    /// A value of the diagnostics by step.
    pub fn measured(&self, value: impl Fn(&DiagnosticsReport) -> Option<f64>) -> Points {
        self.diagnostics.iter().filter_map(|(step, report)| Some((*step as f64, value(report)?))).collect()
    }

    /// Share of the time that steps waited for data, of all lines together.
    pub fn waiting(&self) -> Option<f64> {
        let sum = |name: &str| self.metrics.points(name).iter().map(|point| point.1).sum::<f64>();
        let (waited, took) = (sum("data_ms"), sum("step_ms"));
        (took > 0.0).then(|| waited / took)
    }
}

/// The last part of a folder's path.
fn name_of(folder: &Path) -> Option<String> {
    let folder = std::path::absolute(folder).ok()?;
    folder.file_name().map(|name| name.to_string_lossy().into_owned())
}

/// The one file of metrics in a folder.
fn metrics_in(folder: &Path) -> Result<PathBuf, ReportError> {
    let entries = std::fs::read_dir(folder).map_err(|source| ReportError::read(folder, source))?;
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.to_string_lossy().ends_with(METRICS));
    found.sort();
    let no_run = |reason| Err(ReportError::NoRun { path: folder.to_owned(), reason });
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => no_run(format!("holds no run (no *{METRICS}); give the folder of `logging.folder`")),
        [first, ..] => no_run(format!("holds {} runs: give the metrics of one, e.g. {}", found.len(), first.display())),
    }
}

fn lines_of(folder: &Path, tag: &str, notes: &mut Vec<String>) -> Result<Vec<BadVideo>, ReportError> {
    lines(&folder.join(format!("{tag}-bad-videos.jsonl")), notes)
}

/// JSON lines; none of a file that is not there. A damaged line is noted.
fn lines<T: for<'a> Deserialize<'a>>(path: &Path, notes: &mut Vec<String>) -> Result<Vec<T>, ReportError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(ReportError::read(path, source)),
    };
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let read: Vec<Option<T>> = whole.lines().map(|line| serde_json::from_str(line).ok()).collect();
    let damaged = read.iter().filter(|line| line.is_none()).count();
    if damaged > 0 {
        notes.push(format!("{}: {damaged} damaged lines were left out", path.display()));
    }
    Ok(read.into_iter().flatten().collect())
}

/// Pictures of a run's own folder, and those that the quickstart leaves beside it.
fn pictures(folder: &Path) -> BTreeMap<String, BTreeMap<u64, PathBuf>> {
    let mut found: BTreeMap<String, BTreeMap<u64, PathBuf>> = BTreeMap::new();
    for name in ["masks", "features", "neighbours"] {
        let path = folder.join(name).with_extension("png");
        if path.is_file() {
            found.entry(format!("{name} at the end")).or_default().insert(u64::MAX, path);
        }
    }
    for (name, step, path) in drawn(folder) {
        found.entry(name).or_default().insert(step, path);
    }
    found
}

/// Name, step and file of each picture that was drawn during a run.
pub(crate) fn drawn(folder: &Path) -> Vec<(String, u64, PathBuf)> {
    let parts = |path: PathBuf| {
        let stem = path.file_stem()?.to_string_lossy().into_owned();
        let (name, step) = stem.rsplit_once('-')?;
        Some((name.to_owned(), step.parse().ok()?, path))
    };
    files(&folder.join(PICTURES), "png").into_iter().filter_map(parts).collect()
}

/// The probes in a folder that say how well they do.
fn probes(folder: &Path) -> Vec<(PathBuf, ProbeResult)> {
    files(folder, "safetensors").into_iter().filter_map(|path| Some((path.clone(), read_probe(&path)?))).collect()
}

/// How well a probe does, if its file says so.
pub fn read_probe(path: &Path) -> Option<ProbeResult> {
    let file = vjepa_weights::load(path).ok()?;
    serde_json::from_str(file.metadata().get(PROBE_RESULT_KEY)?).ok()
}

/// Files with this extension, by name; none of a folder that is not there.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut found: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    found.retain(|path| path.extension().is_some_and(|own| own == extension));
    found.sort();
    found
}

#[cfg(test)]
pub(crate) mod tests;
