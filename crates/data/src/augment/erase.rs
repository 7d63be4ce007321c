//! Random erasing with normal noise per value (timm's `RandomErasing`, mode `pixel`, count 1).

use super::draws::Draws;
use crate::transforms::{CropBox, TransformError};

/// How random erasing chooses its box.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomErasing {
    /// Share of the clips that are erased (`reprob`).
    pub probability: f64,
    /// Tries to find a box that fits.
    pub tries: usize,
    /// Range of the share of the area.
    pub area: (f64, f64),
    /// Smallest height over width, log-uniform up to its inverse.
    pub aspect: f64,
}

impl RandomErasing {
    /// As the video probe and fine-tuning have it: 100 tries.
    pub fn clips(probability: f64) -> Self {
        Self { probability, tries: 100, area: (0.02, 1.0 / 3.0), aspect: 0.3 }
    }

    /// As the image probe has it: 10 tries.
    pub fn pictures(probability: f64) -> Self {
        Self { tries: 10, ..Self::clips(probability) }
    }

    /// The box to erase from `height` by `width` pixels; none for clips that are left whole.
    pub fn draw(&self, height: usize, width: usize, draws: &mut impl Draws) -> Option<CropBox> {
        if draws.unit() > self.probability {
            return None;
        }
        let pixels = (height * width) as f64;
        let aspects = (self.aspect.ln(), (1.0 / self.aspect).ln());
        for _ in 0..self.tries {
            let area = draws.uniform(self.area.0, self.area.1) * pixels;
            let aspect = draws.uniform(aspects.0, aspects.1).exp();
            let h = (area * aspect).sqrt().round_ties_even() as usize;
            let w = (area / aspect).sqrt().round_ties_even() as usize;
            if w < width && h < height {
                let mut corner = |free: usize| draws.integer(0, free.min(u32::MAX as usize) as u32) as usize;
                let (top, left) = (corner(height - h), corner(width - w));
                return Some(CropBox { top, left, height: h, width: w });
            }
        }
        None
    }

    /// Erases a clip `[3, T, H, W]`, or leaves it whole, as drawn.
    ///
    /// # Errors
    /// As [`RandomErasing::fill`].
    pub fn apply(&self, size: (usize, usize), clip: &mut [f32], draws: &mut impl Draws) -> Result<(), TransformError> {
        match self.draw(size.0, size.1, draws) {
            Some(area) => Self::fill(area, size, clip, draws),
            None => Ok(()),
        }
    }

    /// Fills the box in every frame of a clip `[3, T, H, W]`, of `height` by `width` pixels, with fresh noise.
    ///
    /// # Errors
    /// [`TransformError::OutputSize`], [`TransformError::Boxes`].
    pub fn fill(
        area: CropBox,
        (height, width): (usize, usize),
        clip: &mut [f32],
        draws: &mut impl Draws,
    ) -> Result<(), TransformError> {
        let plane = height * width;
        if plane == 0 || !clip.len().is_multiple_of(3 * plane) {
            return Err(TransformError::OutputSize { got: clip.len(), want: 3 * plane });
        }
        let inside = |start: usize, len: usize, side: usize| start.checked_add(len).is_some_and(|end| end <= side);
        if !inside(area.top, area.height, height) || !inside(area.left, area.width, width) {
            return Err(TransformError::Boxes);
        }
        if area.height == 0 || area.width == 0 {
            return Ok(());
        }
        let frames = clip.len() / (3 * plane);
        let mut noise = vec![0.0f32; 3 * area.height * area.width];
        for t in 0..frames {
            draws.noise(&mut noise);
            for (row, values) in noise.chunks_exact(area.width).enumerate() {
                let (channel, y) = (row / area.height, area.top + row % area.height);
                let start = (channel * frames + t) * plane + y * width + area.left;
                clip[start..][..area.width].copy_from_slice(values);
            }
        }
        Ok(())
    }
}
