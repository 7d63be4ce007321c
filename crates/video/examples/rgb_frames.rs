//! Frames of a clip as raw RGB on standard output, sizes on standard error: what `tests/video/check_frames.py` compares with
//! ffmpeg.
//!
//! `cargo run --release -p vjepa-video --example rgb_frames --features ffmpeg -- CLIP auto|pure|ffmpeg [INDEX...]`

use std::io::Write;

use vjepa_video::{Decoder, open_with};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "rgb_frames CLIP auto|pure|ffmpeg [INDEX...]";
    let path = arguments.next().ok_or(usage)?;
    let decoder = match arguments.next().as_deref() {
        Some("auto") => Decoder::Auto,
        Some("pure") => Decoder::Pure,
        Some("ffmpeg") => Decoder::Ffmpeg,
        _ => return Err(usage.into()),
    };
    let asked = arguments.map(|index| index.parse()).collect::<Result<Vec<usize>, _>>()?;
    let mut clip = open_with(path, decoder)?;
    let indices = if asked.is_empty() { (0..clip.info().intact_frames).collect() } else { asked };
    let mut out = std::io::stdout().lock();
    for group in indices.chunks(32) {
        for frame in clip.frames(group)? {
            eprintln!("{} {} {} {:?}", frame.index, frame.display_width(), frame.display_height(), frame.color);
            out.write_all(&frame.rgb())?;
        }
    }
    Ok(())
}
