//! Fuses the distance of predicted tokens from normalised ones, and its gradient, with the normalisation and the gather.

use super::rewrite::{Rewriter, producer, use_counts};
use super::{Changed, DeadCode, Pass};
use crate::ir::{Graph, GraphError, Node, Scalar, ValueId};
use crate::ops::{Binary, Op, Unary};

/// See the module's first line.
///
/// For devices: neither normalised tokens nor gathered ones nor differences are in memory. Runs on a differentiated graph.
pub struct FuseTokenL1;

/// A difference of tokens from normalised ones at an index.
struct Difference {
    y: ValueId,
    x: ValueId,
    index: ValueId,
    eps: f64,
}

impl Pass for FuseTokenL1 {
    fn name(&self) -> &'static str {
        "fuse-token-l1"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let counts = use_counts(graph);
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            let Some((difference, scale)) = distance_of(graph, node, &counts) else {
                rewriter.copy(node)?;
                continue;
            };
            let Difference { y, x, index, eps } = difference;
            let operands = [rewriter.get(y)?, rewriter.get(x)?, rewriter.get(index)?];
            let op = match scale {
                None => Op::TokenL1 { eps },
                Some(scale) => Op::TokenL1Grad { eps, scale },
            };
            let why = format!("%{}: {} with what it is taken of", node.outputs[0].0, op.name());
            let result = rewriter.new.push1(op, &operands)?;
            rewriter.replace(&node.outputs, &[result], why)?;
        }
        let Some(changed) = rewriter.finish()? else { return Ok(None) };
        let graph = DeadCode.run(&changed.graph)?.map_or(changed.graph, |cleaned| cleaned.graph);
        Ok(Some(Changed { graph, changes: changed.changes }))
    }
}

/// The difference whose distance `node` computes, and the factor on its sign where it computes the gradient of that.
fn distance_of(graph: &Graph, node: &Node, counts: &[usize]) -> Option<(Difference, Option<Scalar>)> {
    let before = producer(graph, *node.inputs.first()?)?;
    let inner = *before.inputs.first()?;
    match (&node.op, &before.op) {
        (Op::Mean { axes }, Op::Unary(Unary::Abs)) if axes == &[2] => Some((difference(graph, inner)?, None)),
        // Of a sign that others read as well, the product with a number is taken as it is.
        (Op::MulScalar(scale), Op::Unary(Unary::Sign)) if counts.get(node.inputs[0].0) == Some(&1) => {
            Some((difference(graph, inner)?, Some(scale.clone())))
        }
        _ => None,
    }
}

fn difference(graph: &Graph, id: ValueId) -> Option<Difference> {
    let sub = producer(graph, id).filter(|node| node.op == Op::Binary(Binary::Sub))?;
    let [y, target] = *sub.inputs.as_slice() else { return None };
    let (gather, norm) = pair(graph, target)?;
    let ([x, index], [normalised], Op::LayerNorm { eps }) = (&*gather.inputs, &*norm.inputs, &norm.op) else {
        return None;
    };
    // Where the norm comes first, what it normalises.
    let x = if gather.outputs.contains(normalised) { *x } else { *normalised };
    (graph.ty(y) == graph.ty(target)).then_some(Difference { y, x, index: *index, eps: *eps })
}

/// The gather and the norm behind a value, in either order: each token is normalised by itself.
fn pair(graph: &Graph, id: ValueId) -> Option<(&Node, &Node)> {
    let last = producer(graph, id)?;
    let before = producer(graph, *last.inputs.first()?)?;
    match (&last.op, &before.op) {
        (Op::GatherTokens, Op::LayerNorm { .. }) => Some((last, before)),
        (Op::LayerNorm { .. }, Op::GatherTokens) => Some((before, last)),
        _ => None,
    }
}
