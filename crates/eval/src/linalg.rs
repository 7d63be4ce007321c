//! The little linear algebra that evaluations need: eigenvalues of symmetric matrices, effective rank, principal axes.

/// Eigenvalues of a symmetric matrix `[n, n]`, in no order, by cyclic Jacobi rotations.
pub fn symmetric_eigenvalues(matrix: &[f64], n: usize) -> Vec<f64> {
    const SWEEPS: usize = 30;
    let mut a = matrix.to_vec();
    a.resize(n * n, 0.0);
    let scale: f64 = a.iter().map(|x| x * x).sum::<f64>();
    for _ in 0..SWEEPS {
        let off: f64 = (0..n).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| a[i * n + j].powi(2)).sum();
        if off <= 1e-24 * scale {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, n, p, q);
            }
        }
    }
    (0..n).map(|i| a[i * n + i]).collect()
}

/// Turns rows and columns `p` and `q` so that their shared element vanishes.
fn rotate(a: &mut [f64], n: usize, p: usize, q: usize) {
    let apq = a[p * n + q];
    if apq == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * apq);
    let t = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let t = if theta == 0.0 { 1.0 } else { t };
    let c = 1.0 / (t * t + 1.0).sqrt();
    let s = t * c;
    // Rows first, contiguous, then the columns.
    let (upper, lower) = a.split_at_mut(q * n);
    let (row_p, row_q) = (&mut upper[p * n..][..n], &mut lower[..n]);
    for (x, y) in row_p.iter_mut().zip(row_q.iter_mut()) {
        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
    }
    for row in a.chunks_exact_mut(n) {
        (row[p], row[q]) = (c * row[p] - s * row[q], s * row[p] + c * row[q]);
    }
}

/// Effective rank of rows `[count, dim]`: the exponential of the entropy of the singular values of their covariance (the
/// variances along its principal axes), each as a share of their sum (Roy and Vetterli, 2007). 0 when all rows are equal.
pub fn effective_rank(rows: &[f32], dim: usize) -> f64 {
    let centred = centred(rows, dim);
    let count = centred.len() / dim.max(1);
    if count == 0 || dim == 0 {
        return 0.0;
    }
    // The smaller of the two Gram matrices has the same eigenvalues but for zeros.
    let (vectors, n) = if count <= dim { (centred, count) } else { (transposed(&centred, count, dim), dim) };
    let width = vectors.len() / n;
    let mut gram = vec![0f64; n * n];
    for (i, a) in vectors.chunks_exact(width).enumerate() {
        for (j, b) in vectors.chunks_exact(width).enumerate().take(i + 1) {
            let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
            gram[i * n + j] = dot;
            gram[j * n + i] = dot;
        }
    }
    let values = symmetric_eigenvalues(&gram, n);
    let most = values.iter().copied().fold(0.0, f64::max);
    // Below this a value is rounding.
    let kept: Vec<f64> = values.into_iter().filter(|value| *value > 1e-13 * most).collect();
    let sum: f64 = kept.iter().sum();
    if sum == 0.0 {
        return 0.0;
    }
    let entropy: f64 = kept.iter().map(|value| value / sum).map(|p| -p * p.ln()).sum();
    entropy.exp()
}

/// The first `k` principal axes `[k, dim]` of rows `[count, dim]`, and the mean row. Axes are unit vectors, strongest first;
/// the sign of each makes its largest value positive.
pub fn principal_axes(rows: &[f32], dim: usize, k: usize) -> (Vec<f64>, Vec<f64>) {
    const ROUNDS: usize = 60;
    let mean = mean_row(rows, dim);
    let centred = centred(rows, dim);
    let k = k.min(dim);
    // Orthogonal iteration from a fixed start that no axis is orthogonal to in practice.
    let mut axes: Vec<f64> = (0..k * dim).map(|i| ((i as f64 + 1.0) * 12.9898).sin()).collect();
    orthonormalise(&mut axes, dim);
    for _ in 0..ROUNDS {
        let mut next = vec![0f64; k * dim];
        for row in centred.chunks_exact(dim.max(1)) {
            for (axis, next) in axes.chunks_exact(dim.max(1)).zip(next.chunks_exact_mut(dim.max(1))) {
                let dot: f64 = row.iter().zip(axis).map(|(x, y)| x * y).sum();
                next.iter_mut().zip(row).for_each(|(sum, x)| *sum += dot * x);
            }
        }
        orthonormalise(&mut next, dim);
        axes = next;
    }
    for axis in axes.chunks_exact_mut(dim.max(1)) {
        let largest = axis.iter().copied().fold(0.0, |most: f64, x| if x.abs() > most.abs() { x } else { most });
        if largest < 0.0 {
            axis.iter_mut().for_each(|x| *x = -*x);
        }
    }
    (axes, mean)
}

/// Gram and Schmidt, rows in order; a row that vanishes stays zero.
fn orthonormalise(axes: &mut [f64], dim: usize) {
    let count = axes.len() / dim.max(1);
    for i in 0..count {
        let (done, rest) = axes.split_at_mut(i * dim);
        let axis = &mut rest[..dim];
        for earlier in done.chunks_exact(dim) {
            let dot: f64 = axis.iter().zip(earlier).map(|(x, y)| x * y).sum();
            axis.iter_mut().zip(earlier).for_each(|(x, y)| *x -= dot * y);
        }
        let norm = axis.iter().map(|x| x * x).sum::<f64>().sqrt();
        axis.iter_mut().for_each(|x| *x = if norm > 1e-150 { *x / norm } else { 0.0 });
    }
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

fn centred(rows: &[f32], dim: usize) -> Vec<f64> {
    let mean = mean_row(rows, dim);
    let whole = rows.chunks_exact(dim.max(1));
    whole.flat_map(|row| row.iter().zip(&mean).map(|(x, m)| f64::from(*x) - m)).collect()
}

fn transposed(rows: &[f64], count: usize, dim: usize) -> Vec<f64> {
    (0..dim).flat_map(|column| (0..count).map(move |row| rows[row * dim + column])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvalues_of_a_known_matrix() {
        let mut values = symmetric_eigenvalues(&[2.0, -1.0, 0.0, -1.0, 2.0, -1.0, 0.0, -1.0, 2.0], 3);
        values.sort_by(f64::total_cmp);
        let root = 2f64.sqrt();
        for (got, want) in values.iter().zip([2.0 - root, 2.0, 2.0 + root]) {
            assert!((got - want).abs() < 1e-12, "{got} {want}");
        }
        assert!(symmetric_eigenvalues(&[], 0).is_empty());
    }

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
}
