//! The state of a run: weights, moving averages, moments and the step that changes them.

use super::checkpoint::{Checkpoint, Progress};
use super::eager::EagerGradients;

use super::official;
use super::resume::{self, Changes, Continuation};
use super::{StepReport, TrainError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::serialize::Artifact;
use vjepa_data::Contents;
use vjepa_graphs::objectives::{Clips, Input, Role};
use vjepa_graphs::{AnyObjective, NamedTensors};
use vjepa_programs as compile;
use vjepa_programs::{Passes, Precision, TrainOptions};
use vjepa_programs::{feed, initial_weights};
use vjepa_recipe::config::{Config, StepPlan};
use vjepa_recipe::masks::MaskPair;
use vjepa_recipe::schedules::{CosineWd, LinearEma, Schedule, StepRates, WarmupCosine};
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, HostTensor};
use vjepa_weights as weights;

/// Everything that changes from step to step.
pub struct TrainState {
    objective: AnyObjective,
    params: DeviceParams,
    executor: DeviceExecutor,
    eager: Option<EagerGradients>,
    schedule: Schedule,
    plan: StepPlan,
    betas: [f64; 2],
    max_norm: f64,
    step: u64,
    /// Of the last step, which an earlier part of the run may have done.
    loss: Option<f64>,
    /// The latest checkpoint and its step.
    saved: Option<(PathBuf, u64)>,
    contents: Option<Contents>,
    history: Vec<Continuation>,
}

/// Where the step of a run comes from.
pub enum StepSource {
    /// Compiled now, by these passes.
    Passes(Passes),
    /// Compiled ahead of time.
    Compiled(Box<Artifact>),
    /// Burn's autodiff and a compiled optimiser.
    Eager,
}

impl TrainState {
    /// Compiles the step of a configuration for the CPU; there are no weights yet.
    ///
    /// # Errors
    /// As [`TrainState::on`].
    pub fn new(config: &Config, plan: StepPlan, eager: bool) -> Result<Self, TrainError> {
        Self::on(Device::CPU, config, plan, eager)
    }

    /// Compiles the step of a configuration for a device; there are no weights yet.
    ///
    /// # Errors
    /// As [`TrainState::from_source`].
    pub fn on(device: Device, config: &Config, plan: StepPlan, eager: bool) -> Result<Self, TrainError> {
        let source = if eager { StepSource::Eager } else { StepSource::Passes(Passes::default()) };
        Self::from_source(device, config, plan, source)
    }

    /// A state with the step of a configuration on a device; there are no weights yet.
    ///
    /// # Errors
    /// [`TrainError`] for sizes that do not fit together or settings this build does not support.
    pub fn from_source(
        device: Device,
        config: &Config,
        plan: StepPlan,
        source: StepSource,
    ) -> Result<Self, TrainError> {
        let unsupported = |why: &str| TrainError::Unsupported(why.to_owned());
        let precision = Precision::of(config.meta.dtype)
            .ok_or_else(|| unsupported("`meta.dtype: float16` is not supported: use bfloat16 or float32"))?;
        let eager = matches!(source, StepSource::Eager);
        if eager && precision != Precision::F32 {
            return Err(unsupported("--eager computes in f32: add --set meta.dtype=float32"));
        }
        if eager && !device.is_cpu() {
            return Err(unsupported("--eager computes on the CPU: add --device cpu"));
        }
        let objective = compile::objective(config)?;
        let optimization = &config.optimization;
        let options =
            TrainOptions { betas: optimization.betas, eps: optimization.eps, precision, ..TrainOptions::default() };
        let (executor, eager) = match source {
            StepSource::Eager => {
                let graph = compile::optimizer(&objective, options)?;
                (device.plan(&graph)?, Some(EagerGradients::new(&objective)?))
            }
            StepSource::Passes(mut passes) => {
                let graph = compile::step_with(&objective, options, &mut passes)?;
                (device.plan(&graph)?, None)
            }
            StepSource::Compiled(artifact) => (device.take(artifact.graph, artifact.plan)?, None),
        };
        Ok(Self {
            executor,
            params: device.params(),
            eager,
            schedule: schedule(config, &plan),
            plan,
            betas: optimization.betas,
            max_norm: optimization.clip_grad.unwrap_or(f64::INFINITY),
            objective,
            step: 0,
            loss: None,
            saved: None,
            contents: None,
            history: Vec::new(),
        })
    }

