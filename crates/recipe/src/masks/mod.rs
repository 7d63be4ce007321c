//! Which tokens the encoder sees and which ones the predictor predicts.
//!
//! A mask generator yields one [`MaskPair`] per batch: `context` token indices for the encoder and `target` indices for
//! the predictor, both ascending in raster order over the (time, height, width) grid of tubelets, time slowest. With two
//! generators (the official short-range and long-range blocks) there are two *separate* pairs and the loss averages
//! over them; they are not united.
//!
//! - [`multiblock`]: the paper's 3-D blocks (official `masks/multiblock3d.py`), the default.
//! - [`tube`]: one random spatial pattern repeated over time (official `masks/random_tube.py`).
//!
//! Clips of several lengths in a batch have grids of their own, and so masks of their own: [`buckets`].
//!
//! Both use random numbers exactly as the official code does, so equal seeds give equal masks. [`MaskStrategy`] is what a new
//! one implements; [`MaskGenerator`] is what a run draws from.

use serde::{Deserialize, Serialize};

mod buckets;
mod multiblock;
mod strategy;
mod tube;

pub use buckets::{Bucket, LengthBuckets};
pub use multiblock::{BlockSize, MaskCollator, MultiBlockConfig};
pub use strategy::{MaskGenerator, MaskStrategy, MaskType};
pub use tube::{TubeCollator, TubeConfig};

/// Size of a clip in pixels, and of one token in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Geometry {
    /// Frames of a clip; 1 is an image, whatever the tubelet.
    pub frames: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Frames of one token.
    pub tubelet: usize,
    /// Side of one token in pixels.
    pub patch: usize,
}

/// A grid of tokens: `t` time steps of `h` rows of `w` columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Time steps.
    pub t: usize,
    /// Rows.
    pub h: usize,
    /// Columns.
    pub w: usize,
}

impl Grid {
    /// Number of tokens, `t * h * w`.
    pub fn tokens(&self) -> usize {
        self.t * self.h * self.w
    }
}

impl Geometry {
    /// The token grid of such a clip.
    ///
    /// # Errors
    /// [`MaskError::Invalid`] when a size is zero, a side is not a multiple of the patch, the frame count is not a multiple
    /// of the tubelet, or there are more tokens than an `i32` can index.
    pub fn grid(&self) -> Result<Grid, MaskError> {
        for (key, value) in [
            ("frames", self.frames),
            ("height", self.height),
            ("width", self.width),
            ("tubelet", self.tubelet),
            ("patch", self.patch),
        ] {
            if value == 0 {
                return Err(MaskError::invalid(key, "must be at least 1".into()));
            }
        }
        if self.frames > 1 && !self.frames.is_multiple_of(self.tubelet) {
            let rule = format!("must be a multiple of the tubelet {}, but is {}", self.tubelet, self.frames);
            return Err(MaskError::invalid("frames", rule));
        }
        for (key, side) in [("height", self.height), ("width", self.width)] {
            if !side.is_multiple_of(self.patch) {
                let rule = format!("must be a multiple of the patch {}, but is {side}", self.patch);
                return Err(MaskError::invalid(key, rule));
            }
        }
        let grid =
            Grid { t: (self.frames / self.tubelet).max(1), h: self.height / self.patch, w: self.width / self.patch };
        let tokens = grid.t.checked_mul(grid.h).and_then(|n| n.checked_mul(grid.w));
        match tokens {
            Some(n) if i32::try_from(n).is_ok() => Ok(grid),
            _ => Err(MaskError::invalid("frames", "gives more tokens than an i32 can index".into())),
        }
    }
}

/// Token indices of a batch, row-major `[batch, len]`, each row ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexBatch {
    /// Samples.
    pub batch: usize,
    /// Indices per sample.
    pub len: usize,
    /// `batch * len` token indices.
    pub indices: Vec<i32>,
}

impl IndexBatch {
    /// The rows cut to their first `len` indices. A row is never shorter than `len`.
    fn truncated(rows: &[Vec<i32>], len: usize) -> Self {
        let indices = rows.iter().flat_map(|row| row.iter().take(len).copied()).collect();
        Self { batch: rows.len(), len, indices }
    }

