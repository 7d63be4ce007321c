//! How a step is computed: in one graph, in two halves with the gradients' sums between them, or by Burn's autodiff.

use super::TrainError;
use super::eager::EagerGradients;
use super::mixed::Mixed;
use super::shards::Shards;
use super::state::StepSource;
use super::sums::{self, Travel, Travelling};
use std::collections::BTreeMap;
use vjepa_collective::Collective;
use vjepa_compiler::accumulate::SUM;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::largest_value;
use vjepa_data::ClipValues;
use vjepa_graphs::AnyObjective;
use vjepa_graphs::objectives::{ClipUse, Declaration, Input};
use vjepa_programs::{self as compile, Fed, MaskSizes, TrainOptions, feed};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, FirstBad, HostTensor, Pixels};

/// Tensors by input or output name.
pub(super) type Named = BTreeMap<String, HostTensor>;

/// The compiled parts of a step.
pub(super) enum StepExecutor {
    /// One graph for the one group of a step.
    Whole(Box<DeviceExecutor>),
    /// One graph adds gradients up, group after group; the other applies them.
    Halves {
        gradients: Box<DeviceExecutor>,
        update: Box<DeviceExecutor>,
        /// Parameters that hold sums, with their shapes.
        sums: Vec<(String, Vec<usize>)>,
        /// Who updates what, where ranks share that.
        shards: Option<Shards>,
    },
    /// Like halves, with a graph for each kind of samples in a step.
    Mixed(Box<Mixed>),
    /// Burn's autodiff, and a compiled optimiser whose inputs are the gradients.
    Eager { model: Box<EagerGradients>, update: Box<DeviceExecutor>, sums: Named },
}

/// What is computed on.
pub(super) struct Batch<'a> {
    /// `f32[B, C, T, H, W]`.
    pub(super) clips: ClipValues,
    pub(super) shape: [usize; 5],
    /// What inputs besides clips are filled with.
    pub(super) fed: Fed<'a>,
    /// Which kind of samples they are, and how much they count within their group.
    pub(super) kind: (usize, f64),
}

impl StepExecutor {
    /// Compiles what `source` asks for; the update is split over the ranks that are `sharing` it.
    ///
    /// # Errors
    /// [`TrainError`] for a graph that cannot be compiled or planned; [`TrainError::Unsupported`] for Burn's autodiff, which
    /// shares nothing.
    pub(super) fn open(
        device: Device,
        objective: &AnyObjective,
        options: TrainOptions,
        source: StepSource,
        sharing: Option<&dyn Collective>,
    ) -> Result<Self, TrainError> {
        let halves = |gradients: DeviceExecutor| -> Result<Self, TrainError> {
            let sums = sums_of(gradients.graph());
            let shards = sharing.map(|ranks| Shards::of_sums(&sums, objective.declaration(), ranks));
            let mine = |parameter: &str| shards.as_ref().is_none_or(|shards| shards.owns(parameter));
            let update = device.plan(&compile::update_of(objective, options, &[gradients.graph()], &mine)?)?;
            Ok(Self::Halves { gradients: Box::new(gradients), update: Box::new(update), sums, shards })
        };
        let mut executor = match source {
            StepSource::Eager if sharing.is_some() => {
                let why = "--eager keeps the whole optimiser's state: leave out --eager or `optimization.shard_states`";
                return Err(TrainError::Unsupported(why.to_owned()));
            }
            StepSource::Eager => {
                let update = device.plan(&compile::optimizer(objective, options)?)?;
                let model = Box::new(EagerGradients::new(objective)?);
                Self::Eager { model, update: Box::new(update), sums: Named::new() }
            }
            StepSource::Passes(mut passes) => {
                Self::Whole(Box::new(device.plan(&compile::step_with(objective, options, &mut passes)?)?))
            }
            StepSource::Compiled(artifact) => Self::Whole(Box::new(device.take(artifact.graph, artifact.plan)?)),
            StepSource::Halves(mut passes) => {
                halves(device.plan(&compile::gradients_with(objective, options, &mut passes)?)?)?
            }
            StepSource::CompiledHalf(artifact) => halves(device.take(artifact.graph, artifact.plan)?)?,
            StepSource::Mixed(passes, config) => {
                Self::Mixed(Box::new(Mixed::open(device, &config, objective, options, &passes, sharing)?))
            }
        };
        // On a GPU reading a number in the middle of a step would wait for the step so far.
        if device.is_cpu() {
            match &mut executor {
                Self::Whole(step) | Self::Eager { update: step, .. } => step.guard(),
                Self::Halves { gradients, update, .. } => [gradients, update].into_iter().for_each(|half| half.guard()),
                Self::Mixed(_) => {}
            }
        }
        Ok(executor)
    }

