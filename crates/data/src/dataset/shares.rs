//! How often a sample is drawn from each of several data sets.

use vjepa_recipe::config::DataConfig;
use vjepa_recipe::counter::CounterRng;
use vjepa_recipe::rng::{DefaultRng, WeightedChoice};

use crate::source::{DataError, SampleKey};

/// Separates the choice between weighted data sets from other uses of the seed.
const WEIGHTED: u64 = 0x7765_6967_6874;

/// The weights of data sets.
#[derive(Debug, Clone)]
pub(super) struct Shares {
    /// For each data set: the end of its entries, and the end of its share of [0, 1); empty without weights.
    shares: Vec<(usize, f64)>,
    /// The choice of V-JEPA 2's recipes, which draw with replacement.
    choice: Option<WeightedChoice>,
}

impl Shares {
    /// Of a configuration's data sets, whose entries end at `ends`.
    ///
    /// # Errors
    /// [`DataError::Setup`] for weights that do not fit them.
    pub(super) fn of(data: &DataConfig, ends: &[usize]) -> Result<Self, DataError> {
        let mut shares = Vec::new();
        let mut choice = None;
        if let Some(weights) = &data.datasets_weights {
            let total: f64 = weights.iter().sum();
            let usable = total.is_finite() && total > 0.0 && weights.iter().all(|&w| w >= 0.0);
            if weights.len() != ends.len() || !usable {
                return Err(DataError::Setup("`data.datasets_weights` does not fit `data.datasets`".into()));
            }
            if data.dataset_fpcs.is_some() {
                let begins = [0].into_iter().chain(ends.iter().copied());
                let sizes: Vec<usize> = ends.iter().zip(begins).map(|(end, begin)| end - begin).collect();
                choice = WeightedChoice::new(&sizes, weights);
            }
            let mut sum = 0.0;
            for (&end, &weight) in ends.iter().zip(weights) {
                sum += weight / total;
                shares.push((end, sum));
            }
        }
        Ok(Self { shares, choice })
    }

    /// Which entry a key means. With weights, the data set is drawn by weight and the video within it uniformly, with
    /// replacement (V-JEPA 1's weighted sampler draws without, which needs the whole pass in memory). V-JEPA 2's draws with
    /// it, and these are its draws: those of pass `epoch` are of NumPy's generator of seed `seed + epoch`.
    pub(super) fn choose(&self, key: SampleKey, videos: u64) -> usize {
        if let (Some(choice), 0) = (&self.choice, key.retry) {
            let seed = key.seed.wrapping_add(key.epoch);
            return choice.at(DefaultRng::new(seed).advanced(key.position).random());
        }
        if self.shares.is_empty() {
            return key.entry(videos).unwrap_or(0) as usize;
        }
        let mut rng = CounterRng::new(&[key.seed, WEIGHTED, key.draw()]);
        let drawn = rng.unit();
        // Rounding may leave the last share a hair below 1; the last data set with a weight takes the rest.
        let mut chosen = (0, 0);
        let (mut begin, mut reached) = (0, 0.0);
        for &(end, share) in &self.shares {
            if share > reached {
                chosen = (begin, end);
                if drawn < share {
                    break;
                }
            }
            (begin, reached) = (end, share);
        }
        chosen.0 + rng.below((chosen.1 - chosen.0) as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::config::AugmentConfig;

    use crate::VideoDataset;

    fn weighted(weights: [f64; 3]) -> [u32; 3] {
        let folder = tempfile::tempdir().unwrap();
        let mut datasets = Vec::new();
        for (name, count) in [("a", 10), ("b", 1000), ("c", 1)] {
            let path = folder.path().join(format!("{name}.csv"));
            let lines: String = (0..count).map(|i| format!("{name}{i}.mp4 0\n")).collect();
            std::fs::write(&path, lines).unwrap();
            datasets.push(path.display().to_string());
        }
        let data = DataConfig { datasets, datasets_weights: Some(weights.to_vec()), ..DataConfig::default() };
        let source = VideoDataset::open(&data, &AugmentConfig::default()).unwrap();
        let mut counts = [0; 3];
        for position in 0..4000 {
            let index = source.choose(SampleKey { seed: 1, epoch: 0, position, retry: 0 });
            counts[[10, 1010, 1011].iter().position(|&end| index < end).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn the_weighted_order_of_the_second_generation_is_numpys() {
        let folder = tempfile::tempdir().unwrap();
        let mut datasets = Vec::new();
        for (name, count) in [("a", 5), ("b", 3), ("c", 2)] {
            let path = folder.path().join(format!("{name}.csv"));
            let lines: String = (0..count).map(|i| format!("{name}{i}.mp4 0\n")).collect();
            std::fs::write(&path, lines).unwrap();
            datasets.push(path.display().to_string());
        }
        let weights = vec![0.335, 0.1, 0.565];
        let data = DataConfig {
            datasets,
            datasets_weights: Some(weights.clone()),
            dataset_fpcs: Some(vec![16; 3]),
            ..DataConfig::default()
        };
        let source = VideoDataset::open(&data, &AugmentConfig::default()).unwrap();
        let choice = WeightedChoice::new(&[5, 3, 2], &weights).unwrap();
        for epoch in [0, 3] {
            let mut rng = DefaultRng::new(239 + epoch);
            for position in 0..10 {
                let chosen = source.choose(SampleKey { seed: 239, epoch, position, retry: 0 });
                assert_eq!(chosen, choice.at(rng.random()));
            }
        }
        // A replacement for a video that cannot be read is another one.
        let again: Vec<usize> =
            (0..20).map(|retry| source.choose(SampleKey { seed: 239, epoch: 0, position: 0, retry })).collect();
        assert!(again.iter().any(|index| *index != again[0]));
    }

    #[test]
    fn weights_set_the_share_of_each_data_set() {
        let [a, b, c] = weighted([1.0, 2.0, 1.0]);
        assert!((900..1100).contains(&a) && (1900..2100).contains(&b) && (900..1100).contains(&c), "{a} {b} {c}");
        let [a, b, c] = weighted([0.0, 3.0, 0.0]);
        assert_eq!((a, b, c), (0, 4000, 0));
    }
}
