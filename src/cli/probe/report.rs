//! What `vjepa probe` says of its probes: a table, tables as CSV, the confusion matrix as a picture.

use std::fs;
use std::path::{Path, PathBuf};

use vjepa_eval::protocols::heads::Head;
use vjepa_eval::write_atomic;
use vjepa_metrics::{Confusion, Figure};
use vjepa_recipe::draws::in_words;
use vjepa_recipe::records::{Accuracy, ProbeResult};
use vjepa_runtime::files;
use vjepa_view::pictures::confusion;

use super::work::{HeadResult, Outcome};
use crate::cli::CliError;
use crate::table;

/// Everything there is to say.
pub(in crate::cli) struct Report<'a> {
    pub(super) heads: &'a [Head],
    pub(super) outcome: &'a Outcome,
    pub(super) names: &'a [String],
    pub(super) encoder: &'a Path,
    /// Steps of the encoder's training and clips it has seen, where they are known.
    pub(super) seen: Option<(u64, u64)>,
    pub(super) clips: usize,
}

/// The mean over splits.
pub(in crate::cli) fn mean(of: &[Accuracy]) -> Option<Accuracy> {
    let last = of.last()?;
    let figure = |share: fn(&Accuracy) -> f64| Figure::of(&of.iter().map(share).collect::<Vec<_>>()).mean;
    Some(Accuracy { top1: figure(|one| one.top1), top5: figure(|one| one.top5), videos: last.videos })
}

/// The standard error of top-1 over splits; none of one split.
pub(in crate::cli) fn standard_error(of: &[Accuracy]) -> Option<f64> {
    (of.len() > 1).then(|| Figure::of(&of.iter().map(|one| one.top1).collect::<Vec<_>>()).se)
}

