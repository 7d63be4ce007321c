//! What clips are made of: normalised floats, or the pixels themselves as bytes.

use vjepa_runtime::Normalization;

use crate::values::Scaling;

/// The scaling of pixels that stay in 0..=255.
pub(super) const PIXELS: Scaling = [(1.0, 0.0); 3];

/// A value of a clip.
pub trait ClipValue: Copy + Default {
    /// What a pixel in 0..=255 is multiplied by, and what is added, in each channel.
    fn affine(normalization: &Normalization) -> Scaling;

    /// The value of a scaled pixel.
    fn of(pixel: f32) -> Self;

    /// What a normalisation does to a whole clip `[3, T, H, W]`.
    fn finish(normalization: &Normalization, clip: &mut [Self]);

    /// The values as floats, where they are.
    fn floats(clip: &mut [Self]) -> Option<&mut [f32]>;
}

impl ClipValue for f32 {
    fn affine(normalization: &Normalization) -> Scaling {
        normalization.affine()
    }

    fn of(pixel: f32) -> Self {
        pixel
    }

    fn finish(normalization: &Normalization, clip: &mut [Self]) {
        normalization.finish(clip);
    }

    fn floats(clip: &mut [Self]) -> Option<&mut [f32]> {
        Some(clip)
    }
}

/// Pixels, rounded; what they stand for is said beside them.
impl ClipValue for u8 {
    fn affine(_: &Normalization) -> Scaling {
        PIXELS
    }

    fn of(pixel: f32) -> Self {
        // The conversion keeps within 0..=255.
        pixel.round_ties_even() as u8
    }

    fn finish(_: &Normalization, _: &mut [Self]) {}

    fn floats(_: &mut [Self]) -> Option<&mut [f32]> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_rounded_pixels() {
        assert_eq!([-3.0, 0.5, 1.5, 254.6, 300.0].map(u8::of), [0, 0, 2, 255, 255]);
    }
}
