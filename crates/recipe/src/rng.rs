//! The generators of the official code, bit for bit: three Mersenne-Twister dialects, and NumPy's newer one.
//!
//! PyTorch draws mask blocks, Python's `random` draws crop boxes and NumPy's legacy `RandomState` draws clip starts,
//! flips and random tubes. All three run mt19937 and differ in how they seed it and how they turn words into numbers,
//! so equal seeds give equal masks, boxes and clips. V-JEPA 2 draws from weighted data sets by [`DefaultRng`], which is PCG64.
//!
//! Unlike the official code, training has no global generator: every draw comes from one keyed by `(seed, stream, index)`
//! (see [`stream_key`]), which makes resumed runs and any number of workers exact.

mod pcg64;

use rand_mt::Mt;

pub use pcg64::{DefaultRng, WeightedChoice};

/// What a keyed generator is used for; two uses with the same seed and index never share numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Positions of mask blocks, indexed by training step.
    Masks,
    /// Clip starts, indexed by sample draw.
    Clips,
    /// Crop boxes, indexed by sample draw.
    Crops,
    /// Horizontal flips, indexed by sample draw.
    Flips,
}

/// The `init_by_array` key of one `(seed, stream, index)`.
pub fn stream_key(seed: u64, stream: Stream, index: u64) -> [u32; 5] {
    [seed as u32, (seed >> 32) as u32, stream as u32, index as u32, (index >> 32) as u32]
}

/// The generator of one `(seed, stream, index, group)`. Group 0 is that of `(seed, stream, index)`; the keys of all others
/// are longer, so they share numbers with no other use.
fn grouped(seed: u64, stream: Stream, index: u64, group: u64) -> Mt {
    let [a, b, c, d, e] = stream_key(seed, stream, index);
    match group {
        0 => Mt::new_with_key([a, b, c, d, e]),
        _ => Mt::new_with_key([a, b, c, d, e, group as u32, (group >> 32) as u32]),
    }
}

/// A double in [0, 1) of 53 random bits from two words, as CPython and NumPy both make it.
fn double53(mt: &mut Mt) -> f64 {
    let high = f64::from(mt.next_u32() >> 5);
    let low = f64::from(mt.next_u32() >> 6);
    (high * 67_108_864.0 + low) / 9_007_199_254_740_992.0
}

/// `torch.Generator` on the CPU.
#[derive(Clone, Debug)]
pub struct TorchRng(Mt);

impl TorchRng {
    /// `torch.manual_seed(seed)`: only the low 32 bits count, as in PyTorch.
    pub fn new(seed: u64) -> Self {
        Self(Mt::new(seed as u32))
    }

    /// The generator of one `(seed, stream, index)`; no PyTorch counterpart.
    pub fn keyed(seed: u64, stream: Stream, index: u64) -> Self {
        Self(Mt::new_with_key(stream_key(seed, stream, index)))
    }

    /// The generator of one group's share of `(seed, stream, index)`; group 0 is [`TorchRng::keyed`].
    pub fn grouped(seed: u64, stream: Stream, index: u64, group: u64) -> Self {
        Self(grouped(seed, stream, index, group))
    }

    /// `torch.rand(1)`: a 24-bit fraction in [0, 1).
    pub fn rand(&mut self) -> f32 {
        (self.0.next_u32() & 0x00FF_FFFF) as f32 / 16_777_216.0
    }

    /// `torch.randint(0, n, (1,))`: an integer in [0, n), by remainder. `n = 0` counts as 1.
    pub fn randint(&mut self, n: u32) -> u32 {
        self.0.next_u32() % n.max(1)
    }
}

/// NumPy's legacy global generator (`np.random.*`).
#[derive(Clone, Debug)]
pub struct NumpyRng(Mt);

impl NumpyRng {
    /// `np.random.seed(seed)`.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// The generator of one `(seed, stream, index)`; no NumPy counterpart.
    pub fn keyed(seed: u64, stream: Stream, index: u64) -> Self {
        Self(Mt::new_with_key(stream_key(seed, stream, index)))
    }

    /// The generator of one group's share of `(seed, stream, index)`; group 0 is [`NumpyRng::keyed`].
    pub fn grouped(seed: u64, stream: Stream, index: u64, group: u64) -> Self {
        Self(grouped(seed, stream, index, group))
    }

    /// `np.random.rand()` and `np.random.uniform()`: a double in [0, 1).
    pub fn rand(&mut self) -> f64 {
        double53(&mut self.0)
    }

    /// `np.random.randint(low, high)`: an integer in [low, high). An empty range gives `low`, drawing nothing.
    pub fn randint(&mut self, low: usize, high: usize) -> usize {
        low + self.interval(high.saturating_sub(low).saturating_sub(1))
    }

