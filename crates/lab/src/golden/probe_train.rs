//! A probe's forward, and its recorded training through the compiled step.
//!
//! The recorded folder holds the trained probe's weights as the steps *left* them. Several first weights lead there, so
//! they cannot be had back from it; what was recorded before training is then compared as far as it follows from other
//! recorded values: the loss and the last layer's gradients of the first step from the pooled tokens and logits. Where a
//! folder holds the first weights, everything is compared.

use super::check::{Check, GoldenError, Limit};
use super::probe::{Golden, one_hot, probe_weights, wrong};
use super::run::{
    Execution, FORWARD, Outputs, compare_kept, has_gradient, run_once, scalar, stored, values, zero_moments,
};
use super::sampled::Compare;
use super::step::compare_gradients;
use vjepa_graphs::{NamedTensors, ProbeConfig};
use vjepa_programs as compile;
use vjepa_programs::{Probe, TrainOptions};
use vjepa_runtime::plan::{DeviceParams, HostTensor};

/// The evaluation's largest gradient norm.
const MAX_NORM: f64 = 1.0;
/// The first loss and gradients.
const FIRST_LOSS: f64 = 1e-5;
const FIRST_GRADIENT: f64 = 1e-4;
/// Losses and gradient norms of the steps, and weights after them.
const STEPS: f64 = 1e-4;
const TRAINED: Limit = Limit::RelL2(1e-3);

/// Why something recorded before training is not compared.
pub(super) const NO_FIRST_WEIGHTS: &str =
    "it was recorded before training, but the folder holds the weights after training only";

/// A probe with weights.
pub(super) struct Probed {
    execution: Execution,
    pub(super) config: ProbeConfig,
    pub(super) weights: NamedTensors,
    /// Whether the weights are those that the values without `after` in their name were recorded with.
    pub(super) first: bool,
}

impl Probed {
    /// Logits `[B, classes]` of features `[B, N, D]`.
    pub(super) fn logits(&self, features: &[f32], batch: usize) -> Result<Vec<f32>, GoldenError> {
        let dim = self.config.embed_dim;
        let shape = vec![batch, features.len() / (batch * dim).max(1), dim];
        self.run(HostTensor::F32 { shape, data: features.to_vec() })
    }

    fn run(&self, features: HostTensor) -> Result<Vec<f32>, GoldenError> {
        let graph = compile::probe(&Probe::Attentive(self.config.clone()), false)?;
        values(
            &self
                .execution
                .plan(&graph)?
                .run(&mut store(self.execution, &self.weights), vec![("features", features)])?,
            "logits",
        )
    }
}

fn store(execution: Execution, weights: &NamedTensors) -> DeviceParams {
    let mut params = execution.params();
    for (name, (shape, data)) in weights {
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: data.clone() });
    }
    params
}

/// Compares one probe: its forward, and its training where that was recorded.
pub(super) fn check(
    golden: &Golden,
    name: &str,
    config: &ProbeConfig,
    checks: &mut Vec<Check>,
) -> Result<Probed, GoldenError> {
    let weights = probe_weights(&golden.weights, name)?;
    let mut probe = Probed { execution: golden.execution, config: config.clone(), weights, first: true };
    let logits = probe.run(golden.features.clone())?;
    let after = format!("{name}.after{}.logits", golden.info.train.len());
    if golden.io.contains(&after) {
        let trained = golden.io.compare(&after, &logits, FORWARD)?;
        let Check::Measured { rel_l2, .. } = trained else { return Ok(probe) };
        // Five steps move the logits by about their own size.
        probe.first = rel_l2 > 0.1;
        if !probe.first {
            checks.push(trained.under("probe"));
            check_first_step(golden, name, config, checks)?;
            // A probe that has its first weights shows the same there, whole.
            for what in ["pooled", "training"].iter().filter(|_| !golden.first_elsewhere) {
                checks.push(Check::unsupported(format!("probe.{name}.{what}"), NO_FIRST_WEIGHTS));
            }
            return Ok(probe);
        }
        check_training(golden, name, &probe, checks)?;
    }
    check_forward(golden, name, &probe, &logits, checks)?;
    Ok(probe)
}

