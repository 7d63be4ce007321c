//! Detections against ground truth, and as files.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vjepa_data::annotations::ava;
use vjepa_metrics::Figure;
use vjepa_metrics::ava::{AvaResult, CAP, GroundTruth, LeftOut, Order, Protocol, Row, evaluate};
use vjepa_runtime::write_atomically;

use crate::cli::CliError;
use crate::cli::given::all_there;
use crate::cli::named::named;

/// What detections are held against.
#[derive(clap::Args)]
pub(super) struct Scoring {
    /// Ground truth: video,second,x1,y1,x2,y2,action[,person]
    #[arg(long, value_name = "CSV")]
    boxes: PathBuf,
    /// Actions that are evaluated (.pbtxt), AVA's 60 [default: every action of the ground truth]
    #[arg(long, value_name = "FILE")]
    actions: Option<PathBuf>,
    /// Timestamps that do not count: video,second
    #[arg(long, value_name = "CSV")]
    excluded: Option<PathBuf>,
    /// In which order the detections of a frame take its boxes
    #[arg(long, default_value = "slowfast", value_parser = named(&Order::ALL, Order::name, Order::about))]
    order: Order,
    /// Multiply scores by the person's, as VideoMAE's code does
    #[arg(long)]
    by_people: bool,
}

impl Scoring {
    /// The files that detections are held against.
    pub(super) fn inputs(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.boxes), self.actions.as_ref(), self.excluded.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    /// Refuses files that are not there.
    pub(super) fn ready(&self) -> Result<(), CliError> {
        all_there(&[
            ("--boxes", Some(&self.boxes)),
            ("--actions", self.actions.as_deref()),
            ("--excluded", self.excluded.as_deref()),
        ])
    }

    pub(super) fn boxes(&self) -> &Path {
        &self.boxes
    }

    pub(super) fn by_people(&self) -> bool {
        self.by_people
    }

    /// Prints the mean average precision of the rows of each detector, which are `of` something, and of each action, and with
    /// several the mean over them; as JSON with the notes of `json`.
    pub(super) fn report(&self, detectors: &[Vec<Row>], of: &str, json: Option<&[String]>) -> Result<(), CliError> {
        let truth = ava::read_truth(&self.boxes)?;
        let names = self.actions.as_deref().map(ava::read_label_map).transpose()?;
        let classes: BTreeSet<u32> = match &names {
            Some(names) => names.keys().copied().collect(),
            None => truth.rows.iter().map(|row| row.action).collect(),
        };
        let excluded = self.excluded.as_deref().map(ava::read_excluded).transpose()?.unwrap_or_default();
        let protocol = Protocol { order: self.order, classes: &classes, excluded: &excluded, cap: CAP };
        let found: Vec<AvaResult> = detectors.iter().map(|rows| evaluate(&truth, rows, &protocol)).collect();
        let maps: Vec<f64> = found.iter().filter_map(|found| found.map).collect();
        let Figure { mean, se } = Figure::of(&maps);
        if let Some(notes) = json {
            let each = |(rows, found): (&Vec<Row>, &AvaResult)| {
                let count = rows.len();
                serde_json::json!({"detections": count, "evaluation": found})
            };
            let mut summary = match (detectors, found.as_slice()) {
                ([rows], [found]) => each((rows, found)),
                _ => serde_json::json!({
                    "splits": found.len(), "runs": detectors.iter().zip(&found).map(each).collect::<Vec<_>>(),
                    "map": (!maps.is_empty()).then_some(mean), "map_standard_error": (maps.len() > 1).then_some(se),
                }),
            };
            summary["boxes"] = of.into();
            summary["notes"] = serde_json::json!(notes);
            println!("{summary}");
            return Ok(());
        }
        if maps.is_empty() {
            let left = found.first().and_then(|found| left_out(&truth, &found.truth_left_out));
            let (path, why) = (self.boxes.display(), left.unwrap_or_else(|| "none shows an action".to_owned()));
            return Err(format!(
                "{path} has no box that counts, so there is no mean average precision: {why}; correct the file"
            )
            .into());
        }
        for (rows, found) in detectors.iter().zip(&found) {
            print(found, &format!("{of}; {} detections", rows.len()), names.as_ref());
        }
        if found.len() > 1 {
            println!("mean of {} detectors: mAP@0.5 {:.2} \u{b1} {:.2} %", found.len(), 100.0 * mean, 100.0 * se);
        }
        if let Some(why) = found.first().and_then(|found| left_out(&truth, &found.truth_left_out)) {
            println!("left out of the ground truth: {why}");
        }
        Ok(())
    }
}

/// Prints what one detector's rows came to.
fn print(found: &AvaResult, of: &str, names: Option<&BTreeMap<u32, String>>) {
    let counted = found.classes.iter().filter(|class| class.ap.is_some()).count();
    println!(
        "mAP@0.5 {:.2} % over {counted} actions ({}; {of})",
        100.0 * found.map.unwrap_or_default(),
        found.order.name()
    );
    for class in found.classes.iter().filter(|class| class.ap.is_some()) {
        let name = names.and_then(|names| names.get(&class.action)).map_or("", String::as_str);
        let ap = class.ap.unwrap_or_default();
        println!("  {:>3} {:>6.2} %  {:>6} boxes  {name}", class.action, 100.0 * ap, class.boxes);
    }
    let left = found.detections_left_out;
    if left.other_classes + left.excluded + left.empty + left.unannotated + left.beyond_cap > 0 {
        println!(
            "left out: {} of other actions, {} of excluded timestamps, {} empty boxes, {} unannotated, {} beyond the cap",
            left.other_classes, left.excluded, left.empty, left.unannotated, left.beyond_cap
        );
    }
}

/// Why rows of ground truth did not take part, with the line of the first box that is none; nothing where all did.
fn left_out(truth: &GroundTruth, left: &LeftOut) -> Option<String> {
    let flat = truth.rows.iter().zip(&truth.lines).find(|(row, _)| !row.has_area());
    let line = flat.map_or_else(String::new, |(_, line)| format!(", the first in line {line}"));
    let reasons = [
        (left.empty, format!("reversed or empty (x1 < x2 and y1 < y2{line})")),
        (left.other_classes, "of actions that are not evaluated".to_owned()),
        (left.excluded, "of excluded timestamps".to_owned()),
    ];
    let said: Vec<String> =
        reasons.into_iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    (!said.is_empty()).then(|| format!("of {} rows {}", truth.rows.len(), said.join(", ")))
}

/// Writes detections as official evaluations read them.
pub(super) fn write(path: &Path, rows: &[Row]) -> Result<(), CliError> {
    write_atomically(path, |out| ava::write_detections(rows, false, out))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()).into())
}