    /// Whether steps of several groups, or shared with other ranks, can be computed.
    pub(super) fn adds_up(&self) -> bool {
        !matches!(self, Self::Whole(_))
    }

    /// Bytes of the largest value in a step of a configuration, by its longest masks.
    ///
    /// # Errors
    /// [`TrainError::Mask`].
    pub(super) fn largest_value(&self, config: &Config) -> Result<u64, TrainError> {
        Ok(match self {
            Self::Mixed(mixed) => mixed.largest_value(config)?,
            Self::Whole(_) | Self::Halves { .. } | Self::Eager { .. } => {
                largest_value(self.main().graph(), &compile::drawn_sizes(config, MaskSizes::Largest)?)
            }
        })
    }

    /// The graph that computes gradients, or for Burn's autodiff the optimiser.
    pub(super) fn main(&self) -> &DeviceExecutor {
        match self {
            Self::Mixed(mixed) => mixed.main(),
            Self::Whole(step) | Self::Halves { gradients: step, .. } | Self::Eager { update: step, .. } => step,
        }
    }

    /// As [`StepExecutor::main`].
    pub(super) fn main_mut(&mut self) -> &mut DeviceExecutor {
        match self {
            Self::Mixed(mixed) => mixed.main_mut(),
            Self::Whole(step) | Self::Halves { gradients: step, .. } | Self::Eager { update: step, .. } => step,
        }
    }

    /// The graph that changes weights and moments.
    pub(super) fn optimiser(&self) -> &Graph {
        match self {
            Self::Mixed(mixed) => mixed.optimiser(),
            Self::Whole(step) | Self::Halves { update: step, .. } | Self::Eager { update: step, .. } => step.graph(),
        }
    }

    /// Computes one group: all of the step with `rates`, or its losses and the gradients' sums. `first` says that the sums
    /// begin here, `last` that they end here and which ranks they are over. Returns how they travelled, too.
    ///
    /// # Errors
    /// [`TrainError::Run`], [`TrainError::Collective`].
    pub(super) fn group(
        &mut self,
        params: &mut DeviceParams,
        declaration: &Declaration,
        batch: Batch<'_>,
        rates: impl FnOnce() -> Vec<(&'static str, HostTensor)>,
        first: bool,
        last: Option<&dyn Collective>,
    ) -> Result<(Named, Travel), TrainError> {
        let inputs = &declaration.inputs;
        let given = |Batch { clips, shape, fed, .. }| feed(inputs, fed, clips_for(inputs, clips, shape));
        match self {
            Self::Whole(step) => {
                let mut inputs: Vec<(&str, HostTensor)> = rates();
                inputs.extend(given(batch));
                Ok((with_padded(step, inputs, |step, inputs| step.run(params, inputs))?, Travel::default()))
            }
            Self::Halves { gradients, sums, .. } => {
                if first {
                    clear(params, sums);
                }
                let fed = given(batch);
                let Some(ranks) = last.filter(|ranks| ranks.world() > 1) else {
                    return Ok((with_padded(gradients, fed, |step, fed| step.run(params, fed))?, Travel::default()));
                };
                let mut over = Travelling::new(ranks, gradients.device());
                let outputs = with_padded(gradients, fed, |step, fed| step.run_among(params, fed, Some(&mut over)));
                match over.lost.take() {
                    Some(lost) => Err(lost.into()),
                    None => Ok((outputs?, over.travel)),
                }
            }
            Self::Mixed(mixed) => Ok((mixed.add(params, batch, first)?, Travel::default())),
            Self::Eager { model, sums, .. } => {
                let Batch { clips, shape, fed, .. } = batch;
                let clips = clips.into_floats(shape);
                let (gradients, outputs) = model.run(params, &clips, shape, fed.pairs, fed.context_share)?;
                if first {
                    *sums = gradients;
                } else {
                    sums::add(sums, &gradients);
                }
                Ok((outputs, Travel::default()))
            }
        }
    }

    /// What a group minimises: the objective of a run, or of several kinds of samples that of its own.
    pub(super) fn objective<'a>(&'a self, whole: &'a AnyObjective, variant: usize) -> &'a AnyObjective {
        match self {
            Self::Mixed(mixed) => mixed.objective(variant).unwrap_or(whole),
            Self::Whole(_) | Self::Halves { .. } | Self::Eager { .. } => whole,
        }
    }

    /// The memory of clips that have been computed on, for others; none where it was not kept.
    pub(super) fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        match self {
            Self::Mixed(mixed) => mixed.spare(len),
            Self::Whole(step) | Self::Halves { gradients: step, .. } => step.spare(len),
            Self::Eager { .. } => None,
        }
    }

