//! Sums the sums of gradients over ranks, in buckets, each where the backward part has finished its last member.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::accumulate::SUM;
use crate::ir::{Def, Graph, GraphError, ValueId};
use crate::ops::Op;
use std::collections::BTreeMap;

/// See the module's first line. For the half of a step that adds gradients up ([`append_sums`](crate::accumulate::append_sums)):
/// the parameters `grad/NAME` get the sums over all ranks. Nothing but the update reads those; what else reads a rank's own sum
/// keeps reading it.
///
/// It runs after every other pass, when the order of the gradients is known. One rank computes the same with it and without.
pub struct ReduceSums {
    /// Elements that travel together: few enough to be copied beside the model and to leave early, many enough that a call
    /// does not count. A larger gradient travels alone.
    pub limit: usize,
}

/// Sums that travel together, and the node after which all are there; none where that is before the first node.
struct Bucket {
    members: Vec<ValueId>,
    elements: usize,
    after: Option<usize>,
}

impl Pass for ReduceSums {
    fn name(&self) -> &'static str {
        "reduce-sums"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let buckets = self.buckets(graph);
        let mut rewriter = Rewriter::start(graph)?;
        let mut summed: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut reduce = |rewriter: &mut Rewriter<'_>, after: Option<usize>| -> Result<(), GraphError> {
            for bucket in buckets.iter().filter(|bucket| bucket.after == after) {
                let own = bucket.members.iter().map(|id| rewriter.get(*id)).collect::<Result<Vec<_>, _>>()?;
                let sums = rewriter.new.push(Op::AllReduce, &own)?;
                summed.extend(bucket.members.iter().copied().zip(sums));
                rewriter.note(format!("{} sums, {} values, are reduced together", own.len(), bucket.elements));
            }
            Ok(())
        };
        reduce(&mut rewriter, None)?;
        for (position, node) in graph.nodes.iter().enumerate() {
            rewriter.copy(node)?;
            reduce(&mut rewriter, Some(position))?;
        }
        let Some(mut changed) = rewriter.finish()? else { return Ok(None) };
        for ((param, old), (_, new)) in graph.updates.iter().zip(&mut changed.graph.updates) {
            if let Some(sum) = summed.get(old).filter(|_| is_sum(graph, *param)) {
                *new = *sum;
            }
        }
        Ok(Some(changed))
    }
}

impl ReduceSums {
    /// The sums in the order in which they are finished, cut into buckets.
    fn buckets(&self, graph: &Graph) -> Vec<Bucket> {
        let position = |id: ValueId| match graph.value(id).def {
            Def::Node { node, .. } => Some(node.0),
            Def::Input(_) | Def::Param(_) => None,
        };
        let reduced = |id: ValueId| position(id).is_some_and(|node| graph.nodes[node].op.is_over_ranks());
        let sums = graph.updates.iter().filter(|(param, new)| is_sum(graph, *param) && !reduced(*new));
        let mut finished: Vec<(Option<usize>, ValueId)> = sums.map(|(_, new)| (position(*new), *new)).collect();
        finished.sort_unstable();
        finished.dedup();
        let mut buckets: Vec<Bucket> = Vec::new();
        for (after, id) in finished {
            // Gradients are as large as their parameters, which depend on no symbol.
            let elements = graph.ty(id).elements().as_const().map_or(self.limit, |n| n.unsigned_abs() as usize);
            match buckets.last_mut() {
                Some(last) if last.elements.saturating_add(elements) <= self.limit => {
                    last.members.push(id);
                    (last.elements, last.after) = (last.elements + elements, after);
                }
                _ => buckets.push(Bucket { members: vec![id], elements, after }),
            }
        }
        buckets
    }
}

fn is_sum(graph: &Graph, param: ValueId) -> bool {
    graph.source_name(param).is_some_and(|name| name.starts_with(SUM))
}
