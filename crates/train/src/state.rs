//! The state of a run: weights, moving averages, moments and the step that changes them.

mod begin;
mod end;
mod keep;
mod pending;
mod shared;
mod told;

pub(super) use begin::check_folder;

use super::resume::Continuation;
use super::step_executor::{Batch, StepExecutor};
use super::{Group, StepReport, TrainError};
use pending::Pending;
use std::path::PathBuf;
use vjepa_collective::{Alone, Collective};
use vjepa_compiler::serialize::Artifact;
use vjepa_data::Contents;
use vjepa_graphs::AnyObjective;
use vjepa_programs as compile;
use vjepa_programs::{Passes, Precision, TrainOptions};
use vjepa_recipe::config::{Config, StepPlan};
use vjepa_recipe::masks::MaskPair;
use vjepa_recipe::schedules::{Schedule, StepRates};
use vjepa_runtime::plan::{Device, DeviceParams, FirstBad, HostTensor, RunError};

/// Everything that changes from step to step.
pub struct TrainState {
    objective: AnyObjective,
    params: DeviceParams,
    step_executor: StepExecutor,
    schedule: Schedule,
    plan: StepPlan,
    betas: [f64; 2],
    max_norm: f64,
    skip_above: f64,
    step: u64,
    /// Groups of the step so far.
    pending: Pending,
    /// Whether the losses of a step are read when the next one has been sent to the device.
    late: bool,
    /// What is known of the last step, where its losses have not been read yet.
    unread: Option<StepReport>,
    /// Steps that changed nothing, over the whole run.
    skipped: u64,
    /// Updates of the optimiser before the run: those of the checkpoint that a cool-down began with.
    updates_before: u64,
    /// Of the last step, which an earlier part of the run may have done.
    loss: Option<f64>,
    /// The latest checkpoint and its step.
    saved: Option<(PathBuf, u64)>,
    contents: Option<Contents>,
    history: Vec<Continuation>,
    notes: Vec<String>,
}