/// The pooled token and logits of the golden features, where they are stored.
fn check_forward(
    golden: &Golden,
    name: &str,
    probe: &Probed,
    logits: &[f32],
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let io = &golden.io;
    let stored = format!("{name}.pooled");
    if io.contains(&stored) {
        let graph = compile::pooled(&probe.config)?;
        let inputs = vec![("features", golden.features.clone())];
        let pooled = values(
            &run_once(golden.execution, &graph, &mut store(golden.execution, &probe.weights), inputs)?,
            "pooled",
        )?;
        checks.push(io.compare(&stored, &pooled, FORWARD)?.under("probe"));
    }
    let stored = format!("{name}.logits");
    if io.contains(&stored) {
        checks.push(io.compare(&stored, logits, FORWARD)?.under("probe"));
    }
    Ok(())
}

/// Inputs of the compiled step that is the `count`th from 1.
fn inputs(golden: &Golden, features: HostTensor, classes: usize, count: i32) -> Vec<(&'static str, HostTensor)> {
    let TrainOptions { betas: [beta1, beta2], .. } = TrainOptions::default();
    let row = usize::try_from(count - 1).ok().and_then(|step| golden.info.train.get(step));
    let numbers = [
        ("lr", row.map_or(0.0, |row| row.lr)),
        ("wd", row.map_or(0.0, |row| row.wd)),
        ("c1", 1.0 - beta1.powi(count)),
        ("c2", 1.0 - beta2.powi(count)),
        ("max_norm", MAX_NORM),
    ];
    let labels = ("labels", one_hot(&golden.info.labels, classes));
    let numbers = numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32)));
    [("features", features), labels].into_iter().chain(numbers).collect()
}

/// Loss and gradients of the first step that follow from its pooled tokens and logits, through a compiled step of the
/// last layer alone. Its weights are any that give the logits, for no gradient of its own depends on them otherwise.
fn check_first_step(
    golden: &Golden,
    name: &str,
    config: &ProbeConfig,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let io = &golden.io;
    let (dim, classes, batch) = (config.embed_dim, config.num_classes, golden.info.labels.len());
    let needed = ["pooled", "logits"].map(|kind| format!("{name}.{kind}"));
    let Some(row) = golden.info.train.first().filter(|_| needed.iter().all(|name| io.contains(name))) else {
        return Ok(());
    };
    let (pooled, logits) = (io.f32(&needed[0])?, io.f32(&needed[1])?);
    if pooled.len() != batch * dim || logits.len() != batch * classes {
        return Err(wrong(io, format!("`{name}.pooled` and `{name}.logits` have not one row a label")));
    }
    let Some(weight) = least_squares(&pooled, &logits, [batch, dim, classes]) else { return Ok(()) };
    let weight = HostTensor::F32 { shape: vec![classes, dim], data: weight };
    let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
    let graph = compile::probe_step(&Probe::Linear { embed_dim: dim, num_classes: classes }, options)?;
    let mut params = golden.execution.params();
    params.set("probe.linear.weight", weight);
    params.set("probe.linear.bias", HostTensor::F32 { shape: vec![classes], data: vec![0.0; classes] });
    zero_moments(&mut params, &graph);
    let features = HostTensor::F32 { shape: vec![batch, 1, dim], data: pooled };
    let outputs = golden.execution.plan_step(graph.clone())?.run(&mut params, inputs(golden, features, classes, 1))?;
    let loss = scalar(&outputs, "loss")?;
    checks.push(Check::scalar_rel(format!("probe.{name}.train.loss0"), loss, row.loss, FIRST_LOSS));
    for parameter in ["linear.weight", "linear.bias"] {
        let stored = format!("{name}.grad0/{parameter}");
        if io.contains(&stored) {
            let gradient = values(&outputs, &format!("grad/probe.{parameter}"))?;
            let check = io.compare(&stored, &gradient, Limit::RelL2(FIRST_GRADIENT))?;
            checks.push(check.renamed(format!("probe.{name}.grad0.{parameter}")));
        }
    }
    Ok(())
}

