//! Mean average precision at IoU 0.5 on AVA.
//!
//! Three evaluation codes are in use and disagree, because each gives the boxes of a frame to its detections in another
//! order; [`Order`] has them by name. SlowFast's is the default: it is what V-JEPA's figures follow. Common to all: only the
//! classes of the label map count; a detection takes the ground-truth box that it overlaps most (the first of equal ones)
//! and is right if that overlap is 0.5 or more and the box is not taken, with no second choice; the average precision of a class
//! is the area under its precision, made monotonous; classes without ground truth are left out of the mean.
//!
//! Sources: facebookresearch/SlowFast `slowfast/utils/ava_evaluation`, MCG-NJU/VideoMAE-Action-Detection,
//! activitynet/ActivityNet `Evaluation/get_ava_performance.py`.

mod matching;
mod precision;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

pub use precision::average_precision;

/// Overlap from which a detection is right.
pub const OVERLAP: f64 = 0.5;
/// Detections of a frame, over all classes, that ActivityNet's code keeps.
pub const CAP: usize = 50;

/// A key frame: a second of a video.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyFrame {
    /// The video's id.
    pub video: String,
    /// The second; AVA's annotations begin at 902 of the film.
    pub second: u32,
}

/// A box of one class: ground truth, or a detection with its score.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where.
    pub frame: KeyFrame,
    /// x1, y1, x2, y2 as shares of the frame.
    pub corners: [f64; 4],
    /// The action's id, from 1.
    pub action: u32,
    /// The detector's score; 1 for ground truth.
    pub score: f64,
}

impl Row {
    /// Whether it is neither reversed nor empty.
    pub fn has_area(&self) -> bool {
        let [x1, y1, x2, y2] = self.corners;
        x1 < x2 && y1 < y2
    }
}

/// Boxes of annotated frames.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroundTruth {
    /// The line of each row in its file, from 1; empty where they are from none.
    pub lines: Vec<usize>,
    /// One row per box and action, in the order of the file.
    pub rows: Vec<Row>,
    /// Every frame that the file names, also those without boxes.
    pub frames: BTreeSet<KeyFrame>,
}

/// In which order the detections of a frame and class take its boxes, with the habits of the code it is named after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As listed: a worse duplicate that is listed first takes the box.
    #[default]
    Slowfast,
    /// Best score first.
    Score,
    /// Best score first among the [`CAP`] best of the frame; frames without a row in the ground truth are ignored, excluded
    /// timestamps are not.
    Activitynet,
}

impl Order {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Slowfast, Self::Score, Self::Activitynet];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Slowfast => "slowfast",
            Self::Score => "score",
            Self::Activitynet => "activitynet",
        }
    }

    /// What it does, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::Slowfast => "boxes go to detections in file order (PySlowFast; the usual figure)",
            Self::Score => "boxes go to the best scores first (VideoMAE's code, Google's of 2018)",
            Self::Activitynet => "as score, the 50 best of a frame, annotated frames only (ActivityNet since 2019)",
        }
    }
}

/// Rows that did not take part, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Rows of classes that are not evaluated.
    pub other_classes: usize,
    /// Rows of excluded timestamps.
    pub excluded: usize,
    /// Boxes without an area: reversed or empty.
    pub empty: usize,
    /// Detections in frames without a row in the ground truth (ActivityNet's order only).
    pub unannotated: usize,
    /// Detections beyond the cap of a frame (ActivityNet's order only).
    pub beyond_cap: usize,
}

/// One class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ClassPrecision {
    /// The action's id.
    pub action: u32,
    /// Average precision; none without ground truth.
    pub ap: Option<f64>,
    /// Boxes of ground truth.
    pub boxes: usize,
    /// Detections.
    pub detections: usize,
    /// Those that are right.
    pub right: usize,
    /// Those whose score an earlier one of the class has.
    pub tied: usize,
    /// The average precision when of equal scores the wrong ones come first, and when the right ones do. Evaluation codes
    /// order them arbitrarily, so theirs lies between.
    pub range: Option<[f64; 2]>,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AvaResult {
    /// Which order it was.
    pub order: Order,
    /// Mean average precision over classes with ground truth; none where there is no such class.
    pub map: Option<f64>,
    /// Every class of the label map, by id.
    pub classes: Vec<ClassPrecision>,
    /// Ground truth that did not take part.
    pub truth_left_out: LeftOut,
    /// Detections that did not take part.
    pub detections_left_out: LeftOut,
}

