//! 3-D multi-block masks (paper section 3.2; official `masks/multiblock3d.py`).
//!
//! Per iteration and generator one block *size* is drawn, from a generator of its own seeded with the iteration count:
//! a fraction of the time steps, a fraction of the area and an aspect ratio (uniform, not log-uniform). All blocks of
//! all samples share it; there is no correction for the area lost to rounding or clipping. Block *positions* are drawn
//! per sample and block from the other generator, uniform over the corners that keep the block inside. The union of the
//! blocks is the target, the rest the context. Finally both lists are cut to the shortest of the batch by dropping their
//! *ends*, so the last time steps lose the most: at batch 24 a quarter of all tokens are in neither.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Geometry, Grid, IndexBatch, MaskError, MaskGenerator, MaskPair, MaskStrategy, check_batch, check_range};
use crate::rng::{Stream, TorchRng};

/// Draws of one sample before giving up on leaving any context. The official code would loop forever.
const MAX_TRIES: usize = 1000;

/// More blocks than this cover any grid many times over.
const MAX_BLOCKS: usize = 1 << 10;

/// One generator of block masks; keys as in the official `mask:` list. The default is the short-range one: the released
/// generators differ in the number and size of their blocks only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MultiBlockConfig {
    /// Range of block height over width, in patches.
    pub aspect_ratio: (f64, f64),
    /// Blocks per sample.
    pub num_blocks: usize,
    /// Range of the fraction of a frame's patches that one block covers.
    pub spatial_scale: (f64, f64),
    /// Range of the fraction of the time steps that one block covers.
    pub temporal_scale: (f64, f64),
    /// Below 1, context stays in this first fraction of the time steps (at least one) and all later tokens are targets:
    /// "causal multi-block".
    pub max_temporal_keep: f64,
    /// Upper bound on the context tokens of a sample, of which the first are kept. Targets are not limited.
    pub max_keep: Option<usize>,
    /// Targets are all tokens that are not context, so that every token is one or the other. From V-JEPA 2.
    pub full_complement: bool,
    /// Context is all tokens that are not targets; has no effect with `full_complement`. From V-JEPA 2.
    pub pred_full_complement: bool,
    /// Swap context and targets at the end: the blocks are visible, and their surroundings are predicted. From V-JEPA 2.
    pub inv_block: bool,
}

impl Default for MultiBlockConfig {
    fn default() -> Self {
        Self::short_range()
    }
}

impl MultiBlockConfig {
    /// The official short-range generator: 8 blocks of 15 % of the area, all time steps.
    pub fn short_range() -> Self {
        Self::blocks(8, 0.15)
    }

    /// The official long-range generator: 2 blocks of 70 % of the area, all time steps.
    pub fn long_range() -> Self {
        Self::blocks(2, 0.7)
    }

    /// Blocks of a fixed share of the area over all time steps; the rest as in the released configurations.
    pub fn blocks(num_blocks: usize, spatial_scale: f64) -> Self {
        Self {
            aspect_ratio: (0.75, 1.5),
            num_blocks,
            spatial_scale: (spatial_scale, spatial_scale),
            temporal_scale: (1.0, 1.0),
            max_temporal_keep: 1.0,
            max_keep: None,
            full_complement: false,
            pred_full_complement: false,
            inv_block: false,
        }
    }

    fn validate(&self, index: usize, grid: Grid) -> Result<(), MaskError> {
        let key = |name: &str| format!("mask[{index}].{name}");
        check_range(key("aspect_ratio"), self.aspect_ratio, 0.0, f64::MAX)?;
        check_range(key("spatial_scale"), self.spatial_scale, 0.0, 1.0)?;
        check_range(key("temporal_scale"), self.temporal_scale, 0.0, 1.0)?;
        if self.num_blocks == 0 {
            return Err(MaskError::invalid(key("num_blocks"), "must be at least 1".into()));
        }
        if self.num_blocks > MAX_BLOCKS {
            let rule = format!("is {}; it must lie between 1 and {MAX_BLOCKS}", self.num_blocks);
            return Err(MaskError::invalid(key("num_blocks"), rule));
        }
        if !(self.max_temporal_keep > 0.0 && self.max_temporal_keep <= 1.0) {
            let rule = format!("must be above 0 and at most 1, but is {}", self.max_temporal_keep);
            return Err(MaskError::invalid(key("max_temporal_keep"), rule));
        }
        if self.max_keep == Some(0) {
            let rule = "must be null or at least 1, since a context needs a token".into();
            return Err(MaskError::invalid(key("max_keep"), rule));
        }
        // The smallest area at either end of the aspect ratio gives the thinnest block there can be.
        for aspect in [self.aspect_ratio.0, self.aspect_ratio.1] {
            let (h, w) = block_sides(grid, self.spatial_scale.0, aspect);
            if h == 0 || w == 0 {
                let rule = format!(
                    "gives blocks of {h}x{w} patches on a grid of {}x{}; raise it or narrow aspect_ratio",
                    grid.h, grid.w
                );
                return Err(MaskError::invalid(key("spatial_scale"), rule));
            }
        }
        Ok(())
    }

