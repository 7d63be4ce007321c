//! What `vjepa finetune` says of its runs: of one, or of several draws of a share with their mean.

use std::path::Path;

use serde_json::{Value, json};
use vjepa_collective::Alone;
use vjepa_data::{BadVideo, TestPlan, VideoList};
use vjepa_eval::protocols::finetuned::{OpenTuned, open_tuned};
use vjepa_recipe::config::Config;
use vjepa_recipe::draws::in_words;
use vjepa_recipe::records::Accuracy;
use vjepa_runtime::plan::Device;
use vjepa_train::TrainOutcome;

use super::seed_of;
use crate::cli::CliError;
use crate::cli::probe::{Bar, mean, print_skipped, standard_error};
use crate::cli::train::print_outcome;

/// A run that was trained, and its test.
pub(super) struct Done<'a> {
    pub(super) config: &'a Config,
    pub(super) outcome: TrainOutcome,
    pub(super) test: Option<Test>,
}

/// What a test found.
pub(super) struct Test {
    accuracy: Accuracy,
    clips: usize,
    crops: usize,
    bad: Vec<BadVideo>,
}

impl Done<'_> {
    pub(super) fn interrupted(&self) -> bool {
        self.outcome.interrupted
    }

    /// Tests the result on the videos of a list, and writes what it found beside it.
    pub(super) fn test(&mut self, device: Device, list: &VideoList) -> Result<(), CliError> {
        let (Some(finetune), Some(checkpoint)) = (&self.config.finetune, &self.outcome.checkpoint) else {
            return Ok(());
        };
        let mut opened: OpenTuned = open_tuned(device, checkpoint, None)?;
        let plan = TestPlan::of(finetune, self.config.preprocessing());
        let mut bar = Bar::default();
        let tested = opened.model.test(&plan, &list.entries, &Alone, &mut |progress| bar.show(progress))?;
        bar.clear();
        let Some(tested) = tested else { return Ok(()) };
        let accuracy = tested.accuracy(&opened.classes_of(&tested.labels, finetune.labels_from)?);
        let test = Test { accuracy, clips: plan.clips, crops: plan.crops, bad: tested.bad };
        write(&checkpoint.with_file_name(format!("{}-test.json", self.config.logging.write_tag)), &test)?;
        self.test = Some(test);
        Ok(())
    }

    fn json(&self) -> Value {
        let outcome = &self.outcome;
        json!({
            "steps": outcome.steps, "loss": outcome.loss, "checkpoint": outcome.checkpoint, "metrics": outcome.metrics,
            "bad_videos": outcome.bad_videos, "skipped": outcome.skipped, "interrupted": outcome.interrupted,
            "test": self.test.as_ref().map(Test::json),
        })
    }
}

impl Test {
    fn json(&self) -> Value {
        json!({
            "top1": self.accuracy.top1, "top5": self.accuracy.top5, "videos": self.accuracy.videos, "clips": self.clips,
            "crops": self.crops, "bad_videos": self.bad,
        })
    }
}

fn write(path: &Path, test: &Test) -> Result<(), CliError> {
    let text = format!("{:#}\n", test.json());
    vjepa_runtime::write_atomically(path, |file| std::io::Write::write_all(file, text.as_bytes()))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()).into())
}

/// Everything there is to say.
pub(super) struct Report<'a> {
    /// The runs that were begun.
    pub(super) runs: &'a [Done<'a>],
    /// How many there are to be.
    pub(super) of: usize,
    pub(super) notes: &'a [String],
}

impl Report<'_> {
    /// Prints it, for people or for machines.
    pub(super) fn print(&self, json: bool) {
        if json {
            println!("{}", self.json());
            return;
        }
        self.runs.iter().for_each(|run| self.print_run(run));
        let accuracies = self.accuracies();
        if let (2.., Some(mean), Some(error)) = (self.of, mean(&accuracies), standard_error(&accuracies)) {
            println!(
                "mean        top-1 {:.1} \u{b1} {:.1} %, top-5 {:.1} %, over {} splits ({})",
                100.0 * mean.top1,
                100.0 * error,
                100.0 * mean.top5,
                accuracies.len(),
                in_words(&self.seeds())
            );
        }
    }

    /// The tests of all runs; of none where one is missing.
    fn accuracies(&self) -> Vec<Accuracy> {
        let all: Option<Vec<Accuracy>> = self.runs.iter().map(|run| Some(run.test.as_ref()?.accuracy)).collect();
        all.filter(|all| all.len() == self.of).unwrap_or_default()
    }

    /// Seeds of the draws of a share.
    fn seeds(&self) -> Vec<u64> {
        self.runs.iter().filter_map(|run| seed_of(run.config)).collect()
    }

    fn classes(&self) -> usize {
        let of = |run: &Done<'_>| run.config.finetune.as_ref().map(|finetune| finetune.class_names.len());
        self.runs.first().and_then(of).unwrap_or_default()
    }

    fn json(&self) -> Value {
        let mut summary = match self.runs {
            [only] if self.of == 1 => only.json(),
            runs => {
                let accuracies = self.accuracies();
                json!({
                    "splits": self.of, "runs": runs.iter().map(Done::json).collect::<Vec<_>>(),
                    "interrupted": runs.iter().any(Done::interrupted), "test": mean(&accuracies),
                    "test_standard_error": standard_error(&accuracies),
                })
            }
        };
        summary["split_seeds"] = json!(self.seeds());
        summary["classes"] = self.classes().into();
        summary["notes"] = json!(self.notes);
        summary
    }

    fn print_run(&self, run: &Done<'_>) {
        let outcome = &run.outcome;
        if let (2.., Some(folder)) = (self.of, &run.config.logging.folder) {
            println!("split       {folder}");
        }
        print_outcome(outcome, false);
        if let Some(Test { accuracy: Accuracy { top1, top5, videos }, clips, crops, bad }) = &run.test {
            println!(
                "test        top-1 {:.1} %, top-5 {:.1} %, {videos} videos of {} classes, {clips} clips x {crops} crops",
                100.0 * top1,
                100.0 * top5,
                self.classes()
            );
            print_skipped(&bad.iter().collect::<Vec<_>>());
        }
        if let (Some(checkpoint), false) = (&outcome.checkpoint, outcome.interrupted) {
            println!("to export   vjepa compile --checkpoint {} --export onnx --out model.onnx", checkpoint.display());
        }
    }
}
