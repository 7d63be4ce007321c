//! Probes of labelled samples: opened checkpoint, features through the cache, predictions.

use std::path::{Path, PathBuf};

use vjepa_graphs::NamedTensors;
use vjepa_graphs::position::resize_table;
use vjepa_metrics::aggregate::mean_of_views;
use vjepa_metrics::{Confusion, top_k};
use vjepa_runtime::available_memory;
use vjepa_runtime::plan::Device;

use crate::attentive::{ProbeRunner, classes};
use crate::cache::cached_video_features;
use crate::features::{ClipEncoder, Features, FrozenEncoder, Keep};
use crate::logistic::{Labelled, fit, fit_tuned};
use crate::videos::{VideoFeatures, video_features_in_parts};
use crate::{EvalError, OnProgress};
use vjepa_collective::{Collective, any};
use vjepa_data::{BadVideo, Permutation, SamplePlan, VideoEntry};
use vjepa_programs::Model;
use vjepa_programs::Probe;
use vjepa_recipe::config::Config;
use vjepa_recipe::records::Accuracy;
use vjepa_weights as weights;

/// A frozen encoder from a checkpoint.
pub struct OpenEncoder {
    /// The encoder with its weights.
    pub encoder: FrozenEncoder,
    /// Its description.
    pub model: Model,
    /// SHA-256 of the checkpoint; of one in several files theirs, joined.
    pub digest: String,
    /// Which encoder of the checkpoint it is.
    pub named: &'static str,
}

/// Opens the encoder of a checkpoint on a device: its target encoder where there is one.
///
/// # Errors
/// [`EvalError::Weights`] for a checkpoint that does not fit, [`EvalError::File`] for one that cannot be read.
pub fn open_encoder(device: Device, checkpoint: &Path, config: Option<&Config>) -> Result<OpenEncoder, EvalError> {
    open_encoder_as(device, checkpoint, config, &Wanted::default())
}

/// Which encoder of a checkpoint, and for which clips.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `encoder` or `target_encoder`; not given, the target encoder where there is one.
    pub encoder: Option<&'static str>,
    /// Frames of a clip; not given, those that the encoder was trained on. Its position table is resized, as in the official
    /// code.
    pub frames: Option<usize>,
    /// Side of a clip in pixels; likewise.
    pub side: Option<usize>,
    /// Blocks, from 0, whose tokens are joined, those of one after those of the other; not given, those of the last alone.
    pub layers: Option<Vec<usize>>,
}

/// As [`open_encoder`], for a certain encoder and clips of another size.
///
/// # Errors
/// As [`open_encoder`]; [`EvalError::Setup`] for clips that tubelets and patches do not divide.
pub fn open_encoder_as(
    device: Device,
    checkpoint: &Path,
    config: Option<&Config>,
    wanted: &Wanted,
) -> Result<OpenEncoder, EvalError> {
    let file = weights::load(checkpoint)?;
    let mut model = vjepa_programs::describe(&file, config)?;
    let trained = model.encoder.clone();
    let named = wanted.encoder.map_or_else(|| file.encoder(), Ok)?;
    let mut tensors = file.take(named, "encoder", trained.parameter_shapes())?;
    let (frames, side) = (wanted.frames.unwrap_or(trained.num_frames), wanted.side.unwrap_or(trained.height));
    if (frames, side) != (trained.num_frames, trained.height) {
        model.encoder = trained.clone().with_clip(frames, side, side);
        model.encoder.validate().map_err(|error| EvalError::setup(error.to_string()))?;
        (model.preprocessing.num_frames, model.preprocessing.crop_size) = (frames, side);
        if let Some(table) = tensors.get_mut("encoder.pos_embed") {
            resize_table(table, trained.grid(), model.encoder.grid())
                .map_err(|error| EvalError::setup(error.to_string()))?;
        }
    }
    if wanted.layers.is_some() {
        model.encoder.out_layers.clone_from(&wanted.layers);
        model.encoder.validate().map_err(|error| EvalError::setup(error.to_string()))?;
    }
    let encoder = FrozenEncoder::on(device, &model.encoder, &tensors)?;
    Ok(OpenEncoder { encoder, model, digest: vjepa_programs::digest(&file)?, named })
}