    /// Time steps that may hold context.
    fn context_steps(&self, grid: Grid) -> usize {
        ((grid.t as f64 * self.max_temporal_keep) as usize).max(1)
    }
}

/// Extent of the blocks of one batch, in tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockSize {
    /// Time steps.
    pub t: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

/// Height and width of a block in patches. Python's `round` takes halves to the even neighbour.
fn block_sides(grid: Grid, scale: f64, aspect: f64) -> (usize, usize) {
    let patches = ((grid.h * grid.w) as f64 * scale).trunc();
    let h = (patches * aspect).sqrt().round_ties_even() as usize;
    let w = (patches / aspect).sqrt().round_ties_even() as usize;
    (h.min(grid.h), w.min(grid.w))
}

/// Draws the mask pairs of a batch, one per generator.
#[derive(Clone, Debug)]
pub struct MaskCollator {
    grid: Grid,
    configs: Vec<MultiBlockConfig>,
}

impl MaskStrategy for MaskCollator {
    type Params = MultiBlockConfig;
    const NAME: &'static str = "multiblock3d";
    const DOC: &'static str = "Spatio-temporal blocks; their union is the target.";

    fn defaults() -> Vec<MultiBlockConfig> {
        vec![MultiBlockConfig::short_range(), MultiBlockConfig::long_range()]
    }

    fn new(geometry: Geometry, configs: Vec<MultiBlockConfig>) -> Result<Self, MaskError> {
        let grid = geometry.grid()?;
        if configs.is_empty() {
            return Err(MaskError::invalid("mask", "must list at least one generator".into()));
        }
        for (index, config) in configs.iter().enumerate() {
            config.validate(index, grid)?;
        }
        Ok(Self { grid, configs })
    }
}

impl MaskGenerator for MaskCollator {
    /// Block sizes are the official ones of iteration `step`, the same in every group.
    fn pairs(&self, seed: u64, step: u64, group: u64, batch: usize) -> Result<Vec<MaskPair>, MaskError> {
        self.sample(batch, step, &mut TorchRng::grouped(seed, Stream::Masks, step, group))
    }

    /// A block as large as the grid in any of the first steps (sizes change with the step), and, where that is quick to
    /// find out, so many blocks that no draw leaves a gap.
    fn check(&self) -> Result<(), MaskError> {
        let grid = self.grid;
        for step in 0..16 {
            let sizes = self.block_sizes(step);
            if let Some(generator) = sizes.iter().position(|s| s.t >= grid.t && s.h >= grid.h && s.w >= grid.w) {
                return Err(MaskError::NoContext { generator, tries: 1 });
            }
        }
        let blocks: usize = self.configs.iter().map(|config| config.num_blocks).sum();
        if grid.tokens().saturating_mul(blocks) <= 1 << 16 { self.pairs(0, 0, 0, 1).map(drop) } else { Ok(()) }
    }
}

impl MaskCollator {
    /// The token grid masks are drawn over.
    pub fn grid(&self) -> Grid {
        self.grid
    }

    /// The generators.
    pub fn configs(&self) -> &[MultiBlockConfig] {
        &self.configs
    }

    /// Block sizes of iteration `counter` (0 for the first), one per generator. Every generator seeds with the counter,
    /// so all of them see the same three random numbers and share the aspect ratio.
    pub fn block_sizes(&self, counter: u64) -> Vec<BlockSize> {
        self.configs.iter().map(|config| block_size(self.grid, config, counter)).collect()
    }