    /// Gives the run its weights: the latest checkpoint's, those of `meta.read_checkpoint`, or fresh ones.
    ///
    /// # Errors
    /// [`TrainError`] when weights are missing, misshapen, or of another configuration.
    pub fn begin(&mut self, config: &Config, files: &Checkpoint, resume: bool) -> Result<(), TrainError> {
        if resume {
            return self.go_on(config, files);
        }
        refuse_existing(files)?;
        let wanted = config.meta.read_checkpoint.as_ref().filter(|_| config.meta.load_checkpoint);
        let tensors = match wanted {
            Some(path) => {
                let loaded = weights::load(Path::new(path))?;
                let sets = self.objective.declaration().sets.iter();
                // Moving averages start as copies where the file has none.
                let wanted = sets.filter(|set| !matches!(set.role, Role::Average { .. }) || loaded.has(set.name));
                loaded.check(&wanted.map(|set| (set.name, set.shapes.clone())).collect::<Vec<_>>())?;
                let mut tensors = loaded.all()?;
                tensors.retain(|name, _| !name.starts_with("adam."));
                tensors
            }
            None => initial_weights(&config.model, &self.objective, config.meta.seed),
        };
        self.set_weights(tensors)
    }

    /// Goes on from a checkpoint of the official code: its weights, moments and counters.
    ///
    /// # Errors
    /// As [`official::Run::read`], or [`TrainError::Resume`] where the run has a checkpoint of its own already.
    pub fn begin_from_official(&mut self, config: &Config, files: &Checkpoint, path: &Path) -> Result<(), TrainError> {
        refuse_existing(files)?;
        let run = official::Run::read(path, config, &self.plan)?;
        self.set_weights(run.tensors()?)?;
        let Progress { step, loss, history, .. } = run.progress;
        (self.step, self.loss, self.history) = (step, loss, history);
        Ok(())
    }

    fn go_on(&mut self, config: &Config, files: &Checkpoint) -> Result<(), TrainError> {
        let (tensors, record) = files.load()?;
        let was = Config::from_yaml(&record.config, "the checkpoint's configuration", &[])?;
        let Changes { refused, mut allowed } = resume::compare(&was, config)?;
        if !refused.is_empty() {
            return Err(TrainError::Resume { path: files.latest(), why: resume::refusal(&refused) });
        }
        // Other lists hold other videos; only the same lists are expected to hold the same videos.
        if was.data.datasets == config.data.datasets {
            allowed.extend(resume::of_contents(record.contents.as_ref(), self.contents.as_ref()));
        }
        self.set_weights(tensors)?;
        self.step = record.step;
        self.loss = record.loss;
        self.saved = Some((files.latest(), record.step));
        self.history = record.history;
        self.history.push(Continuation { from: record.step, vjepa: record.vjepa, changed: allowed });
        Ok(())
    }

    /// Sets weights and moments. Moving averages that are not given start as copies, moments at zero.
    ///
    /// # Errors
    /// [`TrainError::Run`] naming the first tensor that is missing or misshapen.
    pub fn set_weights(&mut self, mut tensors: NamedTensors) -> Result<(), TrainError> {
        self.objective.declaration().start_averages(&mut tensors);
        for (name, (shape, data)) in tensors {
            set(&mut self.params, &name, shape, data);
        }
        let graph = self.executor.graph();
        for id in &graph.params {
            let name = graph.source_name(*id).unwrap_or_default();
            if name.starts_with("adam.") && !self.params.names().any(|known| known == name) {
                let shape: Vec<usize> =
                    graph.ty(*id).shape.iter().filter_map(|dim| dim.eval(&BTreeMap::new())).collect();
                let zeros = vec![0.0; shape.iter().product()];
                set(&mut self.params, name, shape, zeros);
            }
        }
        Ok(())
    }

