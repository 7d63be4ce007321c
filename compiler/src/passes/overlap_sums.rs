//! Splits sums over ranks in two: begun where they were made, ended where they are read, or at the graph's end.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, ValueId};
use crate::ops::Op;
use std::collections::HashSet;

/// See the module's first line. What stands between is computed while the sums are on their way. The sums are the same bits.
pub struct OverlapSums;

/// A sum on its way: its results in the old graph, and what stands for them in the new one until it is ended.
struct Begun {
    results: Vec<ValueId>,
    flying: Vec<ValueId>,
}

impl Pass for OverlapSums {
    fn name(&self) -> &'static str {
        "overlap-sums"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut rewriter = Rewriter::start(graph)?;
        let mut begun: Vec<Begun> = Vec::new();
        for node in &graph.nodes {
            // In the order in which they were begun.
            let read: HashSet<ValueId> = node.inputs.iter().copied().collect();
            let needed = begun.iter().rposition(|sum| sum.results.iter().any(|id| read.contains(id)));
            for sum in begun.drain(..needed.map_or(0, |last| last + 1)) {
                end(&mut rewriter, &sum)?;
            }
            if node.op == Op::AllReduce {
                let operands = rewriter.operands(node)?;
                let flying = rewriter.new.push(Op::AllReduceStart, &operands)?;
                begun.push(Begun { results: node.outputs.clone(), flying });
            } else {
                rewriter.copy(node)?;
            }
        }
        for sum in &begun {
            end(&mut rewriter, sum)?;
        }
        rewriter.finish()
    }
}

fn end(rewriter: &mut Rewriter<'_>, sum: &Begun) -> Result<(), GraphError> {
    let sums = rewriter.new.push(Op::AllReduceDone, &sum.flying)?;
    let first = sum.results.first().map_or(0, |id| id.0);
    rewriter.replace(
        &sum.results,
        &sums,
        format!("%{first} (all_reduce): begun where it stood, ended where it is read"),
    )
}
