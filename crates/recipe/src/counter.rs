//! Counter-based random numbers: the n-th number of a stream is a function of the stream's key and n, nothing else.
//!
//! The function is SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014): a Weyl
//! sequence through a 64-bit finaliser. Having no state but a counter, it makes a sample the same on any worker, in any
//! order, after any restart. Clip starts, crops and flips of videos use the generators of `vjepa_recipe::rng`, keyed by
//! [`mix`]; textures and shuffles use these numbers directly, for speed.

/// 2^64 over the golden ratio, the step of the Weyl sequence.
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The 64-bit finaliser of SplitMix64: a bijection in which every input bit moves about half of the output bits.
#[inline]
pub fn finalise(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// One number from several; order matters. For keys.
pub fn mix(parts: &[u64]) -> u64 {
    // Each part is finalised before it meets the running value, so that (1, 0) and (0, 1) have nothing in common.
    parts.iter().fold(GOLDEN, |key, &part| finalise(finalise(part.wrapping_add(GOLDEN)) ^ key.wrapping_mul(GOLDEN)))
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub struct CounterRng(u64);

impl CounterRng {
    /// The stream of a key, such as `[seed, purpose, index]`.
    pub fn new(key: &[u64]) -> Self {
        Self(mix(key))
    }

    /// The next 64 random bits.
    #[inline]
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        finalise(self.0)
    }

    /// Uniform in [0, 1), 53 bits.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Uniform in [low, high).
    #[inline]
    pub fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..n by a widening multiply; its bias is below n / 2^64. `n = 0` counts as 1.
    #[inline]
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n.max(1))) >> 64) as u64
    }
}

/// Uniform noise in [-2, 2), the same at every call: input for comparing and timing models.
pub fn noise(count: usize) -> Vec<f32> {
    let mut rng = CounterRng::new(&[0x7665_7269_6679]);
    (0..count).map(|_| rng.uniform(-2.0, 2.0) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reference_numbers_of_splitmix64() {
        // Vigna's splitmix64.c from state 1234567.
        let mut rng = CounterRng(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn keys_are_ordered_and_apart() {
        let keys = [mix(&[0, 0]), mix(&[0, 1]), mix(&[1, 0]), mix(&[0]), mix(&[0, 0, 0])];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn ranges_hold() {
        let mut rng = CounterRng::new(&[7]);
        let mut seen = [0u32; 5];
        for _ in 0..10_000 {
            assert!((0.0..1.0).contains(&rng.unit()));
            assert!((-2.0..3.0).contains(&rng.uniform(-2.0, 3.0)));
            seen[rng.below(5) as usize] += 1;
        }
        assert!(seen.iter().all(|&n| (1800..2200).contains(&n)), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
