//! Recognises semantic operations that Burn records in pieces or in several forms.
//!
//! The graph is copied node by node; before a node is copied, the rules below check whether it completes a pattern. Nodes
//! that were only part of a pattern are then dead and are dropped.

use crate::ir::{Def, Dim, Graph, GraphError, Node, ValueId};
use crate::ops::{Binary, Op, Unary};
use std::collections::HashMap;

/// The same computation in the IR's semantic operations.
pub(super) fn normalise(graph: &Graph) -> Result<Graph, GraphError> {
    let symbols: Vec<&str> = graph.symbols.iter().map(String::as_str).collect();
    let mut new = Graph::new(&graph.name, &symbols);
    let mut map: HashMap<ValueId, ValueId> = HashMap::new();
    for id in &graph.inputs {
        let name = graph.source_name(*id).unwrap_or_default();
        map.insert(*id, new.input(name, graph.ty(*id).clone())?);
    }
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap_or_default();
        map.insert(*id, new.param(name, graph.ty(*id).clone())?);
    }
    for node in &graph.nodes {
        let inputs: Vec<ValueId> = node.inputs.iter().filter_map(|id| map.get(id).copied()).collect();
        let result = copy(&mut new, &node.op, &inputs)?;
        if let [output] = node.outputs[..] {
            map.insert(output, result);
        }
    }
    for (name, id) in &graph.outputs {
        let id = map.get(id).copied().ok_or(GraphError::UnknownValue(id.0))?;
        new.output(name, id);
    }
    Ok(new)
}

/// Copies one single-result node, or what it completes.
fn copy(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    for rule in RULES {
        if let Some((op, inputs)) = rule(graph, op, inputs)? {
            // The replacement may complete a larger pattern.
            return match op {
                Some(op) => copy(graph, &op, &inputs),
                None => Ok(inputs[0]),
            };
        }
    }
    graph.push1(op.clone(), inputs)
}

/// A rule's replacement for a node: another node, or (without an operation) an existing value.
type Replacement = Option<(Option<Op>, Vec<ValueId>)>;
type Rule = fn(&mut Graph, &Op, &[ValueId]) -> Result<Replacement, GraphError>;

const RULES: [Rule; 10] = [
    no_op,
    permute_of_permute,
    product_with_transpose,
    bias,
    linear_between_reshapes,
    plain_layer_norm,
    rotation,
    tubelets,
    patch_embed,
    views,
];

/// The node that computes `id`, if it has one result.
fn node(graph: &Graph, id: ValueId) -> Option<&Node> {
    match graph.value(id).def {
        Def::Node { node, .. } => graph.nodes.get(node.0),
        _ => None,
    }
}

fn replace(op: Op, inputs: Vec<ValueId>) -> Result<Replacement, GraphError> {
    Ok(Some((Some(op), inputs)))
}

/// A reshape to the same shape, or of a reshape.
fn no_op(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Reshape { shape }, [x]) = (op, inputs) else { return Ok(None) };
    if graph.ty(*x).shape == *shape {
        return Ok(Some((None, vec![*x])));
    }
    match node(graph, *x) {
        Some(Node { op: Op::Reshape { .. }, inputs, .. }) => replace(op.clone(), inputs.clone()),
        _ => Ok(None),
    }
}

fn permute_of_permute(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Permute { axes: outer }, [x]) = (op, inputs) else { return Ok(None) };
    if outer.iter().enumerate().all(|(position, axis)| position == *axis) {
        return Ok(Some((None, vec![*x])));
    }
    let Some(Node { op: Op::Permute { axes: inner }, inputs, .. }) = node(graph, *x) else { return Ok(None) };
    let axes = outer.iter().map(|axis| inner[*axis]).collect();
    replace(Op::Permute { axes }, inputs.clone())
}

/// `x · wᵀ` with a matrix `w` is a linear layer.
fn product_with_transpose(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::MatMul { ta: false, tb: false }, [x, w]) = (op, inputs) else { return Ok(None) };
    if graph.ty(*w).rank() != 2 {
        return Ok(None);
    }
    match node(graph, *w) {
        Some(Node { op: Op::Permute { .. }, inputs, .. }) => {
            let weight = inputs[0];
            replace(Op::Linear, vec![*x, weight])
        }
        _ => Ok(None),
    }
}

/// A vector, seen as `[1, .., 1, D]`, added to a linear without bias is its bias.
fn bias(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Binary(Binary::Add), [y, b]) = (op, inputs) else { return Ok(None) };
    let Some(Node { op: Op::Linear, inputs: linear, .. }) = node(graph, *y) else { return Ok(None) };
    let [x, weight] = linear[..] else { return Ok(None) };
    let vector = match node(graph, *b) {
        Some(Node { op: Op::Reshape { shape }, inputs, .. }) => {
            let leading_ones = shape.split_last().is_some_and(|(_, lead)| lead.iter().all(Dim::is_one));
            if leading_ones { inputs[0] } else { *b }
        }
        _ => *b,
    };
    if graph.ty(vector).shape[..] != graph.ty(weight).shape[..1] {
        return Ok(None);
    }
    replace(Op::Linear, vec![x, weight, vector])
}

