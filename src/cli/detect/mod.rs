//! `vjepa detect`: actions of people in boxes, by a linear classifier on a frozen encoder (AVA).

mod data;
mod score;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

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
    self, BoxFeatures, DETECTOR_KEY, DetectorOptions, DetectorRecord, default_layers,
};
use vjepa_eval::protocols::videos::{OpenEncoder, digest_of, open_encoder};
use vjepa_graphs::NamedTensors;
use vjepa_programs::{Probe, load_probe};
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
#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    encoder: Encoder,
    /// Boxes with actions: video,second,x1,y1,x2,y2,action[,person]
    #[arg(long, value_name = "CSV")]
    boxes: PathBuf,
    #[command(flatten)]
    videos: Videos,
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
    let features = detection::extract(opened, record, &found.frames, &mut |p| bar.show(p))?;
    bar.clear();
    if let Some((key, why)) = features.bad.first() {
        let (count, frames) = (features.bad.len(), found.frames.len());
        eprintln!(
            "note: {count} of {frames} key frames were left out; the first, {} at {}, {why}",
            key.video, key.second
        );
    }
    Ok(features)
}

fn train(args: &Train) -> Result<(), CliError> {
    let found = args.videos.labelled(&args.boxes)?;
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
    let features = features(&mut opened, &record, &found)?;
    let options = DetectorOptions {
        epochs: args.epochs as usize,
        warmup: args.warmup as usize,
        batch: args.batch.into(),
        lr: args.lr,
        weight_decay: args.wd,
        seed: args.seed,
    };
    let mut bar = Bar::default();
    let (weights, loss) =
        detection::train(opened.encoder.device(), &features, classes, &options, &mut |p| bar.show(p))?;
    bar.clear();
    let probe = Probe::Linear { embed_dim: features.width, num_classes: classes };
    let extra = BTreeMap::from([(DETECTOR_KEY.to_owned(), serde_json::to_string(&record)?)]);
    save_probe(&args.out, &probe, &weights, &[], &extra)?;
    let boxes = features.boxes.len();
    if args.json {
        let summary = serde_json::json!({
            "detector": args.out, "actions": classes, "boxes": boxes, "key_frames": found.frames.len(),
            "left_out": features.bad.len(), "loss": loss, "layers": record.layers, "notes": found.notes,
        });
        println!("{summary}");
        return Ok(());
    }
    println!("trained on {boxes} boxes of {} key frames; loss {loss:.4}", found.frames.len() - features.bad.len());
    println!("wrote {} ({classes} actions, blocks {:?})", args.out.display(), record.layers);
    Ok(())
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
    let config = args.config.as_deref().map(|path| Config::from_file(path, &[])).transpose()?;
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
