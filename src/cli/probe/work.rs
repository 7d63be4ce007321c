//! The work of `vjepa probe`: features or augmented clips, all heads on them, once for each split of the training samples.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vjepa_collective::Collective;
use vjepa_data::annotations::subset;
use vjepa_data::{BadVideo, SamplePlan, TrainPlan, VideoEntry};
use vjepa_eval::OnProgress;
use vjepa_eval::features::Keep;
use vjepa_eval::protocols::heads::{Head, HeadKind, Learned, ProbeTask, Samples, scores, train};
use vjepa_eval::protocols::online::{OnlineSet, train_online};
use vjepa_eval::protocols::videos::{self, SampleSet, features_of};
use vjepa_eval::videos::VideoFeatures;
use vjepa_metrics::Confusion;
use vjepa_recipe::records::Accuracy;
use vjepa_runtime::plan::Device;

use super::lists::Lists;
use super::{Args, classes, time_in_words};
use crate::cli::CliError;
use crate::cli::frozen::{Kind, Opened, Reads, Setup};

/// Where features come from.
pub(super) enum FeatureSource {
    /// An encoder, over the samples of the lists.
    Encoder,
    /// Files.
    Features { train: Box<VideoFeatures>, val: Option<Box<VideoFeatures>> },
}

/// Everything that is the same for all heads and splits.
pub(super) struct Work<'a> {
    source: FeatureSource,
    pub encoder: Option<Opened>,
    pub(super) plans: Option<[SamplePlan; 2]>,
    pub attend: bool,
    pub clips: usize,
    online: bool,
    pub(super) cache: Option<PathBuf>,
    flip: bool,
    /// Training samples of each split.
    splits: Vec<Vec<VideoEntry>>,
    /// Their seeds; none where all samples are trained on.
    seeds: Vec<u64>,
    lists: &'a Lists,
    /// Processes that share the samples.
    pub(super) ranks: &'a dyn Collective,
}

/// How one head did.
#[derive(Clone, Debug, Default)]
pub(super) struct HeadResult {
    /// On the samples it was trained on and on the others, once for each split.
    pub train: Vec<Accuracy>,
    pub val: Vec<Accuracy>,
    /// Why it has no accuracy.
    pub diverged: Option<String>,
    /// What it learned on the first split.
    pub learned: Option<Learned>,
    /// Of the first split: on the other samples, or without any on those it was trained on.
    pub confusion: Option<Confusion>,
}

impl HeadResult {
    /// The figure that heads are compared by.
    fn figure(&self) -> Option<f64> {
        let of = if self.val.is_empty() { &self.train } else { &self.val };
        (!of.is_empty() && self.diverged.is_none())
            .then(|| of.iter().map(|one| one.top1).sum::<f64>() / of.len() as f64)
    }
}

/// What came of all heads.
pub(super) struct Outcome {
    /// In their order.
    pub runs: Vec<HeadResult>,
    /// The best of those that have weights.
    pub best: Option<usize>,
    pub bad: Vec<BadVideo>,
    /// Whether the training features were found in the cache.
    pub cached: bool,
    /// Whether clips were augmented.
    pub online: bool,
    pub splits: usize,
    /// Seeds of the splits; none where all samples were trained on.
    pub seeds: Vec<u64>,
}

/// Features that do not change from split to split.
struct Fixed {
    /// Of the training samples of all splits, where they are needed.
    train: Option<VideoFeatures>,
    /// Of the other samples, with their classes.
    val: Option<(VideoFeatures, Vec<usize>)>,
}

