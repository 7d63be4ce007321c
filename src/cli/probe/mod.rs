//! `vjepa probe`: classifiers on a frozen encoder.

mod bar;
mod cost;
mod lists;
mod parts;
mod paths;
mod report;
mod work;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::CliError;
use super::cost::DryRun;
use super::data::{Draws, share};
use super::device::{DeviceArg, RankArgs};
use super::frozen::{EncoderArgs, Setup};
use super::named::named;
use super::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::annotations::Share;
use vjepa_data::{BadVideo, VideoEntry, VideoList};
use vjepa_eval::ProbeOptions;
use vjepa_eval::foreign::{features_file, probe_heads};
use vjepa_eval::labels::ClassNames;
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::heads::{Head, HeadKind, Learned, ProbeTask};
use vjepa_eval::protocols::videos::classes_of;
use vjepa_eval::videos::VideoFeatures;
use vjepa_graphs::ProbeConfig;
use vjepa_programs::ProbeRecord;
use vjepa_recipe::config::Config;
use vjepa_recipe::config::evaluation::FINAL_WEIGHT_DECAY;
use vjepa_recipe::records::PROBE_RESULT_KEY;
use vjepa_runtime::plan::Device;
use vjepa_train::{CheckpointRecord, clips_seen};

pub(super) use bar::{Bar, time_in_words};
use lists::Lists;
pub(super) use lists::{of, read_notes};
use report::Report;
pub(super) use report::{mean, save_confusion, spare_by_results, standard_error};
use work::{FeatureSource, Outcome, Work};

/// Train classifiers (probes) on the features of a frozen encoder
///
/// Several kinds, learning rates and weight decays are trained side by side on one pass of the encoder; the best is written.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    encoder: EncoderArgs,
    /// Features computed elsewhere instead of an encoder: safetensors with `features` [samples, N, D] and `labels` [samples]
    #[arg(long, value_name = "FILE", conflicts_with_all = [
        "checkpoint", "encoder", "config", "data", "val", "online", "subset", "clips", "views", "clips_apart", "still_frames",
        "official_validation", "cache", "no_cache"])]
    features: Option<PathBuf>,
    /// Features of other samples to evaluate on
    #[arg(long, value_name = "FILE", requires = "features")]
    val_features: Option<PathBuf>,
    /// Labelled samples to train on: a list with one "path label" per line, paths relative to the list's folder, shards, or a
    /// folder with a folder of pictures for each class
    #[arg(long, value_name = "LIST|FOLDER")]
    data: Option<PathBuf>,
    /// Labelled samples to evaluate on, with the labels of --data
    #[arg(long, value_name = "LIST|FOLDER")]
    val: Option<PathBuf>,
    /// Kinds of probes, separated by commas
    #[arg(long, value_parser = named(&HeadKind::ALL, HeadKind::name, HeadKind::about), default_value = "attentive",
          value_delimiter = ',')]
    kind: Vec<HeadKind>,
    /// Where to write the probe that does best on --val, or without one on --data
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Clips per video [default: 1, or those of the official evaluation]
    #[arg(long, value_parser = whole::<u16>(1..))]
    clips: Option<u16>,
    /// Views per clip of --val, whose predictions are averaged [default: 1, or those of the official evaluation]
    #[arg(long, value_parser = whole::<u16>(1..))]
    views: Option<u16>,
    /// Classify every clip of a video on its own and average, instead of joining their tokens
    #[arg(long)]
    clips_apart: bool,
    /// File with one class name per line; the first is that of label 0 unless --labels-from says otherwise
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Label of the first name: 1 for lists that number their classes from 1 (UCF101, HMDB51)
    #[arg(long, value_name = "N", requires = "names", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Number of epochs (attentive, average) [default: 20]
    #[arg(long, value_parser = whole::<u32>(1..))]
    epochs: Option<u32>,
    /// Batch size in samples (attentive, average) [default: 16]
    #[arg(long, value_parser = whole::<u16>(1..))]
    batch: Option<u16>,
    /// Learning rates, separated by commas: one probe for each (attentive, average) [default: 0.001]
    #[arg(long, value_delimiter = ',', value_name = "LR")]
    lr: Vec<f64>,
    /// Weight decays at the start, separated by commas: one probe for each (attentive, average) [default: 0.01]
    #[arg(long, value_delimiter = ',', value_name = "WD")]
    wd: Vec<f64>,
    /// Neighbours that vote (knn)
    #[arg(long, default_value_t = 20, value_name = "K", value_parser = whole::<u32>(1..))]
    neighbours: u32,
    /// Attention heads of attentive probes for features given with --features or made by --encoder [default: one for every 64
    /// channels]
    #[arg(long, value_name = "N")]
    probe_heads: Option<usize>,
    /// Encode every sample once, unaugmented, and train on these features [default, unless the configuration augments]
    #[arg(long, conflicts_with = "online")]
    cached: bool,
    /// Decode, augment and encode the samples anew in every epoch, as the official probes are trained
    #[arg(long)]
    online: bool,
    /// Train on a class-balanced share of --data, e.g. 5%, once for each of --splits, and give the mean
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    subset: Option<Share>,
    #[command(flatten)]
    draws: Draws,
    /// Folder for tables and pictures: heads.csv, per-class.csv, confusion.csv and confusion.png of the probe that is written
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Seed of initial weights, shuffling and splits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    dry: DryRun,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where features are cached.
#[derive(clap::Args)]
pub(super) struct Cache {
    /// Folder to cache features in [default: feature-cache next to the probe]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Do not cache features
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
}