/// Rows folded for a linear and unfolded after it: the linear works on the unfolded rows as well.
fn linear_between_reshapes(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Reshape { shape }, [y]) = (op, inputs) else { return Ok(None) };
    let Some(Node { op: Op::Linear, inputs: linear, .. }) = node(graph, *y) else { return Ok(None) };
    let Some(Node { op: Op::Reshape { .. }, inputs: folded, .. }) = node(graph, linear[0]) else { return Ok(None) };
    let features = &graph.ty(linear[1]).shape;
    let Some((last, lead)) = shape.split_last() else { return Ok(None) };
    if *last != features[0] || graph.ty(*y).rank() != 2 {
        return Ok(None);
    }
    let mut operands = linear.clone();
    let (folded, unfolded) = (folded[0], [lead, &features[1..]].concat());
    operands[0] = copy(graph, &Op::Reshape { shape: unfolded }, &[folded])?;
    replace(Op::Linear, operands)
}

/// `(x − mean) / √(mean((x − mean)²) + eps)` over the last axis.
fn plain_layer_norm(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Binary(Binary::Div), [centred, root]) = (op, inputs) else { return Ok(None) };
    let last = graph.ty(*centred).rank().saturating_sub(1);
    let input_of = |id: ValueId, wanted: &Op| match node(graph, id) {
        Some(node) if node.op == *wanted => node.inputs.first().copied(),
        _ => None,
    };
    let mean = Op::Mean { axes: vec![last] };
    let Some(shifted) = input_of(*root, &Op::Unary(Unary::Sqrt)) else { return Ok(None) };
    let Some(Node { op: Op::AddScalar(eps), inputs: variance, .. }) = node(graph, shifted) else { return Ok(None) };
    let Some(square) = input_of(variance[0], &mean) else { return Ok(None) };
    let Some(Node { op: Op::Binary(Binary::Mul), inputs: factors, .. }) = node(graph, square) else { return Ok(None) };
    let Some(Node { op: Op::Binary(Binary::Sub), inputs: difference, .. }) = node(graph, *centred) else {
        return Ok(None);
    };
    if factors[..] != [*centred, *centred] || input_of(difference[1], &mean) != Some(difference[0]) {
        return Ok(None);
    }
    if !eps.over.is_one() {
        return Ok(None);
    }
    replace(Op::LayerNorm { eps: eps.value }, vec![difference[0]])
}

/// `x·cos + y·sin`, with cosines and sines halves of one table and y the exchanged pairs of x.
fn rotation(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Binary(Binary::Add), [straight, crossed]) = (op, inputs) else { return Ok(None) };
    let product = |id: ValueId| match node(graph, id) {
        Some(Node { op: Op::Binary(Binary::Mul), inputs, .. }) => Some((*inputs.first()?, *inputs.get(1)?)),
        _ => None,
    };
    let (Some((x, cos)), Some((y, sin))) = (product(*straight), product(*crossed)) else { return Ok(None) };
    let Some(width) = graph.ty(x).shape.last().and_then(Dim::as_const).filter(|_| graph.ty(x).rank() == 4) else {
        return Ok(None);
    };
    let tables = [half_of_table(graph, cos, 0, width), half_of_table(graph, sin, 1, width)];
    let [Some(table), Some(other)] = tables else { return Ok(None) };
    if table != other || exchanged_pairs(graph, y) != Some(x) {
        return Ok(None);
    }
    let candidate = Op::Rotate { transposed: false };
    let fits = candidate.infer(&[graph.ty(x), graph.ty(table)]).is_ok_and(|types| types[0] == *graph.ty(x));
    if fits { replace(candidate, vec![x, table]) } else { Ok(None) }
}

/// The table `[B, N, 2·width]` of which `id` is one half, seen as `[B, 1, N, width]`.
fn half_of_table(graph: &Graph, id: ValueId, which: i64, width: i64) -> Option<ValueId> {
    let Node { op: Op::Reshape { shape }, inputs: part, .. } = node(graph, id)? else { return None };
    let Node { op: Op::Slice { axis: 2, start, end }, inputs: whole, .. } = node(graph, *part.first()?)? else {
        return None;
    };
    let table = *whole.first()?;
    let [batch, tokens, _] = graph.ty(table).shape.as_slice() else { return None };
    let seen = [batch.clone(), Dim::from(1usize), tokens.clone(), Dim::from(width)];
    let cut = *start == Dim::from(which * width) && *end == Dim::from((which + 1) * width);
    (cut && *shape == seen).then_some(table)
}

