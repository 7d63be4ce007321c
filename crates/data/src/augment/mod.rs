//! Training augmentation as the official evaluations have it.
//!
//! Every augmentation is split in two: *draw* its random choices from a [`Draws`], then *apply* them, which is exact. So the
//! choices can be recorded, compared and replayed. [`Keyed`] draws from the project's counter-based generator, by (seed,
//! epoch, position, repeat): a sample is the same on any worker and after any restart. [`OfficialDraws`] draws what the
//! official code draws from Python's, NumPy's and PyTorch's generators after seeding them, for comparisons with it.
//!
//! - [`Policy`]: RandAugment by its policy string and AutoAugment `original`, on interleaved RGB bytes, the same operations
//!   for every frame of a clip. Operations ([`Op`]) give Pillow's pixels bit for bit.
//! - [`pil`]: Pillow's antialiased bilinear and bicubic resizing, bit for bit.
//! - [`RandomErasing`]: one box for all frames, fresh normal noise for each value in it.
//! - [`ClipAugment`], [`PictureAugment`]: the whole training transform of the video and of the image probe.
//! - [`Mixing`]: mixup and cutmix of a batch, soft targets with label smoothing.
//!
//! Sources: facebookresearch/jepa `evals/*/utils.py`, timm's `auto_augment.py`, `random_erasing.py` and `mixup.py`, Pillow's
//! `Geometry.c` and `Resample.c`; rules re-derived from recorded data.

mod affine;
mod clip;
mod draws;
mod erase;
mod mix;
mod official;
mod ops;
pub mod pil;
mod policy;

pub use clip::{ClipAugment, PictureAugment};
pub use draws::{Draws, Keyed};
pub use erase::RandomErasing;
pub use mix::{Mix, Mixing, soft_cross_entropy};
pub use official::OfficialDraws;
pub use ops::{Op, OpKind};
pub use policy::{Entry, ORIGINAL, Policy, RandAugment, Step};

use super::transforms::TransformError;

/// Why something cannot be augmented.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum AugmentError {
    /// A policy string that is not read.
    #[error("the augmentation policy `{policy}` {why}")]
    Policy {
        /// The string.
        policy: String,
        /// What is wrong with it, and what to write instead.
        why: String,
    },
    /// A clip or output of the wrong size.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A setting outside its range.
    #[error("{0}")]
    Setting(String),
    /// A batch that cannot be mixed.
    #[error("{0}")]
    Batch(String),
}

#[cfg(test)]
mod tests;
