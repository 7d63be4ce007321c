//! Masks of a batch whose clips have several lengths (V-JEPA 2; official `masks/multiseq_multiblock3d.py`).
//!
//! The samples of a batch are put together by their number of frames, in the order in which lengths first appear among the
//! data sets, into *length buckets*. Every length has mask generators of its own, over the grid of its clips, and rows of
//! masks are cut to the shortest of their bucket, not of the batch. A length that the batch lacks has no bucket, so the
//! numbers of those after it shift; the predictor chooses its mask token by that number.
//!
//! An image is a clip of one frame, whatever the tubelet, with generators of its own (2.1's `img_mask`).

use super::{MaskError, MaskGenerator, MaskPair};

/// The samples of one length in a batch, and their masks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Frames of its clips.
    pub frames: usize,
    /// Which samples of the batch it has, ascending.
    pub samples: Vec<usize>,
    /// One pair a generator, with a row a sample.
    pub pairs: Vec<MaskPair>,
}

/// What draws the masks of clips of several lengths.
pub struct LengthBuckets {
    lengths: Vec<(usize, Box<dyn MaskGenerator>)>,
}

impl LengthBuckets {
    /// Generators by the number of frames, in the order of the buckets. Of a length that is there twice the first counts.
    pub fn new(lengths: impl IntoIterator<Item = (usize, Box<dyn MaskGenerator>)>) -> Self {
        let mut own: Vec<(usize, Box<dyn MaskGenerator>)> = Vec::new();
        for (frames, masks) in lengths {
            if own.iter().all(|(known, _)| *known != frames) {
                own.push((frames, masks));
            }
        }
        Self { lengths: own }
    }

    /// The lengths, in the order of the buckets.
    pub fn lengths(&self) -> impl Iterator<Item = usize> {
        self.lengths.iter().map(|(frames, _)| *frames)
    }

    /// The buckets of a batch whose samples have `frames` frames each: those of (seed, step, group), block sizes those of
    /// iteration `step`. Officially the generators of a length count only the batches that have it, so sizes are the official
    /// ones as long as every batch has every length.
    ///
    /// # Errors
    /// [`MaskError::Invalid`] for a length that has no generators (the official code drops such samples); that of a generator.
    pub fn draw(&self, seed: u64, step: u64, group: u64, frames: &[usize]) -> Result<Vec<Bucket>, MaskError> {
        if let Some(strange) = frames.iter().find(|frames| self.lengths().all(|known| known != **frames)) {
            let known: Vec<String> = self.lengths().map(|frames| frames.to_string()).collect();
            let rule = format!("lacks clips of {strange} frames; it has {}", known.join(", "));
            return Err(MaskError::invalid("data.dataset_fpcs", rule));
        }
        let mut buckets = Vec::new();
        for (number, (length, masks)) in self.lengths.iter().enumerate() {
            let numbered = frames.iter().enumerate().filter(|(_, frames)| *frames == length);
            let samples: Vec<usize> = numbered.map(|(sample, _)| sample).collect();
            if samples.is_empty() {
                continue;
            }
            // The first length draws as a batch of one length does; others from streams that no group has.
            let stream = (number as u64) << 48 | group;
            let pairs = masks.pairs(seed, step, stream, samples.len())?;
            buckets.push(Bucket { frames: *length, samples, pairs });
        }
        Ok(buckets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::masks::{Geometry, MaskCollator, MaskStrategy, MultiBlockConfig};

    fn masks(frames: usize) -> Box<dyn MaskGenerator> {
        let clip = Geometry { frames, height: 64, width: 64, tubelet: 2, patch: 16 };
        let generators = vec![MultiBlockConfig::short_range(), MultiBlockConfig::long_range()];
        Box::new(MaskCollator::new(clip, generators).unwrap())
    }

    fn buckets() -> LengthBuckets {
        LengthBuckets::new([(8, masks(8)), (4, masks(4)), (8, masks(2))])
    }

    #[test]
    fn samples_are_grouped_in_the_order_of_the_lengths() {
        let drawn = buckets().draw(1, 3, 0, &[4, 8, 4, 8, 8]).unwrap();
        let told: Vec<_> = drawn.iter().map(|bucket| (bucket.frames, bucket.samples.clone())).collect();
        assert_eq!(told, [(8, vec![1, 3, 4]), (4, vec![0, 2])]);
        for bucket in &drawn {
            assert_eq!(bucket.pairs.len(), 2);
            let tokens = bucket.frames / 2 * 16;
            for pair in &bucket.pairs {
                assert_eq!((pair.context.batch, pair.target.batch), (bucket.samples.len(), bucket.samples.len()));
                assert!(pair.target.indices.iter().all(|token| (*token as usize) < tokens));
            }
        }
    }

    #[test]
    fn a_batch_of_one_length_has_the_masks_it_has_alone() {
        let drawn = buckets().draw(5, 2, 1, &[8, 8]).unwrap();
        assert_eq!(drawn.len(), 1);
        assert_eq!(drawn[0].pairs, masks(8).pairs(5, 2, 1, 2).unwrap());
        // Without the first length the second moves up.
        let drawn = buckets().draw(5, 2, 1, &[4]).unwrap();
        assert_eq!((drawn.len(), drawn[0].frames), (1, 4));
    }

    #[test]
    fn a_length_without_generators_is_refused() {
        let error = buckets().draw(1, 1, 0, &[8, 16]).unwrap_err().to_string();
        assert_eq!(error, "`data.dataset_fpcs` lacks clips of 16 frames; it has 8, 4");
    }
}
