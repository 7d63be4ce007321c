//! Classifies a folder of clips, several at a time where the model's batch is free:
//!
//! ```console
//! $ ffmpeg -v error -i a.mp4 -f rawvideo -pix_fmt rgb24 clips/a_640x480.rgb     # raw frames, width and height in the name
//! $ mkdir clips/b && ffmpeg -v error -i b.mp4 clips/b/%05d.png                  # or a folder of numbered pictures
//! $ batch_folder model.onnx clips --batch 8
//! ```
//!
//! An edge build has no video library; ffmpeg or the camera's driver makes the frames. Of each entry the first clip is
//! taken, in the order of names. Each line: entry, probability, label. An entry that cannot be used is told on standard
//! error, the others are classified all the same, and the exit code is 1.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use vjepa_runtime::{ClassifyError, ClipBatch, Dimension, Options, Preprocessing, Session, top};

const USAGE: &str = "batch_folder MODEL FOLDER [--batch N] [--runtime auto|tract|ort] [--threads N]";
/// Pictures and raw frames with longer sides are refused before they are read.
const LARGEST_SIDE: usize = 1 << 14;

type Fault = Box<dyn Error>;

struct Args {
    model: PathBuf,
    folder: PathBuf,
    batch: usize,
    options: Options,
}

fn args() -> Result<Args, Fault> {
    use lexopt::prelude::*;
    let (mut paths, mut batch, mut options) = (Vec::new(), 8, Options::default());
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("batch") => batch = parser.value()?.parse()?,
            Long("runtime") => options.runtime = parser.value()?.parse()?,
            Long("threads") => options.threads = Some(parser.value()?.parse()?),
            Value(path) => paths.push(PathBuf::from(path)),
            Long("help") | Short('h') => return Err(format!("usage: {USAGE}").into()),
            other => return Err(format!("{}; usage: {USAGE}", other.unexpected()).into()),
        }
    }
    let [model, folder] = <[PathBuf; 2]>::try_from(paths).map_err(|_| format!("usage: {USAGE}"))?;
    Ok(Args { model, folder, batch, options })
}

/// Frames of one size, interleaved RGB.
struct Frames {
    height: usize,
    width: usize,
    pixels: Vec<Vec<u8>>,
}

/// The frames at these places of an entry.
fn frames(entry: &Path, offsets: &[usize]) -> Result<Frames, Fault> {
    if entry.is_dir() { pictures(entry, offsets) } else { raw(entry, offsets) }
}

/// `NAME_WIDTHxHEIGHT.rgb`: frames one behind the other.
fn raw(path: &Path, offsets: &[usize]) -> Result<Frames, Fault> {
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let sizes = name.rsplit('_').next().and_then(|size| size.split_once('x'));
    let sizes = sizes.and_then(|(width, height)| Some((width.parse().ok()?, height.parse().ok()?)));
    let sides = 1..=LARGEST_SIDE;
    let (width, height) = sizes
        .filter(|(width, height)| sides.contains(width) && sides.contains(height))
        .ok_or("its name says no frame size; call it NAME_WIDTHxHEIGHT.rgb")?;
    let size = width * height * 3;
    let mut file = File::open(path)?;
    let count = file.metadata()?.len() / size as u64;
    enough(usize::try_from(count).unwrap_or(usize::MAX), offsets)?;
    let mut pixels = Vec::with_capacity(offsets.len());
    for offset in offsets {
        file.seek(SeekFrom::Start((offset * size) as u64))?;
        let mut frame = vec![0; size];
        file.read_exact(&mut frame)?;
        pixels.push(frame);
    }
    Ok(Frames { height, width, pixels })
}

/// The `.png` pictures of a folder, in the order of their names.
fn pictures(folder: &Path, offsets: &[usize]) -> Result<Frames, Fault> {
    let entries: Vec<PathBuf> = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    let is_png = |path: &PathBuf| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"));
    let mut files: Vec<PathBuf> = entries.into_iter().filter(is_png).collect();
    files.sort();
    enough(files.len(), offsets)?;
    let mut pixels = Vec::with_capacity(offsets.len());
    let mut size = None;
    for file in offsets.iter().filter_map(|offset| files.get(*offset)) {
        let at = |error: Fault| format!("{}: {error}", file.display());
        let (height, width, picture) = picture(file).map_err(at)?;
        if *size.get_or_insert((height, width)) != (height, width) {
            return Err(at("it is of another size than the pictures before it".into()).into());
        }
        pixels.push(picture);
    }
    let (height, width) = size.ok_or("it holds no picture")?;
    Ok(Frames { height, width, pixels })
}

