//! `vjepa probe`: a classifier on a frozen encoder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::CliError;
use super::device::DeviceArg;
use vjepa_data::BadVideo;
use vjepa_eval::features::Keep;
use vjepa_eval::probe_file::save_probe;
use vjepa_eval::protocols::videos::{
    ProbeKind, VideoSet, class_names, classes_of, evaluate_probe, open_encoder, train_probe,
};
use vjepa_eval::{ProbeOptions, Progress};
use vjepa_recipe::config::Config;

/// Train a classifier on the features of a frozen encoder.
#[derive(clap::Args)]
pub struct Args {
    /// An official .pth.tar or .pt, or safetensors with official names.
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration with the model's sizes and preprocessing; needed where the checkpoint does not tell them.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Labelled videos to train on, a line "path label" each.
    #[arg(long, value_name = "CSV")]
    data: PathBuf,
    /// Labelled videos to evaluate on.
    #[arg(long, value_name = "CSV")]
    val: Option<PathBuf>,
    /// Attentive pooling, or logistic regression on mean tokens.
    #[arg(long, value_parser = ["attentive", "linear"], default_value = "attentive")]
    kind: String,
    /// Where to write the probe.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Clips of a video, whose tokens are joined.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    clips: u16,
    /// A file with the name of each class, a line each; a label is the number of its line, from 0.
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Passes over the videos (attentive).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Videos of a step (attentive).
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Learning rate at the start (attentive).
    #[arg(long, default_value_t = 1e-3)]
    lr: f64,
    /// Weight decay at the start (attentive).
    #[arg(long, default_value_t = 0.01)]
    wd: f64,
    /// Seed of first weights, order and splits.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    cache: Cache,
    #[command(flatten)]
    device: DeviceArg,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// Where features are kept.
#[derive(clap::Args)]
pub(super) struct Cache {
    /// Folder that features are kept in for the next time [default: feature-cache beside the probe].
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Keep no features.
    #[arg(long, conflicts_with = "cache")]
    no_cache: bool,
}

impl Cache {
    /// The folder, for a probe at `probe`.
    pub(super) fn folder(&self, probe: &Path) -> Option<PathBuf> {
        let beside = || probe.parent().unwrap_or(Path::new("")).join("feature-cache");
        (!self.no_cache).then(|| self.cache.clone().unwrap_or_else(beside))
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), CliError> {
    if !(args.lr.is_finite() && args.lr > 0.0 && args.wd.is_finite() && args.wd >= 0.0) {
        return Err("--lr must be a positive number and --wd not a negative one".into());
    }
    let device = args.device.open()?;
    let config = args.config.as_deref().map(|path| Config::from_file(path, &[])).transpose()?;
    let kind = if args.kind == "linear" { ProbeKind::Linear } else { ProbeKind::Attentive };
    let keep = if kind == ProbeKind::Linear { Keep::Mean } else { Keep::Tokens };
    let names = args.names.as_deref().map(read_names).transpose()?;
    let mut opened = open_encoder(device, &args.checkpoint, config.as_ref())?;
    super::note_sampling(opened.model.config.as_ref());
    let mut bar = Bar::default();
    let set = |list: &Path| VideoSet {
        list: list.into(),
        clips: args.clips.into(),
        views: 1,
        cache: args.cache.folder(&args.out),
    };
    let (train, cached) = opened.features(&set(&args.data), keep, &mut |p| bar.show(p))?;
    let val = match &args.val {
        Some(list) => Some(opened.features(&set(list), keep, &mut |p| bar.show(p))?.0),
        None => None,
    };
    let labels = class_names(&train.labels, names);
    let classes = classes_of(&train.labels, &labels, labels.len())?;
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
            let classes = classes_of(&val.labels, &labels, labels.len())?;
            Some(evaluate_probe(device, &trained.probe, &trained.weights, &val.features, &classes, 1)?)
        }
    };
    bar.clear();
    let bad: Vec<&BadVideo> = train.bad.iter().chain(val.iter().flat_map(|val| &val.bad)).collect();
    let extra = BTreeMap::from([
        ("vjepa_probe_encoder_sha256".to_owned(), opened.digest.clone()),
        ("vjepa_probe_clips".to_owned(), args.clips.to_string()),
    ]);
    save_probe(&args.out, &trained.probe, &trained.weights, &labels, &extra)?;
    if args.json {
        let summary = serde_json::json!({
            "probe": args.out, "kind": args.kind, "classes": labels.len(), "train": on_train, "val": on_val,
            "c": trained.c, "clips": args.clips, "features_from_cache": cached, "bad_videos": bad,
        });
        println!("{summary}");
        return Ok(());
    }
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    println!("encoder  {} ({})", args.checkpoint.display(), opened.model.source);
    println!("probe    {}, {} classes, written to {}", args.kind, labels.len(), args.out.display());
    println!("train    top-1 {}, top-5 {}, {} videos", percent(on_train.top1), percent(on_train.top5), on_train.videos);
    if let Some(val) = on_val {
        println!("val      top-1 {}, top-5 {}, {} videos", percent(val.top1), percent(val.top5), val.videos);
    }
    tell_bad(&bad);
    Ok(())
}

/// Class names, a line each; the file may end in blank lines, which name nothing.
fn read_names(path: &Path) -> Result<Vec<String>, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let names: Vec<String> = text.trim_end().lines().map(|line| line.trim().to_owned()).collect();
    if let Some(label) = names.iter().position(String::is_empty) {
        return Err(format!(
            "line {} of {} is blank, but would be the name of label {label}: name it, or take the line out",
            label + 1,
            path.display()
        )
        .into());
    }
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    if names.len() < 2 || distinct.len() != names.len() {
        return Err(format!("{} must hold at least two different names, a line each", path.display()).into());
    }
    Ok(names)
}

/// Names the videos that were left out.
pub(super) fn tell_bad(bad: &[&BadVideo]) {
    if !bad.is_empty() {
        eprintln!("left out {} videos that cannot be used:", bad.len());
    }
    for video in bad {
        eprintln!("  {}: {}", video.path.display(), video.reason);
    }
}

/// A progress bar that follows an evaluation from one part to the next.
#[derive(Default)]
pub(super) struct Bar {
    bar: Option<(String, ProgressBar)>,
}

impl Bar {
    /// Shows how far things are.
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

    /// Takes it away.
    pub(super) fn clear(&mut self) {
        if let Some((_, bar)) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
