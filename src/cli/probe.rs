//! `vjepa probe`: a classifier on a frozen encoder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::CliError;
use super::device::DeviceArg;
use super::named::named;
use vjepa_data::BadVideo;
use vjepa_data::VideoList;
use vjepa_eval::features::Keep;
use vjepa_eval::labels::{ClassNames, remarks};
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::videos::{
    self, ProbeKind, VideoSet, class_names, classes_of, evaluate_probe, open_encoder, train_probe,
};
use vjepa_eval::videos::labelled_videos;
use vjepa_eval::{ProbeOptions, Progress};
use vjepa_recipe::config::Config;
use vjepa_recipe::records::{Accuracy, PROBE_RESULT_KEY, ProbeResult};
use vjepa_train::{CheckpointRecord, clips_seen};

/// Train a classifier (probe) on the features of a frozen encoder
#[derive(clap::Args)]
pub struct Args {
    /// Encoder: an official .pth.tar or .pt, or a .safetensors file with the official names
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration, e.g. --set data.sampling_rate=2 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Labelled videos to train on: one "path label" per line, paths relative to the list's folder
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Labelled videos to evaluate on, with the labels of --data
    #[arg(long, value_name = "CSV")]
    val: Option<PathBuf>,
    /// Kind of probe
    #[arg(long, value_parser = named(&KINDS, kind_name, kind_about), default_value = "attentive")]
    kind: ProbeKind,
    /// Where to write the probe
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Clips per video; their tokens are concatenated
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clips: u16,
    /// File with one class name per line; the first is that of label 0 unless --labels-from says otherwise
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Label of the first name: 1 for lists that number their classes from 1 (UCF101, HMDB51)
    #[arg(long, value_name = "N", requires = "names", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Number of epochs (attentive)
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Batch size in videos (attentive)
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Initial learning rate (attentive)
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Initial weight decay (attentive)
    #[arg(long, default_value_t = 0.01)]
    wd: f64,
    /// Seed of initial weights, shuffling and splits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Kinds of probes.
const KINDS: [ProbeKind; 2] = [ProbeKind::Attentive, ProbeKind::Linear];

fn kind_name(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Attentive => "attentive",
        ProbeKind::Linear => "linear",
    }
}

fn kind_about(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Attentive => "Cross-attention pooling and a linear layer",
        ProbeKind::Linear => "Logistic regression on the mean token",
    }
}

