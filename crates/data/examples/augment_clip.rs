//! RandAugment, crop and erasing of a clip, timed: our side of `tests/augment/compare.py`.
//!
//! `augment_clip CLIP FRAMES HEIGHT WIDTH SIZE FIRST COUNT OUT` reads RGB bytes `[T, H, W, 3]`, transforms the clip with the
//! draws of the official code for the seeds FIRST, FIRST + 1, ..., writes f32 `[COUNT, 3, T, SIZE, SIZE]` and prints the CPU
//! time of each, in milliseconds.

use std::error::Error;
use std::io::Write;

use cpu_time::ProcessTime;
use vjepa_data::augment::{ClipAugment, OfficialDraws};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [clip, frames, height, width, size, first, count, out] = &arguments[..] else {
        return Err("usage: augment_clip CLIP FRAMES HEIGHT WIDTH SIZE FIRST COUNT OUT".into());
    };
    let (frames, height, width): (usize, usize, usize) = (frames.parse()?, height.parse()?, width.parse()?);
    let (size, first, count): (usize, u32, u32) = (size.parse()?, first.parse()?, count.parse()?);
    let bytes = std::fs::read(clip)?;
    if bytes.len() != frames * height * width * 3 || bytes.is_empty() {
        return Err(
            format!("{clip} holds {} bytes, which are not {frames} frames of {width}x{height}", bytes.len()).into()
        );
    }
    let augment = ClipAugment::probe(size);
    let mut file = std::fs::File::create(out)?;
    for seed in first..first + count {
        let clip: Vec<Vec<u8>> = bytes.chunks_exact(height * width * 3).map(<[u8]>::to_vec).collect();
        let mut values = vec![0.0f32; 3 * frames * size * size];
        let begin = ProcessTime::now();
        augment.apply(clip, (height, width), &mut OfficialDraws::new(seed), &mut values)?;
        println!("{}", begin.elapsed().as_secs_f64() * 1e3);
        let values: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        file.write_all(&values)?;
    }
    Ok(())
}
