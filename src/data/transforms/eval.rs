//! The views that an evaluation looks at.

use super::resize::byte_taps;
use super::{Frames, Normalise, TransformError, check_output};

/// Which part of a resized frame an evaluation looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// The centre of a frame whose short side is 256/224 of the result.
    Centre,
    /// This many crops along the long side of a frame whose short side is that of the result; one is its beginning.
    Spread(usize),
}

/// The transform of evaluation clips.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalTransform {
    /// Side of the square result.
    pub size: usize,
    /// The views.
    pub views: Views,
    /// Centring and scaling.
    pub normalise: Normalise,
}

impl EvalTransform {
    /// Number of views.
    pub fn view_count(&self) -> usize {
        match self.views {
            Views::Centre => 1,
            Views::Spread(views) => views,
        }
    }

    /// Writes view `view` of the clip, `[3, T, size, size]`.
    ///
    /// # Errors
    /// [`TransformError::View`], [`TransformError::OutputSize`].
    pub fn apply<B: AsRef<[u8]>>(
        &self,
        frames: Frames<'_, B>,
        view: usize,
        out: &mut [f32],
    ) -> Result<(), TransformError> {
        let views = self.view_count();
        if view >= views {
            return Err(TransformError::View { view, views });
        }
        let count = frames.frames.len();
        let plane = check_output(out, count, self.size, self.size)?;
        let short = match self.views {
            Views::Centre => (self.size as f64 * 256.0 / 224.0) as usize,
            Views::Spread(_) => self.size,
        };
        let (height, width) = short_side(frames.height, frames.width, short);
        let (top, left) = self.corner(height, width, view);
        let rows = byte_taps(frames.height, height, top, self.size);
        let columns = byte_taps(frames.width, width, left, self.size);
        let affine = self.normalise.affine();
        for (t, frame) in frames.frames.iter().enumerate() {
            for (y, row) in rows.iter().enumerate() {
                let line = |index: usize| &frame.as_ref()[index * frames.width * 3..][..frames.width * 3];
                let (upper, lower) = (line(row.first), line(row.second));
                for (c, (offset, scale)) in affine.iter().enumerate() {
                    let line = &mut out[(c * count + t) * plane + y * self.size..][..self.size];
                    for (value, column) in line.iter_mut().zip(&columns) {
                        let blend =
                            |pixels: &[u8]| column.across(pixels[column.first * 3 + c], pixels[column.second * 3 + c]);
                        *value = (f32::from(row.down(blend(upper), blend(lower))) - offset) / scale;
                    }
                }
            }
        }
        self.normalise.finish(out);
        Ok(())
    }

    /// Top-left corner of a view in a resized frame, of which no side is shorter than the view's.
    fn corner(&self, height: usize, width: usize, view: usize) -> (usize, usize) {
        match self.views {
            Views::Centre => {
                // Python rounds a half to the even neighbour.
                let middle = |side: usize| ((side - self.size) as f64 / 2.0).round_ties_even() as usize;
                (middle(height), middle(width))
            }
            Views::Spread(views) => {
                let start = (height.max(width) - self.size) / views.saturating_sub(1).max(1) * view;
                if height > width { (start, 0) } else { (0, start) }
            }
        }
    }
}

/// Size of a frame resized to a short side of `short`; the long side is truncated.
fn short_side(height: usize, width: usize, short: usize) -> (usize, usize) {
    if width < height { (short * height / width, short) } else { (short, short * width / height) }
}
