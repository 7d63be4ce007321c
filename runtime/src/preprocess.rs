//! How a model's clips are prepared: the record in its metadata, and the preparation itself.
//!
//! The arithmetic is that of the official evaluation (`evals/video_classification_frozen/utils.py`, one view): OpenCV's
//! bilinear resize of the *bytes* to a short side of 256/224 of the crop, the centre, then scaling.

mod record;

pub use record::{Framing, Normalization, Preprocessing, Sampling};

/// Metadata key of the record.
pub const METADATA_KEY: &str = "vjepa.preprocessing";

/// Clips that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The model has no record.
    #[error("the model has no `{METADATA_KEY}` in its metadata; export it with vjepa, or prepare clips yourself")]
    Missing,
    /// The record is not what it should be.
    #[error("the model's `{METADATA_KEY}` is malformed: {0}; export it again")]
    Malformed(String),
    /// The wrong number of frames.
    #[error("the model takes clips of {expected} frames, got {got}")]
    FrameCount {
        /// Frames of a clip.
        expected: usize,
        /// Frames given.
        got: usize,
    },
    /// Frames of no size, or too large to be any.
    #[error("frames of {width}x{height} pixels; a side has 1 to {LARGEST_SIDE}")]
    FrameSides {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// Frames whose bytes do not fit their size.
    #[error("a frame of {width}x{height} pixels has {got} bytes; RGB needs {}", height * width * 3)]
    FrameSize {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
        /// Bytes there are.
        got: usize,
    },
}

/// Largest side of a frame or crop in pixels.
const LARGEST_SIDE: usize = 1 << 14;
/// Most values of a clip, 1 GiB: nine times those of 64 frames of 384 pixels.
const LARGEST_CLIP: usize = 1 << 28;

impl Preprocessing {
    /// Prepares the frames of one clip, `height` by `width` pixels of interleaved RGB each: `f32 [3, T, S, S]`, row-major,
    /// with S the crop size.
    ///
    /// # Errors
    /// [`PreprocessError::FrameCount`], [`PreprocessError::FrameSides`], [`PreprocessError::FrameSize`].
    pub fn prepare<F: AsRef<[u8]>>(
        &self,
        frames: &[F],
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, PreprocessError> {
        if frames.len() != self.num_frames || frames.is_empty() {
            return Err(PreprocessError::FrameCount { expected: self.num_frames, got: frames.len() });
        }
        let sides = 1..=LARGEST_SIDE;
        if !sides.contains(&height) || !sides.contains(&width) {
            return Err(PreprocessError::FrameSides { height, width });
        }
        let bytes = height * width * 3;
        if let Some(wrong) = frames.iter().map(|frame| frame.as_ref().len()).find(|len| *len != bytes) {
            return Err(PreprocessError::FrameSize { height, width, got: wrong });
        }
        let size = self.crop_size;
        let plane = size * size;
        let short = match self.framing {
            Framing::Centre => (size as f64 * 256.0 / 224.0) as usize,
            Framing::Whole => size,
        };
        let (rows, columns) = centre(height, width, short, size);
        let mut clip = vec![0.0; 3 * frames.len() * plane];
        let statistics = self.normalization.statistics();
        let mut source = Vec::with_capacity(bytes);
        for (t, frame) in frames.iter().enumerate() {
            source.clear();
            source.extend_from_slice(frame.as_ref());
            if self.grayscale {
                to_luma(&mut source);
            }
            for c in 0..3 {
                // Per-clip statistics are taken at the end, of the bytes themselves.
                let (gain, bias) = match statistics {
                    Some((mean, std)) => (1.0 / (255.0 * std[c]), -mean[c] / std[c]),
                    None => (1.0, 0.0),
                };
                let out = &mut clip[(c * frames.len() + t) * plane..][..plane];
                for (line, row) in out.chunks_exact_mut(size).zip(&rows) {
                    let (upper, lower) = (&source[row.first * width * 3..], &source[row.second * width * 3..]);
                    for (value, column) in line.iter_mut().zip(&columns) {
                        let (left, right) = (column.first * 3 + c, column.second * 3 + c);
                        let above = column.across(upper[left], upper[right]);
                        let below = column.across(lower[left], lower[right]);
                        *value = row.down(above, below) as f32 * gain + bias;
                    }
                }
            }
        }
        if statistics.is_none() {
            standardise(&mut clip);
        }
        Ok(clip)
    }
}

/// A byte pixel between two source pixels of a line; the weights are in 1/2048 (OpenCV `INTER_LINEAR` of bytes).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ByteTap {
    /// The source pixel before it.
    pub first: usize,
    /// The source pixel after it; the same one at an edge.
    pub second: usize,
    weights: (i32, i32),
}

