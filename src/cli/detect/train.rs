//! `vjepa detect train`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::data::{KeyFrames, LabelMap, People, Videos};
use super::{remarks, say};
use crate::cli::CliError;
use crate::cli::data::share;
use crate::cli::device::RankArgs;
use crate::cli::encoder::Encoder;
use crate::cli::probe::Bar;
use vjepa_collective::Collective;
use vjepa_data::annotations::Share;
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::detection::{
    self, BoxEncoder, BoxValues, DetectorOptions, Frame, Lesson, View, default_layers,
};
use vjepa_eval::protocols::videos::OpenEncoder;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{DETECTOR_KEY, DetectorRecord, Probe, ProbeRecord};
use vjepa_runtime::plan::Device;

/// Train the classifier on boxes with their actions
///
/// With --people, boxes of a person detector are trained on beside those of --boxes, with the actions that their file gives them: one
/// without an action shows none.
#[derive(clap::Args)]
pub(super) struct Train {
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
    /// Train on the key frames of a share of the videos, e.g. 5%
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    subset: Option<Share>,
    /// Number of the random draw of --subset
    #[arg(long, default_value_t = 0, value_name = "N", requires = "subset")]
    split_seed: u64,
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
    #[command(flatten)]
    ranks: RankArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command, as one of several ranks where a launcher says so: they share the key frames, and rank 0 trains.
pub(super) fn run(args: &Train) -> Result<(), CliError> {
    args.ranks.run(&args.encoder.device, |_| false, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Train, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let map = args.actions.as_deref().map(LabelMap::read).transpose()?;
    let mut found = args.videos.lesson(&args.boxes, &args.people, map.as_ref())?;
    let names = map.map(|map| map.names).unwrap_or_default();
    // A share is of the same classes.
    let classes = args.classes(&names, &found)?;
    if let Some(share) = args.subset {
        found.keep_share(share, args.split_seed);
    }
    if ranks.rank() == 0 {
        say(&found.notes);
    }
    let mut opened = args.encoder.open_on(device)?;
    let record = args.record(&opened, names);
    let options = args.options();
    let lesson = Work { record: &record, found: &found, classes, options: &options, ranks };
    let trained = match args.augment {
        true => lesson.on_crops(&mut opened)?,
        false => lesson.on_frames(&mut opened)?,
    };
    let Some(trained) = trained else { return Ok(()) };
    let probe = Probe::Linear { embed_dim: trained.width, num_classes: classes };
    let extra = BTreeMap::from([(DETECTOR_KEY.to_owned(), serde_json::to_string(&record)?)]);
    save_probe(&args.out, &ProbeRecord::of(&probe, &[]), &trained.weights, &extra)?;
    args.report(&trained, &lesson);
    Ok(())
}

impl Train {
    /// How many actions there are: as many as the highest id that is named or shown.
    fn classes(&self, names: &BTreeMap<u32, String>, found: &KeyFrames) -> Result<usize, CliError> {
        let used = found.actions();
        let classes = names.keys().next_back().into_iter().chain(used.last()).max().copied().unwrap_or(0) as usize;
        if classes == 0 || used.contains(&0) {
            return Err(format!("{} must name actions by ids from 1", self.boxes.display()).into());
        }
        Ok(classes)
    }

    fn record(&self, opened: &OpenEncoder, actions: BTreeMap<u32, String>) -> DetectorRecord {
        let encoder = &opened.model.encoder;
        let layers = self.layers.clone().unwrap_or_else(|| match encoder.levels.as_slice() {
            [] => default_layers(encoder.depth),
            levels => levels.to_vec(),
        });
        DetectorRecord {
            frames: self.frames.unwrap_or(encoder.num_frames),
            step: self.step.into(),
            side: self.side.unwrap_or(encoder.height),
            layers,
            encoder: opened.digest.clone(),
            actions,
        }
    }

    fn options(&self) -> DetectorOptions {
        DetectorOptions {
            epochs: self.epochs as usize,
            warmup: self.warmup as usize,
            batch: self.batch.into(),
            lr: self.lr,
            weight_decay: self.wd,
            seed: self.seed,
        }
    }

    fn report(&self, trained: &Trained, work: &Work<'_>) {
        let Trained { loss, boxes, left_out, .. } = trained;
        let (frames, layers) = (work.found.frames.len(), &work.record.layers);
        let notes = [work.found.notes.as_slice(), &trained.notes].concat();
        if self.json {
            let summary = serde_json::json!({
                "detector": self.out, "actions": work.classes, "boxes": boxes, "key_frames": frames,
                "left_out": left_out, "loss": loss, "layers": layers, "notes": notes,
                "features":
                    if self.augment { "of random crops in every epoch" } else { "of whole frames, computed once" },
            });
            println!("{summary}");
            return;
        }
        println!("trained on {boxes} boxes of {} key frames; loss {loss:.4}", frames - left_out);
        println!("wrote {} ({} actions, blocks {layers:?})", self.out.display(), work.classes);
    }
}

/// A classifier, and what it was trained on.
struct Trained {
    weights: NamedTensors,
    loss: f64,
    boxes: usize,
    width: usize,
    /// Key frames whose video cannot be used.
    left_out: usize,
    /// What was said of key frames.
    notes: Vec<String>,
}

/// Key frames by which the time of an epoch is reckoned.
const TIMED: usize = 4;

/// What a classifier is trained on, and how.
struct Work<'a> {
    record: &'a DetectorRecord,
    found: &'a KeyFrames,
    classes: usize,
    options: &'a DetectorOptions,
    /// Processes that share the key frames.
    ranks: &'a dyn Collective,
}

impl Work<'_> {
    /// On features of whole frames, computed once; none on ranks other than 0.
    fn on_frames(&self, opened: &mut OpenEncoder) -> Result<Option<Trained>, CliError> {
        let (device, mut bar) = (opened.encoder.device(), Bar::of(self.ranks));
        let frames = &self.found.frames;
        let mut encoder = BoxEncoder::new(opened, self.record);
        let features = encoder.extract(frames, View::Whole, self.ranks, &mut |p| bar.show(p))?;
        bar.clear();
        let Some(features) = features else { return Ok(None) };
        let about = self.noted(&features);
        let mut of_epoch = |_: usize| Ok(Cow::Borrowed(&features));
        self.train(device, (features.width, features.boxes.len()), about, &mut of_epoch).map(Some)
    }

