//! Learning rate, weight decay and momentum against the official schedulers, at 1e-12 relative.

use std::path::Path;

use serde::Deserialize;

use super::check::{Check, GoldenError, read_json};
use vjepa_recipe::schedules::{ProbeSchedule, Schedule, ScheduleConfig};

/// Double precision, differing only in the order of a few operations.
const LIMIT: f64 = 1e-12;

#[derive(Deserialize)]
struct SchedulesJson {
    vitl16: Run,
    #[serde(rename = "probe_T100")]
    probe: Vec<Row>,
}

#[derive(Deserialize)]
struct Run {
    ipe: u64,
    epochs: u64,
    ipe_scale: f64,
    #[serde(alias = "warmup")]
    warmup_epochs: u64,
    start_lr: f64,
    lr: f64,
    final_lr: f64,
    wd: f64,
    final_wd: f64,
    ema: [f64; 2],
    #[serde(default)]
    rows: Vec<Row>,
    /// Present and null in runs that never clip.
    #[serde(default, deserialize_with = "given")]
    clip_grad: Option<Option<f64>>,
}

/// Tells a null from a missing key.
fn given<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Option<f64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Run {
    fn schedule(&self) -> Schedule {
        let official = ScheduleConfig::official(self.ipe, self.epochs, self.warmup_epochs);
        Schedule::new(&ScheduleConfig {
            clip_from_step: official.clip_from_step.filter(|_| self.clip_grad != Some(None)),
            ipe_scale: self.ipe_scale,
            lr: [self.start_lr, self.lr, self.final_lr],
            wd: [self.wd, self.final_wd],
            ema: self.ema,
            ..official
        })
    }
}

#[derive(Deserialize)]
struct Row {
    itr: u64,
    lr: f64,
    wd: f64,
    #[serde(default)]
    momentum: f64,
}

#[derive(Deserialize)]
struct TrainingJson {
    hparams: Run,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    /// Counted from 1.
    step: u64,
    lr: f64,
    wd: f64,
    momentum: f64,
    #[serde(default)]
    clipped: bool,
    /// A cool-down has schedules of its own.
    #[serde(default)]
    stage: Option<String>,
}

/// Compares with `schedules/` (ViT-L/16's run and a probe's) or with the ten steps of a training configuration such as
/// `tiny/`.
///
/// # Errors
/// [`GoldenError`] when a file is missing or malformed.
pub fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    if dir.join("config.json").exists() {
        let mut golden: TrainingJson = read_json(&dir.join("config.json"))?;
        golden.steps.retain(|step| step.stage.as_deref().is_none_or(|stage| stage == "pretrain"));
        return Ok(check_training(&golden));
    }
    let golden: SchedulesJson = read_json(&dir.join("schedules.json"))?;
    let schedule = golden.vitl16.schedule();
    let mut checks = Vec::new();
    for row in &golden.vitl16.rows {
        let rates = schedule.at(row.itr);
        let (got, want) = ([rates.lr, rates.wd, rates.momentum], [row.lr, row.wd, row.momentum]);
        checks.push(Check::series_rel(format!("schedules.vitl16.{}", row.itr), &got, &want, LIMIT));
    }
    let total = golden.probe.len() as u64;
    let probe = ProbeSchedule::new(total, 0, 1e-3, 1e-3, 0.01);
    let (got_lr, got_wd): (Vec<f64>, Vec<f64>) = golden.probe.iter().map(|row| probe.at(row.itr)).unzip();
    let (want_lr, want_wd): (Vec<f64>, Vec<f64>) = golden.probe.iter().map(|row| (row.lr, row.wd)).unzip();
    checks.push(Check::series_rel("schedules.probe.lr", &got_lr, &want_lr, LIMIT));
    checks.push(Check::series_rel("schedules.probe.wd", &got_wd, &want_wd, LIMIT));
    Ok(checks)
}

/// The schedules of a training configuration such as `tiny/`.
pub(super) fn training_schedule(dir: &Path) -> Result<Schedule, GoldenError> {
    let golden: TrainingJson = read_json(&dir.join("config.json"))?;
    Ok(golden.hparams.schedule())
}

fn check_training(golden: &TrainingJson) -> Vec<Check> {
    let schedule = golden.hparams.schedule();
    let rates: Vec<_> = golden.steps.iter().map(|step| schedule.at(step.step.saturating_sub(1))).collect();
    let series = |name: &str, got: Vec<f64>, want: Vec<f64>| {
        Check::series_rel(format!("schedules.steps.{name}"), &got, &want, LIMIT)
    };
    vec![
        series("lr", rates.iter().map(|r| r.lr).collect(), golden.steps.iter().map(|s| s.lr).collect()),
        series("wd", rates.iter().map(|r| r.wd).collect(), golden.steps.iter().map(|s| s.wd).collect()),
        series(
            "momentum",
            rates.iter().map(|r| r.momentum).collect(),
            golden.steps.iter().map(|s| s.momentum).collect(),
        ),
        Check::exact(
            "schedules.steps.clip_active",
            &rates.iter().map(|r| r.clip_active).collect::<Vec<_>>(),
            &golden.steps.iter().map(|s| s.clipped).collect::<Vec<_>>(),
        ),
    ]
}
