//! Probes of labelled video files: opened checkpoint, features through the cache, training, evaluation.

use std::path::{Path, PathBuf};

use vjepa_graphs::{NamedTensors, ProbeConfig};
use vjepa_metrics::aggregate::mean_of_views;
use vjepa_metrics::top_k;
use vjepa_runtime::available_memory;
use vjepa_runtime::plan::Device;

use crate::attentive::{ProbeOptions, ProbeRunner, ProbeTrainer, classes};
use crate::cache::{cached_video_features, file_digest};
use crate::features::{Features, FrozenEncoder, Keep};
use crate::logistic::{Labelled, fit, fit_tuned};
use crate::probe_file::linear_weights;
use crate::videos::VideoFeatures;
use crate::{EvalError, OnProgress};
use vjepa_data::ViewPlan;
use vjepa_data::{Permutation, VideoEntry};
use vjepa_programs::Model;
use vjepa_programs::Probe;
use vjepa_recipe::config::Config;
use vjepa_weights as weights;

/// Which probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeKind {
    /// Attentive pooling, trained through the compiled step.
    Attentive,
    /// Linear on the mean token: logistic regression.
    Linear,
}

/// A frozen encoder from a checkpoint.
pub struct OpenEncoder {
    /// The encoder with its weights.
    pub encoder: FrozenEncoder,
    /// Its description.
    pub model: Model,
    /// SHA-256 of the checkpoint; of one in several files theirs, joined.
    pub digest: String,
}

/// Opens the encoder of a checkpoint on a device: its target encoder where there is one.
///
/// # Errors
/// [`EvalError::Weights`] for a checkpoint that does not fit, [`EvalError::File`] for one that cannot be read.
pub fn open_encoder(device: Device, checkpoint: &Path, config: Option<&Config>) -> Result<OpenEncoder, EvalError> {
    let file = weights::load(checkpoint)?;
    let model = vjepa_programs::describe(&file, config)?;
    let tensors = file.take_encoder(model.encoder.parameter_shapes())?;
    let encoder = FrozenEncoder::on(device, &model.encoder, &tensors)?;
    Ok(OpenEncoder { encoder, model, digest: digest_of(file.files())? })
}

/// The digest of a checkpoint's file, or of the digests of several.
fn digest_of(files: &[PathBuf]) -> Result<String, EvalError> {
    let digests = files.iter().map(|file| file_digest(file)).collect::<Result<Vec<_>, _>>()?;
    Ok(digests.join("+"))
}

/// Which clips and views of a list's videos to evaluate.
#[derive(Clone, Debug)]
pub struct VideoSet<'a> {
    /// The videos of the list.
    pub entries: &'a [VideoEntry],
    /// Clips of a video.
    pub clips: usize,
    /// Views of a clip.
    pub views: usize,
    /// Where features are kept; none keeps them in memory only.
    pub cache: Option<PathBuf>,
}

