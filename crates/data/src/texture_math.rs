//! Sines, logarithms and normal numbers for the texture generator, in plain arithmetic.
//!
//! Only additions, multiplications, divisions and square roots are used, which IEEE 754 rounds the same everywhere; the
//! system's `sin` and `ln` are not. So a clip is the same to the bit on every machine. The f32 functions have no branches,
//! and loops over them vectorise.

use std::f32::consts::{FRAC_PI_2, LN_2, PI, SQRT_2};

use vjepa_recipe::counter::CounterRng;

/// (sin x, cos x) in f64; for tables and parameters, |x| up to a few thousand.
pub fn sin_cos_f64(x: f64) -> (f64, f64) {
    let turn = std::f64::consts::TAU;
    let x = x - (x / turn).round() * turn;
    // At half the angle, |h| <= pi/2, the series below ends at 1e-17.
    let h = 0.5 * x;
    let z = h * h;
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..=11).rev() {
        let n = f64::from(2 * k);
        sin = 1.0 - sin * z / (n * (n + 1.0));
        cos = 1.0 - cos * z / (n * (n - 1.0));
    }
    let sin = sin * h;
    (2.0 * sin * cos, cos * cos - sin * sin)
}

/// e^x for |x| <= 0.5, in f64.
pub fn exp_small(x: f64) -> f64 {
    (1..=16).rev().fold(1.0, |sum, k| 1.0 + sum * x / f64::from(k))
}

/// (sin x, cos x) for |x| <= pi, to about 2e-7.
#[inline]
pub fn sin_cos(x: f32) -> (f32, f32) {
    let h = 0.5 * x;
    let z = h * h;
    // Taylor series at half the angle.
    let sin = h
        * (1.0
            + z * (-1.0 / 6.0
                + z * (1.0 / 120.0 + z * (-1.0 / 5040.0 + z * (1.0 / 362_880.0 - z * (1.0 / 39_916_800.0))))));
    let cos = 1.0
        + z * (-0.5
            + z * (1.0 / 24.0
                + z * (-1.0 / 720.0 + z * (1.0 / 40_320.0 + z * (-1.0 / 3_628_800.0 + z * (1.0 / 479_001_600.0))))));
    (2.0 * sin * cos, cos * cos - sin * sin)
}

/// asin x for |x| <= 1, to about 2e-7 (Abramowitz and Stegun 4.4.46).
#[inline]
pub fn asin(x: f32) -> f32 {
    let a = x.abs();
    #[rustfmt::skip]
    let poly = FRAC_PI_2 + a * (-0.214_598_8 + a * (0.088_978_99 + a * (-0.050_174_3 + a * (0.030_891_88
        + a * (-0.017_088_126 + a * (0.006_670_09 - a * 0.001_262_491_1))))));
    (FRAC_PI_2 - (1.0 - a).max(0.0).sqrt() * poly).copysign(x)
}

/// e^x for |x| <= 80, to about 2e-7 of itself.
#[inline]
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to a whole number and leaves it in the low bits; `round` itself is a call on older CPUs.
    let shifted = x * std::f32::consts::LOG2_E + 12_582_912.0;
    let k = shifted - 12_582_912.0;
    let r = x - k * LN_2;
    #[rustfmt::skip]
    let poly = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * (1.0 / 24.0 + r * (1.0 / 120.0 + r * (1.0 / 720.0))))));
    // 2^k through the exponent bits; |k| <= 116 here.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    poly * power
}

/// tanh x, to about 2e-7.
#[inline]
pub fn tanh(x: f32) -> f32 {
    1.0 - 2.0 / (exp(2.0 * x.clamp(-10.0, 10.0)) + 1.0)
}

/// ln x for normal positive x, to about 2e-7.
#[inline]
fn ln(x: f32) -> f32 {
    // x = 2^e m with m in [sqrt(1/2), sqrt(2)).
    let shifted = x.to_bits().wrapping_sub((SQRT_2 * 0.5).to_bits());
    let e = (shifted as i32) >> 23;
    let m = f32::from_bits((shifted & 0x007F_FFFF).wrapping_add((SQRT_2 * 0.5).to_bits()));
    // ln m = 2 artanh((m - 1) / (m + 1)).
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = 2.0 * s * (1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0)))));
    e as f32 * LN_2 + series
}

