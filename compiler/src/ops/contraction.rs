//! Matrix products.

use super::rules::{Grads, Parts, ensure};
use super::{Cost, Eval, EvalError, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    MatMul { ta: bool, tb: bool },
    Linear,
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::MatMul { ta, tb } => {
            arity(operands, 2, 3, "2 or 3")?;
            let (a, b) = (operands[0], operands[1]);
            require(a.rank() >= 2 && a.rank() == b.rank() && a.dtype == b.dtype && a.dtype.is_float(), || {
                format!("{a} and {b} are not matrices of one rank and float type")
            })?;
            let lead = a.rank() - 2;
            require(a.shape[..lead] == b.shape[..lead], || format!("leading axes of {a} and {b} differ"))?;
            let (m, ka) = if ta { (lead + 1, lead) } else { (lead, lead + 1) };
            let (kb, n) = if tb { (lead + 1, lead) } else { (lead, lead + 1) };
            require(a.shape[ka] == b.shape[kb], || {
                format!("inner sizes differ: {} in {a} and {} in {b}", a.shape[ka], b.shape[kb])
            })?;
            let mut shape = a.shape[..lead].to_vec();
            shape.extend([a.shape[m].clone(), b.shape[n].clone()]);
            let result = TensorType::new(a.dtype, shape);
            require(operands.get(2).is_none_or(|c| **c == result), || format!("what is added is not {result}"))?;
            Ok(vec![result])
        }
        Kind::Linear => {
            arity(operands, 2, 3, "2 or 3")?;
            let (x, weight) = (operands[0], operands[1]);
            require(x.rank() >= 1 && weight.rank() == 2 && x.shape.last() == weight.shape.last(), || {
                format!("weight {weight} does not fit {x}: [out, in] with in = the last axis is needed")
            })?;
            require(operands.get(2).is_none_or(|bias| bias.shape == weight.shape[..1]), || {
                format!("bias does not fit weight {weight}")
            })?;
            require(x.dtype.is_float() && operands.iter().all(|ty| ty.dtype == x.dtype), || {
                "element types differ or are not floats".to_owned()
            })?;
            let mut shape = x.shape[..x.rank() - 1].to_vec();
            shape.push(weight.shape[0].clone());
            Ok(vec![TensorType::new(x.dtype, shape)])
        }
    }
}

/// `2·M·N·K`, and one addition per element for a bias or another addend.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let a = operands[0];
    let inner = match op {
        Kind::MatMul { ta: true, .. } => &a.shape[a.rank() - 2],
        Kind::MatMul { ta: false, .. } | Kind::Linear => &a.shape[a.rank() - 1],
    };
    let mut cost = Cost::streaming(2, &(&results[0].elements() * inner), operands, results);
    if operands.len() == 3 {
        cost.flops = &cost.flops + &results[0].elements();
    }
    cost
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let y = match op {
        Kind::MatMul { ta, tb } => {
            let mut y = matmul((e.inputs[0], ta), (e.inputs[1], tb), &e.results[0]);
            if let Some(c) = e.inputs.get(2) {
                y.data.iter_mut().zip(&c.data).for_each(|(y, c)| *y += c);
            }
            y
        }
        Kind::Linear => linear(e.inputs[0], e.inputs[1], e.inputs.get(2).copied(), &e.results[0])?,
    };
    Ok(vec![y])
}

/// Batched product of matrices, each with a flag: stored transposed.
fn matmul((a, ta): (&Array, bool), (b, tb): (&Array, bool), shape: &[usize]) -> Array {
    let (m, n) = (shape[shape.len() - 2], shape[shape.len() - 1]);
    let k = a.shape[a.shape.len() - if ta { 2 } else { 1 }];
    let mut y = Array::zeros(shape);
    if m * n * k == 0 {
        return y;
    }
    let (row, along) = if ta { (1, m) } else { (k, 1) };
    let (down, column) = if tb { (1, k) } else { (n, 1) };
    for ((a, b), y) in a.data.chunks(m * k).zip(b.data.chunks(k * n)).zip(y.data.chunks_mut(m * n)) {
        for (i, y) in y.chunks_mut(n).enumerate() {
            for l in 0..k {
                let factor = a[i * row + l * along];
                for (j, y) in y.iter_mut().enumerate() {
                    *y += factor * b[l * down + j * column];
                }
            }
        }
    }
    y
}

