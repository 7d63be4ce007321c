//! Recomputes cheap forward values in the backward pass instead of keeping them (activation checkpointing).

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Def, Graph, GraphError, Node, ValueId};
use crate::ops::{Op, Unary};
use std::collections::BTreeMap;

/// Which values are recomputed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recomputed {
    /// GELU, layer norms and casts: a few operations per element.
    Elementwise,
    /// These, linear layers and attention: about a third more arithmetic. Sums (the residual stream) are kept.
    Blocks,
}

/// See the module's first line.
///
/// The forward part consists of the nodes that the named output needs. A value computed there and read by a node outside it
/// is recomputed before the first such reader; its operands are then kept, or recomputed in their turn.
pub struct Recompute {
    /// The output that the forward part computes: the loss.
    pub output: String,
    /// Which values are recomputed.
    pub what: Recomputed,
}

impl Pass for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let Some(loss) = graph.find_output(&self.output) else { return Ok(None) };
        let forward = ancestors(graph, loss);
        let mut rewriter = Rewriter::start(graph)?;
        let mut again = Again { graph, forward: &forward, what: self.what, made: BTreeMap::new() };
        for (position, node) in graph.nodes.iter().enumerate() {
            if forward[position] {
                rewriter.copy(node)?;
                continue;
            }
            let mut operands = Vec::with_capacity(node.inputs.len());
            for id in &node.inputs {
                operands.push(again.operand(&mut rewriter, *id)?);
            }
            rewriter.copy_with(node, &operands)?;
        }
        for id in again.made.keys() {
            let op = again.producer(*id).map_or("", |node| node.op.name());
            rewriter.note(format!("%{} ({op}) is recomputed", id.0));
        }
        rewriter.finish()
    }
}

/// For every node, whether `root` needs it.
fn ancestors(graph: &Graph, root: ValueId) -> Vec<bool> {
    let mut needed = vec![false; graph.nodes.len()];
    let mut pending = vec![root];
    while let Some(id) = pending.pop() {
        if let Def::Node { node, .. } = graph.value(id).def
            && !std::mem::replace(&mut needed[node.0], true)
        {
            pending.extend(&graph.nodes[node.0].inputs);
        }
    }
    needed
}

struct Again<'a> {
    graph: &'a Graph,
    forward: &'a [bool],
    what: Recomputed,
    /// Old values and their recomputed counterparts.
    made: BTreeMap<ValueId, ValueId>,
}

impl Again<'_> {
    fn producer(&self, id: ValueId) -> Option<&Node> {
        let Def::Node { node, .. } = self.graph.value(id).def else { return None };
        self.forward[node.0].then(|| &self.graph.nodes[node.0])
    }

    /// The value a backward node reads for `id`: a recomputed one, or the old one.
    fn operand(&mut self, rewriter: &mut Rewriter<'_>, id: ValueId) -> Result<ValueId, GraphError> {
        if let Some(made) = self.made.get(&id) {
            return Ok(*made);
        }
        let Some(node) = self.producer(id).filter(|node| self.worthwhile(node)).cloned() else {
            return rewriter.get(id);
        };
        let mut operands = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            operands.push(self.operand(rewriter, *id)?);
        }
        let result = rewriter.new.push1(node.op.clone(), &operands)?;
        if class(&node.op) != Class::View {
            self.made.insert(id, result);
        }
        Ok(result)
    }

    fn worthwhile(&self, node: &Node) -> bool {
        let worthwhile = match class(&node.op) {
            Class::Cheap => true,
            Class::Block => self.what == Recomputed::Blocks,
            // Views cost nothing; they are recomputed where their operand is.
            Class::View => {
                return node.inputs.first().and_then(|id| self.producer(*id)).is_some_and(|node| self.worthwhile(node));
            }
            Class::Kept => false,
        };
        worthwhile && node.outputs.len() == 1
    }
}

/// What an operation costs to recompute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Always worth it.
    Cheap,
    /// Worth it where memory is short.
    Block,
    /// Moves nothing.
    View,
    /// Not recomputed.
    Kept,
}

fn class(op: &Op) -> Class {
    match op {
        Op::Unary(Unary::Gelu) | Op::LayerNorm { .. } | Op::Cast(_) => Class::Cheap,
        Op::Linear | Op::Attention { .. } | Op::PackedAttention { .. } => Class::Block,
        Op::Reshape { .. } | Op::Permute { .. } | Op::Slice { .. } => Class::View,
        Op::Unary(_)
        | Op::Binary(_)
        | Op::AddScalar(_)
        | Op::MulScalar(_)
        | Op::PowScalar(_)
        | Op::GeluGrad
        | Op::GeluWithGrad
        | Op::BiasGelu
        | Op::BiasGeluGrad { .. }
        | Op::NarrowLayerNorm { .. }
        | Op::AddWidened
        | Op::TokenL1 { .. }
        | Op::TokenL1Grad { .. }
        | Op::Sum { .. }
        | Op::Mean { .. }
        | Op::ReduceMax { .. }
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::LogSoftmax
        | Op::SquaredNorm
        | Op::Full { .. }
        | Op::Iota { .. }
        | Op::Rotate { .. }
        | Op::Broadcast { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::GatherTokens
        | Op::ScatterTokens { .. }
        | Op::Tubelets { .. }
        | Op::PatchEmbed { .. }
        | Op::Dropout { .. }
        | Op::RoiAlign { .. }
        | Op::RoiAlignGrad { .. }
        | Op::MatMul { .. }
        | Op::LayerNormGrad { .. }
        | Op::AttentionGrad { .. }
        | Op::PackedAttentionGrad { .. }
        | Op::AdamW { .. }
        | Op::Ema
        | Op::AdamWEma { .. }
        | Op::AdamWAll { .. }
        | Op::AllReduce
        | Op::AllReduceStart
        | Op::AllReduceDone => Class::Kept,
    }
}
