//! Clips and boxes of frozen detection on AVA: which frames surround a key frame, and where boxes are after resizing, cropping
//! and flipping (facebookresearch/SlowFast `ava_dataset.py`, `cv2_transform.py`).
//!
//! Annotated videos begin at second 900 of the film and have 30 frames a second. Boxes are x1, y1, x2, y2: shares of the frame in
//! files, pixels here.

mod clip;

pub use clip::{KeyFrameClip, KeyFrameClips, Placed};

use crate::sampling::SamplingError;
use crate::transforms::CropBox;

/// Frames a second that AVA's videos are converted to.
pub const FRAME_RATE: usize = 30;
/// The second of the film that a video begins with.
pub const FIRST_SECOND: u32 = 900;
/// Short sides of a training frame, over the side of the crop: 256 to 320 pixels for one of 224.
pub const TRAIN_SIDES: [f64; 2] = [256.0 / 224.0, 320.0 / 224.0];
/// Short side of a test frame in pixels.
pub const TEST_SIDE: usize = 256;

/// Frame indices of the clip around the key frame of `second`: `frames` of them, `step` apart, clamped to a video of `total`
/// frames. The key frame is the one at `frames / 2`.
///
/// # Errors
/// [`SamplingError`]: no frames, a setting of zero, a second before the video.
pub fn key_frame_clip(second: u32, frames: usize, step: usize, total: usize) -> Result<Vec<usize>, SamplingError> {
    for (key, value) in [("frames_per_clip", frames), ("sampling_rate", step)] {
        if value == 0 {
            return Err(SamplingError::Zero(key));
        }
    }
    let last = total.checked_sub(1).ok_or(SamplingError::Empty)?;
    let (centre, before) = (key_frame(second)?, frames.saturating_mul(step) / 2);
    let index = |frame: usize| centre.saturating_add(frame.saturating_mul(step)).saturating_sub(before);
    Ok((0..frames).map(|frame| index(frame).min(last)).collect())
}

/// The frame of `second`, which the video may not have.
///
/// # Errors
/// [`SamplingError::Before`].
fn key_frame(second: u32) -> Result<usize, SamplingError> {
    let since = second.checked_sub(FIRST_SECOND).ok_or(SamplingError::Before { second, first: FIRST_SECOND })?;
    Ok(since as usize * FRAME_RATE)
}

/// Height and width of a frame whose short side becomes `short`: the long one is rounded down.
pub fn resized((height, width): (usize, usize), short: usize) -> (usize, usize) {
    let long = |long: usize, side: usize| (long as f64 / side.max(1) as f64 * short as f64) as usize;
    match (height, width) {
        (h, w) if h.min(w) == short => (h, w),
        (h, w) if w < h => (long(h, w), short),
        (h, w) => (short, long(w, h)),
    }
}

/// Boxes as shares of a frame of `(height, width)`, in pixels and clipped to it.
pub fn to_pixels([x1, y1, x2, y2]: [f64; 4], frame: (usize, usize)) -> [f64; 4] {
    let (height, width) = (frame.0 as f64, frame.1 as f64);
    clipped([x1 * width, y1 * height, x2 * width, y2 * height], frame)
}

/// A box in the frame after [`resized`]: all four coordinates grow as the long side does, whose rounding the short one does not
/// share; clipped.
pub fn resized_box(corners: [f64; 4], frame: (usize, usize), short: usize) -> [f64; 4] {
    let new = resized(frame, short);
    let factor = if frame.1 < frame.0 { new.0 as f64 / frame.0 as f64 } else { new.1 as f64 / frame.1 as f64 };
    clipped(corners.map(|x| x * factor), new)
}

/// A box in a crop of the frame, clipped to it.
pub fn cropped_box([x1, y1, x2, y2]: [f64; 4], crop: CropBox) -> [f64; 4] {
    let (top, left) = (crop.top as f64, crop.left as f64);
    clipped([x1 - left, y1 - top, x2 - left, y2 - top], (crop.height, crop.width))
}

/// A box in the mirrored frame.
pub fn flipped_box([x1, y1, x2, y2]: [f64; 4], width: usize) -> [f64; 4] {
    let mirrored = |x: f64| width as f64 - x - 1.0;
    [mirrored(x2), y1, mirrored(x1), y2]
}

/// Coordinates clipped to the first and last pixel of a frame of `(height, width)`.
fn clipped([x1, y1, x2, y2]: [f64; 4], (height, width): (usize, usize)) -> [f64; 4] {
    let within = |x: f64, len: usize| x.min(len as f64 - 1.0).max(0.0);
    [within(x1, width), within(y1, height), within(x2, width), within(y2, height)]
}

#[cfg(test)]
mod tests;
