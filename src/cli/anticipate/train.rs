//! `vjepa anticipate train`.

use std::path::PathBuf;

use super::online;
use super::setup::{ClipArgs, Frozen, Setup};
use super::{Bar, CliError, features, in_words};
use crate::cli::named::named;
use crate::cli::visualize::written_as;
use crate::cli::whole::whole;
use vjepa_collective::Collective;
use vjepa_data::anticipation::{Anchor, AnticipationClips};
use vjepa_eval::ProbeOptions;
use vjepa_eval::protocols::anticipation::{
    Anticipated, AnticipationRecord, FutureEncoder, Recall, evaluate_actions, save_actions, train_actions,
};
use vjepa_graphs::NamedTensors;
use vjepa_recipe::config::evaluation::HeadTraining;
use vjepa_runtime::files;
use vjepa_runtime::plan::Device;

/// The learning rate where nothing gives one.
const LR: f64 = 1e-3;
/// The weight decay where nothing gives one.
const WD: f64 = 1e-4;

/// Train the probe on the features of clips before actions
#[derive(clap::Args)]
pub(super) struct Train {
    #[command(flatten)]
    frozen: Frozen,
    /// Actions to train on: a CSV with the columns participant_id, video_id, start_frame, stop_frame, verb_class, noun_class
    #[arg(long, value_name = "CSV")]
    train: Option<PathBuf>,
    /// Actions to evaluate on; the best of several probes is the one that does best on them
    #[arg(long, value_name = "CSV")]
    val: Option<PathBuf>,
    /// Where to write the probe
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    clips: ClipArgs,
    /// Frame of an action that the seconds count back from [default: stop]
    #[arg(long, value_parser = named(&Anchor::ALL, Anchor::name, Anchor::about))]
    anchor: Option<Anchor>,
    /// Number of epochs [default: 20]
    #[arg(long, value_parser = whole::<u32>(1..))]
    epochs: Option<u32>,
    /// Batch size in actions [default: 16, or the official evaluation's on each of its processes]
    #[arg(long, value_parser = whole::<u16>(1..))]
    batch: Option<u16>,
    /// Learning rates, separated by commas: one probe for each [default: the official file's, else 0.001]
    #[arg(long, value_delimiter = ',', value_name = "LR")]
    lr: Vec<f64>,
    /// Weight decays, separated by commas: one probe for each [default: the official file's, else 0.0001]
    #[arg(long, value_delimiter = ',', value_name = "WD")]
    wd: Vec<f64>,
    /// Encode every clip once, as in evaluation, and train on these features [default, unless the official file says how
    /// training clips are made]
    #[arg(long, conflicts_with = "online")]
    pub(super) cached: bool,
    /// Draw, augment and encode the clips anew in every epoch, as the official file says (`auto_augment`, ...), or as released
    /// files do; --seconds and --anchor are then those of evaluation alone
    #[arg(long)]
    pub(super) online: bool,
    /// Seed of initial weights and shuffling
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Train {
    pub(super) fn frozen(&self) -> &Frozen {
        &self.frozen
    }

    /// How each probe is trained: by the flags' rates; what they leave out is the official evaluation's.
    fn options(&self, setup: &Setup<'_>) -> Result<Vec<ProbeOptions>, CliError> {
        let file = setup.official.as_ref();
        let epochs = self.epochs.map(|epochs| epochs as usize);
        let of_file = file.map(|file| usize::try_from(file.epochs).unwrap_or(usize::MAX));
        let plain = ProbeOptions {
            epochs: epochs.or(of_file).unwrap_or(20),
            batch: self.batch.map(usize::from).or(file.map(|file| file.batch_size)).unwrap_or(16),
            // Officially the probe's gradients are not clipped.
            max_norm: f32::INFINITY,
            seed: self.seed,
            ..ProbeOptions::default()
        };
        if !self.lr.iter().all(|lr| *lr > 0.0 && lr.is_finite())
            || !self.wd.iter().all(|wd| *wd >= 0.0 && wd.is_finite())
        {
            return Err("--lr must be positive, and --wd must not be negative".into());
        }
        let own = |head: &HeadTraining| {
            let HeadTraining { lr: [start_lr, lr, final_lr], warmup, weight_decay, final_weight_decay } = *head;
            ProbeOptions { lr, start_lr, final_lr, warmup, weight_decay, final_weight_decay, ..plain }
        };
        let own = match file {
            Some(file) => file.heads.iter().map(own).collect(),
            None => vec![ProbeOptions { lr: LR, start_lr: LR, weight_decay: WD, final_weight_decay: WD, ..plain }],
        };
        let all = with_rates(own, &self.lr, &self.wd);
        if all.iter().any(|options| options.lr <= 0.0) {
            let why = "has an lr of 0, which trains nothing: give --lr, or evaluate a trained probe by `vjepa anticipate eval --probe FILE`";
            return Err(format!("`experiment.optimization.multihead_kwargs` {why}").into());
        }
        Ok(all)
    }

    /// What the probe is: of the sizes that the official evaluation's file names, else of those that belong to the encoder.
    fn record(&self, setup: &Setup<'_>, opened: &FutureEncoder, clips: &AnticipationClips) -> AnticipationRecord {
        let own = [opened.probe.depth, opened.probe.num_heads];
        let [depth, num_heads] = setup.official.as_ref().map_or(own, |file| file.sizes);
        AnticipationRecord {
            depth,
            num_heads,
            embed_dim: opened.probe.embed_dim,
            verbs: Vec::new(),
            nouns: Vec::new(),
            actions: Vec::new(),
            frames: clips.preprocessing.num_frames,
            fps: clips.fps,
            seconds: clips.seconds,
            anchor: clips.anchor.name().to_owned(),
            side: clips.preprocessing.crop_size,
            encoder_sha256: opened.digest.clone(),
        }
    }
}

/// Runs the command.
pub(super) fn run(args: &Train, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let setup = Setup::read(&args.frozen, ranks)?;
    if setup.official.as_ref().is_some_and(|file| file.val_only) {
        let instead = "use `vjepa anticipate eval --probe FILE` with this --config";
        return Err(format!("`val_only` is true, which trains nothing: {instead}").into());
    }
    let (clips, options) = (setup.clips(&args.clips)?, args.options(&setup)?);
    written_as(&args.out, &["safetensors"])?;
    let read = setup.inputs();
    let read = read.iter().chain(&args.train).chain(&args.val).map(PathBuf::as_path);
    files::spare("--out", &args.out, &[&args.out], read)?;
    let index = setup.index()?;
    let list = setup.path(args.train.as_deref(), |file| &file.train, "give the actions to train on with --train")?;
    let actions = setup.actions(&index, list, ranks)?;
    let val = args.val.as_ref().or(setup.official.as_ref().map(|file| &file.val));
    let val = val.map(|list| setup.actions(&index, list, ranks)).transpose()?;
    let augmented = online::asked(args, &setup, ranks)?;
    let farthest = augmented.as_ref().map_or(clips.seconds, |training| training.seconds[1]);
    let mut opened = setup.open(device, clips, farthest)?;
    let (preprocessing, anchor) = (opened.preprocessing.clone(), setup.anchor(args.anchor));
    let clips = AnticipationClips { preprocessing, fps: clips.fps, seconds: clips.seconds, anchor };
    // As officially: what only --val has is left out there.
    let (verbs, nouns, pairs) = actions.classes();
    let record = AnticipationRecord { verbs, nouns, actions: pairs, ..args.record(&setup, &opened, &clips) };
    let learned = match &augmented {
        Some(training) => {
            let draws = online::draws(training, clips.clone());
            Some(online::learned(args, device, &record, &options, &mut opened, (&draws, &actions.segments), ranks)?)
        }
        None => None,
    };
    // With augmentation, features of training actions are needed only where there are no others to evaluate on.
    let own = (learned.is_none() || val.is_none()).then(|| features(&mut opened, &clips, &actions, ranks));
    let own = own.transpose()?.flatten();
    let held = val.as_ref().map(|val| features(&mut opened, &clips, val, ranks)).transpose()?.flatten();
    let (measured, learned) = match (held.as_ref().or(own.as_ref()), learned) {
        (None, _) | (_, Some(None)) => return Ok(()),
        (Some(measured), None) => (measured, trained(device, &record, &options, own.as_ref())?),
        (Some(measured), Some(Some(learned))) => (measured, learned),
    };
    let (weights, rows) = best(device, &record, &options, learned, measured)?;
    save_actions(&args.out, &record, &weights)?;
    say_trained(args, &record, &rows, held.is_some());
    Ok(())
}

/// What probes learn of features that stay as they are.
fn trained(
    device: Device,
    record: &AnticipationRecord,
    options: &[ProbeOptions],
    found: Option<&Anticipated>,
) -> Result<Vec<NamedTensors>, CliError> {
    let found = found.ok_or("there are no features to train on")?;
    let train = |options| {
        let mut bar = Bar::default();
        let weights = train_actions(device, record, found, options, &mut |p| bar.show(p))?;
        bar.clear();
        Ok(weights)
    };
    options.iter().map(train).collect()
}

/// Each of `own` with each of `lrs` in the place of its learning rate, and with each of `decays` in that of its weight decay;
/// an empty list leaves the value. What is then the same is trained once.
fn with_rates(own: Vec<ProbeOptions>, lrs: &[f64], decays: &[f64]) -> Vec<ProbeOptions> {
    let mut all: Vec<ProbeOptions> = Vec::new();
    for own in own {
        let mut of_rates = vec![own];
        if !lrs.is_empty() {
            of_rates = lrs.iter().map(|lr| ProbeOptions { lr: *lr, start_lr: *lr, ..own }).collect();
        }
        for of_rate in of_rates {
            let decayed = |decay: &f64| ProbeOptions { weight_decay: *decay, final_weight_decay: *decay, ..of_rate };
            let mut of_decays: Vec<ProbeOptions> = decays.iter().map(decayed).collect();
            if decays.is_empty() {
                of_decays.push(of_rate);
            }
            for options in of_decays {
                if !all.contains(&options) {
                    all.push(options);
                }
            }
        }
    }
    all
}

/// How a probe did: its learning rate, its weight decay, its recall.
type Tried = (f64, f64, Recall);

/// Of probes that were trained each by one of `options`, the weights of the one that does best, and how all do.
fn best(
    device: Device,
    record: &AnticipationRecord,
    options: &[ProbeOptions],
    learned: Vec<NamedTensors>,
    measured: &Anticipated,
) -> Result<(NamedTensors, Vec<Tried>), CliError> {
    let mut best: Option<(f64, NamedTensors)> = None;
    let mut rows = Vec::with_capacity(options.len());
    for (options, weights) in options.iter().zip(learned) {
        let recall = evaluate_actions(device, record, &weights, measured)?;
        rows.push((options.lr, options.weight_decay, recall));
        if best.as_ref().is_none_or(|(most, _)| recall.action > *most) {
            best = Some((recall.action, weights));
        }
    }
    match best {
        Some((_, weights)) => Ok((weights, rows)),
        None => Err("there is no learning rate to train at".into()),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_overrides_its_own_value_alone() {
        let head = |lr: f64, wd: f64| ProbeOptions {
            lr,
            start_lr: lr / 2.0,
            final_lr: 1e-7,
            warmup: 1.0,
            weight_decay: wd,
            final_weight_decay: wd / 2.0,
            ..ProbeOptions::default()
        };
        let file = vec![head(5e-3, 0.1), head(5e-3, 0.01), head(1e-3, 0.1)];
        let rates = |all: &[ProbeOptions]| all.iter().map(|one| (one.lr, one.weight_decay)).collect::<Vec<_>>();
        assert_eq!(with_rates(file.clone(), &[], &[]), file);
        let decayed = with_rates(file.clone(), &[], &[0.3]);
        assert_eq!(rates(&decayed), [(5e-3, 0.3), (1e-3, 0.3)]);
        assert_eq!((decayed[0].start_lr, decayed[0].warmup, decayed[0].final_weight_decay), (2.5e-3, 1.0, 0.3));
        let rated = with_rates(file.clone(), &[2e-3, 3e-3], &[]);
        assert_eq!(rates(&rated), [(2e-3, 0.1), (3e-3, 0.1), (2e-3, 0.01), (3e-3, 0.01)]);
        assert_eq!((rated[0].start_lr, rated[0].final_lr, rated[0].final_weight_decay), (2e-3, 1e-7, 0.05));
        assert_eq!(rates(&with_rates(file, &[2e-3], &[0.0, 0.2])), [(2e-3, 0.0), (2e-3, 0.2)]);
    }
}
