//! Turns a sum of neighbouring zero-padded parts into one concatenation: the gradient of slices that cut a tensor up.

use super::rewrite::{Replacement, producer, rewrite_locally};
use super::{Changed, Pass};
use crate::ir::{Dim, Graph, GraphError, ValueId};
use crate::ops::{Binary, Op};

/// See the module's first line.
pub struct MergePads;

impl Pass for MergePads {
    fn name(&self) -> &'static str {
        "merge-pads"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        rewrite_locally(graph, |new, _, op, operands| rule(new, op, operands))
    }
}

fn rule(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Option<Replacement>, GraphError> {
    let (Op::Binary(Binary::Add), [a, b]) = (op, inputs) else { return Ok(None) };
    let (Some(a), Some(b)) = (part(graph, *a), part(graph, *b)) else { return Ok(None) };
    let (first, second) = if a.end == b.start { (a, b) } else { (b, a) };
    if first.axis != second.axis || first.end != second.start || first.size != second.size {
        return Ok(None);
    }
    let axis = first.axis;
    let mut whole = graph.push1(Op::Concat { axis }, &[first.value, second.value])?;
    let after = &first.size - &second.end;
    if first.start != Dim::default() || after != Dim::default() {
        whole = graph.push1(Op::Pad { axis, before: first.start, after }, &[whole])?;
    }
    Ok(Replacement::one(whole, "neighbouring parts"))
}

/// A value that lies at `start..end` of an axis of `size`, with zeros around it.
struct Part {
    value: ValueId,
    axis: usize,
    start: Dim,
    end: Dim,
    size: Dim,
}

fn part(graph: &Graph, id: ValueId) -> Option<Part> {
    let pad = producer(graph, id)?;
    let Op::Pad { axis, before, .. } = &pad.op else { return None };
    let value = *pad.inputs.first()?;
    let end = before + graph.ty(value).shape.get(*axis)?;
    Some(Part { value, axis: *axis, start: before.clone(), end, size: graph.ty(id).shape.get(*axis)?.clone() })
}
