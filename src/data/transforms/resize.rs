//! Bilinear weights: torch's, in floats, and OpenCV's, in 11-bit fixed point.

/// A pixel between two source pixels of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FloatTap {
    pub first: usize,
    pub second: usize,
    pub weights: (f32, f32),
}

/// Taps that resize a line of `len` pixels to `size` pixels: half-pixel centres, no antialias, edges repeated
/// (torch `interpolate(mode="bilinear", align_corners=False)`, in f32 as there).
pub(super) fn float_taps(len: usize, size: usize) -> Vec<FloatTap> {
    let scale = len as f32 / size as f32;
    let last = len.saturating_sub(1);
    let tap = |target: usize| {
        let source = (scale * (target as f32 + 0.5) - 0.5).max(0.0);
        let first = (source as usize).min(last);
        let weight = (source - first as f32).clamp(0.0, 1.0);
        FloatTap { first, second: (first + 1).min(last), weights: (1.0 - weight, weight) }
    };
    (0..size).map(tap).collect()
}

/// A byte pixel between two source pixels of a line; the weights are in 1/2048.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByteTap {
    pub first: usize,
    pub second: usize,
    weights: (i32, i32),
}

impl ByteTap {
    /// Between two pixels of a row, in 1/2048.
    pub fn across(&self, left: u8, right: u8) -> i32 {
        i32::from(left) * self.weights.0 + i32::from(right) * self.weights.1
    }

    /// Between two such values of neighbouring rows. OpenCV drops four bits before and sixteen after the product.
    pub fn down(&self, upper: i32, lower: i32) -> i32 {
        let part = |weight: i32, value: i32| (weight * (value >> 4)) >> 16;
        let sum = part(self.weights.0, upper) + part(self.weights.1, lower);
        ((sum + 2) >> 2).clamp(0, 255)
    }
}

/// Taps of the pixels `start..start + count` of a line of `len` pixels resized to `size` (OpenCV `INTER_LINEAR` of u8).
pub(super) fn byte_taps(len: usize, size: usize, start: usize, count: usize) -> Vec<ByteTap> {
    let scale = len as f64 / size as f64;
    let last = len.saturating_sub(1);
    let tap = |target: usize| {
        let source = ((target as f64 + 0.5) * scale - 0.5) as f32;
        let floor = source.floor();
        let first = floor.max(0.0) as usize;
        let weight = if floor < 0.0 || first >= last { 0.0 } else { source - floor };
        let fixed = |weight: f32| (weight * 2048.0).round_ties_even() as i32;
        ByteTap { first: first.min(last), second: (first + 1).min(last), weights: (fixed(1.0 - weight), fixed(weight)) }
    };
    (start..start + count).map(tap).collect()
}
