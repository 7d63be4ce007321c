//! Frozen detection on AVA: features of boxes around key frames, a linear classifier on them, its detections.
//!
//! After SlowFast's head (`head_helper.py`, `ava_dataset.py`): tokens of four layers side by side, averaged over time, RoIAlign
//! 7x7, the largest bin, one linear layer for 80 actions, each yes or no. Boxes are those of files. Clips are whole frames, whose
//! features are computed once, or in training random crops at random sizes, mirrored or not, whose features are those of an epoch.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use vjepa_data::DataError;
use vjepa_data::detection::{KeyFrameClips, Placed};
use vjepa_data::media::Opener;
use vjepa_graphs::{EncoderConfig, NamedTensors, init, position};
use vjepa_metrics::ava::{KeyFrame, Row};
use vjepa_programs::{TrainOptions, box_classifier, box_features, detector_step};
use vjepa_recipe::config::Positions;
use vjepa_recipe::counter::CounterRng;
use vjepa_recipe::schedules::WarmupCosine;
use vjepa_runtime::plan::{Device, DeviceExecutor, HostTensor};

use super::videos::OpenEncoder;
use crate::attentive::{rates, shuffled, untrained};
use crate::{EvalError, OnProgress, Progress};

/// Distinguishes the order of boxes from other uses of the seed.
const ORDER: u64 = 0x646574;

/// Distinguishes crops from other uses of the seed.
const CROPS: u64 = 0x6372_6f70;

/// Boxes that are classified at once.
const BATCH: usize = 1024;

/// A box to be classified, and the actions it is known to show.
#[derive(Clone, Debug, PartialEq)]
pub struct LabelledRegion {
    /// x1, y1, x2, y2 as shares of the frame.
    pub corners: [f64; 4],
    /// Action ids, from 1.
    pub actions: Vec<u32>,
    /// The person detector's score; 1 for ground truth.
    pub score: f64,
}

/// A key frame with its boxes and the file of its video.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// Video and second.
    pub key: KeyFrame,
    /// The video.
    pub path: PathBuf,
    /// At least one box.
    pub regions: Vec<LabelledRegion>,
}

/// What a detector is beside its weights, in the metadata of its file under [`DETECTOR_KEY`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DetectorRecord {
    /// Frames of a clip.
    pub frames: usize,
    /// Frames from one to the next.
    pub step: usize,
    /// Short side of a clip in pixels.
    pub side: usize,
    /// Blocks whose outputs it reads, from 0.
    pub layers: Vec<usize>,
    /// SHA-256 of the encoder's checkpoint.
    pub encoder: String,
    /// Names of actions by id, of those that have one.
    pub actions: BTreeMap<u32, String>,
}

/// Metadata key of [`DetectorRecord`].
pub const DETECTOR_KEY: &str = "vjepa_detector";

/// Features of boxes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BoxFeatures {
    /// Width of a box's features.
    pub width: usize,
    /// `f32[boxes, width]`, row-major.
    pub values: Vec<f32>,
    /// The boxes.
    pub boxes: Vec<(KeyFrame, LabelledRegion)>,
    /// Key frames whose video cannot be used, with the reason.
    pub bad: Vec<(KeyFrame, String)>,
}

impl BoxFeatures {
    /// The features of box `row`.
    fn row(&self, row: usize) -> &[f32] {
        self.values.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    /// Those of several boxes, and how many.
    fn select(&self, rows: &[usize]) -> HostTensor {
        let data = rows.iter().flat_map(|row| self.row(*row).iter().copied()).collect();
        HostTensor::F32 { shape: vec![rows.len(), self.width], data }
    }
}

/// The blocks whose outputs are read where none are given: the last and three others, evenly spaced over the last quarter as
/// the paper's are (table 7 counts from 1), fewer in small encoders.
pub fn default_layers(depth: usize) -> Vec<usize> {
    let step = (depth / 12).max(1);
    let mut layers: Vec<usize> = (0..4).filter_map(|i| depth.checked_sub(1 + i * step)).collect();
    layers.reverse();
    layers
}

/// A plan for clips of one size.
struct Sized {
    size: (usize, usize),
    executor: DeviceExecutor,
}

/// Which part of frames a clip shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// All of it.
    Whole,
    /// A random crop, mirrored or not, as SlowFast trains on: a function of the seed, the epoch and the number of the key frame. Boxes of
    /// which it shows nothing are left out.
    Random {
        /// The run's seed.
        seed: u64,
        /// The epoch.
        epoch: u64,
    },
}

