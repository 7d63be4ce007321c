//! `numpy.random.default_rng`: PCG64 behind a SeedSequence, and its weighted choice.

use rand_pcg::Lcg128Xsl64;
use rand_pcg::rand_core::Rng;

/// NumPy's `Generator` over PCG64 (XSL-RR, 128 bits).
#[derive(Clone, Debug)]
pub struct DefaultRng(Lcg128Xsl64);

impl DefaultRng {
    /// `np.random.default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        let [a, b, c, d] = seed_state(seed);
        let wide = |high: u64, low: u64| u128::from(high) << 64 | u128::from(low);
        Self(Lcg128Xsl64::new(wide(a, b), wide(c, d)))
    }

    /// `rng.random()`: a double in [0, 1) of 53 random bits.
    pub fn random(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / 9_007_199_254_740_992.0
    }

    /// The generator after `draws` more of them, without making them.
    pub fn advanced(mut self, draws: u64) -> Self {
        self.0.advance(u128::from(draws));
        self
    }
}

/// `rng.choice(n, size, replace=True, p)` where runs of entries are equally likely: data sets of `sizes` entries that are
/// drawn with `weights`, every entry of one as often as any other of it (official `DistributedWeightedSampler`).
#[derive(Clone, Debug)]
pub struct WeightedChoice {
    /// For each data set: its first entry, the sum of all probabilities before it, and that of one of its entries.
    runs: Vec<Run>,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    first: usize,
    entries: usize,
    /// The sum up to and with each entry is `before + (i + 1) * each`.
    before: f64,
    each: f64,
}

impl WeightedChoice {
    /// The choice among data sets of these sizes and weights; none where no entry can be drawn, or a weight is below 0 or not
    /// a number. The weights need not sum to 1.
    pub fn new(sizes: &[usize], weights: &[f64]) -> Option<Self> {
        let total: f64 = weights.iter().zip(sizes).filter(|(_, size)| **size > 0).map(|(weight, _)| weight).sum();
        let usable = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0) && total > 0.0;
        if sizes.len() != weights.len() || !usable {
            return None;
        }
        let (mut first, mut before, mut runs) = (0, 0.0, Vec::new());
        for (&entries, &weight) in sizes.iter().zip(weights) {
            if entries > 0 {
                let each = weight / total / entries as f64;
                runs.push(Run { first, entries, before, each });
                before += weight / total;
            }
            first += entries;
        }
        Some(Self { runs })
    }

    /// The entry that the uniform number `u` in [0, 1) stands for: the first whose sum of probabilities is above it.
    pub fn at(&self, u: f64) -> usize {
        let possible = || self.runs.iter().filter(|run| run.each > 0.0);
        let run =
            possible().find(|run| u < run.before + run.each * run.entries as f64).or_else(|| possible().next_back());
        // There is one: the weights are not all 0.
        run.map_or(0, |run| run.first + (((u - run.before) / run.each) as usize).min(run.entries - 1))
    }
}

/// The 256 bits that a SeedSequence makes of a seed, as PCG64 takes them: state and stream, high words first.
fn seed_state(seed: u64) -> [u64; 4] {
    const POOL: usize = 4;
    let words = [seed as u32, (seed >> 32) as u32, 0, 0];
    let mut hash = Hash { value: 0x43b0_d7e5, multiplier: 0x931e_8875 };
    let mut pool = words.map(|word| hash.mix(word));
    for from in 0..POOL {
        for to in (0..POOL).filter(|to| *to != from) {
            let hashed = hash.mix(pool[from]);
            let mixed = pool[to].wrapping_mul(0xca01_f9dd).wrapping_sub(hashed.wrapping_mul(0x4973_f715));
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    let mut hash = Hash { value: 0x8b51_f9dd, multiplier: 0x58f3_8ded };
    let mut word = 0;
    let mut next = || {
        word += 1;
        u64::from(hash.mix(pool[(word - 1) % POOL]))
    };
    [(); 4].map(|()| next() | next() << 32)
}

/// The hash of SeedSequence, whose constant changes with every use.
struct Hash {
    value: u32,
    multiplier: u32,
}

impl Hash {
    fn mix(&mut self, word: u32) -> u32 {
        let word = word ^ self.value;
        self.value = self.value.wrapping_mul(self.multiplier);
        let word = word.wrapping_mul(self.value);
        word ^ word >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_numpys() {
        for (seed, wanted) in [
            (0, [0.6369616873214543, 0.2697867137638703, 0.04097352393619469]),
            (1, [0.5118216247002567, 0.9504636963259353, 0.14415961271963373]),
            (239, [0.015166352696356467, 0.24305991880827427, 0.7138318871672124]),
            (5000000000, [0.7379525652090452, 0.5205447142802079, 0.46054515544654984]),
        ] {
            let mut rng = DefaultRng::new(seed);
            assert_eq!([rng.random(), rng.random(), rng.random()], wanted, "{seed}");
        }
    }

    #[test]
    fn weighted_choices_are_numpys() {
        // p = concatenate([full(n, w / n) for n, w in zip(sizes, weights)]); default_rng(seed).choice(len(p), 12, p=p / p.sum())
        type Row<'a> = (&'a [usize], &'a [f64], u64, [usize; 12]);
        let recorded: [Row<'_>; 3] = [
            (&[5, 3, 2], &[0.335, 0.1, 0.565], 239, [0, 3, 8, 7, 9, 3, 5, 0, 9, 8, 9, 0]),
            (
                &[1000, 17, 40000],
                &[0.335, 0.1, 0.565],
                240,
                [16883, 43, 714, 1014, 7053, 194, 714, 21119, 30651, 1006, 35618, 870],
            ),
            (&[2, 2], &[1.0, 1.0], 0, [2, 1, 0, 0, 3, 3, 2, 2, 2, 3, 3, 0]),
        ];
        for (sizes, weights, seed, wanted) in recorded {
            let choice = WeightedChoice::new(sizes, weights).unwrap();
            let mut rng = DefaultRng::new(seed);
            assert_eq!([(); 12].map(|()| choice.at(rng.random())), wanted, "{sizes:?}");
        }
    }

    #[test]
    fn entries_that_cannot_be_drawn_are_not() {
        let choice = WeightedChoice::new(&[3, 0, 2, 5], &[0.0, 9.0, 1.0, 0.0]).unwrap();
        let mut rng = DefaultRng::new(7);
        assert!((0..1000).all(|_| [3, 4].contains(&choice.at(rng.random()))));
        assert_eq!(choice.at(1.0), 4);
        for (sizes, weights) in
            [(&[1, 2][..], &[1.0][..]), (&[1], &[0.0]), (&[0], &[1.0]), (&[1], &[f64::NAN]), (&[1, 1], &[2.0, -1.0])]
        {
            assert!(WeightedChoice::new(sizes, weights).is_none());
        }
    }

    #[test]
    fn any_draw_can_be_made_alone() {
        let mut rng = DefaultRng::new(239);
        let draws: Vec<f64> = (0..100).map(|_| rng.random()).collect();
        for position in [0, 1, 57, 99] {
            assert_eq!(DefaultRng::new(239).advanced(position).random(), draws[position as usize]);
        }
    }
}
