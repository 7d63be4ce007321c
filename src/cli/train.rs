//! `vjepa train`.

mod reporter;

use super::CliError;
use super::device::{DeviceArg, RankArgs};
use super::given::of_config;
use super::whole::whole;
pub(super) use reporter::TrainReporter;
use std::path::{Path, PathBuf};
use vjepa_collective::Collective;
use vjepa_data::DataSets;
use vjepa_programs::{MaskSizes, drawn_sizes};
use vjepa_programs::{Passes, StopAfter};
use vjepa_recipe::config::{Config, Dtype};
use vjepa_report::starts::COMMIT;
use vjepa_runtime::files::{self, Overwrites};
use vjepa_runtime::plan::{Device, Recorded};
use vjepa_train::{Interrupt, Observer, ProfileRequest, StepReport, TrainOutcome, TrainRun, Travel, Watch, train};

/// Pretrain an encoder on videos
///
/// The setting `data.datasets` names lists (.csv or .txt, one "path label" per line), folders, tar shards or videos
/// (docs/data.md). Labels may be omitted; paths are relative to the list's folder.
#[derive(clap::Args)]
pub struct Args {
    /// YAML configuration in the official format (see configs/)
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a setting, e.g. --set optimization.lr=1e-3 (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Resume from the latest checkpoint in `logging.folder`; changes to the model, masks or clips are an error, other
    /// changes are reported
    #[arg(long)]
    resume: bool,
    /// Continue a run of the official code from its checkpoint (jepa-latest.pth.tar), optimiser state included; use the same
    /// configuration as that run
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    resume_from: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    /// Train on several GPUs of this machine, one rank each: cuda:0-7, or cuda:0,2,3 (experimental; docs/scaling.md)
    #[arg(long, value_name = "LIST", conflicts_with_all = ["device", "dry_run", "profile"])]
    devices: Option<super::spawn::Devices>,
    /// Use Burn's autodiff instead of the compiled step (slow; for comparison)
    #[arg(long)]
    eager: bool,
    /// Stop after this step; schedules remain those of the whole run
    #[arg(long, value_name = "STEP")]
    stop_at: Option<u64>,
    /// Use a step compiled ahead of time by `vjepa graph step --out FILE.vjg`
    #[arg(long, value_name = "FILE", conflicts_with = "eager")]
    plan: Option<PathBuf>,
    /// Time every operation of a few steps: print a table and write a trace for Chrome or Perfetto to this file
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Number of steps to profile, after three warm-up steps
    #[arg(long, value_name = "N", default_value_t = 5, requires = "profile", value_parser = whole::<u64>(1..))]
    profile_steps: u64,
    /// Stop the compiler after this pass: PASS, forward/PASS (before differentiation) or none
    #[arg(long = "stop-after-pass", alias = "stop-after", value_name = "PASS", conflicts_with_all = ["plan", "eager"])]
    stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long, conflicts_with_all = ["plan", "eager"])]
    verify_ir: bool,
    /// Memory limit of the step, weights included, e.g. 800MB or 1.5GiB; what does not fit is recomputed in the backward
    /// pass [default: none]
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["plan", "eager"])]
    memory_budget: Option<super::memory::Bytes>,
    /// On a GPU: record the launches of a step when its mask sizes come for the second time, and replay them from then on
    /// (experimental; docs/gpu.md)
    #[arg(long, conflicts_with_all = ["eager", "profile", "dry_run"])]
    record_launches: bool,
    /// Check configuration and data and print steps and memory, without training
    #[arg(long, conflicts_with_all = ["plan", "eager", "profile", "resume", "resume_from"])]
    dry_run: bool,
    /// Exit with code 3 if the encoder has collapsed by the end of the run
    #[arg(long)]
    fail_on_collapse: bool,
    #[command(flatten)]
    ranks: RankArgs,
    /// Print one JSON object per step, and a summary
    #[arg(long)]
    json: bool,
}

/// The encoder has collapsed, and `--fail-on-collapse` was given.
#[derive(Debug, thiserror::Error)]
#[error("the encoder has collapsed (--fail-on-collapse)")]
pub(super) struct Collapsed;

/// A scheduler asked for the end before the last step; the state is saved.
#[derive(Debug, thiserror::Error)]
#[error("stopped by a signal and saved: run the same command with --resume to go on")]
pub(super) struct Stopped;

impl Stopped {
    /// "Temporary failure, try again" of `sysexits.h`.
    pub(super) const CODE: u8 = 75;
}

