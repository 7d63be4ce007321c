//! Probes trained through the compiled step on features that stay as they are: the attentive one, and a linear one.
//!
//! The official recipe: AdamW at 1e-3 with a cosine to 0, weight decay .01 with a cosine to 1e-6, gradients clipped at 1.

use std::collections::BTreeMap;

use vjepa_graphs::{BlocksOn, NamedTensors, init};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};

use super::features::Features;
use super::{EvalError, OnProgress, Progress};
use vjepa_data::Permutation;
use vjepa_metrics::softmax;
use vjepa_programs as compile;
use vjepa_programs::{Probe, TrainOptions};
use vjepa_recipe::config::evaluation::FINAL_WEIGHT_DECAY;
use vjepa_recipe::counter::mix;
use vjepa_recipe::schedules::ProbeSchedule;

/// How a probe is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeOptions {
    /// Passes over the labelled clips.
    pub epochs: usize,
    /// Clips of a step.
    pub batch: usize,
    /// Learning rate at the start, or after the warm-up.
    pub lr: f64,
    /// Learning rate that a warm-up starts from.
    pub start_lr: f64,
    /// Learning rate at the end.
    pub final_lr: f64,
    /// Epochs of warm-up.
    pub warmup: f64,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end of its cosine.
    pub final_weight_decay: f64,
    /// Largest norm of the gradients.
    pub max_norm: f32,
    /// Seed of the first weights and of the order.
    pub seed: u64,
}

impl Default for ProbeOptions {
    /// The official evaluation's, at a batch of one process.
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 4,
            lr: 1e-3,
            start_lr: 1e-3,
            final_lr: 0.0,
            warmup: 0.0,
            weight_decay: 0.01,
            final_weight_decay: FINAL_WEIGHT_DECAY,
            max_norm: 1.0,
            seed: 0,
        }
    }
}

/// Classes of a probe.
pub fn classes(probe: &Probe) -> usize {
    probe.num_classes()
}

/// Width of the features a probe reads.
pub fn width(probe: &Probe) -> usize {
    probe.embed_dim()
}

/// First weights of a probe, under their official names without prefix.
pub fn first_weights(probe: &Probe, seed: u64) -> NamedTensors {
    match probe {
        Probe::Attentive(config) => init::probe(config, seed),
        Probe::Linear { embed_dim, num_classes } => init::linear_probe(*embed_dim, *num_classes, seed),
        Probe::Tuned(head) => init::tuned(head, 1.0, seed),
    }
}

/// A compiled training step of a probe, for any number of trainings.
pub struct ProbeTrainer {
    probe: Probe,
    executor: DeviceExecutor,
}

impl ProbeTrainer {
    /// Compiles the step for the CPU.
    ///
    /// # Errors
    /// As [`ProbeTrainer::on`].
    pub fn new(probe: &Probe) -> Result<Self, EvalError> {
        Self::on(Device::CPU, probe)
    }

