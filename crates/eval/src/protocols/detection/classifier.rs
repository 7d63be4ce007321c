//! The linear classifier of boxes: trained on their features, and its detections.

use std::borrow::Cow;

use vjepa_graphs::{NamedTensors, init};
use vjepa_metrics::ava::{KeyFrame, Row};
use vjepa_programs::{TrainOptions, box_classifier, detector_step};
use vjepa_recipe::schedules::WarmupCosine;
use vjepa_runtime::plan::{Device, HostTensor};

use super::{BoxValues, LabelledRegion};
use crate::attentive::{rates, shuffled, untrained};
use crate::{EvalError, OnProgress, Progress};

/// Distinguishes the order of boxes from other uses of the seed.
const ORDER: u64 = 0x646574;

/// Boxes that are classified at once.
const BATCH: usize = 1024;

/// How the classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DetectorOptions {
    /// Passes over the boxes.
    pub epochs: usize,
    /// Of them warm-up, from 0.
    pub warmup: usize,
    /// Boxes of a step.
    pub batch: usize,
    /// Highest learning rate; it ends at 1e-6.
    pub lr: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Seed of the first weights and of the order.
    pub seed: u64,
}

impl Default for DetectorOptions {
    /// The paper's (table 7), but for the batch, which there is 64 clips.
    fn default() -> Self {
        Self { epochs: 30, warmup: 2, batch: 64, lr: 1e-4, weight_decay: 0.05, seed: 0 }
    }
}

/// What a classifier is trained on: the features of all boxes in each epoch.
pub struct Lesson<'a, 'f> {
    /// Width of a box's features.
    pub width: usize,
    /// Boxes of an epoch in which none is left out.
    pub boxes: usize,
    /// Actions.
    pub classes: usize,
    /// The features of an epoch, by its number.
    pub features: &'a mut dyn FnMut(usize) -> Result<Cow<'f, BoxValues>, EvalError>,
}

/// Trains the linear classifier on boxes with their actions: `linear.weight f32[classes, width]`, `linear.bias f32[classes]`,
/// and the loss of the last epoch. Class `i` is action `i + 1`. The learning rate follows the steps of epochs in which no box
/// is left out.
///
/// # Errors
/// Those of the features; [`EvalError::Setup`] for actions beyond the classes; [`EvalError::Diverged`].
pub fn train(
    device: Device,
    lesson: Lesson<'_, '_>,
    options: &DetectorOptions,
    progress: OnProgress<'_>,
) -> Result<(NamedTensors, f64), EvalError> {
    let Lesson { width, boxes, classes, features: of_epoch } = lesson;
    let graph = detector_step(width, classes, TrainOptions::default())?;
    let mut executor = device.plan(&graph)?;
    let first = init::linear_probe(width, classes, options.seed);
    let mut params = untrained(device, &first);
    let per_epoch = boxes.div_ceil(options.batch.max(1)) as u64;
    let lr = WarmupCosine {
        start: 0.0,
        peak: options.lr,
        end: 1e-6,
        warmup_steps: options.warmup as u64 * per_epoch,
        total_steps: options.epochs as u64 * per_epoch,
    };
    let (mut step, mut last) = (0u64, f64::NAN);
    for epoch in 0..options.epochs {
        let features = of_epoch(epoch)?;
        let rows = features.boxes.len();
        let (mut sum, mut at) = (0.0, epoch as u64 * per_epoch);
        for batch in shuffled(rows, &[options.seed, ORDER, epoch as u64]).chunks(options.batch.max(1)) {
            let mut inputs =
                vec![("features", select(&features, batch)), ("labels", labels(&features, batch, classes)?)];
            inputs.extend(rates((lr.at(at), options.weight_decay), step, f32::INFINITY));
            let outputs = executor.run(&mut params, inputs)?;
            let loss = outputs.get("loss").and_then(|loss| loss.floats().first().copied()).unwrap_or(f32::NAN);
            if !loss.is_finite() {
                return Err(EvalError::Diverged { step, loss });
            }
            sum += f64::from(loss) * batch.len() as f64;
            (step, at) = (step + 1, at + 1);
        }
        last = sum / rows.max(1) as f64;
        progress(Progress { what: "training the detector", done: epoch + 1, total: options.epochs });
    }
    let trained = first.keys().map(|name| {
        let tensor = params.get(&format!("probe.{name}"));
        tensor.map(|tensor| (name.clone(), tensor)).ok_or_else(|| EvalError::setup(format!("`{name}` was lost")))
    });
    Ok((trained.collect::<Result<_, _>>()?, last))
}