/// Which samples of a list are evaluated, and how.
#[derive(Clone)]
pub struct SampleSet<'a> {
    /// The samples of the list.
    pub entries: &'a [VideoEntry],
    /// Their clips and views.
    pub plan: SamplePlan,
    /// Whether a probe reads the tokens of all clips of a view at once; otherwise each clip is a view of its own.
    pub attend: bool,
    /// Where features are kept; none keeps them in memory only.
    pub cache: Option<PathBuf>,
    /// Processes that share the samples.
    pub ranks: &'a dyn Collective,
}

impl SampleSet<'_> {
    /// Bytes of a sample's features.
    fn bytes_of_a_sample(&self, encoder: &dyn ClipEncoder, keep: Keep) -> usize {
        let [tokens, dim] = encoder.tokens();
        let clip = if keep == Keep::Tokens { tokens } else { 1 } * dim * size_of::<f32>();
        [self.plan.clips(), self.plan.views()].into_iter().fold(clip, usize::saturating_mul)
    }

    /// Predictions of a sample, which are averaged.
    pub fn predictions(&self) -> usize {
        self.plan.views() * if self.attend { 1 } else { self.plan.clips() }
    }
}

/// The memory that is free, where features of so many bytes would take more than half of it.
fn too_much(bytes: usize) -> Option<usize> {
    let free = available_memory().and_then(|free| usize::try_from(free).ok());
    free.filter(|free| bytes > free / 2)
}

/// Bytes of features of evaluated samples that are in memory at once where not all of them are kept.
pub const PART: usize = 1 << 30;

/// Whether samples are evaluated a part at a time: all of their features would not fit into memory, or are not cached anyway.
/// All ranks get the same answer.
///
/// # Errors
/// [`EvalError::Collective`] where a rank is lost.
pub fn in_parts(encoder: &dyn ClipEncoder, set: &SampleSet<'_>, keep: Keep) -> Result<bool, EvalError> {
    let bytes = set.bytes_of_a_sample(encoder, keep).saturating_mul(set.entries.len());
    // Rank 0 would hold them.
    Ok(any(set.ranks, set.ranks.rank() == 0 && (set.cache.is_none() || too_much(bytes).is_some()))?)
}

/// Hands the features of samples that are evaluated to `take` on rank 0: all of them, through the cache, or where there is none
/// or they would not fit into memory, a part at a time. The bad samples, and whether the cache had them; none on ranks other
/// than 0.
///
/// # Errors
/// As [`features_of`], but for memory, and those of `take`.
pub fn evaluated(
    encoder: &mut dyn ClipEncoder,
    digest: &str,
    set: &SampleSet<'_>,
    keep: Keep,
    take: &mut dyn FnMut(&VideoFeatures) -> Result<(), EvalError>,
    progress: OnProgress<'_>,
) -> Result<Option<(Vec<BadVideo>, bool)>, EvalError> {
    if in_parts(encoder, set, keep)? {
        let sample = set.bytes_of_a_sample(encoder, keep).max(1);
        let (how, most) = ((keep, set.attend), (PART / sample).max(1));
        let mut take = |part: VideoFeatures| take(&part);
        let bad = video_features_in_parts(encoder, &set.plan, set.entries, how, set.ranks, most, &mut take, progress)?;
        return Ok((set.ranks.rank() == 0).then_some((bad, false)));
    }
    let Some((found, cached)) = features_of(encoder, digest, set, keep, progress)? else { return Ok(None) };
    take(&found)?;
    Ok(Some((found.bad, cached)))
}

/// Accuracy and confusion of samples that come a part at a time.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    right: [usize; 2],
    samples: usize,
    confusion: Option<Confusion>,
}