    /// The tokens of `0..tokens` that each row lacks, ascending. Rows have no index twice, so all complements are equally long.
    fn complement(&self, tokens: usize) -> Self {
        let mut indices = Vec::new();
        let mut there = vec![false; tokens];
        for row in self.rows() {
            there.fill(false);
            for place in row.iter().filter_map(|index| usize::try_from(*index).ok()) {
                if let Some(there) = there.get_mut(place) {
                    *there = true;
                }
            }
            indices.extend((0i32..).zip(&there).filter(|(_, there)| !**there).map(|(index, _)| index));
        }
        Self { batch: self.batch, len: tokens.saturating_sub(self.len), indices }
    }

    /// The batch `times` over: the masks of several clips per video, which come clip by clip (official
    /// `repeat_interleave_batch`).
    fn repeated(&self, times: usize) -> Self {
        Self { batch: self.batch * times, len: self.len, indices: self.indices.repeat(times) }
    }

    /// The rows, one per sample.
    pub fn rows(&self) -> impl Iterator<Item = &[i32]> {
        self.indices.chunks(self.len.max(1))
    }
}

/// What one generator draws for a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskPair {
    /// Tokens the encoder sees, `[B, K_context]`.
    pub context: IndexBatch,
    /// Tokens the predictor predicts, `[B, K_target]`.
    pub target: IndexBatch,
}

impl MaskPair {
    /// The same masks for each of `times` clips of the batch's videos: `[times * B, K]`, all of the first clips first.
    pub fn repeated(&self, times: usize) -> Self {
        Self { context: self.context.repeated(times), target: self.target.repeated(times) }
    }
}

/// Why masks cannot be drawn.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum MaskError {
    /// A configuration value breaks a rule.
    #[error("`{key}` {rule}")]
    Invalid {
        /// The key as the configuration file spells it, such as `mask[0].spatial_scale`.
        key: String,
        /// What must hold.
        rule: String,
    },
    /// Every draw of a sample covered the whole clip.
    #[error(
        "masks leave no context: {tries} draws of `mask[{generator}]` covered every token; make its masks smaller or fewer"
    )]
    NoContext {
        /// Index of the generator.
        generator: usize,
        /// Draws made.
        tries: usize,
    },
}

impl MaskError {
    fn invalid(key: impl Into<String>, rule: String) -> Self {
        Self::Invalid { key: key.into(), rule }
    }
}

/// A pair of numbers that must be finite, ordered and within `low..=high`.
fn check_range(key: String, range: (f64, f64), low: f64, high: f64) -> Result<(), MaskError> {
    let (min, max) = range;
    // Written so that NaN fails.
    if min > low && min <= max && max <= high {
        return Ok(());
    }
    let upper = if high.is_finite() { format!(" <= {high}") } else { " < inf".into() };
    let rule = format!("must be [min, max] with {low} < min <= max{upper}, but is [{min}, {max}]");
    Err(MaskError::Invalid { key, rule })
}

fn check_batch(batch: usize) -> Result<(), MaskError> {
    if batch == 0 {
        return Err(MaskError::invalid("batch_size", "must be at least 1".into()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIP: Geometry = Geometry { frames: 16, height: 224, width: 224, tubelet: 2, patch: 16 };

    #[test]
    fn grids() {
        assert_eq!(CLIP.grid(), Ok(Grid { t: 8, h: 14, w: 14 }));
        assert_eq!(CLIP.grid().map(|grid| grid.tokens()), Ok(1568));
        let image = Geometry { frames: 1, ..CLIP };
        assert_eq!(image.grid(), Ok(Grid { t: 1, h: 14, w: 14 }));
    }

    #[test]
    fn bad_geometry_names_its_key() {
        let message = |geometry: Geometry| geometry.grid().map_err(|error| error.to_string()).unwrap_err();
        let odd = Geometry { frames: 15, ..CLIP };
        assert_eq!(message(odd), "`frames` must be a multiple of the tubelet 2, but is 15");
        let wide = Geometry { width: 230, ..CLIP };
        assert_eq!(message(wide), "`width` must be a multiple of the patch 16, but is 230");
        assert_eq!(message(Geometry { patch: 0, ..CLIP }), "`patch` must be at least 1");
        let huge = Geometry { frames: usize::MAX - 1, ..CLIP };
        assert!(message(huge).contains("i32"));
    }
}
