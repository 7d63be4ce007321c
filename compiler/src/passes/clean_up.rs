//! Removes operations that do nothing, and merges reshapes, permutations, concatenations and their slices.

use super::rewrite::{Replacement, producer, rewrite_locally};
use super::{Changed, Pass};
use crate::ir::{Dim, Graph, GraphError, ValueId};
use crate::ops::Op;

/// See the module's first line.
pub struct CleanUp;

impl Pass for CleanUp {
    fn name(&self) -> &'static str {
        "clean-up"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        rewrite_locally(graph, |new, _, op, operands| rule(new, op, operands))
    }
}

fn rule(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Option<Replacement>, GraphError> {
    let Some(x) = inputs.first().copied() else { return Ok(None) };
    if does_nothing(graph, op, inputs) {
        return Ok(Replacement::one(x, "does nothing"));
    }
    if let Op::Concat { axis } = op {
        return flat_concat(graph, *axis, inputs);
    }
    let Some(before) = producer(graph, x).cloned() else { return Ok(None) };
    let Some(source) = before.inputs.first().copied() else { return Ok(None) };
    match (op, &before.op) {
        (Op::Reshape { shape }, Op::Reshape { .. }) => {
            let y = graph.reshape(source, shape)?;
            Ok(Replacement::one(y, "a reshape of a reshape"))
        }
        (Op::Permute { axes }, Op::Permute { axes: first }) => {
            let both: Vec<usize> = axes.iter().filter_map(|axis| first.get(*axis).copied()).collect();
            if both.iter().copied().eq(0..both.len()) {
                return Ok(Replacement::one(source, "two permutations that undo each other"));
            }
            let y = graph.permute(source, &both)?;
            Ok(Replacement::one(y, "a permutation of a permutation"))
        }
        (Op::Slice { axis, start, end }, Op::Concat { axis: joined }) if axis == joined => {
            let part = part_between(graph, *axis, &before.inputs, start, end);
            Ok(part.and_then(|part| Replacement::one(part, "a slice that is one part of a concatenation")))
        }
        _ => Ok(None),
    }
}

fn does_nothing(graph: &Graph, op: &Op, inputs: &[ValueId]) -> bool {
    let Some(ty) = inputs.first().map(|x| graph.ty(*x)) else { return false };
    match op {
        Op::Reshape { shape } | Op::Broadcast { shape } => *shape == ty.shape,
        Op::Permute { axes } => axes.iter().copied().eq(0..axes.len()),
        Op::Slice { axis, start, end } => *start == Dim::default() && ty.shape.get(*axis) == Some(end),
        Op::Pad { before, after, .. } => *before == Dim::default() && *after == Dim::default(),
        Op::Cast(dtype) => *dtype == ty.dtype,
        Op::Concat { .. } => inputs.len() == 1,
        Op::MulScalar(c) => c.value == 1.0 && c.over.is_one(),
        Op::AddScalar(c) => c.value == 0.0 && c.over.is_one(),
        Op::PowScalar(c) => *c == 1.0,
        Op::Sum { axes } | Op::Mean { axes } | Op::ReduceMax { axes } => {
            axes.iter().all(|axis| ty.shape.get(*axis).is_some_and(Dim::is_one))
        }
        _ => false,
    }
}

/// A concatenation whose parts are concatenations along the same axis, as one.
fn flat_concat(graph: &mut Graph, axis: usize, inputs: &[ValueId]) -> Result<Option<Replacement>, GraphError> {
    let parts = |id: &ValueId| match producer(graph, *id) {
        Some(node) if node.op == (Op::Concat { axis }) => node.inputs.clone(),
        _ => vec![*id],
    };
    let flat: Vec<ValueId> = inputs.iter().flat_map(parts).collect();
    if flat.len() == inputs.len() {
        return Ok(None);
    }
    let y = graph.push1(Op::Concat { axis }, &flat)?;
    Ok(Replacement::one(y, "a concatenation of a concatenation"))
}

/// The part of a concatenation that lies exactly between two indices.
fn part_between(graph: &Graph, axis: usize, parts: &[ValueId], start: &Dim, end: &Dim) -> Option<ValueId> {
    let mut at = Dim::default();
    for part in parts {
        let next = &at + graph.ty(*part).shape.get(axis)?;
        if at == *start && next == *end {
            return Some(*part);
        }
        at = next;
    }
    None
}