impl Tally {
    /// Adds samples with scores `[samples, classes]`.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for sizes that do not fit.
    pub fn add(&mut self, scores: &[f32], classes: usize, labels: &[usize]) -> Result<(), EvalError> {
        let wrong = |error: vjepa_metrics::MetricError| EvalError::setup(error.to_string());
        let part = Confusion::of(scores, classes, labels).map_err(wrong)?;
        match &mut self.confusion {
            Some(all) => all.add(&part).map_err(wrong)?,
            None => self.confusion = Some(part),
        }
        for (right, k) in self.right.iter_mut().zip([1, 5]) {
            *right += (top_k(scores, classes, labels, k) * labels.len() as f64).round() as usize;
        }
        self.samples += labels.len();
        Ok(())
    }

    /// Of all samples; none without one.
    pub fn accuracy(&self) -> Option<Accuracy> {
        let [top1, top5] = self.right.map(|right| right as f64 / self.samples as f64);
        (self.samples > 0).then_some(Accuracy { top1, top5, videos: self.samples })
    }

    /// Of all samples.
    pub fn into_confusion(self) -> Option<Confusion> {
        self.confusion
    }
}

/// Features of the samples of a list by an encoder whose file has this digest; the second value says whether the cache had
/// them. None on ranks other than 0.
///
/// # Errors
/// As [`cached_video_features`]; [`EvalError::Setup`] when they would not fit into memory.
pub fn features_of(
    encoder: &mut dyn ClipEncoder,
    digest: &str,
    set: &SampleSet<'_>,
    keep: Keep,
    progress: OnProgress<'_>,
) -> Result<Option<(VideoFeatures, bool)>, EvalError> {
    let entries = set.entries;
    let bytes = set.bytes_of_a_sample(encoder, keep).saturating_mul(entries.len());
    if let Some(free) = too_much(bytes).filter(|_| set.ranks.rank() == 0) {
        let gigabytes = |bytes: usize| bytes as f64 / f64::from(1 << 30);
        return Err(EvalError::setup(format!(
            "all tokens of {} samples take {:.1} GiB of memory, and {:.1} GiB are free; use fewer samples, clips or views, a linear \
             probe (`vjepa probe --kind linear`), which needs only mean tokens, or --online, which keeps none",
            entries.len(),
            gigabytes(bytes),
            gigabytes(free)
        )));
    }
    cached_video_features(digest, encoder, set, keep, progress)
}

/// Names of the classes of labels: given ones, which a label numbers, or else the distinct labels in order.
pub fn class_names(labels: &[i64], given: Option<Vec<String>>) -> Vec<String> {
    given.unwrap_or_else(|| {
        let distinct: std::collections::BTreeSet<i64> = labels.iter().copied().collect();
        distinct.into_iter().map(|label| label.to_string()).collect()
    })
}

/// The class of each label: the one named so, or where classes have names of their own, the one so numbered.
///
/// # Errors
/// [`EvalError::Setup`] naming a label that is not one of the classes.
pub fn classes_of(labels: &[i64], names: &[String], classes: usize) -> Result<Vec<usize>, EvalError> {
    let numbered = names.iter().all(|name| name.parse::<i64>().is_err());
    let class = |label: &i64| {
        let named = names.iter().position(|name| *name == label.to_string());
        let own = usize::try_from(*label).ok().filter(|label| numbered && *label < classes);
        named.or(own).ok_or_else(|| {
            EvalError::setup(format!(
                "label {label} is not one of the probe's {classes} classes; give a list with the labels that the probe knows"
            ))
        })
    };
    labels.iter().map(class).collect()
}

/// Fewer rows than this leave none to choose C on.
const LEAST_ROWS: usize = 10;
/// C without a choice.
const PLAIN_C: f64 = 0.1;

