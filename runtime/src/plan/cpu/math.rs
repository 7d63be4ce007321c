//! Loops over f32 slices, compiled for several instruction sets and chosen at run time.
//!
//! exp and Φ are polynomials without branches, so that the loops vectorise; each is within 2e-7 of the exact value
//! (relative for exp), checked against f64 in the tests below.

use super::simd::{kernel, map};
use super::tiles::exp2;
use pulp::Simd;

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

/// Sum of lanes, a power of two of them, pairwise: few additions wait for another.
#[inline(always)]
pub(super) fn lane_sum<const N: usize>(mut lanes: [f32; N]) -> f32 {
    let mut half = N / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

/// Φ(x) = ½ + ½·erf(x/√2): erf is a rational approximation on |x| ≤ 4·√2, beyond which Φ is 0 or 1 in f32.
#[inline(always)]
fn normal_cdf<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// Where erf(x/√2) is ±1.
    const LIMIT: f32 = 5.656_854;
    // Coefficients of erf in (x/√2)², so those of Φ in x² are smaller by powers of two, which is exact.
    const P: [f32; 7] = [
        -2.726_142_3e-10 / 64.0,
        2.770_681_4e-8 / 32.0,
        -2.101_024e-6 / 16.0,
        -5.692_506_4e-5 / 8.0,
        -7.349_906_3e-4 / 4.0,
        -2.954_6e-3 / 2.0,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] =
        [-1.456_607_2e-5 / 16.0, -2.133_740_6e-4 / 8.0, -1.682_827e-3 / 4.0, -7.373_329e-3 / 2.0, -1.426_473_9e-2];
    let x = simd.max_f32s(simd.min_f32s(x, simd.splat_f32s(LIMIT)), simd.splat_f32s(-LIMIT));
    let t = simd.mul_f32s(x, x);
    let half = simd.mul_f32s(x, simd.splat_f32s(0.5 * std::f32::consts::FRAC_1_SQRT_2));
    let erf = simd.div_f32s(simd.mul_f32s(half, polynomial(simd, t, P)), polynomial(simd, t, Q));
    simd.add_f32s(erf, simd.splat_f32s(0.5))
}

/// Σ cᵢ·tⁱ, the coefficient of the highest power first.
#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, t: S::f32s, coefficients: [f32; N]) -> S::f32s {
    let mut sum = simd.splat_f32s(0.0);
    for (i, c) in coefficients.into_iter().enumerate() {
        let c = simd.splat_f32s(c);
        sum = if i == 0 { c } else { simd.mul_add_e_f32s(sum, t, c) };
    }
    sum
}

/// gelu'(x), where `cdf` is Φ(x).
#[inline(always)]
fn gelu_slope<S: Simd>(simd: S, x: S::f32s, cdf: S::f32s) -> S::f32s {
    const INV_SQRT_2PI: f32 = 0.398_942_3;
    let exponent = simd.mul_f32s(simd.mul_f32s(x, x), simd.splat_f32s(-0.5 * LOG2_E));
    let density = simd.mul_f32s(exp2(simd, exponent), simd.splat_f32s(INV_SQRT_2PI));
    simd.mul_add_e_f32s(x, density, cdf)
}

