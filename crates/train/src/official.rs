//! Runs of the official code, continued: their checkpoints as states of this program.
//!
//! An official checkpoint is saved after an epoch and says how many are finished. Rates, momentum and masks are functions of
//! the step here as there, so the step is all that has to be known; the official code does not save its random state either.

use super::resume::{Change, Continuation};
use super::{Progress, TrainError};
use std::path::Path;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{Models, model_configs};
use vjepa_recipe::config::{Config, StepPlan};
use vjepa_weights::{self as weights, Plain, TrainingState, Weights};

/// Largest share of its steps that a run may have left out (a loss scaler skips steps whose gradient overflows), and largest
/// difference that this may make to AdamW's corrections, which here follow from the step.
const MOST_LEFT_OUT: f64 = 0.01;
const CORRECTION: f64 = 1e-6;

/// An official run, as far as it got.
pub struct Run {
    weights: Weights,
    /// What it is here.
    pub progress: Progress,
}

impl Run {
    /// Reads an official checkpoint for a configuration. Settings in it that the configuration has otherwise are named in the
    /// history, as when a run is resumed.
    ///
    /// # Errors
    /// [`TrainError::Weights`] for a file that cannot be read or holds another model, [`TrainError::Resume`] for one
    /// without a training state or with one that does not fit the configuration.
    pub fn read(path: &Path, config: &Config, plan: &StepPlan) -> Result<Self, TrainError> {
        let refused = |why: String| TrainError::Resume { path: path.to_owned(), why };
        let (weights, state) = weights::load(path)?.with_training()?;
        let Some(state) = state else {
            return Err(refused(
                "holds no training state of the official code: start a new run from its weights with \
                 `meta.load_checkpoint` and `meta.read_checkpoint`"
                    .to_owned(),
            ));
        };
        weights.check_generation(config.model.generation)?;
        let Models { encoder, predictor, .. } = model_configs(config)?;
        weights.check(&[
            ("encoder", encoder.parameter_shapes()),
            ("target_encoder", encoder.parameter_shapes()),
            ("predictor", predictor.parameter_shapes()),
        ])?;
        let (step, left_out) = step(&state, config.optimization.betas, plan).map_err(refused)?;
        let mut changed = changes(config, &state);
        if left_out > 0 {
            let was = format!("{} of {step}", step - left_out);
            changed.push(Change { key: "AdamW's updates".to_owned(), was, now: step.to_string() });
        }
        let history = vec![Continuation { from: step, vjepa: "the official code".to_owned(), changed }];
        Ok(Self { weights, progress: Progress { step, loss: state.loss(), history, ..Progress::default() } })
    }

    /// Weights and moments under this program's names.
    ///
    /// # Errors
    /// [`TrainError::Weights`].
    pub fn tensors(&self) -> Result<NamedTensors, TrainError> {
        let ours =
            |name: &&str| ["encoder.", "target_encoder.", "predictor.", "adam."].iter().any(|p| name.starts_with(p));
        let names = self.weights.tensors().map(|(name, ..)| name).filter(ours);
        Ok(names
            .map(|name| Ok((name.to_owned(), self.weights.get(name)?)))
            .collect::<Result<_, weights::WeightsError>>()?)
    }
}

/// Steps done, and how many of them were left out by the optimiser.
///
/// # Errors
/// Why its counters do not fit the configuration.
fn step(state: &TrainingState, betas: [f64; 2], plan: &StepPlan) -> Result<(u64, u64), String> {
    let epoch = state.epoch().ok_or("does not say how many epochs are finished (`epoch`)")?;
    let updates = state.updates.unwrap_or(0);
    let per_epoch = plan.steps_per_epoch;
    let begun = epoch.checked_mul(per_epoch).ok_or("counts more epochs than a run can have")?;
    let misfit = || {
        Err(format!(
            "has done {updates} updates in {epoch} epochs, and an epoch of this configuration has {per_epoch} steps: give \
             the run's own `optimization.ipe`"
        ))
    };
    // Files of this program may have been saved within an epoch.
    if (begun..begun.saturating_add(per_epoch)).contains(&updates) {
        return Ok((updates, 0));
    }
    if updates > begun || updates == 0 {
        return misfit();
    }
    let correction = |beta: f64, steps: u64| 1.0 - beta.powf(steps as f64 + 1.0);
    let close = |beta| (correction(beta, updates) / correction(beta, begun) - 1.0).abs() <= CORRECTION;
    let left_out = begun - updates;
    if left_out as f64 > MOST_LEFT_OUT * begun as f64 || !betas.into_iter().all(close) {
        return misfit();
    }
    Ok((begun, left_out))
}

