//! Walks a plan: feeds inputs, runs nodes, frees what nobody reads any more, hands out results.

use super::backend::{Call, KernelError};
use super::binding::send;
use super::error::RunError;
use super::outputs::{Outputs, read};
use super::params::Params;
use super::profile::{Profile, RunTimes};
use super::ranks::{self, Exchange};
use super::recording::{Recorded, Recordings};
use super::{HostTensor, Operand, PlanBackend};
use burn_backend::tensor::Device;
use std::collections::{BTreeMap, HashSet};
use std::time::Instant;
use vjepa_compiler::ir::{Graph, Sizes, TensorType, ValueId};
use vjepa_compiler::plan::Plan;
use vjepa_compiler::verify::verify;
use vjepa_lower::{Lowered, read_floats};

/// A planned graph, ready to run on back end `B`.
pub struct Executor<B: PlanBackend> {
    graph: Graph,
    plan: Plan,
    /// Parameters that get a new value.
    pub(super) updated: HashSet<ValueId>,
    /// Scalar outputs that must be finite.
    guarded: HashSet<ValueId>,
    profile: Option<Vec<RunTimes>>,
    /// Whether a run returns the outputs of the one before it.
    late: bool,
    /// Outputs of the last run, where they are read late and have not been yet.
    unread: Option<Outputs<B>>,
    /// What has been recorded, where runs are.
    recordings: Option<Recordings<B>>,
    /// Whether the back end's kernels are used.
    pub(super) kernels: bool,
    /// For each node, whether a kernel runs it.
    pub(super) by_kernel: Vec<bool>,
    memory: B::Memory,
}

impl<B: PlanBackend> Executor<B> {
    /// Plans `graph`, [lowered](Executor::lower) for this back end.
    ///
    /// # Errors
    /// [`RunError::Plan`], [`RunError::Simd`]; [`RunError::Unsupported`] for an operation that this back end cannot run.
    pub fn new(graph: &Graph) -> Result<Self, RunError> {
        Self::planned(graph, true)
    }

    /// As [`Executor::new`] without the back end's kernels: the path of a back end that has none, for comparison.
    ///
    /// # Errors
    /// As [`Executor::new`].
    pub fn without_kernels(graph: &Graph) -> Result<Self, RunError> {
        Self::planned(graph, false)
    }

    pub(super) fn planned(graph: &Graph, kernels: bool) -> Result<Self, RunError> {
        B::check()?;
        let graph = Self::lower_for(graph, kernels)?;
        let plan = Plan::new(&graph).map_err(|error| cannot_plan(&graph, &error))?;
        Self::supported(&graph, kernels)?;
        Ok(Self::of(graph, plan, kernels))
    }

    /// Takes a graph that was [lowered](Executor::lower) and planned before.
    ///
    /// # Errors
    /// [`RunError::Plan`] when the plan does not run the graph, [`RunError::Unsupported`] when it was lowered for another
    /// back end.
    pub fn from_plan(graph: Graph, plan: Plan) -> Result<Self, RunError> {
        Self::checked(graph, plan, true)
    }

    /// [`Executor::from_plan`], with or without the back end's kernels.
    pub(super) fn checked(graph: Graph, plan: Plan, kernels: bool) -> Result<Self, RunError> {
        B::check()?;
        verify(&graph).map_err(|error| cannot_plan(&graph, &error))?;
        plan.check(&graph).map_err(|error| cannot_plan(&graph, &error))?;
        Self::supported(&graph, kernels)?;
        Ok(Self::of(graph, plan, kernels))
    }

    fn of(graph: Graph, plan: Plan, kernels: bool) -> Self {
        let updated = graph.updates.iter().map(|(param, _)| *param).collect();
        let (by_kernel, memory) = (Self::by_kernel(&graph, kernels), B::Memory::default());
        let (guarded, profile, late, unread, recordings) = (HashSet::new(), None, false, None, None);
        Self { graph, plan, updated, guarded, profile, late, unread, recordings, kernels, by_kernel, memory }
    }