impl ByteTap {
    /// Between two pixels of a row, in 1/2048.
    pub fn across(&self, left: u8, right: u8) -> i32 {
        i32::from(left) * self.weights.0 + i32::from(right) * self.weights.1
    }

    /// Between two such values of neighbouring rows. OpenCV drops four bits before and sixteen after the product.
    pub fn down(&self, upper: i32, lower: i32) -> i32 {
        let part = |weight: i32, value: i32| (weight * (value >> 4)) >> 16;
        ((part(self.weights.0, upper) + part(self.weights.1, lower) + 2) >> 2).clamp(0, 255)
    }
}

/// Rows and columns of the centre, `size` pixels square, of a frame resized to a short side of `short`.
fn centre(height: usize, width: usize, short: usize, size: usize) -> (Vec<ByteTap>, Vec<ByteTap>) {
    let (tall, wide) = match height.min(width) {
        side if side == short => (height, width),
        side => {
            // The long side is truncated, as in the official code.
            let scaled = |long: usize| (short as f64 * long as f64 / side as f64) as usize;
            if width < height { (scaled(height), short) } else { (short, scaled(width)) }
        }
    };
    // Python rounds a half to the even neighbour.
    let start = |side: usize| (side.saturating_sub(size) as f64 / 2.0).round_ties_even() as usize;
    (byte_taps(height, tall, start(tall), size), byte_taps(width, wide, start(wide), size))
}

/// Taps of the pixels `start..start + count` of a line of `len` pixels resized to `size`.
pub fn byte_taps(len: usize, size: usize, start: usize, count: usize) -> Vec<ByteTap> {
    let scale = len as f64 / size as f64;
    let last = len.saturating_sub(1);
    let tap = |target: usize| {
        let source = ((target as f64 + 0.5) * scale - 0.5) as f32;
        let floor = source.floor();
        let first = floor.max(0.0) as usize;
        let weight = if floor < 0.0 || first >= last { 0.0 } else { source - floor };
        let fixed = |weight: f32| (weight * 2048.0).round_ties_even() as i32;
        ByteTap { first: first.min(last), second: (first + 1).min(last), weights: (fixed(1.0 - weight), fixed(weight)) }
    };
    (start..start + count).map(tap).collect()
}

/// Replaces each pixel's colours by their luma (BT.601 weights, in 1/256); `pixels` is interleaved RGB.
pub fn to_luma(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(3) {
        let [red, green, blue] = [0, 1, 2].map(|c| u32::from(pixel[c]));
        pixel.fill(((77 * red + 150 * green + 29 * blue + 128) >> 8) as u8);
    }
}

/// Shifts and scales values to mean 0 and deviation 1; equal values become 0.
pub fn standardise(values: &mut [f32]) {
    let count = values.len().max(1) as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
    let variance = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / count;
    // Below this the spread of byte-valued pixels is rounding only.
    let scale = if variance > 1e-12 { variance.sqrt().recip() } else { 0.0 };
    for value in values {
        *value = ((f64::from(*value) - mean) * scale) as f32;
    }
}

#[cfg(test)]
mod tests;
