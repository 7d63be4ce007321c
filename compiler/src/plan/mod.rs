//! The plan: in which order the nodes run, what can be dropped after each, and what may be overwritten.
//!
//! An executor walks [`Plan::steps`]: it evaluates the node, overwriting the operands it may, and drops the values the
//! step frees. The plan does not depend on sizes; [`Plan::memory`] and [`Report`] evaluate it under some.

mod check;
mod estimate;
mod memory;
mod report;
mod schedule;
mod text;

pub use estimate::{Accelerator, Estimate, Share};
pub use memory::{Memory, bytes_in_f32, largest_value};
pub use report::{NodeCost, OpTotals, Report};

use crate::ir::{Def, Graph, Node, NodeId, ValueId};
use crate::ops::Op;
use crate::verify::{VerifyError, verify};
use std::collections::HashSet;

/// A graph that cannot be planned, or sizes it cannot be measured under.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The graph is wrong.
    #[error(transparent)]
    Graph(#[from] VerifyError),
    /// A shape has no size under the given sizes.
    #[error("`{0}` has no value, or too large a one, under the given sizes")]
    Size(String),
    /// A plan that does not run its graph: see [`Plan::check`].
    #[error("step {step} of the plan: {why}")]
    Unsound {
        /// Position of the step.
        step: usize,
        /// What does not hold.
        why: String,
    },
}

/// One node of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The node to run.
    pub node: NodeId,
    /// `(operand, result)` positions that may share memory: nothing reads the operand after this step.
    pub in_place: Vec<(usize, usize)>,
    /// Values nothing reads after this step: inputs and results of nodes, never parameters, outputs or updates.
    pub frees: Vec<ValueId>,
}

/// Steps in the order they run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The steps; every node of the graph is in one.
    pub steps: Vec<Step>,
}

impl Plan {
    /// Plans a graph. Optimiser nodes run as soon as their gradient is there and nothing else reads the old parameter;
    /// constants run just before their first use; everything else keeps the graph's order.
    ///
    /// # Errors
    /// [`PlanError::Graph`] when the graph does not verify.
    pub fn new(graph: &Graph) -> Result<Self, PlanError> {
        verify(graph)?;
        let order = schedule::order(graph);
        let mut liveness = Liveness::new(graph, &order);
        let steps = order.iter().enumerate().map(|(time, position)| liveness.step(time, *position)).collect();
        Ok(Self { steps })
    }
}

/// Follows which values and which memory are still read while the plan is walked.
struct Liveness<'a> {
    graph: &'a Graph,
    /// Time of the last read; `None` for what is never read.
    last_read: Vec<Option<usize>>,
    /// Outputs and updates.
    is_root: Vec<bool>,
    /// Reshapes share memory: the value that stands for it.
    storage: Vec<ValueId>,
    /// Live values in each memory.
    sharers: Vec<usize>,
    /// `(parameter, value)`: what may be written over it.
    successors: HashSet<(ValueId, ValueId)>,
}

impl<'a> Liveness<'a> {
    fn new(graph: &'a Graph, order: &[usize]) -> Self {
        let count = graph.values.len();
        let mut last_read = vec![None; count];
        for (time, position) in order.iter().enumerate() {
            for id in &graph.nodes[*position].inputs {
                last_read[id.0] = Some(time);
            }
        }
        let mut is_root = vec![false; count];
        for id in graph.roots() {
            is_root[id.0] = true;
        }
        let mut sharers = vec![0; count];
        for id in graph.inputs.iter().chain(&graph.params) {
            sharers[id.0] = 1;
        }
        let storage = (0..count).map(ValueId).collect();
        Self { graph, last_read, is_root, storage, sharers, successors: successors(graph) }
    }

    fn step(&mut self, time: usize, position: usize) -> Step {
        let node = &self.graph.nodes[position];
        let mut in_place = Vec::new();
        for (operand, result) in overwritable(node) {
            let taken = in_place.iter().any(|(_, other)| *other == result);
            if !taken && self.may_overwrite(time, node, operand, result) {
                in_place.push((operand, result));
            }
        }
        for id in &node.outputs {
            if let (Op::Reshape { .. }, Some(x)) = (&node.op, node.inputs.first()) {
                self.storage[id.0] = self.storage[x.0];
            }
            self.sharers[self.storage[id.0].0] += 1;
        }
        let mut frees: Vec<ValueId> = node.inputs.iter().chain(&node.outputs).copied().collect();
        frees.sort_unstable();
        frees.dedup();
        frees.retain(|id| self.dies(time, *id) && !matches!(self.graph.value(*id).def, Def::Param(_)));
        for id in &frees {
            self.sharers[self.storage[id.0].0] -= 1;
        }
        Step { node: NodeId(position), in_place, frees }
    }