    /// The graph as it is executed.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// The plan that is walked.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// From now on a run ends with [`RunError::NotFinite`] as soon as one of its scalar outputs is NaN or infinite, before a
    /// parameter is updated that depends on it. Each of them is then read back when it is computed.
    pub fn guard(&mut self) {
        let scalar = |id: &ValueId| self.graph.ty(*id).rank() == 0 && self.graph.ty(*id).dtype.is_float();
        self.guarded = self.graph.outputs.iter().map(|(_, id)| *id).filter(scalar).collect();
    }

    /// From now on a run returns the outputs of the run before it, the first one none, and [`Executor::unread`] those of the
    /// last: nothing waits for what has just been sent to a device, which has the next run's work when it is done with this
    /// one's. Takes back [`Executor::guard`], which reads in the middle of a run.
    pub fn read_late(&mut self) {
        self.late = true;
        self.guarded.clear();
    }

    /// From now on the launches of a run are recorded when its sizes come for the second time, and replayed from then on: the
    /// device is sent them as one, with no work on the host for each. A run that is guarded, profiled or shared with other ranks
    /// is launched node by node, as is one that cannot be recorded ([`Executor::recorded`] says why). The values of a recorded
    /// run stay in the device's memory.
    pub fn record_launches(&mut self) {
        self.recordings = Some(Recordings::default());
    }

    /// How runs were launched since [`Executor::record_launches`]; none where nothing records.
    pub fn recorded(&self) -> Option<Recorded> {
        self.recordings.as_ref().map(Recordings::summary)
    }

    /// The outputs of the last run that no other run has returned; none where there are none.
    ///
    /// # Errors
    /// [`RunError::Lost`].
    pub fn unread(&mut self) -> Result<Option<BTreeMap<String, HostTensor>>, RunError> {
        self.unread.take().map(read).transpose()
    }

    /// The memory of an input of `len` floats that a run is done with, for the next one to be written into; none where the
    /// back end did not keep it.
    pub fn spare(&mut self, len: usize) -> Option<Vec<f32>> {
        B::spare(len, &mut self.memory)
    }

    /// Starts (or clears) the per-node clock; `take_profile` reads it.
    pub fn profile(&mut self) {
        self.profile = Some(Vec::new());
    }

