//! Rotary positions: pairs of channels turned by the angles of a table.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, Op, Reverse, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, TensorType, ValueId};

/// The operation of this file.
#[derive(Clone, Copy)]
pub(super) struct Kind {
    pub transposed: bool,
}

pub(super) fn infer(operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    arity(operands, 2, 2, "2")?;
    let (x, table) = (operands[0], operands[1]);
    let fits = match (x.shape.as_slice(), table.shape.as_slice()) {
        ([batch, _, tokens, width], [shared, rows, columns]) => {
            let even = width.as_const().is_some_and(|width| width > 0 && width % 2 == 0);
            even && (shared == batch || shared.is_one()) && rows == tokens && *columns == width * &Dim::from(2usize)
        }
        _ => false,
    };
    require(fits && x.dtype.is_float() && x.dtype == table.dtype, || {
        format!("needs x[B, H, N, d] with an even d and a table [B or 1, N, 2d], got {x} and {table}")
    })?;
    Ok(vec![x.clone()])
}

/// Two products and a sum for each channel.
pub(super) fn cost(operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    Cost::streaming(3, &operands[0].elements(), operands, results)
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Vec<Array> {
    vec![turned(e.inputs[0], e.inputs[1], op.transposed)]
}

/// `x[B, H, N, d]` turned by a table `[B or 1, N, 2d]`.
pub(super) fn turned(x: &Array, table: &Array, transposed: bool) -> Array {
    let mut turned = Array::zeros(&x.shape);
    let (heads, tokens, width) = (x.shape[1], x.shape[2], x.shape[3]);
    let shared = table.shape[0] == 1;
    for (row, (x, y)) in x.data.chunks(width.max(1)).zip(turned.data.chunks_mut(width.max(1))).enumerate() {
        let (clip, token) = (row / tokens / heads, row % tokens);
        let angles = if shared { token } else { clip * tokens + token };
        let (cos, sin) = table.data[angles * 2 * width..(angles + 1) * 2 * width].split_at(width);
        for i in (0..width).step_by(2) {
            let j = i + 1;
            (y[i], y[j]) = if transposed {
                (x[i] * cos[i] + x[j] * sin[j], x[j] * cos[j] - x[i] * sin[i])
            } else {
                (x[i] * cos[i] - x[j] * sin[i], x[j] * cos[j] + x[i] * sin[j])
            };
        }
    }
    turned
}

/// `x·cos + y·sin`; transposed `x·cos − y(x·sin)`, since exchanging with a sign is its own negated transpose.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let [x, table] = [inputs[0], inputs[1]];
    let cos = half(g, table, 0)?;
    let sin = half(g, table, 1)?;
    let straight = g.mul(x, cos)?;
    if op.transposed {
        let scaled = g.mul(x, sin)?;
        let turned = exchanged(g, scaled)?;
        return Ok(Some(vec![g.sub(straight, turned)?]));
    }
    let turned = exchanged(g, x)?;
    let crossed = g.mul(turned, sin)?;
    Ok(Some(vec![g.add(straight, crossed)?]))
}

/// The cosines or sines of a table, `[B, 1, N, d]`.
fn half(g: &mut Graph, table: ValueId, which: usize) -> Result<ValueId, GraphError> {
    let [shared, tokens, columns] = g.ty(table).shape.as_slice() else {
        return Err(GraphError::Other(format!("{} is not a table of angles", g.ty(table))));
    };
    let Some(width) = columns.as_const().map(|columns| columns / 2) else {
        return Err(GraphError::Other(format!("{} is not a table of angles", g.ty(table))));
    };
    let shape = [shared.clone(), Dim::from(1usize), tokens.clone(), Dim::from(width)];
    let start = width * i64::from(which == 1);
    let part = g.slice(table, 2, Dim::from(start), Dim::from(start + width))?;
    g.reshape(part, &shape)
}

/// Channels in pairs, exchanged, the first of each negated.
fn exchanged(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let shape = g.ty(x).shape.clone();
    let Some((pairs, leading)) = shape.split_last().and_then(|(width, leading)| Some((width.as_const()? / 2, leading)))
    else {
        return Err(GraphError::Other(format!("the channels of {} do not come in pairs", g.ty(x))));
    };
    let mut split = leading.to_vec();
    split.extend([Dim::from(pairs), Dim::from(2usize)]);
    let axis = leading.len() + 1;
    let x = g.reshape(x, &split)?;
    let first = g.slice(x, axis, Dim::default(), Dim::from(1usize))?;
    let second = g.slice(x, axis, Dim::from(1usize), Dim::from(2usize))?;
    let negated = g.unary(Unary::Neg, second)?;
    let turned = g.push1(Op::Concat { axis }, &[negated, first])?;
    g.reshape(turned, &shape)
}

pub(super) fn grad(op: Kind, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let [x, table] = [r.inputs[0], r.inputs[1]];
    let dx =
        if r.need(0) { Some(r.graph.push1(Op::Rotate { transposed: !op.transposed }, &[r.dy, table])?) } else { None };
    if !r.need(1) {
        return Ok(Some(vec![dx, None]));
    }
    let (g, dy) = (&mut *r.graph, r.dy);
    let straight = g.mul(x, dy)?;
    let crossed = if op.transposed {
        let turned = exchanged(g, dy)?;
        g.mul(x, turned)?
    } else {
        let turned = exchanged(g, x)?;
        g.mul(turned, dy)?
    };
    let both = g.push1(Op::Concat { axis: 3 }, &[straight, crossed])?; // [B, H, N, 2d]
    let shape = g.ty(table).shape.clone();
    let wide = [shape[0].clone(), Dim::from(1usize), shape[1].clone(), shape[2].clone()];
    let summed = g.sum_to(both, &wide)?;
    let dtable = g.reshape(summed, &shape)?;
    Ok(Some(vec![dx, Some(dtable)]))
}
