//! Diagnostics that tell learning from a falling loss, on held-out clips.
//!
//! - **Context gap**: the loss with another clip's context over the loss with the right one, minus 1. A predictor that
//!   looks at its context has a gap; one that only knows the average clip has none, however low its loss.
//! - **Effective rank** of the clips' mean target features, and the **deviation** of each target dimension over tokens:
//!   both fall to nothing when features collapse.
//! - **kNN**, where there are labels and enough clips: leave-one-out accuracy of the nearest clips' vote.
//!
//! The parameters are read from the training's own store; nothing is copied.

use serde::Serialize;
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{EncoderConfig, PredictorConfig, PretrainLoss};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

use vjepa_data::{ClipSource, SampleKey};
use vjepa_eval::features::Features;
use vjepa_eval::{EvalError, linalg, neighbours};
use vjepa_programs as compile;
use vjepa_recipe::counter::mix;
use vjepa_recipe::masks::{IndexBatch, MaskPair};

/// Held-out clips, all of one shape.
#[derive(Clone, Debug, Default)]
pub struct HeldOut {
    /// `[clips, C, T, H, W]`.
    pub clips: Vec<f32>,
    /// Shape of a clip.
    pub shape: [usize; 4],
    /// Labels, where all clips have one.
    pub labels: Option<Vec<i64>>,
}

/// Keeps held-out clips apart from training clips of the same seed.
const HELD_OUT: u64 = 0x6865_6C64;
/// Tries for one clip before giving up on the data set.
const TRIES: u32 = 64;

