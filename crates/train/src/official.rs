//! Runs of the official code, continued, and cool-downs: checkpoints of other runs as states of this program.
//!
//! An official checkpoint is saved after an epoch and says how many are finished. Rates, momentum and masks are functions of
//! the step here as there, so the step is all that has to be known; the official code does not save its random state either.

use super::resume::{Change, Continuation};
use super::{TrainError, TrainProgress};
use std::path::Path;
use vjepa_graphs::NamedTensors;
use vjepa_programs::{Models, model_configs};
use vjepa_recipe::config::{Config, OptimizationConfig, StepPlan};
use vjepa_weights::{self as weights, Plain, TrainingState, Weights};

/// Largest share of its steps that a run may have left out (a loss scaler skips steps whose gradient overflows), and largest
/// difference that this may make to AdamW's corrections, which here follow from the step.
const MOST_LEFT_OUT: f64 = 0.01;
const CORRECTION: f64 = 1e-6;

/// An official run, as far as it got.
pub struct OfficialRun {
    weights: Weights,
    /// What it is here.
    pub progress: TrainProgress,
}

impl OfficialRun {
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
        check(&weights, config)?;
        let Counted { step, left_out, updates_before } =
            counted(&state, &config.optimization, plan).map_err(refused)?;
        let mut changed = changes(config, &state);
        if left_out > 0 {
            let was = format!("{} of {step}", step - left_out);
            changed.push(Change { key: "AdamW's updates".to_owned(), was, now: step.to_string() });
        }
        let history = vec![Continuation { from: step, vjepa: "the official code".to_owned(), changed }];
        let progress = TrainProgress { step, loss: state.loss(), updates_before, history, ..TrainProgress::default() };
        Ok(Self { weights, progress })
    }

    /// Reads the checkpoint that a cool-down begins with (`optimization.anneal_ckpt`), of the official code or of this program:
    /// its weights, averages and moments. Its schedules and its step begin anew; only AdamW goes on counting
    /// (`app/vjepa/train.py` of V-JEPA 2).
    ///
    /// # Errors
    /// [`TrainError::Weights`] for a file that cannot be read or holds another model, [`TrainError::Resume`] for one without
    /// an optimiser's state.
    pub fn to_cool_down(path: &Path, config: &Config) -> Result<Self, TrainError> {
        let (weights, state) = weights::load(path)?.with_training()?;
        let Some(updates_before) = state.and_then(|state| state.updates) else {
            let why = "holds no optimiser state, which a cool-down goes on with: give the whole checkpoint of the run, or \
                       start from the weights alone with `meta.load_checkpoint` and `meta.read_checkpoint` in place of \
                       `optimization.anneal_ckpt`";
            return Err(TrainError::Resume { path: path.to_owned(), why: why.to_owned() });
        };
        check(&weights, config)?;
        Ok(Self { weights, progress: TrainProgress { updates_before, ..TrainProgress::default() } })
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

/// Refuses a checkpoint of other models than a configuration's.
fn check(weights: &Weights, config: &Config) -> Result<(), TrainError> {
    weights.check_generation(config.model.generation)?;
    let Models { encoder, predictor, .. } = model_configs(config)?;
    weights.check(&[
        ("encoder", encoder.parameter_shapes()),
        ("target_encoder", encoder.parameter_shapes()),
        ("predictor", predictor.parameter_shapes()),
    ])?;
    Ok(())
}

/// How far a run is.
#[derive(Debug, PartialEq, Eq)]
struct Counted {
    /// Steps done.
    step: u64,
    /// How many of them the optimiser left out.
    left_out: u64,
    /// Updates the optimiser had made before the run began.
    updates_before: u64,
}

/// How far the run of a checkpoint is.
///
/// # Errors
/// Why its counters do not fit the configuration.
fn counted(state: &TrainingState, optimization: &OptimizationConfig, plan: &StepPlan) -> Result<Counted, String> {
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
        return Ok(Counted { step: updates, left_out: 0, updates_before: 0 });
    }
    // A cool-down counts epochs anew, and goes on with an optimiser that counts on.
    if updates > begun && optimization.is_anneal {
        return Ok(Counted { step: begun, left_out: 0, updates_before: updates - begun });
    }
    if updates > begun || updates == 0 {
        return misfit();
    }
    let correction = |beta: f64, steps: u64| 1.0 - beta.powf(steps as f64 + 1.0);
    let close = |beta| (correction(beta, updates) / correction(beta, begun) - 1.0).abs() <= CORRECTION;
    let left_out = begun - updates;
    if left_out as f64 > MOST_LEFT_OUT * begun as f64 || !optimization.betas.into_iter().all(close) {
        return misfit();
    }
    Ok(Counted { step: begun, left_out, updates_before: 0 })
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
        let at = |epoch, updates, ipe| {
            let optimization = OptimizationConfig { betas: [0.9, 0.999], ..OptimizationConfig::default() };
            counted(&state(epoch, updates), &optimization, &plan(ipe))
        };
        let done = |step, left_out| Ok(Counted { step, left_out, updates_before: 0 });
        assert_eq!(at(5, Some(10), 2), done(10, 0));
        assert_eq!(at(0, None, 300), done(0, 0));
        assert_eq!(at(1, Some(7), 5), done(7, 0), "within an epoch");
        // A few steps left out by a loss scaler make no difference late in a run, and a large one early.
        assert_eq!(at(100, Some(29_990), 300), done(30_000, 10));
        for (epoch, updates, ipe) in
            [(1, Some(299), 300), (5, Some(10), 3), (5, Some(10), 1), (3, None, 300), (100, Some(20_000), 300)]
        {
            let told = at(epoch, updates, ipe).unwrap_err();
            assert!(told.contains("optimization.ipe"), "{told}");
        }
        let pretraining = OptimizationConfig::default();
        let told = counted(&TrainingState::default(), &pretraining, &plan(2)).unwrap_err();
        assert!(told.contains("`epoch`"), "{told}");
        let cooling = OptimizationConfig { is_anneal: true, ..pretraining };
        let far = counted(&state(3, Some(240_900)), &cooling, &plan(300));
        assert_eq!(
            far,
            Ok(Counted { step: 900, left_out: 0, updates_before: 240_000 }),
            "epochs begin anew, updates go on"
        );
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
