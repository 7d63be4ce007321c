//! A picture in memory: rectangles, images, text; written as PNG.

use std::io::Write;
use std::path::Path;

use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::prelude::BitMapBackend;
use plotters::style::{RGBColor, TextStyle};
use vjepa_runtime::write_atomically;

use super::{ViewError, font};

/// A picture, or a part of it, as plotters draws on it.
pub(super) type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// Red, green and blue.
pub type Rgb = [u8; 3];

/// Colours of all our pictures.
pub mod ink {
    use super::Rgb;
    /// Background.
    pub const PAPER: Rgb = [255, 255, 255];
    /// Titles.
    pub const DARK: Rgb = [33, 37, 46];
    /// Labels.
    pub const MUTED: Rgb = [107, 114, 128];
    /// Grid lines.
    pub const FAINT: Rgb = [229, 231, 235];
    /// First series, context.
    pub const BLUE: Rgb = [37, 99, 235];
    /// Second series, targets.
    pub const ORANGE: Rgb = [234, 88, 12];
    /// Third series.
    pub const GREEN: Rgb = [5, 150, 105];
    /// Fourth series.
    pub const PURPLE: Rgb = [147, 51, 234];
    /// Fifth series.
    pub const RED: Rgb = [220, 38, 38];
    /// Sixth series.
    pub const TEAL: Rgb = [8, 145, 178];
    /// Seventh series.
    pub const BROWN: Rgb = [146, 94, 40];
    /// Eighth series.
    pub const PINK: Rgb = [219, 39, 119];
    /// Hidden tokens.
    pub const NIGHT: Rgb = [30, 34, 42];
}

/// An RGB picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Canvas {
    width: usize,
    height: usize,
    pixels: Vec<u8>,
}

/// The largest side of a picture.
const LARGEST: usize = 1 << 14;

impl Canvas {
    /// An empty sheet.
    pub fn new(width: usize, height: usize) -> Self {
        let (width, height) = (width.clamp(1, LARGEST), height.clamp(1, LARGEST));
        Self { width, height, pixels: [ink::PAPER; 1].concat().repeat(width * height) }
    }

    /// Width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// A pixel; the paper's colour outside.
    pub fn get(&self, x: usize, y: usize) -> Rgb {
        let inside = x < self.width && y < self.height;
        let at = (y * self.width + x) * 3;
        match self.pixels.get(at..at + 3) {
            Some(&[r, g, b]) if inside => [r, g, b],
            _ => ink::PAPER,
        }
    }

    /// Lays `colour` over a pixel, 0 for not at all to 1 for fully; nothing outside.
    pub fn blend(&mut self, x: usize, y: usize, colour: Rgb, share: f32) {
        if x >= self.width || y >= self.height {
            return;
        }
        let at = (y * self.width + x) * 3;
        let share = share.clamp(0.0, 1.0);
        for (value, own) in self.pixels[at..at + 3].iter_mut().zip(colour) {
            *value = (f32::from(*value) * (1.0 - share) + f32::from(own) * share).round() as u8;
        }
    }

    /// Lays a rectangle over the picture.
    pub fn tint(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Rgb, share: f32) {
        for row in y..(y + height).min(self.height) {
            for column in x..(x + width).min(self.width) {
                self.blend(column, row, colour, share);
            }
        }
    }

    /// Fills a rectangle.
    pub fn fill(&mut self, x: usize, y: usize, width: usize, height: usize, colour: Rgb) {
        self.tint(x, y, width, height, colour, 1.0);
    }

    /// The border of a rectangle, inside it.
    pub fn frame(&mut self, x: usize, y: usize, width: usize, height: usize, thick: usize, colour: Rgb) {
        let (thick_x, thick_y) = (thick.min(width), thick.min(height));
        self.fill(x, y, width, thick_y, colour);
        self.fill(x, y + height - thick_y, width, thick_y, colour);
        self.fill(x, y, thick_x, height, colour);
        self.fill(x + width - thick_x, y, thick_x, height, colour);
    }

    /// Diagonal stripes over a rectangle, `step` pixels apart; they run on from one rectangle into the next.
    #[allow(clippy::too_many_arguments)]
    pub fn hatch(&mut self, x: usize, y: usize, width: usize, height: usize, step: usize, colour: Rgb, share: f32) {
        for row in y..(y + height).min(self.height) {
            for column in x..(x + width).min(self.width) {
                if (row + column) % step.max(2) < step.max(2) / 4 + 1 {
                    self.blend(column, row, colour, share);
                }
            }
        }
    }

