//! How a model's clips are prepared: the record in its metadata, and the preparation itself.
//!
//! The arithmetic is that of the official evaluation (`evals/video_classification_frozen/utils.py`): OpenCV's bilinear resize
//! of the *bytes* to a short side of 256/224 of the crop, the centre, then scaling; several views are crops along the long
//! side. Clips that are not square are cut from the smallest frame that covers the same enlarged crop. Training's evaluation,
//! probing, `run`, `serve` and the C library all prepare clips here.

mod record;
mod resize;

use resize::ResizedCrop;

pub use record::{Framing, Normalization, Preprocessing, Sampling};

/// Metadata key of the record.
pub const METADATA_KEY: &str = "vjepa.preprocessing";

/// Clips that cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum PreprocessError {
    /// The model has no record.
    #[error("the model has no `{METADATA_KEY}` in its metadata; export it with vjepa, or prepare clips yourself")]
    Missing,
    /// The record cannot be used.
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
    /// Frames without pixels, or implausibly large ones.
    #[error("frames of {width}x{height} pixels; a side has 1 to {LARGEST_SIDE}")]
    FrameSides {
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// There is no such view.
    #[error("there is no view {index} of {count}")]
    View {
        /// The view asked for, from 0.
        index: usize,
        /// Number of views.
        count: usize,
    },
    /// The output does not have the size of a prepared clip.
    #[error("the output holds {got} values; a clip has {want}")]
    OutputSize {
        /// Values it holds.
        got: usize,
        /// Values of a clip.
        want: usize,
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

/// One of the views of a clip. A single view is the centre of the frames as the record's [`Framing`] has it; several are
/// spread along the long side of frames whose short side is resized to the crop (official multi-view evaluation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    /// Which view, from 0.
    pub index: usize,
    /// How many there are.
    pub count: usize,
}

impl View {
    /// The centre.
    pub const SINGLE: Self = Self { index: 0, count: 1 };

    /// Row and column where this view of `[height, width]` pixels begins in a resized frame of `(height, width)`, of which no
    /// side is shorter. Several views are a whole number of pixels apart, so the last one may end a pixel early.
    pub fn corner(self, frame: (usize, usize), size: [usize; 2]) -> (usize, usize) {
        resize::corner(frame, size, self)
    }
}

impl Preprocessing {
    /// Prepares the frames of one clip, `height` by `width` pixels of interleaved RGB each: `f32 [3, T, H, W]`, row-major,
    /// of the record's [size](Preprocessing::size).
    ///
    /// # Errors
    /// [`PreprocessError::FrameCount`], [`PreprocessError::FrameSides`], [`PreprocessError::FrameSize`].
    pub fn prepare<F: AsRef<[u8]>>(
        &self,
        frames: &[F],
        height: usize,
        width: usize,
    ) -> Result<Vec<f32>, PreprocessError> {
        self.check(frames, height, width)?;
        let mut clip = vec![0.0; self.clip_len()];
        self.prepare_view(frames, height, width, View::SINGLE, &mut clip)?;
        Ok(clip)
    }

    /// As [`Preprocessing::prepare`], one of several views, into `out` of [`Preprocessing::clip_len`] values.
    ///
    /// # Errors
    /// Those of [`Preprocessing::prepare`]; [`PreprocessError::View`], [`PreprocessError::OutputSize`].
    pub fn prepare_view<F: AsRef<[u8]>>(
        &self,
        frames: &[F],
        height: usize,
        width: usize,
        view: View,
        out: &mut [f32],
    ) -> Result<(), PreprocessError> {
        self.check(frames, height, width)?;
        if view.index >= view.count {
            return Err(PreprocessError::View { index: view.index, count: view.count });
        }
        let (size, want) = (self.size(), self.clip_len());
        if want == 0 || out.len() != want {
            return Err(PreprocessError::OutputSize { got: out.len(), want });
        }
        let mut crop = ResizedCrop::new((height, width), size.map(|side| self.covered(side, view)), size, view);
        let affine = self.normalization.affine();
        let plane: usize = size.iter().product();
        let channel = frames.len() * plane;
        let (red, rest) = out.split_at_mut(channel);
        let (green, blue) = rest.split_at_mut(channel);
        let planes = red.chunks_exact_mut(plane).zip(green.chunks_exact_mut(plane)).zip(blue.chunks_exact_mut(plane));
        let mut grey = Vec::new();
        for (frame, ((red, green), blue)) in frames.iter().zip(planes) {
            let mut frame = frame.as_ref();
            if self.grayscale {
                grey.clear();
                grey.extend_from_slice(frame);
                to_luma(&mut grey);
                frame = &grey;
            }
            crop.frame(frame, affine, [red, green, blue]);
        }
        self.normalization.finish(out);
        Ok(())
    }

    /// A stored clip of bytes `[3, T, H, W]`, which is neither resized nor cropped: grey where the record says so, then
    /// normalised as the official pipeline does it, `(x - 255·mean) / (255·std)`. Its last bit may differ from that of
    /// [`Preprocessing::prepare`], which multiplies and adds.
    pub fn prepare_stored(&self, clip: &[u8]) -> Vec<f32> {
        if !self.grayscale {
            return self.normalization.of_planes(clip);
        }
        let (red, rest) = clip.split_at(clip.len() / 3);
        let (green, blue) = rest.split_at(rest.len() / 2);
        let luma: Vec<u8> = red.iter().zip(green).zip(blue).map(|((r, g), b)| luma([*r, *g, *b])).collect();
        self.normalization.of_planes(&luma.repeat(3))
    }

    fn check<F: AsRef<[u8]>>(&self, frames: &[F], height: usize, width: usize) -> Result<(), PreprocessError> {
        if frames.len() != self.num_frames || frames.is_empty() {
            return Err(PreprocessError::FrameCount { expected: self.num_frames, got: frames.len() });
        }
        let sides = 1..=LARGEST_SIDE;
        if !sides.contains(&height) || !sides.contains(&width) {
            return Err(PreprocessError::FrameSides { height, width });
        }
        let bytes = height * width * 3;
        match frames.iter().map(|frame| frame.as_ref().len()).find(|len| *len != bytes) {
            Some(got) => Err(PreprocessError::FrameSize { height, width, got }),
            None => Ok(()),
        }
    }

    /// What a resized frame has at least along a side of the crop.
    fn covered(&self, side: usize, view: View) -> usize {
        match (view.count, self.framing) {
            (1, Framing::Centre) => (side as f64 * 256.0 / 224.0) as usize,
            _ => side,
        }
    }
}

impl Normalization {
    /// Gain and bias of each channel, for pixels in 0..=255. Per-clip statistics are taken afterwards, of the pixels
    /// themselves: [`Normalization::finish`].
    pub fn affine(&self) -> [(f32, f32); 3] {
        match self.statistics() {
            Some((mean, std)) => [0, 1, 2].map(|c| (1.0 / (255.0 * std[c]), -mean[c] / std[c])),
            None => [(1.0, 0.0); 3],
        }
    }

    /// The part of the normalisation that needs the whole clip.
    pub fn finish(&self, clip: &mut [f32]) {
        if self.statistics().is_none() {
            standardise(clip);
        }
    }

    /// Bytes `[3, ...]` as `(x - 255·mean) / (255·std)` per channel, or standardised over all of them.
    pub fn of_planes(&self, bytes: &[u8]) -> Vec<f32> {
        let mut values: Vec<f32> = bytes.iter().map(|value| f32::from(*value)).collect();
        match self.statistics() {
            None => standardise(&mut values),
            Some((mean, std)) => {
                let plane = (values.len() / 3).max(1);
                for ((plane, mean), std) in values.chunks_exact_mut(plane).zip(mean).zip(std) {
                    let (shift, scale) = (255.0 * mean, 255.0 * std);
                    plane.iter_mut().for_each(|value| *value = (*value - shift) / scale);
                }
            }
        }
        values
    }
}

/// Appends `gain·x + bias` of bytes `[.., C, plane]`, with the gain and the bias of each of the C channels.
pub fn scale_bytes(bytes: &[u8], plane: usize, scaling: &[(f32, f32)], out: &mut Vec<f32>) {
    for (bytes, (gain, bias)) in bytes.chunks(plane.max(1)).zip(scaling.iter().cycle()) {
        out.extend(bytes.iter().map(|byte| f32::from(*byte) * gain + bias));
    }
}

/// Replaces each pixel's colours by their luma (BT.601 weights, in 1/256); `pixels` is interleaved RGB.
pub fn to_luma(pixels: &mut [u8]) {
    for pixel in pixels.as_chunks_mut::<3>().0 {
        *pixel = [luma(*pixel); 3];
    }
}

fn luma(rgb: [u8; 3]) -> u8 {
    let [red, green, blue] = rgb.map(u32::from);
    ((77 * red + 150 * green + 29 * blue + 128) >> 8) as u8
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
