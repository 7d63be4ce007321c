//! AdamW and the exponential moving average, as semantic operations.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    AdamW(Constants),
    Ema,
    AdamWEma(Constants),
    All { constants: Constants, average: bool },
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
        Kind::All { average, .. } => return infer_all(average, operands),
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

/// Rates and operands of one parameter of `adamw_all` or `adamw_ema_all`.
fn layout(average: bool) -> (usize, usize) {
    if average { (6, 5) } else { (5, 4) }
}

fn infer_all(average: bool, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let (rates, each) = layout(average);
    arity(operands, rates + each, usize::MAX, "the rates and 4 or 5 for each parameter")?;
    let (rates, tensors) = operands.split_at(rates);
    require(tensors.len().is_multiple_of(each), || format!("{} tensors are not {each} a parameter", tensors.len()))?;
    let dtype = tensors[0].dtype;
    require(dtype.is_float() && operands.iter().all(|ty| ty.dtype == dtype), || {
        "all operands must be floats of one type".to_owned()
    })?;
    require(rates.iter().all(|ty| ty.rank() == 0), || "rates must be scalars, f32[]".to_owned())?;
    let mut results = Vec::with_capacity(tensors.len());
    for tensors in tensors.chunks(each) {
        let p = tensors[0];
        require(tensors.iter().all(|ty| *ty == p), || format!("all tensors of a parameter must be {p}"))?;
        results.extend(std::iter::repeat_n(p.clone(), each - 1));
    }
    Ok(results)
}

/// Where each parameter's operands are among those of `adamw_all` or `adamw_ema_all`, in the order of `adamw` and `adamw_ema`.
fn single(average: bool, operands: usize) -> impl Iterator<Item = Vec<usize>> {
    let (rates, each) = layout(average);
    (rates..operands).step_by(each).map(move |first| {
        let mut found: Vec<usize> = (first..first + 4).chain(0..5).collect();
        if average {
            found.extend([first + 4, 5]);
        }
        found
    })
}

/// 14 operations per element for AdamW, 3 for the average.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Ema => 3,
        Kind::AdamW(_) => 14,
        Kind::AdamWEma(_) => 17,
        Kind::All { average, .. } => {
            let (rates, each) = layout(average);
            let elements = operands[rates..].iter().step_by(each).fold(Dim::default(), |sum, p| &sum + &p.elements());
            return Cost::streaming(if average { 17 } else { 14 }, &elements, operands, results);
        }
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
        Kind::All { constants, average } => {
            let op = if average { Kind::AdamWEma(constants) } else { Kind::AdamW(constants) };
            let mut results = Vec::with_capacity(e.results.len());
            for operands in single(average, e.inputs.len()) {
                let inputs: Vec<&Array> = operands.iter().map(|at| e.inputs[*at]).collect();
                let shapes = vec![inputs[0].shape.clone(); 3 + usize::from(average)];
                results.extend(eval(op, &Eval { inputs: &inputs, results: &shapes, sizes: e.sizes })?);
            }
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

/// In the order of PyTorch's AdamW: decay, moments, then the step; all parameters one by one.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    Ok(Some(match op {
        Kind::Ema => vec![decompose_ema(g, inputs[0], inputs[1], inputs[2])?],
        Kind::AdamW(constants) => decompose_adamw(g, inputs, constants)?,
        Kind::AdamWEma(constants) => {
            let mut results = decompose_adamw(g, inputs, constants)?;
            results.push(decompose_ema(g, inputs[9], results[0], inputs[10])?);
            results
        }
        Kind::All { constants: Constants { beta1, beta2, eps }, average } => {
            let op = if average { Op::AdamWEma { beta1, beta2, eps } } else { Op::AdamW { beta1, beta2, eps } };
            let mut results = Vec::with_capacity(inputs.len());
            for operands in single(average, inputs.len()) {
                let inputs: Vec<ValueId> = operands.iter().map(|at| inputs[*at]).collect();
                results.extend(g.push(op.clone(), &inputs)?);
            }
            results
        }
    }))
}

/// Neither the step nor the average is differentiated through.
pub(super) fn grad(op: Kind) -> Grads {
    match op {
        Kind::AdamW(_) | Kind::Ema | Kind::AdamWEma(_) | Kind::All { .. } => None,
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
