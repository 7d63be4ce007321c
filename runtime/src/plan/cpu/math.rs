//! Loops over f32 slices, compiled for several instruction sets and chosen at run time.
//!
//! exp and erf are polynomials without branches, so that the loops vectorise; each is within 2e-7 of the exact value
//! (relative for exp), checked against f64 in the tests below.

use multiversion::multiversion;

const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// 1.5·2²³: adding it rounds to the nearest integer and leaves that integer in the low mantissa bits.
pub(super) const ROUND: f32 = 12_582_912.0;

/// eˣ for x ≤ 88; below −87 the result is clamped to e⁻⁸⁷, which is zero for every use here.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    // ln 2 in two parts, so that x − n·ln 2 is exact enough.
    let r = x - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let e_r = p * r * r + r + 1.0;
    let power = (rounded.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    e_r * f32::from_bits((power.wrapping_add(127) << 23) as u32)
}

/// erf(x), a rational approximation on |x| ≤ 4.
#[inline(always)]
pub(super) fn erf(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let t = x * x;
    let mut p = -2.726_142_3e-10;
    p = p * t + 2.770_681_4e-8;
    p = p * t - 2.101_024e-6;
    p = p * t - 5.692_506_4e-5;
    p = p * t - 7.349_906_3e-4;
    p = p * t - 2.954_6e-3;
    p = p * t - 1.609_603_3e-2;
    let mut q = -1.456_607_2e-5;
    q = q * t - 2.133_740_6e-4;
    q = q * t - 1.682_827e-3;
    q = q * t - 7.373_329e-3;
    q = q * t - 1.426_473_9e-2;
    x * p / q
}

/// Sum of 16 lanes, pairwise: four dependent additions instead of fifteen.
#[inline(always)]
pub(super) fn lane_sum(mut lanes: [f32; 16]) -> f32 {
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// Φ(x).
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    0.5 * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// gelu'(x), where `cdf` is Φ(x).
#[inline(always)]
fn gelu_slope(x: f32, cdf: f32) -> f32 {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    cdf + x * INV_SQRT_2PI * exp(-0.5 * x * x)
}

/// `out[i] = x[i]·Φ(x[i])`.
#[multiversion(targets = "simd")]
pub(super) fn gelu(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2));
    }
}

/// `x[i] = x[i]·Φ(x[i])`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_in_place(x: &mut [f32]) {
    for x in x {
        *x *= normal_cdf(*x);
    }
}

/// `out[i] *= gelu'(x[i])`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_grad(out: &mut [f32], x: &[f32]) {
    for (out, x) in out.iter_mut().zip(x) {
        *out *= gelu_slope(*x, normal_cdf(*x));
    }
}

/// `dy[i] *= gelu'(x[i])`, and then `x[i] = gelu(x[i])`.
#[multiversion(targets = "simd")]
pub(super) fn gelu_with_grad(x: &mut [f32], dy: &mut [f32]) {
    for (x, dy) in x.iter_mut().zip(dy) {
        let cdf = normal_cdf(*x);
        *dy *= gelu_slope(*x, cdf);
        *x *= cdf;
    }
}

/// Softmax of one row in place.
#[multiversion(targets = "simd")]
pub(super) fn softmax_row(row: &mut [f32]) {
    // Comparisons, not `f32::max`, whose rule for NaN keeps the loop scalar. A NaN makes the sum below NaN all the same.
    let larger = |a: f32, b: f32| if a > b { a } else { b };
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*x, *lane);
        }
    }
    let max = lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |max, x| larger(*x, max));
    let mut sums = [0f32; 16];
    let mut chunks = row.chunks_exact_mut(16);
    for chunk in &mut chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            let e = exp(*x - max);
            *x = e;
            *sum += e;
        }
    }
    let mut total = 0.0;
    for x in chunks.into_remainder() {
        *x = exp(*x - max);
        total += *x;
    }
    total += lane_sum(sums);
    let inverse = 1.0 / total;
    for x in row.iter_mut() {
        *x *= inverse;
    }
}

/// Σ aᵢ·bᵢ.
#[multiversion(targets = "simd")]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a_chunks, b_chunks) = (a.chunks_exact(16), b.chunks_exact(16));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    lane_sum(lanes) + rest
}

/// Σ xᵢ²: few enough terms in f32 that no digit is lost, their sums in f64.
#[multiversion(targets = "simd")]
pub(super) fn sum_of_squares(x: &[f32]) -> f64 {
    let mut total = 0f64;
    for block in x.chunks(512) {
        let mut lanes = [0f32; 16];
        let chunks = block.chunks_exact(16);
        let rest: f32 = chunks.remainder().iter().map(|x| x * x).sum();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane += x * x;
            }
        }
        total += f64::from(lane_sum(lanes) + rest);
    }
    total
}

/// `dp[i] = p[i]·(dp[i] − d)`: the gradient of scores from probabilities.
#[multiversion(targets = "simd")]
pub(super) fn score_grad(dp: &mut [f32], p: &[f32], d: f32) {
    for (dp, p) in dp.iter_mut().zip(p) {
        *dp = p * (*dp - d);
    }
}

/// Mean and reciprocal deviation of a row.
#[multiversion(targets = "simd")]
pub(super) fn moments(row: &[f32], eps: f32) -> (f32, f32) {
    let n = row.len() as f32;
    let mut sums = [0f32; 16];
    let chunks = row.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks.clone() {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let mean = (lane_sum(sums) + rest.iter().sum::<f32>()) / n;
    let mut squares = [0f32; 16];
    for chunk in chunks {
        for (square, x) in squares.iter_mut().zip(chunk) {
            let d = x - mean;
            *square += d * d;
        }
    }
    let tail: f32 = rest.iter().map(|x| (x - mean) * (x - mean)).sum();
    let variance = (lane_sum(squares) + tail) / n;
    (mean, 1.0 / (variance + eps).sqrt())
}

/// `a[i] += b[i]`.
#[multiversion(targets = "simd")]
pub(super) fn add_assign(a: &mut [f32], b: &[f32]) {
    for (a, b) in a.iter_mut().zip(b) {
        *a += b;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_erf_are_close_to_exact() {
        for i in -8000..=8000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "exp({x})");
        }
        // erf at points with known values (Abramowitz & Stegun, table 7.1).
        for (x, exact) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (1.5, 0.966_105_1), (2.0, 0.995_322_3)] {
            assert!((erf(x) - exact).abs() < 3e-7 && (erf(-x) + exact).abs() < 3e-7, "erf({x})");
        }
    }

    #[test]
    fn softmax_row_sums_to_one_and_survives_large_scores() {
        for n in [1usize, 3, 16, 37] {
            let mut row: Vec<f32> = (0..n).map(|i| 1000.0 + i as f32).collect();
            softmax_row(&mut row);
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6, "{row:?}");
        }
    }
}