/// Fills `out` with independent normal numbers of mean 0 and deviation 1 (Box and Muller), two from each 64 bits.
pub fn normals(rng: &mut CounterRng, out: &mut [f32]) {
    const LANES: usize = 32;
    let mut bits = [0u64; LANES];
    for chunk in out.chunks_mut(2 * LANES) {
        bits.iter_mut().for_each(|b| *b = rng.next_u64());
        let mut pairs = [[0f32; LANES]; 2];
        let [first, second] = &mut pairs;
        for ((b, x), y) in bits.iter().zip(first.iter_mut()).zip(second.iter_mut()) {
            // 24 bits each: the radius from (0, 1], which never meets ln 0, the angle from [-pi, pi).
            let u = ((b >> 40) as i32 + 1) as f32 * (1.0 / 16_777_216.0);
            let v = ((*b as u32 & 0x00FF_FFFF) as i32 - 0x0080_0000) as f32 * (PI / 8_388_608.0);
            let radius = (-2.0 * ln(u)).max(0.0).sqrt();
            let (sin, cos) = sin_cos(v);
            *x = radius * cos;
            *y = radius * sin;
        }
        let numbers = pairs.iter().flatten();
        chunk.iter_mut().zip(numbers).for_each(|(o, n)| *o = *n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(low: f64, high: f64) -> impl Iterator<Item = f64> {
        (0..=20_000).map(move |i| low + (high - low) * f64::from(i) / 20_000.0)
    }

    #[test]
    fn functions_match_the_system_ones() {
        for x in grid(-f64::from(PI), f64::from(PI)) {
            let (s, c) = sin_cos(x as f32);
            assert!((f64::from(s) - x.sin()).abs() < 6e-7 && (f64::from(c) - x.cos()).abs() < 6e-7, "{x}: {s} {c}");
        }
        for x in grid(-300.0, 300.0) {
            let (s, c) = sin_cos_f64(x);
            assert!((s - x.sin()).abs() < 1e-12 && (c - x.cos()).abs() < 1e-12, "{x}");
            assert!((f64::from(tanh(x as f32)) - x.tanh()).abs() < 4e-7, "{x}");
        }
        for x in grid(-1.0, 1.0) {
            assert!((f64::from(asin(x as f32)) - f64::from(x as f32).asin()).abs() < 6e-7, "{x}");
            assert!((exp_small(x / 2.0) - (x / 2.0).exp()).abs() < 1e-14, "{x}");
            assert!((f64::from(tanh(x as f32)) - f64::from(x as f32).tanh()).abs() < 4e-7, "{x}");
        }
        for x in grid(5.96e-8, 2.0) {
            assert!((f64::from(ln(x as f32)) - f64::from(x as f32).ln()).abs() < 2e-6, "{x}");
        }
    }

    #[test]
    fn normal_numbers_have_normal_moments() {
        let mut values = vec![0f32; 400_001];
        normals(&mut CounterRng::new(&[1]), &mut values);
        let n = values.len() as f64;
        let moment = |p: i32| values.iter().map(|&v| f64::from(v).powi(p)).sum::<f64>() / n;
        let [m1, m2, m3, m4] = [moment(1), moment(2), moment(3), moment(4)];
        assert!(m1.abs() < 0.008 && (m2 - 1.0).abs() < 0.01 && m3.abs() < 0.02 && (m4 - 3.0).abs() < 0.06);
        let beyond = values.iter().filter(|v| v.abs() > 1.959_964).count() as f64 / n;
        assert!((beyond - 0.05).abs() < 0.002, "{beyond}");
        // The two of a pair, 32 apart, and neighbours are uncorrelated.
        for lag in [1, 32] {
            let product: f64 = values.iter().zip(&values[lag..]).map(|(a, b)| f64::from(a * b)).sum();
            assert!((product / n).abs() < 0.008, "lag {lag}");
        }
    }
}
