//! `vjepa frames`: frames of a video as pictures.

use std::io::Write;
use std::path::PathBuf;

use indicatif::ProgressBar;

use super::CliError;
use vjepa_runtime::{files, write_atomically};

/// Frames decoded at once.
const BATCH: usize = 16;

/// Write frames of a video as PNG files
#[derive(clap::Args)]
pub struct Args {
    /// Video
    file: PathBuf,
    /// Frames to write, counted from 0 in presentation order; repeats are allowed
    #[arg(long, value_delimiter = ',', required = true, value_name = "N,N,...")]
    indices: Vec<usize>,
    /// Output folder, created if missing; file names sort in the order of --indices
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    files::spare("--out", &args.out, &[&args.out], [args.file.as_path()])?;
    vjepa_weights::refuse_foreign(&args.file)?;
    let mut clip = vjepa_video::open(&args.file)?;
    let (frames, left_out) = (clip.info().frames, clip.info().left_out);
    if let Some(frame) = args.indices.iter().copied().find(|index| *index >= frames) {
        let path = args.file.clone();
        return Err(vjepa_video::VideoError::FrameOutOfRange { path, frame, frames }.into());
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot create the folder {}: {error}", args.out.display()))?;
    let places = args.indices.len().saturating_sub(1).to_string().len().max(3);
    let digits = args.indices.iter().max().map_or(0, |largest| largest.to_string().len()).max(6);
    let bar = ProgressBar::new(args.indices.len() as u64);
    let mut written = Vec::with_capacity(args.indices.len());
    for (batch, indices) in args.indices.chunks(BATCH).enumerate() {
        for (i, frame) in clip.frames(indices)?.iter().enumerate() {
            let place = batch * BATCH + i;
            let path = args.out.join(format!("{place:0places$}_frame{:0digits$}.png", frame.index));
            write_atomically(&path, |out| write_png(out, frame.display_width(), frame.display_height(), &frame.rgb()))
                .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
            written.push(serde_json::json!({"file": path, "frame": frame.index, "time": frame.time}));
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    if args.json {
        println!("{}", serde_json::json!({"frames": written, "left_out_at_start": left_out}));
    } else {
        println!("wrote {} frames of {} to {}", written.len(), args.file.display(), args.out.display());
        if left_out > 0 {
            println!("skipped {left_out} frames at the start, whose reference frames were cut off");
        }
    }
    Ok(())
}

/// Writes interleaved RGB as a PNG.
fn write_png(out: impl Write, width: usize, height: usize, rgb: &[u8]) -> std::io::Result<()> {
    let side = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
    let mut encoder = png::Encoder::new(out, side(width), side(height));
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(rgb)?;
    Ok(writer.finish()?)
}