impl Cache {
    /// The flag that was given, if any.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [("--cache", self.cache.is_some()), ("--no-cache", self.no_cache)];
        given.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }

    /// The folder, for a probe at `probe`.
    pub(super) fn folder(&self, probe: &Path) -> Option<PathBuf> {
        let sibling = || probe.parent().unwrap_or(Path::new("")).join("feature-cache");
        (!self.no_cache).then(|| self.cache.clone().unwrap_or_else(sibling))
    }
}

impl Args {
    /// The probes to train: the flags', else those of an official evaluation that lists several.
    fn heads(&self, options: &ProbeOptions, setup: &Setup) -> Result<Vec<Head>, CliError> {
        let given = |values: &[f64], own: f64| if values.is_empty() { vec![own] } else { values.to_vec() };
        let (lrs, decays) = (given(&self.lr, options.lr), given(&self.wd, options.weight_decay));
        let good =
            lrs.iter().all(|lr| lr.is_finite() && *lr > 0.0) && decays.iter().all(|wd| wd.is_finite() && *wd >= 0.0);
        if !good {
            return Err("--lr must be positive and --wd must not be negative".into());
        }
        let mut kinds: Vec<HeadKind> = Vec::new();
        self.kind.iter().for_each(|kind| {
            if !kinds.contains(kind) {
                kinds.push(*kind);
            }
        });
        let listed = setup.official.as_ref().map_or(&[][..], |official| official.heads.as_slice());
        if listed.is_empty() || !self.lr.is_empty() || !self.wd.is_empty() {
            return Ok(Head::all(&kinds, &lrs, &decays));
        }
        let own = listed.iter().map(|head| {
            let ([start_lr, lr, final_lr], warmup) = (head.lr, head.warmup);
            let (weight_decay, final_weight_decay) = (head.weight_decay, head.final_weight_decay);
            ProbeOptions { lr, start_lr, final_lr, warmup, weight_decay, final_weight_decay, ..*options }
        });
        let own: Vec<ProbeOptions> = own.collect();
        if own.iter().any(|own| own.lr <= 0.0) {
            let why = "has an lr of 0, which trains nothing: `vjepa eval --probe FILE` evaluates a trained probe";
            return Err(format!("`experiment.optimization.multihead_kwargs` {why}").into());
        }
        Ok(Head::each(&kinds, &own))
    }

    /// What is trained on, and evaluated on: the flags', else the official evaluation's.
    fn samples(&self, setup: &Setup) -> Result<(PathBuf, Option<PathBuf>), CliError> {
        let official = setup.data();
        let none = "name the samples to train on: --data LIST, or --config with an official evaluation's file";
        let data = self.data.clone().or_else(|| official.as_ref().map(|[train, _]| train.clone())).ok_or(none)?;
        // The validation samples of an official file belong to its training samples.
        let own = official.filter(|_| self.data.is_none()).map(|[_, val]| val);
        Ok((data, self.val.clone().or(own)))
    }