/// Settings that the file knows and the configuration has otherwise.
fn changes(config: &Config, state: &TrainingState) -> Vec<Change> {
    let optimization = &config.optimization;
    let setting = |key: &str| state.groups.first().and_then(|group| group.get(key));
    let betas = match setting("betas") {
        Some(Plain::Tuple(betas) | Plain::List(betas)) => betas.as_slice(),
        _ => &[],
    };
    let beta = |place: usize| betas.get(place).and_then(Plain::number);
    let [first, second] = optimization.betas;
    let compared = [
        ("data.batch_size", state.batch_size().map(|size| size as f64), config.data.batch_size as f64),
        ("optimization.lr", state.lr(), optimization.lr),
        ("optimization.betas.0", beta(0), first),
        ("optimization.betas.1", beta(1), second),
        ("optimization.eps", setting("eps").and_then(Plain::number), optimization.eps),
    ];
    let change = |(key, was, now): (&str, Option<f64>, f64)| {
        let was = was.filter(|was| *was != now)?;
        Some(Change { key: key.to_owned(), was: was.to_string(), now: now.to_string() })
    };
    compared.into_iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(epoch: i64, updates: Option<u64>) -> TrainingState {
        let others = vec![("epoch".to_owned(), Plain::Int(epoch))];
        TrainingState { updates, others, ..TrainingState::default() }
    }

    fn plan(steps_per_epoch: u64) -> StepPlan {
        StepPlan { steps: 90_000, steps_per_epoch, warmup_steps: 1, schedule_steps: 112_500, clip_from_step: u64::MAX }
    }

    #[test]
    fn the_step_follows_from_epochs_and_updates() {
        let at = |epoch, updates, ipe| step(&state(epoch, updates), [0.9, 0.999], &plan(ipe));
        assert_eq!(at(5, Some(10), 2), Ok((10, 0)));
        assert_eq!(at(0, None, 300), Ok((0, 0)));
        assert_eq!(at(1, Some(7), 5), Ok((7, 0)), "within an epoch");
        // A few steps left out by a loss scaler make no difference late in a run, and a large one early.
        assert_eq!(at(100, Some(29_990), 300), Ok((30_000, 10)));
        for (epoch, updates, ipe) in
            [(1, Some(299), 300), (5, Some(10), 3), (5, Some(10), 1), (3, None, 300), (100, Some(20_000), 300)]
        {
            let told = at(epoch, updates, ipe).unwrap_err();
            assert!(told.contains("optimization.ipe"), "{told}");
        }
        let told = step(&TrainingState::default(), [0.9, 0.999], &plan(2)).unwrap_err();
        assert!(told.contains("`epoch`"), "{told}");
    }

    #[test]
    fn other_settings_are_named() {
        let config = Config::from_yaml(
            "model: {model_name: vit_tiny}\ndata: {batch_size: 24}\noptimization: {lr: 0.000625}",
            "",
            &[],
        )
        .unwrap();
        let mut official = state(5, Some(10));
        official.others.extend([
            ("batch_size".to_owned(), Plain::Int(24)),
            ("world_size".to_owned(), Plain::Int(2)),
            ("lr".to_owned(), Plain::Float(0.000625)),
        ]);
        official.groups = vec![Plain::dict([
            ("betas", Plain::Tuple(vec![Plain::Float(0.9), Plain::Float(0.99)])),
            ("eps", Plain::Float(1e-8)),
        ])];
        let changes = changes(&config, &official);
        let keys: Vec<&str> = changes.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["data.batch_size", "optimization.betas.1"]);
        assert_eq!((changes[0].was.as_str(), changes[0].now.as_str()), ("48", "24"));
    }
}