impl Report<'_> {
    fn rows(&self) -> impl Iterator<Item = (&Head, &HeadResult)> {
        self.heads.iter().zip(&self.outcome.runs)
    }

    /// The record in a probe's file.
    pub(super) fn result(&self, best: usize) -> ProbeResult {
        let run = self.outcome.runs.get(best).cloned().unwrap_or_default();
        ProbeResult {
            kind: self.heads.get(best).map_or(String::new(), |head| head.kind.name().to_owned()),
            classes: self.names.len(),
            clips_per_video: self.clips,
            train: mean(&run.train),
            val: mean(&run.val),
            encoder: self.encoder.display().to_string(),
            encoder_step: self.seen.map(|(step, _)| step),
            clips_seen: self.seen.map(|(_, clips)| clips),
        }
    }

    /// For machines.
    pub(super) fn json(&self) -> serde_json::Value {
        let best = self.outcome.best;
        let own = |run: Option<&HeadResult>, of: fn(&HeadResult) -> &Vec<Accuracy>| run.and_then(|run| mean(of(run)));
        let run = best.and_then(|best| self.outcome.runs.get(best));
        let heads = self.rows().map(|(head, run)| {
            serde_json::json!({
                "kind": head.kind.name(), "lr": head.rates.map(|[lr, _]| lr), "wd": head.rates.map(|[_, wd]| wd),
                "train": mean(&run.train), "val": mean(&run.val), "val_standard_error": standard_error(&run.val),
                "diverged": run.diverged,
            })
        });
        serde_json::json!({
            "kind": best.and_then(|best| self.heads.get(best)).map(|head| head.kind.name()),
            "classes": self.names.len(), "clips": self.clips, "best": best, "splits": self.outcome.splits,
            "split_seeds": self.outcome.seeds,
            "augmented": self.outcome.online, "train": own(run, |run| &run.train), "val": own(run, |run| &run.val),
            "class_mean": run.and_then(|run| run.confusion.as_ref()).map(Confusion::class_mean),
            "heads": heads.collect::<Vec<_>>(),
            "encoder_step": self.seen.map(|(step, _)| step), "clips_seen": self.seen.map(|(_, clips)| clips),
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if let Some((step, clips)) = self.seen {
            text += &format!("seen     {clips} clips in {step} steps\n");
        }
        let count = |of: fn(&HeadResult) -> &Vec<Accuracy>| {
            self.outcome.runs.iter().find_map(|run| of(run).last()).map(|one| one.videos)
        };
        let counts = [("trained on", count(|run| &run.train)), ("evaluated on", count(|run| &run.val))];
        let counts = counts.into_iter().filter_map(|(word, count)| Some(format!("{word} {}", count?)));
        let how = if self.outcome.online { ", with augmentation" } else { "" };
        let splits = match self.outcome.seeds.as_slice() {
            [] => String::new(),
            [one] => format!(", of the split drawn with seed {one}"),
            seeds => format!(", mean of {} splits ({})", seeds.len(), in_words(seeds)),
        };
        text +=
            &format!("samples  {}{splits}{how}, {} classes\n", counts.collect::<Vec<_>>().join(", "), self.names.len());
        let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1} %", 100.0 * share));
        let with_error = |of: &[Accuracy]| match (mean(of), standard_error(of)) {
            (Some(mean), Some(error)) => format!("{:.1} \u{b1} {:.1} %", 100.0 * mean.top1, 100.0 * error),
            (mean, _) => percent(mean.map(|mean| mean.top1)),
        };
        let rows = self.rows().enumerate().map(|(place, (head, run))| {
            let rate = |at: usize| {
                head.rates.and_then(|rates| rates.get(at).copied()).map_or("-".into(), |rate| rate.to_string())
            };
            let mark = if self.outcome.best == Some(place) && self.heads.len() > 1 { " *" } else { "" };
            let mut row = vec![format!("{}{mark}", head.kind.name()), rate(0), rate(1)];
            match &run.diverged {
                Some(_) => row.extend(["diverged".to_owned(), "-".into(), "-".into()]),
                None => row.extend([
                    with_error(&run.train),
                    with_error(&run.val),
                    percent(mean(if run.val.is_empty() { &run.train } else { &run.val }).map(|mean| mean.top5)),
                ]),
            }
            row
        });
        text += &table::aligned(&["probe", "lr", "wd", "train top-1", "val top-1", "top-5"], rows.collect());
        text
    }

    /// Writes `heads.csv`, and of the best probe `per-class.csv`, `confusion.csv` and `confusion.png`.
    pub(super) fn save(&self, folder: &Path) -> Result<(), CliError> {
        create(folder)?;
        let mut csv = String::from("kind,lr,wd,splits,train_top1,val_top1,val_top1_standard_error,val_top5,diverged\n");
        for (head, run) in self.rows() {
            let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
            let (train, val) = (mean(&run.train), mean(&run.val));
            let fields = [
                head.kind.name().to_owned(),
                number(head.rates.map(|[lr, _]| lr)),
                number(head.rates.map(|[_, wd]| wd)),
                self.outcome.splits.to_string(),
                number(train.map(|one| one.top1)),
                number(val.map(|one| one.top1)),
                number(standard_error(&run.val)),
                number(val.map(|one| one.top5)),
                run.diverged.is_some().to_string(),
            ];
            csv += &(fields.join(",") + "\n");
        }
        write_atomic(&folder.join("heads.csv"), csv.as_bytes())?;
        let best = self.outcome.best.or_else(|| self.outcome.runs.iter().position(|run| run.confusion.is_some()));
        let run = best.and_then(|best| self.outcome.runs.get(best));
        match run.and_then(|run| run.confusion.as_ref()) {
            Some(matrix) => save_confusion(folder, self.names, matrix),
            None => Ok(()),
        }
    }
}

/// Refuses a folder in which the tables and the picture would take the place of what is read.
pub(in crate::cli) fn spare_by_results(folder: Option<&Path>, read: &[PathBuf]) -> Result<(), CliError> {
    let Some(folder) = folder else { return Ok(()) };
    let written = ["heads.csv", "per-class.csv", "confusion.csv", "confusion.png"].map(|name| folder.join(name));
    Ok(files::spare("--results", folder, &written, read.iter().map(PathBuf::as_path))?)
}

fn create(folder: &Path) -> Result<(), CliError> {
    fs::create_dir_all(folder).map_err(|error| format!("{} cannot be made: {error}", folder.display()).into())
}

/// Writes `per-class.csv`, `confusion.csv` and `confusion.png`.
pub(in crate::cli) fn save_confusion(folder: &Path, names: &[String], matrix: &Confusion) -> Result<(), CliError> {
    create(folder)?;
    let mut table = Vec::new();
    matrix.write_per_class_csv(names, &mut table)?;
    write_atomic(&folder.join("per-class.csv"), &table)?;
    let mut table = Vec::new();
    matrix.write_csv(names, &mut table)?;
    write_atomic(&folder.join("confusion.csv"), &table)?;
    let note = format!(
        "rows: the class of a sample; columns: the class predicted. {:.1} % right, {:.1} % in the mean of the classes",
        100.0 * matrix.accuracy(),
        100.0 * matrix.class_mean()
    );
    let rows: Vec<&[u64]> = matrix.rows().collect();
    confusion("Which classes are taken for which", &note, names, &rows).save(&folder.join("confusion.png"))?;
    Ok(())
}