/// An encoder that makes features of boxes, compiled for clips of one size at a time.
pub struct BoxEncoder<'a> {
    opened: &'a mut OpenEncoder,
    record: &'a DetectorRecord,
    /// The sizes that it was trained with.
    trained: EncoderConfig,
    /// Its position table for clips of that size.
    table: Option<(Vec<usize>, Vec<f32>)>,
    plan: Option<Sized>,
}

impl<'a> BoxEncoder<'a> {
    /// Of an encoder that was opened, for the clips and layers of a detector.
    pub fn new(opened: &'a mut OpenEncoder, record: &'a DetectorRecord) -> Self {
        let (trained, table) = (opened.model.encoder.clone(), opened.encoder.position_table());
        Self { opened, record, trained, table, plan: None }
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.opened.encoder.device()
    }

    /// Features of the boxes of key frames, in the order of `frames`. A video that cannot be read leaves its frames out.
    ///
    /// # Errors
    /// [`EvalError::Compile`] and [`EvalError::Run`] for an encoder that does not fit the clips; [`EvalError::Data`] where videos
    /// cannot be reached; [`EvalError::Setup`] when no key frame is left.
    pub fn extract(
        &mut self,
        frames: &[Frame],
        view: View,
        progress: OnProgress<'_>,
    ) -> Result<BoxFeatures, EvalError> {
        let clips = KeyFrameClips {
            frames: self.record.frames,
            step: self.record.step,
            side: self.record.side,
            patch: self.trained.patch,
            normalization: self.opened.model.preprocessing.normalization,
        };
        let width = self.record.layers.len() * self.trained.embed_dim;
        let mut found = BoxFeatures { width, ..BoxFeatures::default() };
        for (done, frame) in frames.iter().enumerate() {
            let mut random = match view {
                View::Whole => None,
                View::Random { seed, epoch } => Some(CounterRng::new(&[seed, CROPS, epoch, done as u64])),
            };
            let read = clips.read(Opener::shared(), &frame.path, frame.key.second, random.as_mut());
            let (placed, values) = match read {
                Ok(read) => read,
                Err(DataError::Bad { reason, .. }) => {
                    found.bad.push((frame.key.clone(), reason));
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let shown = |region: &&LabelledRegion| view == View::Whole || placed.shows(region.corners);
            let regions: Vec<&LabelledRegion> = frame.regions.iter().filter(shown).collect();
            if !regions.is_empty() {
                found.values.extend(self.features(placed, values, &regions)?);
                found.boxes.extend(regions.into_iter().map(|region| (frame.key.clone(), region.clone())));
            }
            progress(Progress { what: "encoding key frames", done: done + 1, total: frames.len() });
        }
        if found.boxes.is_empty() {
            let why =
                found.bad.first().map(|(key, why)| format!("; the first, {} at {}: {why}", key.video, key.second));
            return Err(EvalError::setup(format!(
                "none of {} key frames can be used{}",
                frames.len(),
                why.unwrap_or_default()
            )));
        }
        Ok(found)
    }

    /// Features of the boxes of one clip, `[boxes, width]`.
    fn features(
        &mut self,
        placed: Placed,
        values: Vec<f32>,
        regions: &[&LabelledRegion],
    ) -> Result<Vec<f32>, EvalError> {
        if self.plan.as_ref().is_none_or(|plan| plan.size != placed.size) {
            self.plan = Some(self.planned(placed.size)?);
        }
        let Some(Sized { executor, .. }) = &mut self.plan else { return Err(EvalError::setup("there is no plan")) };
        let (height, width) = placed.size;
        let clip = HostTensor::F32 { shape: vec![1, 3, self.record.frames, height, width], data: values };
        let corners = regions.iter().flat_map(|region| {
            let corners = placed.corners(region.corners).map(|corner| corner as f32);
            [0.0, corners[0], corners[1], corners[2], corners[3]]
        });
        let boxes = HostTensor::F32 { shape: vec![regions.len(), 5], data: corners.collect() };
        let mut outputs = executor.run(self.opened.encoder.params_mut(), vec![("clip", clip), ("boxes", boxes)])?;
        let features = outputs.remove("box_features").ok_or_else(|| EvalError::setup("the plan has no features"))?;
        Ok(features.into_floats())
    }

    /// Compiles the encoder for clips of a size, and sets its position table to it.
    fn planned(&mut self, size: (usize, usize)) -> Result<Sized, EvalError> {
        let config = EncoderConfig {
            out_layers: Some(self.record.layers.clone()),
            ..self.trained.clone().with_clip(self.record.frames, size.0, size.1)
        };
        if let (Some(table), Positions::Table) = (&self.table, config.positions) {
            let mut resized = table.clone();
            position::resize_table(&mut resized, self.trained.grid(), config.grid())
                .map_err(|error| EvalError::setup(error.to_string()))?;
            let (shape, data) = resized;
            self.opened.encoder.params_mut().set("encoder.pos_embed", HostTensor::F32 { shape, data });
        }
        let executor = self.device().plan(&box_features(&config)?)?;
        Ok(Sized { size, executor })
    }
}

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
    pub features: &'a mut dyn FnMut(usize) -> Result<Cow<'f, BoxFeatures>, EvalError>,
}

/// Trains the linear classifier on boxes with their actions: `linear.weight f32[classes, width]`, `linear.bias f32[classes]`,
/// and the loss of the last epoch. Class `i` is action `i + 1`. The learning rate follows the steps of epochs in which no box is left
/// out.
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
            let mut inputs = vec![("features", features.select(batch)), ("labels", labels(&features, batch, classes)?)];
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
fn labels(features: &BoxFeatures, rows: &[usize], classes: usize) -> Result<HostTensor, EvalError> {
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
    features: &BoxFeatures,
    weights: &NamedTensors,
    by_people: bool,
) -> Result<Vec<Row>, EvalError> {
    let classes = weights.get("linear.bias").map_or(0, |(_, bias)| bias.len());
    let mut executor = device.plan(&box_classifier(features.width, classes)?)?;
    let mut params = device.params();
    for (name, (shape, data)) in weights {
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: data.clone() });
    }
    let mut rows = Vec::with_capacity(features.boxes.len() * classes);
    let all: Vec<usize> = (0..features.boxes.len()).collect();
    for batch in all.chunks(BATCH) {
        let outputs = executor.run(&mut params, vec![("features", features.select(batch))])?;
        let scores = outputs.get("scores").ok_or_else(|| EvalError::setup("the plan has no scores"))?;
        for (row, scores) in batch.iter().zip(scores.floats().chunks_exact(classes.max(1))) {
            let Some((key, region)) = features.boxes.get(*row) else { continue };
            let people = if by_people { region.score } else { 1.0 };
            rows.extend(scores.iter().zip(1u32..).map(|(score, action)| Row {
                frame: key.clone(),
                corners: region.corners,
                action,
                score: f64::from(*score) * people,
            }));
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(boxes: usize) -> BoxFeatures {
        let region = |i: usize| LabelledRegion {
            corners: [0.1, 0.1, 0.5, 0.5],
            actions: if i.is_multiple_of(2) { vec![1, 3] } else { vec![2] },
            score: 0.5,
        };
        let key = |i: usize| KeyFrame { video: "v".to_owned(), second: 902 + i as u32 };
        // The sign of the first number says which.
        let value = |i: usize| [if i.is_multiple_of(2) { 1.0 } else { -1.0 }, (i % 5) as f32 / 5.0, 0.3];
        BoxFeatures {
            width: 3,
            values: (0..boxes).flat_map(value).collect(),
            boxes: (0..boxes).map(|i| (key(i), region(i))).collect(),
            bad: Vec::new(),
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

    #[test]
    fn layers_are_spread_as_in_the_paper() {
        assert_eq!(default_layers(24), [17, 19, 21, 23]);
        assert_eq!(default_layers(12), [8, 9, 10, 11]);
        assert_eq!(default_layers(2), [0, 1]);
        // Table 7 has every second block of ViT-H's 32, too.
        assert_eq!(default_layers(32), [25, 27, 29, 31]);
    }
}
