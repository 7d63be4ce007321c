//! A step of several kinds of samples: a gradient graph for each variant, sums that all of them share, one update.
//!
//! Within a step every variant adds its gradients to the same sums, and the update divides them by the number of groups. A
//! parameter that only some variants read, such as the mask token of a length bucket, has no gradient in a step without them;
//! as by the official code, such a step leaves it and its moments alone. The update is therefore compiled once for each set of
//! variants that a step had.

use super::TrainError;
use super::shards::Shards;
use super::step_executor::{Batch, Named, clear, clips_for, sums_of, with_padded};
use super::sums;
use std::collections::{BTreeMap, BTreeSet};
use vjepa_collective::{Collective, totals};
use vjepa_compiler::accumulate::SUM;
use vjepa_compiler::ir::Graph;
use vjepa_compiler::plan::largest_value;
use vjepa_graphs::AnyObjective;
use vjepa_programs::{self as compile, MaskSizes, Passes, TrainOptions, Variant, feed};
use vjepa_recipe::config::Config;
use vjepa_recipe::masks::MaskError;
use vjepa_runtime::plan::{Device, DeviceExecutor, DeviceParams, FirstBad, HostTensor};

/// The compiled parts of such a step.
pub(super) struct Mixed {
    device: Device,
    options: TrainOptions,
    /// What the parameter sets belong to.
    objective: AnyObjective,
    parts: Vec<Part>,
    /// Parameters that hold sums, with their shapes: those of all variants.
    sums: Vec<(String, Vec<usize>)>,
    /// The update of a step that has had every variant.
    update: DeviceExecutor,
    /// The others so far, by the parameters that they leave alone.
    lesser: BTreeMap<BTreeSet<String>, DeviceExecutor>,
    /// Who updates what, where ranks share that.
    shards: Option<Shards>,
}

/// A variant and the graph that computes its gradients.
struct Part {
    variant: Variant,
    gradients: DeviceExecutor,
    /// Sums that it adds to.
    sums: BTreeSet<String>,
    /// Runs in this step, of this process.
    ran: u64,
}

impl Mixed {
    /// Bytes of the largest value in a step of a configuration, by its longest masks.
    ///
    /// # Errors
    /// [`MaskError`].
    pub(super) fn largest_value(&self, config: &Config) -> Result<u64, MaskError> {
        let of =
            |part: &Part| Ok(largest_value(part.gradients.graph(), &part.variant.sizes(config, MaskSizes::Largest)?));
        self.parts.iter().map(of).try_fold(0, |most, bytes: Result<u64, MaskError>| Ok(bytes?.max(most)))
    }

    /// Compiles every variant of a configuration; the update is split over the ranks that are `sharing` it.
    ///
    /// # Errors
    /// [`TrainError`] for a graph that cannot be compiled or planned.
    pub(super) fn open(
        device: Device,
        config: &Config,
        objective: &AnyObjective,
        options: TrainOptions,
        passes: &Passes,
        sharing: Option<&dyn Collective>,
    ) -> Result<Self, TrainError> {
        let options = TrainOptions { weighted: config.data.lengths().len() > 1, ..options };
        let mut parts = Vec::new();
        for variant in compile::variants(config)? {
            let mut passes = passes.clone();
            if let Some((_, sizes)) = &mut passes.memory {
                *sizes = variant.sizes(config, MaskSizes::Largest)?;
            }
            let graph = compile::gradients_with(&variant.objective, options, &mut passes)?;
            let mut gradients = device.plan(&graph)?;
            if device.is_cpu() {
                gradients.guard();
            }
            let sums = sums_of(gradients.graph()).into_iter().map(|(name, _)| name).collect();
            parts.push(Part { variant, gradients, sums, ran: 0 });
        }
        let mut sums: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        parts.iter().for_each(|part| sums.extend(sums_of(part.gradients.graph())));
        let sums: Vec<(String, Vec<usize>)> = sums.into_iter().collect();
        let shards = sharing.map(|ranks| Shards::of_sums(&sums, objective.declaration(), ranks));
        let graphs: Vec<&Graph> = parts.iter().map(|part| part.gradients.graph()).collect();
        let mine = |parameter: &str| shards.as_ref().is_none_or(|shards| shards.owns(parameter));
        let update = planned(device, &compile::update_of(objective, options, &graphs, &mine)?)?;
        let objective = objective.clone();
        Ok(Self { device, options, objective, parts, sums, update, lesser: BTreeMap::new(), shards })
    }

    /// What a variant minimises.
    pub(super) fn objective(&self, variant: usize) -> Option<&AnyObjective> {
        self.parts.get(variant).map(|part| &part.variant.objective)
    }

    /// The graph that computes the gradients of the longest clips.
    pub(super) fn main(&self) -> &DeviceExecutor {
        self.longest().map_or(&self.update, |at| &self.parts[at].gradients)
    }

    /// As [`Mixed::main`].
    pub(super) fn main_mut(&mut self) -> &mut DeviceExecutor {
        match self.longest() {
            Some(at) => &mut self.parts[at].gradients,
            None => &mut self.update,
        }
    }

    fn longest(&self) -> Option<usize> {
        (0..self.parts.len()).filter(|at| self.parts[*at].variant.bucket == 0).max_by_key(|at| {
            let variant = &self.parts[*at].variant;
            (!variant.images, variant.frames)
        })
    }