    /// How they are trained: the flags', else the official evaluation's, else the defaults.
    fn options(&self, setup: &Setup) -> ProbeOptions {
        let mut options = ProbeOptions { batch: 16, seed: self.seed, ..ProbeOptions::default() };
        if let Some(official) = &setup.official {
            let [start_lr, lr, final_lr] = official.probe.lr;
            options = ProbeOptions {
                epochs: usize::try_from(official.probe.epochs).unwrap_or(usize::MAX),
                batch: official.probe.batch_size,
                lr,
                start_lr,
                final_lr,
                warmup: official.probe.warmup,
                weight_decay: official.probe.weight_decay,
                final_weight_decay: official.heads.first().map_or(FINAL_WEIGHT_DECAY, |head| head.final_weight_decay),
                max_norm: official.probe.clip_grad as f32,
                seed: self.seed,
            };
        }
        options.epochs = self.epochs.map_or(options.epochs, |epochs| epochs as usize);
        options.batch = self.batch.map_or(options.batch, usize::from);
        options
    }
}

/// Runs the command, as one of several ranks where a launcher says so: they share the samples, and rank 0 trains the probes.
pub fn run(args: &Args) -> Result<(), CliError> {
    if args.dry.dry_run {
        args.dry.print(&args.bill(None, args.dry.assumed()?)?, args.json);
        return Ok(());
    }
    args.ranks.run(&args.device, |_| false, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    if args.probe_heads.is_some() && args.encoder.encoder.is_none() && args.features.is_none() {
        return Err("--probe-heads is for --encoder and --features, not for a checkpoint: leave it out".into());
    }
    let setup = Setup::read(&args.encoder)?;
    args.check_paths(&setup)?;
    let options = args.options(&setup);
    if setup.official.as_ref().is_some_and(|official| official.val_only) {
        return Err("`val_only` is true, which trains nothing: use `vjepa eval --probe FILE` with this --config".into());
    }
    if ranks.rank() == 0 && setup.probe_file().is_some() {
        eprintln!(
            "note: `probe_checkpoint` has no effect: probes are trained from first weights, and `vjepa eval` reads it"
        );
    }
    let heads = args.heads(&options, &setup)?;
    let attentive = heads.iter().any(|head| head.kind == HeadKind::Attentive);
    let (lists, source) = match &args.features {
        Some(file) => stored(args, file)?,
        None => {
            let (data, val) = args.samples(&setup)?;
            let lists = Lists::read(&data, val.as_deref(), args.names.as_deref(), args.labels_from)?;
            (lists, FeatureSource::Encoder)
        }
    };
    if ranks.rank() != 0 && args.features.is_some() {
        // There is nothing to share.
        return Ok(());
    }
    if lists.val.is_none() && heads.iter().all(|head| head.kind == HeadKind::Neighbours) {
        return Err("knn classifies other samples by those of --data, and there are none: name them with --val".into());
    }
    lists.notes.iter().filter(|_| ranks.rank() == 0).for_each(|note| eprintln!("note: {note}"));
    let names = lists.classes();
    setup.check_classes(names.len())?;
    let mut work = Work::open(args, &setup, device, &lists, source, ranks)?;
    let attentive = match (attentive, &work.encoder, work.width()) {
        (true, Some(opened), _) => setup.sized(opened.encoder.probe(names.len())?)?,
        (true, None, width) => ProbeConfig::sized(width, probe_heads(width, args.probe_heads)?, names.len()),
        (false, _, width) => ProbeConfig::sized(width, 1, names.len()),
    };
    let neighbours = args.neighbours as usize;
    let task = ProbeTask { device, classes: names.len(), attentive, options, neighbours };
    let mut bar = Bar::of(ranks);
    let outcome = work.run(args, &task, &heads, &lists, &names, &mut |p| bar.show(p))?;
    bar.clear();
    let Some(outcome) = outcome else { return Ok(()) };
    write(args, &work, &heads, &lists, &names, &outcome)
}

/// Features from files, with lists of their rows.
fn stored(args: &Args, file: &Path) -> Result<(Lists, FeatureSource), CliError> {
    let train = features_file(file)?;
    let val = args.val_features.as_deref().map(features_file).transpose()?;
    if let Some(val) = &val
        && (val.features.tokens, val.features.dim) != (train.features.tokens, train.features.dim)
    {
        let shape = |of: &VideoFeatures| format!("{} tokens {} wide", of.features.tokens, of.features.dim);
        return Err(format!("--features has {}, but --val-features has {}", shape(&train), shape(val)).into());
    }
    let list = |path: &Path, features: &VideoFeatures| {
        let entries = features.paths.iter().zip(&features.labels);
        let entries = entries.map(|(path, label)| VideoEntry { path: path.clone(), label: Some(*label) }).collect();
        VideoList::of(path, entries)
    };
    let names = args.names.as_deref().map(ClassNames::read).transpose()?;
    let val_list = args.val_features.as_deref().zip(val.as_ref()).map(|(path, val)| list(path, val));
    let lists = Lists::of(list(file, &train), val_list, names, args.labels_from)?;
    Ok((lists, FeatureSource::Features { train: Box::new(train), val: val.map(Box::new) }))
}

/// Writes the best probe and the tables, and says how all of them did.
fn write(
    args: &Args,
    work: &Work<'_>,
    heads: &[Head],
    lists: &Lists,
    names: &[String],
    outcome: &Outcome,
) -> Result<(), CliError> {
    let encoder = work.encoder.as_ref();
    let file = encoder.map_or_else(|| args.features.clone().unwrap_or_default(), |opened| opened.path.clone());
    let (encoder_step, clips_seen) = seen(&file).unzip();
    let report =
        Report { heads, outcome, names, encoder: &file, seen: encoder_step.zip(clips_seen), clips: work.clips };
    let mut c = None;
    if let Some(best) = outcome.best
        && let Some(Learned::Probe { probe, weights, c: own }) =
            outcome.runs.get(best).and_then(|run| run.learned.as_ref())
    {
        c = *own;
        let result = report.result(best);
        let extra = BTreeMap::from([
            (PROBE_RESULT_KEY.to_owned(), serde_json::to_string(&result)?),
            ("vjepa_probe_encoder_sha256".to_owned(), encoder.map_or_else(String::new, |opened| opened.digest.clone())),
            ("vjepa_probe_clips".to_owned(), work.clips.to_string()),
            (CLIPS_APART_KEY.to_owned(), (!work.attend).to_string()),
            (LABELS_FROM_KEY.to_owned(), lists.from().to_string()),
        ]);
        let layers = encoder.and_then(|opened| opened.sizes.as_ref()?.out_layers.clone());
        let record = ProbeRecord { layers, ..ProbeRecord::of(probe, names) };
        save_probe(&args.out, &record, weights, &extra)?;
    }
    if let Some(folder) = &args.results {
        report.save(folder)?;
    }
    let bad: Vec<&BadVideo> = outcome.bad.iter().collect();
    if args.json {
        let mut summary = report.json();
        summary["probe"] = serde_json::json!(outcome.best.map(|_| &args.out));
        summary["c"] = serde_json::json!(c);
        summary["features_from_cache"] = outcome.cached.into();
        summary["bad_videos"] = serde_json::json!(bad);
        summary["labels_from"] = lists.from().into();
        summary["notes"] = serde_json::json!(lists.notes);
        println!("{summary}");
        return Ok(());
    }
    println!("encoder  {} ({})", file.display(), encoder.map_or("features from a file", |opened| &opened.source));
    print!("{}", report.text());
    match outcome.best {
        Some(best) => println!("written  {} to {}", heads[best].in_words(), args.out.display()),
        None => println!("written  nothing: no probe with weights was trained"),
    }
    if let Some(folder) = &args.results {
        println!("results  {}", folder.display());
    }
    print_skipped(&bad);
    Ok(())
}

/// The classes of labels, of a list whose first class has the label `from`.
fn classes(labels: &[i64], from: i64, names: &[String]) -> Result<Vec<usize>, CliError> {
    let zero_based: Vec<i64> = labels.iter().map(|label| label - from).collect();
    Ok(classes_of(&zero_based, names, names.len())?)
}

/// The steps of a checkpoint of this program, and the clips it had learned from by then; none of other files.
fn seen(checkpoint: &Path) -> Option<(u64, u64)> {
    let file = vjepa_weights::load(checkpoint).ok()?;
    let record: CheckpointRecord = serde_json::from_str(file.metadata().get(vjepa_weights::RECORD_KEY)?).ok()?;
    let config = Config::from_yaml(&record.config, "the checkpoint's configuration", &[]).ok()?;
    Some((record.step, clips_seen(record.step, &config, &record.history)))
}

/// Metadata of a probe: the label of its first class, in the lists it was trained on.
pub(super) const LABELS_FROM_KEY: &str = "vjepa_probe_labels_from";
/// Metadata of a probe: whether it classifies every clip on its own.
pub(super) const CLIPS_APART_KEY: &str = "vjepa_probe_clips_apart";

/// Lists the videos that were skipped.
pub(super) fn print_skipped(bad: &[&BadVideo]) {
    if !bad.is_empty() {
        eprintln!("skipped {} unusable videos:", bad.len());
    }
    for video in bad {
        eprintln!("  {}: {}", video.path.display(), video.reason);
    }
}
