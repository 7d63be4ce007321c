//! Where the random choices of an augmentation come from.

use vjepa_recipe::counter::CounterRng;

use crate::source::SampleKey;
use crate::texture_math::normals;
use crate::transforms::CropDraws;

/// Keeps augmentation apart from other uses of the seed.
const AUGMENT: u64 = 0x61_7567_6D65_6E74;

/// The random choices of augmentations. There is one method for each kind of draw because the official code takes them from
/// three different generators.
pub trait Draws: CropDraws {
    /// Uniform in [0, 1): whether an operation is skipped, or its sign (Python).
    fn unit(&mut self) -> f64;
    /// Normal: the magnitude of an operation (Python).
    fn normal(&mut self, mean: f64, deviation: f64) -> f64;
    /// One of `count` operations (NumPy).
    fn operation(&mut self, count: usize) -> usize;
    /// One of `count` entries of a policy (Python).
    fn entry(&mut self, count: usize) -> usize;
    /// Whether a picture is mirrored, with probability 1/2 (PyTorch).
    fn flip_picture(&mut self) -> bool;
    /// Whether a clip is mirrored, with probability 1/2 (NumPy).
    fn flip_clip(&mut self) -> bool;
    /// Fills `out` with independent normal numbers of mean 0 and deviation 1 (PyTorch).
    fn noise(&mut self, out: &mut [f32]);
    /// Uniform in [0, 1): whether a batch is mixed, and how (NumPy).
    fn mix_unit(&mut self) -> f64;
    /// Uniform integer in [0, n): the centre of a cutmix box (NumPy). `n = 0` counts as 1.
    fn mix_below(&mut self, n: usize) -> usize;
    /// Beta(alpha, alpha), alpha > 0: the share of a batch's own samples (NumPy).
    fn beta(&mut self, alpha: f64) -> f64;
}

/// Beta(a, a) from uniform and normal numbers in the order in which NumPy's `RandomState.beta` takes them: Jöhnk's method up
/// to a = 1, two gamma numbers above.
pub(super) fn beta(
    alpha: f64,
    unit: &mut dyn FnMut() -> f64,
    normal: &mut dyn FnMut(&mut dyn FnMut() -> f64) -> f64,
) -> f64 {
    if alpha > 1.0 {
        let a = gamma(alpha, unit, normal);
        let b = gamma(alpha, unit, normal);
        return a / (a + b);
    }
    loop {
        let (u, v) = (unit(), unit());
        let (x, y) = (u.powf(1.0 / alpha), v.powf(1.0 / alpha));
        if x + y <= 1.0 && u + v > 0.0 {
            if x + y > 0.0 {
                return x / (x + y);
            }
            // Both powers underflow for small alpha; their quotient does not.
            let (log_x, log_y) = (u.ln() / alpha, v.ln() / alpha);
            let most = log_x.max(log_y);
            let (log_x, log_y) = (log_x - most, log_y - most);
            return (log_x - (log_x.exp() + log_y.exp()).ln()).exp();
        }
    }
}

/// Gamma(shape), shape > 1 (Marsaglia and Tsang 2000).
fn gamma(shape: f64, unit: &mut dyn FnMut() -> f64, normal: &mut dyn FnMut(&mut dyn FnMut() -> f64) -> f64) -> f64 {
    let b = shape - 1.0 / 3.0;
    let c = 1.0 / (9.0 * b).sqrt();
    loop {
        let (x, v) = loop {
            let x = normal(unit);
            let v = 1.0 + c * x;
            if v > 0.0 {
                break (x, v * v * v);
            }
        };
        let u = unit();
        if u < 1.0 - 0.0331 * (x * x) * (x * x) || u.ln() < 0.5 * x * x + b * (1.0 - v + v.ln()) {
            return b * v;
        }
    }
}

/// The draws of one sample of one run, from the counter-based generator: a function of the key alone.
#[derive(Clone, Debug)]
pub struct Keyed(CounterRng);

impl Keyed {
    /// The draws of a sample; `repeat` counts the augmentations of one decoded clip from 0 (repeated augmentation).
    pub fn new(key: SampleKey, repeat: u32) -> Self {
        Self(CounterRng::new(&[key.seed, AUGMENT, key.draw(), u64::from(repeat)]))
    }

    /// The draws of a batch, for [`Mixing`](super::Mixing): by the optimiser step, counted from 0.
    pub fn of_batch(seed: u64, step: u64) -> Self {
        Self(CounterRng::new(&[seed, AUGMENT, step]))
    }

    fn standard_normal(rng: &mut CounterRng) -> f64 {
        let mut one = [0.0f32];
        normals(rng, &mut one);
        f64::from(one[0])
    }
}

impl CropDraws for Keyed {
    fn uniform(&mut self, low: f64, high: f64) -> f64 {
        self.0.uniform(low, high)
    }

    fn integer(&mut self, low: u32, high: u32) -> u32 {
        // At most `high`: below() stays under its argument.
        low.saturating_add(self.0.below(u64::from(high.saturating_sub(low)) + 1) as u32)
    }
}

impl Draws for Keyed {
    fn unit(&mut self) -> f64 {
        self.0.unit()
    }

    fn normal(&mut self, mean: f64, deviation: f64) -> f64 {
        mean + deviation * Self::standard_normal(&mut self.0)
    }

    fn operation(&mut self, count: usize) -> usize {
        self.0.below(count as u64) as usize
    }

    fn entry(&mut self, count: usize) -> usize {
        self.0.below(count as u64) as usize
    }

    fn flip_picture(&mut self) -> bool {
        self.0.unit() < 0.5
    }

    fn flip_clip(&mut self) -> bool {
        self.0.unit() < 0.5
    }

    fn noise(&mut self, out: &mut [f32]) {
        normals(&mut self.0, out);
    }

    fn mix_unit(&mut self) -> f64 {
        self.0.unit()
    }

    fn mix_below(&mut self, n: usize) -> usize {
        self.0.below(n as u64) as usize
    }

    fn beta(&mut self, alpha: f64) -> f64 {
        let rng = std::cell::RefCell::new(&mut self.0);
        let mut unit = || rng.borrow_mut().unit();
        beta(alpha, &mut unit, &mut |_| Self::standard_normal(&mut rng.borrow_mut()))
    }
}