impl<'a> Work<'a> {
    /// Opens the encoder and settles what is done.
    pub fn open(
        args: &Args,
        setup: &Setup,
        device: Device,
        lists: &'a Lists,
        source: FeatureSource,
        ranks: &'a dyn Collective,
    ) -> Result<Self, CliError> {
        let seeds = args.draws.seeds(args.subset);
        let splits = match args.subset {
            None => vec![lists.train.entries.clone()],
            Some(share) => {
                let mut splits = Vec::new();
                for (number, seed) in seeds.iter().enumerate() {
                    let chosen = subset(&lists.train, share, *seed)?;
                    if number == 0 && ranks.rank() == 0 {
                        chosen.notes.iter().for_each(|note| eprintln!("note: {note}"));
                    }
                    splits.push(chosen.of(&lists.train).entries);
                }
                splits
            }
        };
        let attend = setup.attends() && !args.clips_apart;
        let [own_clips, own_views] = setup.clips_and_views();
        let (clips, views) = (args.clips.map_or(own_clips, usize::from), args.views.map_or(own_views, usize::from));
        let cache = args.cache.folder(&args.out);
        let online = args.online || (setup.augments() && !args.cached && args.features.is_none());
        if let Some(kind) = args.kind.iter().find(|kind| online && !kind.is_stepped()) {
            let name = kind.name();
            return Err(format!("{name} needs features that stay the same: use --cached, or leave it out").into());
        }
        let flip =
            setup.official.is_none() && setup.config.as_ref().is_some_and(|config| config.data_aug.horizontal_flip);
        let mut work = Self {
            source,
            encoder: None,
            plans: None,
            attend,
            clips,
            online,
            cache,
            flip,
            splits,
            seeds,
            lists,
            ranks,
        };
        if matches!(work.source, FeatureSource::Encoder) {
            let kind = Kind::of(&lists.train)?;
            if let Some(val) = &lists.val
                && Kind::of(val)? != kind
            {
                let other = Kind::of(val)?.word();
                return Err(format!("--data holds {} and --val {other}: evaluate them apart", kind.word()).into());
            }
            let opened =
                Opened::open(&args.encoder, setup, device, kind, Reads { layers: None, heads: args.probe_heads })?;
            let random = args.encoder.official_validation.then_some(args.seed);
            let train = opened.plan(kind, [clips, 1], None)?;
            work.plans = Some([train, opened.plan(kind, [clips, views], random)?]);
            work.encoder = Some(opened);
            let why = if args.online || args.cached { "" } else { ", as the configuration asks for augmentation" };
            if work.online && ranks.rank() == 0 {
                eprintln!(
                    "training with augmentation, the encoder in the loop{why} (--cached trains on fixed features)"
                );
            }
        }
        Ok(work)
    }

    /// Width of the features.
    pub fn width(&self) -> usize {
        match (&self.encoder, &self.source) {
            (Some(opened), _) => opened.encoder.tokens()[1],
            (None, FeatureSource::Features { train, .. }) => train.features.dim,
            (None, FeatureSource::Encoder) => 0,
        }
    }

