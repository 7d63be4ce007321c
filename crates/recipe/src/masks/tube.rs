//! Random tube masks (official `masks/random_tube.py`): a random spatial pattern, the same at every time step.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Geometry, Grid, IndexBatch, MaskError, MaskGenerator, MaskPair, MaskStrategy, check_batch};
use crate::rng::{NumpyRng, Stream};

/// One generator of tube masks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TubeConfig {
    /// Fraction of a frame's patches that are hidden.
    pub ratio: f64,
}

impl Default for TubeConfig {
    fn default() -> Self {
        Self { ratio: 0.9 }
    }
}

impl TubeConfig {
    /// Patches of a frame that stay visible: truncated, so ratio 0.9 of 196 patches keeps 19.
    fn keep(&self, grid: Grid) -> usize {
        ((grid.h * grid.w) as f64 * (1.0 - self.ratio)) as usize
    }
}

/// Draws the mask pairs of a batch, one per generator. All samples keep equally many tokens, so nothing is truncated.
#[derive(Clone, Debug)]
pub struct TubeCollator {
    grid: Grid,
    configs: Vec<TubeConfig>,
}

impl MaskStrategy for TubeCollator {
    type Params = TubeConfig;
    const NAME: &'static str = "random_tube";
    const DOC: &'static str = "One random spatial pattern per sample, the same at every time step.";

    fn defaults() -> Vec<TubeConfig> {
        vec![TubeConfig::default()]
    }

    fn new(geometry: Geometry, configs: Vec<TubeConfig>) -> Result<Self, MaskError> {
        let grid = geometry.grid()?;
        if configs.is_empty() {
            return Err(MaskError::invalid("mask", "must list at least one generator".into()));
        }
        for (index, config) in configs.iter().enumerate() {
            let patches = grid.h * grid.w;
            let keep = config.keep(grid);
            let in_range = (0.0..1.0).contains(&config.ratio);
            if !in_range || keep == 0 || keep >= patches {
                let rule = format!(
                    "must hide at least one and not all of the {patches} patches of a frame, but is {}",
                    config.ratio
                );
                return Err(MaskError::invalid(format!("mask[{index}].ratio"), rule));
            }
        }
        Ok(Self { grid, configs })
    }
}

impl MaskGenerator for TubeCollator {
    fn pairs(&self, seed: u64, step: u64, group: u64, batch: usize) -> Result<Vec<MaskPair>, MaskError> {
        self.sample(batch, &mut NumpyRng::grouped(seed, Stream::Masks, step, group))
    }
}

impl TubeCollator {
    /// The pairs of one batch; `rng` shuffles one pattern per generator and sample, in that order.
    ///
    /// # Errors
    /// [`MaskError::Invalid`] when `batch` is 0.
    pub fn sample(&self, batch: usize, rng: &mut NumpyRng) -> Result<Vec<MaskPair>, MaskError> {
        check_batch(batch)?;
        let pairs = self.configs.iter().map(|config| self.sample_generator(config, batch, rng));
        Ok(pairs.collect())
    }

    fn sample_generator(&self, config: &TubeConfig, batch: usize, rng: &mut NumpyRng) -> MaskPair {
        let patches = self.grid.h * self.grid.w;
        let keep = config.keep(self.grid);
        let (mut contexts, mut targets) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        for _ in 0..batch {
            let mut visible: Vec<bool> = (0..patches).map(|patch| patch >= patches - keep).collect();
            rng.shuffle(&mut visible);
            let (mut context, mut target) = (Vec::new(), Vec::new());
            for (token, &visible) in (0i32..).zip(visible.iter().cycle().take(self.grid.tokens())) {
                if visible { &mut context } else { &mut target }.push(token);
            }
            contexts.push(context);
            targets.push(target);
        }
        MaskPair {
            context: IndexBatch::truncated(&contexts, keep * self.grid.t),
            target: IndexBatch::truncated(&targets, (patches - keep) * self.grid.t),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: Geometry = Geometry { frames: 16, height: 224, width: 224, tubelet: 2, patch: 16 };

    #[test]
    fn official_counts_at_ratio_nine_tenths() {
        let collator = TubeCollator::new(CLIP, vec![TubeConfig::default()]).unwrap();
        let pairs = collator.sample(3, &mut NumpyRng::new(0)).unwrap();
        assert_eq!((pairs[0].context.len, pairs[0].target.len), (152, 1416));
        assert_eq!(pairs[0].context.indices.len(), 3 * 152);
    }

    #[test]
    fn pattern_repeats_in_time_and_differs_between_samples() {
        let collator = TubeCollator::new(CLIP, vec![TubeConfig::default()]).unwrap();
        let pair = &collator.pairs(7, 3, 0, 2).unwrap()[0];
        let rows: Vec<&[i32]> = pair.context.rows().collect();
        for row in &rows {
            for (early, late) in row.iter().zip(&row[19..]) {
                assert_eq!(early + 196, *late);
            }
        }
        assert_ne!(rows[0], rows[1]);
        assert_eq!(collator.pairs(7, 3, 0, 2).unwrap()[0], *pair);
    }

    #[test]
    fn ratios_that_hide_nothing_or_everything_are_refused() {
        for ratio in [0.0, 1.0, 0.999, -0.1, f64::NAN] {
            let error = TubeCollator::new(CLIP, vec![TubeConfig { ratio }]).unwrap_err();
            assert!(error.to_string().starts_with("`mask[0].ratio` must hide"), "{error}");
        }
    }
}
