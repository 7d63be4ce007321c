//! Diagnostics that distinguish learning from a merely falling loss, on held-out clips.
//!
//! - **Context gap**: the loss with another clip's context over the loss with the right one, minus 1. A model that uses its
//!   context has a gap; one that only knows the average clip has none, however low its loss.
//! - **Effective rank** of the clips' mean monitored features, and the **deviation** of each of their dimensions over tokens:
//!   both fall towards zero when features collapse.
//! - **kNN**, with labels and enough clips: leave-one-out accuracy of a vote among the nearest clips.
//!
//! The objective declares which features are monitored. Parameters are read from the training run's own store, not copied.

use std::collections::BTreeSet;

use vjepa_compiler::ir::Graph;
use vjepa_graphs::AnyObjective;
use vjepa_graphs::objectives::{ClipUse, Input};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

use vjepa_data::{ClipSource, SampleKey};
use vjepa_eval::features::Features;
use vjepa_eval::{EvalError, linalg, neighbours};
use vjepa_programs as compile;
use vjepa_programs::{Fed, feed};
use vjepa_recipe::counter::mix;
use vjepa_recipe::masks::MaskPair;
pub use vjepa_recipe::records::{DiagnosticsReport, KNN_CLIPS};

/// Held-out clips, all of one shape.
#[derive(Clone, Debug, Default)]
pub struct HeldOut {
    /// `[clips, C, T, H, W]`.
    pub clips: Vec<f32>,
    /// Shape of a clip.
    pub shape: [usize; 4],
    /// Labels, if all clips have one.
    pub labels: Option<Vec<i64>>,
    /// Clips at the end that are others' neighbours and nothing else.
    pub neighbours: usize,
}

/// Makes held-out clips differ from training clips of the same seed.
const HELD_OUT: u64 = 0x6865_6C64;
/// Tries for one clip before giving up on the data set.
const TRIES: u32 = 64;

impl HeldOut {
    /// Draws `count` clips. From an endless stream they are never trained on; from a data set of files they are its own
    /// videos in another order, sampled and cropped anew. Unusable videos are skipped.
    ///
    /// # Errors
    /// The data set's error when no usable clip is found.
    pub fn draw(source: &dyn ClipSource, seed: u64, count: usize) -> Result<Self, EvalError> {
        let mut drawn = Self { shape: source.shape(), labels: (count > 0).then(Vec::new), ..Self::default() };
        drawn.append(source, seed, count)?;
        Ok(drawn)
    }

    /// With as many further clips as neighbours that make kNN informative, where labels are few enough for that.
    ///
    /// # Errors
    /// As [`HeldOut::draw`].
    pub fn with_neighbours(mut self, source: &dyn ClipSource, seed: u64) -> Result<Self, EvalError> {
        if self.labels.as_deref().is_some_and(few_enough) {
            self.neighbours = KNN_CLIPS.saturating_sub(self.len());
            self.append(source, seed, self.neighbours)?;
            if self.labels.is_none() {
                self.clips.truncate((KNN_CLIPS - self.neighbours) * self.shape.iter().product::<usize>());
                self.neighbours = 0;
            }
        }
        Ok(self)
    }

    /// Draws the clips after those that are there.
    fn append(&mut self, source: &dyn ClipSource, seed: u64, count: usize) -> Result<(), EvalError> {
        let (before, len) = (self.len(), self.shape.iter().product::<usize>());
        let mut clips = vec![0f32; count * len];
        let mut labels = Vec::with_capacity(count);
        for (position, clip) in (before..).zip(clips.chunks_exact_mut(len.max(1))) {
            let mut retry = 0;
            let info = loop {
                let key = SampleKey { seed: mix(&[seed, HELD_OUT]), epoch: 0, position: position as u64, retry };
                match source.sample(key, clip) {
                    Ok(info) => break info,
                    Err(error) if error.is_bad_sample() && retry < TRIES => retry += 1,
                    Err(error) => return Err(error.into()),
                }
            };
            labels.extend(info.label);
        }
        self.clips.extend(clips);
        match &mut self.labels {
            Some(known) if labels.len() == count => known.extend(labels),
            _ => self.labels = None,
        }
        Ok(())
    }

