//! How much memory a plan takes.

use super::{Plan, PlanError, Step};
use crate::ir::{Dim, Graph, NodeId, Sizes, ValueId};
use crate::ops::{Op, bytes};

/// Bytes a run of the plan needs, without a kernel's own scratch memory and an allocator's losses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Parameters, held all the time.
    pub parameters: u64,
    /// The most that is held at once, parameters and inputs included.
    pub peak: u64,
    /// The step at which that is.
    pub peak_node: Option<NodeId>,
}

impl Plan {
    /// Memory under these sizes: results live from their step to the one that frees them, reshapes share their operand's
    /// memory, and what may be overwritten is.
    ///
    /// # Errors
    /// [`PlanError::Size`] when a symbol has no size.
    pub fn memory(&self, graph: &Graph, sizes: &Sizes) -> Result<Memory, PlanError> {
        let mut held = Held::new(graph, sizes)?;
        let mut memory = Memory { parameters: held.parameters, peak: held.now, peak_node: None };
        for step in &self.steps {
            let during = held.step(step)?;
            if during > memory.peak {
                (memory.peak, memory.peak_node) = (during, Some(step.node));
            }
        }
        Ok(memory)
    }

    /// Bytes held while each step runs, in the plan's order, parameters and inputs included.
    ///
    /// # Errors
    /// [`PlanError::Size`] when a symbol has no size.
    pub fn live(&self, graph: &Graph, sizes: &Sizes) -> Result<Vec<u64>, PlanError> {
        let mut held = Held::new(graph, sizes)?;
        self.steps.iter().map(|step| held.step(step)).collect()
    }
}

/// Bytes of a value that kernels compute in f32, as they do where the library does not compute in 16 bits; none where a size is
/// not known, or too large.
pub fn bytes_in_f32(dims: &[Dim], sizes: &Sizes) -> Option<u64> {
    dims.iter().try_fold(4u64, |n, dim| n.checked_mul(u64::try_from(dim.eval(sizes)?).ok()?))
}

/// [`bytes_in_f32`] of the largest value that a node of the graph has as its result; values whose size is not known are left out.
pub fn largest_value(graph: &Graph, sizes: &Sizes) -> u64 {
    let results = graph.nodes.iter().flat_map(|node| &node.outputs);
    results.filter_map(|id| bytes_in_f32(&graph.ty(*id).shape, sizes)).max().unwrap_or(0)
}

struct Held<'a> {
    graph: &'a Graph,
    sizes: &'a Sizes,
    /// The value whose memory a value lies in.
    owner: Vec<ValueId>,
    /// For each owner: bytes, and values that lie there.
    bytes: Vec<(u64, usize)>,
    parameters: u64,
    now: u64,
}

impl<'a> Held<'a> {
    /// Parameters and inputs are there.
    fn new(graph: &'a Graph, sizes: &'a Sizes) -> Result<Self, PlanError> {
        let count = graph.values.len();
        let owner = (0..count).map(ValueId).collect();
        let mut held = Self { graph, sizes, owner, bytes: vec![(0, 0); count], parameters: 0, now: 0 };
        graph.params.iter().try_for_each(|id| held.allocate(*id))?;
        held.parameters = held.now;
        graph.inputs.iter().try_for_each(|id| held.allocate(*id))?;
        Ok(held)
    }

    /// Runs a step; bytes held while it runs, before it frees anything.
    fn step(&mut self, step: &Step) -> Result<u64, PlanError> {
        let Some(node) = self.graph.nodes.get(step.node.0) else { return Ok(self.now) };
        for (result, id) in node.outputs.iter().enumerate() {
            let reused = step.in_place.iter().find(|(_, to)| *to == result).map(|(operand, _)| *operand);
            let reused = if matches!(node.op, Op::Reshape { .. }) { Some(0) } else { reused };
            match reused.and_then(|operand| node.inputs.get(operand)) {
                Some(operand) => self.share(*id, *operand),
                None => self.allocate(*id)?,
            }
        }
        let during = self.now;
        for id in &step.frees {
            self.now = self.now.saturating_sub(self.release(*id));
        }
        Ok(during)
    }

    fn allocate(&mut self, id: ValueId) -> Result<(), PlanError> {
        let ty = self.graph.ty(id);
        let size = bytes(ty).eval(self.sizes).ok_or_else(|| PlanError::Size(ty.to_string()))? as u64;
        self.bytes[id.0] = (size, 1);
        self.now = self.now.checked_add(size).ok_or_else(|| PlanError::Size(ty.to_string()))?;
        Ok(())
    }

    fn share(&mut self, id: ValueId, with: ValueId) {
        self.owner[id.0] = self.owner[with.0];
        self.bytes[self.owner[id.0].0].1 += 1;
    }

    /// Bytes that became free.
    fn release(&mut self, id: ValueId) -> u64 {
        let (size, sharers) = &mut self.bytes[self.owner[id.0].0];
        *sharers = sharers.saturating_sub(1);
        if *sharers == 0 { *size } else { 0 }
    }
}
