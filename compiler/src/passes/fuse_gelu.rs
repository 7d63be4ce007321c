//! Computes GELU and its gradient in one pass over memory, where the backward part needs both.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::{Op, Unary};
use std::collections::HashMap;

/// See the module's first line.
///
/// The gradient of a weight behind a GELU wants the GELU's result; where [`super::Recompute`] computes that again, the
/// gradient of the GELU reads the same operand soon after. Both evaluate erf of it.
pub struct FuseGelu;

impl Pass for FuseGelu {
    fn name(&self) -> &'static str {
        "fuse-gelu"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut gradients: HashMap<ValueId, Vec<&Node>> = HashMap::new();
        for node in graph.nodes.iter().filter(|node| node.op == Op::GeluGrad) {
            gradients.entry(node.inputs[0]).or_default().push(node);
        }
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            if rewriter.is_done(node) {
                continue;
            }
            let together = match (&node.op, gradients.get(&node.inputs.first().copied().unwrap_or(ValueId(usize::MAX))))
            {
                // Only where the other operand is there already: a GELU of the forward part is read long before.
                (Op::Unary(Unary::Gelu), Some(gradients)) => {
                    gradients.iter().find(|gradient| !rewriter.is_done(gradient) && rewriter.operands(gradient).is_ok())
                }
                _ => None,
            };
            let Some(gradient) = together else {
                rewriter.copy(node)?;
                continue;
            };
            let operands = rewriter.operands(gradient)?;
            let results = rewriter.new.push(Op::GeluWithGrad, &operands)?;
            let old = [node.outputs[0], gradient.outputs[0]];
            rewriter.replace(&old, &results, format!("%{} (gelu): with its gradient", old[0].0))?;
        }
        rewriter.finish()
    }
}
