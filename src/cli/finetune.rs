//! `vjepa finetune`: an encoder and a classifier trained end to end on labelled videos.

mod cost;
mod report;

use std::path::{Path, PathBuf};

use super::CliError;
use super::cost::DryRun;
use super::data::share;
use super::device::{DeviceArg, RankArgs};
use super::given::all_there;
use super::probe::{of, read_notes};
use super::train::{Quiet, Stopped, TrainReporter};
use super::whole::whole;
use report::{Done, Report};
use vjepa_collective::Collective;
use vjepa_data::annotations::Share;
use vjepa_data::{DataSets, VideoList};
use vjepa_eval::labels::{ClassNames, remarks};
use vjepa_eval::videos::labelled_videos;
use vjepa_programs::{describe, tuning};
use vjepa_recipe::config::{Config, FinetuneConfig};
use vjepa_report::starts::COMMIT;
use vjepa_runtime::plan::Device;
use vjepa_train::finetuning::{self, Finetuning};
use vjepa_train::{
    Checkpoint, Continuation, Interrupt, Observer, StepReport, TrainError, TrainOutcome, TrainRun, train_task,
};
use vjepa_weights::Weights;

/// Fine-tune an encoder on labelled videos: encoder and classifier are trained end to end, then tested
///
/// The configuration has the sections of a training run and `finetune`; what it leaves out is as in the paper, and the model
/// and its clips are those of the checkpoint. The result is one file, for `vjepa eval` and `vjepa compile`.
#[derive(clap::Args)]
pub struct Args {
    /// YAML configuration (see configs/finetune_textures.yaml and docs/finetuning.md)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a setting, e.g. --set finetune.layer_decay=0.75 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Encoder to begin with: a checkpoint of vjepa or of the official code (.safetensors, .pt, .pth.tar), or a Hugging Face
    /// folder
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Labelled videos to train on, instead of `data.datasets`
    #[arg(long, value_name = "LIST")]
    data: Option<PathBuf>,
    /// Labelled videos to test on, instead of `finetune.val`
    #[arg(long, value_name = "LIST")]
    val: Option<PathBuf>,
    /// File with one class name per line; the first is that of label 0 unless --labels-from says otherwise
    #[arg(long, value_name = "FILE")]
    names: Option<PathBuf>,
    /// Label of the first name: 1 for lists that number their classes from 1 (UCF101, HMDB51)
    #[arg(long, value_name = "N", requires = "names", allow_negative_numbers = true)]
    labels_from: Option<i64>,
    /// Train on a class-balanced share of the videos, e.g. 5%, instead of `finetune.subset`
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    subset: Option<Share>,
    /// Train on the random draw of the share with this seed alone, in `logging.folder` itself, instead of `finetune.subset_split`
    #[arg(long, value_name = "N")]
    split_seed: Option<u64>,
    /// Draws of the share, with the seeds from 0, each trained in a folder of its own in `logging.folder` (split-0, split-1,
    /// ...); tests are averaged [default: `finetune.subset_splits`, 3]
    #[arg(long, conflicts_with = "split_seed", value_parser = whole::<u32>(1..))]
    splits: Option<u32>,
    /// Resume from the latest checkpoint in `logging.folder`, bit for bit as if it had not stopped
    #[arg(long)]
    resume: bool,
    /// Stop after this step; schedules remain those of the whole run
    #[arg(long, value_name = "STEP")]
    stop_at: Option<u64>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    ranks: RankArgs,
    #[command(flatten)]
    dry: DryRun,
    /// Print one JSON object per step, and a summary
    #[arg(long)]
    json: bool,
}

