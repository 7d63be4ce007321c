//! Which classes have the largest scores.
//!
//! Ties go to the earlier class, as `torch.max` decides them, which the official accuracies are taken with. `torch.topk` leaves
//! the order of equal scores open (of twenty equal ones it takes number 12), so there no rule can be followed.

/// Whether `label` is among the `k` largest of `scores`; of equal scores the earlier class comes first. A score that is not
/// a number is larger than every other, as in PyTorch, but never right.
pub fn in_top(scores: &[f32], label: usize, k: usize) -> bool {
    let Some(&own) = scores.get(label) else { return false };
    let above = |(class, score): &(usize, &f32)| score.is_nan() || **score > own || (**score == own && *class < label);
    !own.is_nan() && scores.iter().enumerate().filter(above).count() < k
}

/// Share of rows `[n, classes]` whose label is among the `k` largest scores; 0 for no rows.
pub fn top_k(scores: &[f32], classes: usize, labels: &[usize], k: usize) -> f64 {
    let rows = scores.chunks_exact(classes.max(1)).zip(labels);
    let hits = rows.filter(|(scores, label)| in_top(scores, **label, k)).count();
    hits as f64 / labels.len().max(1) as f64
}

/// Class of the largest score; 0 for none. Scores that are not numbers are passed over.
pub fn argmax(scores: &[f32]) -> usize {
    let best = scores.iter().enumerate().filter(|(_, score)| !score.is_nan());
    best.reduce(|best, next| if *next.1 > *best.1 { next } else { best }).map_or(0, |(class, _)| class)
}

/// Softmax of logits, in place. The largest is subtracted first, so large logits do not overflow.
pub fn softmax(logits: &mut [f32]) {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0f32;
    for value in logits.iter_mut() {
        *value = (*value - most).exp();
        sum += *value;
    }
    logits.iter_mut().for_each(|value| *value /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_and_ties() {
        let scores = [0.1, 0.5, 0.5, 0.2];
        assert!(in_top(&scores, 1, 1) && !in_top(&scores, 2, 1) && in_top(&scores, 2, 2));
        assert!(!in_top(&scores, 0, 3) && in_top(&scores, 0, 4) && !in_top(&scores, 9, 4));
        assert_eq!(top_k(&[1.0, 0.0, 0.0, 1.0], 2, &[0, 0], 1), 0.5);
        assert_eq!(top_k(&[1.0, 0.0, 0.0, 1.0], 2, &[0, 0], 2), 1.0);
        assert_eq!(top_k(&[], 2, &[], 1), 0.0);
        assert_eq!(argmax(&scores), 1);
    }

    #[test]
    fn what_is_not_a_number_takes_a_place_and_is_never_right() {
        assert!(!in_top(&[f32::NAN, 0.0], 0, 1));
        // PyTorch's top-1 of this row is class 0.
        assert!(!in_top(&[f32::NAN, 0.0], 1, 1) && in_top(&[f32::NAN, 0.0], 1, 2));
        assert_eq!(argmax(&[f32::NAN, 0.0, 1.0]), 2);
    }

    #[test]
    fn softmax_of_large_logits() {
        let mut logits = [1000.0, 1000.0, f32::NEG_INFINITY];
        softmax(&mut logits);
        assert_eq!(logits, [0.5, 0.5, 0.0]);
    }
}
