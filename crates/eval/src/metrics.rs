//! Accuracies and their spread.

use serde::Serialize;

/// Whether `label` is among the `k` largest of `scores`; of equal scores the earlier class comes first.
pub fn in_top(scores: &[f32], label: usize, k: usize) -> bool {
    let Some(&own) = scores.get(label) else { return false };
    let above = scores.iter().enumerate().filter(|(class, score)| **score > own || (**score == own && *class < label));
    // A score that is not a number is never right.
    !own.is_nan() && above.count() < k
}

/// Share of rows `[n, classes]` whose label is among the `k` largest scores; 0 for no rows.
pub fn top_k(scores: &[f32], classes: usize, labels: &[usize], k: usize) -> f64 {
    let rows = scores.chunks_exact(classes.max(1)).zip(labels);
    let hits = rows.filter(|(scores, label)| in_top(scores, **label, k)).count();
    hits as f64 / labels.len().max(1) as f64
}

/// Class of the largest score; 0 for none.
pub fn argmax(scores: &[f32]) -> usize {
    let best = scores.iter().enumerate().reduce(|best, next| if *next.1 > *best.1 { next } else { best });
    best.map_or(0, |(class, _)| class)
}

/// Softmax of logits, in place.
pub fn softmax(logits: &mut [f32]) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for value in logits.iter_mut() {
        *value = (*value - most).exp();
        sum += *value;
    }
    logits.iter_mut().for_each(|value| *value /= sum);
}

/// Mean over draws with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Mean.
    pub mean: f64,
    /// Standard error of the mean over draws; 0 for a single draw.
    pub se: f64,
}

impl Figure {
    /// Of the results of several draws.
    pub fn of(results: &[f64]) -> Self {
        let n = results.len().max(1) as f64;
        let mean = results.iter().sum::<f64>() / n;
        let square: f64 = results.iter().map(|x| (x - mean).powi(2)).sum();
        let se = if results.len() > 1 { (square / (n - 1.0) / n).sqrt() } else { 0.0 };
        Self { mean, se }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_ties() {
        let scores = [0.1, 0.5, 0.5, 0.2];
        assert!(in_top(&scores, 1, 1) && !in_top(&scores, 2, 1) && in_top(&scores, 2, 2));
        assert!(!in_top(&scores, 0, 3) && in_top(&scores, 0, 4) && !in_top(&scores, 9, 4));
        assert!(!in_top(&[f32::NAN, 0.0], 0, 1));
        assert_eq!(top_k(&[1.0, 0.0, 0.0, 1.0], 2, &[0, 0], 1), 0.5);
        assert_eq!(top_k(&[1.0, 0.0, 0.0, 1.0], 2, &[0, 0], 2), 1.0);
        assert_eq!(argmax(&scores), 1);
    }

    #[test]
    fn standard_errors() {
        let figure = Figure::of(&[0.4, 0.6]);
        assert!((figure.mean - 0.5).abs() < 1e-12 && (figure.se - 0.1).abs() < 1e-12);
        assert_eq!(Figure::of(&[0.7]).se, 0.0);
    }

    #[test]
    fn softmax_of_large_logits() {
        let mut logits = [1000.0, 1000.0, f32::NEG_INFINITY];
        softmax(&mut logits);
        assert_eq!(logits, [0.5, 0.5, 0.0]);
    }
}
