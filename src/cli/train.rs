//! `vjepa train`.

use super::CliError;
use super::device::{DeviceArg, RankArgs};
use crate::recording::Recording;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vjepa_collective::Collective;
use vjepa_data::DataSets;
use vjepa_eval::EvalError;
use vjepa_eval::features::Features;
use vjepa_programs::Passes;
use vjepa_programs::{MaskSizes, drawn_sizes};
use vjepa_recipe::config::{Config, Dtype};
use vjepa_runtime::plan::{Device, Profile};
use vjepa_train::verdict::{self, Gradients, Verdicts};
use vjepa_train::{
    Change, Continuation, Interrupt, Observer, ProfileRequest, StepReport, TrainError, TrainOutcome, TrainRun,
    TrainState, Travel, train,
};
use vjepa_train::{DiagnosticsReport, HeldOut, Watch};

/// Pretrain an encoder on videos
///
/// The setting `data.datasets` names lists (.csv or .txt, one "path label" per line), folders, tar shards or videos (docs/data.md).
/// Labels may be omitted; paths are relative to the list's folder.
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
    #[arg(long, value_name = "N", default_value_t = 5, requires = "profile", value_parser = clap::value_parser!(u64).range(1..))]
    profile_steps: u64,
    /// Stop the compiler after this pass: PASS, forward/PASS (before differentiation) or none
    #[arg(long, value_name = "PASS", conflicts_with_all = ["plan", "eager"])]
    stop_after: Option<String>,
    /// Verify the graph after every pass
    #[arg(long, conflicts_with_all = ["plan", "eager"])]
    verify_ir: bool,
    /// Memory limit of the step, weights included, e.g. 800MB or 1.5GiB; what does not fit is recomputed in the backward
    /// pass
    #[arg(long, value_name = "BYTES", conflicts_with_all = ["plan", "eager"])]
    memory_budget: Option<super::memory::Bytes>,
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

/// Runs the command, as one of several ranks where a launcher says so.
pub fn run(args: &Args) -> Result<(), CliError> {
    let shared = |error: &CliError| error.is::<Collapsed>() || error.is::<Stopped>();
    args.ranks.run(args.device.open()?, shared, |device, ranks| run_on(args, device, ranks))
}

fn run_on(args: &Args, device: Device, ranks: &dyn Collective) -> Result<(), CliError> {
    let config = Config::from_file(&args.config, &args.sets)?;
    if ranks.rank() == 0 {
        note_settings(&config, device);
    }
    config.check_training()?;
    let sets = DataSets::read(&config.data)?;
    let images = config.image_data().map(|images| DataSets::read(&images)).transpose()?;
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
    let mut observer = Progress::new(args.json, device, &config, sets);
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
    for (key, why) in config.ignored() {
        eprintln!("note: `{key}` is ignored: {why}");
    }
    super::note_sampling(Some(config));
    if device.is_cpu() && config.meta.dtype == Dtype::Bfloat16 {
        eprintln!("note: the CPU emulates bfloat16; --set meta.dtype=float32 is faster");
    }
}