/// Where the step of a run comes from.
pub enum StepSource {
    /// Compiled now, by these passes.
    Passes(Passes),
    /// Compiled ahead of time.
    Compiled(Box<Artifact>),
    /// Compiled now in two halves, with gradients added up in between.
    Halves(Passes),
    /// In two halves, of which the one that adds gradients up was compiled ahead of time.
    CompiledHalf(Box<Artifact>),
    /// Compiled now, with a first half for each kind of samples in a step of this configuration.
    Mixed(Passes, Box<Config>),
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
        let source = match eager {
            true => StepSource::Eager,
            false if config.is_mixed() => StepSource::Mixed(Passes::default(), Box::new(config.clone())),
            false => StepSource::Passes(Passes::default()),
        };
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
        Self::of_rank(device, config, plan, source, &Alone)
    }

    /// As [`TrainState::from_source`], of one of several ranks.
    ///
    /// # Errors
    /// As [`TrainState::from_source`].
    pub fn of_rank(
        device: Device,
        config: &Config,
        plan: StepPlan,
        source: StepSource,
        ranks: &dyn Collective,
    ) -> Result<Self, TrainError> {
        let unsupported = |why: &str| TrainError::Unsupported(why.to_owned());
        let options = TrainOptions::of(config)
            .ok_or_else(|| unsupported("`meta.dtype: float16` is not supported: use bfloat16 or float32"))?;
        let eager = matches!(source, StepSource::Eager);
        if config.is_mixed() && !matches!(source, StepSource::Mixed(..)) {
            return Err(unsupported(if eager {
                "--eager computes clips of one length; leave it out, or leave img_data, img_mask and all but one of \
                 data.dataset_fpcs's lengths out"
            } else {
                "a step compiled ahead of time has clips of one length: leave --plan out to train on several, or on images beside \
                 videos"
            }));
        }
        if eager && options.precision != Precision::F32 {
            return Err(unsupported("--eager computes in f32: add --set meta.dtype=float32"));
        }
        if eager && !device.is_cpu() {
            return Err(unsupported("--eager computes on the CPU: add --device cpu"));
        }
        let objective = compile::objective(config)?;
        let optimization = &config.optimization;
        let sharing = Some(ranks).filter(|ranks| optimization.shard_states && ranks.world() > 1);
        let step_executor = StepExecutor::open(device, &objective, options, source, sharing)?;
        if !device.is_cpu() {
            device.lay_out(step_executor.largest_value(config)?).map_err(RunError::Device)?;
        }
        Ok(Self {
            step_executor,
            params: device.params(),
            schedule: config.schedule(&plan),
            plan,
            betas: optimization.betas,
            max_norm: optimization.clip_grad.unwrap_or(f64::INFINITY),
            skip_above: optimization.skip_above.unwrap_or(f64::INFINITY),
            objective,
            step: 0,
            pending: Pending::default(),
            late: false,
            unread: None,
            skipped: 0,
            updates_before: 0,
            loss: None,
            saved: None,
            contents: None,
            history: Vec::new(),
            notes: Vec::new(),
        })
    }

    /// One optimiser step on the clips `f32[B, C, T, H, W]` of its only group, with one mask pair per generator.
    ///
    /// # Errors
    /// As [`TrainState::finish_step`].
    pub fn train_step(
        &mut self,
        clips: Vec<f32>,
        shape: [usize; 5],
        pairs: &[MaskPair],
    ) -> Result<StepReport, TrainError> {
        self.add_group(clips, shape, pairs)?;
        self.finish_step(&Alone)
    }

    /// Computes a group of the step: clips `f32[B, C, T, H, W]` with one mask pair per generator. A step compiled as a whole
    /// has one group.
    ///
    /// # Errors
    /// [`TrainError::Run`]; [`TrainError::Unsupported`] for a second group of a step compiled as a whole.
    pub fn add_group(&mut self, clips: Vec<f32>, shape: [usize; 5], pairs: &[MaskPair]) -> Result<(), TrainError> {
        self.add(Group::masked(clips, shape, pairs.to_vec()))
    }

    /// Computes a group of the step, as [`TrainState::add_group`], with all that a task has made of it.
    ///
    /// # Errors
    /// As [`TrainState::add_group`].
    pub fn add(&mut self, group: Group) -> Result<(), TrainError> {
        self.compute(vec![group], None)
    }

    /// Computes a group of the step in parts, one after the other.
    ///
    /// # Errors
    /// As [`TrainState::add_group`].
    pub fn add_parts(&mut self, parts: Vec<Group>) -> Result<(), TrainError> {
        self.compute(parts, None)
    }

    /// Computes the last group of the step on this rank, as [`TrainState::add_parts`], and sums the gradients of all groups
    /// over `ranks` meanwhile.
    ///
    /// # Errors
    /// As [`TrainState::add`]; [`TrainError::Collective`].
    pub fn add_last(&mut self, parts: Vec<Group>, ranks: &dyn Collective) -> Result<(), TrainError> {
        self.compute(parts, Some(ranks))
    }

    fn compute(&mut self, parts: Vec<Group>, last: Option<&dyn Collective>) -> Result<(), TrainError> {
        let mut first = self.pending.groups == 0;
        if !first && !self.step_executor.adds_up() {
            return Err(TrainError::Unsupported("a step compiled as a whole has one group".to_owned()));
        }
        let count = parts.len();
        for (number, part) in parts.into_iter().enumerate() {
            self.add_part(part, first, last.filter(|_| number + 1 == count))?;
            first = false;
        }
        self.pending.groups += 1;
        self.pending.over = last.map_or(1, |ranks| ranks.world());
        Ok(())
    }

    /// Computes a part of a group, the `first` of its step or not, perhaps the `last` of this rank.
    fn add_part(&mut self, mut group: Group, first: bool, last: Option<&dyn Collective>) -> Result<(), TrainError> {
        let rates = self.rate_inputs(self.schedule.at(self.step));
        let (variant, weight) = (group.variant, group.weight);
        let declared = self.step_executor.objective(&self.objective, variant).declaration().context_share;
        let context_share = declared.map_or(0.0, |share| share.at(self.step));
        let declaration = self.objective.declaration();
        let (clips, shape) = (std::mem::take(&mut group.clips), group.shape);
        let batch = Batch { clips, shape, fed: group.fed(context_share), kind: (variant, weight) };
        let (outputs, travel) =
            match self.step_executor.group(&mut self.params, declaration, batch, || rates, first, last) {
                Err(TrainError::Run(RunError::NotFinite { seen, .. })) => return Err(self.diverged(f64::NAN, &seen)),
                computed => computed?,
            };
        let pending = &mut self.pending;
        pending.travel += travel;
        pending.masked(variant, &group.pairs);
        match self.late {
            true => pending.earlier = outputs,
            false => pending.add(&outputs, weight, declaration),
        }
        Ok(())
    }

    /// The memory of a group's clips, of `len` values, once they have been computed on; none where it was not kept.
    pub fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        self.step_executor.spare(len)
    }

    /// Names of the trained parameter sets.
    fn trained(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.objective.declaration().trained().map(|set| set.name)
    }

    /// The first weight, activation or gradient of a group that is NaN or infinite, in words; computes the group again and
    /// changes nothing. None where all are finite, or where Burn's autodiff computes them.
    ///
    /// # Errors
    /// [`TrainError::Run`].
    pub fn first_bad(&mut self, mut group: Group) -> Result<Option<FirstBad>, TrainError> {
        let rates = self.rate_inputs(self.schedule.at(self.step));
        let declared = self.step_executor.objective(&self.objective, group.variant).declaration().context_share;
        let declaration = self.objective.declaration();
        let context_share = declared.map_or(0.0, |share| share.at(self.step));
        let (clips, shape) = (std::mem::take(&mut group.clips), group.shape);
        let kind = (group.variant, group.weight);
        let batch = Batch { clips, shape, fed: group.fed(context_share), kind };
        self.step_executor.first_bad(&mut self.params, declaration, batch, rates)
    }

    /// Steps whose loss was above `optimization.skip_above`, over the whole run.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Rates, bias corrections and limits of the step, as far as the objective's optimiser takes them.
    fn rate_inputs(&self, rates: StepRates) -> Vec<(&'static str, HostTensor)> {
        let scalar = |value: f64| HostTensor::scalar(value as f32);
        let t = self.step.saturating_add(self.updates_before).saturating_add(1) as f64;
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
}
