//! The compiled step of an objective, run from recorded weights with recorded inputs.

use vjepa_graphs::AnyObjective;
use vjepa_programs as compile;
use vjepa_programs::TrainOptions;
use vjepa_recipe::schedules::StepRates;
use vjepa_runtime::plan::{DeviceExecutor, DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, nan_max};
use super::super::run::{Execution, Outputs, compare_kept, norm, run_step, scalar, stored, values, zero_moments};
use super::HeadWidths;

/// Losses of the first batch.
pub(super) const LOSS: f64 = 1e-5;
/// Gradients, and norms of the first batch's.
pub(super) const GRADIENT: f64 = 1e-4;
/// Losses of a run.
const RUN_LOSS: f64 = 1e-4;
/// Gradient norms, parameters and outputs of a run.
pub(super) const RUN: f64 = 1e-3;
/// Gradients below this are rounding.
const NO_GRADIENT: f64 = 1e-8;

/// AdamW's constants.
#[derive(Clone, Copy)]
pub(super) struct Adam {
    pub(super) betas: [f64; 2],
    pub(super) eps: f64,
}

/// A compiled step and what it changes.
pub(super) struct Steps {
    executor: DeviceExecutor,
    pub(super) params: DeviceParams,
    adam: Adam,
    /// Steps done.
    count: i32,
}

impl Steps {
    /// The step of an objective from these weights, without moments.
    pub(super) fn new(
        execution: Execution,
        objective: &AnyObjective,
        adam: Adam,
        export_gradients: bool,
        mut params: DeviceParams,
    ) -> Result<Self, GoldenError> {
        let Adam { betas, eps } = adam;
        let Execution { precision, mask_buckets, .. } = execution;
        let options = TrainOptions { betas, eps, export_gradients, precision, mask_buckets, ..TrainOptions::default() };
        let graph = compile::step(objective, options)?;
        zero_moments(&mut params, &graph);
        Ok(Self { executor: execution.plan_step(graph)?, params, adam, count: 0 })
    }

    /// One step, never clipped.
    pub(super) fn step(&mut self, batch: Vec<(String, HostTensor)>, rates: StepRates) -> Result<Outputs, GoldenError> {
        self.count += 1;
        let [c1, c2] = self.adam.betas.map(|beta| 1.0 - beta.powi(self.count));
        let numbers = [
            ("lr", rates.lr),
            ("wd", rates.wd),
            ("c1", c1),
            ("c2", c2),
            ("max_norm", f64::INFINITY),
            ("momentum", rates.momentum),
        ];
        let numbers = numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32)));
        let batch = batch.iter().map(|(name, tensor)| (name.as_str(), tensor.clone()));
        run_step(&mut self.executor, &mut self.params, batch.chain(numbers).collect())
    }

    /// A step that changes nothing that is kept, for losses and gradients.
    pub(super) fn look(&mut self, batch: Vec<(String, HostTensor)>) -> Result<Outputs, GoldenError> {
        self.step(batch, StepRates { lr: 0.0, wd: 0.0, momentum: 1.0, clip_active: false })
    }
}

/// The largest differences of scalars over a run.
#[derive(Default)]
pub(super) struct Worst(Vec<(String, bool, [f64; 2])>);

impl Worst {
    /// Takes in one step's scalars: output name and recorded value; losses are held to a tighter limit.
    pub(super) fn add(&mut self, outputs: &Outputs, recorded: &[(&str, f64)]) -> Result<(), GoldenError> {
        for (name, want) in recorded {
            let difference = (scalar(outputs, name)? - want).abs();
            let place = self.0.iter().position(|(known, ..)| known == name).unwrap_or(self.0.len());
            if place == self.0.len() {
                self.0.push(((*name).to_owned(), name.starts_with("loss"), [0.0; 2]));
            }
            if let Some((_, _, [rel, abs])) = self.0.get_mut(place) {
                (*rel, *abs) = (nan_max(*rel, difference / want.abs()), nan_max(*abs, difference));
            }
        }
        Ok(())
    }

    /// One check for each scalar.
    pub(super) fn checks(self, label: &str) -> Vec<Check> {
        let check = |(name, loss, [rel, abs]): (String, bool, [f64; 2])| {
            Check::measured(format!("{label}.{name}"), rel, abs, Limit::RelL2(if loss { RUN_LOSS } else { RUN }))
        };
        self.0.into_iter().map(check).collect()
    }
}

/// Compares every stored gradient that is more than rounding, `grad/<parameter>`, with the step's.
pub(super) fn compare_gradients(
    outputs: &Outputs,
    golden: &TensorFile,
    heads: HeadWidths,
    label: &str,
) -> Result<Vec<Check>, GoldenError> {
    let names: Vec<&str> = stored(golden, "grad/").collect();
    let exported = outputs.keys().filter(|name| name.starts_with("grad/")).count();
    let mut checks = vec![Check::exact(format!("{label}.tensors"), &[exported as i64], &[names.len() as i64])];
    for name in names {
        let key = format!("grad/{name}");
        if norm(golden, &key)? < NO_GRADIENT {
            continue;
        }
        let got = values(outputs, &key).unwrap_or_default();
        let keep = heads.has_gradient(name, got.len());
        checks.push(compare_kept(golden, &key, &got, Limit::RelL2(GRADIENT), keep)?.renamed(format!("{label}.{name}")));
    }
    Ok(checks)
}

/// Compares parameters after one step, where the gradient is more than rounding, which AdamW's first step turns into steps of
/// up to the learning rate. A parameter that nothing reads has no gradient and stays what it was.
pub(super) fn compare_first_step(
    params: &DeviceParams,
    gradients: &Outputs,
    golden: &TensorFile,
    (heads, lr): (HeadWidths, f64),
) -> Result<Vec<Check>, GoldenError> {
    let limit = Limit::MaxAbs(0.02 * lr);
    let mut checks = Vec::new();
    for name in stored(golden, "param/") {
        let got = params.get(name).map(|(_, values)| values).unwrap_or_default();
        let gradient = values(gradients, &format!("grad/{name}")).unwrap_or_default();
        let learned = heads.has_gradient(name, got.len());
        let keep = |i: usize| learned(i) && gradient.get(i).is_none_or(|g| f64::from(g.abs()) >= NO_GRADIENT);
        let check = compare_kept(golden, &format!("param/{name}"), &got, limit, keep)?;
        checks.push(check.renamed(format!("step1.{name}")));
    }
    Ok(checks)
}

/// Compares parameters and moving averages after a run, `param/<name>` and `ema/<name>`.
pub(super) fn compare_params(
    params: &DeviceParams,
    golden: &TensorFile,
    heads: HeadWidths,
    (label, limit): (&str, Limit),
) -> Result<Vec<Check>, GoldenError> {
    let mut checks = Vec::new();
    for prefix in ["param/", "ema/"] {
        for name in stored(golden, prefix) {
            let got = params.get(name).map(|(_, values)| values).unwrap_or_default();
            let keep = heads.has_gradient(name, got.len());
            let check = compare_kept(golden, &format!("{prefix}{name}"), &got, limit, keep)?;
            checks.push(check.renamed(format!("{label}.{name}")));
        }
    }
    Ok(checks)
}
