//! Reading as a plain function of bytes, for fuzzing: what comes of it does not matter, only that it comes.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Decoder, VideoError, open_with};

/// Part of the name of the file that the bytes are read from, which every error has to mention.
pub const NAME: &str = "vjepa-video-fuzz";

/// Opens bytes as a video and reads its first, middle and last frame and one past the end; gives the errors. `decoder`
/// chooses as in [`open_with`]. The bytes go through a temporary file, since videos are read from files.
///
/// # Errors
/// When the temporary file cannot be written.
pub fn read(bytes: &[u8], decoder: Decoder) -> std::io::Result<Vec<VideoError>> {
    let file = Temporary::new();
    std::fs::write(&file.0, bytes)?;
    let mut clip = match open_with(&file.0, decoder) {
        Ok(clip) => clip,
        Err(error) => return Ok(vec![error]),
    };
    let frames = clip.info().frames;
    let wanted = [0, frames / 2, frames.saturating_sub(1), frames];
    Ok(wanted.into_iter().filter_map(|index| clip.frames(&[index]).err()).collect())
}

/// A file that is removed in the end, also when reading it panics.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("{NAME}-{}-{number}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Where it was never written there is nothing to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}
