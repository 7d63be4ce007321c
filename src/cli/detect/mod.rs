//! `vjepa detect`: actions of people in boxes, by a linear classifier on a frozen encoder (AVA).

mod cost;
mod data;
mod detector_args;
mod export;
mod score;
mod train;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::CliError;
use super::device::RankArgs;
use super::given::all_there;
use data::{KeyFrames, People, Videos};
use detector_args::{Detected, DetectorArgs, OF_RUNTIMES};
use score::{Scoring, write};
use vjepa_collective::Collective;
use vjepa_data::annotations::ava;
use vjepa_eval::protocols::detection::BoxValues;
use vjepa_metrics::ava::Row;
use vjepa_programs::{DetectorFile, load_detector};
use vjepa_runtime::files;
use vjepa_runtime::plan::Device;

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
    Train(train::Train),
    Eval(Eval),
    Run(Run),
    Export(export::Export),
}

/// Mean average precision of a detector, or of detections in a file
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["detector", "model", "detections"])))]
struct Eval {
    #[command(flatten)]
    source: DetectorArgs,
    /// Detections to score instead, by any program: video,second,x1,y1,x2,y2,action,score
    // They are read and nothing is run, on no boxes but theirs.
    #[arg(long, value_name = "CSV", conflicts_with_all = OF_RUNTIMES,
          conflicts_with_all = ["checkpoint", "config", "sets", "device", "videos", "people", "threshold", "by_people", "out"])]
    detections: Option<PathBuf>,
    /// Folder of the annotated videos
    #[arg(long, value_name = "DIR", required_unless_present = "detections")]
    videos: Option<PathBuf>,
    #[command(flatten)]
    people: People,
    #[command(flatten)]
    scoring: Scoring,
    #[command(flatten)]
    ranks: RankArgs,
    /// Write the detections, too
    #[arg(long, value_name = "CSV")]
    out: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Detections of the boxes of a person detector, as CSV that official evaluations read
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("source").required(true).args(["detector", "model"])))]
struct Run {
    #[command(flatten)]
    source: DetectorArgs,
    #[command(flatten)]
    videos: Videos,
    #[command(flatten)]
    people: People,
    /// Multiply scores by the person's, as VideoMAE's code does
    #[arg(long)]
    by_people: bool,
    #[command(flatten)]
    ranks: RankArgs,
    /// Where to write the detections
    #[arg(long, value_name = "CSV")]
    out: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command. Ranks that a launcher has started share the key frames; rank 0 does the rest.
pub fn run(args: &Args) -> Result<(), CliError> {
    match &args.what {
        What::Train(args) => train::run(args),
        What::Eval(args) => args.ranks.run(args.source.device(), |_| false, |device, ranks| eval(args, device, ranks)),
        What::Run(args) => args.ranks.run(args.source.device(), |_| false, |device, ranks| detect(args, device, ranks)),
        What::Export(args) => export::run(args),
    }
}

fn say(notes: &[String]) {
    notes.iter().for_each(|note| eprintln!("note: {note}"));
}

/// What there is to say of key frames whose video cannot be used, or ends before them.
fn remarks(of_boxes: &BoxValues, found: &KeyFrames) -> Vec<String> {
    let (frames, mut notes) = (found.frames.len(), Vec::new());
    if let Some((key, why)) = of_boxes.bad.first() {
        let count = of_boxes.bad.len();
        notes.push(format!(
            "{count} of {frames} key frames were left out; the first, {} at {}, {why}",
            key.video, key.second
        ));
    }
    if let Some(key) = of_boxes.beyond.first() {
        notes.push(format!(
            "{} of {frames} key frames lie beyond the end of their video, whose last frame stands for them, as in \
             SlowFast's code; the first, {} at {}: videos begin at second 900 and have 30 frames a second",
            of_boxes.beyond.len(),
            key.video,
            key.second
        ));
    }
    notes
}

/// Reads a detector; it must be of the encoder with this digest.
fn open(path: &Path, encoder: &str) -> Result<DetectorFile, CliError> {
    let file = load_detector(path)?;
    if file.record.encoder != encoder {
        return Err(
            format!("{} was trained on another encoder; give that one with --checkpoint", path.display()).into()
        );
    }
    Ok(file)
}

impl Eval {
    /// Refuses files that are not there.
    fn ready(&self) -> Result<(), CliError> {
        all_there(&[("--videos", self.videos.as_deref()), ("--people", self.people.people.as_deref())])?;
        self.scoring.ready()
    }
}

fn eval(args: &Eval, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    args.ready()?;
    if let Some(path) = &args.detections {
        // There is nothing to share.
        return match ranks.rank() {
            0 => args.scoring.report(&[ava::read_detections(path)?], "of the file", args.json.then_some(&[])),
            _ => Ok(()),
        };
    }
    let Some(folder) = &args.videos else { return Err("which videos? give their folder with --videos".into()) };
    if args.out.is_some() && args.source.count() > 1 {
        return Err("--out is for the detections of one --detector: leave it out, or give one".into());
    }
    if let Some(out) = &args.out {
        let read = args.source.inputs();
        let read = read.iter().chain(&args.people.people).map(PathBuf::as_path).chain(args.scoring.inputs());
        files::spare("--out", out, &[out], read)?;
    }
    let source = args.source.open(device)?;
    let videos = Videos { videos: folder.clone() };
    let (found, boxes) = match &args.people.people {
        Some(path) => (videos.people(path, &args.people)?, "a person detector"),
        None => (videos.labelled(args.scoring.boxes())?, "the ground truth, which flatters"),
    };
    let Some(detected) = source.detections(&found, args.scoring.by_people(), ranks)? else { return Ok(()) };
    let Detected { rows, notes } = detected;
    if let (Some(out), [rows]) = (&args.out, rows.as_slice()) {
        write(out, rows)?;
    }
    args.scoring.report(&rows, &format!("boxes of {boxes}"), args.json.then_some(notes.as_slice()))
}

fn detect(args: &Run, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let Some(people) = &args.people.people else {
        return Err("which people? give the boxes of a person detector with --people CSV".into());
    };
    all_there(&[("--videos", Some(&args.videos.videos)), ("--people", Some(people))])?;
    if args.source.count() > 1 {
        return Err("detections are those of one --detector: give one".into());
    }
    let read = args.source.inputs();
    files::spare("--out", &args.out, &[&args.out], read.iter().chain([people]).map(PathBuf::as_path))?;
    let source = args.source.open(device)?;
    let found = args.videos.people(people, &args.people)?;
    let Some(Detected { rows, notes }) = source.detections(&found, args.by_people, ranks)? else { return Ok(()) };
    let rows: Vec<Row> = rows.into_iter().flatten().collect();
    write(&args.out, &rows)?;
    let boxes = rows.iter().filter(|row| row.action == 1).count();
    if args.json {
        let summary = serde_json::json!({"detections": args.out, "boxes": boxes, "rows": rows.len(), "notes": notes});
        println!("{summary}");
        return Ok(());
    }
    println!("wrote {} ({boxes} boxes, {} rows)", args.out.display(), rows.len());
    Ok(())
}