/// `x·wᵀ + bias` row by row; the axes of `weight` after the first count as one.
pub(super) fn linear(x: &Array, weight: &Array, bias: Option<&Array>, shape: &[usize]) -> Result<Array, EvalError> {
    let (inputs, outputs) = (x.last(), shape.last().copied().unwrap_or(1));
    ensure(inputs.checked_mul(outputs) == Some(weight.data.len()), || {
        format!("a weight of {:?} does not take {inputs} to {outputs}", weight.shape)
    })?;
    let mut y = Array::zeros(shape);
    for (row, y) in y.data.chunks_mut(outputs.max(1)).enumerate() {
        let x = &x.data[row * inputs..(row + 1) * inputs];
        for (o, y) in y.iter_mut().enumerate() {
            let weight = &weight.data[o * inputs..(o + 1) * inputs];
            let product: f64 = x.iter().zip(weight).map(|(x, w)| x * w).sum();
            *y = product + bias.map_or(0.0, |bias| bias.data[o]);
        }
    }
    Ok(y)
}

/// `linear` as a matrix product over flattened rows.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    match op {
        Kind::MatMul { .. } => return Ok(None),
        Kind::Linear => {}
    }
    let (x, weight) = (g.ty(inputs[0]).shape.clone(), g.ty(inputs[1]).shape.clone());
    let rows = flat(g, inputs[0])?;
    let product = g.matmul(rows, inputs[1], false, true)?;
    let mut shape = x[..x.len() - 1].to_vec();
    shape.push(weight[0].clone());
    let mut y = g.reshape(product, &shape)?;
    if let Some(bias) = inputs.get(2) {
        y = g.add(y, *bias)?;
    }
    Ok(Some(vec![y]))
}

/// `x[.., D]` as `[rows, D]`.
pub(super) fn flat(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let shape = g.ty(x).shape.clone();
    let Some((last, lead)) = shape.split_last() else { return Ok(x) };
    g.reshape(x, &[Dim::product(lead), last.clone()])
}

pub(super) fn grad(op: Kind, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    match op {
        Kind::MatMul { ta, tb } => matmul_grad(ta, tb, r).map(Some),
        Kind::Linear => linear_grad(r).map(Some),
    }
}

fn matmul_grad(ta: bool, tb: bool, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let (a, b, dy) = (r.inputs[0], r.inputs[1], r.dy);
    let needs = [r.need(0), r.need(1)];
    let g = &mut *r.graph;
    let da = match (needs[0], ta) {
        (false, _) => None,
        (_, false) => Some(g.matmul(dy, b, false, !tb)?),
        (_, true) => Some(g.matmul(b, dy, tb, true)?),
    };
    let db = match (needs[1], tb) {
        (false, _) => None,
        (_, false) => Some(g.matmul(a, dy, !ta, false)?),
        (_, true) => Some(g.matmul(dy, a, true, ta)?),
    };
    let mut grads = vec![da, db];
    if r.inputs.len() == 3 {
        grads.push(Some(dy));
    }
    Ok(grads)
}

fn linear_grad(r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let needs = [r.need(0), r.need(1), r.need(2)];
    let (x, weight) = (r.ty(0).shape.clone(), r.ty(1).shape.clone());
    let g = &mut *r.graph;
    let dy = flat(g, r.dy)?;
    let mut grads = vec![None; r.inputs.len()];
    if needs[0] {
        let rows = g.matmul(dy, r.inputs[1], false, false)?;
        grads[0] = Some(g.reshape(rows, &x)?);
    }
    if needs[1] {
        let rows = flat(g, r.inputs[0])?;
        grads[1] = Some(g.matmul(dy, rows, true, false)?);
    }
    if needs[2] {
        grads[2] = Some(g.sum_to(dy, &weight[..1])?);
    }
    Ok(grads)
}
