//! Drops nodes whose results reach no output and no update; inputs and parameters stay, they are the graph's interface.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError};

/// See the module's first line.
pub struct DeadCode;

impl Pass for DeadCode {
    fn name(&self) -> &'static str {
        "dead-code"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut live = vec![false; graph.values.len()];
        for id in graph.roots() {
            *live.get_mut(id.0).ok_or(GraphError::UnknownValue(id.0))? = true;
        }
        let mut kept = vec![false; graph.nodes.len()];
        for (position, node) in graph.nodes.iter().enumerate().rev() {
            kept[position] = node.outputs.iter().any(|id| live.get(id.0) == Some(&true));
            if kept[position] {
                for id in &node.inputs {
                    *live.get_mut(id.0).ok_or(GraphError::UnknownValue(id.0))? = true;
                }
            }
        }
        let mut rewriter = Rewriter::start(graph)?;
        for (node, kept) in graph.nodes.iter().zip(kept) {
            if kept {
                rewriter.copy(node)?;
            } else {
                let value = node.outputs.first().map_or(0, |id| id.0);
                rewriter.note(format!("%{value} ({}) is never read", node.op.name()));
            }
        }
        rewriter.finish()
    }
}
