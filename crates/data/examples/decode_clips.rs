//! Clips of one thread: open, 16 frames at step 4 from a start that a seed gives, and with `clip` a crop of them resized to
//! 224, mirrored now and then, and normalised. Prints the clips and the processor seconds they took; `benches/decode.py`
//! runs it between other decoders.
//!
//! `cargo run --release -p vjepa-data --features ffmpeg --example decode_clips -- pure|ffmpeg rgb|clip CLIP SEED COUNT`

use vjepa_data::transforms::{CropBox, Pixels, resize_crop};
use vjepa_runtime::Normalization;
use vjepa_video::{Decoder, Frame, open_with};

struct Decoded(Vec<Frame>);

impl Pixels for Decoded {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn size(&self) -> (usize, usize) {
        self.0.first().map_or((0, 0), |frame| (frame.display_height(), frame.display_width()))
    }

    fn read(&self, index: usize, y: usize, left: usize, out: &mut [u8]) {
        if let Some(frame) = self.0.get(index) {
            frame.rgb_row(y, left, out);
        }
    }
}

/// As in `benches/decode.py`.
fn numbers(seed: u64, clip: u64) -> impl FnMut(usize) -> usize {
    let mut state = (seed * 1000 + clip).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below.max(1) as u64) as usize
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [decoder, what, path, seed, count] = arguments.as_slice() else {
        return Err("decode_clips pure|ffmpeg rgb|clip CLIP SEED COUNT".into());
    };
    let decoder = if decoder == "pure" { Decoder::Pure } else { Decoder::Ffmpeg };
    let (seed, count): (u64, u64) = (seed.parse()?, count.parse()?);
    let started = cpu_time::ProcessTime::now();
    let mut sum = 0u64;
    let mut out = vec![0f32; 3 * 16 * 224 * 224];
    for number in 0..count {
        let mut below = numbers(seed, number);
        let mut clip = open_with(path, decoder)?;
        let frames = clip.info().frames;
        let start = below(frames.saturating_sub(61));
        let indices: Vec<usize> = (0..16).map(|i| (start + 4 * i).min(frames - 1)).collect();
        let decoded = Decoded(clip.frames(&indices)?);
        if what == "rgb" {
            sum += decoded.0.iter().map(|frame| u64::from(frame.rgb()[0])).sum::<u64>();
            continue;
        }
        let (height, width) = decoded.size();
        let side = height.min(width);
        let crop_height = side / 2 + below(side / 2);
        let crop_width = side / 2 + below(side / 2);
        let (top, left) = (below(height - crop_height + 1), below(width - crop_width + 1));
        let crop = CropBox { top, left, height: crop_height, width: crop_width };
        resize_crop(&decoded, &[crop], (224, 224), below(2) == 1, &Normalization::Imagenet, &mut out)?;
        sum += u64::from(out[0].to_bits() & 1);
    }
    println!("{count} {} {sum}", started.elapsed().as_secs_f64());
    Ok(())
}