    /// The graph that changes all weights and moments.
    pub(super) fn optimiser(&self) -> &Graph {
        self.update.graph()
    }

    fn part(&mut self, variant: usize) -> Result<&mut Part, TrainError> {
        let unknown = || TrainError::Unsupported(format!("the step was not compiled for samples of kind {variant}"));
        self.parts.get_mut(variant).ok_or_else(unknown)
    }

    /// Adds the gradients of one computation to the sums, which begin here if it is the `first` of its step.
    ///
    /// # Errors
    /// [`TrainError::Run`].
    pub(super) fn add(
        &mut self,
        params: &mut DeviceParams,
        batch: Batch<'_>,
        first: bool,
    ) -> Result<Named, TrainError> {
        if first {
            clear(params, &self.sums);
            self.parts.iter_mut().for_each(|part| part.ran = 0);
        }
        let weighted = self.options.weighted;
        let part = self.part(batch.kind.0)?;
        part.ran += 1;
        let filled = inputs(&part.variant, batch, weighted);
        Ok(with_padded(&mut part.gradients, filled, |gradients, filled| gradients.run(params, filled))?)
    }

    /// Applies the sums over `groups` groups on all `ranks`.
    ///
    /// # Errors
    /// [`TrainError::Run`], [`TrainError::Collective`], [`TrainError::Compile`].
    pub(super) fn apply(
        &mut self,
        params: &mut DeviceParams,
        groups: f64,
        mut rates: Vec<(&'static str, HostTensor)>,
        ranks: &dyn Collective,
    ) -> Result<Named, TrainError> {
        sums::reduce(params, &self.sums, ranks)?;
        let ran: Vec<f64> = self.parts.iter().map(|part| part.ran as f64).collect();
        let ran = totals(ranks, &ran)?;
        let had = |name: &str| self.parts.iter().zip(&ran).any(|(part, ran)| *ran > 0.0 && part.sums.contains(name));
        let left: BTreeSet<String> =
            self.sums.iter().map(|(name, _)| name).filter(|name| !had(name)).cloned().collect();
        rates.push(("share", HostTensor::scalar((1.0 / groups) as f32)));
        let outputs = self.update_without(left)?.run(params, rates)?;
        if let Some(shards) = &self.shards {
            shards.spread(params, ranks)?;
        }
        Ok(outputs)
    }

    /// Who updates what, where ranks share that.
    pub(super) fn shards(&self) -> Option<&Shards> {
        self.shards.as_ref()
    }

    /// The update of a step in which these sums were not added to.
    fn update_without(&mut self, left: BTreeSet<String>) -> Result<&mut DeviceExecutor, TrainError> {
        use std::collections::btree_map::Entry;
        if left.is_empty() {
            return Ok(&mut self.update);
        }
        match self.lesser.entry(left) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => {
                let left = place.key();
                let summed = |full: &str| {
                    let name = format!("{SUM}{full}");
                    !left.contains(&name) && self.sums.iter().any(|(known, _)| *known == name)
                };
                let mine = |parameter: &str| self.shards.as_ref().is_none_or(|shards| shards.owns(parameter));
                let graph = compile::update_where(&self.objective, self.options, &summed, &mine)?;
                let update = planned(self.device, &graph)?;
                Ok(place.insert(update))
            }
        }
    }

    /// The first weight, activation or gradient of a computation that is NaN or infinite, in words.
    ///
    /// # Errors
    /// [`TrainError::Run`].
    pub(super) fn first_bad(
        &mut self,
        params: &mut DeviceParams,
        batch: Batch<'_>,
    ) -> Result<Option<FirstBad>, TrainError> {
        // What the step has added up is bad already, but is no cause.
        clear(params, &self.sums);
        let weighted = self.options.weighted;
        let part = self.part(batch.kind.0)?;
        let filled = inputs(&part.variant, batch, weighted);
        Ok(with_padded(&mut part.gradients, filled, |gradients, filled| gradients.first_bad(params, filled))?)
    }

    /// The memory of clips that have been computed on, for others.
    pub(super) fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        self.parts.iter_mut().find_map(|part| part.gradients.spare(len))
    }

    /// Gives the sums back: they are no part of a run's state.
    pub(super) fn forget(&self, params: &mut DeviceParams) {
        for (name, _) in &self.sums {
            params.remove(name);
        }
    }
}

/// An update, compiled; on the CPU it tells of what is not finite.
fn planned(device: Device, graph: &Graph) -> Result<DeviceExecutor, TrainError> {
    let mut update = device.plan(graph)?;
    if device.is_cpu() {
        update.guard();
    }
    Ok(update)
}

/// The inputs of one computation.
fn inputs<'a>(variant: &'a Variant, batch: Batch<'_>, weighted: bool) -> Vec<(&'a str, HostTensor)> {
    let Batch { clips, shape, fed, kind: (_, weight) } = batch;
    let declared = &variant.objective.declaration().inputs;
    let mut filled = feed(declared, fed, clips_for(declared, clips, shape));
    if weighted {
        filled.push((compile::WEIGHT, HostTensor::scalar(weight as f32)));
    }
    filled
}
