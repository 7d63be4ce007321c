//! Average precision of a class.

use std::cmp::Ordering;

use super::ClassPrecision;

/// The class's figures out of the results of its detections.
pub(super) fn of_class(action: u32, boxes: usize, results: Vec<(f64, bool)>) -> ClassPrecision {
    let sorted = |ties: fn(bool, bool) -> Ordering| {
        let mut results = results.clone();
        results.sort_by(|a, b| b.0.total_cmp(&a.0).then(ties(a.1, b.1)));
        results
    };
    let ranked = sorted(|_, _| Ordering::Equal);
    let precision =
        |results: &[(f64, bool)]| average_precision(&results.iter().map(|result| result.1).collect::<Vec<_>>(), boxes);
    let wrong_first = precision(&sorted(|a, b| a.cmp(&b)));
    let right_first = precision(&sorted(|a, b| b.cmp(&a)));
    ClassPrecision {
        action,
        ap: precision(&ranked),
        boxes,
        detections: results.len(),
        right: results.iter().filter(|result| result.1).count(),
        tied: ranked.windows(2).filter(|pair| pair[0].0 == pair[1].0).count(),
        range: wrong_first.zip(right_first).map(|(low, high)| [low, high]),
    }
}

/// Average precision of detections in falling order of score, each right or not, with `boxes` to be found: the sum over recall
/// steps of the largest precision at that recall or beyond. None without boxes; 0 without detections.
pub fn average_precision(right: &[bool], boxes: usize) -> Option<f64> {
    if boxes == 0 {
        return None;
    }
    let mut hits = 0usize;
    let mut curve: Vec<(f64, f64)> = Vec::with_capacity(right.len());
    for (place, right) in right.iter().enumerate() {
        hits += usize::from(*right);
        curve.push((hits as f64 / boxes as f64, hits as f64 / (place + 1) as f64));
    }
    let mut best = 0f64;
    for (_, precision) in curve.iter_mut().rev() {
        best = best.max(*precision);
        *precision = best;
    }
    let mut before = 0.0;
    let mut sum = 0.0;
    for (recall, precision) in curve {
        sum += (recall - before) * precision;
        before = recall;
    }
    Some(sum)
}