    /// Number of clips.
    pub fn len(&self) -> usize {
        self.clips.len() / self.shape.iter().product::<usize>().max(1)
    }

    /// Whether there are no clips.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Whether [`KNN_CLIPS`] clips have enough neighbours of each label.
fn few_enough(labels: &[i64]) -> bool {
    let classes = labels.iter().collect::<BTreeSet<_>>().len();
    classes > 1 && KNN_CLIPS / classes >= CLIPS_PER_LABEL
}

/// Compiled diagnostics of one objective.
pub struct Diagnostics {
    losses: DeviceExecutor,
    inputs: Vec<Input>,
    monitored: DeviceExecutor,
    generators: usize,
    held_out: HeldOut,
    masks: Vec<Vec<MaskPair>>,
    batch: usize,
}

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// With fewer clips of a label the vote is mostly of others, whatever the features are.
const CLIPS_PER_LABEL: usize = 8;

impl Diagnostics {
    /// Compiles for a device, an objective and at least two held-out clips. `masks` draws the pairs of a batch, one per
    /// generator, from its number and size, as [`MaskGenerator::pairs`](vjepa_recipe::masks::MaskGenerator::pairs) does.
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Setup`].
    pub fn new<E: std::fmt::Display>(
        device: Device,
        objective: &AnyObjective,
        held_out: HeldOut,
        batch: usize,
        mut masks: impl FnMut(u64, usize) -> Result<Vec<MaskPair>, E>,
    ) -> Result<Self, EvalError> {
        let count = held_out.len() - held_out.neighbours.min(held_out.len());
        if count < 2 {
            return Err(EvalError::setup("diagnostics need at least two held-out clips"));
        }
        // In a last batch of one clip there would be no other clip's context.
        let batch = batch.clamp(2, count);
        let sizes = batches(count, batch);
        let mut drawn = Vec::with_capacity(sizes.len());
        for (number, size) in sizes.iter().enumerate() {
            drawn.push(masks(number as u64, size.len()).map_err(|error| EvalError::setup(error.to_string()))?);
        }
        let generators = drawn.first().map_or(0, Vec::len);
        let plan = |graph: Graph| -> Result<DeviceExecutor, EvalError> {
            let graph = compile::optimised(&graph)?;
            Ok(device.plan(&graph)?)
        };
        Ok(Self {
            losses: plan(compile::diagnose(objective)?)?,
            inputs: objective.declaration().inputs_apart(),
            monitored: plan(compile::monitored(objective)?)?,
            generators,
            held_out,
            masks: drawn,
            batch,
        })
    }

    /// Runs them on the parameters of a run of the objective, which are left unchanged.
    ///
    /// # Errors
    /// [`EvalError::Run`] for parameters that are missing or misshapen.
    pub fn run(&mut self, params: &mut DeviceParams) -> Result<DiagnosticsReport, EvalError> {
        self.run_showing(params, &mut |_, _| ())
    }

    /// Runs them, and shows the clips and their monitored features to whoever wants to draw them.
    ///
    /// # Errors
    /// As [`Diagnostics::run`].
    pub fn run_showing(
        &mut self,
        params: &mut DeviceParams,
        show: &mut dyn FnMut(&HeldOut, &Features),
    ) -> Result<DiagnosticsReport, EvalError> {
        let (all, neighbours) = (self.held_out.len(), self.held_out.neighbours);
        let count = all.saturating_sub(neighbours);
        let len: usize = self.held_out.shape.iter().product();
        let (mut own, mut other) = (0f64, 0f64);
        for (rows, masks) in batches(count, self.batch).into_iter().zip(&self.masks) {
            let clips = &self.held_out.clips[rows.start * len..rows.end * len];
            // The context of the next clip of the batch: every clip is used once.
            let mut turned = clips.to_vec();
            turned.rotate_left(len);
            let share = rows.len() as f64 / count as f64;
            let mut of = |pair| loss(&mut self.losses, params, &self.inputs, &self.held_out, pair, masks);
            own += share * of([clips, clips])?;
            other += share * of([&turned, clips])?;
        }
        let mut monitored = self.features(params, 0..count)?;
        show(&self.held_out, &monitored);
        let pooled = monitored.pooled();
        let deviations = linalg::deviations(&monitored.values, monitored.dim);
        if neighbours > 0 {
            monitored.values.extend(self.features(params, count..all)?.values);
        }
        let labels = self.held_out.labels.as_ref().filter(|_| all >= KNN_CLIPS);
        let knn = labels.map(|labels| neighbours::leave_one_out(&monitored.pooled(), labels, NEIGHBOURS));
        Ok(DiagnosticsReport {
            loss: own,
            loss_other_context: other,
            context_gap: other / own - 1.0,
            effective_rank: linalg::effective_rank(&pooled.values, monitored.dim),
            deviation_mean: deviations.iter().sum::<f64>() / deviations.len().max(1) as f64,
            deviation_min: deviations.iter().copied().fold(f64::INFINITY, f64::min),
            knn,
        })
    }

    /// Monitored features of some of the clips.
    fn features(&mut self, params: &mut DeviceParams, clips: std::ops::Range<usize>) -> Result<Features, EvalError> {
        let len: usize = self.held_out.shape.iter().product();
        let mut monitored = Features::default();
        for rows in batches(clips.len(), self.batch) {
            let (start, end) = (clips.start + rows.start, clips.start + rows.end);
            let inputs = vec![("clip", self.held_out.tensor(&self.held_out.clips[start * len..end * len]))];
            let Some(HostTensor::F32 { shape, data }) = self.monitored.run(params, inputs)?.remove("features") else {
                return Err(EvalError::setup("the plan of the diagnostics has no features"));
            };
            if let [_, tokens, dim] = shape[..] {
                (monitored.tokens, monitored.dim) = (tokens, dim);
            }
            monitored.values.extend(data);
        }
        Ok(monitored)
    }

    /// The clips it is run on.
    pub fn held_out(&self) -> &HeldOut {
        &self.held_out
    }

    /// Mask generators of the objective.
    pub fn generators(&self) -> usize {
        self.generators
    }
}

impl HeldOut {
    fn tensor(&self, clips: &[f32]) -> HostTensor {
        let count = clips.len() / self.shape.iter().product::<usize>().max(1);
        let shape = std::iter::once(count).chain(self.shape).collect();
        HostTensor::F32 { shape, data: clips.to_vec() }
    }
}

/// Ranges of `batch` rows; a single remaining row joins the batch before it.
fn batches(count: usize, batch: usize) -> Vec<std::ops::Range<usize>> {
    let mut ranges: Vec<_> = (0..count).step_by(batch.max(1)).map(|start| start..(start + batch).min(count)).collect();
    if let [.., before, last] = ranges.as_mut_slice()
        && last.len() == 1
    {
        before.end = last.end;
        ranges.pop();
    }
    ranges
}

/// The loss of a batch with the context of one set of clips and the targets of another, `[context, target]`.
fn loss(
    losses: &mut DeviceExecutor,
    params: &mut DeviceParams,
    inputs: &[Input],
    held_out: &HeldOut,
    [context, target]: [&[f32]; 2],
    masks: &[MaskPair],
) -> Result<f64, EvalError> {
    // The whole loss, whatever the step.
    let context_share = 1.0;
    let clips = |used: ClipUse| match used {
        ClipUse::Context => held_out.tensor(context),
        ClipUse::Both | ClipUse::Target => held_out.tensor(target),
    };
    let outputs = losses.run(params, feed(inputs, Fed::masks(masks, context_share), clips))?;
    let loss = outputs.get("loss").and_then(|loss| loss.floats().first().copied());
    loss.map(f64::from).ok_or_else(|| EvalError::setup("the plan of the diagnostics has no loss"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::DriftingTextures;
    use vjepa_graphs::init::Init;
    use vjepa_graphs::objectives::Start;
    use vjepa_graphs::{EncoderConfig, Jepa, JepaLoss, PredictorConfig};
    use vjepa_recipe::config::Normalization;
    use vjepa_recipe::masks::{Geometry, MaskCollator, MaskGenerator, MaskStrategy, MultiBlockConfig};

    #[test]
    fn a_single_clip_is_never_a_batch() {
        assert_eq!(batches(7, 3), [0..3, 3..7]);
        assert_eq!(batches(6, 3), [0..3, 3..6]);
        assert_eq!(batches(2, 8), vec![0..2; 1]);
    }

    #[test]
    fn a_random_model_has_no_gap_and_full_rank() {
        let encoder = EncoderConfig { patch: 8, depth: 2, num_heads: 2, embed_dim: 24, ..EncoderConfig::tiny() }
            .with_clip(4, 32, 32);
        let predictor = PredictorConfig { embed_dim: 12, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
        let source = DriftingTextures::new(4, 32, Normalization::PerClip);
        let held_out = HeldOut::draw(&source, 1, 17).unwrap();
        assert_eq!((held_out.len(), held_out.labels.as_ref().map(Vec::len)), (17, Some(17)));
        let geometry = Geometry { frames: 4, height: 32, width: 32, tubelet: 2, patch: 8 };
        let masks =
            MaskCollator::new(geometry, vec![MultiBlockConfig::blocks(2, 0.2), MultiBlockConfig::blocks(1, 0.5)]);
        let masks = masks.unwrap();
        let objective = AnyObjective::from(Jepa::plain(encoder, predictor, 2, JepaLoss::default()));
        let draw = |number, batch| masks.pairs(0, number, 0, batch);
        let mut diagnostics = Diagnostics::new(Device::CPU, &objective, held_out, 8, draw).unwrap();
        let mut params = Device::CPU.params();
        let start = Start { init: Init::Xavier, zero_mask_tokens: true, seed: 0 };
        for (name, (shape, data)) in objective.initial(start) {
            params.set(&name, HostTensor::F32 { shape, data });
        }
        let report = diagnostics.run(&mut params).unwrap();
        assert!(report.loss > 0.3 && report.context_gap.abs() < 0.05, "{report:?}");
        assert!(report.effective_rank > 1.5 && report.effective_rank < 24.0, "{report:?}");
        assert!(report.deviation_mean > 0.1 && report.deviation_min > 0.0 && report.knn.is_none(), "{report:?}");
        assert_eq!(report, diagnostics.run(&mut params).unwrap());
    }

    #[test]
    fn neighbours_are_drawn_where_labels_are_few() {
        let source = DriftingTextures::new(2, 16, Normalization::PerClip);
        let few = HeldOut::draw(&source, 1, 16).unwrap();
        let more = few.clone().with_neighbours(&source, 1).unwrap();
        assert_eq!((more.len(), more.neighbours, more.labels.as_ref().map(Vec::len)), (128, 112, Some(128)));
        assert_eq!(more.clips[..few.clips.len()], few.clips);
        assert_eq!(more.clips, HeldOut::draw(&source, 1, 128).unwrap().clips);
        assert!(few_enough(&[0, 1, 1]) && !few_enough(&[3; 64]), "one label says nothing");
        assert!(!few_enough(&(0..60).collect::<Vec<i64>>()), "two clips of a label have no neighbours to vote");
    }
}
