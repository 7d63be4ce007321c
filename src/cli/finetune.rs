//! `vjepa finetune`: an encoder and a classifier trained end to end on labelled videos.

use std::path::{Path, PathBuf};

use super::CliError;
use super::data::share;
use super::device::{DeviceArg, RankArgs};
use super::probe::{Bar, print_skipped};
use super::train::{Progress, Quiet, Stopped};
use vjepa_collective::{Alone, Collective};
use vjepa_data::annotations::Share;
use vjepa_data::{BadVideo, DataSets, TestPlan};
use vjepa_eval::labels::ClassNames;
use vjepa_eval::protocols::finetuned::{OpenTuned, open_tuned};
use vjepa_eval::protocols::videos::Accuracy;
use vjepa_eval::videos::labelled_videos;
use vjepa_programs::{describe, tuning};
use vjepa_recipe::config::{Config, FinetuneConfig};
use vjepa_report::starts::COMMIT;
use vjepa_runtime::plan::Device;
use vjepa_train::finetuning::{self, Finetuning};
use vjepa_train::{Continuation, Interrupt, Observer, StepReport, TrainError, TrainOutcome, TrainRun, train_task};
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
    /// Encoder to begin with: an official .pth.tar or .pt, or a .safetensors file with the official names
    #[arg(long, value_name = "FILE")]
    checkpoint: PathBuf,
    /// Labelled videos to train on, instead of `data.datasets`
    #[arg(long, value_name = "CSV")]
    data: Option<PathBuf>,
    /// Labelled videos to test on, instead of `finetune.val`
    #[arg(long, value_name = "CSV")]
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
    /// Number of the random draw of --subset; the protocol takes the mean over 0, 1 and 2
    #[arg(long, default_value_t = 0, value_name = "N", requires = "subset")]
    split_seed: u64,
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
    /// Print one JSON object per step, and a summary
    #[arg(long)]
    json: bool,
}

