//! Progress on the screen: one bar at a time, or occasional lines if there is no terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::Instant;

use crate::recording::Recording;
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;
use vjepa_train::{Observer, StepReport, TrainError, TrainOutcome, TrainState, Watch};

/// Maximum number of lines per stage without a bar.
const LINES: usize = 5;

pub(super) struct Screen {
    bar: ProgressBar,
    began: Instant,
    reported: usize,
    /// Losses by step.
    pub(super) losses: Vec<(u64, f64)>,
    pub(super) watch: Option<Watch>,
    /// The run's configuration, once it is known.
    pub(super) config: Option<Config>,
    recording: Option<Recording>,
}

impl Screen {
    pub(super) fn new() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template("{wide_bar:.cyan/blue} {pos}/{len}  {eta} left  {msg}") {
            bar.set_style(style);
        }
        Self { bar, began: Instant::now(), reported: 0, losses: Vec::new(), watch: None, config: None, recording: None }
    }

    /// Announces a new stage in one line.
    pub(super) fn stage(&mut self, what: &str) {
        self.reported = 0;
        self.say(&format!("[{:>4} s] {what}", self.began.elapsed().as_secs()));
    }

    pub(super) fn say(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    pub(super) fn progress(&mut self, what: &str, done: usize, total: usize) {
        self.bar.set_length(total as u64);
        self.bar.set_position(done as u64);
        self.bar.set_message(what.to_owned());
        let due = self.reported * total.max(1) / LINES;
        if self.bar.is_hidden() && done >= due && done > 0 {
            self.reported = done * LINES / total.max(1) + 1;
            eprintln!("         {what}: {done} of {total}");
        }
    }

    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// Records how training ended.
    pub(super) fn record_end(&mut self, outcome: &Result<TrainOutcome, TrainError>) {
        if let Some(recording) = &mut self.recording {
            recording.end(outcome, None);
        }
        self.say_trouble();
    }

    /// Says what could not be recorded.
    fn say_trouble(&mut self) {
        if let Some(what) = self.recording.as_mut().and_then(Recording::trouble) {
            self.say(&format!("note: {what}"));
        }
    }

    pub(super) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }
}

impl Observer for Screen {
    fn phase(&mut self, _: &str) {}

    fn begins(&mut self, from: u64, of: u64) -> Result<(), TrainError> {
        let held_out = self.watch.as_ref().map(Watch::held_out);
        self.recording = self.config.as_ref().map(|config| Recording::begin(config, Device::CPU, from, of, held_out));
        self.say_trouble();
        Ok(())
    }

    fn step(&mut self, report: &StepReport) {
        self.losses.push((report.step, report.loss));
        if let Some(recording) = &mut self.recording {
            recording.step(report);
        }
        self.say_trouble();
        let text = format!("loss {:.3}, {:.0} ms per step", report.loss, report.took.as_secs_f64() * 1e3);
        self.progress(&text, report.step as usize + 1, report.of as usize);
    }

    fn diagnose(&mut self, state: &mut TrainState) -> Result<(), TrainError> {
        let Some(watch) = &mut self.watch else { return Ok(()) };
        let found = Recording::measure(&mut self.recording, watch, state)
            .map_err(|error| TrainError::Observer(error.to_string()))?;
        if let Some(recording) = &mut self.recording {
            recording.measured(state.step(), &found);
        }
        self.say_trouble();
        let line = format!(
            "         step {:>4}: held-out loss {:.3}, context gap {:+.1} %, effective rank {:.1}",
            state.step(),
            found.loss,
            100.0 * found.context_gap,
            found.effective_rank
        );
        self.say(&line);
        Ok(())
    }
}
