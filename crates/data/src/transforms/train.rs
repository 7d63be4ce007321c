//! The random transform of training clips.

use super::resize::float_taps;
use super::value::{ClipValue, PIXELS};
use super::{CropBox, PixelReader, RandomCrop, TransformError, channel_rows, check_output};
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

    /// Writes the transformed clip, `[3, T, H, W]`, as values of its kind; the box comes from `crops`, the flip from `flips`.
    ///
    /// # Errors
    /// [`TransformError::OutputSize`].
    pub fn apply<V: ClipValue>(
        &self,
        frames: impl PixelReader,
        crops: &mut PyRandom,
        flips: &mut NumpyRng,
        out: &mut [V],
    ) -> Result<(), TransformError> {
        let (height, width) = frames.size();
        let mut draw = || match &self.crop {
            Some(crop) => CropBox::random(height, width, crop, crops),
            None => CropBox { top: 0, left: 0, height, width },
        };
        let first = draw();
        let boxes = if self.motion_shift { CropBox::shifted(first, draw(), frames.count()) } else { vec![first] };
        let flip = self.hflip && flips.rand() < 0.5;
        resize_crop(frames, &boxes, self.size, flip, Some(&self.normalization), out)
    }
}

/// A row of a picture within the columns of a crop.
#[derive(Default)]
struct Line {
    y: Option<usize>,
    pixels: Vec<u8>,
}

/// The rows of a picture that are blended: each is read once where output rows share it.
#[derive(Default)]
struct Lines {
    upper: Line,
    lower: Line,
}

impl Lines {
    fn forget(&mut self, bytes: usize) {
        for line in [&mut self.upper, &mut self.lower] {
            line.y = None;
            line.pixels.resize(bytes, 0);
        }
    }

    /// Rows `first` and `second`.
    fn at(&mut self, first: usize, second: usize, read: impl Fn(usize, &mut [u8])) -> (&[u8], &[u8]) {
        if self.upper.y != Some(first) && self.lower.y == Some(first) {
            std::mem::swap(&mut self.upper, &mut self.lower);
        }
        for (line, y) in [(&mut self.upper, first), (&mut self.lower, second)] {
            if line.y != Some(y) {
                read(y, &mut line.pixels);
                line.y = Some(y);
            }
        }
        (&self.upper.pixels, &self.lower.pixels)
    }
}

/// Crops, resizes to `size` (height, width), mirrors and perhaps normalises, in one pass that reads no pixel outside the crop.
/// `boxes` is one box for all frames or one per frame. Bytes are not normalised.
///
/// # Errors
/// [`TransformError::Boxes`], [`TransformError::OutputSize`].
pub fn resize_crop<V: ClipValue>(
    frames: impl PixelReader,
    boxes: &[CropBox],
    size: (usize, usize),
    flip: bool,
    normalization: Option<&Normalization>,
    out: &mut [V],
) -> Result<(), TransformError> {
    let count = frames.count();
    let (height, width) = size;
    let plane = check_output(out, count, height, width)?;
    let (frame_height, frame_width) = frames.size();
    let fit = boxes.iter().all(|crop| crop.fits(frame_height, frame_width));
    if !fit || (boxes.len() != 1 && boxes.len() != count) {
        return Err(TransformError::Boxes);
    }
    let affine = normalization.map_or(PIXELS, V::affine);
    let shared = boxes.len() == 1;
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    // One output row before its columns are blended: rows first, for that runs along contiguous bytes.
    let mut blended = Vec::new();
    let mut source = Lines::default();
    for t in 0..count {
        let crop = if shared { boxes[0] } else { boxes[t] };
        if t == 0 || !shared {
            rows = float_taps(crop.height, height);
            columns = float_taps(crop.width, width);
            if flip {
                columns.reverse();
            }
            blended.resize(crop.width * 3, 0.0f32);
        }
        source.forget(crop.width * 3);
        for (y, row) in rows.iter().enumerate() {
            let read = |y: usize, line: &mut [u8]| frames.read(t, crop.top + y, crop.left, line);
            let (upper, lower) = source.at(row.first, row.second, read);
            for ((value, upper), lower) in blended.iter_mut().zip(upper).zip(lower) {
                *value = row.weights.0 * f32::from(*upper) + row.weights.1 * f32::from(*lower);
            }
            let lines = channel_rows(out, t * plane + y * width, width);
            for (x, column) in columns.iter().enumerate() {
                let (left, right) = (&blended[column.first * 3..][..3], &blended[column.second * 3..][..3]);
                for c in 0..3 {
                    let pixel = column.weights.0 * left[c] + column.weights.1 * right[c];
                    lines[c][x] = V::of(pixel * affine[c].0 + affine[c].1);
                }
            }
        }
    }
    if let Some(normalization) = normalization {
        V::finish(normalization, out);
    }
    Ok(())
}
