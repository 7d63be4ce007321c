//! What a step says, and the CSV it goes to.

use super::TrainError;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;
use vjepa_runtime::write_atomically;

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
    /// Distance of predictions and targets.
    pub loss_jepa: f64,
    /// Variance regulariser.
    pub loss_reg: f64,
    /// Learning rate.
    pub lr: f64,
    /// Weight decay.
    pub wd: f64,
    /// Momentum of the target's moving average.
    pub momentum: f64,
    /// Gradient norms before clipping, encoder and predictor.
    pub grad_norms: [f64; 2],
    /// Whether gradients above the limit were clipped.
    pub clipping: bool,
    /// Context and target tokens a sample, for each mask generator.
    pub tokens: Vec<[usize; 2]>,
    /// Time spent waiting for data.
    pub waited: Duration,
    /// Time of the whole step, data included.
    pub took: Duration,
}

/// `<folder>/<tag>-metrics.csv`.
pub struct Metrics {
    path: PathBuf,
    writer: csv::Writer<File>,
    every: u64,
    pending: Option<StepReport>,
}

const HEADER: [&str; 14] = [
    "step",
    "epoch",
    "loss",
    "loss_jepa",
    "loss_reg",
    "lr",
    "wd",
    "momentum",
    "grad_norm_encoder",
    "grad_norm_predictor",
    "clipping",
    "tokens",
    "data_ms",
    "step_ms",
];

impl Metrics {
    /// Opens the file; a resumed run (`from` > 0) keeps the rows before `from`, a new one starts afresh.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn open(folder: &Path, tag: &str, from: u64, every: u64) -> Result<Self, TrainError> {
        let path = folder.join(format!("{tag}-metrics.csv"));
        let io = |source: std::io::Error| TrainError::Io { path: path.clone(), source };
        let kept = if from > 0 { rows_before(&path, from) } else { Vec::new() };
        // Until the kept rows are all in the new file, the old one stays.
        write_atomically(&path, |out| {
            let mut writer = csv::Writer::from_writer(out);
            writer.write_record(HEADER)?;
            kept.iter().try_for_each(|row| writer.write_record(row))?;
            writer.flush()
        })
        .map_err(io)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(io)?;
        Ok(Self { path, writer: csv::Writer::from_writer(file), every: every.max(1), pending: None })
    }

    /// Notes a step; every `metrics_every`-th is written, and the last.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn add(&mut self, report: &StepReport) -> Result<(), TrainError> {
        self.pending = Some(report.clone());
        if report.step.is_multiple_of(self.every) { self.flush() } else { Ok(()) }
    }

    /// Writes what is pending.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn flush(&mut self) -> Result<(), TrainError> {
        if let Some(report) = self.pending.take() {
            let tokens: Vec<String> = report.tokens.iter().map(|[kept, wanted]| format!("{kept}+{wanted}")).collect();
            let row = [
                report.step.to_string(),
                report.epoch.to_string(),
                report.loss.to_string(),
                report.loss_jepa.to_string(),
                report.loss_reg.to_string(),
                report.lr.to_string(),
                report.wd.to_string(),
                report.momentum.to_string(),
                report.grad_norms[0].to_string(),
                report.grad_norms[1].to_string(),
                u8::from(report.clipping).to_string(),
                tokens.join(" "),
                format!("{:.2}", report.waited.as_secs_f64() * 1e3),
                format!("{:.2}", report.took.as_secs_f64() * 1e3),
            ];
            let io = |source| TrainError::Io { path: self.path.clone(), source };
            self.writer.write_record(row).map_err(|error| io(std::io::Error::other(error)))?;
        }
        self.writer.flush().map_err(|source| TrainError::Io { path: self.path.clone(), source })
    }

    /// Where the rows are.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Rows of an earlier part of the run; a file that cannot be read has none.
fn rows_before(path: &Path, step: u64) -> Vec<csv::StringRecord> {
    let Ok(mut reader) = csv::Reader::from_path(path) else { return Vec::new() };
    let rows = reader.records().filter_map(Result::ok);
    rows.filter(|row| row.get(0).and_then(|step| step.parse().ok()).is_some_and(|s: u64| s < step)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The old file is never cut short: another name of it has all its rows while the new one is there.
    #[test]
    fn rows_are_kept_in_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let [path, old] = ["jepa-metrics.csv", "old.csv"].map(|name| folder.path().join(name));
        let row = |step: &str| format!("{step}{}\n", ",1".repeat(HEADER.len() - 1));
        let kept = format!("{}\n{}{}", HEADER.join(","), row("0"), row("1"));
        let rows = format!("{kept}{}", row("2"));
        std::fs::write(&path, &rows).unwrap();
        std::fs::hard_link(&path, &old).unwrap();
        drop(Metrics::open(folder.path(), "jepa", 2, 1).unwrap());
        assert_eq!(std::fs::read_to_string(&old).unwrap(), rows);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    }
}