/// The run that the arguments ask for.
fn request(args: &Args, device: Device, config: &Config, sets: &DataSets) -> Result<TrainRun, CliError> {
    let stop_after = args.stop_after.as_deref().map(str::parse).transpose()?;
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
        profile: args.profile.clone().map(|path| ProfileRequest { path, steps: args.profile_steps }),
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

/// Reports the run: progress bar and lines, or JSON.
pub(super) struct Progress {
    bar: ProgressBar,
    json: bool,
    began: Instant,
    pub(super) watch: Option<Watch>,
    /// Measures for a verdict where there are no diagnostics.
    judge: Option<Watch>,
    /// File of the diagnostics.
    diagnostics: PathBuf,
    profiled: bool,
    device: Device,
    config: Config,
    sets: DataSets,
    gradients: Gradients,
    verdicts: Verdicts,
    /// Steps skipped in this part of the run.
    skipped: u64,
    last: Option<DiagnosticsReport>,
    /// Whether the encoder has collapsed; none before the end of the run or if that cannot be decided.
    collapsed: Option<bool>,
    /// Since the first step of this part of the run.
    recording: Option<Recording>,
}

impl Progress {
    pub(super) fn new(json: bool, device: Device, config: &Config, sets: DataSets) -> Self {
        let bar = ProgressBar::no_length();
        let template = "{msg}\n{wide_bar:.cyan/blue} {pos}/{len} steps  {elapsed} elapsed, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Self {
            bar,
            json,
            began: Instant::now(),
            watch: None,
            judge: None,
            diagnostics: PathBuf::new(),
            profiled: false,
            device,
            config: config.clone(),
            sets,
            gradients: Gradients::default(),
            verdicts: Verdicts::default(),
            skipped: 0,
            last: None,
            collapsed: None,
            recording: None,
        }
    }

    /// Prints why the encoder is said to have collapsed, and what to try.
    fn print_collapse(&self) {
        let (Some(true), Some(found), Some(gradient)) = (self.collapsed, self.last, self.gradients.typical()) else {
            return;
        };
        println!(
            "collapsed   the encoder maps every clip to the same features: its gradient norm is {gradient:.1e}, the loss does \
             not depend on the context (gap {:+.1} %), and the targets have an effective rank of {:.1}",
            100.0 * found.context_gap,
            found.effective_rank
        );
        println!(
            "try         a lower `optimization.lr` (now {:.1e}), a longer warm-up, or `optimization.ema` closer to 1 (now {:?})",
            self.config.optimization.lr, self.config.optimization.ema
        );
    }

    /// A line of its own, above the bar.
    fn say(&self, line: &str) {
        if self.bar.is_hidden() { eprintln!("{line}") } else { self.bar.println(line) }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Records how the run ended.
    pub(super) fn record_end(&mut self, outcome: &Result<TrainOutcome, TrainError>) {
        if let Some(recording) = &mut self.recording {
            recording.end(outcome, self.collapsed);
        }
        self.say_trouble();
    }

    /// Says what could not be recorded.
    fn say_trouble(&mut self) {
        if let Some(what) = self.recording.as_mut().and_then(Recording::trouble) {
            self.bar.suspend(|| eprintln!("note: {what}"));
        }
    }
}

impl Observer for Progress {
    fn phase(&mut self, what: &str) {
        self.bar.set_message(what.to_owned());
        if self.bar.is_hidden() {
            eprintln!("{what} ...");
        }
    }

    fn begins(&mut self, from: u64, of: u64) -> Result<(), TrainError> {
        let held_out = self.watch.as_ref().map(Watch::held_out);
        self.recording = Some(Recording::begin(&self.config, self.device, from, of, held_out));
        self.say_trouble();
        let Some(watch) = &mut self.watch else { return Ok(()) };
        watch.keep(&self.diagnostics, from).map_err(|error| TrainError::Observer(error.to_string()))
    }

    fn note(&mut self, what: &str) {
        self.say(&format!("note: {what}"));
    }

    fn group(&mut self, done: u64, of: u64) {
        if done < of {
            self.bar.set_message(format!("group {done} of {of} of this step"));
        }
    }

    fn resumed(&mut self, continuation: &Continuation) {
        for Change { key, was, now } in &continuation.changed {
            eprintln!("note: resumed after step {} with a changed setting: {key}: {now}, was {was}", continuation.from);
        }
    }

    fn judge(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        let mut measured = self.last;
        if self.gradients.vanished() == Some(true) {
            let failed = |error: EvalError| TrainError::Observer(error.to_string());
            // Without diagnostics, measure only if the gradient has vanished.
            if self.watch.is_none() && self.judge.is_none() {
                self.judge = Some(Watch::new(self.device, &self.config, &self.sets).map_err(failed)?);
            }
            if let Some(judge) = &mut self.judge {
                measured = Some(judge.measure(state).map_err(failed)?);
            }
        }
        let verdict = verdict::collapsed(&self.gradients, measured.as_ref());
        let settings = (self.config.optimization.lr, self.config.optimization.ema);
        let said = self.verdicts.said(verdict, state.step(), &self.gradients, measured.as_ref(), settings);
        if let Some(said) = said {
            if self.json {
                println!("{}", serde_json::json!({"step": state.step(), "collapsed": verdict, "verdict": said}));
            } else {
                self.say(&said);
            }
        }
        Ok(())
    }

    fn ends(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        let failed = |error: EvalError| TrainError::Observer(error.to_string());
        // Without diagnostics, measure only if the gradient has vanished.
        if self.gradients.vanished() == Some(true) && self.last.is_none() {
            self.last = Some(
                Watch::new(self.device, &self.config, &self.sets).and_then(|mut w| w.measure(state)).map_err(failed)?,
            );
        }
        self.collapsed = verdict::collapsed(&self.gradients, self.last.as_ref());
        Ok(())
    }

    fn step(&mut self, report: &StepReport) {
        // A skipped step has no gradient.
        if report.skipped {
            self.skipped += 1;
        } else {
            self.gradients.add(report.monitored_norm);
        }
        if let Some(recording) = &mut self.recording {
            recording.step(report);
        }
        self.say_trouble();
        if self.json {
            let grad_norm: BTreeMap<_, _> = report.grad_norms.iter().copied().collect();
            let mut line = serde_json::json!({
                "step": report.step, "epoch": report.epoch, "loss": report.loss,
                "lr": report.lr, "wd": report.wd, "momentum": report.momentum, "grad_norm": grad_norm,
                "data_ms": report.waited.as_secs_f64() * 1e3, "step_ms": report.took.as_secs_f64() * 1e3,
                "clips": report.clips,
            });
            for (name, value) in &report.terms {
                line[*name] = (*value).into();
            }
            if report.skipped {
                line["skipped"] = true.into();
            }
            if report.travel.steps > 0 {
                line["sums"] = sums(report.travel);
            }
            println!("{line}");
        }
        self.bar.set_length(report.of);
        self.bar.set_position(report.step + 1);
        let norms: Vec<String> = report.grad_norms.iter().map(|(_, norm)| format!("{norm:.2e}")).collect();
        // Fine-tuning has no moving average.
        let momentum = match self.config.finetune {
            Some(_) => String::new(),
            None => format!("  ema {:.5}", report.momentum),
        };
        let text = format!(
            "loss {:.4}  lr {:.2e}{momentum}  |g| {}  {:.0} ms/step (data {:.0})",
            report.loss,
            report.lr,
            norms.join(" "),
            report.took.as_secs_f64() * 1e3,
            report.waited.as_secs_f64() * 1e3
        );
        let text = if self.skipped > 0 { format!("{text}  {} skipped", self.skipped) } else { text };
        if self.bar.is_hidden() && !self.json && report.step.is_multiple_of(50) {
            let seconds = self.began.elapsed().as_secs();
            eprintln!("step {:>6}/{}  {text}  {seconds} s", report.step, report.of);
        }
        self.bar.set_message(text);
    }

    fn profiled(&mut self, profile: &Profile<'_>, trace: &Path) {
        self.profiled = true;
        if self.json {
            let runs = profile.runs().len().max(1) as f64;
            let operations: Vec<_> = profile
                .by_op()
                .into_iter()
                .map(|(op, time)| {
                    serde_json::json!({
                        "op": op, "count": time.count as f64 / runs, "ms": time.seconds * 1e3 / runs,
                        "flops_per_second": time.flops_per_second(), "bytes_per_second": time.bytes_per_second(),
                    })
                })
                .collect();
            println!("{}", serde_json::json!({"profile": trace, "steps": runs, "operations": operations}));
        } else {
            self.bar.suspend(|| println!("{profile}trace       {}", trace.display()));
        }
    }

    fn diagnose(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let (step, recording) = (state.step(), &mut self.recording);
        let mut show = |clips: &HeldOut, features: &Features| {
            if let Some(recording) = recording.as_mut() {
                recording.features(step, clips, features);
            }
        };
        let found = match watch.measure_showing(state, &mut show) {
            Ok(found) => found,
            // A full disk ends no run; the numbers are in memory until it has room again.
            Err(error @ EvalError::File { .. }) => {
                self.note(&format!("diagnostics cannot be written ({error}); training goes on"));
                let Some((_, found)) = self.watch.as_ref().and_then(|watch| watch.history().last().copied()) else {
                    return Ok(());
                };
                found
            }
            Err(error) => return Err(TrainError::Observer(error.to_string())),
        };
        if let Some(recording) = &mut self.recording {
            recording.measured(step, &found);
        }
        self.say_trouble();
        self.last = Some(found);
        let text = format!(
            "step {:>6}  context gap {:+.1} %  effective rank {:.1}  target deviation {:.3}",
            state.step(),
            100.0 * found.context_gap,
            found.effective_rank,
            found.deviation_mean
        );
        if self.json {
            let line = serde_json::json!({
                "step": state.step(), "context_gap": found.context_gap, "effective_rank": found.effective_rank,
                "deviation": found.deviation_mean,
            });
            println!("{line}");
        } else if self.bar.is_hidden() {
            eprintln!("{text}");
        } else {
            self.bar.println(text);
        }
        Ok(())
    }
}
