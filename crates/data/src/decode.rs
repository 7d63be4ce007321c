//! The frames of one clip of a video, decoded.

use std::path::Path;

use vjepa_video::{ClipDecoder, Frame};

use super::frames::is_picture;
use super::media::Opener;

/// Files smaller than this count as bad, as in the official code, where they made the decoder hang.
pub const SMALLEST_FILE: u64 = 1024;

/// The frames of a clip, upright and all of one size: colours are converted where a transform reads pixels.
pub(crate) struct Decoded {
    pub frames: Vec<Frame>,
    pub height: usize,
    pub width: usize,
}

impl Decoded {
    /// Whole frames as RGB bytes, `[T][H * W * 3]`.
    pub fn rgb(&self) -> Vec<Vec<u8>> {
        let mut pictures: Vec<Vec<u8>> = Vec::with_capacity(self.frames.len());
        for (i, frame) in self.frames.iter().enumerate() {
            // Short videos repeat frames; converting one again would double the work.
            let repeats = i > 0 && self.frames[i - 1].index == frame.index;
            let rgb = match pictures.last().filter(|_| repeats) {
                Some(previous) => previous.clone(),
                None => frame.rgb(),
            };
            pictures.push(rgb);
        }
        pictures
    }
}

/// Decodes these frames of a video, ascending; numbers may repeat.
///
/// # Errors
/// Why the clip cannot be used. Where the decoder says so, the reason begins with the path: [`reason`] takes it off.
pub(crate) fn decode(video: &mut dyn ClipDecoder, indices: &[usize]) -> Result<Decoded, String> {
    let frames = video.frames(indices).map_err(|error| error.to_string())?;
    let Some(first) = frames.first() else { return Err("has no frames".to_owned()) };
    let (height, width) = (first.display_height(), first.display_width());
    if frames.iter().any(|frame| (frame.display_height(), frame.display_width()) != (height, width)) {
        return Err("changes its picture size within the clip".to_owned());
    }
    // Transforms read rows, of which those of a picture on its side are scattered over all of it.
    let frames = frames.into_iter().map(Frame::upright).collect();
    Ok(Decoded { frames, height, width })
}

/// Refuses files that are too small to be a video, wherever they lie.
///
/// # Errors
/// Why the file cannot be used, without its name.
pub fn refuse_stub(path: &Path) -> Result<(), String> {
    if path.is_dir() || is_picture(path) {
        return Ok(());
    }
    let size = Opener::shared().size(path).map_err(|error| format!("cannot be opened: it {error}"))?;
    if size < SMALLEST_FILE {
        return Err(format!("has {size} bytes; files under 1 KiB are skipped, as by the official loader"));
    }
    Ok(())
}

/// An error's message without the path that the decoder puts before it.
pub(crate) fn reason(path: &Path, error: impl std::fmt::Display) -> String {
    let message = error.to_string();
    message.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&message).to_owned()
}
