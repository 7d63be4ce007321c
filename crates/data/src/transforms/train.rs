//! The random transform of training clips.

use super::resize::float_taps;
use super::{CropBox, Frames, RandomCrop, TransformError, channel_rows, check_output};
use vjepa_recipe::rng::{NumpyRng, PyRandom};
use vjepa_runtime::Normalization;

/// The transform of pre-training clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainTransform {
    /// Height and width of the result.
    pub size: (usize, usize),
    /// Random crop; without one, the whole frame is resized.
    pub crop: Option<RandomCrop>,
    /// Whether the crop moves through the clip from one random box to another.
    pub motion_shift: bool,
    /// Whether half of the clips are mirrored.
    pub hflip: bool,
    /// Centring and scaling.
    pub normalization: Normalization,
}

impl TrainTransform {
    /// The official transform to `size` by `size` pixels.
    pub fn official(size: usize) -> Self {
        Self {
            size: (size, size),
            crop: Some(RandomCrop::default()),
            motion_shift: false,
            hflip: true,
            normalization: Normalization::Imagenet,
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
        resize_crop(frames, &boxes, self.size, flip, &self.normalization, out)
    }
}

/// Crops, resizes to `size` (height, width), mirrors and normalises. `boxes` is one box for all frames or one per frame.
///
/// # Errors
/// [`TransformError::Boxes`], [`TransformError::OutputSize`].
pub fn resize_crop<B: AsRef<[u8]>>(
    frames: Frames<'_, B>,
    boxes: &[CropBox],
    size: (usize, usize),
    flip: bool,
    normalization: &Normalization,
    out: &mut [f32],
) -> Result<(), TransformError> {
    let count = frames.frames.len();
    let (height, width) = size;
    let plane = check_output(out, count, height, width)?;
    let fit = boxes.iter().all(|crop| crop.fits(frames.height, frames.width));
    if !fit || (boxes.len() != 1 && boxes.len() != count) {
        return Err(TransformError::Boxes);
    }
    let affine = normalization.affine();
    let row_bytes = frames.width * 3;
    let shared = boxes.len() == 1;
    let mut columns = Vec::new();
    // One output row before its columns are blended: rows first, since they are contiguous.
    let mut blended = Vec::new();
    for (t, frame) in frames.frames.iter().enumerate() {
        let crop = if shared { boxes[0] } else { boxes[t] };
        if t == 0 || !shared {
            columns = float_taps(crop.width, width);
            if flip {
                columns.reverse();
            }
            blended.resize(crop.width * 3, 0.0f32);
        }
        for (y, row) in float_taps(crop.height, height).iter().enumerate() {
            let source = |index: usize| {
                let start = (crop.top + index) * row_bytes + crop.left * 3;
                &frame.as_ref()[start..][..crop.width * 3]
            };
            for ((value, upper), lower) in blended.iter_mut().zip(source(row.first)).zip(source(row.second)) {
                *value = row.weights.0 * f32::from(*upper) + row.weights.1 * f32::from(*lower);
            }
            let lines = channel_rows(out, t * plane + y * width, width);
            for (x, column) in columns.iter().enumerate() {
                let (left, right) = (&blended[column.first * 3..][..3], &blended[column.second * 3..][..3]);
                for c in 0..3 {
                    let pixel = column.weights.0 * left[c] + column.weights.1 * right[c];
                    lines[c][x] = pixel * affine[c].0 + affine[c].1;
                }
            }
        }
    }
    normalization.finish(out);
    Ok(())
}
