//! What a run of `vjepa train` reports while it goes on: progress bar and lines, or JSON.

use super::sums;
use crate::recording::Recording;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vjepa_data::DataSets;
use vjepa_eval::EvalError;
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, Profile};
use vjepa_train::verdict::{self, Gradients, Verdicts};
use vjepa_train::{
    Change, Continuation, DiagnosticsReport, Observer, StepReport, TrainError, TrainOutcome, TrainState, Watch,
};

/// Reports the run: progress bar and lines, or JSON.
pub(in crate::cli) struct TrainReporter {
    bar: ProgressBar,
    json: bool,
    began: Instant,
    pub(in crate::cli) watch: Option<Watch>,
    /// Measures for a verdict where there are no diagnostics.
    judge: Option<Watch>,
    /// File of the diagnostics.
    pub(in crate::cli) diagnostics: PathBuf,
    pub(in crate::cli) profiled: bool,
    device: Device,
    config: Config,
    pub(in crate::cli) sets: DataSets,
    gradients: Gradients,
    verdicts: Verdicts,
    /// Steps skipped in this part of the run.
    skipped: u64,
    last: Option<DiagnosticsReport>,
    /// Whether the encoder has collapsed; none before the end of the run or if that cannot be decided.
    pub(in crate::cli) collapsed: Option<bool>,
    /// Since the first step of this part of the run.
    recording: Option<Recording>,
}

impl TrainReporter {
    pub(in crate::cli) fn new(json: bool, device: Device, config: &Config, sets: DataSets) -> Self {
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
    pub(in crate::cli) fn print_collapse(&self) {
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

    pub(in crate::cli) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Records how the run ended.
    pub(in crate::cli) fn record_end(&mut self, outcome: &Result<TrainOutcome, TrainError>) {
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

impl Observer for TrainReporter {
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
            if let Some(recording) = &mut self.recording {
                recording.verdict(state.step(), &said);
            }
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
        let found = match Recording::measure(&mut self.recording, watch, state) {
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
            recording.measured(state.step(), &found);
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
