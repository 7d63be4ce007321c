//! Linear algebra of evaluations: effective rank, principal axes, means and deviations of rows; where a probe's query looks.
//!
//! A crate of its own, since the pictures of `view` need it and build without Burn.

#![warn(missing_docs)]

mod attention;

pub use attention::QueryAttention;

use nalgebra::{DMatrix, DMatrixView, DVector, SymmetricEigen};

/// Variances below this share of the largest are rounding.
const ROUNDING: f64 = 1e-13;

/// Effective rank of rows `[count, dim]`: the exponential of the entropy of the singular values of their covariance (the
/// variances along its principal axes), each as a share of their sum (Roy and Vetterli, 2007). 0 when all rows are equal, or
/// where a value is NaN or infinite.
pub fn effective_rank(rows: &[f32], dim: usize) -> f64 {
    let Some(gram) = smaller_gram(&centred(rows, dim, &mean_row(rows, dim))) else { return 0.0 };
    let values = gram.symmetric_eigenvalues();
    let least = ROUNDING * values.max();
    let kept: Vec<f64> = values.iter().copied().filter(|value| *value > least && *value > 0.0).collect();
    let sum: f64 = kept.iter().sum();
    if sum == 0.0 {
        return 0.0;
    }
    let entropy: f64 = kept.iter().map(|value| value / sum).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

/// The first `k` principal axes `[k, dim]` of rows `[count, dim]`, and the mean row. Axes are unit vectors, strongest first;
/// the sign of each makes its largest value positive. Where the rows have fewer than `k` axes, the others are zeros;
/// all of them are where a value is NaN or infinite.
pub fn principal_axes(rows: &[f32], dim: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    let mean = mean_row(rows, dim);
    let centred = centred(rows, dim, &mean);
    let mut axes = vec![0.0; k.min(dim) * dim];
    let Some(gram) = smaller_gram(&centred) else { return (axes, mean) };
    let of_rows = gram.nrows() < dim;
    let SymmetricEigen { eigenvalues, eigenvectors } = gram.symmetric_eigen();
    let mut order: Vec<usize> = (0..eigenvalues.len()).collect();
    order.sort_by(|a, b| eigenvalues[*b].total_cmp(&eigenvalues[*a]));
    let least = ROUNDING * eigenvalues.max();
    for (axis, index) in axes.chunks_exact_mut(dim).zip(order) {
        if eigenvalues[index] <= least {
            break;
        }
        let vector = eigenvectors.column(index);
        // Eigenvectors of the rows' Gram matrix say how much of each row an axis takes.
        let vector: DVector<f64> = if of_rows { &centred * vector } else { vector.into_owned() };
        let length = vector.norm() * vector[vector.iamax()].signum();
        axis.iter_mut().zip(&vector).for_each(|(value, x)| *value = x / length);
    }
    (axes, mean)
}

/// The mean of rows `[count, dim]`.
pub fn mean_row(rows: &[f32], dim: usize) -> Vec<f64> {
    let mut mean = vec![0f64; dim];
    for row in rows.chunks_exact(dim.max(1)) {
        mean.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
    }
    let count = (rows.len() / dim.max(1)).max(1) as f64;
    mean.iter_mut().for_each(|sum| *sum /= count);
    mean
}

/// Deviation of each dimension over rows `[count, dim]`.
pub fn deviations(rows: &[f32], dim: usize) -> Vec<f64> {
    let mean = mean_row(rows, dim);
    let mut square = vec![0f64; dim];
    for row in rows.chunks_exact(dim.max(1)) {
        square.iter_mut().zip(row).zip(&mean).for_each(|((sum, x), m)| *sum += (f64::from(*x) - m).powi(2));
    }
    let count = (rows.len() / dim.max(1)).max(1) as f64;
    square.into_iter().map(|sum| (sum / count).sqrt()).collect()
}

/// The products of all pairs of columns, or of all pairs of rows where these are fewer: both have the same eigenvalues but for
/// zeros. None for a matrix without elements, or with one that is not finite: its eigenvalues are not defined.
fn smaller_gram(matrix: &DMatrix<f64>) -> Option<DMatrix<f64>> {
    let gram = match matrix.ncols() < matrix.nrows() {
        true => matrix.tr_mul(matrix),
        false => matrix * matrix.transpose(),
    };
    (!gram.is_empty() && gram.iter().all(|x| x.is_finite())).then_some(gram)
}

/// Rows without their mean, as the columns of a matrix `[dim, count]`; a matrix without elements where there are none.
fn centred(rows: &[f32], dim: usize, mean: &[f64]) -> DMatrix<f64> {
    let count = rows.len().checked_div(dim).unwrap_or(0);
    let rows = DMatrixView::from_slice(&rows[..count * dim], dim, count);
    DMatrix::from_fn(dim, count, |i, j| f64::from(rows[(i, j)]) - mean[i])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn effective_ranks_of_known_matrices() {
        // A cross: two equal variances.
        let cross = [1.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, -1.0, 0.0];
        assert!((effective_rank(&cross, 3) - 2.0).abs() < 1e-9);
        // Points of a line, far from the origin.
        let line: Vec<f32> = (0..10).flat_map(|i| [100.0 + i as f32, 2.0 * i as f32, 7.0]).collect();
        assert!((effective_rank(&line, 3) - 1.0).abs() < 1e-4);
        assert_eq!(effective_rank(&[3.0; 12], 3), 0.0);
        assert_eq!(effective_rank(&[], 3), 0.0);
        // Variances 9 and 1: entropy of (.9, .1).
        let uneven = [3.0, 0.0, -3.0, 0.0, 0.0, 1.0, 0.0, -1.0];
        let entropy = -(0.9f64 * 0.9f64.ln() + 0.1 * 0.1f64.ln());
        assert!((effective_rank(&uneven, 2) - entropy.exp()).abs() < 1e-6);
        // The same from the other Gram matrix.
        let wide = [3.0, 0.0, 0.0, 0.0, 0.0, -3.0, 0.0, 0.0, 0.0, 0.0];
        assert!((effective_rank(&wide, 5) - 1.0).abs() < 1e-6);
    }

    #[test]
    fn axes_of_a_stretched_cloud() {
        let rows: Vec<f32> = (0..200)
            .flat_map(|i| {
                let (a, b) = ((i as f32 * 0.7).sin() * 5.0, (i as f32 * 1.3).cos());
                [1.0 + a * 0.6 - b * 0.8, 2.0 + a * 0.8 + b * 0.6, 3.0]
            })
            .collect();
        let (axes, mean) = principal_axes(&rows, 3, 2);
        assert!((axes[0] - 0.6).abs() < 0.02 && (axes[1] - 0.8).abs() < 0.02, "{axes:?}");
        assert!((axes[3] + 0.8).abs() < 0.02 || (axes[3] - 0.8).abs() < 0.02);
        assert!((mean[2] - 3.0).abs() < 1e-9);
    }

    #[test]
    fn axes_have_one_sign_and_one_order() {
        // Variances 8, 2 and 0 along the axes of the space, in dimensions 1, 2 and 0.
        let rows = [0.0, 2.0, 1.0, 0.0, -2.0, 1.0, 0.0, 2.0, -1.0, 0.0, -2.0, -1.0];
        let (axes, mean) = principal_axes(&rows, 3, 3);
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&axes, &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]), "{axes:?}");
        assert_eq!(mean, [0.0; 3]);
        // The same space from fewer rows than dimensions.
        let wide = [0.0, -3.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0];
        let (axes, _) = principal_axes(&wide, 4, 2);
        assert!(close(&axes, &[0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]), "{axes:?}");
        assert_eq!(principal_axes(&[], 3, 2), (vec![0.0; 6], vec![0.0; 3]));
        assert_eq!(principal_axes(&[], 0, 2), (vec![], vec![]));
        // A diverged model: no answer, but no endless search for one either.
        let diverged = [1.0, f32::NAN, 2.0, f32::INFINITY, 3.0, 4.0];
        assert_eq!(principal_axes(&diverged, 2, 1).0, [0.0; 2]);
        assert_eq!(effective_rank(&diverged, 2), 0.0);
    }
}
