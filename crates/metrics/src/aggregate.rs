//! The prediction of a video out of those of its clips and views: the mean of their softmax, never of their logits.
//!
//! A probe that attends across segments is called once per view and gives `[views, B, K]`; one that does not is called for
//! every segment and view and gives `[segments * views, B, K]`. Either way all leading axes are averaged.
//! Source: facebookresearch/jepa `evals/video_classification_frozen/eval.py`.

use crate::MetricError;

/// Mean over the leading axis of the softmax of `logits` `[calls, samples, classes]`: probabilities `[samples, classes]`.
///
/// # Errors
/// [`MetricError`]: a size of zero, or logits that are no whole number of calls.
pub fn mean_softmax(logits: &[f32], samples: usize, classes: usize) -> Result<Vec<f32>, MetricError> {
    let calls = calls(logits, samples, classes)?;
    let mut mean = vec![0f64; samples * classes];
    for call in logits.chunks_exact(samples * classes) {
        for (row, mean) in call.chunks_exact(classes).zip(mean.chunks_exact_mut(classes)) {
            let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let total: f64 = row.iter().map(|&x| f64::from(x - largest).exp()).sum();
            let own = |&x: &f32| f64::from(x - largest).exp() / total / calls as f64;
            mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += own(x));
        }
    }
    Ok(mean.into_iter().map(|value| value as f32).collect())
}

/// Mean cross-entropy of all calls `[calls, samples, classes]`, natural logarithm: the loss that the official evaluation prints.
///
/// # Errors
/// As [`mean_softmax`], and labels that do not fit.
pub fn cross_entropy(logits: &[f32], labels: &[usize], classes: usize) -> Result<f64, MetricError> {
    let calls = calls(logits, labels.len(), classes)?;
    let mut sum = 0.0;
    for call in logits.chunks_exact(labels.len() * classes) {
        for (sample, (row, &label)) in call.chunks_exact(classes).zip(labels).enumerate() {
            let own = row.get(label).ok_or(MetricError::Label { label, sample, classes })?;
            let largest = row.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(f64::from(x)));
            let total: f64 = row.iter().map(|&x| (f64::from(x) - largest).exp()).sum();
            sum += total.ln() + largest - f64::from(*own);
        }
    }
    Ok(sum / (calls * labels.len()) as f64)
}

/// Mean of probabilities over consecutive rows: `[samples * views, classes]`, the views of a sample next to each other, gives
/// `[samples, classes]`. `views` of 0 counts as 1.
pub fn mean_of_views(probabilities: &[f32], classes: usize, views: usize) -> Vec<f32> {
    let views = views.max(1);
    let share = 1.0 / views as f32;
    let mean = |group: &[f32]| {
        let mut mean = vec![0f32; classes];
        for row in group.chunks_exact(classes.max(1)) {
            mean.iter_mut().zip(row).for_each(|(sum, p)| *sum += p * share);
        }
        mean
    };
    probabilities.chunks_exact((classes * views).max(1)).flat_map(mean).collect()
}

fn calls(logits: &[f32], samples: usize, classes: usize) -> Result<usize, MetricError> {
    if classes == 0 {
        return Err(MetricError::Zero("classes"));
    }
    if samples == 0 || logits.is_empty() {
        return Err(MetricError::Zero("samples"));
    }
    let calls = logits.len() / (samples * classes);
    crate::sized("logits", logits.len(), calls.max(1) * samples * classes)?;
    Ok(calls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_are_averaged_not_logits() {
        // One sure call against two slightly opposed ones.
        let logits = [9.0, 0.0, 0.0, 2.0, 0.0, 2.0];
        let mean = mean_softmax(&logits, 1, 2).unwrap();
        assert!(mean[0] < mean[1] && (mean[0] + mean[1] - 1.0).abs() < 1e-6, "{mean:?}");
        assert_eq!(mean_softmax(&[1.0; 5], 1, 2), Err(MetricError::Size { what: "logits", got: 5, expected: 4 }));
        assert_eq!(mean_softmax(&[], 0, 2), Err(MetricError::Zero("samples")));
    }

    #[test]
    fn views_lie_next_to_each_other() {
        assert_eq!(mean_of_views(&[1.0, 0.0, 0.0, 1.0, 0.5, 0.5, 1.0, 0.0], 2, 2), [0.5, 0.5, 0.75, 0.25]);
        assert_eq!(mean_of_views(&[0.25, 0.75], 2, 0), [0.25, 0.75]);
    }

    #[test]
    fn loss_of_equal_logits() {
        let loss = cross_entropy(&[0.0; 12], &[0, 2], 3).unwrap();
        assert!((loss - 3f64.ln()).abs() < 1e-12);
        assert!(cross_entropy(&[0.0; 6], &[0, 3], 3).unwrap_err().to_string().contains("label 3 (sample 1)"));
    }
}
