//! Renders the labelled clips of `assets/textures` as raw video, for `assets/textures/encode.sh`.
//!
//! One clip for each of the 128 combinations of texture, direction and speed, from a fixed seed that training never uses, 8
//! frames of 48 x 48 at 8 frames a second. Writes `t<texture>_d<direction>_s<speed>.y4m` (limited-range luma, neutral
//! chroma) into the folder given, and beside them the two label lists in the official "path label" form.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use vjepa_data::{DriftingTextures, TextureLabels};
use vjepa_recipe::config::Normalization;

const FRAMES: usize = 8;
const SIZE: usize = 48;
const SEED: u64 = 0x7465_7874_7572_6573;

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: render_textures FOLDER")?);
    fs::create_dir_all(&folder)?;
    let stream = DriftingTextures::new(FRAMES, SIZE, Normalization::PerClip);
    let (mut by_texture, mut by_motion) = (String::new(), String::new());
    for class in 0..128u64 {
        let class_bits = class as usize;
        let labels = TextureLabels { texture: class_bits >> 4, direction: class_bits >> 1 & 7, speed: class_bits & 1 };
        let TextureLabels { texture, direction, speed } = labels;
        let mut pixels = vec![0.0; FRAMES * SIZE * SIZE];
        stream.render_as(SEED, class, labels, &mut pixels)?;
        let name = format!("t{texture}_d{direction}_s{speed}");
        fs::write(folder.join(&name).with_extension("y4m"), y4m(&pixels))?;
        // Half of the classes in each container, spread over all labels.
        let file = format!("{name}.{}", if (texture + direction + speed) % 2 == 0 { "mp4" } else { "webm" });
        writeln!(by_texture, "{file} {texture}")?;
        writeln!(by_motion, "{file} {direction}")?;
    }
    fs::write(folder.join("labels.csv"), by_texture)?;
    fs::write(folder.join("labels_motion.csv"), by_motion)?;
    Ok(())
}

/// Raw video with values in [0, 1] as luma 16 to 235.
fn y4m(pixels: &[f32]) -> Vec<u8> {
    let mut out = format!("YUV4MPEG2 W{SIZE} H{SIZE} F{FRAMES}:1 Ip A1:1 C420mpeg2 XCOLORRANGE=LIMITED\n").into_bytes();
    for frame in pixels.chunks(SIZE * SIZE) {
        out.extend_from_slice(b"FRAME\n");
        out.extend(frame.iter().map(|v| (16.0 + 219.0 * v).round() as u8));
        out.extend(std::iter::repeat_n(128, SIZE * SIZE / 2));
    }
    out
}