impl Args {
    /// Refuses a trace in the place of what is read.
    fn spare_inputs(&self, config: &Config) -> Result<(), Overwrites> {
        let Some(trace) = &self.profile else { return Ok(()) };
        let files = [Some(&self.config), self.plan.as_ref(), self.resume_from.as_ref()].into_iter().flatten();
        let named = config.data.datasets.iter().chain(&config.meta.read_checkpoint).map(Path::new);
        files::spare("--profile", trace, &[trace], files.map(PathBuf::as_path).chain(named))
    }
}

/// Runs the command, as one of several ranks where a launcher says so; with `--devices` it starts them.
pub fn run(args: &Args) -> Result<(), CliError> {
    if let Some(devices) = &args.devices {
        return super::spawn::run(devices);
    }
    let shared = |error: &CliError| error.is::<Collapsed>() || error.is::<Stopped>();
    args.ranks.run(&args.device, shared, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let config = Config::from_file(&args.config, &args.sets)?;
    if ranks.rank() == 0 {
        note_settings(&config, device);
    }
    config.check_training()?;
    args.spare_inputs(&config)?;
    if args.record_launches && device.is_cpu() {
        return Err("--record-launches is for GPUs, whose launches cost the host time: leave it out on the CPU".into());
    }
    let sets = DataSets::read(&config.data).map_err(of_config)?;
    let images = config.image_data().map(|images| DataSets::read(&images).map_err(of_config)).transpose()?;
    let mut data = sets.survey();
    data.extend(images.iter().flat_map(DataSets::survey));
    for set in data.iter().filter(|_| ranks.rank() == 0) {
        eprintln!("data set {set}");
        set.notes.iter().for_each(|note| eprintln!("note: {}: {note}", set.path.display()));
    }
    if config.is_mixed() && ranks.rank() == 0 && !args.dry_run {
        eprintln!("note: a step is {}", super::dry_run::kinds(&config)?);
    }
    let request = |sets: &DataSets| {
        let run = request(args, device, &config, sets)?;
        Ok::<_, CliError>(TrainRun { images: images.clone(), ..run })
    };
    if args.dry_run {
        let mut run = request(&sets)?;
        return super::dry_run::run(&config, &sets, &data, &mut run.passes, device, args.json);
    }
    let interrupt = Interrupt::on_signals()?;
    let run = request(&sets)?;
    if ranks.rank() != 0 {
        train(&config, &run, ranks, &interrupt, &mut Quiet)?;
        return Ok(());
    }
    let mut observer = TrainReporter::new(args.json, device, &config, sets);
    if config.logging.diagnostics_every.is_some() {
        observer.watch = Some(Watch::new(device, &config, &observer.sets)?);
        let folder = Path::new(config.logging.folder.as_deref().unwrap_or_default());
        observer.diagnostics = folder.join(format!("{}-diagnostics.jsonl", config.logging.write_tag));
    }
    let outcome = train(&config, &run, ranks, &interrupt, &mut observer);
    observer.finish();
    observer.record_end(&outcome);
    let outcome = outcome?;
    if args.profile.is_some() && !observer.profiled {
        eprintln!("note: the run ended before the steps to be profiled; no trace was written");
    }
    let collapsed = observer.collapsed.filter(|_| !outcome.interrupted);
    if args.json {
        let summary = serde_json::json!({
            "steps": outcome.steps, "loss": outcome.loss, "checkpoint": outcome.checkpoint, "metrics": outcome.metrics,
            "bad_videos": outcome.bad_videos, "skipped": outcome.skipped, "interrupted": outcome.interrupted,
            "collapsed": collapsed, "data": data, "sums": outcome.travel.map(sums),
            "launches": outcome.recorded.as_ref().map(launches),
        });
        println!("{summary}");
    } else {
        print_outcome(&outcome, collapsed == Some(true));
        observer.print_collapse();
    }
    // `--stop-at` is no signal.
    if outcome.interrupted && interrupt.raised() && !interrupt.by_hand() {
        return Err(Stopped.into());
    }
    if args.fail_on_collapse && collapsed == Some(true) { Err(Collapsed.into()) } else { Ok(()) }
}

/// Notes on settings that mean something else than they might seem to.
fn note_settings(config: &Config, device: Device) {
    let ignored: Vec<String> = config.ignored().iter().map(|(key, why)| format!("`{key}` ({why})")).collect();
    if !ignored.is_empty() {
        eprintln!("note: of no effect here: {}", ignored.join(", "));
    }
    super::note_sampling(Some(config));
    if device.is_cpu() && config.meta.dtype == Dtype::Bfloat16 {
        eprintln!("note: the CPU emulates bfloat16; --set meta.dtype=float32 is faster");
    }
}

/// The run that the arguments ask for.
fn request(args: &Args, device: Device, config: &Config, sets: &DataSets) -> Result<TrainRun, CliError> {
    let stop_after = args.stop_after.as_deref().map(pass).transpose()?;
    let memory = match args.memory_budget {
        Some(budget) => Some((budget.0, drawn_sizes(config, MaskSizes::Largest)?)),
        None => None,
    };
    Ok(TrainRun {
        resume: args.resume,
        resume_from: args.resume_from.clone(),
        eager: args.eager,
        device,
        stop_at: args.stop_at,
        plan: args.plan.clone(),
        passes: Passes { stop_after, verify: args.verify_ir, memory, ..Passes::default() },
        data: Some(sets.clone()),
        images: None,
        commit: COMMIT,
        profile: args.profile.clone().map(|path| ProfileRequest { path, steps: args.profile_steps }),
        read_late: None,
        record_launches: args.record_launches,
    })
}

/// The pass that the compiler stops after; a number is meant as a step.
fn pass(word: &str) -> Result<StopAfter, CliError> {
    word.parse().map_err(|error| match word.parse::<u64>() {
        Ok(step) => format!("{error}; to stop after a step use --stop-at {step}").into(),
        Err(_) => CliError::from(error),
    })
}

/// Ranks but 0 say nothing.
pub(super) struct Quiet;

impl Observer for Quiet {
    fn phase(&mut self, _what: &str) {}

    fn step(&mut self, _report: &StepReport) {}
}

/// How sums travelled between ranks, per step.
fn sums(travel: Travel) -> serde_json::Value {
    let each = |all: f64| all / travel.steps.max(1) as f64;
    serde_json::json!({
        "buckets": each(travel.buckets as f64), "bytes": each(travel.bytes as f64),
        "ms": each(travel.took.as_secs_f64() * 1e3), "waited_ms": each(travel.waited.as_secs_f64() * 1e3),
        "hidden": travel.hidden(),
    })
}

/// How steps were launched.
fn launches(recorded: &Recorded) -> serde_json::Value {
    let refused = recorded.refused.as_ref().map(|(sizes, why)| serde_json::json!({"sizes": sizes, "why": why}));
    serde_json::json!({"sizes": recorded.sizes, "replays": recorded.replays, "refused": refused})
}

/// Prints how the run ended.
pub(super) fn print_outcome(outcome: &TrainOutcome, collapsed: bool) {
    let ended = match (outcome.interrupted, collapsed) {
        (true, _) => "stopped",
        (false, true) => "collapsed",
        (false, false) => "done",
    };
    let loss = outcome.loss.map_or_else(String::new, |loss| format!(", loss {loss:.4}"));
    println!("{ended} after {} steps{loss}", outcome.steps);
    match &outcome.checkpoint {
        Some(checkpoint) => println!("checkpoint  {}", checkpoint.display()),
        None => println!("checkpoint  none (stopped before the first step)"),
    }
    println!("metrics     {}", outcome.metrics.display());
    if let Some((travel, hidden)) = outcome.travel.and_then(|travel| Some((travel, travel.hidden()?))) {
        let each = |all: f64| all / travel.steps.max(1) as f64;
        println!(
            "sums        {:.1} MB a step in {:.0} buckets, {:.1} ms between ranks, {:.0} % of it while computing",
            each(travel.bytes as f64 / 1e6),
            each(travel.buckets as f64),
            each(travel.took.as_secs_f64() * 1e3),
            100.0 * hidden
        );
    }
    if let Some(Recorded { sizes, replays, refused }) = &outcome.recorded {
        println!("launches    recorded for {sizes} mask sizes, {replays} steps replayed");
        if let Some((sizes, why)) = refused {
            println!("            not recorded for {sizes} mask sizes: {why}");
        }
    }
    if outcome.bad_videos > 0 {
        println!("skipped     {} unreadable videos (listed next to the metrics)", outcome.bad_videos);
    }
    if outcome.skipped > 0 {
        println!("skipped     {} steps whose loss was above `optimization.skip_above`", outcome.skipped);
    }
    if outcome.interrupted {
        let resume = if outcome.checkpoint.is_some() { " with --resume" } else { " again" };
        println!("to resume   run the same command{resume}");
    }
}