/// The actions of boxes as `f32[boxes, classes]`.
fn labels(features: &BoxValues, rows: &[usize], classes: usize) -> Result<HostTensor, EvalError> {
    let mut data = vec![0.0; rows.len() * classes];
    for (row, wanted) in rows.iter().zip(data.chunks_exact_mut(classes.max(1))) {
        let actions = features.boxes.get(*row).map(|(_, region)| region.actions.as_slice()).unwrap_or_default();
        for action in actions {
            let class = usize::try_from(*action).ok().and_then(|action| action.checked_sub(1));
            let place = class.and_then(|class| wanted.get_mut(class));
            *place.ok_or_else(|| EvalError::setup(format!("action {action} is not one of 1 to {classes}")))? = 1.0;
        }
    }
    Ok(HostTensor::F32 { shape: vec![rows.len(), classes], data })
}

/// Scores of all actions for all boxes, in their order; `by_people` multiplies them by the person detector's score, as
/// VideoMAE's code does and SlowFast's does not.
///
/// # Errors
/// [`EvalError::Compile`], [`EvalError::Run`].
pub fn detections(
    device: Device,
    features: &BoxValues,
    weights: &NamedTensors,
    by_people: bool,
) -> Result<Vec<Row>, EvalError> {
    let classes = weights.get("linear.bias").map_or(0, |(_, bias)| bias.len());
    let mut executor = device.plan(&box_classifier(features.width, classes)?)?;
    let mut params = device.params();
    for (name, (shape, data)) in weights {
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: data.clone() });
    }
    let all: Vec<usize> = (0..features.boxes.len()).collect();
    let mut scores = Vec::with_capacity(all.len() * classes);
    for batch in all.chunks(BATCH) {
        let outputs = executor.run(&mut params, vec![("features", select(features, batch))])?;
        let of_batch = outputs.get("scores").ok_or_else(|| EvalError::setup("the plan has no scores"))?;
        scores.extend_from_slice(of_batch.floats());
    }
    Ok(rows_of(&scores, classes, &features.boxes, by_people))
}

/// Detections from scores `f32[boxes, actions]` of boxes, in their order; `by_people` as in [`detections`].
pub fn rows(scores: &BoxValues, by_people: bool) -> Vec<Row> {
    rows_of(&scores.values, scores.width, &scores.boxes, by_people)
}

fn rows_of(scores: &[f32], classes: usize, boxes: &[(KeyFrame, LabelledRegion)], by_people: bool) -> Vec<Row> {
    let mut rows = Vec::with_capacity(scores.len());
    for ((key, region), scores) in boxes.iter().zip(scores.chunks_exact(classes.max(1))) {
        let people = if by_people { region.score } else { 1.0 };
        rows.extend(scores.iter().zip(1u32..).map(|(score, action)| Row {
            frame: key.clone(),
            corners: region.corners,
            action,
            score: f64::from(*score) * people,
        }));
    }
    rows
}

/// The features of several boxes, `[boxes, width]`.
fn select(features: &BoxValues, boxes: &[usize]) -> HostTensor {
    let row = |at: &usize| features.values.get(at * features.width..(at + 1) * features.width).unwrap_or_default();
    let data = boxes.iter().flat_map(|at| row(at).iter().copied()).collect();
    HostTensor::F32 { shape: vec![boxes.len(), features.width], data }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(boxes: usize) -> BoxValues {
        let region = |i: usize| LabelledRegion {
            corners: [0.1, 0.1, 0.5, 0.5],
            actions: if i.is_multiple_of(2) { vec![1, 3] } else { vec![2] },
            score: 0.5,
        };
        let key = |i: usize| KeyFrame { video: "v".to_owned(), second: 902 + i as u32 };
        // The sign of the first number says which.
        let value = |i: usize| [if i.is_multiple_of(2) { 1.0 } else { -1.0 }, (i % 5) as f32 / 5.0, 0.3];
        BoxValues {
            width: 3,
            values: (0..boxes).flat_map(value).collect(),
            boxes: (0..boxes).map(|i| (key(i), region(i))).collect(),
            bad: Vec::new(),
            beyond: Vec::new(),
        }
    }

    #[test]
    fn several_labels_of_a_box_are_learned() {
        let features = features(40);
        let options = DetectorOptions { epochs: 60, lr: 0.05, batch: 16, ..DetectorOptions::default() };
        let train = |classes: usize| {
            let mut of_epoch = |_: usize| Ok(Cow::Borrowed(&features));
            let lesson = Lesson { width: features.width, boxes: 40, classes, features: &mut of_epoch };
            train(Device::CPU, lesson, &options, &mut |_| {})
        };
        let (weights, loss) = train(4).unwrap();
        assert!(loss < 0.2, "{loss}");
        let rows = detections(Device::CPU, &features, &weights, false).unwrap();
        assert_eq!(rows.len(), 160);
        for row in &rows {
            let even = row.frame.second % 2 == 0;
            let shown = matches!((even, row.action), (true, 1 | 3) | (false, 2));
            assert_eq!(row.score > 0.5, shown, "{row:?}");
        }
        let scaled = detections(Device::CPU, &features, &weights, true).unwrap();
        assert!(rows.iter().zip(&scaled).all(|(plain, scaled)| (plain.score * 0.5 - scaled.score).abs() < 1e-12));
        assert!(train(2).is_err(), "action 3 of 2");
    }
}
