//! `vjepa anticipate`: what a person is about to do, from the seconds before (EPIC-KITCHENS-100).

use std::path::{Path, PathBuf};

use clap::Subcommand;
use vjepa_collective::Collective;

use super::CliError;
use super::device::{DeviceArg, RankArgs};
use super::named::named;
use super::probe::Bar;
use vjepa_data::annotations::{Actions, FileIndex, epic, official_classes};
use vjepa_data::anticipation::{Anchor, AnticipationClips};
use vjepa_eval::ProbeOptions;
use vjepa_eval::protocols::anticipation::{
    Anticipated, AnticipationRecord, FutureEncoder, OfficialClips, Recall, evaluate_actions, load_actions,
    load_official_actions, save_actions, train_actions,
};
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;

/// Train or evaluate a probe that anticipates actions: verb, noun and action (EPIC-KITCHENS-100)
///
/// The encoder of a V-JEPA 2 or 2.1 sees the seconds before an action, its predictor rolls them out to the time of the action,
/// and the probe reads both. The figure is class-mean recall at 5.
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
}

/// The frozen models, and the videos.
#[derive(clap::Args)]
struct Frozen {
    /// Checkpoint with an encoder and a predictor of V-JEPA 2 or 2.1
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Configuration of model and preprocessing; needed if the checkpoint does not record them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a setting of the configuration (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "config")]
    sets: Vec<String>,
    /// Folder of the videos, `<video_id>` with any ending, at any depth
    #[arg(long, value_name = "DIR")]
    videos: PathBuf,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    ranks: RankArgs,
}

/// Train the probe on the features of clips before actions
#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    frozen: Frozen,
    /// Actions to train on: a CSV with the columns participant_id, video_id, start_frame, stop_frame, verb_class, noun_class
    #[arg(long, value_name = "CSV")]
    train: PathBuf,
    /// Actions to evaluate on; the best of several probes is the one that does best on them
    #[arg(long, value_name = "CSV")]
    val: Option<PathBuf>,
    /// Where to write the probe
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Frames of a clip
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(2..))]
    frames: u16,
    /// Clip frames a second
    #[arg(long, default_value_t = 8.0, value_name = "FPS")]
    fps: f64,
    /// Seconds from the clip's end to the anchor
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS")]
    seconds: f64,
    /// Frame of an action that the seconds count back from
    #[arg(long, value_parser = named(&Anchor::ALL, Anchor::name, Anchor::about), default_value = "stop")]
    anchor: Anchor,
    /// Height and width of a clip in pixels [default: the encoder's]
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Number of epochs
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    epochs: u32,
    /// Batch size in actions
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,
    /// Learning rates, separated by commas: one probe for each
    #[arg(long, value_delimiter = ',', value_name = "LR", default_value = "0.001")]
    lr: Vec<f64>,
    /// Weight decays, separated by commas: one probe for each
    #[arg(long, value_delimiter = ',', value_name = "WD", default_value = "0.0001")]
    wd: Vec<f64>,
    /// Seed of initial weights and shuffling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Class-mean recall at 5 of a probe on annotated actions
#[derive(clap::Args)]
struct Eval {
    #[command(flatten)]
    frozen: Frozen,
    /// Probe, from `vjepa anticipate train`, or an official one, with --classes
    #[arg(long, value_name = "FILE")]
    probe: PathBuf,
    #[command(flatten)]
    official: Official,
    /// Actions to evaluate on, as in training
    #[arg(long, value_name = "CSV")]
    actions: PathBuf,
    /// Frame of an action that the seconds count back from [default: as in training]
    #[arg(long, value_parser = named(&Anchor::ALL, Anchor::name, Anchor::about))]
    anchor: Option<Anchor>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What the file of an official probe does not say.
#[derive(clap::Args)]
struct Official {
    /// Actions that an official probe was trained on, EPIC_100_train.csv: its classes are theirs, in the official order
    #[arg(long, value_name = "CSV")]
    classes: Option<PathBuf>,
    /// Frames of its clips
    #[arg(long, default_value_t = 32, value_name = "N", requires = "classes", value_parser = clap::value_parser!(u16).range(2..))]
    frames: u16,
    /// Clip frames a second
    #[arg(long, default_value_t = 8.0, value_name = "FPS", requires = "classes")]
    fps: f64,
    /// Seconds from the clip's end to the anchor
    #[arg(long, default_value_t = 1.0, value_name = "SECONDS", requires = "classes")]
    seconds: f64,
    /// Height and width of a clip in pixels [default: the encoder's]
    #[arg(long, value_name = "PIXELS", requires = "classes")]
    side: Option<usize>,
}

/// Runs the command. Ranks that a launcher has started share the clips; rank 0 trains and evaluates.
pub fn run(args: &Args) -> Result<(), CliError> {
    let (What::Train(Train { frozen, .. }) | What::Eval(Eval { frozen, .. })) = &args.what;
    frozen.ranks.run(
        &frozen.device,
        |_| false,
        |device, ranks| match &args.what {
            What::Train(args) => train(args, device, ranks),
            What::Eval(args) => eval(args, device, ranks),
        },
    )
}

impl Frozen {
    fn open(&self, device: Device, size: (usize, Option<usize>), time: (f64, f64)) -> Result<FutureEncoder, CliError> {
        let config = self.config.as_deref().map(|path| Config::from_file(path, &self.sets)).transpose()?;
        Ok(FutureEncoder::open(device, &self.checkpoint, config.as_ref(), size, time)?)
    }

