//! Classifies a stream of raw RGB frames on standard input, one clip every STRIDE frames:
//!
//! ```console
//! $ ffmpeg -v error -i clip.mp4 -f rawvideo -pix_fmt rgb24 - \
//!     | sliding_window model.onnx --width 640 --height 480 --fps 30 --stride 15
//! $ ffmpeg -v error -f v4l2 -i /dev/video0 -f rawvideo -pix_fmt rgb24 - \
//!     | sliding_window model.onnx --width 640 --height 480 --fps 30 --stride 15 --live
//! ```
//!
//! A clip is made of the stream's last frames, spaced as the model's record says. Memory: the frames that a clip spans,
//! and one clip that waits.
//!
//! **When classifying is slower than the stream.** Without `--live` no clip is left out: while one waits no frame is read,
//! the pipe fills and whoever writes it has to wait. With `--live` frames are always read, and a clip that is due replaces
//! the one that waits: results stay current, and the clips left out are counted in the last column.
//!
//! Each line: seconds from the stream's beginning to the clip's last frame, probability, label, clips left out before it.

mod window;

use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use vjepa_runtime::{Options, Session};
use window::{Shared, Window, read};

const USAGE: &str = "sliding_window MODEL --width W --height H [--fps F] [--stride N] [--live] [--runtime auto|tract|ort] \
                     [--threads N] < frames.rgb";

struct Args {
    model: PathBuf,
    width: usize,
    height: usize,
    fps: f64,
    stride: usize,
    live: bool,
    options: Options,
}

fn args() -> Result<Args, Box<dyn Error>> {
    use lexopt::prelude::*;
    let (mut model, mut fps, mut stride, mut live, mut options) = (None, 30f64, 16, false, Options::default());
    let (mut width, mut height) = (0, 0);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("width") => width = parser.value()?.parse()?,
            Long("height") => height = parser.value()?.parse()?,
            Long("fps") => fps = parser.value()?.parse()?,
            Long("stride") => stride = parser.value()?.parse()?,
            Long("live") => live = true,
            Long("runtime") => options.runtime = parser.value()?.parse()?,
            Long("threads") => options.threads = Some(parser.value()?.parse()?),
            Value(path) if model.is_none() => model = Some(path.into()),
            Long("help") | Short('h') => return Err(format!("usage: {USAGE}").into()),
            other => return Err(format!("{}; usage: {USAGE}", other.unexpected()).into()),
        }
    }
    let model = model.ok_or_else(|| format!("no model was given; usage: {USAGE}"))?;
    if width == 0 || height == 0 || stride == 0 || fps.is_nan() || fps <= 0.0 {
        return Err(format!("width, height, fps and stride must be above 0; usage: {USAGE}").into());
    }
    Ok(Args { model, width, height, fps, stride, live, options })
}

fn classify(session: &Session, args: &Args, shared: &Shared) -> Result<(), Box<dyn Error>> {
    while let Some((clip, left_out)) = shared.take()? {
        let found = session.classify(&clip.frames, args.height, args.width)?;
        let Some(best) = found.first() else { continue };
        let label = best.label.clone().unwrap_or_else(|| format!("class {}", best.class));
        let seconds = clip.last as f64 / args.fps;
        writeln!(io::stdout(), "{seconds:.3}\t{:.6}\t{label}\t{left_out}", best.probability)?;
    }
    Ok(())
}

fn run() -> Result<(), Box<dyn Error>> {
    let args = args()?;
    let session = Session::open(&args.model, &args.options)?;
    let window = Window::new(session.preprocessing()?.frame_offsets(), args.stride);
    let size = args.width.checked_mul(args.height).and_then(|n| n.checked_mul(3)).ok_or("frames are too large")?;
    let shared = Arc::new(Shared::default());
    let (reader, live) = (Arc::clone(&shared), args.live);
    // Detached: a read that never returns must not keep the program from ending.
    std::thread::spawn(move || {
        let ended = read(io::stdin().lock(), size, window, live, &reader);
        reader.end(ended);
    });
    let result = classify(&session, &args, &shared);
    shared.close();
    result
}

fn main() {
    if let Err(error) = run() {
        eprintln!("error: {error}");
        std::process::exit(1);
    }
}