    /// `np.random.shuffle` of a one-dimensional array.
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let other = self.interval(last);
            values.swap(last, other);
        }
    }

    /// An integer in [0, max] by masked rejection; NumPy takes one word per try below 2^32 and two above.
    fn interval(&mut self, max: usize) -> usize {
        if max == 0 {
            return 0;
        }
        let max = max as u64;
        let mask = u64::MAX >> max.leading_zeros();
        loop {
            let word = if max <= u64::from(u32::MAX) { u64::from(self.0.next_u32()) } else { self.0.next_u64() };
            if word & mask <= max {
                return (word & mask) as usize;
            }
        }
    }
}

/// CPython's `random.Random`.
#[derive(Clone, Debug)]
pub struct PyRandom(Mt);

impl PyRandom {
    /// `random.seed(seed)` of a non-negative integer.
    pub fn new(seed: u64) -> Self {
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        if high == 0 { Self(Mt::new_with_key([low])) } else { Self(Mt::new_with_key([low, high])) }
    }

    /// The generator of one `(seed, stream, index)`; no Python counterpart.
    pub fn keyed(seed: u64, stream: Stream, index: u64) -> Self {
        Self(Mt::new_with_key(stream_key(seed, stream, index)))
    }

    /// `random.random()`: a double in [0, 1).
    pub fn random(&mut self) -> f64 {
        double53(&mut self.0)
    }

    /// `random.uniform(low, high)`.
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.random()
    }

    /// `random.randint(low, high)`: an integer in [low, high], both ends included. `high < low` counts as `low`.
    pub fn randint(&mut self, low: u32, high: u32) -> u32 {
        // One above the largest offset, as 64 bits so that the full range does not wrap.
        let count = u64::from(high.saturating_sub(low)) + 1;
        let bits = 64 - count.leading_zeros();
        loop {
            let word = if bits > 32 {
                // Python takes the low word first and keeps the top bits of the last one.
                let first = u64::from(self.0.next_u32());
                first | u64::from(self.0.next_u32() >> (64 - bits)) << 32
            } else {
                u64::from(self.0.next_u32() >> (32 - bits))
            };
            if word < count {
                return low.saturating_add(word as u32);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torch_rand_is_the_24_bit_fraction() {
        let mut rng = TorchRng::new(0);
        assert_eq!(rng.rand(), 0.496_256_6);
        assert_eq!(rng.rand(), 0.768_221_8);
        assert_eq!(rng.rand(), 0.088_477_43);
    }

    #[test]
    fn numpy_seed_zero() {
        // np.random.seed(0): rand() and randint(64, 300)
        assert_eq!(NumpyRng::new(0).rand(), 0.548_813_503_927_324_8);
        assert_eq!(NumpyRng::new(0).randint(64, 300), 236);
    }

    #[test]
    fn numpy_empty_ranges_draw_nothing() {
        let mut rng = NumpyRng::new(0);
        assert_eq!(rng.randint(5, 5), 5);
        assert_eq!(rng.randint(5, 6), 5);
        assert_eq!(rng.rand(), 0.548_813_503_927_324_8);
    }

    #[test]
    fn python_seed_zero() {
        let mut rng = PyRandom::new(0);
        assert_eq!(rng.random(), 0.844_421_851_525_048_1);
        assert_eq!(rng.random(), 0.757_954_402_940_302_5);
        let mut rng = PyRandom::new(1);
        assert_eq!([rng.randint(0, 9), rng.randint(0, 9), rng.randint(0, 9)], [2, 9, 1]);
    }

    #[test]
    fn python_seeds_and_ranges_beyond_32_bits() {
        assert_eq!(PyRandom::new(5_000_000_000).random(), 0.086_660_101_673_547_54);
        let mut rng = PyRandom::new(5);
        let (low, high) = (0, u32::MAX);
        assert_eq!([rng.randint(low, high), rng.randint(low, high)], [2_675_342_405, 3_185_950_873]);
        assert_eq!(rng.randint(7, 7), 7);
    }

    #[test]
    fn streams_differ() {
        let draw = |stream, index| TorchRng::keyed(1, stream, index).randint(u32::MAX);
        assert_ne!(draw(Stream::Masks, 0), draw(Stream::Masks, 1));
        assert_ne!(draw(Stream::Masks, 0), draw(Stream::Crops, 0));
        assert_eq!(draw(Stream::Masks, 5), draw(Stream::Masks, 5));
        let group = |group| TorchRng::grouped(1, Stream::Masks, 5, group).randint(u32::MAX);
        assert_eq!(group(0), draw(Stream::Masks, 5));
        assert_ne!(group(0), group(1));
        assert_ne!(group(1), group(1 << 32));
    }
}
