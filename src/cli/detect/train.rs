//! `vjepa detect train`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use super::data::{KeyFrames, LabelMap, People, Videos};
use super::{remarks, say};
use crate::cli::CliError;
use crate::cli::cost::DryRun;
use crate::cli::data::{Draws, share};
use crate::cli::device::RankArgs;
use crate::cli::encoder::Encoder;
use crate::cli::given::all_there;
use crate::cli::probe::Bar;
use crate::cli::visualize::written_as;
use crate::cli::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::annotations::Share;
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::detection::{
    self, BoxEncoder, BoxValues, DetectorOptions, FrameView, LabelledFrame, Lesson, default_layers,
};
use vjepa_eval::protocols::videos::OpenEncoder;
use vjepa_graphs::{EncoderConfig, NamedTensors};
use vjepa_metrics::Figure;
use vjepa_programs::{DETECTOR_KEY, DetectorRecord, Probe, ProbeRecord};
use vjepa_recipe::draws::in_words;
use vjepa_runtime::files;
use vjepa_runtime::plan::Device;

/// Train the classifier on boxes with their actions
///
/// With --people, boxes of a person detector are trained on beside those of --boxes, with the actions that their file gives
/// them: one without an action shows none.
#[derive(clap::Args)]
pub(super) struct Train {
    #[command(flatten)]
    pub(super) encoder: Encoder,
    /// Boxes with actions: video,second,x1,y1,x2,y2,action[,person]
    #[arg(long, value_name = "CSV")]
    pub(super) boxes: PathBuf,
    #[command(flatten)]
    pub(super) videos: Videos,
    #[command(flatten)]
    pub(super) people: People,
    /// Train on random crops, sizes and flips, whose features are computed anew in every epoch
    #[arg(long)]
    pub(super) augment: bool,
    /// Train on the key frames of a share of the videos, e.g. 5%; of several draws each has a detector of its own (OUT-split-0,
    /// OUT-split-1, ...), for `detect eval` to average
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    pub(super) subset: Option<Share>,
    #[command(flatten)]
    pub(super) draws: Draws,
    /// Names of the actions (.pbtxt); the classifier has as many outputs as the highest id [default: of the boxes]
    #[arg(long, value_name = "FILE")]
    pub(super) actions: Option<PathBuf>,
    /// Where to write the detector
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Frames of a clip [default: the encoder's]
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Frames from one of a clip to the next
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = whole::<u16>(1..))]
    step: u16,
    /// Short side of a clip in pixels; the other is cut to whole patches [default: the encoder's]
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Blocks whose outputs are read, from 0, e.g. 17,19,21,23 [default: four of the last third]
    #[arg(long, alias = "out-layers", value_name = "N,...", value_delimiter = ',')]
    pub(super) layers: Option<Vec<usize>>,
    /// Number of epochs
    #[arg(long, default_value_t = 30, value_parser = whole::<u32>(1..))]
    pub(super) epochs: u32,
    /// Epochs of warm-up
    #[arg(long, default_value_t = 2)]
    warmup: u32,
    /// Batch size in boxes
    #[arg(long, default_value_t = 64, value_parser = whole::<u16>(1..))]
    pub(super) batch: u16,
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
    #[command(flatten)]
    dry: DryRun,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command, as one of several ranks where a launcher says so: they share the key frames, and rank 0 trains.
