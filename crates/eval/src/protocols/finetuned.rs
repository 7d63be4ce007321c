//! The test of a fine-tuned model: several clips and crops of each video, their probabilities averaged.

use std::path::{Path, PathBuf};

use rayon::prelude::*;
use vjepa_collective::{Collective, Portion, turn};
use vjepa_data::{BadVideo, TestPlan, VideoEntry, refuse_stub};
use vjepa_graphs::EncoderConfig;
use vjepa_metrics::argmax;
use vjepa_programs::frozen::{Frozen, FrozenError};
use vjepa_programs::{Model, Precision, Probe, ProbeFile};
use vjepa_recipe::config::Config;
use vjepa_recipe::records::Accuracy;
use vjepa_runtime::plan::Device;
use vjepa_weights::Tensors;

use super::videos::{self, classes_of};
use crate::labels::ClassNames;
use crate::{EvalError, OnProgress, Progress};

/// Videos decoded at once; a unit of work that ranks are dealt.
const DECODED_AT_ONCE: usize = 8;
/// Clips that go through the model at once.
pub const BATCH: usize = 8;

/// Predictions of a test.
#[derive(Clone, Debug, Default)]
pub struct Tested {
    /// For each good video the mean of the softmax over its clips and crops, `[videos, classes]`.
    pub probabilities: Vec<f32>,
    /// Number of classes.
    pub classes: usize,
    /// Label of each good video, as its list has it.
    pub labels: Vec<i64>,
    /// The good videos.
    pub paths: Vec<PathBuf>,
    /// The bad ones.
    pub bad: Vec<BadVideo>,
}

impl Tested {
    /// The likeliest class of each good video, with its probability.
    pub fn predictions(&self) -> Vec<(usize, f32)> {
        let likeliest = |row: &[f32]| {
            let class = argmax(row);
            (class, row.get(class).copied().unwrap_or_default())
        };
        self.probabilities.chunks_exact(self.classes.max(1)).map(likeliest).collect()
    }

    /// Top-1 and top-5 of the good videos, whose classes are `classes`.
    pub fn accuracy(&self, classes: &[usize]) -> Accuracy {
        videos::accuracy(&self.probabilities, self.classes, classes)
    }
}

/// An encoder with the classifier it was trained with, compiled as it is deployed.
pub struct TunedModel {
    model: Frozen,
    classes: usize,
}

impl TunedModel {
    /// Compiles it; `weights` has the parameters under `encoder.` and `probe.`.
    ///
    /// # Errors
    /// [`EvalError`] for weights that do not fit.
    pub fn new(device: Device, encoder: &EncoderConfig, probe: &Probe, weights: &Tensors) -> Result<Self, EvalError> {
        let model = Frozen::on(device, Precision::F32, encoder, Some(probe), weights).map_err(failed)?;
        Ok(Self { model, classes: probe.num_classes() })
    }

    /// Probabilities of clips `[B, C, T, H, W]`: `[B, classes]`.
    ///
    /// # Errors
    /// [`EvalError`] for values that are not whole clips.
    pub fn probabilities(&mut self, clips: Vec<f32>) -> Result<Vec<f32>, EvalError> {
        let mut outputs = self.model.run(clips).map_err(failed)?;
        let logits = outputs.remove("logits").ok_or_else(|| EvalError::setup("the model's plan has no output"))?;
        Ok(logits.floats().chunks_exact(self.classes.max(1)).flat_map(softmax).collect())
    }

    /// Tests on videos, which `ranks` share; bad ones are named in the result and left out. None on ranks other than 0.
    ///
    /// # Errors
    /// [`EvalError`]: clips of another size than the model's; a rank that is lost; when every video is bad.
    pub fn test(
        &mut self,
        plan: &TestPlan,
        entries: &[VideoEntry],
        ranks: &dyn Collective,
        progress: OnProgress<'_>,
    ) -> Result<Option<Tested>, EvalError> {
        let mut tested = Tested { classes: self.classes, ..Tested::default() };
        let mut done = 0;
        for units in entries.chunks(DECODED_AT_ONCE * ranks.world()) {
            let mine = units.chunks(DECODED_AT_ONCE).nth(ranks.rank());
            let mine = mine.map(|unit| self.portion(plan, unit)).transpose()?;
            for (unit, portion) in units.chunks(DECODED_AT_ONCE).zip(turn(ranks, mine)?) {
                tested.probabilities.extend(portion.values);
                for (entry, bad) in unit.iter().zip(portion.samples) {
                    match bad {
                        Some(reason) => tested.bad.push(BadVideo { path: entry.path.clone(), reason }),
                        None => {
                            tested.labels.push(entry.label.unwrap_or(-1));
                            tested.paths.push(entry.path.clone());
                        }
                    }
                }
            }
            done += units.len();
            progress(Progress { what: "testing videos", done, total: entries.len() });
        }
        if ranks.rank() != 0 {
            return Ok(None);
        }
        if tested.paths.is_empty() {
            let first = tested.bad.first().map(|bad| format!("; the first, {}: {}", bad.path.display(), bad.reason));
            let (count, first) = (entries.len(), first.unwrap_or_default());
            return Err(EvalError::setup(format!("none of the {count} videos can be used{first}")));
        }
        Ok(Some(tested))
    }