/// What `id` is with the channels of each pair exchanged and the first of them negated.
fn exchanged_pairs(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let Node { op: Op::Reshape { .. }, inputs: joined, .. } = node(graph, id)? else { return None };
    let Node { op: Op::Concat { axis: 4 }, inputs: parts, .. } = node(graph, *joined.first()?)? else { return None };
    let [negated, first] = parts[..] else { return None };
    let Node { op: Op::Unary(Unary::Neg), inputs: second, .. } = node(graph, negated)? else { return None };
    let channel = |id: ValueId, which: usize| match node(graph, id)? {
        Node { op: Op::Slice { axis: 4, start, end }, inputs, .. }
            if [start, end] == [&Dim::from(which), &Dim::from(which + 1)] =>
        {
            inputs.first().copied()
        }
        _ => None,
    };
    let pairs = channel(*second.first()?, 1).filter(|pairs| channel(first, 0) == Some(*pairs))?;
    let Node { op: Op::Reshape { .. }, inputs: x, .. } = node(graph, pairs)? else { return None };
    let x = *x.first()?;
    (graph.ty(x) == graph.ty(id)).then_some(x)
}

/// Reshape, permute, reshape of a clip into rows of tubelets.
fn tubelets(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Reshape { shape }, [x]) = (op, inputs) else { return Ok(None) };
    let Some(Node { op: Op::Permute { axes }, inputs: split, .. }) = node(graph, *x) else { return Ok(None) };
    if axes[..] != [0, 2, 4, 6, 1, 3, 5, 7] || shape.len() != 3 {
        return Ok(None);
    }
    let Some(Node { op: Op::Reshape { shape: parts }, inputs: clip, .. }) = node(graph, split[0]) else {
        return Ok(None);
    };
    let number = |axis: usize| parts.get(axis).and_then(Dim::as_const).and_then(|n| usize::try_from(n).ok());
    let (Some(tubelet), Some(patch), Some(width)) = (number(3), number(5), number(7)) else { return Ok(None) };
    if patch != width || graph.ty(clip[0]).rank() != 5 {
        return Ok(None);
    }
    let clip = clip[0];
    let candidate = Op::Tubelets { tubelet, patch };
    match candidate.infer(&[graph.ty(clip)]) {
        Ok(types) if types[0].shape == *shape => replace(candidate, vec![clip]),
        _ => Ok(None),
    }
}

/// A linear over tubelets with a flattened convolution kernel.
fn patch_embed(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    let (Op::Linear, [x, weight, rest @ ..]) = (op, inputs) else { return Ok(None) };
    let Some(Node { op: Op::Tubelets { tubelet, patch }, inputs: clip, .. }) = node(graph, *x) else {
        return Ok(None);
    };
    let Some(Node { op: Op::Reshape { .. }, inputs: kernel, .. }) = node(graph, *weight) else { return Ok(None) };
    let (clip, kernel) = (clip[0], kernel[0]);
    if graph.ty(kernel).rank() != 5 || rest.is_empty() {
        return Ok(None);
    }
    let op = Op::PatchEmbed { tubelet: *tubelet, patch: *patch };
    replace(op, [&[clip, kernel], rest].concat())
}

/// Views that cost a copy one way and nothing the other way.
fn views(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Replacement, GraphError> {
    match (op, inputs) {
        // A table expanded over the batch only to be gathered from.
        (Op::GatherTokens, [x, index]) => match node(graph, *x) {
            Some(Node { op: Op::Broadcast { .. }, inputs: table, .. })
                if graph.ty(table[0]).shape[0].is_one() && graph.ty(table[0]).shape[1..] == graph.ty(*x).shape[1..] =>
            {
                replace(Op::GatherTokens, vec![table[0], *index])
            }
            _ => Ok(None),
        },
        // Splitting the last axis of a slice of it is a slice of the split: `[.., 3D]` to `[.., 3H, d]`, then H of 3H.
        (Op::Reshape { shape }, [x]) => {
            let Some(Node { op: Op::Slice { axis, start, end }, inputs: whole, .. }) = node(graph, *x) else {
                return Ok(None);
            };
            let from = graph.ty(whole[0]).shape.clone();
            let (axis, whole) = (*axis, whole[0]);
            if axis + 1 != from.len() || shape.len() != from.len() + 1 || shape[..axis] != from[..axis] {
                return Ok(None);
            }
            let numbers = [start, end, &from[axis], &shape[axis + 1]].map(Dim::as_const);
            let [Some(start), Some(end), Some(size), Some(width)] = numbers else { return Ok(None) };
            if width <= 0 || [start, end, size].iter().any(|n| n % width != 0) {
                return Ok(None);
            }
            let mut split = from[..axis].to_vec();
            split.extend([Dim::from(size / width), Dim::from(width)]);
            let split = copy(graph, &Op::Reshape { shape: split }, &[whole])?;
            replace(Op::Slice { axis, start: Dim::from(start / width), end: Dim::from(end / width) }, vec![split])
        }
        _ => Ok(None),
    }
}
