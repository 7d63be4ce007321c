//! Puts the steps of all parameters that have the same rates into one operation.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::Op;
use std::collections::HashSet;

/// See the module's first line.
///
/// For devices, to which a launch for each of hundreds of small parameters costs more than the parameters do. All gradients are
/// there before the first step anyway where they are clipped by their norm. Runs on a whole step, after
/// [`super::FuseAdamWEma`].
pub struct GroupAdamW;

/// Constants, whether there is an average, and the rates.
type Key = ([f64; 3], bool, Vec<ValueId>);

impl Pass for GroupAdamW {
    fn name(&self) -> &'static str {
        "group-adamw"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let read: HashSet<ValueId> = graph.nodes.iter().flat_map(|node| &node.inputs).copied().collect();
        let mut groups: Vec<(Key, Vec<usize>)> = Vec::new();
        for (position, node) in graph.nodes.iter().enumerate() {
            // What reads a step's result comes before the last step of the group.
            let Some(key) = key(node).filter(|_| node.outputs.iter().all(|id| !read.contains(id))) else { continue };
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, members)) => members.push(position),
                None => groups.push((key, vec![position])),
            }
        }
        groups.retain(|(_, members)| members.len() > 1);
        let grouped: HashSet<usize> = groups.iter().flat_map(|(_, members)| members).copied().collect();
        let mut rewriter = Rewriter::start(graph)?;
        for (position, node) in graph.nodes.iter().enumerate() {
            if let Some((key, members)) = groups.iter().find(|(_, members)| members.last() == Some(&position)) {
                fuse(&mut rewriter, key, members)?;
            } else if !grouped.contains(&position) {
                rewriter.copy(node)?;
            }
        }
        rewriter.finish()
    }
}

fn key(node: &Node) -> Option<Key> {
    match (&node.op, &*node.inputs) {
        (Op::AdamW { beta1, beta2, eps }, [_, _, _, _, rates @ ..]) => {
            Some(([*beta1, *beta2, *eps], false, rates.to_vec()))
        }
        (Op::AdamWEma { beta1, beta2, eps }, [_, _, _, _, rates @ .., _, momentum]) => {
            Some(([*beta1, *beta2, *eps], true, [rates, &[*momentum]].concat()))
        }
        _ => None,
    }
}

fn fuse(rewriter: &mut Rewriter<'_>, (constants, average, rates): &Key, members: &[usize]) -> Result<(), GraphError> {
    let mut inputs = rates.iter().map(|id| rewriter.get(*id)).collect::<Result<Vec<_>, _>>()?;
    let mut outputs = Vec::new();
    for position in members {
        let node = rewriter.old.nodes.get(*position).ok_or_else(|| GraphError::Other("no such node".to_owned()))?;
        let target = node.inputs.get(9).filter(|_| *average);
        for id in node.inputs.iter().take(4).chain(target) {
            inputs.push(rewriter.get(*id)?);
        }
        outputs.extend(node.outputs.iter().copied());
    }
    let [beta1, beta2, eps] = *constants;
    let op = Op::AdamWAll { beta1, beta2, eps, average: *average };
    let why = format!("the steps of {} parameters ({})", members.len(), op.name());
    let results = rewriter.new.push(op, &inputs)?;
    rewriter.replace(&outputs, &results, why)
}