/// The smallest `W [classes, dim]` with `rows · Wᵀ = targets`: `targetsᵀ · (rows · rowsᵀ)⁻¹ · rows`, in f64; none where
/// the rows depend on each other.
fn least_squares(rows: &[f32], targets: &[f32], [batch, dim, classes]: [usize; 3]) -> Option<Vec<f32>> {
    let row = |b: usize| rows[b * dim..][..dim].iter().map(|&x| f64::from(x));
    // [rows · rowsᵀ | targets], reduced to [1 | X].
    let mut system: Vec<Vec<f64>> = (0..batch)
        .map(|a| {
            let gram = (0..batch).map(|b| row(a).zip(row(b)).map(|(x, y)| x * y).sum());
            gram.chain(targets[a * classes..][..classes].iter().map(|&y| f64::from(y))).collect()
        })
        .collect();
    for column in 0..batch {
        let pivot = (column..batch).max_by(|&a, &b| system[a][column].abs().total_cmp(&system[b][column].abs()))?;
        system.swap(column, pivot);
        let scale = system[column][column];
        if scale.abs() < 1e-9 {
            return None;
        }
        system[column].iter_mut().for_each(|x| *x /= scale);
        let reduced = system[column].clone();
        for (_, other) in system.iter_mut().enumerate().filter(|(a, _)| *a != column) {
            let factor = other[column];
            other.iter_mut().zip(&reduced).for_each(|(x, y)| *x -= factor * y);
        }
    }
    let value = |class: usize, d: usize| {
        (0..batch).map(|b| system[b][batch + class] * f64::from(rows[b * dim + d])).sum::<f64>() as f32
    };
    Some((0..classes).flat_map(|class| (0..dim).map(move |d| (class, d))).map(|(class, d)| value(class, d)).collect())
}

/// All recorded steps from the first weights: losses, gradient norms, first gradients, weights after the last.
fn check_training(golden: &Golden, name: &str, probe: &Probed, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
    let graph = compile::probe_step(&Probe::Attentive(probe.config.clone()), options)?;
    let mut executor = golden.execution.plan_step(graph.clone())?;
    let mut params = store(golden.execution, &probe.weights);
    zero_moments(&mut params, &graph);
    let rows = &golden.info.train;
    let mut outputs: Vec<Outputs> = Vec::with_capacity(rows.len());
    for (count, _) in (1..).zip(rows) {
        let inputs = inputs(golden, golden.features.clone(), probe.config.num_classes, count);
        outputs.push(executor.run(&mut params, inputs)?);
    }
    for (output, want) in [
        ("loss", rows.iter().map(|row| row.loss).collect::<Vec<_>>()),
        ("grad_norm.probe", rows.iter().map(|row| row.grad_norm).collect()),
    ] {
        let got = outputs.iter().map(|outputs| scalar(outputs, output)).collect::<Result<Vec<_>, _>>()?;
        checks.push(Check::series_rel(format!("probe.{name}.train.{output}"), &got, &want, STEPS));
    }
    if let Some(first) = outputs.first() {
        let prefix = format!("{name}.grad0/");
        compare_gradients(first, &golden.io, [&prefix, "probe."], &format!("probe.{name}.grad0"), checks)?;
    }
    let after = format!("{name}.after{}", rows.len());
    let prefix = format!("{after}/");
    for parameter in stored(&golden.io, &prefix) {
        let got = params.get(&format!("probe.{parameter}")).map(|(_, values)| values).unwrap_or_default();
        let stored = format!("{prefix}{parameter}");
        let check = compare_kept(&golden.io, &stored, &got, TRAINED, has_gradient(parameter, got.len()))?;
        checks.push(check.renamed(format!("probe.{after}.{parameter}")));
    }
    let weights = probe.weights.keys().filter_map(|parameter| {
        let (shape, values) = params.get(&format!("probe.{parameter}"))?;
        Some((parameter.clone(), (shape, values)))
    });
    let trained =
        Probed { execution: golden.execution, config: probe.config.clone(), weights: weights.collect(), first: false };
    let logits = trained.run(golden.features.clone())?;
    checks.push(golden.io.compare(&format!("{after}.logits"), &logits, TRAINED)?.under("probe"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_squares_reaches_its_targets() {
        let (rows, targets) = ([1.0, 2.0, 0.5, -1.0, 0.0, 3.0], [0.3, -0.7]);
        let weight = least_squares(&rows, &targets, [2, 3, 1]).unwrap();
        for (row, target) in rows.chunks_exact(3).zip(targets) {
            let got: f32 = row.iter().zip(&weight).map(|(x, w)| x * w).sum();
            assert!((got - target).abs() < 1e-6, "{got} {target}");
        }
        assert!(least_squares(&[1.0, 1.0, 1.0, 1.0], &targets, [2, 2, 1]).is_none());
    }
}
