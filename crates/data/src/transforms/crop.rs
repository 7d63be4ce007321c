//! Crop boxes as the official code draws them from Python's `random`.

use vjepa_recipe::rng::PyRandom;

/// The random numbers of a crop.
pub trait CropDraws {
    /// Uniform in [low, high).
    fn uniform(&mut self, low: f64, high: f64) -> f64;
    /// Uniform in [low, high], both ends included.
    fn integer(&mut self, low: u32, high: u32) -> u32;
    /// Called once for each box that is tried, for generators that have to keep in step with the official code.
    fn attempt(&mut self) {}
}

impl CropDraws for PyRandom {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        PyRandom::uniform(self, low, high)
    }

    fn integer(&mut self, low: u32, high: u32) -> u32 {
        self.randint(low, high)
    }
}

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropBox {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl CropBox {
    /// A random box: area a uniform share in `scale`, width over height log-uniform in `ratio`. After ten boxes that do
    /// not fit, the largest centred box with a ratio in range.
    pub fn random(height: usize, width: usize, crop: &RandomCrop, rng: &mut impl CropDraws) -> Self {
        let (frame_height, frame_width) = (height as f64, width as f64);
        let (min, max) = crop.ratio;
        for _ in 0..10 {
            rng.attempt();
            let area = rng.uniform(crop.scale.0, crop.scale.1) * frame_height * frame_width;
            let ratio = rng.uniform(min.ln(), max.ln()).exp();
            let w = (area * ratio).sqrt().round_ties_even() as usize;
            let h = (area / ratio).sqrt().round_ties_even() as usize;
            if (1..=width).contains(&w) && (1..=height).contains(&h) {
                let mut corner = |free: usize| rng.integer(0, free.min(u32::MAX as usize) as u32) as usize;
                let (top, left) = (corner(height - h), corner(width - w));
                let (height, width) = (h, w);
                return Self { top, left, height, width };
            }
        }
        let frame_ratio = frame_width / frame_height;
        let side = |length: f64, most: usize| (length.round_ties_even() as usize).clamp(1, most);
        let (h, w) = if frame_ratio < min {
            (side(frame_width / min, height), width)
        } else if frame_ratio > max {
            (height, side(frame_height * max, width))
        } else {
            (height, width)
        };
        Self { top: (height - h) / 2, left: (width - w) / 2, height: h, width: w }
    }

    /// `frames` boxes moving from `first` to `last`, truncated to whole pixels (official `motion_shift`).
    pub fn shifted(first: Self, last: Self, frames: usize) -> Vec<Self> {
        let at = |a: usize, b: usize, frame: usize| {
            let (a, b) = (a as f32, b as f32);
            let step = (b - a) / frames.saturating_sub(1).max(1) as f32;
            // torch.linspace counts from whichever end is nearer.
            let value = if frame < frames / 2 || frames == 1 {
                a + step * frame as f32
            } else {
                b - step * (frames - 1 - frame) as f32
            };
            value as usize
        };
        let shifted = |frame| Self {
            top: at(first.top, last.top, frame),
            left: at(first.left, last.left, frame),
            height: at(first.height, last.height, frame),
            width: at(first.width, last.width, frame),
        };
        (0..frames).map(shifted).collect()
    }

    pub(crate) fn fits(&self, height: usize, width: usize) -> bool {
        let inside = |start: usize, len: usize, side| len > 0 && start.checked_add(len).is_some_and(|end| end <= side);
        inside(self.top, self.height, height) && inside(self.left, self.width, width)
    }
}

/// The random part of a training crop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomCrop {
    /// Range of the share of the frame's area.
    pub scale: (f64, f64),
    /// Range of width over height.
    pub ratio: (f64, f64),
}

impl Default for RandomCrop {
    /// The official pre-training values.
    fn default() -> Self {
        Self { scale: (0.3, 1.0), ratio: (0.75, 1.35) }
    }
}