    /// Compiles the step for a device.
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Run`].
    pub fn on(device: Device, probe: &Probe) -> Result<Self, EvalError> {
        // V-JEPA 2's probes, whose blocks read the features, have one group of parameters, all of which decay.
        let decay_all = matches!(probe, Probe::Attentive(config) if config.blocks_on == BlocksOn::Features);
        let graph = compile::probe_step(probe, TrainOptions { decay_all, ..TrainOptions::default() })?;
        Ok(Self { probe: probe.clone(), executor: device.plan(&graph)? })
    }

    /// Trains from first weights on the clips `rows` of `features`, whose classes `labels` gives for every clip of
    /// `features`. Returns the weights, named as by [`first_weights`].
    ///
    /// # Errors
    /// [`EvalError::Setup`] for rows, labels or options that do not fit; [`EvalError::Diverged`].
    pub fn fit(
        &mut self,
        features: &Features,
        labels: &[usize],
        rows: &[usize],
        options: &ProbeOptions,
        progress: OnProgress<'_>,
    ) -> Result<NamedTensors, EvalError> {
        check(&self.probe, features, labels, rows, options)?;
        let batches = rows.len().div_ceil(options.batch);
        let mut run = self.start(options, batches as u64);
        for epoch in 0..options.epochs {
            for batch in order(rows.len(), options.seed, epoch as u64).chunks(options.batch) {
                let batch: Vec<usize> = batch.iter().filter_map(|place| rows.get(*place).copied()).collect();
                let own: Vec<usize> = batch.iter().filter_map(|row| labels.get(*row).copied()).collect();
                self.step(&mut run, &features.select(&batch), &own)?;
            }
            progress(Progress { what: "training the probe", done: epoch + 1, total: options.epochs });
        }
        Ok(run.weights())
    }

    /// A training from first weights, `steps` an epoch.
    pub fn start(&self, options: &ProbeOptions, steps: u64) -> ProbeRun {
        let first = first_weights(&self.probe, options.seed);
        let params = untrained(self.executor.device(), &first);
        let total = steps * options.epochs as u64;
        let warmup_steps = (options.warmup * steps as f64) as u64;
        let mut schedule = ProbeSchedule::new(total, warmup_steps, options.start_lr, options.lr, options.weight_decay);
        schedule.lr.end = options.final_lr;
        schedule.wd.end = options.final_weight_decay;
        ProbeRun { params, first, schedule, max_norm: options.max_norm, step: 0 }
    }

    /// One step of a training: `features` `[B, N, D]` with the class of each. Returns the loss.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for a label that is no class, [`EvalError::Run`], [`EvalError::Diverged`].
    pub fn step(&mut self, run: &mut ProbeRun, features: &Features, labels: &[usize]) -> Result<f32, EvalError> {
        let classes = classes(&self.probe);
        let mut inputs = vec![
            ("features", tensor([labels.len(), features.tokens, features.dim], features.values.clone())),
            ("labels", one_hot(labels.iter().copied(), labels.len(), classes)?),
        ];
        inputs.extend(rates(run.schedule.at(run.step), run.step, run.max_norm));
        let outputs = self.executor.run(&mut run.params, inputs)?;
        let loss = finite_loss(&outputs, run.step)?;
        run.step += 1;
        Ok(loss)
    }
}

/// Labels of `rows` samples as `f32[rows, classes]`: 1 at each label, else 0.
///
/// # Errors
/// [`EvalError::Setup`] for a label that is not below the classes.
pub(crate) fn one_hot(
    labels: impl Iterator<Item = usize>,
    rows: usize,
    classes: usize,
) -> Result<HostTensor, EvalError> {
    let mut data = vec![0f32; rows * classes];
    for (row, label) in data.chunks_exact_mut(classes.max(1)).zip(labels) {
        let none = || EvalError::setup(format!("label {label} is not below the {classes} classes"));
        *row.get_mut(label).ok_or_else(none)? = 1.0;
    }
    Ok(HostTensor::F32 { shape: vec![rows, classes], data })
}

/// The loss among a step's outputs.
///
/// # Errors
/// [`EvalError::Diverged`] where it is NaN or infinite.
pub(crate) fn finite_loss(outputs: &BTreeMap<String, HostTensor>, step: u64) -> Result<f32, EvalError> {
    let loss = outputs.get("loss").and_then(|loss| loss.floats().first().copied()).unwrap_or(f32::NAN);
    if loss.is_finite() { Ok(loss) } else { Err(EvalError::Diverged { step, loss }) }
}

/// A training that is under way: weights, moments, and its place in the schedule.
pub struct ProbeRun {
    params: DeviceParams,
    first: NamedTensors,
    schedule: ProbeSchedule,
    max_norm: f32,
    step: u64,
}

impl ProbeRun {
    /// The weights as they are now, named as by [`first_weights`].
    pub fn weights(&self) -> NamedTensors {
        let trained = self.first.iter().map(|(name, (shape, values))| {
            // Vectors of one element come back as they went in.
            let values = self.params.get(&format!("probe.{name}")).map_or_else(|| values.clone(), |(_, values)| values);
            (name.clone(), (shape.clone(), values))
        });
        trained.collect()
    }
}

/// A store with first weights under `probe.`, and moments of zero.
pub(crate) fn untrained(device: Device, first: &NamedTensors) -> DeviceParams {
    let mut params = device.params();
    for (name, (shape, values)) in first {
        let zeros = HostTensor::F32 { shape: shape.clone(), data: vec![0.0; values.len()] };
        params.set(&format!("adam.m.probe.{name}"), zeros.clone());
        params.set(&format!("adam.v.probe.{name}"), zeros);
        params.set(&format!("probe.{name}"), HostTensor::F32 { shape: shape.clone(), data: values.clone() });
    }
    params
}

/// What AdamW reads at step `step`, from 0, with the constants of [`TrainOptions::default`]: the learning rate, weight decay,
/// corrections, and the largest norm of the gradients.
pub(crate) fn rates((lr, wd): (f64, f64), step: u64, max_norm: f32) -> [(&'static str, HostTensor); 5] {
    let [c1, c2] = TrainOptions::default().betas.map(|beta| (1.0 - beta.powf((step + 1) as f64)) as f32);
    let numbers = [("lr", lr as f32), ("wd", wd as f32), ("c1", c1), ("c2", c2), ("max_norm", max_norm)];
    numbers.map(|(name, value)| (name, HostTensor::scalar(value)))
}

/// The order of `count` samples in an epoch.
pub fn order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    shuffled(count, &[seed, PROBE_ORDER, epoch])
}

/// The numbers below `count` in the order of a key.
pub(crate) fn shuffled(count: usize, key: &[u64]) -> Vec<usize> {
    let order = Permutation::new(count as u64, mix(key));
    (0..count as u64).map(|place| order.at(place) as usize).collect()
}

/// Separates the order of training from other uses of the seed.
const PROBE_ORDER: u64 = 0x0070_726F_6265;

fn tensor<const D: usize>(shape: [usize; D], data: Vec<f32>) -> HostTensor {
    HostTensor::F32 { shape: shape.to_vec(), data }
}

fn check(
    probe: &Probe,
    features: &Features,
    labels: &[usize],
    rows: &[usize],
    options: &ProbeOptions,
) -> Result<(), EvalError> {
    let classes = classes(probe);
    if features.dim != width(probe) || features.tokens == 0 {
        let (got, want) = (features.dim, width(probe));
        return Err(EvalError::setup(format!("the probe reads features {want} wide, but they are {got} wide")));
    }
    if rows.is_empty() || rows.iter().any(|row| *row >= features.len() || *row >= labels.len()) {
        let (rows, clips, labels) = (rows.len(), features.len(), labels.len());
        return Err(EvalError::setup(format!(
            "{rows} rows of {clips} clips with {labels} labels cannot train a probe"
        )));
    }
    if let Some(label) = rows.iter().map(|row| labels[*row]).find(|label| *label >= classes) {
        return Err(EvalError::setup(format!("label {label} is not below the {classes} classes")));
    }
    if options.batch == 0 || options.epochs == 0 || !(options.lr.is_finite() && options.lr > 0.0) {
        return Err(EvalError::setup("a probe needs at least one epoch, a batch of one, and a positive learning rate"));
    }
    Ok(())
}

/// A compiled probe with its weights.
pub struct ProbeRunner {
    probe: Probe,
    executor: DeviceExecutor,
    params: DeviceParams,
}

impl ProbeRunner {
    /// Clips classified at once.
    const BATCH: usize = 64;

    /// As [`ProbeRunner::on`] the CPU.
    ///
    /// # Errors
    /// As [`ProbeRunner::on`].
    pub fn new(probe: &Probe, weights: &NamedTensors) -> Result<Self, EvalError> {
        Self::on(Device::CPU, probe, weights)
    }

    /// Compiles the probe for a device; `weights` are named as by [`first_weights`], or so under `probe.`.
    ///
    /// # Errors
    /// [`EvalError::Compile`], [`EvalError::Run`], [`EvalError::Setup`] for weights that are not whole.
    pub fn on(device: Device, probe: &Probe, weights: &NamedTensors) -> Result<Self, EvalError> {
        let graph = compile::probe(probe, false)?;
        let graph = compile::optimised(&graph)?;
        let mut runner = Self { probe: probe.clone(), executor: device.plan(&graph)?, params: device.params() };
        runner.load(weights)?;
        Ok(runner)
    }

    /// Replaces the weights.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for weights that are not whole.
    pub fn load(&mut self, weights: &NamedTensors) -> Result<(), EvalError> {
        for (name, (shape, values)) in weights {
            let name = name.strip_prefix("probe.").unwrap_or(name);
            let tensor = HostTensor::f32(shape.clone(), values.clone())
                .ok_or_else(|| EvalError::setup(format!("`{name}` has not the values its shape asks for")))?;
            self.params.set(&format!("probe.{name}"), tensor);
        }
        Ok(())
    }

    /// Probabilities `f32[clips, classes]`: the softmax of the logits of each clip.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for features of another width, [`EvalError::Run`] for weights that are missing.
    pub fn probabilities(&mut self, features: &Features) -> Result<Vec<f32>, EvalError> {
        let classes = classes(&self.probe);
        if features.dim != width(&self.probe) {
            let (got, want) = (features.dim, width(&self.probe));
            return Err(EvalError::setup(format!("the probe reads features {want} wide, but they are {got} wide")));
        }
        let mut probabilities = Vec::with_capacity(features.len() * classes);
        for batch in features.values.chunks((features.row() * Self::BATCH).max(1)) {
            let clips = batch.len() / features.row().max(1);
            let input = tensor([clips, features.tokens, features.dim], batch.to_vec());
            let outputs = self.executor.run(&mut self.params, vec![("features", input)])?;
            let mut logits = outputs.get("logits").map(|logits| logits.floats().to_vec()).unwrap_or_default();
            logits.chunks_exact_mut(classes.max(1)).for_each(softmax);
            probabilities.extend(logits);
        }
        Ok(probabilities)
    }
}

#[cfg(test)]
mod tests;