    /// One optimiser step on clips `f32[B, C, T, H, W]` with one mask pair per generator.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] when the loss or a gradient is NaN or infinite.
    pub fn train_step(
        &mut self,
        clips: Vec<f32>,
        shape: [usize; 5],
        pairs: &[MaskPair],
    ) -> Result<StepReport, TrainError> {
        let rates = self.schedule.at(self.step);
        let declaration = self.objective.declaration();
        let mut inputs = self.rate_inputs(rates);
        let share = declaration.context_share.map_or(0.0, |share| share.at(self.step));
        let mut eager_outputs = BTreeMap::new();
        let gradients;
        match &mut self.eager {
            Some(eager) => {
                (gradients, eager_outputs) = eager.run(&self.params, &clips, shape, pairs, share)?;
                inputs.extend(gradients.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())));
            }
            None => {
                inputs.extend(feed(&declaration.inputs, pairs, share, clips_for(&declaration.inputs, clips, shape)));
            }
        }
        let mut outputs = self.executor.run(&mut self.params, inputs)?;
        outputs.extend(eager_outputs);
        let read = |name: &str| -> f64 {
            outputs.get(name).and_then(|tensor| tensor.floats().first()).map_or(f64::NAN, |value| f64::from(*value))
        };
        let loss = read("loss");
        let norm = |set: &'static str| (set, read(&format!("grad_norm.{set}")));
        let grad_norms: Vec<_> = declaration.trained().map(|set| norm(set.name)).collect();
        if !loss.is_finite() || grad_norms.iter().any(|(_, norm)| !norm.is_finite()) {
            let (lr, saved) = (rates.lr, self.saved.clone());
            return Err(TrainError::Diverged { step: self.step, loss, grad_norms, lr, saved });
        }
        let report = StepReport {
            step: self.step,
            epoch: self.step / self.plan.steps_per_epoch,
            of: self.plan.steps,
            loss,
            terms: declaration.terms.iter().map(|term| (*term, read(term))).collect(),
            lr: rates.lr,
            wd: rates.wd,
            momentum: rates.momentum,
            monitored_norm: norm(declaration.monitor.gradient).1,
            grad_norms,
            clipping: rates.clip_active,
            tokens: pairs.iter().map(|pair| [pair.context.len, pair.target.len]).collect(),
            waited: Duration::ZERO,
            took: Duration::ZERO,
        };
        self.loss = Some(loss);
        self.step += 1;
        Ok(report)
    }

    /// Rates, bias corrections and limits of the step, as far as the objective's optimiser takes them.
    fn rate_inputs(&self, rates: StepRates) -> Vec<(&'static str, HostTensor)> {
        let scalar = |value: f64| HostTensor::scalar(value as f32);
        let t = (self.step + 1) as f64;
        let correction = |beta: f64| scalar(1.0 - beta.powf(t));
        let averages = self.objective.declaration().averages().next().is_some();
        let mut inputs = vec![
            ("lr", scalar(rates.lr)),
            ("wd", scalar(rates.wd)),
            ("c1", correction(self.betas[0])),
            ("c2", correction(self.betas[1])),
            ("max_norm", scalar(if rates.clip_active { self.max_norm } else { f64::INFINITY })),
        ];
        inputs.extend(averages.then(|| ("momentum", scalar(rates.momentum))));
        inputs
    }

    /// Saves weights, moving averages and moments.
    ///
    /// # Errors
    /// [`TrainError`]; the old checkpoint is then left alone.
    pub fn save(&mut self, config: &Config, files: &Checkpoint) -> Result<(), TrainError> {
        let weights = self.weights();
        // A device that lost its memory returns nothing; the old checkpoint is better than half a new one.
        if weights.len() != self.params.names().count() {
            return Err(TrainError::Unsupported(format!(
                "{} lost the weights: nothing was saved",
                self.params.device()
            )));
        }
        let (contents, history) = (self.contents.clone(), self.history.clone());
        files.save(config, &Progress { step: self.step, loss: self.loss, contents, history }, &weights)?;
        self.saved = Some((files.latest(), self.step));
        Ok(())
    }

    /// A copy of all tensors on the host.
    pub fn weights(&self) -> NamedTensors {
        self.params.names().filter_map(|name| Some((name.to_owned(), self.params.get(name)?))).collect()
    }

    /// Steps done.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Loss of the last of them; none before the first.
    pub fn loss(&self) -> Option<f64> {
        self.loss
    }

    /// The checkpoint the run was resumed from, or the latest it has saved.
    pub fn saved(&self) -> Option<&Path> {
        self.saved.as_ref().map(|(path, _)| path.as_path())
    }

    /// Sets which videos the run learns from, for its record. Call it before [`TrainState::begin`], which compares them.
    pub fn learns_from(&mut self, contents: Option<Contents>) {
        self.contents = contents;
    }

    /// Every time the run was resumed, this one included.
    pub fn history(&self) -> &[Continuation] {
        &self.history
    }

    /// What is minimised.
    pub fn objective(&self) -> &AnyObjective {
        &self.objective
    }

    /// The tensors, for other graphs that read them, such as diagnostics.
    pub fn params(&mut self) -> &mut DeviceParams {
        &mut self.params
    }

    /// The compiled step.
    pub fn graph(&self) -> &Graph {
        self.executor.graph()
    }

    /// The compiled step's executor, for profiles.
    pub fn executor(&mut self) -> &mut DeviceExecutor {
        &mut self.executor
    }
}