/// Logistic regression, its C chosen on a fifth of the rows.
pub(super) fn linear(
    pooled: &Features,
    labels: &[usize],
    classes: usize,
    seed: u64,
) -> Result<(crate::logistic::LogisticModel, f64), EvalError> {
    if labels.len() < LEAST_ROWS {
        let data = Labelled { features: &pooled.values, dim: pooled.dim, labels };
        return Ok((fit(data, classes, PLAIN_C)?, PLAIN_C));
    }
    let order = Permutation::new(labels.len() as u64, seed);
    let (mut train, mut held_out) = (Vec::new(), Vec::new());
    for place in 0..labels.len() {
        let row = order.at(place as u64) as usize;
        if place % 5 == 0 { held_out.push(row) } else { train.push(row) }
    }
    let part = |rows: &[usize]| {
        let labels: Vec<usize> = rows.iter().filter_map(|row| labels.get(*row).copied()).collect();
        (pooled.select(rows).values, labels)
    };
    let (train, held_out) = (part(&train), part(&held_out));
    let dim = pooled.dim;
    let (model, c, _) = fit_tuned(
        Labelled { features: &train.0, dim, labels: &train.1 },
        Labelled { features: &held_out.0, dim, labels: &held_out.1 },
        classes,
    )?;
    Ok((model, c))
}

/// Top-1 and top-5 of scores `[samples, classes]`.
pub fn accuracy(scores: &[f32], classes: usize, labels: &[usize]) -> Accuracy {
    let share = |k| top_k(scores, classes, labels, k);
    Accuracy { top1: share(1), top5: share(5), videos: labels.len() }
}

/// The prediction of every sample, `[samples, classes]`: the mean of the softmax over its `predictions` rows of features.
///
/// # Errors
/// As [`ProbeRunner::probabilities`]; [`EvalError::Setup`] for rows that are no whole samples.
pub fn predict(
    device: Device,
    probe: &Probe,
    weights: &NamedTensors,
    features: &Features,
    (samples, predictions): (usize, usize),
) -> Result<Vec<f32>, EvalError> {
    let mut runner = ProbeRunner::on(device, probe, weights)?;
    let count = classes(probe);
    let probabilities = mean_of_views(&runner.probabilities(features)?, count, predictions);
    if probabilities.len() != samples * count {
        let rows = probabilities.len() / count.max(1);
        return Err(EvalError::setup(format!("{rows} predictions do not fit {samples} labels")));
    }
    Ok(probabilities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_become_classes() {
        let names = class_names(&[7, 3, 7, 12], None);
        assert_eq!(names, ["3", "7", "12"]);
        assert_eq!(classes_of(&[12, 3], &names, 3).unwrap(), [2, 0]);
        assert!(classes_of(&[4], &names, 3).unwrap_err().to_string().contains("label 4"));
        let own = class_names(&[0, 1], Some(vec!["cat".into(), "dog".into()]));
        assert_eq!(classes_of(&[1, 0], &own, 2).unwrap(), [1, 0]);
        assert!(classes_of(&[2], &own, 2).is_err());
        assert!(classes_of(&[-1], &own, 2).is_err());
        assert_eq!(classes_of(&[1], &[], 2).unwrap(), [1]);
    }

    #[test]
    fn samples_that_come_in_parts_add_up() {
        let scores: Vec<f32> = (0..7 * 6).map(|i| (i * 37 % 11) as f32).collect();
        let labels = [0, 5, 2, 2, 1, 4, 3];
        let mut tally = Tally::default();
        assert_eq!(tally.accuracy(), None);
        for (scores, labels) in scores.chunks(3 * 6).zip(labels.chunks(3)) {
            tally.add(scores, 6, labels).unwrap();
        }
        assert_eq!(tally.accuracy(), Some(accuracy(&scores, 6, &labels)));
        assert_eq!(tally.into_confusion(), Some(Confusion::of(&scores, 6, &labels).unwrap()));
        assert!(Tally::default().add(&scores, 5, &labels).is_err());
    }

    #[test]
    fn a_linear_probe_of_few_rows_needs_no_choice() {
        let features = Features { tokens: 1, dim: 1, values: vec![-1.0, 1.0, -1.2, 0.8] };
        assert_eq!(linear(&features, &[0, 1, 0, 1], 2, 0).unwrap().1, PLAIN_C);
    }
}