    /// Trains and evaluates all heads; none on ranks other than 0.
    pub fn run(
        &mut self,
        args: &Args,
        task: &ProbeTask,
        heads: &[Head],
        lists: &Lists,
        names: &[String],
        progress: OnProgress<'_>,
    ) -> Result<Option<Outcome>, CliError> {
        let keep = if heads.iter().any(|head| head.kind == HeadKind::Attentive) { Keep::Tokens } else { Keep::Mean };
        let mut outcome = Outcome {
            runs: vec![HeadResult::default(); heads.len()],
            best: None,
            bad: Vec::new(),
            cached: false,
            online: self.online,
            splits: self.splits.len(),
            seeds: self.seeds.clone(),
        };
        let all = self.all_entries();
        // With augmentation, features of training samples are needed only where there are no others to evaluate on.
        let fixed = !self.online || lists.val.is_none();
        let train_features = match fixed {
            true => self.features(0, &all, keep, progress)?.map(|(features, cached)| {
                outcome.cached = cached;
                outcome.bad.extend(features.bad.iter().cloned());
                features
            }),
            false => None,
        };
        let parts = lists.val.as_ref().map(|list| self.in_parts(&list.entries, keep)).transpose()?.unwrap_or_default();
        let val = match lists.val.as_ref().filter(|_| !parts) {
            Some(list) => match self.features(1, &list.entries, keep, progress)? {
                Some((features, _)) => {
                    outcome.bad.extend(features.bad.iter().cloned());
                    let classes = classes(&features.labels, lists.from(), names)?;
                    Some((features, classes))
                }
                None => None,
            },
            None => None,
        };
        let fixed = Fixed { train: train_features, val };
        let mut learned = Vec::new();
        let takes_part = self.ranks.rank() == 0 || self.online;
        for number in (0..self.splits.len()).filter(|_| takes_part) {
            learned.extend(self.split(
                number,
                args,
                task,
                heads,
                (lists.from(), names),
                &fixed,
                &mut outcome,
                progress,
            )?);
        }
        if let Some(list) = lists.val.as_ref().filter(|_| parts) {
            self.evaluate(&list.entries, keep, task, (lists.from(), names), &learned, &mut outcome, progress)?;
        }
        for (run, learned) in outcome.runs.iter_mut().zip(learned.into_iter().next().unwrap_or_default()) {
            run.learned = Some(learned);
        }
        if self.ranks.rank() != 0 {
            return Ok(None);
        }
        let has_weights = |run: &HeadResult| matches!(run.learned, Some(Learned::Probe { .. }));
        let figures = outcome.runs.iter().enumerate().filter(|(_, run)| has_weights(run));
        let figures = figures.filter_map(|(head, run)| Some((head, run.figure()?)));
        outcome.best = figures.reduce(|best, next| if next.1 > best.1 { next } else { best }).map(|(head, _)| head);
        // In the order in which they were met, each once.
        let mut met = BTreeSet::new();
        outcome.bad.retain(|bad| met.insert(bad.path.clone()));
        Ok(Some(outcome))
    }

    /// Trains all heads on one split, and measures them; none on ranks other than 0.
    #[allow(clippy::too_many_arguments)]
    fn split(
        &mut self,
        number: usize,
        args: &Args,
        task: &ProbeTask,
        heads: &[Head],
        (from, names): (i64, &[String]),
        fixed: &Fixed,
        outcome: &mut Outcome,
        progress: OnProgress<'_>,
    ) -> Result<Option<Vec<Learned>>, CliError> {
        let entries = self.splits.get(number).cloned().unwrap_or_default();
        let own = fixed.train.as_ref().map(|features| self.of_split(features, &entries));
        let own_classes = own.as_ref().map(|own| classes(&own.labels, from, names)).transpose()?.unwrap_or_default();
        let learned = match (self.online, &own) {
            (false, Some(own)) => {
                let samples = Samples { features: &own.features, classes: &own_classes, rows: own.rows() };
                Some(train(task, heads, samples, progress)?)
            }
            _ => self.online(args, task, heads, &entries, names, (number == 0, &mut outcome.bad), progress)?,
        };
        // The other ranks have learned nothing.
        let Some(learned) = learned else { return Ok(None) };
        for (run, learned) in outcome.runs.iter_mut().zip(&learned) {
            if let Learned::Diverged(why) = learned {
                run.diverged = Some(why.clone());
                continue;
            }
            // A sample is its own nearest neighbour.
            if let Some(own) = own.as_ref().filter(|_| !matches!(learned, Learned::Neighbours { .. })) {
                let samples = Samples { features: &own.features, classes: &own_classes, rows: own.rows() };
                run.measure(task, learned, samples, (false, number == 0 && self.lists.val.is_none()))?;
            }
            if let Some((features, classes)) = &fixed.val {
                let samples = Samples { features: &features.features, classes, rows: features.rows() };
                run.measure(task, learned, samples, (true, number == 0))?;
            }
        }
        Ok(Some(learned))
    }

