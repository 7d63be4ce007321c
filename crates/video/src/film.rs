//! Pictures written as an mp4 file, for people to look at.

use std::time::Duration;

/// Pictures of one size, one after another.
#[derive(Debug, Clone, Copy)]
pub struct Film<'a> {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Time that each picture is shown, in hundredths of a second in the file.
    pub each: Duration,
    /// Red, green and blue of every pixel, `height * width * 3` bytes each.
    pub pictures: &'a [Vec<u8>],
}

/// Why pictures cannot be written as a video; each message follows the name of the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilmError {
    /// The build has no encoder.
    #[error("videos are written by FFmpeg, which this build is without: build with `--features ffmpeg`")]
    WithoutFfmpeg,
    /// There is none, they are too large, or not as large as is said.
    #[error("{0}")]
    Pictures(String),
    /// FFmpeg has no encoder that does it.
    #[error("FFmpeg cannot write it ({0})")]
    Encoder(String),
}

impl Film<'_> {
    /// True where this build can write videos.
    pub const WRITTEN: bool = cfg!(feature = "ffmpeg");

    /// The bytes of an mp4 file: H.264 where FFmpeg has libx264, else MPEG-4. Pictures of an odd size get one more row or
    /// column, which repeats the last; colours are BT.601, limited range, 4:2:0.
    ///
    /// # Errors
    /// [`FilmError`]; always without the feature `ffmpeg`.
    pub fn mp4(&self) -> Result<Vec<u8>, FilmError> {
        let bytes = self.width.checked_mul(self.height).and_then(|pixels| pixels.checked_mul(3));
        match self.pictures {
            [] => return Err(FilmError::Pictures("there is no picture to write".into())),
            _ if self.width.max(self.height) >= crate::MAX_SIDE || self.width.min(self.height) == 0 => {
                let (width, height) = (self.width, self.height);
                return Err(FilmError::Pictures(format!("no video has pictures of {width}x{height}")));
            }
            pictures if pictures.iter().any(|picture| Some(picture.len()) != bytes) => {
                return Err(FilmError::Pictures("the pictures are of several sizes".into()));
            }
            _ => {}
        }
        #[cfg(feature = "ffmpeg")]
        return crate::ffmpeg::write(self).map_err(FilmError::Encoder);
        #[cfg(not(feature = "ffmpeg"))]
        Err(FilmError::WithoutFfmpeg)
    }
}
