//! The clips of the protocol: their labels, which are for probing and which for testing, and which draws see them.

use super::TextureProtocol;
use crate::EvalError;
use vjepa_data::textures::{DIRECTIONS, TEXTURES};
use vjepa_data::{ClipSource, DriftingTextures, SampleKey};
use vjepa_recipe::counter::{CounterRng, mix};

/// Seeds of evaluation clips, which no training seed reaches but by chance of one in 2^64.
const PROBE_CLIPS: u64 = 0x70_726F_6265;
const TEST_CLIPS: u64 = 0x7465_7374;
const LABEL_DRAWS: u64 = 0x6C_6162_656C;

/// Labels of the clips, probe clips first, then test clips; and which are what.
pub(super) struct LabelledClips {
    pub seeds: [u64; 2],
    pub probe: usize,
    /// Texture and direction of each.
    pub labels: [Vec<usize>; 2],
    pub validation: Vec<usize>,
    pub test: Vec<usize>,
    /// Rows of each draw, for texture and for direction.
    pub draws: [Vec<Vec<usize>>; 2],
}

impl LabelledClips {
    pub fn new(source: &DriftingTextures, protocol: &TextureProtocol) -> Self {
        let seeds = [mix(&[protocol.seed, PROBE_CLIPS]), mix(&[protocol.seed, TEST_CLIPS])];
        let probe = protocol.probe_clips;
        let labels: Vec<_> = (0..probe + protocol.test_clips)
            .map(|i| {
                if i < probe { source.labels(seeds[0], i as u64) } else { source.labels(seeds[1], (i - probe) as u64) }
            })
            .collect();
        let labels: [Vec<usize>; 2] =
            [labels.iter().map(|l| l.texture).collect(), labels.iter().map(|l| l.direction).collect()];
        let pool = probe - protocol.validation_clips;
        let draws = [TEXTURES.len(), DIRECTIONS];
        let draws = [0, 1].map(|task| {
            let draw = |n: usize| draw(&labels[task][..pool], draws[task], protocol.labels_per_class, protocol.seed, n);
            (0..protocol.draws.max(protocol.attentive_draws)).map(draw).collect()
        });
        Self {
            seeds,
            probe,
            labels,
            validation: (pool..probe).collect(),
            test: (probe..probe + protocol.test_clips).collect(),
            draws,
        }
    }

    pub fn sample(&self, source: &DriftingTextures, index: usize, clip: &mut [f32]) -> Result<(), EvalError> {
        let (seed, position) =
            if index < self.probe { (self.seeds[0], index) } else { (self.seeds[1], index - self.probe) };
        source.sample(SampleKey { seed, epoch: 0, position: position as u64, retry: 0 }, clip)?;
        Ok(())
    }

    pub fn labels_of(&self, task: usize, rows: &[usize]) -> Vec<usize> {
        rows.iter().map(|row| self.labels[task][*row]).collect()
    }
}

/// Rows of draw `n`: `per_class` of each class (or all there are), without replacement.
fn draw(labels: &[usize], classes: usize, per_class: usize, seed: u64, n: usize) -> Vec<usize> {
    let mut rng = CounterRng::new(&[seed, LABEL_DRAWS, n as u64]);
    let mut order: Vec<usize> = (0..labels.len()).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    let of_class = |class: usize| order.iter().copied().filter(move |row| labels[*row] == class).take(per_class);
    (0..classes).flat_map(of_class).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::config::Normalization;

    #[test]
    fn draws_have_their_labels_and_no_row_twice() {
        let labels: Vec<usize> = (0..200).map(|i| i * 7 % 8).collect();
        let rows = draw(&labels, 8, 16, 1, 0);
        assert_eq!(rows.len(), 128);
        (0..8).for_each(|class| assert_eq!(rows.iter().filter(|row| labels[**row] == class).count(), 16));
        assert_eq!(rows.iter().collect::<std::collections::BTreeSet<_>>().len(), 128);
        assert_eq!(rows, draw(&labels, 8, 16, 1, 0));
        assert_ne!(rows, draw(&labels, 8, 16, 1, 1));
    }

    #[test]
    fn probe_and_test_clips_are_apart() {
        let source = DriftingTextures::new(2, 16, Normalization::PerClip);
        let clips = LabelledClips::new(
            &source,
            &TextureProtocol { probe_clips: 80, validation_clips: 16, test_clips: 30, ..TextureProtocol::recipe(5) },
        );
        assert_eq!((clips.labels[0].len(), clips.validation.len(), clips.test.len()), (110, 16, 30));
        assert!(clips.draws.iter().flatten().flatten().all(|row| *row < 64));
        let (mut a, mut b) = (vec![0f32; 3 * 2 * 256], vec![0f32; 3 * 2 * 256]);
        clips.sample(&source, 0, &mut a).unwrap();
        clips.sample(&source, 80, &mut b).unwrap();
        assert_ne!(a, b);
    }
}
