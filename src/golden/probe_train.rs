//! The recorded training of an attentive probe, through the compiled step.
//!
//! The data hold the trained probe's weights as the steps *left* them, and of the first weights only what follows from
//! them: logits, pooled token, gradients, losses. So the first weights are recovered: those from which the compiled steps
//! lead to the stored ones, by fixed-point iteration (five steps move weights by little). Everything recorded about them
//! is then an independent test of the recovered ones and of the steps.

use super::check::{Check, GoldenError, nan_max};
use super::probe::{Golden, TRAINED, check_forward, one_hot, probe_weights, wrong};
use super::run::{FORWARD, Outputs, compare_kept, float, has_gradient, plan, scalar, stored, values, zero_moments};
use super::step::compare_gradients;
use crate::compile::{self, Probe, TrainOptions};
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{NamedTensors, ProbeConfig};
use vjepa_runtime::plan::{Cpu, Executor, HostTensor, Params};

/// The evaluation's largest gradient norm.
const MAX_NORM: f64 = 1.0;
/// Losses and gradient norms of the steps.
const STEP: f64 = 1e-4;
/// Iterations, and how near the stored weights they must come.
const ITERATIONS: usize = 200;
const NEAR: f64 = 2e-7;

/// A probe with weights.
pub(super) struct Probed {
    pub(super) config: ProbeConfig,
    pub(super) weights: NamedTensors,
}

impl Probed {
    /// A store that holds the weights.
    pub(super) fn params(&self) -> Params<Cpu> {
        store(&self.weights)
    }

    /// Logits `[B, classes]` of features `[B, N, D]`.
    pub(super) fn logits(&self, features: &[f32], batch: usize) -> Result<Vec<f32>, GoldenError> {
        let dim = self.config.embed_dim;
        let shape = vec![batch, features.len() / (batch * dim).max(1), dim];
        self.run(HostTensor::F32 { shape, data: features.to_vec() })
    }

    /// Logits of the golden features.
    pub(super) fn golden_logits(&self, golden: &Golden) -> Result<Vec<f32>, GoldenError> {
        self.run(float(&golden.io, "features")?)
    }

    fn run(&self, features: HostTensor) -> Result<Vec<f32>, GoldenError> {
        let graph = compile::probe(&Probe::Attentive(self.config.clone()), false)?;
        values(&plan(&graph)?.run(&mut self.params(), vec![("features", features)])?, "logits")
    }
}

fn store(weights: &NamedTensors) -> Params<Cpu> {
    let mut params = Params::new(Default::default());
    for (name, (shape, data)) in weights {
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: data.clone() });
    }
    params
}

/// Compares one probe: its forward, and its training where that was recorded. Returns the probe as stored.
pub(super) fn check(
    golden: &Golden,
    name: &str,
    config: &ProbeConfig,
    checks: &mut Vec<Check>,
) -> Result<Probed, GoldenError> {
    let found = Probed { config: config.clone(), weights: probe_weights(&golden.weights, name)? };
    let after = format!("{name}.after{}", golden.info.train.len());
    if golden.info.train.is_empty() || !golden.io.contains(&format!("{after}.logits")) {
        check_forward(golden, name, &found, checks)?;
        return Ok(found);
    }
    let mut training = Training::new(golden, config)?;
    let trained_logits = golden.io.compare(&format!("{after}.logits"), &found.golden_logits(golden)?, FORWARD)?;
    if trained_logits.failed() {
        // The stored weights are the first ones.
        check_forward(golden, name, &found, checks)?;
        check_steps(golden, name, &mut training, &found, checks)?;
        return Ok(found);
    }
    checks.push(trained_logits.under("probe"));
    match training.recover(&found.weights)? {
        Some(weights) => {
            let first = Probed { config: config.clone(), weights };
            check_forward(golden, name, &first, checks)?;
            check_steps(golden, name, &mut training, &first, checks)?;
        }
        None => {
            let why = "the folder holds the weights after training only, and the first ones could not be recovered";
            checks.push(Check::unsupported(format!("probe.{name}.training"), why));
        }
    }
    Ok(found)
}

/// The compiled training step with its inputs.
struct Training<'a> {
    golden: &'a Golden,
    graph: Graph,
    executor: Executor<Cpu>,
    features: HostTensor,
    labels: HostTensor,
}

impl<'a> Training<'a> {
    fn new(golden: &'a Golden, config: &ProbeConfig) -> Result<Self, GoldenError> {
        let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
        let graph = compile::probe_step(&Probe::Attentive(config.clone()), options)?;
        let executor = Executor::new(&graph)?;
        let features = float(&golden.io, "features")?;
        if features.shape().first() != Some(&golden.info.labels.len()) {
            return Err(wrong(&golden.io, "`features` has not one row a label".to_owned()));
        }
        let labels = one_hot(&golden.info.labels, config.num_classes);
        Ok(Self { golden, graph, executor, features, labels })
    }