pub(super) fn run(args: &Train) -> Result<(), CliError> {
    if args.dry.dry_run {
        args.dry.print(&args.bill(None, None, args.dry.assumed()?)?, args.json);
        return Ok(());
    }
    args.ranks.run(&args.encoder.device, |_| false, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Train, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    args.ready()?;
    args.spare_inputs()?;
    let map = args.actions.as_deref().map(LabelMap::read).transpose()?;
    let found = args.videos.lesson(&args.boxes, &args.people, map.as_ref())?;
    let names = map.map(|map| map.names).unwrap_or_default();
    // A share is of the same classes.
    let classes = args.classes(&names, &found)?;
    let draws = args.shares(found);
    if let (0, Some(first)) = (ranks.rank(), draws.first()) {
        say(&first.notes);
    }
    let mut opened = args.encoder.open_on(device)?;
    if let Some(layers) = &args.layers {
        opened.model.encoder.check_blocks(layers).map_err(|why| format!("--layers {why}"))?;
    }
    let record = args.record(&opened.model.encoder, opened.digest.clone(), names);
    if record.frames == 0 || !record.frames.is_multiple_of(opened.model.encoder.tubelet) {
        let (frames, tubelet) = (record.frames, opened.model.encoder.tubelet);
        return Err(
            format!("--frames {frames}: clips are cut into steps of {tubelet} frames: give a multiple of it").into()
        );
    }
    let options = args.options();
    let work = Work { record: &record, classes, options: &options, ranks };
    let trained = match args.augment {
        true => {
            // Ranks other than 0 encode for all of them.
            let all: Vec<Option<Trained>> =
                draws.iter().map(|found| work.on_crops(&mut opened, found)).collect::<Result<_, CliError>>()?;
            all.into_iter().collect::<Option<Vec<Trained>>>()
        }
        false => work.on_frames(&mut opened, &draws)?,
    };
    let Some(trained) = trained else { return Ok(()) };
    let runs: Vec<Run<'_>> = draws
        .iter()
        .zip(&trained)
        .enumerate()
        .map(|(number, (found, trained))| Run { out: args.file(number, draws.len()), found, trained })
        .collect();
    for Run { out, trained, .. } in &runs {
        let probe = Probe::Linear { embed_dim: trained.width, num_classes: classes };
        let extra = BTreeMap::from([(DETECTOR_KEY.to_owned(), serde_json::to_string(&record)?)]);
        save_probe(out, &ProbeRecord::of(&probe, &[]), &trained.weights, &extra)?;
    }
    args.report(&runs, &work);
    Ok(())
}

impl Train {
    /// Refuses files that are not there, and rates that train nothing.
    pub(super) fn ready(&self) -> Result<(), CliError> {
        all_there(&[
            ("--boxes", Some(&self.boxes)),
            ("--videos", Some(&self.videos.videos)),
            ("--people", self.people.people.as_deref()),
            ("--actions", self.actions.as_deref()),
        ])?;
        let good = self.lr.is_finite() && self.lr > 0.0 && self.wd.is_finite() && self.wd >= 0.0;
        if good { Ok(()) } else { Err("--lr must be positive and --wd must not be negative".into()) }
    }

    /// Refuses a detector in the place of what is read, and one by another name than detectors are read by.
    fn spare_inputs(&self) -> Result<(), CliError> {
        written_as(&self.out, &["safetensors"])?;
        let read = self.encoder.inputs();
        let read = read.iter().chain([&self.boxes]).chain(&self.people.people).chain(&self.actions);
        // With one draw it is the file itself.
        let draws = self.draws.seeds(self.subset).len().max(1);
        let written: Vec<PathBuf> = (0..draws).map(|number| self.file(number, draws)).collect();
        Ok(files::spare("--out", &self.out, &written, read.map(PathBuf::as_path))?)
    }

    /// How many actions there are: as many as the highest id that is named or shown.
    pub(super) fn classes(&self, names: &BTreeMap<u32, String>, found: &KeyFrames) -> Result<usize, CliError> {
        let used = found.actions();
        let classes = names.keys().next_back().into_iter().chain(used.last()).max().copied().unwrap_or(0) as usize;
        if classes == 0 || used.contains(&0) {
            return Err(format!("{} must name actions by ids from 1", self.boxes.display()).into());
        }
        Ok(classes)
    }

    /// What is to be said of the detector of an encoder whose file has a digest.
    pub(super) fn record(
        &self,
        encoder: &EncoderConfig,
        digest: String,
        actions: BTreeMap<u32, String>,
    ) -> DetectorRecord {
        let layers = self.layers.clone().unwrap_or_else(|| match encoder.levels.as_slice() {
            [] => default_layers(encoder.depth),
            levels => levels.to_vec(),
        });
        DetectorRecord {
            frames: self.frames.unwrap_or(encoder.num_frames),
            step: self.step.into(),
            side: self.side.unwrap_or(encoder.height),
            layers,
            encoder: digest,
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

    /// The key frames of each draw of --subset, or all.
    pub(super) fn shares(&self, found: KeyFrames) -> Vec<KeyFrames> {
        match self.subset {
            None => vec![found],
            Some(share) => self.draws.seeds(self.subset).into_iter().map(|seed| found.share(share, seed)).collect(),
        }
    }

    /// Where the detector of a draw is written: to --out, or where there are several beside it.
    fn file(&self, number: usize, of: usize) -> PathBuf {
        if of == 1 {
            return self.out.clone();
        }
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let (stem, ending) = (part(self.out.file_stem()), part(self.out.extension()));
        let dot = if ending.is_empty() { "" } else { "." };
        self.out.with_file_name(format!("{stem}-split-{number}{dot}{ending}"))
    }

    fn report(&self, runs: &[Run<'_>], work: &Work<'_>) {
        let losses: Vec<f64> = runs.iter().map(|run| run.trained.loss).collect();
        let Figure { mean, se } = Figure::of(&losses);
        let layers = &work.record.layers;
        if self.json {
            let mut summary = match runs {
                [only] => only.json(),
                _ => serde_json::json!({
                    "splits": runs.len(), "runs": runs.iter().map(Run::json).collect::<Vec<_>>(), "loss": mean,
                    "loss_standard_error": se,
                }),
            };
            summary["split_seeds"] = serde_json::json!(self.draws.seeds(self.subset));
            summary["actions"] = work.classes.into();
            summary["layers"] = serde_json::json!(layers);
            summary["features"] =
                if self.augment { "of random crops in every epoch" } else { "of whole frames, computed once" }.into();
            println!("{summary}");
            return;
        }
        for Run { out, found, trained: Trained { loss, boxes, left_out, .. } } in runs {
            println!("trained on {boxes} boxes of {} key frames; loss {loss:.4}", found.frames.len() - left_out);
            println!("wrote {} ({} actions, blocks {layers:?})", out.display(), work.classes);
        }
        if runs.len() > 1 {
            println!(
                "mean of {} splits ({}): loss {mean:.4} \u{b1} {se:.4}; `detect eval` takes all their detectors",
                runs.len(),
                in_words(&self.draws.seeds(self.subset))
            );
        }
    }
}

/// What one draw came to.
struct Run<'a> {
    out: PathBuf,
    found: &'a KeyFrames,
    trained: &'a Trained,
}

impl Run<'_> {
    fn json(&self) -> serde_json::Value {
        let Trained { loss, boxes, left_out, notes, .. } = self.trained;
        let notes = [self.found.notes.as_slice(), notes].concat();
        serde_json::json!({
            "detector": self.out, "boxes": boxes, "key_frames": self.found.frames.len(), "left_out": left_out, "loss": loss,
            "notes": notes,
        })
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
    classes: usize,
    options: &'a DetectorOptions,
    /// Processes that share the key frames.
    ranks: &'a dyn Collective,
}

impl Work<'_> {
    /// A classifier for each draw, on features of whole frames, computed once; none on ranks other than 0.
    fn on_frames(&self, opened: &mut OpenEncoder, draws: &[KeyFrames]) -> Result<Option<Vec<Trained>>, CliError> {
        let (device, mut bar) = (opened.encoder.device(), Bar::of(self.ranks));
        let all = match draws {
            [only] => Cow::Borrowed(only),
            draws => Cow::Owned(KeyFrames::of_draws(draws)),
        };
        let mut encoder = BoxEncoder::new(opened, self.record);
        let features = encoder.extract(&all.frames, FrameView::Whole, self.ranks, &mut |p| bar.show(p))?;
        bar.clear();
        let Some(features) = features else { return Ok(None) };
        say(&remarks(&features, &all));
        let train = |found: &KeyFrames| {
            let own = found.values(&features);
            if own.boxes.is_empty() {
                return Err("none of the key frames of a draw of --subset can be used: take a larger share".into());
            }
            let about = (own.bad.len(), remarks(&own, found));
            let mut of_epoch = |_: usize| Ok(Cow::Borrowed(&own));
            self.train(device, (own.width, own.boxes.len()), about, &mut of_epoch)
        };
        draws.iter().map(train).collect::<Result<_, CliError>>().map(Some)
    }

    /// On features of random crops, computed in every epoch; none on ranks other than 0.
    fn on_crops(&self, opened: &mut OpenEncoder, found: &KeyFrames) -> Result<Option<Trained>, CliError> {
        let (device, seed, frames) = (opened.encoder.device(), self.options.seed, &found.frames);
        let mut encoder = BoxEncoder::new(opened, self.record);
        let some = frames.get(..TIMED * self.ranks.world()).unwrap_or(frames);
        // Of those that cannot be used nothing is reckoned; the others may be fine.
        if let Some(each) = encoder.seconds_each(some, FrameView::Random { seed, epoch: 0 }, self.ranks)? {
            self.estimate(each, frames.len());
        }
        let mut extract = |frames: &[LabelledFrame], epoch: u64| {
            encoder.extract(frames, FrameView::Random { seed, epoch }, self.ranks, &mut |_| {})
        };
        let Some(first) = extract(frames, 0)? else {
            // Rank 0 asks for every epoch.
            for epoch in 1..self.options.epochs as u64 {
                extract(frames, epoch)?;
            }
            return Ok(None);
        };
        let (width, about) = (first.width, (first.bad.len(), remarks(&first, found)));
        say(&about.1);
        let boxes = frames.iter().map(|frame| frame.regions.len()).sum();
        let mut first = Some(first);
        let mut of_epoch = |epoch: usize| match first.take() {
            Some(first) => Ok(Cow::Owned(first)),
            None => extract(frames, epoch as u64).map(|features| Cow::Owned(features.unwrap_or_default())),
        };
        self.train(device, (width, boxes), about, &mut of_epoch).map(Some)
    }

    /// Says how long the encoder will take, from the seconds that a key frame does.
    fn estimate(&self, each: f64, frames: usize) {
        let epochs = self.options.epochs;
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