impl Args {
    /// The clips to take from the videos of a list.
    fn set<'a>(&self, list: &'a VideoList) -> VideoSet<'a> {
        let cache = self.cache.folder(&self.out);
        VideoSet { entries: &list.entries, clips: self.clips.into(), views: 1, cache }
    }
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
    /// The folder, for a probe at `probe`.
    pub(super) fn folder(&self, probe: &Path) -> Option<PathBuf> {
        let sibling = || probe.parent().unwrap_or(Path::new("")).join("feature-cache");
        (!self.no_cache).then(|| self.cache.clone().unwrap_or_else(sibling))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if !(args.lr.is_finite() && args.lr > 0.0 && args.wd.is_finite() && args.wd >= 0.0) {
        return Err("--lr must be positive and --wd must not be negative".into());
    }
    let device = args.device.open()?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &args.sets)).transpose()?;
    let kind = args.kind;
    let keep = if kind == ProbeKind::Linear { Keep::Mean } else { Keep::Tokens };
    let lists = Lists::read(args)?;
    lists.notes.iter().for_each(|note| eprintln!("note: {note}"));
    let mut opened = open_encoder(device, &args.checkpoint, config.as_ref())?;
    super::note_sampling(opened.model.config.as_ref());
    let mut bar = Bar::default();
    let (train, cached) = opened.features(&args.set(&lists.train), keep, &mut |p| bar.show(p))?;
    let val = match &lists.val {
        Some(list) => Some(opened.features(&args.set(list), keep, &mut |p| bar.show(p))?.0),
        None => None,
    };
    let (from, names) = match &lists.names {
        Some((names, from)) => (*from, Some(names.names.clone())),
        None => (0, None),
    };
    let zero_based = |labels: &[i64]| labels.iter().map(|label| label - from).collect::<Vec<i64>>();
    let labels = class_names(&train.labels, names);
    let classes = classes_of(&zero_based(&train.labels), &labels, labels.len())?;
    let options = ProbeOptions {
        epochs: args.epochs as usize,
        batch: args.batch.into(),
        lr: args.lr,
        weight_decay: args.wd,
        seed: args.seed,
        ..ProbeOptions::default()
    };
    let encoder = &opened.encoder;
    let trained = train_probe(kind, encoder, &train.features, &classes, labels.len(), &options, &mut |p| bar.show(p))?;
    let on_train = evaluate_probe(device, &trained.probe, &trained.weights, &train.features, &classes, 1)?;
    let on_val = match &val {
        None => None,
        Some(val) => {
            let classes = classes_of(&zero_based(&val.labels), &labels, labels.len())?;
            Some(evaluate_probe(device, &trained.probe, &trained.weights, &val.features, &classes, 1)?)
        }
    };
    bar.clear();
    let bad: Vec<&BadVideo> = train.bad.iter().chain(val.iter().flat_map(|val| &val.bad)).collect();
    let (encoder_step, clips_seen) = seen(&args.checkpoint).unzip();
    let shares = |found: &videos::Accuracy| Accuracy { top1: found.top1, top5: found.top5, videos: found.videos };
    let result = ProbeResult {
        kind: kind_name(kind).to_owned(),
        classes: labels.len(),
        clips_per_video: args.clips.into(),
        train: shares(&on_train),
        val: on_val.as_ref().map(shares),
        encoder: args.checkpoint.display().to_string(),
        encoder_step,
        clips_seen,
    };
    let extra = BTreeMap::from([
        (PROBE_RESULT_KEY.to_owned(), serde_json::to_string(&result)?),
        ("vjepa_probe_encoder_sha256".to_owned(), opened.digest.clone()),
        ("vjepa_probe_clips".to_owned(), args.clips.to_string()),
        (LABELS_FROM_KEY.to_owned(), from.to_string()),
    ]);
    save_probe(&args.out, &trained.probe, &trained.weights, &labels, &extra)?;
    if args.json {
        let summary = serde_json::json!({
            "probe": args.out, "kind": kind_name(kind), "classes": labels.len(), "train": on_train, "val": on_val,
            "c": trained.c, "clips": args.clips, "features_from_cache": cached, "bad_videos": bad,
            "labels_from": from, "notes": lists.notes, "encoder_step": encoder_step, "clips_seen": clips_seen,
        });
        println!("{summary}");
        return Ok(());
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    println!("encoder  {} ({})", args.checkpoint.display(), opened.model.source);
    if let Some(clips) = clips_seen {
        println!("seen     {clips} clips in {} steps", encoder_step.unwrap_or_default());
    }
    println!("probe    {}, {} classes, written to {}", kind_name(kind), labels.len(), args.out.display());
    println!("train    top-1 {}, top-5 {}, {} videos", percent(on_train.top1), percent(on_train.top5), on_train.videos);
    if let Some(val) = on_val {
        println!("val      top-1 {}, top-5 {}, {} videos", percent(val.top1), percent(val.top5), val.videos);
    }
    print_skipped(&bad);
    Ok(())
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

/// The lists of a probe, with labels that match each other and the names.
struct Lists {
    train: VideoList,
    val: Option<VideoList>,
    /// The names of the classes, and the label of the first.
    names: Option<(ClassNames, i64)>,
    /// Remarks on the lists.
    notes: Vec<String>,
}

impl Lists {
    /// Reads the lists and collects what is odd about them.
    fn read(args: &Args) -> Result<Self, CliError> {
        // All of them before the first is read, which looks for its videos.
        for file in [Some(&args.data), args.val.as_ref(), args.names.as_ref()].into_iter().flatten() {
            vjepa_weights::refuse_foreign(file)?;
        }
        let train = labelled_videos(&args.data)?;
        let val = args.val.as_deref().map(labelled_videos).transpose()?;
        let names = args.names.as_deref().map(ClassNames::read).transpose()?;
        let both = std::iter::once(&train).chain(&val);
        let mut notes: Vec<String> = both.flat_map(read_notes).collect();
        let names = match names {
            Some(names) => {
                let from = names.numbering(&train, args.labels_from)?;
                let names = ClassNames { from: Some(from), ..names };
                notes.extend(of(&train, names.remarks(&train, from)));
                if let Some(val) = &val {
                    names.numbering(val, None)?;
                    notes.extend(of(val, names.remarks(val, from)));
                }
                Some((names, from))
            }
            None => {
                let called = called_by_label(&train);
                if called.count < 2 {
                    return Err(
                        format!("{}: a probe needs videos of at least two classes", train.path.display()).into()
                    );
                }
                notes.extend(of(&train, remarks(&train)));
                if let Some(val) = &val {
                    called.check_called(val)?;
                    notes.extend(of(val, called.remarks(val, 0)));
                }
                None
            }
        };
        Ok(Self { train, val, names, notes })
    }
}

/// The classes of a list, each called by its label.
fn called_by_label(list: &VideoList) -> ClassNames {
    let labels: Vec<i64> = list.entries.iter().filter_map(|entry| entry.label).collect();
    let names = class_names(&labels, None);
    ClassNames { count: names.len(), names, from: None, source: list.path.clone() }
}

/// Remarks from reading a list.
pub(super) fn read_notes(list: &VideoList) -> Vec<String> {
    of(list, list.notes.clone())
}

/// Remarks with the name of the list they are about.
pub(super) fn of(list: &VideoList, remarks: Vec<String>) -> Vec<String> {
    remarks.into_iter().map(|remark| format!("{}: {remark}", list.path.display())).collect()
}

/// Lists the videos that were skipped.
pub(super) fn print_skipped(bad: &[&BadVideo]) {
    if !bad.is_empty() {
        eprintln!("skipped {} unusable videos:", bad.len());
    }
    for video in bad {
        eprintln!("  {}: {}", video.path.display(), video.reason);
    }
}

/// A progress bar for the stages of an evaluation.
#[derive(Default)]
pub(super) struct Bar {
    bar: Option<(String, ProgressBar)>,
}

impl Bar {
    /// Shows progress.
    pub(super) fn show(&mut self, progress: Progress<'_>) {
        if self.bar.as_ref().is_none_or(|(what, _)| what != progress.what) {
            self.clear();
            let bar = ProgressBar::new(progress.total as u64);
            if let Ok(style) = ProgressStyle::with_template("{msg} {wide_bar:.cyan/blue} {pos}/{len}  {eta} left") {
                bar.set_style(style);
            }
            bar.set_message(progress.what.to_owned());
            self.bar = Some((progress.what.to_owned(), bar));
        }
        if let Some((_, bar)) = &self.bar {
            bar.set_position(progress.done as u64);
        }
    }

    /// Removes the bar.
    pub(super) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
