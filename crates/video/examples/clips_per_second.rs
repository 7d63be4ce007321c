//! Clips per second of one thread: open, 16 frames at step 4 from a moving start.
//!
//! `cargo run --release -p vjepa-video --example clips_per_second -- CLIP...`

use std::time::Instant;

fn main() -> Result<(), vjepa_video::VideoError> {
    for path in std::env::args().skip(1) {
        let (start, mut clips) = (Instant::now(), 0usize);
        while start.elapsed().as_secs_f64() < 4.0 {
            let mut clip = vjepa_video::open(&path)?;
            let last = clip.info().frames.saturating_sub(1);
            let from = clips * 37 % last.saturating_sub(60).max(1);
            let indices: Vec<usize> = (0..16).map(|i| (from + 4 * i).min(last)).collect();
            clip.frames(&indices)?;
            clips += 1;
        }
        println!("{clips} clips, {:.1} a second  {path}", clips as f64 / start.elapsed().as_secs_f64());
    }
    Ok(())
}
