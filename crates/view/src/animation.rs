//! Pictures that move, and how they are written as GIF.

use std::path::Path;
use std::time::Duration;

use super::{Canvas, ViewError};

/// How thoroughly the 256 colours of a picture are looked for, from 1 (slow) to 30.
const SPEED: i32 = 10;

/// Pictures of one size, one after another, endlessly.
#[derive(Clone, Debug, PartialEq)]
pub struct Animation {
    /// The pictures; those of another size than the first are cut off or filled with the paper's colour.
    pub pictures: Vec<Canvas>,
    /// Time that each is shown, in hundredths of a second in the file.
    pub each: Duration,
}

impl Animation {
    /// Width and height in pixels; none without a picture.
    pub fn size(&self) -> Option<(usize, usize)> {
        self.pictures.first().map(|first| (first.width(), first.height()))
    }

    /// Red, green and blue of every pixel of each picture, all of the first's size.
    pub fn rgb(&self) -> impl Iterator<Item = Vec<u8>> {
        let (width, height) = self.size().unwrap_or_default();
        let places = move || (0..height).flat_map(move |y| (0..width).map(move |x| (x, y)));
        self.pictures.iter().map(move |picture| places().flat_map(|(x, y)| picture.get(x, y)).collect())
    }

    /// The bytes of the file, named `path` in errors.
    ///
    /// # Errors
    /// [`ViewError`] without a picture, or for one of more than 65,535 pixels a side.
    pub fn gif(&self, path: &Path) -> Result<Vec<u8>, ViewError> {
        let failed = |reason: String| ViewError { path: path.to_owned(), reason };
        let (width, height) = self.size().ok_or_else(|| failed("there is no picture to animate".to_owned()))?;
        let side = |pixels: usize| u16::try_from(pixels).map_err(|_| failed(format!("{pixels} pixels are too many")));
        let (width, height) = (side(width)?, side(height)?);
        let mut bytes = Vec::new();
        let written = (|| {
            let mut encoder = gif::Encoder::new(&mut bytes, width, height, &[])?;
            encoder.set_repeat(gif::Repeat::Infinite)?;
            for rgb in self.rgb() {
                let mut frame = gif::Frame::from_rgb_speed(width, height, &rgb, SPEED);
                frame.delay = u16::try_from(self.each.as_millis() / 10).unwrap_or(u16::MAX);
                encoder.write_frame(&frame)?;
            }
            Ok::<(), gif::EncodingError>(())
        })();
        written.map_err(|error| failed(error.to_string()))?;
        Ok(bytes)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// As [`Animation::gif`], or where the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ViewError> {
        Canvas::save_bytes(path, &self.gif(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::ink;

    #[test]
    fn what_is_saved_decodes_to_what_was_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.gif");
        let mut pictures = vec![Canvas::new(20, 10), Canvas::new(20, 10), Canvas::new(5, 5)];
        pictures[1].fill(2, 3, 6, 6, ink::BLUE);
        Animation { pictures: pictures.clone(), each: Duration::from_millis(250) }.save(&path).unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options.read_info(std::fs::File::open(&path).unwrap()).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (20, 10));
        let mut seen = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            seen.push((frame.delay, frame.buffer.chunks_exact(4).map(|p| [p[0], p[1], p[2]]).collect::<Vec<_>>()));
        }
        assert_eq!(seen.iter().map(|(delay, _)| *delay).collect::<Vec<_>>(), [25, 25, 25]);
        assert_eq!((seen[1].1[4 * 20 + 3], seen[1].1[0], seen[2].1[199]), (ink::BLUE, ink::PAPER, ink::PAPER));
        let none = Animation { pictures: Vec::new(), each: Duration::ZERO };
        assert!(none.save(&path).unwrap_err().to_string().contains("no picture"));
    }
}