    /// The samples of all splits, in the order of the list.
    fn all_entries(&self) -> Vec<VideoEntry> {
        match self.splits.as_slice() {
            [only] => only.clone(),
            splits => {
                let wanted: BTreeSet<&Path> = splits.iter().flatten().map(|entry| entry.path.as_path()).collect();
                let all = &self.lists.train.entries;
                all.iter().filter(|entry| wanted.contains(entry.path.as_path())).cloned().collect()
            }
        }
    }

    /// The features of a split's samples.
    fn of_split<'f>(&self, features: &'f VideoFeatures, entries: &[VideoEntry]) -> Cow<'f, VideoFeatures> {
        match self.splits.len() {
            1 => Cow::Borrowed(features),
            _ => Cow::Owned(features.of_paths(&entries.iter().map(|entry| entry.path.as_path()).collect())),
        }
    }

    /// Features of samples, with the plan of training (0) or of evaluation (1); none on ranks other than 0.
    fn features(
        &mut self,
        plan: usize,
        entries: &[VideoEntry],
        keep: Keep,
        progress: OnProgress<'_>,
    ) -> Result<Option<(VideoFeatures, bool)>, CliError> {
        match (&mut self.encoder, &self.plans, &self.source) {
            (Some(opened), Some(plans), _) => {
                let (plan, attend, cache, ranks) = (plans[plan].clone(), self.attend, self.cache.clone(), self.ranks);
                let set = SampleSet { entries, plan, attend, cache, ranks };
                Ok(features_of(opened.encoder.as_mut(), &opened.id, &set, keep, progress)?)
            }
            (_, _, FeatureSource::Features { train, val }) => match (plan, val) {
                (0, _) => Ok(Some(((**train).clone(), false))),
                (_, Some(val)) => Ok(Some(((**val).clone(), false))),
                (_, None) => Err("there are no features to evaluate on".into()),
            },
            _ => Err("there is no encoder".into()),
        }
    }

    /// What heads learn of augmented samples; none on ranks other than 0.
    #[allow(clippy::too_many_arguments)]
    fn online(
        &mut self,
        args: &Args,
        task: &ProbeTask,
        heads: &[Head],
        entries: &[VideoEntry],
        names: &[String],
        (first, bad): (bool, &mut Vec<BadVideo>),
        progress: OnProgress<'_>,
    ) -> Result<Option<Vec<Learned>>, CliError> {
        let (Some(opened), Some([plan, _])) = (&mut self.encoder, &self.plans) else {
            return Err("features from a file cannot be augmented: leave --online out".into());
        };
        let labels: Vec<i64> = entries.iter().map(|entry| entry.label.unwrap_or(-1)).collect();
        let classes = classes(&labels, self.lists.from(), names)?;
        let plan = TrainPlan::of(plan, self.flip)?;
        let set = OnlineSet { entries, classes: &classes, plan, clips: self.clips, attend: self.attend };
        let (splits, quiet, ranks) = (self.splits.len(), args.json || self.ranks.rank() != 0, self.ranks);
        let mut say = |time: Duration| {
            if first && !quiet {
                eprintln!("training takes about {} (measured on the first batch)", time_in_words(time * splits as u32));
            }
        };
        let online = train_online(task, heads, opened.encoder.as_mut(), &set, ranks, &mut say, progress)?;
        Ok(online.map(|online| {
            bad.extend(online.bad);
            online.learned
        }))
    }
}

impl HeadResult {
    fn measure(
        &mut self,
        task: &ProbeTask,
        learned: &Learned,
        samples: Samples<'_>,
        (others, confused): (bool, bool),
    ) -> Result<(), CliError> {
        let Some(scores) = scores(task, learned, samples)? else { return Ok(()) };
        let accuracy = videos::accuracy(&scores, task.classes, samples.classes);
        if others { &mut self.val } else { &mut self.train }.push(accuracy);
        if confused {
            self.confusion = Some(Confusion::of(&scores, task.classes, samples.classes)?);
        }
        Ok(())
    }
}