    /// All recorded steps from `weights`: what each gives, and the store after the last.
    fn train(&mut self, weights: &NamedTensors) -> Result<(Vec<Outputs>, Params<Cpu>), GoldenError> {
        let mut params = store(weights);
        zero_moments(&mut params, &self.graph);
        let mut outputs = Vec::new();
        for (count, row) in (1..).zip(&self.golden.info.train) {
            let TrainOptions { betas: [beta1, beta2], .. } = TrainOptions::default();
            let numbers = [
                ("lr", row.lr),
                ("wd", row.wd),
                ("c1", 1.0 - beta1.powi(count)),
                ("c2", 1.0 - beta2.powi(count)),
                ("max_norm", MAX_NORM),
            ];
            let mut inputs = vec![("features", self.features.clone()), ("labels", self.labels.clone())];
            inputs.extend(numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32))));
            outputs.push(self.executor.run(&mut params, inputs)?);
        }
        Ok((outputs, params))
    }

    /// The weights from which the steps lead to `last`; `None` where the iteration does not get there.
    fn recover(&mut self, last: &NamedTensors) -> Result<Option<NamedTensors>, GoldenError> {
        let mut guess = last.clone();
        let alpha: f32 = std::env::var("VJA").ok().and_then(|x| x.parse().ok()).unwrap_or(0.5);
        let n1: usize = std::env::var("VJN").ok().and_then(|x| x.parse().ok()).unwrap_or(60);
        let a2: f32 = std::env::var("VJB").ok().and_then(|x| x.parse().ok()).unwrap_or(1.0);
        for it in 0..ITERATIONS {
            let snap = it >= n1;
            let alpha = if snap { a2 } else { alpha };
            let (_, reached) = self.train(&guess)?;
            let mut miss = 0f64;
            let mut bad: Vec<String> = Vec::new();
            for (name, (_, guess)) in &mut guess {
                let Some((_, last)) = last.get(name) else { continue };
                let reached = reached.get(&format!("probe.{name}")).map(|(_, values)| values).unwrap_or_default();
                let counts = has_gradient(name, last.len());
                for (i, ((guess, reached), last)) in guess.iter_mut().zip(reached).zip(last).enumerate() {
                    *guess += alpha * (last - reached);
                    if snap { *guess = half::f16::from_f32(*guess).to_f32(); }
                    if counts(i) {
                        miss = nan_max(miss, f64::from((last - reached).abs()));
                        if (last - reached).abs() > 1e-6 { bad.push(format!("{name}[{i}] {:e}", last - reached)); }
                    }
                }
            }
            if std::env::var_os("VJEPA_TRACE").is_some() {
                let b = &guess["pooler.cross_attention_block.mlp.fc1.bias"].1; let worst = b.iter().fold(0f32, |a, x| a.max(x.abs())); let big = b.iter().filter(|x| x.abs() > 1e-5).count(); eprintln!("miss {miss:e} {} fc1.bias max {worst:e} big {big} {:?}", bad.len(), &bad[..bad.len().min(3)]);
            }
            if miss.is_nan() {
                return Ok(None);
            }
            if miss <= NEAR {
                return Ok(Some(guess));
            }
        }
        Ok(None)
    }
}

/// Losses, gradient norms and first gradients of the steps from the first weights, and the weights after the last.
fn check_steps(
    golden: &Golden,
    name: &str,
    training: &mut Training<'_>,
    first: &Probed,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let (outputs, last) = training.train(&first.weights)?;
    let series = |output: &str| outputs.iter().map(|outputs| scalar(outputs, output)).collect::<Result<Vec<_>, _>>();
    let rows = &golden.info.train;
    let losses: Vec<f64> = rows.iter().map(|row| row.loss).collect();
    let norms: Vec<f64> = rows.iter().map(|row| row.grad_norm).collect();
    checks.push(Check::series_rel(format!("probe.{name}.train.loss"), &series("loss")?, &losses, STEP));
    checks.push(Check::series_rel(format!("probe.{name}.train.grad_norm"), &series("grad_norm.probe")?, &norms, STEP));
    if let Some(first) = outputs.first() {
        let stored = format!("{name}.grad0/");
        compare_gradients(first, &golden.io, [&stored, "probe."], &format!("probe.{name}.grad0"), checks)?;
    }
    let prefix = format!("{name}.after{}/", rows.len());
    for parameter in stored(&golden.io, &prefix) {
        let got = last.get(&format!("probe.{parameter}")).map(|(_, values)| values).unwrap_or_default();
        let stored = format!("{prefix}{parameter}");
        let check = compare_kept(&golden.io, &stored, &got, TRAINED, has_gradient(parameter, got.len()))?;
        checks.push(check.renamed(format!("probe.{name}.after{}.{parameter}", rows.len())));
    }
    Ok(())
}