    /// The actions of a list whose videos are there; what is missing is said by rank 0.
    fn actions(&self, index: &FileIndex, list: &Path, ranks: &dyn Collective) -> Result<Actions, CliError> {
        vjepa_weights::refuse_foreign(list)?;
        let actions = epic(list, index)?;
        for missing in actions.missing.iter().filter(|_| ranks.rank() == 0) {
            eprintln!("note: {}: {} actions {}", list.display(), missing.count, missing.what);
        }
        if actions.segments.is_empty() {
            return Err(format!("{} names no action of a video in {}", list.display(), self.videos.display()).into());
        }
        Ok(actions)
    }
}

impl Official {
    /// Reads the probe, whose clips have this side.
    fn load(&self, probe: &Path, list: &Path, side: usize) -> Result<(AnticipationRecord, NamedTensors), CliError> {
        let clips = OfficialClips { frames: self.frames.into(), fps: self.fps, seconds: self.seconds, side };
        Ok(load_official_actions(probe, (list, official_classes(list)?), clips)?)
    }
}

fn check_time((seconds, fps): (f64, f64)) -> Result<(), CliError> {
    match fps.is_finite() && fps > 0.0 && seconds.is_finite() && seconds >= 0.0 {
        true => Ok(()),
        false => Err("--fps must be positive, and --seconds must not be negative".into()),
    }
}

/// Features of actions, which `ranks` share; what could not be read is said. None on ranks other than 0.
fn features(
    opened: &mut FutureEncoder,
    clips: &AnticipationClips,
    actions: &Actions,
    ranks: &dyn Collective,
) -> Result<Option<Anticipated>, CliError> {
    let mut bar = Bar::of(ranks);
    let found = opened.features(clips, &actions.segments, ranks, &mut |p| bar.show(p))?;
    bar.clear();
    let Some(found) = found else { return Ok(None) };
    if let Some(first) = found.bad.first() {
        let (bad, all) = (found.bad.len(), actions.segments.len());
        eprintln!("note: {bad} of {all} actions were left out; the first: {first}");
    }
    Ok(Some(found))
}

fn train(args: &Train, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    check_time((args.seconds, args.fps))?;
    if args.lr.iter().any(|lr| *lr <= 0.0) || args.wd.iter().any(|wd| *wd < 0.0) {
        return Err("--lr must be positive, and --wd must not be negative".into());
    }
    let index = FileIndex::of(&args.frozen.videos)?;
    let actions = args.frozen.actions(&index, &args.train, ranks)?;
    let val = args.val.as_deref().map(|list| args.frozen.actions(&index, list, ranks)).transpose()?;
    let mut opened = args.frozen.open(device, (args.frames.into(), args.side), (args.seconds, args.fps))?;
    let (preprocessing, digest) = (opened.preprocessing.clone(), opened.digest.clone());
    let clips = AnticipationClips { preprocessing, fps: args.fps, seconds: args.seconds, anchor: args.anchor };
    let found = features(&mut opened, &clips, &actions, ranks)?;
    let held = val.as_ref().map(|val| features(&mut opened, &clips, val, ranks)).transpose()?.flatten();
    let Some(found) = found else { return Ok(()) };
    // As officially: what only --val has is left out there.
    let (verbs, nouns, pairs) = actions.classes();
    let record = AnticipationRecord {
        depth: opened.probe.depth,
        num_heads: opened.probe.num_heads,
        embed_dim: opened.probe.embed_dim,
        verbs,
        nouns,
        actions: pairs,
        frames: args.frames.into(),
        fps: args.fps,
        seconds: args.seconds,
        anchor: args.anchor.name().to_owned(),
        side: clips.preprocessing.crop_size,
        encoder_sha256: digest,
    };
    let mut best: Option<(f64, NamedTensors)> = None;
    let mut rows = Vec::new();
    for (lr, weight_decay) in args.lr.iter().flat_map(|lr| args.wd.iter().map(move |wd| (*lr, *wd))) {
        let options = ProbeOptions {
            epochs: args.epochs as usize,
            batch: args.batch.into(),
            lr,
            start_lr: lr,
            weight_decay,
            final_weight_decay: weight_decay,
            // Officially the probe's gradients are not clipped.
            max_norm: f32::INFINITY,
            seed: args.seed,
            ..ProbeOptions::default()
        };
        let mut bar = Bar::default();
        let weights = train_actions(device, &record, &found, &options, &mut |p| bar.show(p))?;
        bar.clear();
        let recall = evaluate_actions(device, &record, &weights, held.as_ref().unwrap_or(&found))?;
        rows.push((lr, weight_decay, recall));
        if best.as_ref().is_none_or(|(most, _)| recall.action > *most) {
            best = Some((recall.action, weights));
        }
    }
    let Some((_, weights)) = best else { return Err("there is no learning rate to train at".into()) };
    save_actions(&args.out, &record, &weights)?;
    say_trained(args, &record, &rows, held.is_some());
    Ok(())
}

fn say_trained(args: &Train, record: &AnticipationRecord, rows: &[(f64, f64, Recall)], held: bool) {
    let [verbs, nouns, actions] = record.classes();
    if args.json {
        let probes: Vec<_> = rows
            .iter()
            .map(|(lr, wd, recall)| serde_json::json!({"lr": lr, "wd": wd, "recall_at_5": recall}))
            .collect();
        let of = if held { "val" } else { "train" };
        let summary = serde_json::json!({
            "verbs": verbs, "nouns": nouns, "actions": actions, "anchor": record.anchor, "seconds": record.seconds,
            "measured_on": of, "probes": probes, "probe": args.out,
        });
        println!("{summary}");
        return;
    }
    println!("classes  {verbs} verbs, {nouns} nouns, {actions} actions");
    let of = if held { "on --val" } else { "on --train, which it has seen" };
    for (lr, wd, recall) in rows {
        println!("lr {lr}, wd {wd}: {} {of}", in_words(recall));
    }
    println!("written  the best of actions to {}", args.out.display());
}

/// `recall at 5: verb 31.0 %, noun 40.2 %, action 12.9 % (of 100 actions)`.
fn in_words(recall: &Recall) -> String {
    let Recall { verb, noun, action, segments, unknown } = recall;
    let unknown =
        if *unknown > 0 { format!(", {unknown} left out that the probe has no class for") } else { String::new() };
    format!(
        "recall at 5: verb {:.1} %, noun {:.1} %, action {:.1} % (of {segments} actions{unknown})",
        100.0 * verb,
        100.0 * noun,
        100.0 * action
    )
}

fn eval(args: &Eval, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let own = args.official.classes.is_none().then(|| load_actions(&args.probe)).transpose()?;
    let index = FileIndex::of(&args.frozen.videos)?;
    let actions = args.frozen.actions(&index, &args.actions, ranks)?;
    let (size, time) = match &own {
        Some((record, _)) => ((record.frames, Some(record.side)), (record.seconds, record.fps)),
        None => ((args.official.frames.into(), args.official.side), (args.official.seconds, args.official.fps)),
    };
    check_time(time)?;
    let mut opened = args.frozen.open(device, size, time)?;
    let (record, weights) = match (own, &args.official.classes) {
        (None, Some(list)) => args.official.load(&args.probe, list, opened.preprocessing.crop_size)?,
        (Some(own), _) => own,
        (None, None) => return Err("give --probe".into()),
    };
    let told = !record.encoder_sha256.is_empty();
    if told && opened.digest != record.encoder_sha256 && ranks.rank() == 0 {
        eprintln!("note: the probe was trained on another checkpoint than {}", args.frozen.checkpoint.display());
    }
    if opened.probe.embed_dim != record.embed_dim {
        return Err(format!(
            "the probe {} takes features {} wide, but the encoder's are {} wide; use the encoder it was trained on",
            args.probe.display(),
            record.embed_dim,
            opened.probe.embed_dim
        )
        .into());
    }
    let trained = Anchor::ALL.into_iter().find(|anchor| anchor.name() == record.anchor).unwrap_or_default();
    let anchor = args.anchor.unwrap_or(trained);
    let preprocessing = opened.preprocessing.clone();
    let clips = AnticipationClips { preprocessing, fps: record.fps, seconds: record.seconds, anchor };
    let Some(found) = features(&mut opened, &clips, &actions, ranks)? else { return Ok(()) };
    let recall = evaluate_actions(device, &record, &weights, &found)?;
    if args.json {
        let summary = serde_json::json!({
            "recall_at_5": recall, "anchor": anchor.name(), "seconds": record.seconds, "bad": found.bad,
        });
        println!("{summary}");
        return Ok(());
    }
    println!("{}", in_words(&recall));
    println!(
        "anchor   {} s before an action's {} frame",
        record.seconds,
        if anchor == Anchor::Stop { "last" } else { "first" }
    );
    Ok(())
}
