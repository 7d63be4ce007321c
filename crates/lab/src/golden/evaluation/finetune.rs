//! Fine-tuning's tables: layer decay, drop path, learning rates.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use vjepa_recipe::finetune::{FinetuneSchedule, LayerDecay, drop_path_rates};

use super::super::check::{Check, GoldenError, read_json};
use super::wrong;

/// Of all tables.
const LIMIT: f64 = 1e-12;

#[derive(Deserialize)]
struct Schedules {
    schedules: Vec<Schedule>,
}

#[derive(Deserialize)]
struct Schedule {
    name: String,
    base: f64,
    min: f64,
    epochs: u64,
    steps_per_epoch: u64,
    warmup_epochs: u64,
    warmup_steps: i64,
    rows: Vec<(u64, f64)>,
}

/// `eval_finetune/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let mut checks = Vec::new();
    let decay: Value = read_json(&dir.join("layer_decay.json"))?;
    for (name, model) in decay.as_object().into_iter().flatten() {
        layers(name, model, &mut checks);
    }
    let path = dir.join("schedule.json");
    let schedules: Schedules = read_json(&path)?;
    for run in &schedules.schedules {
        let settings = ([run.base, run.min], run.epochs, run.steps_per_epoch, run.warmup_epochs, run.warmup_steps);
        let (rates, epochs, per_epoch, warmup_epochs, warmup_steps) = settings;
        let schedule = FinetuneSchedule::new(rates, epochs, per_epoch, warmup_epochs, warmup_steps)
            .map_err(|error| wrong(&path, error))?;
        let (got, want): (Vec<f64>, Vec<f64>) = run.rows.iter().map(|(step, lr)| (schedule.at(*step), *lr)).unzip();
        checks.push(Check::series_rel(format!("finetune.schedule.{}", run.name), &got, &want, LIMIT));
    }
    Ok(checks)
}

/// The tables of one model.
fn layers(name: &str, model: &Value, checks: &mut Vec<Check>) {
    for (key, value) in model.as_object().into_iter().flatten() {
        let want: Vec<f64> = value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let check = format!("finetune.{name}.{key}");
        if let (Ok(decay), Some(depth)) = (key.parse::<f64>(), want.len().checked_sub(2)) {
            checks.push(Check::series_rel(check, &LayerDecay { decay, depth }.scales(), &want, LIMIT));
        } else if let Some(rate) = key.strip_prefix("drop_path_").and_then(|rate| rate.parse().ok()) {
            let got: Vec<f64> = drop_path_rates(rate, want.len()).into_iter().map(f64::from).collect();
            checks.push(Check::series_rel(check, &got, &want, LIMIT));
        } else if key == "layer_id" {
            let last = value.as_object().into_iter().flatten().filter_map(|(_, id)| id.as_u64()).max();
            let decay = LayerDecay { decay: 1.0, depth: last.unwrap_or(1).saturating_sub(1) as usize };
            let (got, want): (Vec<i64>, Vec<i64>) = value
                .as_object()
                .into_iter()
                .flatten()
                .map(|(name, id)| (decay.layer(name) as i64, id.as_i64().unwrap_or(-1)))
                .unzip();
            checks.push(Check::exact(check, &got, &want));
        }
    }
}
