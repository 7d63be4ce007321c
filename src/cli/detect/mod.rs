//! `vjepa detect`: actions of people in boxes, by a linear classifier on a frozen encoder (AVA).

mod data;
mod score;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Subcommand;

use super::CliError;
use super::device::DeviceArg;
use super::encoder::Encoder;
use super::probe::Bar;
use data::{KeyFrames, People, Videos};
use score::{Scoring, write};
use vjepa_data::annotations::ava;
use vjepa_deploy::detector::{self, DetectorExport};
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::detection::{
    self, BoxEncoder, BoxFeatures, DETECTOR_KEY, DetectorOptions, DetectorRecord, Frame, Lesson, View, default_layers,
};
use vjepa_eval::protocols::videos::{OpenEncoder, digest_of, open_encoder};
use vjepa_graphs::NamedTensors;
use vjepa_programs::{Probe, ProbeRecord, load_probe};
use vjepa_recipe::config::Config;

/// Train, evaluate, run or export a detector of actions in boxes (AVA) on a frozen encoder
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

// Of one command alone, so the size does not matter.
#[allow(clippy::large_enum_variant)]
#[derive(Subcommand)]
enum What {
    Train(Train),
    Eval(Eval),
    Run(Run),
    Export(ExportArgs),
}

/// Train the classifier on boxes with their actions
///
/// With --people, boxes of a person detector are trained on beside those of --boxes, with the actions that their file gives them: one
/// without an action shows none.
#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    encoder: Encoder,
    /// Boxes with actions: video,second,x1,y1,x2,y2,action[,person]
    #[arg(long, value_name = "CSV")]
    boxes: PathBuf,
    #[command(flatten)]
    videos: Videos,
    #[command(flatten)]
    people: People,
    /// Train on random crops, sizes and flips, whose features are computed anew in every epoch
    #[arg(long)]
    augment: bool,
    /// Names of the actions (.pbtxt); the classifier has as many outputs as the highest id [default: of the boxes]
    #[arg(long, value_name = "FILE")]
    actions: Option<PathBuf>,
    /// Where to write the detector
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Frames of a clip [default: the encoder's]
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Frames from one of a clip to the next
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    step: u16,
    /// Short side of a clip in pixels; the other is cut to whole patches [default: the encoder's]
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Blocks whose outputs are read, from 0, e.g. 17,19,21,23 [default: four of the last third]
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    layers: Option<Vec<usize>>,
    /// Number of epochs
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Epochs of warm-up
    #[arg(long, default_value_t = 2)]
    warmup: u32,
    /// Batch size in boxes
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Highest learning rate
    #[arg(long, default_value_t = 1e-4)]
    lr: f64,
    /// Weight decay
    #[arg(long, default_value_t = 0.05)]
    wd: f64,
    /// Seed of initial weights and shuffling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Mean average precision of a detector, or of detections in a file
#[derive(clap::Args)]
struct Eval {
    /// Detector, from `vjepa detect train`
    #[arg(
        long,
        value_name = "FILE",
        required_unless_present = "detections",
        requires = "checkpoint",
        requires = "videos"
    )]
    detector: Option<PathBuf>,
    /// Detections to score instead, by any program: video,second,x1,y1,x2,y2,action,score
    #[arg(long, value_name = "CSV", conflicts_with = "detector")]
    detections: Option<PathBuf>,
    /// Encoder of the detector
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Folder of the annotated videos
    #[arg(long, value_name = "DIR")]
    videos: Option<PathBuf>,
    #[command(flatten)]
    people: People,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    device: DeviceArg,
    /// Write the detections, too
    #[arg(long, value_name = "CSV")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Detections of the boxes of a person detector, as CSV that official evaluations read
#[derive(clap::Args)]
struct Run {
    /// Detector, from `vjepa detect train`
    #[arg(long, value_name = "FILE")]
    detector: PathBuf,
    #[command(flatten)]
    encoder: Encoder,
    #[command(flatten)]
    videos: Videos,
    #[command(flatten)]
    people: People,
    /// Multiply scores by the person's, as VideoMAE's code does
    #[arg(long)]
    by_people: bool,
    /// Where to write the detections
    #[arg(long, value_name = "CSV")]
    out: PathBuf,
}

/// Encoder and detector as one ONNX file: clip and boxes in pixels to scores
#[derive(clap::Args)]
struct ExportArgs {
    /// Detector, from `vjepa detect train`
    #[arg(long, value_name = "FILE")]
    detector: PathBuf,
    #[command(flatten)]
    encoder: Encoder,
    /// Height of a clip in pixels [default: the detector's short side]
    #[arg(long, value_name = "PIXELS")]
    height: Option<usize>,
    /// Width of a clip in pixels [default: the detector's short side]
    #[arg(long, value_name = "PIXELS")]
    width: Option<usize>,
    /// Where to write the model
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    match &args.what {
        What::Train(args) => train(args),
        What::Eval(args) => eval(args),
        What::Run(args) => detect(args),
        What::Export(args) => export(args),
    }
}

