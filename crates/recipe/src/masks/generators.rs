//! The mask generators of a run.

use super::MaskError;
use crate::config::{Config, MaskConfig};
use crate::masks::{MaskCollator, MaskPair, TubeCollator};

/// Draws the masks of a step; which ones depends on seed and step alone.
pub enum Masks {
    /// Spatio-temporal blocks.
    MultiBlock(MaskCollator),
    /// Random tubes.
    RandomTube(TubeCollator),
}

impl Masks {
    /// The generators of a configuration.
    ///
    /// # Errors
    /// [`MaskError`] for masks that leave no context.
    pub fn new(config: &Config) -> Result<Self, MaskError> {
        let geometry = config.geometry();
        Ok(match &config.mask {
            MaskConfig::MultiBlock(blocks) => Self::MultiBlock(MaskCollator::new(geometry, blocks.clone())?),
            MaskConfig::RandomTube(tubes) => Self::RandomTube(TubeCollator::new(geometry, tubes.clone())?),
        })
    }

    /// One pair a generator, each truncated to the shortest of the batch.
    ///
    /// # Errors
    /// [`MaskError`].
    pub fn at(&self, seed: u64, step: u64, batch: usize) -> Result<Vec<MaskPair>, MaskError> {
        Ok(match self {
            Self::MultiBlock(collator) => collator.sample_at(seed, step, batch)?,
            Self::RandomTube(collator) => collator.sample_at(seed, step, batch)?,
        })
    }
}
