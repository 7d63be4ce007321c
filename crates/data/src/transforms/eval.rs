//! The views that an evaluation looks at.

use super::{Frames, Normalise, TransformError, channel_rows, check_output};
use vjepa_runtime::preprocess::{ByteTap, byte_taps};

/// Which part of a resized frame an evaluation looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Views {
    /// The centre of a frame whose short side is 256/224 of the result.
    Centre,
    /// The centre of a frame whose short side is that of the result: all of a square frame.
    Whole,
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
            Views::Centre | Views::Whole => 1,
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
            Views::Whole | Views::Spread(_) => self.size,
        };
        let (height, width) = short_side(frames.height, frames.width, short);
        let (top, left) = self.corner(height, width, view);
        let rows = byte_taps(frames.height, height, top, self.size);
        let columns = byte_taps(frames.width, width, left, self.size);
        let affine = self.normalise.affine();
        let (mut upper, mut lower) = (BlendedRow::default(), BlendedRow::default());
        for (t, frame) in frames.frames.iter().enumerate() {
            let frame = frame.as_ref();
            let source = |index: usize| &frame[index * frames.width * 3..][..frames.width * 3];
            (upper.index, lower.index) = (None, None);
            for (y, row) in rows.iter().enumerate() {
                // Going down, the lower row of one output row is often the upper one of the next.
                if upper.index != Some(row.first) {
                    std::mem::swap(&mut upper, &mut lower);
                }
                upper.blend(row.first, source(row.first), &columns);
                lower.blend(row.second, source(row.second), &columns);
                let lines = channel_rows(out, t * plane + y * self.size, self.size);
                for (c, line) in lines.into_iter().enumerate() {
                    for ((value, above), below) in line.iter_mut().zip(&upper.values[c]).zip(&lower.values[c]) {
                        *value = row.down(*above, *below) as f32 * affine[c].0 + affine[c].1;
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
            Views::Centre | Views::Whole => {
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

/// A source row with its columns blended.
#[derive(Default)]
struct BlendedRow {
    /// Which row it is.
    index: Option<usize>,
    /// Each column of the red, green and blue plane, in 1/2048.
    values: [Vec<i32>; 3],
}

impl BlendedRow {
    /// Makes it row `index`, of these bytes, if it is another one.
    fn blend(&mut self, index: usize, source: &[u8], columns: &[ByteTap]) {
        if self.index == Some(index) {
            return;
        }
        self.index = Some(index);
        for (c, values) in self.values.iter_mut().enumerate() {
            values.clear();
            values.extend(columns.iter().map(|tap| tap.across(source[tap.first * 3 + c], source[tap.second * 3 + c])));
        }
    }
}

/// Size of a frame resized to a short side of `short`; the long side is truncated.
fn short_side(height: usize, width: usize, short: usize) -> (usize, usize) {
    if width < height { (short * height / width, short) } else { (short, short * width / height) }
}