impl HeldOut {
    /// Draws `count` clips. From an endless stream they are never trained on; from a data set of files they are its own
    /// clips in another order, cut and cropped at random anew. Unusable videos are left out.
    ///
    /// # Errors
    /// The data set's error where no usable clip is found.
    pub fn draw(source: &dyn ClipSource, seed: u64, count: usize) -> Result<Self, EvalError> {
        let shape = source.shape();
        let len: usize = shape.iter().product();
        let mut clips = vec![0f32; count * len];
        let mut labels = Vec::with_capacity(count);
        for (position, clip) in clips.chunks_exact_mut(len.max(1)).enumerate() {
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
        let labels = (labels.len() == count && count > 0).then_some(labels);
        Ok(Self { clips, shape, labels })
    }

    /// Clips.
    pub fn len(&self) -> usize {
        self.clips.len() / self.shape.iter().product::<usize>().max(1)
    }

    /// True without clips.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What the diagnostics say.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DiagnosticsReport {
    /// Held-out loss with the right context.
    pub loss: f64,
    /// Held-out loss with another clip's context.
    pub loss_other_context: f64,
    /// The second over the first, minus 1: .05 is a gap of 5 %.
    pub context_gap: f64,
    /// Effective rank of the clips' mean target features.
    pub effective_rank: f64,
    /// Deviation over tokens, mean over target dimensions.
    pub deviation_mean: f64,
    /// The least of these deviations.
    pub deviation_min: f64,
    /// Leave-one-out accuracy of the 5 nearest clips' vote, where there are labels and at least [`KNN_CLIPS`] clips.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub knn: Option<f64>,
}

/// Compiled diagnostics of one model.
pub struct Diagnostics {
    objective: DeviceExecutor,
    targets: DeviceExecutor,
    tokens: usize,
    dim: usize,
    generators: usize,
    held_out: HeldOut,
    masks: Vec<Vec<MaskPair>>,
    batch: usize,
}

/// Neighbours that vote.
const NEIGHBOURS: usize = 5;
/// Among fewer clips the nearest say nothing: measured on drifting textures, 64 clips showed a loss where there was a gain.
pub const KNN_CLIPS: usize = 128;

impl Diagnostics {
    /// Compiles for a device, a model and some held-out clips, at least two. `masks` draws the pairs, one a generator, of a batch by
    /// its number and size, as [`MaskGenerator::pairs`](vjepa_recipe::masks::MaskGenerator::pairs) does.
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Setup`].
    pub fn new<E: std::fmt::Display>(
        device: Device,
        encoder: &EncoderConfig,
        predictor: &PredictorConfig,
        loss: PretrainLoss,
        held_out: HeldOut,
        batch: usize,
        mut masks: impl FnMut(u64, usize) -> Result<Vec<MaskPair>, E>,
    ) -> Result<Self, EvalError> {
        let count = held_out.len();
        if count < 2 {
            return Err(EvalError::setup("diagnostics need at least two held-out clips"));
        }
        // A last batch of one clip would have no other clip's context.
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
            objective: plan(compile::diagnose(encoder, predictor, loss, generators)?)?,
            targets: plan(compile::targets(encoder)?)?,
            tokens: encoder.tokens(),
            dim: encoder.embed_dim,
            generators,
            held_out,
            masks: drawn,
            batch,
        })
    }

    /// Runs them on the parameters of a training (`encoder.`, `predictor.`, `target_encoder.`), which stay as they are.
    ///
    /// # Errors
    /// [`EvalError::Run`] for parameters that are missing or misshapen.
    pub fn run(&mut self, params: &mut DeviceParams) -> Result<DiagnosticsReport, EvalError> {
        let count = self.held_out.len();
        let len: usize = self.held_out.shape.iter().product();
        let (mut own, mut other) = (0f64, 0f64);
        let mut targets = Features::empty(self.tokens, self.dim);
        for (rows, masks) in batches(count, self.batch).into_iter().zip(&self.masks) {
            let clips = &self.held_out.clips[rows.start * len..rows.end * len];
            // The context of the next clip of the batch: every clip is used once.
            let mut turned = clips.to_vec();
            turned.rotate_left(len);
            let share = rows.len() as f64 / count as f64;
            own += share * f64::from(loss(&mut self.objective, params, &self.held_out, clips, clips, masks)?);
            other += share * f64::from(loss(&mut self.objective, params, &self.held_out, &turned, clips, masks)?);
            let mut out = self.targets.run(params, vec![("clip", self.held_out.tensor(clips))])?;
            targets.values.extend(out.remove("targets").map(HostTensor::into_floats).unwrap_or_default());
        }
        let pooled = targets.pooled();
        let deviations = linalg::deviations(&targets.values, self.dim);
        let labels = self.held_out.labels.as_ref().filter(|_| count >= KNN_CLIPS);
        let knn = labels.map(|labels| neighbours::leave_one_out(&pooled, labels, NEIGHBOURS));
        Ok(DiagnosticsReport {
            loss: own,
            loss_other_context: other,
            context_gap: other / own - 1.0,
            effective_rank: linalg::effective_rank(&pooled.values, self.dim),
            deviation_mean: deviations.iter().sum::<f64>() / deviations.len().max(1) as f64,
            deviation_min: deviations.iter().copied().fold(f64::INFINITY, f64::min),
            knn,
        })
    }

    /// Mask generators of the model.
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

/// Ranges of `batch` rows; a single row left over joins the batch before it.
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

fn loss(
    objective: &mut DeviceExecutor,
    params: &mut DeviceParams,
    held_out: &HeldOut,
    context: &[f32],
    target: &[f32],
    masks: &[MaskPair],
) -> Result<f32, EvalError> {
    let indices =
        |batch: &IndexBatch| HostTensor::I32 { shape: vec![batch.batch, batch.len], data: batch.indices.clone() };
    let names: Vec<[String; 2]> =
        (0..masks.len()).map(|i| [format!("mask_enc.{i}"), format!("mask_pred.{i}")]).collect();
    let mut inputs = vec![("clip_context", held_out.tensor(context)), ("clip_target", held_out.tensor(target))];
    for ([encoder, predictor], pair) in names.iter().zip(masks) {
        inputs.push((encoder, indices(&pair.context)));
        inputs.push((predictor, indices(&pair.target)));
    }
    let outputs = objective.run(params, inputs)?;
    outputs
        .get("loss")
        .and_then(|loss| loss.floats().first().copied())
        .ok_or_else(|| EvalError::setup("the plan of the diagnostics has no loss"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_data::DriftingTextures;
    use vjepa_graphs::init::{self, Init};
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
        let mut diagnostics =
            Diagnostics::new(Device::CPU, &encoder, &predictor, PretrainLoss::default(), held_out, 8, |n, b| {
                masks.pairs(0, n, 0, b)
            })
            .unwrap();
        let mut params = Device::CPU.params();
        let student = init::encoder(&encoder, Init::Xavier, 0);
        for (prefix, tensors) in [
            ("encoder.", student.clone()),
            ("target_encoder.", student),
            ("predictor.", init::predictor(&predictor, Init::Xavier, true, 0)),
        ] {
            for (name, (shape, data)) in tensors {
                params.set(&format!("{prefix}{name}"), HostTensor::F32 { shape, data });
            }
        }
        let report = diagnostics.run(&mut params).unwrap();
        assert!(report.loss > 0.3 && report.context_gap.abs() < 0.05, "{report:?}");
        assert!(report.effective_rank > 1.5 && report.effective_rank < 24.0, "{report:?}");
        assert!(report.deviation_mean > 0.1 && report.deviation_min > 0.0 && report.knn.is_none(), "{report:?}");
        assert_eq!(report, diagnostics.run(&mut params).unwrap());
    }
}
