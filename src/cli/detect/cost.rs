//! What a detector's training and evaluation would cost.

use vjepa_data::detection::Placed;
use vjepa_graphs::EncoderConfig;
use vjepa_programs::{DetectorRecord, TrainOptions, box_features, describe, detector_step, encoder_config};
use vjepa_recipe::config::Config;

use super::data::{KeyFrames, LabelMap, Videos};
use super::train::Train;
use super::{Args, Eval, What};
use crate::cli::CliError;
use crate::cli::cost::{Assumed, Bill, Count, Once, here};

/// Actions of AVA, where the boxes are not here.
const ACTIONS: usize = 80;

impl Args {
    /// What `detect train`, and `detect eval` of what it makes, would cost on the encoder of a run.
    pub(in crate::cli) fn bill(&self, run: &Config, eval: &Self, assumed: Assumed) -> Result<Bill, CliError> {
        match (&self.what, &eval.what) {
            (What::Train(train), What::Eval(eval)) => train.bill(Some(run), Some(eval), assumed),
            _ => Err("a detector is trained and evaluated".into()),
        }
    }
}

impl Args {
    /// Refuses files that are not there, of training and evaluation.
    pub(in crate::cli) fn ready(&self) -> Result<(), CliError> {
        match &self.what {
            What::Train(train) => train.ready(),
            What::Eval(eval) => eval.ready(),
            What::Run(_) | What::Export(_) => Ok(()),
        }
    }
}

/// Key frames, and what is in them.
struct Seen {
    frames: Count,
    /// Boxes of a key frame.
    boxes: f64,
    /// Height and width of a video, of those that are here.
    size: Option<(usize, usize)>,
}

impl Seen {
    fn of(found: &KeyFrames) -> Self {
        let boxes: usize = found.frames.iter().map(|frame| frame.regions.len()).sum();
        let size = found.frames.iter().find_map(|frame| vjepa_video::probe(&frame.path).ok());
        Self {
            frames: Count::Listed(found.frames.len() as u64),
            boxes: boxes as f64 / found.frames.len().max(1) as f64,
            size: size.map(|info| (info.height(), info.width())),
        }
    }
}

impl Train {
    /// What it would cost, with the evaluation of what it makes: with the encoder of a run where one is given, else of the
    /// checkpoint.
    pub(super) fn bill(&self, run: Option<&Config>, eval: Option<&Eval>, assumed: Assumed) -> Result<Bill, CliError> {
        let encoder = match run {
            Some(run) => encoder_config(run)?,
            None => describe(&vjepa_weights::load(&self.encoder.checkpoint)?, self.encoder.config()?.as_ref())?.encoder,
        };
        if let Some(layers) = &self.layers {
            encoder.check_blocks(layers).map_err(|why| format!("--layers {why}"))?;
        }
        let record = self.record(&encoder, String::new(), Default::default());
        let (draws, actions) = self.seen(assumed)?;
        let (mut bill, epochs) = (Bill::default(), self.epochs as usize);
        for seen in &draws {
            let Some(frames) = known(&mut bill, "training", &seen.frames) else { continue };
            let times = if self.augment { epochs as u64 } else { 1 };
            let what = format!("encoder, training: {} key frames x {times} epochs", seen.frames);
            let once = self.features(&mut bill, &encoder, &record, seen)?;
            bill.add(what, (frames * times) as f64, once);
            let (width, boxes) = (record.layers.len() * encoder.embed_dim, (frames as f64 * seen.boxes) as u64);
            let batch = usize::from(self.batch);
            let steps = boxes.div_ceil(batch as u64) * epochs as u64;
            let graph = detector_step(width, actions, TrainOptions::default())?;
            bill.add(
                format!("classifier, {steps} steps of {batch} boxes"),
                steps as f64,
                Once::of(&graph, &[("R", batch)], 1)?,
            );
            bill.held = bill.held.max(boxes * (width * size_of::<f32>()) as u64);
        }
        if let Some(eval) = eval {
            let seen = eval.seen(assumed)?;
            if let Some(frames) = known(&mut bill, "evaluation", &seen.frames) {
                let whole = Self::whole(&mut bill, &encoder, &record, &seen)?;
                bill.add(format!("encoder, evaluation: {} key frames", seen.frames), frames as f64, whole);
            }
        }
        Ok(bill)
    }

