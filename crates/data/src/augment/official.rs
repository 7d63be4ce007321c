//! The draws of the official code: Python's `random`, NumPy's legacy generator and PyTorch's CPU generator.

use std::f32::consts::TAU;

use vjepa_recipe::rng::{NumpyRng, PyRandom, TorchRng};

use super::draws::{Draws, beta};
use crate::transforms::CropDraws;

/// The three generators after `random.seed(s)`, `np.random.seed(s)` and `torch.manual_seed(s)`.
#[derive(Clone, Debug)]
pub struct OfficialDraws {
    python: PyRandom,
    /// Python's `gauss` makes two numbers at a time and keeps the second.
    python_kept: Option<f64>,
    numpy: NumpyRng,
    /// So does NumPy's.
    numpy_kept: Option<f64>,
    torch: TorchRng,
}

impl OfficialDraws {
    /// Seeds all three.
    pub fn new(seed: u32) -> Self {
        Self {
            python: PyRandom::new(u64::from(seed)),
            python_kept: None,
            numpy: NumpyRng::new(seed),
            numpy_kept: None,
            torch: TorchRng::new(u64::from(seed)),
        }
    }

    /// The next `random.random()`.
    pub fn next_python(&mut self) -> f64 {
        self.python.random()
    }

    /// The next `np.random.rand()`.
    pub fn next_numpy(&mut self) -> f64 {
        self.numpy.rand()
    }
}

impl CropDraws for OfficialDraws {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.python.uniform(low, high)
    }

    fn integer(&mut self, low: u32, high: u32) -> u32 {
        self.python.randint(low, high)
    }

    fn attempt(&mut self) {
        // The official crop draws a number for a transposed aspect ratio that it then ignores.
        self.numpy.rand();
    }
}

impl Draws for OfficialDraws {
    fn unit(&mut self) -> f64 {
        self.python.random()
    }

    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        let z = match self.python_kept.take() {
            Some(kept) => kept,
            None => {
                let angle = self.python.random() * std::f64::consts::TAU;
                let radius = (-2.0 * (1.0 - self.python.random()).ln()).sqrt();
                self.python_kept = Some(angle.sin() * radius);
                angle.cos() * radius
            }
        };
        mean + z * deviation
    }

    fn operation(&mut self, count: usize) -> usize {
        self.numpy.randint(0, count)
    }

    fn entry(&mut self, count: usize) -> usize {
        self.python.randint(0, count.saturating_sub(1).min(u32::MAX as usize) as u32) as usize
    }

    fn flip_picture(&mut self) -> bool {
        self.torch.rand() < 0.5
    }

    fn flip_clip(&mut self) -> bool {
        self.numpy.rand() < 0.5
    }

    /// `torch.Tensor.normal_` of `out.len()` values: uniform numbers in place, then Box and Muller in blocks of 16; a remainder
    /// draws the last 16 again. Fewer than 16 values take another path in PyTorch, which this follows only in distribution.
    fn noise(&mut self, out: &mut [f32]) {
        if out.len() < 16 {
            let mut block = [0.0f32; 16];
            self.noise(&mut block);
            out.copy_from_slice(&block[..out.len()]);
            return;
        }
        out.iter_mut().for_each(|value| *value = self.torch.rand());
        out.chunks_exact_mut(16).for_each(box_muller);
        if !out.len().is_multiple_of(16) {
            let start = out.len() - 16;
            let last = &mut out[start..];
            last.iter_mut().for_each(|value| *value = self.torch.rand());
            box_muller(last);
        }
    }

    fn mix_unit(&mut self) -> f64 {
        self.numpy.rand()
    }

    fn mix_below(&mut self, n: usize) -> usize {
        self.numpy.randint(0, n)
    }

    fn beta(&mut self, alpha: f64) -> f64 {
        let (numpy, kept) = (&mut self.numpy, &mut self.numpy_kept);
        beta(alpha, &mut || numpy.rand(), &mut |unit| polar(unit, kept))
    }
}

/// Marsaglia's polar method as NumPy's legacy generator has it.
fn polar(unit: &mut dyn FnMut() -> f64, kept: &mut Option<f64>) -> f64 {
    if let Some(kept) = kept.take() {
        return kept;
    }
    loop {
        let (x1, x2) = (2.0 * unit() - 1.0, 2.0 * unit() - 1.0);
        let square = x1 * x1 + x2 * x2;
        if square < 1.0 && square != 0.0 {
            let factor = (-2.0 * square.ln() / square).sqrt();
            *kept = Some(factor * x1);
            return factor * x2;
        }
    }
}

/// Sixteen uniform numbers to sixteen normal ones.
fn box_muller(block: &mut [f32]) {
    let (radii, angles) = block.split_at_mut(8);
    for (first, second) in radii.iter_mut().zip(angles) {
        let radius = (-2.0 * (1.0 - *first).ln()).sqrt();
        let (sin, cos) = (TAU * *second).sin_cos();
        (*first, *second) = (radius * cos, radius * sin);
    }
}