    /// Stops the clock: times of all runs since [`Executor::profile`].
    pub fn take_profile(&mut self) -> Profile<'_> {
        let runs = self.profile.take().unwrap_or_default();
        Profile::new(&self.graph, &self.plan, runs)
    }

    /// Runs the plan once. Inputs are given by name; parameters come from `params`, which gets the updates.
    ///
    /// Returns the named outputs (a scalar has shape `[]`).
    ///
    /// # Errors
    /// A missing or misshapen input or parameter; nothing has been changed then. [`RunError::Kernel`] for an operand that only
    /// the run shows to be wrong, a token index out of range; `params` then lacks the parameters that the run updates.
    pub fn run(
        &mut self,
        params: &mut Params<B>,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        self.run_among(params, inputs, None)
    }

    /// As [`Executor::run`], as one of several ranks, all of which run the same graph: its sums over ranks go through
    /// `exchange`. None for this rank alone.
    ///
    /// # Errors
    /// As [`Executor::run`]; [`RunError::Exchange`] where the ranks cannot go on, after which `params` lacks the parameters
    /// that the run updates.
    pub fn run_among(
        &mut self,
        params: &mut Params<B>,
        inputs: Vec<(&str, HostTensor)>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<BTreeMap<String, HostTensor>, RunError> {
        let mut inputs: BTreeMap<&str, HostTensor> = inputs.into_iter().collect();
        let sizes = self.bind_sizes(&inputs, params)?;
        self.fits(&sizes, params.device())?;
        self.tokens_exist(&inputs, &sizes)?;
        let mut sent = Vec::with_capacity(self.graph.inputs.len());
        for id in &self.graph.inputs {
            let name = self.graph.source_name(*id).unwrap_or_default();
            let tensor = inputs.remove(name).ok_or_else(|| RunError::MissingInput(name.to_owned()))?;
            sent.push((*id, send(tensor, params.device(), &mut self.memory)));
        }
        let plain = exchange.is_some() || self.profile.is_some() || !self.guarded.is_empty();
        let outputs = match self.recordings.take().filter(|_| !plain) {
            Some(mut recordings) => {
                let outputs = self.run_recorded(&mut recordings, params, sent, &sizes);
                self.recordings = Some(recordings);
                outputs?
            }
            None => self.walk(params, sent, &sizes, exchange)?,
        };
        match self.late {
            false => read(outputs),
            true => Ok(self.unread.replace(outputs).map(read).transpose()?.unwrap_or_default()),
        }
    }

    /// Runs the plan on inputs that have been sent.
    pub(super) fn walk(
        &mut self,
        params: &mut Params<B>,
        inputs: Vec<(ValueId, Operand<B>)>,
        sizes: &Sizes,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<Outputs<B>, RunError> {
        let mut values: Vec<Option<Operand<B>>> = Vec::new();
        values.resize_with(self.graph.values.len(), || None);
        for (id, operand) in inputs {
            values[id.0] = Some(operand);
        }
        self.bind_params(&mut values, params);
        let device = params.device().clone();
        if let Some(profile) = &mut self.profile {
            profile.push(RunTimes::new(sizes.clone()));
        }
        let done = B::on_workers(|| self.run_nodes(&mut values, sizes, &device, exchange));
        if let Err(error) = done {
            if matches!(error, RunError::NotFinite { .. }) {
                self.give_back(values, params);
            }
            return Err(error);
        }
        B::end_run(&mut self.memory);
        self.finish(values, params, sizes)
    }

    fn run_nodes(
        &mut self,
        values: &mut [Option<Operand<B>>],
        sizes: &Sizes,
        device: &Device<B>,
        mut exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<(), RunError> {
        let mut seen = Vec::new();
        for at in 0..self.plan.steps.len() {
            let step = &self.plan.steps[at];
            let node = &self.graph.nodes[step.node.0];
            let started = self.profile.is_some().then(Instant::now);
            let mut operands = Vec::with_capacity(node.inputs.len());
            for (at, id) in node.inputs.iter().enumerate() {
                // The last mention of a value that is freed after this node takes it out: the kernel then owns it. So does a
                // parameter's last mention, where its own new value is written over it.
                let over = || step.in_place.iter().any(|(operand, _)| *operand == at);
                let owned = (step.frees.contains(id) || over()) && !node.inputs[at + 1..].contains(id);
                let operand = if owned { values[id.0].take() } else { values[id.0].clone() };
                operands.push(operand.ok_or_else(|| self.missing(*id))?);
            }
            let position = step.node.0;
            let results = match &mut exchange {
                Some(exchange) => self.run_node(position, operands, sizes, device, Some(&mut **exchange))?,
                None => self.run_node(position, operands, sizes, device, None)?,
            };
            let (step, node) = (&self.plan.steps[at], &self.graph.nodes[position]);
            for (id, result) in node.outputs.iter().zip(results) {
                values[id.0] = Some(result);
            }
            if let Some(output) = node.outputs.iter().find(|id| self.guarded.contains(id)) {
                self.check(*output, values, &mut seen)?;
            }
            for id in &step.frees {
                // The back end keeps memory for its own kernels only, which expect old values in it.
                if let Some(freed) = values[id.0].take().filter(|_| self.kernels) {
                    B::recycle(freed, &mut self.memory);
                }
            }
            if let (Some(started), Some(run)) = (started, self.profile.as_mut().and_then(|runs| runs.last_mut())) {
                run.record(step.node.0, started);
            }
        }
        Ok(())
    }

    /// Runs one node.
    pub(super) fn run_node(
        &mut self,
        position: usize,
        operands: Vec<Operand<B>>,
        sizes: &Sizes,
        device: &Device<B>,
        exchange: Option<&mut (dyn Exchange + '_)>,
    ) -> Result<Vec<Operand<B>>, RunError> {
        let node = &self.graph.nodes[position];
        let op = node.op.name();
        let types: Vec<&TensorType> = node.outputs.iter().map(|id| self.graph.ty(*id)).collect();
        if node.op.is_over_ranks() {
            return ranks::run::<B>(node, operands, (&types, sizes), device, exchange);
        }
        let kernel = if self.is_by_kernel(position) { B::kernel(&node.op) } else { None };
        let results = if let Some(kernel) = kernel {
            kernel(Call { operands, results: &types, sizes, device, memory: &mut self.memory })
        } else if let Some(lowering) = B::lowering(&node.op) {
            lowering(Lowered { operands, results: &types, sizes, device, largest: B::largest_buffer(device) })
        } else {
            return Err(RunError::Unsupported { op, node: position });
        };
        let results = results.map_err(|source| RunError::Kernel { op, node: position, source })?;
        if results.len() != node.outputs.len() {
            let source = KernelError::Results { expected: node.outputs.len(), got: results.len() };
            return Err(RunError::Kernel { op, node: position, source });
        }
        Ok(results)
    }

    /// Fails where a guarded output is NaN or infinite.
    fn check(&self, id: ValueId, values: &[Option<Operand<B>>], seen: &mut Vec<(String, f64)>) -> Result<(), RunError> {
        let Some(Operand::Float(tensor)) = &values[id.0] else { return Ok(()) };
        let value = read_floats::<B>(tensor.clone()).ok().and_then(|values| values.first().copied());
        let value = value.map_or(f64::NAN, f64::from);
        for (name, _) in self.graph.outputs.iter().filter(|(_, output)| *output == id) {
            seen.push((name.clone(), value));
        }
        match seen.last() {
            Some((output, value)) if !value.is_finite() => {
                Err(RunError::NotFinite { output: output.clone(), seen: std::mem::take(seen) })
            }
            _ => Ok(()),
        }
    }

    /// Puts the parameters of a run that has stopped back: new values where there are any, old ones elsewhere.
    fn give_back(&self, mut values: Vec<Option<Operand<B>>>, params: &mut Params<B>) {
        for (param, new) in &self.graph.updates {
            let operand = values[new.0].clone().or_else(|| values[param.0].take());
            if let (Some(operand), Some(name)) = (operand, self.graph.source_name(*param)) {
                params.put(name, operand);
            }
        }
    }

    fn finish(
        &self,
        values: Vec<Option<Operand<B>>>,
        params: &mut Params<B>,
        sizes: &Sizes,
    ) -> Result<Outputs<B>, RunError> {
        let mut outputs = Vec::with_capacity(self.graph.outputs.len());
        for (name, id) in &self.graph.outputs {
            let ty = self.graph.ty(*id);
            let dims = ty.shape.iter().map(|dim| dim.eval(sizes)).collect::<Option<Vec<_>>>();
            let shapeless = || format!("{ty} has no shape under the sizes of this run");
            let shape = dims.ok_or_else(|| RunError::Lost { name: name.clone(), why: shapeless() })?;
            outputs.push((name.clone(), shape, values[id.0].clone().ok_or_else(|| self.missing(*id))?));
        }
        // Two parameters may get one value; the handles still in `values` go when this returns.
        for (param, new) in &self.graph.updates {
            let operand = values[new.0].clone().ok_or_else(|| self.missing(*new))?;
            if let Some(name) = self.graph.source_name(*param) {
                params.put(name, operand);
            }
        }
        Ok(outputs)
    }

    fn missing(&self, id: ValueId) -> RunError {
        RunError::Missing { graph: self.graph.name.clone(), value: id.0 }
    }
}

pub(super) fn cannot_plan(graph: &Graph, reason: &dyn std::fmt::Display) -> RunError {
    RunError::Plan { graph: graph.name.clone(), reason: reason.to_string() }
}
