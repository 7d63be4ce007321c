//! A picture in memory: rectangles, images, smooth lines, small text; written as PNG.

use std::path::Path;

use super::{ViewError, font};
use std::io::Write;

use vjepa_runtime::write_atomically;

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
    /// What is hidden.
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

    /// A smooth line between two points, `width` pixels wide.
    pub fn line(&mut self, from: (f32, f32), to: (f32, f32), width: f32, colour: Rgb) {
        let half = width / 2.0;
        let low = |a: f32, b: f32| (a.min(b) - half - 1.0).max(0.0) as usize;
        let high = |a: f32, b: f32, most: usize| ((a.max(b) + half + 2.0).max(0.0) as usize).min(most);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let square = dx * dx + dy * dy;
        for y in low(from.1, to.1)..high(from.1, to.1, self.height) {
            for x in low(from.0, to.0)..high(from.0, to.0, self.width) {
                let (px, py) = (x as f32 + 0.5 - from.0, y as f32 + 0.5 - from.1);
                let along = if square > 0.0 { ((px * dx + py * dy) / square).clamp(0.0, 1.0) } else { 0.0 };
                let distance = ((px - along * dx).powi(2) + (py - along * dy).powi(2)).sqrt();
                let cover = half + 0.5 - distance;
                if cover > 0.0 {
                    self.blend(x, y, colour, cover);
                }
            }
        }
    }

    /// Text with its upper left corner at (x, y), in letters of `scale` times 5 by 7 pixels.
    pub fn text(&mut self, x: usize, y: usize, text: &str, scale: usize, colour: Rgb) {
        for (place, letter) in text.chars().enumerate() {
            for (column, bits) in font::glyph(letter).into_iter().enumerate() {
                for row in (0..8).filter(|row| bits >> row & 1 == 1) {
                    let at = x + (place * font::ADVANCE + column) * scale;
                    self.fill(at, y + row * scale, scale, scale, colour);
                }
            }
        }
    }

    /// Width of a text in pixels.
    pub fn text_width(text: &str, scale: usize) -> usize {
        (text.chars().count() * font::ADVANCE * scale).saturating_sub(scale)
    }

    /// The picture as a PNG.
    ///
    /// # Errors
    /// [`ViewError`] where the encoder fails, named after `path`.
    fn png(&self, path: &Path) -> Result<Vec<u8>, ViewError> {
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
        let bytes = self.png(path)?;
        write_atomically(path, |out| out.write_all(&bytes))
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
        canvas.text(10, 5, "ok", 1, ink::DARK);
        canvas.line((0.0, 0.0), (39.0, 19.0), 1.5, ink::ORANGE);
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
    fn text_has_a_width_and_ink() {
        assert_eq!(Canvas::text_width("ab", 2), 22);
        let mut canvas = Canvas::new(8, 8);
        canvas.text(0, 0, "l", 1, ink::DARK);
        assert!((0..8).any(|y| (0..8).any(|x| canvas.get(x, y) == ink::DARK)));
    }
}