/// Refuses to begin where there is a checkpoint already.
fn refuse_existing(files: &Checkpoint) -> Result<(), TrainError> {
    if files.latest().exists() {
        let why = "exists already: add --resume to go on with it, or choose another `logging.folder`".to_owned();
        return Err(TrainError::Resume { path: files.latest(), why });
    }
    Ok(())
}

fn set(params: &mut DeviceParams, name: &str, shape: Vec<usize>, data: Vec<f32>) {
    params.set(name, HostTensor::F32 { shape, data });
}

/// Gives the clips away without a copy: to the one input that takes them, or to the last of several.
fn clips_for(inputs: &[Input], clips: Vec<f32>, shape: [usize; 5]) -> impl FnMut(Clips) -> HostTensor {
    let mut left = inputs.iter().filter(|input| input.source.is_clips()).count();
    let mut clips = clips;
    move |_| {
        left = left.saturating_sub(1);
        let data = if left == 0 { std::mem::take(&mut clips) } else { clips.clone() };
        HostTensor::F32 { shape: shape.to_vec(), data }
    }
}

/// The official schedules over the run's own step numbers.
fn schedule(config: &Config, plan: &StepPlan) -> Schedule {
    let optimization = &config.optimization;
    let [start, end] = optimization.ema;
    // The official expression is ipe·epochs·ipe_scale, not rounded.
    let ema_steps = plan.steps as f64 * optimization.ipe_scale;
    Schedule {
        lr: WarmupCosine {
            start: optimization.start_lr,
            peak: optimization.lr,
            end: optimization.final_lr,
            warmup_steps: plan.warmup_steps,
            total_steps: plan.schedule_steps,
        },
        wd: CosineWd {
            start: optimization.weight_decay,
            end: optimization.final_weight_decay,
            total_steps: plan.schedule_steps,
        },
        ema: LinearEma { start, end, total_steps: ema_steps },
        clip_from_step: (plan.clip_from_step != u64::MAX).then_some(plan.clip_from_step),
    }
}