/// Runs the command, as one of several ranks where a launcher says so.
pub fn run(args: &Args) -> Result<(), CliError> {
    if args.dry.dry_run {
        args.dry.print(&args.bill(None, args.dry.assumed()?)?, args.json);
        return Ok(());
    }
    let shared = |error: &CliError| error.is::<Stopped>();
    args.ranks.run(&args.device, shared, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    all_there(&[("--data", args.data.as_deref()), ("--val", args.val.as_deref()), ("--names", args.names.as_deref())])?;
    let checkpoint = finetuning::open_checkpoint(&args.checkpoint)?;
    let (config, sets) = resolve(args, &checkpoint)?;
    config.check_training()?;
    // Before anything is trained. The other ranks test nothing.
    let val = config.finetune.as_ref().filter(|_| ranks.rank() == 0).and_then(|finetune| finetune.val.as_deref());
    let val = val.map(|list| labelled_videos(Path::new(list))).transpose()?;
    let mut notes = check_classes(args, &config, sets.lists(), val.as_ref())?;
    let (configs, interrupt) = (runs(config), Interrupt::on_signals()?);
    let mut done = Vec::with_capacity(configs.len());
    for (number, config) in configs.iter().enumerate() {
        let (sets, of_share) = finetuning::chosen(config, sets.clone())?;
        if number == 0 {
            notes.extend(of_share);
            notes.iter().filter(|_| ranks.rank() == 0).for_each(|note| eprintln!("note: {note}"));
        }
        if let (0, Some(seed), Some(folder)) = (ranks.rank(), seed_of(config), &config.logging.folder) {
            eprintln!("split {} of {}, drawn with seed {seed}, into {folder}", number + 1, configs.len());
        }
        let task = Finetuning::new(config, &checkpoint, &sets)?;
        // One that was never begun has nothing to resume.
        let resume = args.resume && (number == 0 || begun(config));
        let run = TrainRun { resume, device, stop_at: args.stop_at, commit: COMMIT, ..TrainRun::default() };
        let outcome = tune((args, config), &task, &run, (ranks, &interrupt), sets)?;
        done.push(Done { config, outcome, test: None });
        // All ranks say the same.
        if done.last().is_some_and(Done::interrupted) {
            break;
        }
    }
    if ranks.rank() != 0 {
        return Ok(());
    }
    let interrupted = done.iter().any(Done::interrupted);
    // The other ranks have left, so that they do not wait for it.
    if let Some(val) = val.filter(|_| !interrupted) {
        done.iter_mut().try_for_each(|run| run.test(device, &val))?;
    }
    let report = Report { runs: &done, of: configs.len(), notes: &notes };
    report.print(args.json);
    // `--stop-at` is no signal.
    if interrupted && interrupt.raised() && !interrupt.by_hand() {
        return Err(Stopped.into());
    }
    Ok(())
}

/// Trains.
fn tune(
    (args, config): (&Args, &Config),
    task: &Finetuning<'_>,
    run: &TrainRun,
    (ranks, interrupt): (&dyn Collective, &Interrupt),
    sets: DataSets,
) -> Result<TrainOutcome, CliError> {
    if ranks.rank() != 0 {
        return Ok(train_task(config, task, run, ranks, interrupt, &mut Quiet)?);
    }
    let mut observer = Tuning(TrainReporter::new(args.json, run.device, config, sets));
    let outcome = train_task(config, task, run, ranks, interrupt, &mut observer);
    observer.0.finish();
    observer.0.record_end(&outcome);
    Ok(outcome?)
}

/// The runs of a configuration: itself, or one for each draw of a share, of several in a folder of its own.
fn runs(config: Config) -> Vec<Config> {
    let draws = config.finetune.as_ref().map(FinetuneConfig::draws).unwrap_or_default();
    let own = |seed: &u64| {
        let mut own = config.clone();
        if let Some(finetune) = &mut own.finetune {
            finetune.subset_split = Some(*seed);
        }
        if draws.len() > 1 {
            let folder = own.logging.folder.take();
            own.logging.folder = folder.map(|folder| of_split(Path::new(&folder), *seed).display().to_string());
        }
        own
    };
    if draws.is_empty() { vec![config] } else { draws.iter().map(own).collect() }
}

/// The seed of a run's draw of a share, if it has one.
fn seed_of(config: &Config) -> Option<u64> {
    config.finetune.as_ref().and_then(|finetune| finetune.subset.and(finetune.subset_split))
}

/// The folder of a draw.
fn of_split(folder: &Path, seed: u64) -> PathBuf {
    folder.join(format!("split-{seed}"))
}

fn begun(config: &Config) -> bool {
    config.logging.folder.as_ref().is_some_and(|folder| begun_in(Path::new(folder), &config.logging.write_tag))
}

/// Whether there is something to resume in a folder, of one run or of draws.
pub(super) fn begun_in(folder: &Path, tag: &str) -> bool {
    [folder.to_owned(), of_split(folder, 0)].iter().any(|folder| Checkpoint::new(folder, tag).any().is_some())
}

/// The configuration with what checkpoint and flags say, its classes named, and its data sets.
fn resolve(args: &Args, checkpoint: &Weights) -> Result<(Config, DataSets), CliError> {
    // A bare state dict may not say what it is; then the configuration has to.
    let model = describe(checkpoint, None).map(|model| tuning::settings_of(&model)).unwrap_or_default();
    let mut config = configured(args, &model)?;
    let sets = finetuning::labelled_sets(&config)?;
    named(args, &mut config, &sets)?;
    config.check()?;
    Ok((config, sets))
}

/// The configuration with what the flags say, on a model's settings.
fn configured(args: &Args, model: &[String]) -> Result<Config, CliError> {
    let text = |path: &Path| serde_json::to_string(&path.display().to_string());
    let mut sets =
        vec!["meta.load_checkpoint=true".to_owned(), format!("meta.read_checkpoint={}", text(&args.checkpoint)?)];
    if let Some(data) = &args.data {
        sets.push(format!("data.datasets=[{}]", text(data)?));
    }
    if let Some(val) = &args.val {
        sets.push(format!("finetune.val={}", text(val)?));
    }
    sets.extend(args.subset.map(|share| format!("finetune.subset={}", share.fraction())));
    sets.extend(args.split_seed.map(|seed| format!("finetune.subset_split={seed}")));
    // A number of draws is of several, whichever one the file names.
    sets.extend(
        args.splits
            .iter()
            .flat_map(|splits| [format!("finetune.subset_splits={splits}"), "finetune.subset_split=null".to_owned()]),
    );
    sets.extend(args.sets.iter().cloned());
    let config = Config::finetuning(&args.config, &sets, model)?;
    let share = config.finetune.as_ref().and_then(|finetune| finetune.subset);
    if share.is_none() && (args.split_seed.is_some() || args.splits.is_some()) {
        let flag = if args.splits.is_some() { "--splits" } else { "--split-seed" };
        return Err(format!("{flag} is of a share, and all is trained on: add --subset, e.g. --subset 5%").into());
    }
    Ok(config)
}

/// Names the classes of its data sets.
fn named(args: &Args, config: &mut Config, sets: &DataSets) -> Result<(), CliError> {
    let names = args.names.as_deref().map(ClassNames::read).transpose()?;
    match (names, &mut config.finetune) {
        (Some(names), Some(finetune)) => {
            // The first list says how all are numbered.
            let from = sets.lists().first().map(|list| names.numbering(list, args.labels_from)).transpose()?;
            finetune.labels_from = from.unwrap_or_default();
            finetune.class_names = names.names;
        }
        (None, Some(finetune)) if finetune.class_names.is_empty() => {
            finetune.class_names = finetuning::called_by_label(sets);
        }
        _ => {}
    }
    Ok(())
}

/// Checks that the labels of lists, which are trained and tested on, are those of the classes; what there is to say of the lists.
fn check_classes(
    args: &Args,
    config: &Config,
    train: &[VideoList],
    val: Option<&VideoList>,
) -> Result<Vec<String>, CliError> {
    let Some(FinetuneConfig { class_names, labels_from, .. }) = &config.finetune else { return Ok(Vec::new()) };
    // Labels that name their classes come from the lists that are trained on.
    let source = args.names.clone().unwrap_or_else(|| match train {
        [only] => only.path.clone(),
        _ => args.config.clone(),
    });
    let classes = ClassNames { names: class_names.clone(), count: class_names.len(), from: Some(*labels_from), source };
    let mut notes: Vec<String> = train.iter().chain(val).flat_map(read_notes).collect();
    for list in train.iter().chain(val) {
        notes.extend(of(list, classes.meet(list, None)?.1));
    }
    if classes.are_labels() {
        train.iter().for_each(|list| notes.extend(of(list, remarks(list))));
    }
    Ok(notes)
}

/// The progress of a training run, without its verdicts on features.
struct Tuning(TrainReporter);

impl Observer for Tuning {
    fn phase(&mut self, what: &str) {
        self.0.phase(what);
    }

    fn begins(&mut self, from: u64, of: u64) -> Result<(), TrainError> {
        self.0.begins(from, of)
    }

    fn note(&mut self, what: &str) {
        self.0.note(what);
    }

    fn group(&mut self, done: u64, of: u64) {
        self.0.group(done, of);
    }

    fn resumed(&mut self, continuation: &Continuation) {
        self.0.resumed(continuation);
    }

    fn step(&mut self, report: &StepReport) {
        self.0.step(report);
    }
}