    /// Mean probabilities of a unit of videos.
    fn portion(&mut self, plan: &TestPlan, unit: &[VideoEntry]) -> Result<Portion, EvalError> {
        let clip = plan.preprocessing.clip_len().max(1);
        let prepare = |entry: &VideoEntry| refuse_stub(&entry.path).and_then(|()| plan.prepare(&entry.path));
        let prepared: Vec<Result<Vec<f32>, String>> = unit.par_iter().map(prepare).collect();
        let mut made = Portion::default();
        for clips in prepared {
            made.samples.push(match clips {
                Err(reason) => Some(reason),
                Ok(clips) => {
                    let mut each = Vec::new();
                    for batch in clips.chunks(clip * BATCH) {
                        each.extend(self.probabilities(batch.to_vec())?);
                    }
                    let views = each.len() / self.classes.max(1);
                    made.values.extend(mean(&each, self.classes, views));
                    None
                }
            });
        }
        Ok(made)
    }
}

/// A fine-tuned model, opened.
pub struct OpenTuned {
    /// It.
    pub model: TunedModel,
    /// Its encoder and how clips are prepared.
    pub description: Model,
    /// Names of its classes; may be empty.
    pub names: Vec<String>,
}

impl OpenTuned {
    /// Its classes, for the checks of a list: `source` is its file, `from` the label of the first in the lists of its training.
    pub fn class_names(&self, source: &Path, from: i64) -> ClassNames {
        ClassNames { names: self.names.clone(), count: self.model.classes, from: Some(from), source: source.into() }
    }

    /// The classes of a list's labels, of which `from` is that of the first class.
    ///
    /// # Errors
    /// [`EvalError::Setup`] naming a label of no class.
    pub fn classes_of(&self, labels: &[i64], from: i64) -> Result<Vec<usize>, EvalError> {
        let labels: Vec<i64> = labels.iter().map(|label| label.saturating_sub(from)).collect();
        classes_of(&labels, &self.names, self.model.classes)
    }
}

/// Opens a file that `vjepa finetune` wrote.
///
/// # Errors
/// [`EvalError::Weights`] for a file that does not fit; [`EvalError::File`] for an encoder alone, or with a classifier that was
/// not trained with it.
pub fn open_tuned(device: Device, path: &Path, config: Option<&Config>) -> Result<OpenTuned, EvalError> {
    let file = vjepa_weights::load(path)?;
    if !file.has("probe") {
        let why = "holds no classifier; give the probe that was trained on its features with --probe FILE";
        return Err(EvalError::file(path, why));
    }
    let description = vjepa_programs::describe(&file, config)?;
    let ProbeFile { probe, labels, tensors, .. } = vjepa_programs::load_probe(path)?;
    if !matches!(probe, Probe::Tuned(_)) {
        return Err(EvalError::file(path, "holds a probe of frozen features; give it with --probe, and its encoder"));
    }
    let mut weights = file.take_encoder(description.encoder.parameter_shapes())?;
    weights.extend(tensors);
    let model = TunedModel::new(device, &description.encoder, &probe, &weights)?;
    Ok(OpenTuned { model, description, names: labels })
}

/// The mean over the views of one video, of probabilities already.
fn mean(each: &[f32], classes: usize, views: usize) -> Vec<f32> {
    let share = 1.0 / views.max(1) as f64;
    let sum = |class: usize| each.iter().skip(class).step_by(classes.max(1)).map(|p| f64::from(*p)).sum::<f64>();
    (0..classes).map(|class| (sum(class) * share) as f32).collect()
}

fn softmax(logits: &[f32]) -> Vec<f32> {
    let most = logits.iter().fold(f64::NEG_INFINITY, |most, x| most.max(f64::from(*x)));
    let exp: Vec<f64> = logits.iter().map(|x| (f64::from(*x) - most).exp()).collect();
    let sum: f64 = exp.iter().sum();
    exp.into_iter().map(|x| (x / sum) as f32).collect()
}

fn failed(error: FrozenError) -> EvalError {
    match error {
        FrozenError::Compile(error) => error.into(),
        FrozenError::Run(error) => error.into(),
        error => EvalError::setup(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_averaged_as_probabilities() {
        let each: Vec<f32> = [softmax(&[0.0, 0.0]), softmax(&[0.0, 3f32.ln()])].concat();
        let got = mean(&each, 2, 2);
        assert!((got[0] - 0.375).abs() < 1e-6 && (got[1] - 0.625).abs() < 1e-6, "{got:?}");
    }
}