    /// Nothing reads `id` after `time`.
    fn dies(&self, time: usize, id: ValueId) -> bool {
        !self.is_root[id.0] && self.last_read[id.0].is_none_or(|last| last <= time)
    }

    fn may_overwrite(&self, time: usize, node: &Node, operand: usize, result: usize) -> bool {
        let (Some(x), Some(y)) = (node.inputs.get(operand), node.outputs.get(result)) else { return false };
        let graph = self.graph;
        let read_once = node.inputs.iter().filter(|id| *id == x).count() == 1;
        let storage = self.storage[x.0];
        let owned = match &graph.value(storage).def {
            Def::Node { .. } => true,
            // The caller's memory.
            Def::Input(_) => false,
            // A parameter only by its own new value.
            Def::Param(_) => self.successors.contains(&(storage, *y)),
        };
        let alone = self.sharers[storage.0] == 1;
        owned && alone && read_once && self.dies(time, *x) && graph.ty(*x) == graph.ty(*y)
    }
}

/// Parameters and the values that may be written over them: the new value, and where that is a sum over ranks, this rank's
/// part of it and what is on its way.
fn successors(graph: &Graph) -> HashSet<(ValueId, ValueId)> {
    let mut found = HashSet::new();
    for (param, new) in &graph.updates {
        let mut value = *new;
        while found.insert((*param, value)) {
            let Def::Node { node, output } = graph.value(value).def else { break };
            let Some(node) = graph.nodes.get(node.0).filter(|node| node.op.is_over_ranks()) else { break };
            let Some(summand) = node.inputs.get(output) else { break };
            value = *summand;
        }
    }
    found
}

/// `(operand, result)` pairs where a kernel can write a result over an operand, element by element.
fn overwritable(node: &Node) -> Vec<(usize, usize)> {
    match &node.op {
        Op::Unary(_) | Op::AddScalar(_) | Op::MulScalar(_) | Op::PowScalar(_) | Op::Softmax | Op::LogSoftmax => {
            vec![(0, 0)]
        }
        Op::Ema | Op::Dropout { .. } | Op::BiasGelu | Op::AddWidened => vec![(0, 0)],
        Op::Binary(_) | Op::GeluGrad | Op::SoftmaxGrad => vec![(0, 0), (1, 0)],
        Op::GeluWithGrad => vec![(0, 0), (1, 1)],
        Op::MatMul { .. } => vec![(2, 0)],
        Op::AdamW { .. } => vec![(0, 0), (2, 1), (3, 2)],
        Op::AdamWEma { .. } => vec![(0, 0), (2, 1), (3, 2), (9, 3)],
        Op::AdamWAll { average, .. } => {
            // After the rates, p, g, m, v and perhaps the average of each parameter.
            let (rates, each, kept): (_, _, &[usize]) =
                if *average { (6, 5, &[0, 2, 3, 4]) } else { (5, 4, &[0, 2, 3]) };
            let firsts = (rates..node.inputs.len()).step_by(each);
            firsts.flat_map(|first| kept.iter().map(move |at| first + at)).enumerate().map(|(at, x)| (x, at)).collect()
        }
        Op::BiasGeluGrad { result: false } => vec![(0, 0), (2, 0)],
        Op::BiasGeluGrad { result: true } => vec![(0, 0), (2, 1)],
        Op::AllReduce | Op::AllReduceStart | Op::AllReduceDone => (0..node.inputs.len()).map(|at| (at, at)).collect(),
        Op::Cast(_)
        | Op::NarrowLayerNorm { .. }
        | Op::Sum { .. }
        | Op::Mean { .. }
        | Op::ReduceMax { .. }
        | Op::SquaredNorm
        | Op::Full { .. }
        | Op::Iota { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::GatherTokens
        | Op::ScatterTokens { .. }
        | Op::TokenL1 { .. }
        | Op::TokenL1Grad { .. }
        | Op::Tubelets { .. }
        | Op::PatchEmbed { .. }
        | Op::RoiAlign { .. }
        | Op::RoiAlignGrad { .. }
        | Op::Linear
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. }
        | Op::Attention { .. }
        | Op::AttentionGrad { .. }
        | Op::Rotate { .. }
        | Op::PackedAttention { .. }
        | Op::PackedAttentionGrad { .. } => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