    /// Key frames of each draw of --subset, and how many actions there are.
    fn seen(&self, assumed: Assumed) -> Result<(Vec<Seen>, usize), CliError> {
        let read = [Some(&self.boxes), Some(&self.videos.videos), self.people.people.as_ref(), self.actions.as_ref()];
        if let Some(absent) = read.into_iter().flatten().find(|path| !here(path)) {
            let share = self.subset.map_or(1.0, |share| share.fraction());
            let given = assumed.train.map(|all| (share * all as f64).round().max(1.0) as u64);
            let one = || Seen { frames: Count::absent(absent, given, "train"), boxes: 1.0, size: None };
            let actions = assumed.classes.map_or(ACTIONS, |classes| classes as usize);
            return Ok(((0..self.draws.seeds(self.subset).len().max(1)).map(|_| one()).collect(), actions));
        }
        let map = self.actions.as_deref().map(LabelMap::read).transpose()?;
        let found = self.videos.lesson(&self.boxes, &self.people, map.as_ref())?;
        let actions = self.classes(&map.map(|map| map.names).unwrap_or_default(), &found)?;
        Ok((self.shares(found).iter().map(Seen::of).collect(), actions))
    }

    /// Features of the boxes of a key frame.
    fn features(
        &self,
        bill: &mut Bill,
        encoder: &EncoderConfig,
        record: &DetectorRecord,
        seen: &Seen,
    ) -> Result<Once, CliError> {
        if !self.augment {
            return Self::whole(bill, encoder, record, seen);
        }
        let side = record.side / encoder.patch.max(1) * encoder.patch;
        of_boxes(encoder, record, (side, side), seen.boxes)
    }

    /// The same of whole frames.
    fn whole(bill: &mut Bill, encoder: &EncoderConfig, record: &DetectorRecord, seen: &Seen) -> Result<Once, CliError> {
        let frame = seen.size.unwrap_or_else(|| {
            let why = "the videos are not here, and square ones are counted, with one box each";
            bill.leave(format!("what frames are wider than high: {why}"));
            (record.side, record.side)
        });
        let size = Placed::of(frame, record.side, encoder.patch)?.size;
        of_boxes(encoder, record, size, seen.boxes)
    }
}

/// Features of the boxes of a key frame in a clip of a size.
fn of_boxes(
    encoder: &EncoderConfig,
    record: &DetectorRecord,
    (height, width): (usize, usize),
    boxes: f64,
) -> Result<Once, CliError> {
    let sized = encoder.clone().with_clip(record.frames, height, width);
    let sized = EncoderConfig { out_layers: Some(record.layers.clone()), ..sized };
    sized.validate()?;
    Once::of(&box_features(&sized)?, &[("B", 1), ("R", (boxes.ceil() as usize).max(1))], 1)
}

impl Eval {
    /// The key frames that it would see.
    fn seen(&self, assumed: Assumed) -> Result<Seen, CliError> {
        let Some(videos) = &self.videos else { return Err("which videos? give their folder with --videos".into()) };
        let boxes = self.people.people.as_deref().unwrap_or_else(|| self.scoring.boxes());
        if let Some(absent) = [boxes, videos.as_path()].into_iter().find(|path| !here(path)) {
            return Ok(Seen { frames: Count::absent(absent, assumed.val, "val"), boxes: 1.0, size: None });
        }
        let videos = Videos { videos: videos.clone() };
        let found = match &self.people.people {
            Some(path) => videos.people(path, &self.people)?,
            None => videos.labelled(self.scoring.boxes())?,
        };
        Ok(Seen::of(&found))
    }
}

/// The number of key frames, or a remark on why it is not known.
fn known(bill: &mut Bill, what: &str, frames: &Count) -> Option<u64> {
    match frames.known() {
        Ok(frames) => Some(frames),
        Err(why) => {
            bill.leave(format!("{what}: {why}"));
            None
        }
    }
}
