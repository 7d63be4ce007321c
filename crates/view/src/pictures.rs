//! The pictures a person wants to see: masks over a clip, features as colours, where a probe looks, nearest neighbours,
//! training curves.

mod ablation;
mod attention;
mod confusion;
mod features;
mod masks;
mod neighbours;
mod training;

pub use ablation::{Bar, ablation};
pub use attention::attention;
pub use confusion::confusion;
pub use features::{ShownFeatures, animated_features, features};
pub use masks::{ShownMask, masks};
pub use neighbours::{Neighbour, neighbours};
pub use training::training;

use plotters::style::colors::colormaps::ViridisRGB;

use super::canvas::{Canvas, Rgb, ink};
use super::chart::TITLE;
use vjepa_recipe::config::Normalization;

/// Dark blue for 0, green, yellow for 1.
fn heat(share: f32) -> Rgb {
    let colour = ViridisRGB::get_color(share.clamp(0.0, 1.0));
    [colour.0, colour.1, colour.2]
}

/// A clip as it was fed to an encoder, to be shown again.
#[derive(Clone, Copy, Debug)]
pub struct ShownClip<'a> {
    /// `[C, T, H, W]`, normalised.
    pub values: &'a [f32],
    /// Its shape; the first is 3.
    pub shape: [usize; 4],
    /// How it was normalised.
    pub normalization: Normalization,
}

/// RGB bytes of one frame.
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    width: usize,
    rgb: Vec<u8>,
}

impl ShownClip<'_> {
    /// One frame with its normalisation undone; what was standardised is shown at a fixed contrast around grey.
    fn frame(&self, t: usize) -> Picture {
        let [_, frames, height, width] = self.shape;
        let plane = height * width;
        let (mean, std) = self.normalization.statistics().unwrap_or(([0.5; 3], [0.22; 3]));
        let value = |c: usize, pixel: usize| {
            let x = self.values.get((c * frames + t) * plane + pixel).copied().unwrap_or(0.0);
            ((x * std[c] + mean[c]) * 255.0).round().clamp(0.0, 255.0) as u8
        };
        let rgb = (0..plane).flat_map(|pixel| [0, 1, 2].map(|c| value(c, pixel))).collect();
        Picture { width, rgb }
    }

    /// The frame in the middle of each of `count` equal parts of the clip.
    fn spread(&self, count: usize) -> Vec<Picture> {
        let frames = self.shape[1];
        (0..count.min(frames)).map(|i| self.frame((2 * i + 1) * frames / (2 * count.min(frames)))).collect()
    }
}

impl Picture {
    /// Every block of `by` by `by` pixels becomes its mean.
    fn shrunk(&self, by: usize) -> Self {
        let (by, height) = (by.max(1), self.rgb.len() / (self.width * 3).max(1));
        let (width, rows) = (self.width / by, height / by);
        let mean = |x: usize, y: usize, c: usize| {
            let block = (0..by * by).map(|i| ((y * by + i / by) * self.width + x * by + i % by) * 3 + c);
            let sum: usize = block.map(|at| self.rgb.get(at).copied().map_or(0, usize::from)).sum();
            (sum / (by * by)) as u8
        };
        let cells = (0..rows).flat_map(|y| (0..width).map(move |x| (x, y)));
        Self { width, rgb: cells.flat_map(|(x, y)| [0, 1, 2].map(|c| mean(x, y, c))).collect() }
    }

    /// Shrunk or to be enlarged by a whole factor, to a side of about `side` pixels.
    fn fitted(&self, side: usize) -> (Self, usize) {
        match side / self.width.max(1) {
            0 => (self.shrunk(self.width.div_ceil(side.max(1))), 1),
            scale => (self.clone(), scale),
        }
    }
}

/// Pixels of a frame in the pictures of masks and features, about.
const FRAME: usize = 152;
/// Space between frames.
const GAP: usize = 8;
/// Space for the names of rows.
const NAMES: usize = 216;
/// Space around everything, and above the first row.
const EDGE: usize = 24;
const HEAD: usize = 64;
/// Font sizes of the names of rows and columns, and of captions.
const LABEL: usize = 19;
const CAPTION: usize = 14;

/// A sheet of rows of frames.
struct Sheet {
    canvas: Canvas,
    frame: (usize, usize),
}

impl Sheet {
    fn new(title: &str, rows: usize, columns: usize, frame: (usize, usize)) -> Self {
        let width = EDGE * 2 + NAMES + columns * (frame.0 + GAP);
        let width = width.max(EDGE * 2 + Canvas::text_width(title, TITLE));
        let mut canvas = Canvas::new(width, HEAD + rows * (frame.1 + GAP) + EDGE);
        canvas.text(EDGE, 24, title, TITLE, ink::DARK);
        Self { canvas, frame }
    }

    fn at(&self, row: usize, column: usize) -> (usize, usize) {
        (EDGE + NAMES + column * (self.frame.0 + GAP), HEAD + row * (self.frame.1 + GAP))
    }

    /// Names a row: one line in colour, the others muted.
    fn name(&mut self, row: usize, name: &str, notes: &[&str], colour: Rgb) {
        let y = self.at(row, 0).1 + self.frame.1 / 2;
        let top = y.saturating_sub(12 * (1 + notes.len()));
        self.canvas.text(EDGE, top, name, LABEL, colour);
        for (line, note) in notes.iter().enumerate() {
            self.canvas.text(EDGE, top + 24 * (line + 1), note, LABEL, ink::MUTED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clip of stripes that drift: `[3, 8, 48, 48]`, standardised.
    pub(super) fn texture(number: u32) -> Vec<f32> {
        let at = |index: usize| {
            let (c, t, y, x) = (index / 18432, index / 2304 % 8, index / 48 % 48, index % 48);
            let phase = (x + t * (1 + number as usize)) as f32 * 0.4 + y as f32 * 0.2 * number as f32 + c as f32;
            1.4 * phase.sin()
        };
        (0..3 * 8 * 48 * 48).map(at).collect()
    }

    pub(super) fn shown(values: &[f32]) -> ShownClip<'_> {
        ShownClip { values, shape: [3, 8, 48, 48], normalization: Normalization::PerClip }
    }

    #[test]
    fn normalisation_is_undone() {
        let clip = ShownClip { values: &[0.0; 12], shape: [3, 1, 2, 2], normalization: Normalization::Imagenet };
        assert_eq!(clip.frame(0).rgb[..3], [124, 116, 104]);
        assert_eq!(clip.frame(7).rgb.len(), 12);
    }

    #[test]
    fn pictures_shrink_to_means() {
        let picture = Picture { width: 4, rgb: (0..48).collect() };
        let (small, scale) = picture.fitted(2);
        assert_eq!((small.width, scale, small.rgb.len()), (2, 1, 12));
        assert_eq!(small.rgb[0], (3 + 12 + 15) / 4);
        assert_eq!(picture.fitted(12).1, 3);
    }
}
