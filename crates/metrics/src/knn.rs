//! Classification by nearest neighbours of mean-pooled features (facebookresearch/dino `eval_knn.py`; scikit-learn's
//! `KNeighborsClassifier` with the cosine distance).

use crate::MetricError;

/// DINO's temperature.
pub const TEMPERATURE: f32 = 0.07;
/// The numbers of neighbours that DINO reports; 20 is the one usually quoted.
pub const NEIGHBOURS: [usize; 4] = [10, 20, 100, 200];

/// A neighbour: its row among the references, and the cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Row, from 0.
    pub row: usize,
    /// Dot product with the query.
    pub similarity: f32,
}

/// What a neighbour's vote for its class weighs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weight {
    /// `exp(similarity / temperature)`, as DINO has it.
    Exponential {
        /// The temperature.
        temperature: f32,
    },
    /// All votes alike.
    Equal,
}

impl Weight {
    /// DINO's, at its temperature.
    pub const DINO: Self = Self::Exponential { temperature: TEMPERATURE };

    fn of(self, similarity: f32) -> f64 {
        match self {
            Self::Exponential { temperature } => (f64::from(similarity) / f64::from(temperature)).exp(),
            Self::Equal => 1.0,
        }
    }
}

/// Scales every row of `[n, dim]` to length 1, in place; rows of zeros stay.
pub fn normalise(rows: &mut [f32], dim: usize) {
    for row in rows.chunks_exact_mut(dim.max(1)) {
        let norm = row.iter().map(|x| x * x).sum::<f32>().sqrt();
        row.iter_mut().for_each(|x| *x /= norm.max(f32::MIN_POSITIVE));
    }
}

/// The `k` references `[n, dim]` most similar to `query` `[dim]`, most similar first and the earlier of equal ones first;
/// all of them where there are fewer. `except` is left out: the query's own row, when it is one of the references. Rows are
/// of unit length already.
pub fn nearest(query: &[f32], references: &[f32], k: usize, except: Option<usize>) -> Vec<Neighbour> {
    let similarity = |row: &[f32]| query.iter().zip(row).map(|(a, b)| a * b).sum::<f32>();
    let rows = references.chunks_exact(query.len().max(1)).enumerate().filter(|(row, _)| Some(*row) != except);
    let mut all: Vec<Neighbour> = rows.map(|(row, values)| Neighbour { row, similarity: similarity(values) }).collect();
    let closer = |a: &Neighbour, b: &Neighbour| b.similarity.total_cmp(&a.similarity).then(a.row.cmp(&b.row));
    if k < all.len() && k > 0 {
        all.select_nth_unstable_by(k - 1, closer);
    }
    all.truncate(k);
    all.sort_by(closer);
    all
}

/// Votes `[classes]` of neighbours whose classes are `labels`.
///
/// # Errors
/// [`MetricError`]: a neighbour without a label, or with one outside the classes.
pub fn votes(
    neighbours: &[Neighbour],
    labels: &[usize],
    classes: usize,
    weight: Weight,
) -> Result<Vec<f32>, MetricError> {
    let mut votes = vec![0f64; classes];
    for neighbour in neighbours {
        let missing =
            MetricError::Size { what: "labels of the references", got: labels.len(), expected: neighbour.row + 1 };
        let label = *labels.get(neighbour.row).ok_or(missing)?;
        let outside = MetricError::Label { label, sample: neighbour.row, classes };
        *votes.get_mut(label).ok_or(outside)? += weight.of(neighbour.similarity);
    }
    Ok(votes.into_iter().map(|vote| vote as f32).collect())
}

/// Votes `[n, classes]` for queries `[n, dim]` by their `k` nearest references `[m, dim]`, both of unit length. `k` is capped
/// by the number of references. Of equal votes the smaller class wins, so [`crate::top_k`] of them is the accuracy; it says
/// nothing about more classes than there are neighbours.
///
/// # Errors
/// [`MetricError`]: sizes of zero, values that are no whole rows, labels that do not fit.
pub fn classify(
    queries: &[f32],
    (references, labels): (&[f32], &[usize]),
    [dim, classes]: [usize; 2],
    k: usize,
    weight: Weight,
) -> Result<Vec<f32>, MetricError> {
    for (name, value) in [("dim", dim), ("classes", classes), ("k", k)] {
        if value == 0 {
            return Err(MetricError::Zero(name));
        }
    }
    crate::sized("references", references.len(), labels.len() * dim)?;
    crate::sized("queries", queries.len(), queries.len() / dim * dim)?;
    if let Some((sample, &label)) = labels.iter().enumerate().find(|(_, label)| **label >= classes) {
        return Err(MetricError::Label { label, sample, classes });
    }
    let mut all = Vec::with_capacity(queries.len() / dim * classes);
    for query in queries.chunks_exact(dim) {
        all.extend(votes(&nearest(query, references, k, None), labels, classes, weight)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: [f32; 8] = [1.0, 0.0, 0.8, 0.6, 0.0, 1.0, 0.8, 0.6];

    #[test]
    fn equal_neighbours_keep_their_order() {
        let rows = |k, except| nearest(&ROWS[..2], &ROWS, k, except).iter().map(|n| n.row).collect::<Vec<_>>();
        assert_eq!(rows(3, None), [0, 1, 3]);
        assert_eq!(rows(2, Some(0)), [1, 3]);
        assert_eq!(rows(9, None), [0, 1, 3, 2]);
        assert_eq!(rows(0, None), [0usize; 0]);
    }

    #[test]
    fn votes_by_weight() {
        let labels = [0, 1, 2, 1];
        let equal = classify(&ROWS[..2], (&ROWS, &labels), [2, 3], 3, Weight::Equal).unwrap();
        assert_eq!(equal, [1.0, 2.0, 0.0]);
        let dino = classify(&ROWS[..2], (&ROWS, &labels), [2, 3], 3, Weight::DINO).unwrap();
        assert!(dino[0] > dino[1], "the nearest outweighs two that are farther: {dino:?}");
    }

    #[test]
    fn sizes_are_checked() {
        let run = |labels: &[usize], k| classify(&ROWS, (&ROWS, labels), [2, 3], k, Weight::Equal);
        assert!(run(&[0, 1, 2], 1).is_err());
        assert_eq!(run(&[0, 1, 2, 3], 1), Err(MetricError::Label { label: 3, sample: 3, classes: 3 }));
        assert_eq!(run(&[0; 4], 0), Err(MetricError::Zero("k")));
        let mut zeros = [0.0; 2];
        normalise(&mut zeros, 2);
        assert_eq!(zeros, [0.0; 2]);
    }
}
