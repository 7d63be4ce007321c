//! From decoded frames to the model's input: crop, resize, flip, normalise, in one pass.
//!
//! Frames come as interleaved RGB bytes `[T][H * W * 3]` and leave as `f32 [3, T, H, W]`, row-major.
//!
//! - [`TrainTransform`] (official `app/vjepa/transforms.py`): one random crop for all frames, bilinear resize of the
//!   *float* pixels with half-pixel centres and no antialias (torch's `align_corners=False`), flip of the whole clip.
//! - [`EvalTransform`] (official `evals/video_classification_frozen/utils.py`): resize of the *byte* pixels in OpenCV's
//!   fixed-point arithmetic, then the centre or several views along the long side.

mod crop;
mod eval;
mod resize;
mod train;

pub use crop::{CropBox, RandomCrop};
pub use eval::{EvalTransform, Views};
pub use train::{TrainTransform, resize_crop};
pub use vjepa_runtime::preprocess::standardise;

/// Decoded frames of a clip, all of one size.
#[derive(Debug)]
pub struct Frames<'a, B> {
    frames: &'a [B],
    height: usize,
    width: usize,
}

/// Why a clip cannot be transformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransformError {
    /// There are no frames or no pixels.
    #[error(
        "a clip needs at least one frame of at least one pixel, but this one has {frames} frames of {width}x{height}"
    )]
    Empty {
        /// Number of frames.
        frames: usize,
        /// Height in pixels.
        height: usize,
        /// Width in pixels.
        width: usize,
    },
    /// A frame does not hold three bytes for each of its pixels.
    #[error("frame {index} has {got} bytes; {want} are needed for its size in RGB")]
    FrameSize {
        /// Index of the frame.
        index: usize,
        /// Bytes it has.
        got: usize,
        /// Bytes it needs.
        want: usize,
    },
    /// The output does not have the size of the transformed clip.
    #[error("the output holds {got} values; the clip needs {want}")]
    OutputSize {
        /// Values it holds.
        got: usize,
        /// Values needed.
        want: usize,
    },
    /// A crop reaches outside the frame or is empty, or their number fits neither the clip nor all frames alike.
    #[error("the crop boxes do not fit the frames")]
    Boxes,
    /// There is no such view.
    #[error("view {view} was asked for of {views}")]
    View {
        /// The view asked for, from 0.
        view: usize,
        /// Number of views.
        views: usize,
    },
}

// By hand, for the derives would ask the same of `B`, of which this only holds a borrow.
impl<B> Clone for Frames<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Frames<'_, B> {}

/// Pictures of one size whose pixels are read a stretch of a row at a time, so that none has to lie in memory whole.
pub trait Pixels {
    /// Number of pictures.
    fn count(&self) -> usize;

    /// Height and width in pixels.
    fn size(&self) -> (usize, usize);

    /// RGB of `out.len() / 3` pixels from column `left` on, in row `y` of picture `index`. All lie inside.
    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]);
}

impl<P: Pixels> Pixels for &P {
    fn count(&self) -> usize {
        (**self).count()
    }

    fn size(&self) -> (usize, usize) {
        (**self).size()
    }

    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]) {
        (**self).read(index, y, left, out);
    }
}

impl<B: AsRef<[u8]>> Pixels for Frames<'_, B> {
    fn count(&self) -> usize {
        self.frames.len()
    }

    fn size(&self) -> (usize, usize) {
        (self.height, self.width)
    }

    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]) {
        let start = (y * self.width + left) * 3;
        let pixels = self.frames.get(index).and_then(|frame| frame.as_ref().get(start..start + out.len()));
        if let Some(pixels) = pixels {
            out.copy_from_slice(pixels);
        }
    }
}

impl<'a, B: AsRef<[u8]>> Frames<'a, B> {
    /// Frames of `height` by `width` pixels.
    ///
    /// # Errors
    /// [`TransformError::Empty`], [`TransformError::FrameSize`].
    pub fn new(frames: &'a [B], height: usize, width: usize) -> Result<Self, TransformError> {
        let count = frames.len();
        let bytes = height.checked_mul(width).and_then(|n| n.checked_mul(3));
        let (Some(want @ 1..), 1..) = (bytes, count) else {
            return Err(TransformError::Empty { frames: count, height, width });
        };
        for (index, frame) in frames.iter().enumerate() {
            let got = frame.as_ref().len();
            if got != want {
                return Err(TransformError::FrameSize { index, got, want });
            }
        }
        Ok(Self { frames, height, width })
    }

    /// The whole frame.
    pub fn whole(&self) -> CropBox {
        CropBox { top: 0, left: 0, height: self.height, width: self.width }
    }
}

/// How pixel values are centred and scaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Normalise {
    /// `(x / 255 - mean) / std`, by channel.
    Channels {
        /// Mean of each channel, of pixels in [0, 1].
        mean: [f32; 3],
        /// Deviation of each channel.
        std: [f32; 3],
    },
    /// Each clip to mean 0 and deviation 1 over all its values; a clip of one colour becomes 0.
    PerClip,
}

impl Normalise {
    /// The ImageNet statistics of the official recipes.
    pub const IMAGENET: Self = Self::Channels { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

    /// Statistics of the channels, or the clip's own.
    pub fn from_statistics(statistics: Option<([f32; 3], [f32; 3])>) -> Self {
        match statistics {
            Some((mean, std)) => Self::Channels { mean, std },
            None => Self::PerClip,
        }
    }

    /// Gain and bias of each channel for pixels in 0..=255.
    fn affine(&self) -> [(f32, f32); 3] {
        match self {
            Self::Channels { mean, std } => [0, 1, 2].map(|c| (1.0 / (255.0 * std[c]), -mean[c] / std[c])),
            Self::PerClip => [(1.0, 0.0); 3],
        }
    }

    /// What needs the whole clip.
    fn finish(&self, values: &mut [f32]) {
        if *self == Self::PerClip {
            standardise(values);
        }
    }
}

/// Values in one channel of one frame, if `out` has the size of the clip.
fn check_output(out: &[f32], frames: usize, height: usize, width: usize) -> Result<usize, TransformError> {
    let plane = height.saturating_mul(width);
    let want = plane.saturating_mul(3).saturating_mul(frames);
    if want == 0 || out.len() != want {
        return Err(TransformError::OutputSize { got: out.len(), want });
    }
    Ok(plane)
}

/// `len` values from `start` on in each channel of a clip `[3, T, H, W]`.
fn channel_rows(clip: &mut [f32], start: usize, len: usize) -> [&mut [f32]; 3] {
    let channel = clip.len() / 3;
    let (red, rest) = clip.split_at_mut(channel);
    let (green, blue) = rest.split_at_mut(channel);
    [red, green, blue].map(|values| &mut values[start..][..len])
}

#[cfg(test)]
mod tests;
