//! Scaled dot-product attention without a mask.

use super::reduce::{softmax_grad_row, softmax_row};
use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Forward { scale: f64 },
    Backward { scale: f64 },
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Forward { .. } => arity(operands, 3, 3, "3")?,
        Kind::Backward { .. } => arity(operands, 5, 5, "5")?,
    }
    let (q, k, v) = (operands[0], operands[1], operands[2]);
    let fits = q.rank() == 4
        && k == v
        && k.rank() == 4
        && q.dtype == k.dtype
        && q.dtype.is_float()
        && q.shape[..2] == k.shape[..2]
        && q.shape[3] == k.shape[3];
    require(fits, || format!("needs q[B, H, N, d] and k, v[B, H, M, d], got {q}, {k} and {v}"))?;
    match op {
        Kind::Forward { .. } => Ok(vec![q.clone()]),
        Kind::Backward { .. } => {
            require(operands[3] == q && operands[4] == q, || format!("y and dy must be {q}"))?;
            Ok(vec![q.clone(), k.clone(), v.clone()])
        }
    }
}

/// Two products of `2·N·M·d` forward and five backward (the scores are recomputed), and 5 or 9 per score for the softmax.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let (q, k) = (operands[0], operands[1]);
    let scores = Dim::product([&q.shape[0], &q.shape[1], &q.shape[2], &k.shape[2]]);
    let (products, softmax): (usize, usize) = match op {
        Kind::Forward { .. } => (4, 5),
        Kind::Backward { .. } => (10, 9),
    };
    let per_score = &(&q.shape[3] * &Dim::from(products)) + &Dim::from(softmax);
    let mut cost = Cost::streaming(0, &scores, operands, results);
    cost.flops = &scores * &per_score;
    cost
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let qkv = [e.inputs[0], e.inputs[1], e.inputs[2]];
    Ok(match op {
        Kind::Forward { scale } => attend(qkv, None, scale),
        Kind::Backward { scale } => attend(qkv, Some(e.inputs[4]), scale),
    })
}

/// `y` of `q[B, H, N, d]` and `k, v[B, H, M, d]`, or with `dy` the gradients of the three.
pub(super) fn attend([q, k, v]: [&Array; 3], dy: Option<&Array>, scale: f64) -> Vec<Array> {
    let results: &[&Array] = if dy.is_some() { &[q, k, v] } else { &[q] };
    let mut results: Vec<Array> = results.iter().map(|x| Array::zeros(&x.shape)).collect();
    let (n, m, d) = (q.shape[2], k.shape[2], q.shape[3]);
    if n * m * d == 0 {
        return results;
    }
    for head in 0..q.data.len() / (n * d) {
        let (rows, keys) = (head * n * d..(head + 1) * n * d, head * m * d..(head + 1) * m * d);
        let (k, v) = (&k.data[keys.clone()], &v.data[keys.clone()]);
        for row in rows.step_by(d) {
            let q = &q.data[row..row + d];
            let scores: Vec<f64> = k.chunks(d).map(|k| scale * dot(q, k)).collect();
            let shares: Vec<f64> = softmax_row(&scores).collect();
            let Some(dy) = dy else {
                for (share, v) in shares.iter().zip(v.chunks(d)) {
                    add_scaled(&mut results[0].data[row..row + d], *share, v);
                }
                continue;
            };
            let dy = &dy.data[row..row + d];
            let dshares: Vec<f64> = v.chunks(d).map(|v| dot(dy, v)).collect();
            let dscores = softmax_grad_row(&shares, &dshares).map(|ds| ds * scale);
            for (j, (share, dscore)) in shares.iter().zip(dscores).enumerate() {
                let key = keys.start + j * d;
                add_scaled(&mut results[0].data[row..row + d], dscore, &k[j * d..(j + 1) * d]);
                add_scaled(&mut results[1].data[key..key + d], dscore, q);
                add_scaled(&mut results[2].data[key..key + d], *share, dy);
            }
        }
    }
    results
}

/// The logarithm of the sum of the exponentials of each row's scores, `[B, H, N, 1]`.
pub(super) fn log_sums(q: &Array, k: &Array, scale: f64) -> Array {
    let (n, m, d) = (q.shape[2], k.shape[2], q.shape[3]);
    let mut shape = q.shape.clone();
    shape[3] = 1;
    let mut sums = Array::zeros(&shape);
    for (row, (q, sum)) in q.data.chunks(d.max(1)).zip(&mut sums.data).enumerate() {
        let keys = &k.data[row / n.max(1) * m * d..][..m * d];
        let scores: Vec<f64> = keys.chunks(d.max(1)).map(|k| scale * dot(q, k)).collect();
        let highest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        *sum = highest + scores.iter().map(|score| (score - highest).exp()).sum::<f64>().ln();
    }
    sums
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(to: &mut [f64], factor: f64, x: &[f64]) {
    for (to, x) in to.iter_mut().zip(x) {
        *to += factor * x;
    }
}

pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let [q, k, v] = [inputs[0], inputs[1], inputs[2]];
    let (Kind::Forward { scale } | Kind::Backward { scale }) = op;
    let products = g.matmul(q, k, false, true)?;
    let scores = g.mul_scalar(products, scale)?;
    let shares = g.push1(Op::Softmax, &[scores])?;
    let dy = match op {
        Kind::Forward { .. } => return Ok(Some(vec![g.matmul(shares, v, false, false)?])),
        Kind::Backward { .. } => inputs[4],
    };
    let dv = g.matmul(shares, dy, true, false)?;
    let dshares = g.matmul(dy, v, false, true)?;
    let dscores = g.push1(Op::SoftmaxGrad, &[shares, dshares])?;
    let dproducts = g.mul_scalar(dscores, scale)?;
    let dq = g.matmul(dproducts, k, false, false)?;
    let dk = g.matmul(dproducts, q, true, false)?;
    Ok(Some(vec![dq, dk, dv]))
}

pub(super) fn grad(op: Kind, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    match op {
        Kind::Forward { scale } => {
            let operands = [r.inputs[0], r.inputs[1], r.inputs[2], r.y, r.dy];
            let grads = r.graph.push(Op::AttentionGrad { scale }, &operands)?;
            Ok(Some(grads.into_iter().map(Some).collect()))
        }
        Kind::Backward { .. } => Ok(None),
    }
}