/// What is evaluated, and how.
#[derive(Clone, Debug)]
pub struct Protocol<'a> {
    /// The order.
    pub order: Order,
    /// The classes that count.
    pub classes: &'a BTreeSet<u32>,
    /// Timestamps that do not count; not used by ActivityNet's order.
    pub excluded: &'a BTreeSet<KeyFrame>,
    /// Detections kept of a frame in ActivityNet's order; [`CAP`] in its code.
    pub cap: usize,
}

/// Evaluates detections, in the order of their file, against ground truth.
pub fn evaluate(truth: &GroundTruth, detections: &[Row], protocol: &Protocol<'_>) -> AvaResult {
    let (mut truths, mut truth_left_out) = protocol.counted(&truth.rows);
    let (mut found, mut left_out) = protocol.counted(detections);
    if protocol.order == Order::Activitynet {
        let before = found.len();
        found.retain(|row| truth.frames.contains(&row.frame));
        left_out.unannotated = before - found.len();
        let before = found.len();
        found = best_of_frames(found, protocol.cap);
        left_out.beyond_cap = before - found.len();
    }
    // The codes drop such boxes after the cap, where they still take places.
    let with_area = |rows: &mut Vec<&Row>, left_out: &mut LeftOut| {
        let before = rows.len();
        rows.retain(|row| row.has_area());
        left_out.empty = before - rows.len();
    };
    with_area(&mut truths, &mut truth_left_out);
    with_area(&mut found, &mut left_out);

    let class = |&action: &u32| {
        let own = |rows: &[&'_ Row]| rows.iter().filter(|row| row.action == action).count();
        let results = matching::results(action, &truths, &found, protocol.order);
        precision::of_class(action, own(&truths), results)
    };
    let classes: Vec<ClassPrecision> = protocol.classes.iter().map(class).collect();
    let precisions: Vec<f64> = classes.iter().filter_map(|class| class.ap).collect();
    let map = (!precisions.is_empty()).then(|| precisions.iter().sum::<f64>() / precisions.len() as f64);
    AvaResult { order: protocol.order, map, classes, truth_left_out, detections_left_out: left_out }
}

impl Protocol<'_> {
    /// Rows of classes and timestamps that count.
    fn counted<'r>(&self, rows: &'r [Row]) -> (Vec<&'r Row>, LeftOut) {
        let mut left_out = LeftOut::default();
        let excludes = self.order != Order::Activitynet;
        let counts = |row: &&Row| {
            let (class, frame) = (self.classes.contains(&row.action), excludes && self.excluded.contains(&row.frame));
            left_out.other_classes += usize::from(!class);
            left_out.excluded += usize::from(class && frame);
            class && !frame
        };
        let rows = rows.iter().filter(counts).collect();
        (rows, left_out)
    }
}

/// The `cap` best rows of every frame, in their order; of equal scores the earlier row stays.
fn best_of_frames(rows: Vec<&Row>, cap: usize) -> Vec<&Row> {
    let mut frames: BTreeMap<&KeyFrame, Vec<usize>> = BTreeMap::new();
    rows.iter().enumerate().for_each(|(index, row)| frames.entry(&row.frame).or_default().push(index));
    let score = |index: &usize| rows.get(*index).map_or(f64::NEG_INFINITY, |row| row.score);
    let mut kept = BTreeSet::new();
    for mut indices in frames.into_values() {
        indices.sort_by(|a, b| score(b).total_cmp(&score(a)));
        kept.extend(indices.into_iter().take(cap));
    }
    rows.iter().enumerate().filter(|(index, _)| kept.contains(index)).map(|(_, row)| *row).collect()
}

#[cfg(test)]
mod tests;