    /// A picture of `image_width` RGB pixels a row, each enlarged to `scale` by `scale`.
    pub fn image(&mut self, x: usize, y: usize, rgb: &[u8], image_width: usize, scale: usize) {
        for (row, line) in rgb.chunks_exact((image_width * 3).max(3)).enumerate() {
            for (column, pixel) in line.chunks_exact(3).enumerate() {
                if let &[r, g, b] = pixel {
                    self.fill(x + column * scale, y + row * scale, scale, scale, [r, g, b]);
                }
            }
        }
    }

    /// Text with the upper left corner of its capitals at (x, y), in a font of `size` pixels: capitals are five eighths of
    /// that high.
    pub fn text(&mut self, x: usize, y: usize, text: &str, size: usize, colour: Rgb) {
        let [r, g, b] = colour;
        let colour = RGBColor(r, g, b);
        let style = TextStyle::from(font::font(size as f64)).color(&colour);
        // plotters puts the base line half the font's size below the place it is given.
        let above = size / 8;
        let at = (x as i32, (y + above) as i32);
        self.draw(|area| area.draw_text(text, &style, at));
    }

    /// Width of a text in pixels.
    pub fn text_width(text: &str, size: usize) -> usize {
        font::width(text, size as f64)
    }

    /// Draws on the picture with plotters.
    pub(super) fn draw<E: std::fmt::Debug>(&mut self, draw: impl FnOnce(&Area<'_>) -> Result<(), E>) {
        let size = (self.width as u32, self.height as u32);
        let area = BitMapBackend::with_buffer(&mut self.pixels, size).into_drawing_area();
        // The picture is in memory and the font embedded: there is no file or system that could fail.
        draw(&area).expect("drawing into memory succeeds");
    }

    /// The picture as a PNG.
    ///
    /// # Errors
    /// [`ViewError`] where the encoder fails, named after `path`.
    pub fn png(&self, path: &Path) -> Result<Vec<u8>, ViewError> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, self.width as u32, self.height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let write = |encoder: png::Encoder<'_, &mut Vec<u8>>| {
            let mut writer = encoder.write_header()?;
            writer.write_image_data(&self.pixels)?;
            writer.finish()
        };
        write(encoder).map_err(|error| ViewError { path: path.to_owned(), reason: error.to_string() })?;
        Ok(bytes)
    }

    /// Writes the picture as a PNG, whole or not at all.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn save(&self, path: &Path) -> Result<(), ViewError> {
        Self::save_bytes(path, &self.png(path)?)
    }

    /// Writes what [`Canvas::png`] gave, whole or not at all.
    ///
    /// # Errors
    /// [`ViewError`].
    pub fn save_bytes(path: &Path, bytes: &[u8]) -> Result<(), ViewError> {
        write_atomically(path, |out| out.write_all(bytes))
            .map_err(|error| ViewError { path: path.to_owned(), reason: format!("cannot be written: {error}") })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_decodes_to_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep").join("picture.png");
        let mut canvas = Canvas::new(40, 20);
        canvas.fill(2, 3, 5, 5, ink::BLUE);
        canvas.text(10, 5, "ok", 12, ink::DARK);
        canvas.image(30, 10, &[1, 2, 3, 4, 5, 6], 2, 2);
        canvas.frame(38, 18, 9, 9, 1, ink::DARK);
        canvas.save(&path).unwrap();
        let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
        let mut reader = png::Decoder::new(file).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height), (40, 20));
        assert_eq!(bytes, canvas.pixels);
        assert_eq!(canvas.get(2, 7), ink::BLUE);
        assert_eq!(canvas.get(32, 10), [4, 5, 6]);
        assert_eq!(canvas.get(99, 0), ink::PAPER);
    }

    #[test]
    fn text_stands_where_it_is_put() {
        let mut canvas = Canvas::new(100, 60);
        canvas.text(10, 20, "HE", 32, ink::DARK);
        let dark = |x: usize, y: usize| canvas.get(x, y)[0] < 128;
        let inked: Vec<(usize, usize)> =
            (0..60).flat_map(|y| (0..100).map(move |x| (x, y))).filter(|(x, y)| dark(*x, *y)).collect();
        let (top, bottom) = (inked.first().unwrap().1, inked.last().unwrap().1);
        assert!(top.abs_diff(20) <= 1 && bottom.abs_diff(40) <= 1, "{top} {bottom}");
        let (left, right) = (inked.iter().map(|p| p.0).min().unwrap(), inked.iter().map(|p| p.0).max().unwrap());
        assert!(left >= 10 && right <= 10 + Canvas::text_width("HE", 32), "{left} {right}");
        // Text that does not fit is cut off.
        canvas.text(90, 55, "outside", 32, ink::DARK);
    }
}