    /// On features of random crops, computed in every epoch; none on ranks other than 0.
    fn on_crops(&self, opened: &mut OpenEncoder) -> Result<Option<Trained>, CliError> {
        let (device, seed, frames) = (opened.encoder.device(), self.options.seed, &self.found.frames);
        let mut encoder = BoxEncoder::new(opened, self.record);
        let some = frames.get(..TIMED * self.ranks.world()).unwrap_or(frames);
        // Of those that cannot be used nothing is reckoned; the others may be fine.
        if let Some(each) = encoder.seconds_each(some, View::Random { seed, epoch: 0 }, self.ranks)? {
            self.estimate(each);
        }
        let mut extract = |frames: &[Frame], epoch: u64| {
            encoder.extract(frames, View::Random { seed, epoch }, self.ranks, &mut |_| {})
        };
        let Some(first) = extract(frames, 0)? else {
            // Rank 0 asks for every epoch.
            for epoch in 1..self.options.epochs as u64 {
                extract(frames, epoch)?;
            }
            return Ok(None);
        };
        let (width, about) = (first.width, self.noted(&first));
        let boxes = frames.iter().map(|frame| frame.regions.len()).sum();
        let mut first = Some(first);
        let mut of_epoch = |epoch: usize| match first.take() {
            Some(first) => Ok(Cow::Owned(first)),
            None => extract(frames, epoch as u64).map(|features| Cow::Owned(features.unwrap_or_default())),
        };
        self.train(device, (width, boxes), about, &mut of_epoch).map(Some)
    }

    /// How many key frames are left out, and what is said of those that are odd.
    fn noted(&self, features: &BoxValues) -> (usize, Vec<String>) {
        let notes = remarks(features, self.found);
        say(&notes);
        (features.bad.len(), notes)
    }

    /// Says how long the encoder will take, from the seconds that a key frame does.
    fn estimate(&self, each: f64) {
        let (frames, epochs) = (self.found.frames.len(), self.options.epochs);
        let minutes = each * (frames * epochs) as f64 / 60.0;
        eprintln!(
            "the encoder sees {frames} key frames in each of {epochs} epochs, about {minutes:.0} minutes; without --augment, once"
        );
    }

    fn train<'f>(
        &self,
        device: Device,
        (width, boxes): (usize, usize),
        (left_out, notes): (usize, Vec<String>),
        features: &mut dyn FnMut(usize) -> Result<Cow<'f, BoxValues>, vjepa_eval::EvalError>,
    ) -> Result<Trained, CliError> {
        let lesson = Lesson { width, boxes, classes: self.classes, features };
        let mut bar = Bar::of(self.ranks);
        let (weights, loss) = detection::train(device, lesson, self.options, &mut |p| bar.show(p))?;
        bar.clear();
        Ok(Trained { weights, loss, boxes, width, left_out, notes })
    }
}