    /// From now on a group's outputs are those of the group before it, where a step is one graph: nothing waits for a device
    /// then. Whether they are.
    pub(super) fn read_late(&mut self) -> bool {
        match self {
            Self::Whole(step) => {
                step.read_late();
                true
            }
            Self::Halves { .. } | Self::Mixed(_) | Self::Eager { .. } => false,
        }
    }

    /// From now on the launches of a step that is one graph are recorded and replayed; see [`DeviceExecutor::record_launches`].
    pub(super) fn record_launches(&mut self) {
        match self {
            Self::Whole(step) => step.record_launches(),
            // Sums begin in new memory with every step.
            Self::Halves { .. } | Self::Mixed(_) | Self::Eager { .. } => {}
        }
    }

    /// The outputs of the last group, where they are read late and have not been yet.
    ///
    /// # Errors
    /// [`TrainError::Run`].
    pub(super) fn unread(&mut self, params: &DeviceParams) -> Result<Option<Named>, TrainError> {
        match self {
            Self::Whole(step) => Ok(step.unread(params)?),
            Self::Halves { .. } | Self::Mixed(_) | Self::Eager { .. } => Ok(None),
        }
    }

    /// Applies the sums of `groups` groups on all `ranks`, which are there but for Burn's autodiff; nothing is left to apply of
    /// a whole step.
    ///
    /// # Errors
    /// [`TrainError::Run`], [`TrainError::Collective`].
    pub(super) fn apply(
        &mut self,
        params: &mut DeviceParams,
        groups: f64,
        rates: Vec<(&'static str, HostTensor)>,
        ranks: &dyn Collective,
    ) -> Result<Named, TrainError> {
        let share = (1.0 / groups) as f32;
        match self {
            Self::Whole(_) => Ok(Named::new()),
            Self::Mixed(mixed) => mixed.apply(params, groups, rates, ranks),
            Self::Halves { update, shards, .. } => {
                let mut inputs: Vec<(&str, HostTensor)> = rates;
                inputs.push(("share", HostTensor::scalar(share)));
                let outputs = update.run(params, inputs)?;
                if let Some(shards) = shards {
                    shards.spread(params, ranks)?;
                }
                Ok(outputs)
            }
            Self::Eager { update, sums, .. } => {
                sums::reduce_host(sums, share, ranks)?;
                let mut inputs: Vec<(&str, HostTensor)> = rates;
                inputs.extend(sums.iter().map(|(name, sum)| (name.as_str(), sum.clone())));
                Ok(update.run(params, inputs)?)
            }
        }
    }

    /// The first weight, activation or gradient of a group that is NaN or infinite, in words.
    ///
    /// # Errors
    /// [`TrainError::Run`].
    pub(super) fn first_bad(
        &mut self,
        params: &mut DeviceParams,
        declaration: &Declaration,
        batch: Batch<'_>,
        rates: Vec<(&'static str, HostTensor)>,
    ) -> Result<Option<FirstBad>, TrainError> {
        if let Self::Mixed(mixed) = self {
            return mixed.first_bad(params, batch);
        }
        let Batch { clips, shape, fed, .. } = batch;
        let fed = feed(&declaration.inputs, fed, clips_for(&declaration.inputs, clips, shape));
        match self {
            Self::Whole(step) => {
                let mut inputs: Vec<(&str, HostTensor)> = rates;
                inputs.extend(fed);
                Ok(with_padded(step, inputs, |step, inputs| step.first_bad(params, inputs))?)
            }
            Self::Halves { gradients, sums, .. } => {
                // What the step has added up is bad already, but is no cause.
                clear(params, sums);
                Ok(with_padded(gradients, fed, |step, fed| step.first_bad(params, fed))?)
            }
            Self::Mixed(_) | Self::Eager { .. } => Ok(None),
        }
    }

    /// Who updates what, where ranks share that.
    pub(super) fn shards(&self) -> Option<&Shards> {
        match self {
            Self::Halves { shards, .. } => shards.as_ref(),
            Self::Mixed(mixed) => mixed.shards(),
            Self::Whole(_) | Self::Eager { .. } => None,
        }
    }

    /// Whether the sums over ranks are taken when they are applied, not with the last group.
    pub(super) fn sums_late(&self) -> bool {
        matches!(self, Self::Eager { .. } | Self::Mixed(_))
    }

    /// Gives the sums back: they are no part of a run's state.
    pub(super) fn forget(&mut self, params: &mut DeviceParams) {
        match self {
            Self::Whole(_) => {}
            Self::Mixed(mixed) => mixed.forget(params),
            Self::Halves { sums, .. } => {
                for (name, _) in sums.iter() {
                    params.remove(name);
                }
            }
            Self::Eager { sums, .. } => sums.clear(),
        }
    }
}

/// Sets sums of gradients to zero.
pub(super) fn clear(params: &mut DeviceParams, sums: &[(String, Vec<usize>)]) {
    sums.iter().for_each(|(name, shape)| params.zeros(name, shape));
}

/// The parameters of a graph that hold sums of gradients.
pub(super) fn sums_of(graph: &Graph) -> Vec<(String, Vec<usize>)> {
    let named = graph.params.iter().filter_map(|id| {
        let name = graph.source_name(*id).filter(|name| name.starts_with(SUM))?;
        let shape = graph.ty(*id).shape.iter().filter_map(|dim| dim.eval(&BTreeMap::new()));
        Some((name.to_owned(), shape.collect()))
    });
    named.collect()
}

/// Gives the clips away without a copy: to the one input that takes them, or to the last of several.
pub(super) fn clips_for(inputs: &[Input], clips: ClipValues, shape: [usize; 5]) -> impl FnMut(ClipUse) -> HostTensor {
    let mut left = inputs.iter().filter(|input| input.source.is_clips()).count();
    let mut clips = Some(clips);
    move |_| {
        left = left.saturating_sub(1);
        let given = if left == 0 { clips.take() } else { clips.clone() };
        let floats = |data| HostTensor::F32 { shape: shape.to_vec(), data };
        match given {
            Some(ClipValues::Floats(data)) => floats(data),
            Some(ClipValues::Bytes { values, scaling }) => {
                match Pixels::new(shape.to_vec(), values, scaling.to_vec()) {
                    Some(pixels) => HostTensor::Pixels(pixels),
                    // As for floats, the executor names a shape that the values do not fit.
                    None => floats(Vec::new()),
                }
            }
            None => floats(Vec::new()),
        }
    }
}

/// Does `run` with the inputs of a step, its lists of masks padded where it was compiled for that.
pub(super) fn with_padded<R>(
    step: &mut DeviceExecutor,
    inputs: Vec<(&str, HostTensor)>,
    run: impl FnOnce(&mut DeviceExecutor, Vec<(&str, HostTensor)>) -> R,
) -> R {
    let (names, tensors): (Vec<String>, Vec<HostTensor>) = compile::padded(step.graph(), inputs).into_iter().unzip();
    run(step, names.iter().map(String::as_str).zip(tensors).collect())
}
