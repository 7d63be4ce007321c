//! Fuses AdamW with the moving average of its result, so that a parameter goes through memory once.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::Op;

/// See the module's first line.
pub struct FuseAdamWEma;

impl Pass for FuseAdamWEma {
    fn name(&self) -> &'static str {
        "fuse-adamw-ema"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            if rewriter.is_done(node) {
                continue;
            }
            match average_of(graph, node) {
                Some((op, average)) => fuse(&mut rewriter, node, op, average)?,
                None => rewriter.copy(node)?,
            }
        }
        rewriter.finish()
    }
}

/// The fused operation and the node that averages what this AdamW computes.
fn average_of<'a>(graph: &'a Graph, node: &Node) -> Option<(Op, &'a Node)> {
    let Op::AdamW { beta1, beta2, eps } = node.op else { return None };
    let new = *node.outputs.first()?;
    // Target and rate must be there before the average's own place: sources always are.
    let is_source = |id: &ValueId| graph.source_name(*id).is_some();
    let average = graph.nodes.iter().find(|ema| {
        let [target, source, momentum] = ema.inputs.as_slice() else { return false };
        ema.op == Op::Ema && *source == new && is_source(target) && is_source(momentum)
    })?;
    Some((Op::AdamWEma { beta1, beta2, eps }, average))
}

fn fuse(rewriter: &mut Rewriter<'_>, node: &Node, op: Op, average: &Node) -> Result<(), GraphError> {
    let mut inputs = rewriter.operands(node)?;
    for (position, id) in average.inputs.iter().enumerate() {
        if position != 1 {
            inputs.push(rewriter.get(*id)?);
        }
    }
    let results = rewriter.new.push(op, &inputs)?;
    let outputs = [node.outputs.as_slice(), &average.outputs].concat();
    let name = node.inputs.first().and_then(|param| rewriter.old.source_name(*param)).unwrap_or("a value");
    rewriter.replace(&outputs, &results, format!("adamw of {name} and its average"))
}