/// Height, width and RGB bytes of a PNG.
fn picture(path: &Path) -> Result<(usize, usize, Vec<u8>), Fault> {
    let mut decoder = png::Decoder::new(BufReader::new(File::open(path)?));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let (width, height) = (reader.info().width as usize, reader.info().height as usize);
    if width.max(height) > LARGEST_SIDE {
        return Err(format!("its {width}x{height} pixels are more than {LARGEST_SIDE} on a side").into());
    }
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("it is too large")?];
    let info = reader.next_frame(&mut bytes)?;
    bytes.truncate(info.buffer_size());
    let rgb = match info.color_type {
        png::ColorType::Rgb => bytes,
        png::ColorType::Rgba => bytes.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        png::ColorType::Grayscale => bytes.iter().flat_map(|value| [*value; 3]).collect(),
        png::ColorType::GrayscaleAlpha => bytes.chunks_exact(2).flat_map(|pixel| [pixel[0]; 3]).collect(),
        png::ColorType::Indexed => return Err("its palette was not expanded".into()),
    };
    Ok((height, width, rgb))
}

fn enough(count: usize, offsets: &[usize]) -> Result<(), Fault> {
    let needed = offsets.last().map_or(0, |last| last + 1);
    if count < needed { Err(format!("it has {count} frames, a clip spans {needed}").into()) } else { Ok(()) }
}

/// A prepared clip of the entry of this name.
struct Clip {
    name: String,
    values: Vec<f32>,
}

fn prepare(entry: &Path, record: &Preprocessing, offsets: &[usize]) -> Result<Clip, Fault> {
    let frames = frames(entry, offsets)?;
    let values = record.prepare(&frames.pixels, frames.height, frames.width)?;
    let name = entry.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Clip { name, values })
}

/// Runs clips as a batch of `batch`, filled up with the last of them.
fn run(session: &Session, record: &Preprocessing, clips: &[Clip], batch: usize) -> Result<(), Fault> {
    let [channels, frames, height, width] = record.clip_shape();
    let filled = clips.iter().chain(clips.last().into_iter().cycle()).take(batch);
    let data: Vec<f32> = filled.flat_map(|clip| clip.values.iter().copied()).collect();
    let outputs = session.run(&ClipBatch::new([batch, channels, frames, height, width], &data)?)?;
    let logits = outputs.iter().find(|output| output.name == "logits");
    let logits = logits.ok_or("the model gives no `logits`; export it with a probe")?;
    let classes = (logits.data.len() / batch).max(1);
    for (clip, logits) in clips.iter().zip(logits.data.chunks_exact(classes)) {
        let Some(best) = top(logits, session.labels(), 1).pop() else { continue };
        let label = best.label.unwrap_or_else(|| format!("class {}", best.class));
        writeln!(io::stdout(), "{}\t{:.6}\t{label}", clip.name, best.probability)?;
    }
    Ok(())
}

fn folder() -> Result<bool, Fault> {
    let args = args()?;
    let session = Session::open(&args.model, &args.options)?;
    if session.views() > 1 {
        return Err(ClassifyError::Views(session.views()).into());
    }
    let record = session.preprocessing()?;
    let offsets = record.frame_offsets();
    let (batch, fixed) = match session.input().shape.first() {
        Some(Dimension::Size(size)) => (*size, true),
        _ => (args.batch.max(1), false),
    };
    let at = |error: io::Error| format!("cannot read {}: {error}", args.folder.display());
    let entries = fs::read_dir(&args.folder).map_err(at)?.map(|entry| entry.map(|entry| entry.path()));
    let mut entries: Vec<PathBuf> = entries.collect::<io::Result<_>>().map_err(at)?;
    entries.sort();
    let (mut waiting, mut good) = (Vec::with_capacity(batch), true);
    for entry in entries {
        match prepare(&entry, &record, &offsets) {
            Ok(clip) => waiting.push(clip),
            Err(error) => {
                eprintln!("error: {}: {error}", entry.display());
                good = false;
            }
        }
        if waiting.len() == batch {
            run(&session, &record, &waiting, batch)?;
            waiting.clear();
        }
    }
    if !waiting.is_empty() {
        run(&session, &record, &waiting, if fixed { batch } else { waiting.len() })?;
    }
    Ok(good)
}

fn main() {
    match folder() {
        Ok(true) => {}
        Ok(false) => std::process::exit(1),
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(1);
        }
    }
}
