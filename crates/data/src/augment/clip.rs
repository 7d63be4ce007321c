//! The whole training transforms: of the video probe and fine-tuning, and of the image probe.

use super::draws::{Draws, Keyed};
use super::erase::RandomErasing;
use super::pil::{Filter, resize_window};
use super::policy::{Policy, RandAugment};
use super::{AugmentError, TransformError};
use crate::source::SampleKey;
use crate::transforms::{CropBox, Frames, RandomCrop, resize_crop};
use vjepa_runtime::Normalization;

/// The training transform of clips: RandAugment on bytes, normalise, one crop for all frames, bilinear without antialias,
/// flip, random erasing.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipAugment {
    /// Side of the square result.
    pub size: usize,
    /// Operations on the frames.
    pub policy: Option<Policy>,
    /// The crop.
    pub crop: RandomCrop,
    /// Whether half of the clips are mirrored.
    pub flip: bool,
    /// Random erasing, on normalised values.
    pub erase: Option<RandomErasing>,
    /// Centring and scaling.
    pub normalization: Normalization,
}

impl ClipAugment {
    /// The official video probe's transform to `size` by `size` pixels: no flip.
    pub fn probe(size: usize) -> Self {
        Self {
            size,
            policy: Some(Policy::Rand(RandAugment::OFFICIAL)),
            crop: RandomCrop { scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) },
            flip: false,
            erase: Some(RandomErasing::clips(0.25)),
            normalization: Normalization::Imagenet,
        }
    }

    /// Writes the transformed clip, `[3, T, size, size]`. `frames` are interleaved RGB bytes of `height` by `width` pixels.
    ///
    /// # Errors
    /// [`AugmentError::Transform`] for frames or an output of another size.
    pub fn apply(
        &self,
        mut frames: Vec<Vec<u8>>,
        (height, width): (usize, usize),
        draws: &mut impl Draws,
        out: &mut [f32],
    ) -> Result<(), AugmentError> {
        if let Some(policy) = &self.policy {
            let steps = policy.draw(draws);
            Policy::apply(&steps, &mut frames, (height, width), Policy::CLIP_FILL)?;
        }
        let clip = Frames::new(&frames, height, width)?;
        let size = (self.size, self.size);
        // Resizing is linear, so that it does not matter that the official code normalises before it.
        let area = CropBox::random(height, width, &self.crop, draws);
        let flip = self.flip && draws.flip_clip();
        resize_crop(clip, &[area], size, flip, Some(&self.normalization), out)?;
        if let Some(erase) = &self.erase {
            erase.apply(size, out, draws)?;
        }
        Ok(())
    }

    /// Repeated augmentation: augments one decoded clip `repeats` times into `[repeats, 3, T, size, size]`, which stand side
    /// by side in a batch. The first is what [`ClipAugment::apply`] makes of the key.
    ///
    /// # Errors
    /// As [`ClipAugment::apply`]; [`AugmentError::Setting`] for no repeats.
    pub fn apply_repeated(
        &self,
        frames: &[Vec<u8>],
        size: (usize, usize),
        key: SampleKey,
        repeats: u32,
        out: &mut [f32],
    ) -> Result<(), AugmentError> {
        if repeats == 0 {
            return Err(AugmentError::Setting("a clip must be augmented at least once, got 0 repeats".into()));
        }
        let clip = 3 * frames.len() * self.size * self.size;
        let want = clip * repeats as usize;
        if clip == 0 || out.len() != want {
            return Err(TransformError::OutputSize { got: out.len(), want }.into());
        }
        for (repeat, out) in (0..repeats).zip(out.chunks_exact_mut(clip)) {
            self.apply(frames.to_vec(), size, &mut Keyed::new(key, repeat), out)?;
        }
        Ok(())
    }
}

/// The training transform of the image probe: one crop, bicubic with antialias, flip, AutoAugment, normalise, erasing.
#[derive(Clone, Debug, PartialEq)]
pub struct PictureAugment {
    /// Side of the square result.
    pub size: usize,
    /// The crop.
    pub crop: RandomCrop,
    /// Whether half of the pictures are mirrored.
    pub flip: bool,
    /// Operations on the cropped picture.
    pub policy: Option<Policy>,
    /// Random erasing, on normalised values.
    pub erase: Option<RandomErasing>,
    /// Centring and scaling.
    pub normalization: Normalization,
}

impl PictureAugment {
    /// The official image probe's transform to `size` by `size` pixels.
    pub fn probe(size: usize) -> Self {
        Self {
            size,
            crop: RandomCrop { scale: (0.08, 1.0), ratio: (3.0 / 4.0, 4.0 / 3.0) },
            flip: true,
            policy: Some(Policy::Original),
            erase: Some(RandomErasing::pictures(0.25)),
            normalization: Normalization::Imagenet,
        }
    }

    /// Writes the transformed picture, `[3, size, size]`, of interleaved RGB bytes.
    ///
    /// # Errors
    /// [`AugmentError::Transform`] for a picture or an output of another size.
    pub fn apply(
        &self,
        picture: &[u8],
        (height, width): (usize, usize),
        draws: &mut impl Draws,
        out: &mut [f32],
    ) -> Result<(), AugmentError> {
        let size = (self.size, self.size);
        let area = CropBox::random(height, width, &self.crop, draws);
        let whole = CropBox { top: 0, left: 0, height: self.size, width: self.size };
        let mut resized = [resize_window(picture, (height, width), area, size, whole, Filter::Bicubic)?];
        if self.flip && draws.flip_picture() {
            let [picture] = &mut resized;
            picture.chunks_exact_mut(self.size * 3).for_each(mirror);
        }
        if let Some(policy) = &self.policy {
            let steps = policy.draw(draws);
            Policy::apply(&steps, &mut resized, size, Policy::PICTURE_FILL)?;
        }
        resize_crop(
            Frames::new(&resized, self.size, self.size)?,
            &[whole],
            size,
            false,
            Some(&self.normalization),
            out,
        )?;
        if let Some(erase) = &self.erase {
            erase.apply(size, out, draws)?;
        }
        Ok(())
    }
}

/// Mirrors one row of pixels.
fn mirror(row: &mut [u8]) {
    let pixels = row.len() / 3;
    for x in 0..pixels / 2 {
        for c in 0..3 {
            row.swap(x * 3 + c, (pixels - 1 - x) * 3 + c);
        }
    }
}
