//! How much memory a plan takes.

use super::{Plan, PlanError};
use crate::ir::{Graph, NodeId, Sizes, ValueId};
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
        let count = graph.values.len();
        let owner = (0..count).map(ValueId).collect();
        let mut held = Held { graph, sizes, owner, bytes: vec![(0, 0); count] };
        let mut memory = Memory::default();
        for id in &graph.params {
            memory.parameters += held.allocate(*id)?;
        }
        let mut now = memory.parameters;
        for id in &graph.inputs {
            now += held.allocate(*id)?;
        }
        memory.peak = now;
        for step in &self.steps {
            let Some(node) = graph.nodes.get(step.node.0) else { continue };
            for (result, id) in node.outputs.iter().enumerate() {
                let reused = step.in_place.iter().find(|(_, to)| *to == result).map(|(operand, _)| *operand);
                let reused = if matches!(node.op, Op::Reshape { .. }) { Some(0) } else { reused };
                match reused.and_then(|operand| node.inputs.get(operand)) {
                    Some(operand) => held.share(*id, *operand),
                    None => now += held.allocate(*id)?,
                }
            }
            if now > memory.peak {
                memory.peak = now;
                memory.peak_node = Some(step.node);
            }
            for id in &step.frees {
                now -= held.release(*id).min(now);
            }
        }
        Ok(memory)
    }
}

struct Held<'a> {
    graph: &'a Graph,
    sizes: &'a Sizes,
    /// The value whose memory a value lies in.
    owner: Vec<ValueId>,
    /// For each owner: bytes, and values that lie there.
    bytes: Vec<(u64, usize)>,
}

impl Held<'_> {
    fn allocate(&mut self, id: ValueId) -> Result<u64, PlanError> {
        let ty = self.graph.ty(id);
        let size = bytes(ty).eval(self.sizes).ok_or_else(|| PlanError::Size(ty.to_string()))? as u64;
        self.bytes[id.0] = (size, 1);
        Ok(size)
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