kernel! {
    /// `out[i] = x[i]·Φ(x[i])`.
    pub(super) fn gelu<S>(simd, out: &mut [f32], x: &[f32]) {
        map(simd, out, [x], #[inline(always)] |_, [x]| simd.mul_f32s(x, normal_cdf(simd, x)));
    }
}

kernel! {
    /// `x[i] = x[i]·Φ(x[i])`.
    pub(super) fn gelu_in_place<S>(simd, x: &mut [f32]) {
        map(simd, x, [], #[inline(always)] |x, []| simd.mul_f32s(x, normal_cdf(simd, x)));
    }
}

kernel! {
    /// `out[i] *= gelu'(x[i])`.
    pub(super) fn gelu_grad<S>(simd, out: &mut [f32], x: &[f32]) {
        map(simd, out, [x], #[inline(always)] |dy, [x]| simd.mul_f32s(dy, gelu_slope(simd, x, normal_cdf(simd, x))));
    }
}

kernel! {
    /// `dy[i] *= gelu'(x[i])`, and then `x[i] = gelu(x[i])`.
    pub(super) fn gelu_with_grad<S>(simd, x: &mut [f32], dy: &mut [f32]) {
        let ((xs, x_rest), (dys, dy_rest)) = (S::as_mut_simd_f32s(x), S::as_mut_simd_f32s(dy));
        for (x, dy) in xs.iter_mut().zip(dys) {
            (*x, *dy) = gelu_both(simd, *x, *dy);
        }
        if !x_rest.is_empty() {
            let (x, dy) = gelu_both(simd, simd.partial_load_f32s(x_rest), simd.partial_load_f32s(dy_rest));
            simd.partial_store_f32s(x_rest, x);
            simd.partial_store_f32s(dy_rest, dy);
        }
    }
}

/// gelu(x) and dy·gelu'(x).
#[inline(always)]
fn gelu_both<S: Simd>(simd: S, x: S::f32s, dy: S::f32s) -> (S::f32s, S::f32s) {
    let cdf = normal_cdf(simd, x);
    (simd.mul_f32s(x, cdf), simd.mul_f32s(dy, gelu_slope(simd, x, cdf)))
}

kernel! {
    /// Softmax of one row in place.
    pub(super) fn softmax_row<S>(_simd, row: &mut [f32]) {
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
}

kernel! {
    /// Σ aᵢ·bᵢ.
    pub(super) fn dot<S>(_simd, a: &[f32], b: &[f32]) -> f32 {
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
}

kernel! {
    /// Σ xᵢ²: few enough terms in f32 that no digit is lost, their sums in f64.
    pub(super) fn sum_of_squares<S>(_simd, x: &[f32]) -> f64 {
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
}

kernel! {
    /// `dp[i] = p[i]·(dp[i] − d)`: the gradient of scores from probabilities.
    pub(super) fn score_grad<S>(simd, dp: &mut [f32], p: &[f32], d: f32) {
        let d = simd.splat_f32s(d);
        map(simd, dp, [p], #[inline(always)] |dp, [p]| simd.mul_f32s(p, simd.sub_f32s(dp, d)));
    }
}

/// Lanes of the sums of a row: several vectors, so that an addition need not wait for the one before.
const LANES: usize = 32;

/// Mean and reciprocal deviation of a row.
#[inline(always)]
pub(super) fn moments(row: &[f32], eps: f32) -> [f32; 2] {
    let n = row.len() as f32;
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for chunk in chunks {
        for (sum, x) in sums.iter_mut().zip(chunk) {
            *sum += x;
        }
    }
    let mean = (lane_sum(sums) + rest.iter().sum::<f32>()) / n;
    let mut squares = [0f32; LANES];
    for chunk in chunks {
        for (square, x) in squares.iter_mut().zip(chunk) {
            let d = x - mean;
            *square += d * d;
        }
    }
    let tail: f32 = rest.iter().map(|x| (x - mean) * (x - mean)).sum();
    let variance = (lane_sum(squares) + tail) / n;
    [mean, 1.0 / (variance + eps).sqrt()]
}

kernel! {
    /// `a[i] += b[i]`.
    pub(super) fn add_assign<S>(simd, a: &mut [f32], b: &[f32]) {
        map(simd, a, [b], #[inline(always)] |a, [b]| simd.add_f32s(a, b));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_close_to_exact() {
        for i in -8000..=8000 {
            let x = i as f32 * 0.01;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= 2e-7 * exact, "exp({x})");
        }
    }

    /// erf in f64, by the series around zero and the continued fraction far from it.
    fn erf(x: f64) -> f64 {
        let scale = 2.0 / std::f64::consts::PI.sqrt();
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..100 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return scale * sum;
        }
        let fraction = (1..60).rev().fold(x.abs(), |rest, n| x.abs() + f64::from(n) / 2.0 / rest);
        x.signum() * (1.0 - scale / 2.0 * (-x * x).exp() / fraction)
    }

    /// gelu(x) and gelu'(x).
    fn exact(x: f32) -> [f64; 2] {
        let x = f64::from(x);
        let cdf = 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
        [x * cdf, cdf + x * (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt()]
    }

    #[test]
    fn gelu_and_its_slope_are_close_to_exact_wherever_they_stand() {
        // A & S, table 7.1: the reference itself.
        for (x, known) in [(0.5, 0.520_499_877_8), (1.5, 0.966_105_146_5), (3.5, 0.999_999_256_9)] {
            assert!((erf(x) - known).abs() < 1e-10 && (erf(-x) + known).abs() < 1e-10, "erf({x})");
        }
        // A length that no vector divides.
        let x: Vec<f32> = (-6001..=6002).map(|i| i as f32 * 0.002).chain([0.0, -30.0, 30.0, 1e4, -1e4]).collect();
        let (mut y, mut slope) = (vec![f32::NAN; x.len()], vec![1.0; x.len()]);
        gelu(&mut y, &x);
        gelu_grad(&mut slope, &x);
        for ((x, y), slope) in x.iter().zip(&y).zip(&slope) {
            let [exact, exact_slope] = exact(*x);
            let close = 3e-7 * f64::from(x.abs()).max(1.0);
            assert!((f64::from(*y) - exact).abs() <= close, "gelu({x}) = {y}, not {exact}");
            assert!((f64::from(*slope) - exact_slope).abs() <= close, "gelu'({x}) = {slope}, not {exact_slope}");
        }
        let (mut both, mut doubled) = (x.clone(), vec![2.0; x.len()]);
        gelu_with_grad(&mut both, &mut doubled);
        let mut in_place = x.clone();
        gelu_in_place(&mut in_place);
        assert!(both == y && in_place == y, "three ways to the same values");
        assert!(doubled.iter().zip(&slope).all(|(doubled, slope)| *doubled == 2.0 * slope));
        for start in 0..40 {
            let mut part = vec![f32::NAN; x.len() - start];
            gelu(&mut part, &x[start..]);
            assert!(part == y[start..], "values depend on where they stand, from {start}");
        }
    }

    #[test]
    fn not_a_number_stays_one() {
        for at in [0, 16, 18] {
            let mut x = vec![0.5; 19];
            x[at] = f32::NAN;
            let (mut y, mut slope) = (vec![0.0; 19], vec![1.0; 19]);
            gelu(&mut y, &x);
            gelu_grad(&mut slope, &x);
            assert!(y.iter().zip(&slope).enumerate().all(|(i, (y, s))| (y.is_nan(), s.is_nan()) == (i == at, i == at)));
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
