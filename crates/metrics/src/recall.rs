//! Class-mean recall at k, the figure of action anticipation on EPIC-KITCHENS-100 (k = 5).

use crate::{Figure, MetricError, in_top};

/// Mean over classes of the share of a class's samples whose label is among their `k` largest scores `[n, classes]`. Classes
/// without samples are left out of the mean, as are, where `only` is given, classes it does not name: EPIC-KITCHENS-100 counts
/// tail and unseen classes apart. 0 for no class.
///
/// # Errors
/// [`MetricError`]: another number of scores, labels outside the classes, `k` or `classes` of 0.
pub fn class_mean_recall(
    scores: &[f32],
    classes: usize,
    labels: &[usize],
    k: usize,
    only: Option<&[usize]>,
) -> Result<f64, MetricError> {
    for (name, value) in [("classes", classes), ("k", k)] {
        if value == 0 {
            return Err(MetricError::Zero(name));
        }
    }
    crate::sized("scores", scores.len(), labels.len() * classes)?;
    let mut counts = vec![(0u64, 0u64); classes];
    for (sample, (row, &label)) in scores.chunks_exact(classes).zip(labels).enumerate() {
        let (hits, all) = counts.get_mut(label).ok_or(MetricError::Label { label, sample, classes })?;
        *hits += u64::from(in_top(row, label, k));
        *all += 1;
    }
    let counted = |class: usize| only.is_none_or(|only| only.contains(&class));
    let shares = counts.iter().enumerate().filter(|(class, (_, all))| *all > 0 && counted(*class));
    let shares: Vec<f64> = shares.map(|(_, (hits, all))| *hits as f64 / *all as f64).collect();
    Ok(Figure::of(&shares).mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_weigh_alike() {
        // Class 0 is right in 1 of 3, class 1 in 1 of 1, class 2 has no samples.
        let scores = [0.9, 0.1, 0.0, 0.1, 0.9, 0.0, 0.1, 0.9, 0.0, 0.1, 0.9, 0.0];
        let recall = |k, only: Option<&[usize]>| class_mean_recall(&scores, 3, &[0, 0, 0, 1], k, only).unwrap();
        assert!((recall(1, None) - (1.0 / 3.0 + 1.0) / 2.0).abs() < 1e-12);
        assert_eq!(recall(2, None), 1.0);
        assert_eq!(recall(1, Some(&[1, 2])), 1.0);
        assert_eq!(recall(1, Some(&[2])), 0.0);
        assert_eq!(class_mean_recall(&scores, 3, &[0; 4], 0, None), Err(MetricError::Zero("k")));
        assert!(class_mean_recall(&scores, 3, &[0, 0, 0, 3], 1, None).is_err());
    }
}
