//! Nearest neighbours by the cosine of mean-pooled features.

use vjepa_metrics::knn;

use super::features::Features;

/// Unit vectors of the mean tokens, after the mean over clips (which all clips share and which says nothing) is taken away.
fn directions(features: &Features) -> Vec<f32> {
    let pooled = if features.tokens == 1 { features.clone() } else { features.pooled() };
    let mean = super::linalg::mean_row(&pooled.values, pooled.dim);
    let mut rows = pooled.values;
    for row in rows.chunks_exact_mut(pooled.dim.max(1)) {
        row.iter_mut().zip(&mean).for_each(|(x, m)| *x -= *m as f32);
    }
    knn::normalise(&mut rows, pooled.dim);
    rows
}

/// The `k` nearest other clips of every clip, nearest first: index and cosine.
pub fn nearest(features: &Features, k: usize) -> Vec<Vec<(usize, f32)>> {
    let rows = directions(features);
    let of = |(query, row): (usize, &[f32])| {
        let found = knn::nearest(row, &rows, k, Some(query));
        found.into_iter().map(|neighbour| (neighbour.row, neighbour.similarity)).collect()
    };
    rows.chunks_exact(features.dim.max(1)).enumerate().map(of).collect()
}

/// Share of clips whose label wins the vote of their `k` nearest other clips, each vote weighing its cosine.
pub fn leave_one_out(features: &Features, labels: &[i64], k: usize) -> f64 {
    let mut hits = 0;
    for (neighbours, own) in nearest(features, k).iter().zip(labels) {
        let mut votes = std::collections::BTreeMap::new();
        for (index, cosine) in neighbours {
            if let Some(label) = labels.get(*index) {
                *votes.entry(*label).or_insert(0f32) += cosine.max(0.0) + 1e-6;
            }
        }
        let winner = votes.into_iter().reduce(|best, next| if next.1 > best.1 { next } else { best });
        hits += usize::from(winner.is_some_and(|(label, _)| label == *own));
    }
    hits as f64 / labels.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_two_groups() {
        let values = vec![5.0, 1.0, 5.1, 1.2, -1.0, 4.0, -1.1, 4.2, -0.9, 4.1];
        let features = Features { tokens: 1, dim: 2, values };
        let found = nearest(&features, 2);
        assert_eq!(found[0][0].0, 1);
        assert_eq!(found[2].iter().map(|(i, _)| *i).collect::<std::collections::BTreeSet<_>>(), [3, 4].into());
        assert!(found[0][0].1 > found[0][1].1);
        assert_eq!(leave_one_out(&features, &[0, 0, 1, 1, 1], 1), 1.0);
        assert_eq!(leave_one_out(&features, &[0, 1, 0, 0, 0], 1), 0.6);
    }
}
