//! AdamW and the exponential moving average, as semantic operations.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    AdamW(Constants),
    Ema,
    AdamWEma(Constants),
}

/// Attributes of AdamW.
#[derive(Clone, Copy)]
pub(super) struct Constants {
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let (tensors, scalars, results): (&[usize], &[usize], usize) = match op {
        Kind::Ema => (&[0, 1], &[2], 1),
        Kind::AdamW(_) => (&[0, 1, 2, 3], &[4, 5, 6, 7, 8], 3),
        Kind::AdamWEma(_) => (&[0, 1, 2, 3, 9], &[4, 5, 6, 7, 8, 10], 4),
    };
    let count = tensors.len() + scalars.len();
    arity(operands, count, count, "3 (ema), 9 (adamw) or 11 (adamw_ema)")?;
    let p = operands[0];
    require(p.dtype.is_float() && operands.iter().all(|ty| ty.dtype == p.dtype), || {
        "all operands must be floats of one type".to_owned()
    })?;
    require(tensors.iter().all(|i| operands[*i] == p), || format!("all tensors must be {p}"))?;
    require(scalars.iter().all(|i| operands[*i].rank() == 0), || "rates must be scalars, f32[]".to_owned())?;
    Ok(vec![p.clone(); results])
}

/// 14 operations per element for AdamW, 3 for the average.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Ema => 3,
        Kind::AdamW(_) => 14,
        Kind::AdamWEma(_) => 17,
    };
    Cost::streaming(per_element, &operands[0].elements(), operands, results)
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    Ok(match op {
        Kind::Ema => vec![average(e.inputs[0], e.inputs[1], e.inputs[2].first())],
        Kind::AdamW(constants) => adamw(e, constants),
        Kind::AdamWEma(constants) => {
            let mut results = adamw(e, constants);
            results.push(average(e.inputs[9], &results[0], e.inputs[10].first()));
            results
        }
    })
}

fn adamw(e: &Eval<'_>, Constants { beta1, beta2, eps }: Constants) -> Vec<Array> {
    let [p, g, m, v] = [0, 1, 2, 3].map(|i| &e.inputs[i].data);
    let [lr, wd, c1, c2, clip] = [4, 5, 6, 7, 8].map(|i| e.inputs[i].first());
    let mut results = vec![Array::zeros(&e.results[0]); 3];
    for i in 0..p.len() {
        let gradient = clip * g[i];
        let first = beta1 * m[i] + (1.0 - beta1) * gradient;
        let second = beta2 * v[i] + (1.0 - beta2) * gradient * gradient;
        let root = second.sqrt() / c2.sqrt() + eps;
        results[0].data[i] = p[i] * (1.0 - lr * wd) - lr / c1 * first / root;
        results[1].data[i] = first;
        results[2].data[i] = second;
    }
    results
}

fn average(target: &Array, p: &Array, momentum: f64) -> Array {
    let data = target.data.iter().zip(&p.data).map(|(target, p)| momentum * target + (1.0 - momentum) * p).collect();
    Array { shape: target.shape.clone(), data }
}

/// In the order of PyTorch's AdamW: decay, moments, then the step.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    Ok(Some(match op {
        Kind::Ema => vec![decompose_ema(g, inputs[0], inputs[1], inputs[2])?],
        Kind::AdamW(constants) => decompose_adamw(g, inputs, constants)?,
        Kind::AdamWEma(constants) => {
            let mut results = decompose_adamw(g, inputs, constants)?;
            results.push(decompose_ema(g, inputs[9], results[0], inputs[10])?);
            results
        }
    }))
}

/// Neither the step nor the average is differentiated through.
pub(super) fn grad(op: Kind) -> Grads {
    match op {
        Kind::AdamW(_) | Kind::Ema | Kind::AdamWEma(_) => None,
    }
}

fn decompose_adamw(
    g: &mut Graph,
    inputs: &[ValueId],
    Constants { beta1, beta2, eps }: Constants,
) -> Result<Vec<ValueId>, GraphError> {
    let [p, gradient, m, v, lr, wd, c1, c2, clip] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|i| inputs[i]);
    let rate = g.mul(lr, wd)?;
    let kept = one_minus(g, rate)?;
    let decayed = g.mul(p, kept)?;
    let clipped = g.mul(gradient, clip)?;
    let square = g.mul(clipped, clipped)?;
    let first = blend(g, m, clipped, beta1)?;
    let second = blend(g, v, square, beta2)?;
    let root = g.unary(Unary::Sqrt, second)?;
    let correction = g.unary(Unary::Sqrt, c2)?;
    let corrected = g.div(root, correction)?;
    let denominator = g.add_scalar(corrected, eps)?;
    let step = g.div(lr, c1)?;
    let direction = g.div(first, denominator)?;
    let change = g.mul(direction, step)?;
    Ok(vec![g.sub(decayed, change)?, first, second])
}

fn decompose_ema(g: &mut Graph, target: ValueId, p: ValueId, momentum: ValueId) -> Result<ValueId, GraphError> {
    let kept = g.mul(target, momentum)?;
    let share = one_minus(g, momentum)?;
    let new = g.mul(p, share)?;
    g.add(kept, new)
}

/// `1 − x`.
fn one_minus(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let minus = g.unary(Unary::Neg, x)?;
    g.add_scalar(minus, 1.0)
}

/// `beta·old + (1 − beta)·new`.
fn blend(g: &mut Graph, old: ValueId, new: ValueId, beta: f64) -> Result<ValueId, GraphError> {
    let kept = g.mul_scalar(old, beta)?;
    let added = g.mul_scalar(new, 1.0 - beta)?;
    g.add(kept, added)
}
