//! Computes equal operations on equal operands once.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::{Binary, Op};
use std::collections::HashMap;

/// See the module's first line.
pub struct CommonSubexpressions;

/// The same for scalars alone: parts of an optimiser's operations, where larger values may be computed twice on purpose.
pub struct CommonScalars;

impl Pass for CommonScalars {
    fn name(&self) -> &'static str {
        "common-scalars"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        merge(graph, |node| node.outputs.iter().all(|id| graph.ty(*id).rank() == 0))
    }
}

impl Pass for CommonSubexpressions {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        merge(graph, |_| true)
    }
}

fn merge(graph: &Graph, candidate: impl Fn(&Node) -> bool) -> Result<Option<Changed>, GraphError> {
    let mut rewriter = Rewriter::start(graph)?;
    let mut known: HashMap<(String, Vec<ValueId>), Vec<ValueId>> = HashMap::new();
    for node in &graph.nodes {
        if !candidate(node) {
            rewriter.copy(node)?;
            continue;
        }
        let mut operands = rewriter.operands(node)?;
        if matches!(node.op, Op::Binary(Binary::Add | Binary::Mul | Binary::Min | Binary::Max)) {
            operands.sort_unstable();
        }
        // Attributes hold floats, which have no hash; their text tells even 0.0 from −0.0.
        let key = (format!("{:?}", node.op), operands);
        match known.get(&key) {
            Some(results) => {
                let first = results.first().map_or(0, |id| id.0);
                let change = format!("{} computed again is %{first}", node.op.name());
                rewriter.replace(&node.outputs, results, change)?;
            }
            None => {
                rewriter.copy(node)?;
                let results = node.outputs.iter().map(|id| rewriter.get(*id)).collect::<Result<_, _>>()?;
                known.insert(key, results);
            }
        }
    }
    rewriter.finish()
}
