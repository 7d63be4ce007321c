//! Bilinear weights as torch has them, in floats; OpenCV's fixed-point ones are the runtime's, which prepares clips alike.

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