    /// The pairs of iteration `counter` for `batch` samples, positions from `positions` in the official order:
    /// generator by generator, sample by sample, block by block, and top, left, start.
    ///
    /// # Errors
    /// [`MaskError::NoContext`] when the blocks keep covering the whole clip; [`MaskError::Invalid`] when `batch` is 0.
    pub fn sample(&self, batch: usize, counter: u64, positions: &mut TorchRng) -> Result<Vec<MaskPair>, MaskError> {
        check_batch(batch)?;
        let draw = |(generator, config): (usize, &MultiBlockConfig)| {
            let size = block_size(self.grid, config, counter);
            self.sample_generator(generator, config, size, batch, positions)
        };
        self.configs.iter().enumerate().map(draw).collect()
    }

    fn sample_generator(
        &self,
        generator: usize,
        config: &MultiBlockConfig,
        size: BlockSize,
        batch: usize,
        positions: &mut TorchRng,
    ) -> Result<MaskPair, MaskError> {
        let (mut contexts, mut targets) = (Vec::with_capacity(batch), Vec::with_capacity(batch));
        for _ in 0..batch {
            let (context, target) = self.sample_one(generator, config, size, positions)?;
            contexts.push(context);
            targets.push(target);
        }
        let shortest = |rows: &[Vec<i32>]| rows.iter().map(Vec::len).min().unwrap_or(0);
        let context_len = shortest(&contexts).min(config.max_keep.unwrap_or(usize::MAX));
        let mut context = IndexBatch::truncated(&contexts, context_len);
        let mut target = IndexBatch::truncated(&targets, shortest(&targets));
        if config.full_complement {
            target = context.complement(self.grid.tokens());
        } else if config.pred_full_complement {
            context = target.complement(self.grid.tokens());
        }
        if config.inv_block {
            std::mem::swap(&mut context, &mut target);
        }
        Ok(MaskPair { context, target })
    }

    /// Context and target indices of one sample, redrawn until a token of context is left.
    fn sample_one(
        &self,
        generator: usize,
        config: &MultiBlockConfig,
        size: BlockSize,
        positions: &mut TorchRng,
    ) -> Result<(Vec<i32>, Vec<i32>), MaskError> {
        let frame = self.grid.h * self.grid.w;
        let context_tokens = config.context_steps(self.grid) * frame;
        for _ in 0..MAX_TRIES {
            let mut covered = vec![false; self.grid.tokens()];
            for _ in 0..config.num_blocks {
                self.cover_block(&mut covered, size, positions);
            }
            covered.iter_mut().skip(context_tokens).for_each(|token| *token = true);
            if covered.iter().any(|&token| !token) {
                let (targets, contexts): (Vec<_>, Vec<_>) = (0i32..).zip(covered).partition(|&(_, token)| token);
                let indices = |list: Vec<(i32, bool)>| list.into_iter().map(|(index, _)| index).collect();
                return Ok((indices(contexts), indices(targets)));
            }
        }
        Err(MaskError::NoContext { generator, tries: MAX_TRIES })
    }

    /// Marks one block at a random position.
    fn cover_block(&self, covered: &mut [bool], size: BlockSize, positions: &mut TorchRng) {
        let Grid { t, h, w } = self.grid;
        // Corners that keep a block of `len` inside `side`; both fit u32, for all tokens fit i32.
        let mut corner = |side: usize, len: usize| positions.randint((side - len + 1) as u32) as usize;
        let (top, left, start) = (corner(h, size.h), corner(w, size.w), corner(t, size.t));
        for frame in covered.chunks_exact_mut(h * w).skip(start).take(size.t) {
            for row in frame.chunks_exact_mut(w).skip(top).take(size.h) {
                row.iter_mut().skip(left).take(size.w).for_each(|token| *token = true);
            }
        }
    }
}

fn block_size(grid: Grid, config: &MultiBlockConfig, counter: u64) -> BlockSize {
    let mut rng = TorchRng::new(counter);
    let mut between = |(min, max): (f64, f64)| min + f64::from(rng.rand()) * (max - min);
    let (temporal, spatial, aspect) =
        (between(config.temporal_scale), between(config.spatial_scale), between(config.aspect_ratio));
    let (h, w) = block_sides(grid, spatial, aspect);
    BlockSize { t: ((grid.t as f64 * temporal) as usize).clamp(1, grid.t), h, w }
}

#[cfg(test)]
#[path = "multiblock_tests.rs"]
mod tests;
