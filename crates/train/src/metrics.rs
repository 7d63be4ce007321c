//! The numbers of a step, and the CSV they go to.

use super::{TrainError, Travel};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vjepa_graphs::Declaration;
use vjepa_runtime::{resident_memory, write_atomically};

/// Numbers of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// The step, from 0.
    pub step: u64,
    /// The epoch it belongs to, from 0.
    pub epoch: u64,
    /// Steps of the whole run.
    pub of: u64,
    /// What was minimised.
    pub loss: f64,
    /// The other scalars the objective reports, by name.
    pub terms: Vec<(&'static str, f64)>,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Momentum of the moving averages.
    pub momentum: f64,
    /// Gradient norms before clipping, by trained parameter set.
    pub grad_norms: Vec<(&'static str, f64)>,
    /// The one of them that vanishes when the run collapses.
    pub monitored_norm: f64,
    /// Whether gradients above the limit were clipped.
    pub clipping: bool,
    /// Whether the step changed nothing, since its loss was above `optimization.skip_above`.
    pub skipped: bool,
    /// Context and target tokens per sample, for each mask generator; of several groups, the mean.
    pub tokens: Vec<[usize; 2]>,
    /// Time spent waiting for data.
    pub waited: Duration,
    /// Time of the whole step, data included.
    pub took: Duration,
    /// Clips learned from so far, by all parts of the run and this step.
    pub clips: u64,
    /// How sums of gradients travelled between the ranks.
    pub travel: Travel,
}

/// `<folder>/<tag>-metrics.csv`.
pub struct Metrics {
    path: PathBuf,
    writer: csv::Writer<File>,
    every: u64,
    pending: Option<StepReport>,
    /// The last write failed, and that was said.
    failing: bool,
}

/// The columns of an objective's run.
fn header(declaration: &Declaration) -> Vec<String> {
    let fixed = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let mut header = fixed(&["step", "epoch", "loss"]);
    header.extend(fixed(&declaration.terms));
    header.extend(fixed(&["lr", "wd", "momentum"]));
    header.extend(declaration.trained().map(|set| format!("grad_norm_{}", set.name)));
    header.extend(fixed(&["clipping", "tokens", "data_ms", "step_ms", "clips", "memory_mb"]));
    header
}

/// The same columns' values.
fn row(report: &StepReport) -> Vec<String> {
    let tokens: Vec<String> = report.tokens.iter().map(|[kept, wanted]| format!("{kept}+{wanted}")).collect();
    let values = |named: &[(&'static str, f64)]| named.iter().map(|(_, value)| value.to_string()).collect::<Vec<_>>();
    let mut row = vec![report.step.to_string(), report.epoch.to_string(), report.loss.to_string()];
    row.extend(values(&report.terms));
    row.extend([report.lr, report.wd, report.momentum].map(|value| value.to_string()));
    row.extend(values(&report.grad_norms));
    row.extend([
        u8::from(report.clipping).to_string(),
        tokens.join(" "),
        format!("{:.2}", report.waited.as_secs_f64() * 1e3),
        format!("{:.2}", report.took.as_secs_f64() * 1e3),
        report.clips.to_string(),
        resident_memory().map(|bytes| format!("{:.1}", bytes as f64 / 1e6)).unwrap_or_default(),
    ]);
    row
}

impl Metrics {
    /// Opens the file with the columns of an objective; a resumed run (`from` > 0) keeps the rows before `from`, a new one
    /// starts afresh.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(
        folder: &Path,
        tag: &str,
        declaration: &Declaration,
        from: u64,
        every: u64,
    ) -> Result<Self, TrainError> {
        let path = folder.join(format!("{tag}-metrics.csv"));
        let io = |source: std::io::Error| TrainError::Io { path: path.clone(), source };
        let header = header(declaration);
        let kept = if from > 0 { rows_before(&path, from, &header) } else { Vec::new() };
        // Until the kept rows are all in the new file, the old one stays.
        write_atomically(&path, |out| {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(&header)?;
            kept.iter().try_for_each(|row| writer.write_record(row))?;
            writer.flush()
        })
        .map_err(io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Self { path, writer: csv::Writer::from_writer(file), every: every.max(1), pending: None, failing: false })
    }

    /// Adds a step; every `metrics_every`-th is written, and the last. A disk that is full ends no run: what cannot be written
    /// is said in the first such step, and tried again in later ones.
    pub fn add(&mut self, report: &StepReport) -> Option<String> {
        self.pending = Some(report.clone());
        if !report.step.is_multiple_of(self.every) {
            return None;
        }
        let failed = self.flush().err();
        let known = std::mem::replace(&mut self.failing, failed.is_some());
        failed.filter(|_| !known).map(|error| format!("metrics cannot be written ({error}); training goes on"))
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn flush(&mut self) -> Result<(), TrainError> {
        if let Some(report) = self.pending.take() {
            let io = |source| TrainError::Io { path: self.path.clone(), source };
            self.writer.write_record(row(&report)).map_err(|error| io(std::io::Error::other(error)))?;
        }
        self.writer.flush().map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }

    /// Where the rows are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Rows of an earlier part of the run in the columns of now, empty where an older program had no such column; none of a file
/// that cannot be read.
fn rows_before(path: &Path, step: u64, header: &[String]) -> Vec<csv::StringRecord> {
    let Ok(mut reader) = csv::Reader::from_path(path) else { return Vec::new() };
    let Ok(old) = reader.headers().cloned() else { return Vec::new() };
    let places: Vec<_> = header.iter().map(|name| old.iter().position(|own| own == name)).collect();
    let rows = reader.records().filter_map(Result::ok);
    let kept = rows.filter(|row| row.get(0).and_then(|step| step.parse().ok()).is_some_and(|s: u64| s < step));
    let moved = |row: csv::StringRecord| -> csv::StringRecord {
        places.iter().map(|place| place.and_then(|at| row.get(at)).unwrap_or("")).collect()
    };
    kept.map(moved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_graphs::{AnyObjective, EncoderConfig, Jepa, JepaLoss, PredictorConfig};

    fn declaration() -> Declaration {
        let encoder = EncoderConfig::tiny();
        let predictor = PredictorConfig::for_encoder(&encoder);
        AnyObjective::from(Jepa::plain(encoder, predictor, 1, JepaLoss::default())).declaration().clone()
    }

    #[test]
    fn the_columns_of_the_official_objective_stay_as_they_are() {
        let columns = "step,epoch,loss,loss_jepa,loss_reg,lr,wd,momentum,grad_norm_encoder,grad_norm_predictor,clipping,\
                       tokens,data_ms,step_ms,clips,memory_mb";
        assert_eq!(header(&declaration()).join(","), columns);
    }

    #[test]
    fn rows_of_an_older_program_are_kept_in_the_columns_of_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("jepa-metrics.csv");
        std::fs::write(&path, "step,loss,tokens,step_ms\n0,0.5,1+2,7\n1,0.4,1+2,8\n2,0.3,1+2,9\n").unwrap();
        drop(Metrics::open(folder.path(), "jepa", &declaration(), 2, 1).unwrap());
        let text = std::fs::read_to_string(&path).unwrap();
        let rows: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(rows, ["0,,0.5,,,,,,,,,1+2,,7,,", "1,,0.4,,,,,,,,,1+2,,8,,"]);
    }

    /// The old file is never truncated: a second link to it keeps all its rows while the new file is there.
    #[test]
    fn rows_are_kept_in_a_new_file() {
        let declaration = declaration();
        let header = header(&declaration);
        let folder = tempfile::tempdir().unwrap();
        let [path, old] = ["jepa-metrics.csv", "old.csv"].map(|name| folder.path().join(name));
        let row = |step: &str| format!("{step}{}\n", ",1".repeat(header.len() - 1));
        let kept = format!("{}\n{}{}", header.join(","), row("0"), row("1"));
        let rows = format!("{kept}{}", row("2"));
        std::fs::write(&path, &rows).unwrap();
        std::fs::hard_link(&path, &old).unwrap();
        drop(Metrics::open(folder.path(), "jepa", &declaration, 2, 1).unwrap());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), rows);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }
}