fn say(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// Features of key frames; what could not be read is said.
fn features(opened: &mut OpenEncoder, record: &DetectorRecord, found: &KeyFrames) -> Result<BoxFeatures, CliError> {
    say(&found.notes);
    let mut bar = Bar::default();
    let features = BoxEncoder::new(opened, record).extract(&found.frames, View::Whole, &mut |p| bar.show(p))?;
    bar.clear();
    note_bad(&features, found);
    Ok(features)
}

/// Says which key frames could not be used.
fn note_bad(features: &BoxFeatures, found: &KeyFrames) {
    if let Some((key, why)) = features.bad.first() {
        let (count, frames) = (features.bad.len(), found.frames.len());
        eprintln!(
            "note: {count} of {frames} key frames were left out; the first, {} at {}, {why}",
            key.video, key.second
        );
    }
}

fn train(args: &Train) -> Result<(), CliError> {
    let found = args.videos.lesson(&args.boxes, &args.people)?;
    let names = args.actions.as_deref().map(ava::read_label_map).transpose()?.unwrap_or_default();
    let used: BTreeSet<u32> = found
        .frames
        .iter()
        .flat_map(|frame| &frame.regions)
        .flat_map(|region| region.actions.iter().copied())
        .collect();
    let classes = names.keys().next_back().into_iter().chain(used.last()).max().copied().unwrap_or(0) as usize;
    if classes == 0 || used.contains(&0) {
        return Err(format!("{} must name actions by ids from 1", args.boxes.display()).into());
    }
    let mut opened = args.encoder.open()?;
    let encoder = &opened.model.encoder;
    let layers = args.layers.clone().unwrap_or_else(|| match encoder.levels.as_slice() {
        [] => default_layers(encoder.depth),
        levels => levels.to_vec(),
    });
    let record = DetectorRecord {
        frames: args.frames.unwrap_or(encoder.num_frames),
        step: args.step.into(),
        side: args.side.unwrap_or(encoder.height),
        layers,
        encoder: opened.digest.clone(),
        actions: names,
    };
    let options = DetectorOptions {
        epochs: args.epochs as usize,
        warmup: args.warmup as usize,
        batch: args.batch.into(),
        lr: args.lr,
        weight_decay: args.wd,
        seed: args.seed,
    };
    let trained = match args.augment {
        true => on_crops(&mut opened, &record, &found, classes, &options)?,
        false => on_frames(&mut opened, &record, &found, classes, &options)?,
    };
    let Trained { weights, loss, boxes, width, left_out } = trained;
    let probe = Probe::Linear { embed_dim: width, num_classes: classes };
    let extra = BTreeMap::from([(DETECTOR_KEY.to_owned(), serde_json::to_string(&record)?)]);
    save_probe(&args.out, &ProbeRecord::of(&probe, &[]), &weights, &extra)?;
    if args.json {
        let summary = serde_json::json!({
            "detector": args.out, "actions": classes, "boxes": boxes, "key_frames": found.frames.len(),
            "left_out": left_out, "loss": loss, "layers": record.layers, "notes": found.notes,
            "features": if args.augment { "of random crops in every epoch" } else { "of whole frames, computed once" },
        });
        println!("{summary}");
        return Ok(());
    }
    println!("trained on {boxes} boxes of {} key frames; loss {loss:.4}", found.frames.len() - left_out);
    println!("wrote {} ({classes} actions, blocks {:?})", args.out.display(), record.layers);
    Ok(())
}

/// A classifier, and what it was trained on.
struct Trained {
    weights: NamedTensors,
    loss: f64,
    boxes: usize,
    width: usize,
    /// Key frames whose video cannot be used.
    left_out: usize,
}

/// On features of whole frames, computed once.
fn on_frames(
    opened: &mut OpenEncoder,
    record: &DetectorRecord,
    found: &KeyFrames,
    classes: usize,
    options: &DetectorOptions,
) -> Result<Trained, CliError> {
    let features = features(opened, record, found)?;
    let (width, boxes) = (features.width, features.boxes.len());
    let mut of_epoch = |_: usize| Ok(Cow::Borrowed(&features));
    let lesson = Lesson { width, boxes, classes, features: &mut of_epoch };
    let mut bar = Bar::default();
    let (weights, loss) = detection::train(opened.encoder.device(), lesson, options, &mut |p| bar.show(p))?;
    bar.clear();
    Ok(Trained { weights, loss, boxes, width, left_out: features.bad.len() })
}

/// Key frames by which the time of an epoch is reckoned.
const TIMED: usize = 4;

/// On features of random crops, computed in every epoch.
fn on_crops(
    opened: &mut OpenEncoder,
    record: &DetectorRecord,
    found: &KeyFrames,
    classes: usize,
    options: &DetectorOptions,
) -> Result<Trained, CliError> {
    say(&found.notes);
    let (device, seed) = (opened.encoder.device(), options.seed);
    let boxes = found.frames.iter().map(|frame| frame.regions.len()).sum();
    let mut encoder = BoxEncoder::new(opened, record);
    let mut extract = |frames: &[Frame], epoch: u64| encoder.extract(frames, View::Random { seed, epoch }, &mut |_| {});
    // The first of them have the encoder compiled, too.
    let some = found.frames.get(..TIMED).unwrap_or(&found.frames);
    let mut began = Instant::now();
    for _ in 0..2 {
        began = Instant::now();
        extract(some, 0)?;
    }
    let each = began.elapsed().as_secs_f64() / some.len().max(1) as f64;
    let minutes = each * (found.frames.len() * options.epochs) as f64 / 60.0;
    eprintln!(
        "the encoder sees {} key frames in each of {} epochs, about {minutes:.0} minutes; without --augment, once",
        found.frames.len(),
        options.epochs
    );
    let first = extract(&found.frames, 0)?;
    note_bad(&first, found);
    let (width, left_out) = (first.width, first.bad.len());
    let mut first = Some(first);
    let mut of_epoch = |epoch: usize| match first.take() {
        Some(first) => Ok(Cow::Owned(first)),
        None => extract(&found.frames, epoch as u64).map(Cow::Owned),
    };
    let lesson = Lesson { width, boxes, classes, features: &mut of_epoch };
    let mut bar = Bar::default();
    let (weights, loss) = detection::train(device, lesson, options, &mut |p| bar.show(p))?;
    bar.clear();
    Ok(Trained { weights, loss, boxes, width, left_out })
}

/// A detector's weights, and what it is; it must be of the encoder with this digest.
fn open(path: &Path, encoder: &str) -> Result<(NamedTensors, DetectorRecord), CliError> {
    let file = load_probe(path)?;
    let metadata = vjepa_weights::load(path)?;
    let record = metadata.metadata().get(DETECTOR_KEY).ok_or_else(|| {
        format!("{} is a probe, not a detector: give a file that `vjepa detect train` wrote", path.display())
    })?;
    let record: DetectorRecord = serde_json::from_str(record)
        .map_err(|error| format!("{}: the record of the detector cannot be read: {error}", path.display()))?;
    if record.encoder != encoder {
        return Err(
            format!("{} was trained on another encoder; give that one with --checkpoint", path.display()).into()
        );
    }
    let plain = |(name, tensor): (String, (Vec<usize>, Vec<f32>))| {
        (name.strip_prefix("probe.").unwrap_or(&name).to_owned(), tensor)
    };
    Ok((file.tensors.into_iter().map(plain).collect(), record))
}

fn eval(args: &Eval) -> Result<(), CliError> {
    if let Some(path) = &args.detections {
        return args.scoring.report(&ava::read_detections(path)?, "of the file", args.json);
    }
    let (Some(detector), Some(checkpoint), Some(folder)) = (&args.detector, &args.checkpoint, &args.videos) else {
        return Err("give --detector with --checkpoint and --videos, or --detections".into());
    };
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
    let mut opened = open_encoder(args.device.open()?, checkpoint, config.as_ref())?;
    let (weights, record) = open(detector, &opened.digest)?;
    let videos = Videos { videos: folder.clone() };
    let (found, boxes) = match &args.people.people {
        Some(path) => (videos.people(path, &args.people)?, "a person detector"),
        None => (videos.labelled(args.scoring.boxes())?, "the ground truth, which flatters"),
    };
    let features = features(&mut opened, &record, &found)?;
    let rows = detection::detections(opened.encoder.device(), &features, &weights, args.scoring.by_people())?;
    if let Some(out) = &args.out {
        write(out, &rows)?;
    }
    args.scoring.report(&rows, &format!("boxes of {boxes}"), args.json)
}

fn detect(args: &Run) -> Result<(), CliError> {
    let Some(people) = &args.people.people else {
        return Err("which people? give the boxes of a person detector with --people CSV".into());
    };
    let mut opened = args.encoder.open()?;
    let (weights, record) = open(&args.detector, &opened.digest)?;
    let found = args.videos.people(people, &args.people)?;
    let features = features(&mut opened, &record, &found)?;
    let rows = detection::detections(opened.encoder.device(), &features, &weights, args.by_people)?;
    write(&args.out, &rows)?;
    println!("wrote {} ({} boxes, {} rows)", args.out.display(), features.boxes.len(), rows.len());
    Ok(())
}

fn export(args: &ExportArgs) -> Result<(), CliError> {
    // Nothing is computed, but a device that is not there is refused as everywhere.
    args.encoder.device.open()?;
    let checkpoint = &args.encoder.checkpoint;
    let (weights, record) = open(&args.detector, &digest_of(vjepa_weights::load(checkpoint)?.files())?)?;
    let config = args.encoder.config()?;
    let request = DetectorExport {
        checkpoint,
        config: config.as_ref(),
        classifier: &weights,
        layers: &record.layers,
        clip: [record.frames, args.height.unwrap_or(record.side), args.width.unwrap_or(record.side)],
        out: &args.out,
    };
    let written = detector::write(&request)?;
    println!("wrote {} ({:.1} MB)", written.model.display(), written.bytes as f64 / 1e6);
    println!(
        "         clip f32[B, 3, T, H, W] and boxes f32[R, 5] (clip, x1, y1, x2, y2 in pixels) to scores f32[R, actions]"
    );
    Ok(())
}
