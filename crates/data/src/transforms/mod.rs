//! From decoded frames to a training clip: crop, resize, flip, normalise, in one pass.
//!
//! Frames come as interleaved RGB bytes `[T][H * W * 3]` and leave as `f32 [3, T, H, W]`, row-major. [`TrainTransform`]
//! (official `app/vjepa/transforms.py`) takes one random crop for all frames, resizes the *float* pixels bilinearly with
//! half-pixel centres and no antialias (torch's `align_corners=False`), and flips the clip as a whole. Evaluation clips are
//! prepared by the runtime's [`vjepa_runtime::Preprocessing`].

mod crop;
mod resize;
mod train;
mod value;

pub use crop::{CropBox, CropDraws, RandomCrop};
pub use train::{TrainTransform, resize_crop};
pub use value::ClipValue;

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
    /// A frame does not hold three bytes per pixel.
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
    /// A crop is empty or reaches outside the frame, or there is neither one crop nor one per frame.
    #[error("the crop boxes do not fit the frames")]
    Boxes,
}

// Derived, they would ask for `B: Clone`, of which this only holds a borrow.
impl<B> Clone for Frames<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<B> Copy for Frames<'_, B> {}

/// Pictures of one size whose pixels are read a stretch of a row at a time, so that none has to lie in memory whole.
pub trait PixelReader {
    /// Number of pictures.
    fn count(&self) -> usize;

    /// Height and width in pixels.
    fn size(&self) -> (usize, usize);

    /// RGB of `out.len() / 3` pixels from column `left` on, in row `y` of picture `index`. All lie inside.
    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]);
}

impl<P: PixelReader> PixelReader for &P {
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

impl<B: AsRef<[u8]>> PixelReader for Frames<'_, B> {
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

/// Values in one channel of one frame, if `out` has the size of the clip.
fn check_output<V>(out: &[V], frames: usize, height: usize, width: usize) -> Result<usize, TransformError> {
    let plane = height.saturating_mul(width);
    let want = plane.saturating_mul(3).saturating_mul(frames);
    if want == 0 || out.len() != want {
        return Err(TransformError::OutputSize { got: out.len(), want });
    }
    Ok(plane)
}

/// `len` values from `start` on in each channel of a clip `[3, T, H, W]`.
fn channel_rows<V>(clip: &mut [V], start: usize, len: usize) -> [&mut [V]; 3] {
    let channel = clip.len() / 3;
    let (red, rest) = clip.split_at_mut(channel);
    let (green, blue) = rest.split_at_mut(channel);
    [red, green, blue].map(|values| &mut values[start..][..len])
}

#[cfg(test)]
mod tests;