/// Runs the command, as one of several ranks where a launcher says so.
pub fn run(args: &Args) -> Result<(), CliError> {
    let shared = |error: &CliError| error.is::<Stopped>();
    args.ranks.run(&args.device, shared, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let checkpoint = finetuning::open_checkpoint(&args.checkpoint)?;
    let (config, sets) = resolve(args, &checkpoint)?;
    config.check_training()?;
    let (sets, notes) = finetuning::chosen(&config, sets)?;
    notes.iter().filter(|_| ranks.rank() == 0).for_each(|note| eprintln!("note: {note}"));
    let task = Finetuning::new(&config, &checkpoint, &sets)?;
    let run = TrainRun { resume: args.resume, device, stop_at: args.stop_at, commit: COMMIT, ..TrainRun::default() };
    let interrupt = Interrupt::on_signals()?;
    if ranks.rank() != 0 {
        train_task(&config, &task, &run, ranks, &interrupt, &mut Quiet)?;
        return Ok(());
    }
    let mut observer = Tuning(Progress::new(args.json, device, &config, sets));
    let outcome = train_task(&config, &task, &run, ranks, &interrupt, &mut observer);
    observer.0.finish();
    observer.0.record_end(&outcome);
    let outcome = outcome?;
    let tested = match (&config.finetune, &outcome.checkpoint) {
        (Some(finetune), Some(checkpoint)) if !outcome.interrupted => test(device, &config, finetune, checkpoint)?,
        _ => None,
    };
    report(args, &config, &outcome, tested.as_ref())?;
    // `--stop-at` is no signal.
    if outcome.interrupted && interrupt.raised() && !interrupt.by_hand() {
        return Err(Stopped.into());
    }
    Ok(())
}

/// The configuration with what checkpoint and flags say, and its data sets where classes are named by their labels.
fn resolve(args: &Args, checkpoint: &Weights) -> Result<(Config, Option<DataSets>), CliError> {
    // A bare state dict may not say what it is; then the configuration has to.
    let model = describe(checkpoint, None).map(|model| tuning::settings_of(&model)).unwrap_or_default();
    let text = |path: &Path| serde_json::to_string(&path.display().to_string());
    let mut sets =
        vec!["meta.load_checkpoint=true".to_owned(), format!("meta.read_checkpoint={}", text(&args.checkpoint)?)];
    if let Some(data) = &args.data {
        sets.push(format!("data.datasets=[{}]", text(data)?));
    }
    if let Some(val) = &args.val {
        sets.push(format!("finetune.val={}", text(val)?));
    }
    if let Some(share) = args.subset {
        sets.push(format!("finetune.subset={}", share.fraction()));
        sets.push(format!("finetune.subset_split={}", args.split_seed));
    }
    sets.extend(args.sets.iter().cloned());
    let mut config = Config::finetuning(&args.config, &sets, &model)?;
    if let (Some(path), Some(finetune)) = (&args.names, &mut config.finetune) {
        finetune.class_names = ClassNames::read(path)?.names;
        finetune.labels_from = args.labels_from.unwrap_or(0);
    }
    let sets = finetuning::name_classes(&mut config)?;
    config.check()?;
    Ok((config, sets))
}

/// What a test found.
struct Test {
    accuracy: Accuracy,
    clips: usize,
    crops: usize,
    bad: Vec<BadVideo>,
}

/// Tests the result on the videos that the configuration names.
fn test(
    device: Device,
    config: &Config,
    finetune: &FinetuneConfig,
    checkpoint: &Path,
) -> Result<Option<Test>, CliError> {
    let Some(list) = &finetune.val else { return Ok(None) };
    let list = labelled_videos(Path::new(list))?;
    let mut opened: OpenTuned = open_tuned(device, checkpoint, None)?;
    let plan = TestPlan::of(finetune, config.preprocessing());
    let mut bar = Bar::default();
    // The other ranks are done.
    let tested = opened.model.test(&plan, &list.entries, &Alone, &mut |progress| bar.show(progress))?;
    bar.clear();
    let Some(tested) = tested else { return Ok(None) };
    let accuracy = tested.accuracy(&opened.classes_of(&tested.labels, finetune.labels_from)?);
    let test = Test { accuracy, clips: plan.clips, crops: plan.crops, bad: tested.bad };
    let path = checkpoint.with_file_name(format!("{}-test.json", config.logging.write_tag));
    let text = format!("{:#}\n", json(&test));
    vjepa_runtime::write_atomically(&path, |file| std::io::Write::write_all(file, text.as_bytes()))
        .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    Ok(Some(test))
}

fn json(test: &Test) -> serde_json::Value {
    serde_json::json!({
        "top1": test.accuracy.top1, "top5": test.accuracy.top5, "videos": test.accuracy.videos, "clips": test.clips,
        "crops": test.crops, "bad_videos": test.bad,
    })
}

fn report(args: &Args, config: &Config, outcome: &TrainOutcome, tested: Option<&Test>) -> Result<(), CliError> {
    let classes = config.finetune.as_ref().map_or(0, |finetune| finetune.class_names.len());
    if args.json {
        let summary = serde_json::json!({
            "steps": outcome.steps, "loss": outcome.loss, "checkpoint": outcome.checkpoint, "metrics": outcome.metrics,
            "bad_videos": outcome.bad_videos, "skipped": outcome.skipped, "interrupted": outcome.interrupted,
            "classes": classes, "test": tested.map(json),
        });
        println!("{summary}");
        return Ok(());
    }
    super::train::print_outcome(outcome, false);
    if let Some(test) = tested {
        let Accuracy { top1, top5, videos } = test.accuracy;
        let Test { clips, crops, .. } = test;
        println!(
            "test        top-1 {:.1} %, top-5 {:.1} %, {videos} videos of {classes} classes, {clips} clips x {crops} crops",
            100.0 * top1,
            100.0 * top5
        );
        print_skipped(&test.bad.iter().collect::<Vec<_>>());
    }
    if let (Some(checkpoint), false) = (&outcome.checkpoint, outcome.interrupted) {
        println!("to export   vjepa compile --checkpoint {} --export onnx --out model.onnx", checkpoint.display());
    }
    Ok(())
}

/// The progress of a training run, without its verdicts on features.
struct Tuning(Progress);

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