impl OpenEncoder {
    /// Features of the videos of a list; the second value says whether the cache had them.
    ///
    /// # Errors
    /// As [`cached_video_features`]; [`EvalError::Setup`] when they would not fit into memory.
    pub fn features(
        &mut self,
        set: &VideoSet<'_>,
        keep: Keep,
        progress: OnProgress<'_>,
    ) -> Result<(VideoFeatures, bool), EvalError> {
        let entries = set.entries;
        let config = self.encoder.config();
        let clip = if keep == Keep::Tokens { config.tokens() } else { 1 } * config.embed_dim * size_of::<f32>();
        let bytes = [set.clips, set.views, clip].into_iter().fold(entries.len(), usize::saturating_mul);
        let free = available_memory().and_then(|free| usize::try_from(free).ok());
        if let Some(free) = free.filter(|free| bytes > free / 2) {
            let gigabytes = |bytes: usize| bytes as f64 / f64::from(1 << 30);
            return Err(EvalError::setup(format!(
                "all tokens of {} videos take {:.1} GiB of memory, and {:.1} GiB are free; use fewer videos, clips or views, or a \
                 linear probe (`vjepa probe --kind linear`), which needs only mean tokens",
                entries.len(),
                gigabytes(bytes),
                gigabytes(free)
            )));
        }
        let plan = ViewPlan { preprocessing: self.model.preprocessing.clone(), clips: set.clips, views: set.views };
        cached_video_features(set.cache.as_deref(), &self.digest, &mut self.encoder, &plan, entries, keep, progress)
    }
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

/// A trained probe and how well it does on what it was trained on.
pub struct TrainedProbe {
    /// Its kind and sizes.
    pub probe: Probe,
    /// Its weights, plain names.
    pub weights: NamedTensors,
    /// The C of a logistic regression.
    pub c: Option<f64>,
}

/// Trains a probe on features, one row a video, whose classes are `labels`.
///
/// # Errors
/// [`EvalError::Setup`] for fewer than two classes or labels that do not fit, [`EvalError::Diverged`].
pub fn train_probe(
    kind: ProbeKind,
    encoder: &FrozenEncoder,
    features: &Features,
    labels: &[usize],
    class_count: usize,
    options: &ProbeOptions,
    progress: OnProgress<'_>,
) -> Result<TrainedProbe, EvalError> {
    if class_count < 2 {
        return Err(EvalError::setup("a probe needs videos of at least two classes"));
    }
    match kind {
        ProbeKind::Attentive => {
            let probe = Probe::Attentive(ProbeConfig::for_encoder(encoder.config(), class_count));
            let rows: Vec<usize> = (0..labels.len()).collect();
            let weights =
                ProbeTrainer::on(encoder.device(), &probe)?.fit(features, labels, &rows, options, progress)?;
            Ok(TrainedProbe { probe, weights, c: None })
        }
        ProbeKind::Linear => {
            let (model, c) = linear(&features.pooled(), labels, class_count, options.seed)?;
            let probe = Probe::Linear { embed_dim: features.dim, num_classes: class_count };
            Ok(TrainedProbe { probe, weights: linear_weights(&model), c: Some(c) })
        }
    }
}

/// Fewer rows than this leave none to choose C on.
const LEAST_ROWS: usize = 10;
/// C without a choice.
const PLAIN_C: f64 = 0.1;

/// Logistic regression, its C chosen on a fifth of the rows.
fn linear(
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

/// Accuracies of a probe on labelled videos.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Accuracy {
    /// Share of videos whose class has the largest probability.
    pub top1: f64,
    /// Share of videos whose class is among the five largest.
    pub top5: f64,
    /// Videos.
    pub videos: usize,
}

/// Evaluates a probe: the prediction of a video is the mean of the softmax over its `views`.
///
/// # Errors
/// As [`ProbeRunner::probabilities`].
pub fn evaluate_probe(
    device: Device,
    probe: &Probe,
    weights: &NamedTensors,
    features: &Features,
    labels: &[usize],
    views: usize,
) -> Result<Accuracy, EvalError> {
    let mut runner = ProbeRunner::on(device, probe, weights)?;
    let count = classes(probe);
    let probabilities = mean_of_views(&runner.probabilities(features)?, count, views);
    if probabilities.len() != labels.len() * count {
        let (rows, videos) = (probabilities.len() / count.max(1), labels.len());
        return Err(EvalError::setup(format!("{rows} predictions do not fit {videos} labels")));
    }
    let share = |k| top_k(&probabilities, count, labels, k);
    Ok(Accuracy { top1: share(1), top5: share(5), videos: labels.len() })
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
    fn a_linear_probe_of_few_rows_needs_no_choice() {
        let features = Features { tokens: 1, dim: 1, values: vec![-1.0, 1.0, -1.2, 0.8] };
        assert_eq!(linear(&features, &[0, 1, 0, 1], 2, 0).unwrap().1, PLAIN_C);
    }
}
