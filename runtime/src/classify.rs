//! From frames to labels: preprocessing, a run, probabilities.

use crate::{ClipBatch, NamedOutput, PreprocessError, Session, SessionError};
use std::collections::BTreeMap;

/// Metadata key of the classes' names, a JSON list.
pub const LABELS_KEY: &str = "vjepa.labels";
/// The outputs that hold a value for each class: scores, or the probabilities of a model that averages views.
pub const CLASS_OUTPUTS: [&str; 2] = ["logits", "probabilities"];

/// A class and how probable it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Index of the class.
    pub class: usize,
    /// Its name, when the model carries names.
    pub label: Option<String>,
    /// Between 0 and 1; all classes together give 1.
    pub probability: f64,
}

/// Frames that could not be classified.
#[derive(Debug, thiserror::Error)]
pub enum ClassifyError {
    /// The model cannot be run.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The frames do not fit, or the model does not say how to prepare them.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// A model without a probe.
    #[error("the model gives {0} and no classes; export it with a probe to classify with it")]
    NoClasses(String),
    /// A model that looks at several clips for one result.
    #[error("the model averages {0} clips and views for a result; prepare them and use `Session::run`")]
    Views(usize),
}

impl Session {
    /// The classes of one clip, most probable first. `frames` are the clip's frames as the model's
    /// [preprocessing record](Session::preprocessing) chooses them, `height` by `width` pixels of interleaved RGB bytes.
    ///
    /// # Errors
    /// [`ClassifyError`].
    pub fn classify<F: AsRef<[u8]>>(
        &self,
        frames: &[F],
        height: usize,
        width: usize,
    ) -> Result<Vec<Prediction>, ClassifyError> {
        if self.views() > 1 {
            return Err(ClassifyError::Views(self.views()));
        }
        let record = self.preprocessing()?;
        let clip = record.prepare(frames, height, width)?;
        let [channels, frames, height, width] = record.clip_shape();
        let outputs = self.run(&ClipBatch::new([1, channels, frames, height, width], &clip)?)?;
        predictions(&outputs, self.labels(), usize::MAX).ok_or_else(|| {
            let names: Vec<&str> = outputs.iter().map(|output| output.name.as_str()).collect();
            ClassifyError::NoClasses(names.join(" and "))
        })
    }
}

/// The `k` most probable classes among the outputs for one result, most probable first; none of a model without classes.
pub fn predictions(outputs: &[NamedOutput], labels: &[String], k: usize) -> Option<Vec<Prediction>> {
    let output = outputs.iter().find(|output| CLASS_OUTPUTS.contains(&output.name.as_str()))?;
    Some(match output.name.as_str() {
        "logits" => top(&output.data, labels, k),
        _ => sorted(output.data.iter().map(|p| f64::from(*p)).collect(), labels, k),
    })
}

/// Softmax of the scores of one clip.
pub fn probabilities(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weights: Vec<f64> = logits.iter().map(|logit| f64::from(logit - largest).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.into_iter().map(|weight| weight / total).collect()
}

/// The `k` most probable classes of one clip's scores, most probable first. `labels` may be empty.
pub fn top(logits: &[f32], labels: &[String], k: usize) -> Vec<Prediction> {
    sorted(probabilities(logits), labels, k)
}

fn sorted(probabilities: Vec<f64>, labels: &[String], k: usize) -> Vec<Prediction> {
    let name = |(class, probability)| Prediction { class, label: labels.get(class).cloned(), probability };
    let mut classes: Vec<Prediction> = probabilities.into_iter().enumerate().map(name).collect();
    classes.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    classes.truncate(k);
    classes
}

/// The classes' names among a model's metadata; none where it carries none.
pub(crate) fn labels(metadata: &BTreeMap<String, String>) -> Result<Vec<String>, String> {
    let Some(text) = metadata.get(LABELS_KEY) else { return Ok(Vec::new()) };
    serde_json::from_str(text).map_err(|error| format!("`{LABELS_KEY}` is not a list of names ({error})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_sorted_and_sum_to_one() {
        let labels = ["a", "b"].map(str::to_owned);
        let classes = top(&[0.0, 2.0, 1.0], &labels, 5);
        assert_eq!(classes.iter().map(|class| class.class).collect::<Vec<_>>(), [1, 2, 0]);
        assert_eq!(
            classes.iter().map(|class| class.label.as_deref()).collect::<Vec<_>>(),
            [Some("b"), None, Some("a")]
        );
        let total: f64 = classes.iter().map(|class| class.probability).sum();
        assert!((total - 1.0).abs() < 1e-12, "{total}");
        assert_eq!(top(&[0.0, 2.0, 1.0], &labels, 1).len(), 1);
    }

    #[test]
    fn labels_that_are_no_list_are_refused() {
        let with = |text: &str| labels(&BTreeMap::from([(LABELS_KEY.to_owned(), text.to_owned())]));
        assert_eq!(with("[\"a\"]"), Ok(vec!["a".to_owned()]));
        assert!(with("{}").is_err_and(|why| why.contains(LABELS_KEY)));
        assert_eq!(labels(&BTreeMap::new()), Ok(Vec::new()));
    }
}
