//! The random transform of training clips.

use super::resize::float_taps;
use super::{CropBox, Frames, Normalise, RandomCrop, TransformError, check_output};
use crate::rng::{NumpyRng, PyRandom};

/// The transform of pre-training clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainTransform {
    /// Height and width of the result.
    pub size: (usize, usize),
    /// Random crop; without, the whole frame is resized.
    pub crop: Option<RandomCrop>,
    /// Whether the crop moves through the clip from one random box to another.
    pub motion_shift: bool,
    /// Whether half of the clips are mirrored.
    pub hflip: bool,
    /// Centring and scaling.
    pub normalise: Normalise,
}

impl TrainTransform {
    /// The official transform to `size` by `size` pixels.
    pub fn official(size: usize) -> Self {
        Self {
            size: (size, size),
            crop: Some(RandomCrop::default()),
            motion_shift: false,
            hflip: true,
            normalise: Normalise::IMAGENET,
        }
    }

    /// Values of a clip of `frames` frames.
    pub fn output_len(&self, frames: usize) -> usize {
        3 * frames * self.size.0 * self.size.1
    }

    /// Writes the transformed clip, `[3, T, H, W]`; the box comes from `crops`, the flip from `flips`.
    ///
    /// # Errors
    /// [`TransformError::OutputSize`].
    pub fn apply<B: AsRef<[u8]>>(
        &self,
        frames: Frames<'_, B>,
        crops: &mut PyRandom,
        flips: &mut NumpyRng,
        out: &mut [f32],
    ) -> Result<(), TransformError> {
        let mut draw = || match &self.crop {
            Some(crop) => CropBox::random(frames.height, frames.width, crop, crops),
            None => frames.whole(),
        };
        let first = draw();
        let boxes = if self.motion_shift { CropBox::shifted(first, draw(), frames.frames.len()) } else { vec![first] };
        let flip = self.hflip && flips.rand() < 0.5;
        resize_crop(frames, &boxes, self.size, flip, &self.normalise, out)
    }
}

/// Crops, resizes to `size` (height, width), mirrors and normalises. `boxes` is one box for all frames or one for each.
///
/// # Errors
/// [`TransformError::Boxes`], [`TransformError::OutputSize`].
pub fn resize_crop<B: AsRef<[u8]>>(
    frames: Frames<'_, B>,
    boxes: &[CropBox],
    size: (usize, usize),
    flip: bool,
    normalise: &Normalise,
    out: &mut [f32],
) -> Result<(), TransformError> {
    let count = frames.frames.len();
    let (height, width) = size;
    let plane = check_output(out, count, height, width)?;
    let fit = boxes.iter().all(|crop| crop.fits(frames.height, frames.width));
    if !fit || (boxes.len() != 1 && boxes.len() != count) {
        return Err(TransformError::Boxes);
    }
    let affine = normalise.affine();
    let row_bytes = frames.width * 3;
    let mut columns = Vec::new();
    for (t, frame) in frames.frames.iter().enumerate() {
        let shared = boxes.len() == 1;
        let crop = if shared { boxes[0] } else { boxes[t] };
        if t == 0 || !shared {
            columns = float_taps(crop.left, crop.width, width);
            if flip {
                columns.reverse();
            }
        }
        let rows = float_taps(crop.top, crop.height, height);
        for (y, row) in rows.iter().enumerate() {
            let upper = &frame.as_ref()[row.first * row_bytes..][..row_bytes];
            let lower = &frame.as_ref()[row.second * row_bytes..][..row_bytes];
            for (c, (offset, scale)) in affine.iter().enumerate() {
                let line = &mut out[(c * count + t) * plane + y * width..][..width];
                for (value, column) in line.iter_mut().zip(&columns) {
                    let blend = |pixels: &[u8]| {
                        let (left, right) = (pixels[column.first * 3 + c], pixels[column.second * 3 + c]);
                        column.weights.0 * f32::from(left) + column.weights.1 * f32::from(right)
                    };
                    let pixel = row.weights.0 * blend(upper) + row.weights.1 * blend(lower);
                    *value = (pixel - offset) / scale;
                }
            }
        }
    }
    normalise.finish(out);
    Ok(())
}
