//! Reductions and softmax.

use super::elementwise::broadcast_offsets;
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, Scalar, TensorType, ValueId};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    if matches!(op, Op::SoftmaxGrad) {
        arity(operands, 2, 2, "2")?;
        let y = operands[0];
        require(y == operands[1], || format!("y is {y} but dy is {}", operands[1]))?;
        require(y.dtype.is_float() && y.rank() > 0, || format!("needs floats with at least one axis, got {y}"))?;
        return Ok(vec![operands[0].clone()]);
    }
    if matches!(op, Op::SquaredNorm) {
        arity(operands, 1, usize::MAX, "1 or more")?;
        let dtype = operands[0].dtype;
        require(dtype.is_float() && operands.iter().all(|x| x.dtype == dtype), || {
            "all operands must be floats of one type".to_owned()
        })?;
        return Ok(vec![TensorType::new(dtype, [])]);
    }
    arity(operands, 1, 1, "1")?;
    let x = operands[0];
    require(x.dtype.is_float(), || format!("needs floats, got {x}"))?;
    match op {
        Op::Sum { axes } | Op::Mean { axes } => {
            let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
            require(!axes.is_empty() && ascending && axes.iter().all(|axis| *axis < x.rank()), || {
                format!("axes {axes:?} are not ascending axes of {x}")
            })?;
            let kept = x.shape.iter().enumerate();
            let shape = kept.map(|(axis, dim)| if axes.contains(&axis) { Dim::from(1usize) } else { dim.clone() });
            Ok(vec![TensorType::new(x.dtype, shape)])
        }
        _ => {
            require(x.rank() > 0, || "needs at least one axis".to_owned())?;
            Ok(vec![x.clone()])
        }
    }
}

/// One operation an element of the operand; 2 for squares, 5 for softmax and log softmax, 4 for the softmax gradient.
pub(super) fn cost(op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Op::Sum { .. } | Op::Mean { .. } => 1,
        Op::SoftmaxGrad => 4,
        Op::SquaredNorm => {
            let elements = operands.iter().fold(Dim::default(), |sum, x| &sum + &x.elements());
            return Cost::streaming(2, &elements, operands, results);
        }
        _ => 5,
    };
    Cost::streaming(per_element, &operands[0].elements(), operands, results)
}

pub(super) fn eval(op: &Op, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let x = e.inputs[0];
    let y = match op {
        Op::Sum { .. } => sum(x, &e.results[0]),
        Op::Mean { axes } => {
            let count: usize = axes.iter().map(|axis| x.shape[*axis]).product();
            sum(x, &e.results[0]).map(|total| total / count as f64)
        }
        Op::Softmax => Array { shape: x.shape.clone(), data: x.rows().flat_map(softmax_row).collect() },
        Op::SquaredNorm => {
            let total = e.inputs.iter().flat_map(|x| &x.data).map(|x| x * x).sum();
            Array { shape: Vec::new(), data: vec![total] }
        }
        Op::LogSoftmax => Array { shape: x.shape.clone(), data: x.rows().flat_map(log_softmax_row).collect() },
        _ => {
            let rows = x.rows().zip(e.inputs[1].rows()).flat_map(|(y, dy)| softmax_grad_row(y, dy));
            Array { shape: x.shape.clone(), data: rows.collect() }
        }
    };
    Ok(vec![y])
}

fn sum(x: &Array, shape: &[usize]) -> Array {
    let mut total = Array::zeros(shape);
    for (value, place) in x.data.iter().zip(broadcast_offsets(shape, &x.shape)) {
        total.data[place] += value;
    }
    total
}

/// Softmax of one row, shifted by its maximum.
pub(super) fn softmax_row(row: &[f64]) -> impl Iterator<Item = f64> + '_ {
    let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|x| (x - highest).exp()).sum();
    row.iter().map(move |x| (x - highest).exp() / total)
}

/// Not `ln` of the softmax: that is −∞ where a share underflows.
fn log_softmax_row(row: &[f64]) -> impl Iterator<Item = f64> + '_ {
    let highest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = row.iter().map(|x| (x - highest).exp()).sum();
    row.iter().map(move |x| x - highest - total.ln())
}

/// `y·(dy − Σ y·dy)` of one row.
pub(super) fn softmax_grad_row<'a>(y: &'a [f64], dy: &'a [f64]) -> impl Iterator<Item = f64> + 'a {
    let inner: f64 = y.iter().zip(dy).map(|(y, dy)| y * dy).sum();
    y.iter().zip(dy).map(move |(y, dy)| y * (dy - inner))
}

/// Softmaxes without the shift by the row's maximum, which no operation of the IR computes: for moderate scores only.
pub(super) fn decompose(op: &Op, g: &mut Graph, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let x = inputs[0];
    let last = [g.ty(x).rank().saturating_sub(1)];
    let y = match op {
        Op::Mean { axes } => {
            let total = g.sum(x, axes)?;
            g.mul_scalar(total, Scalar::recip(count(g.ty(x), axes)))?
        }
        Op::SquaredNorm => squares(g, inputs)?,
        Op::SoftmaxGrad => {
            let product = g.mul(x, inputs[1])?;
            let inner = g.sum(product, &last)?;
            let centred = g.sub(inputs[1], inner)?;
            g.mul(x, centred)?
        }
        _ => {
            let exp = g.unary(Unary::Exp, x)?;
            let total = g.sum(exp, &last)?;
            if matches!(op, Op::Softmax) {
                g.div(exp, total)?
            } else {
                let log = g.unary(Unary::Log, total)?;
                g.sub(x, log)?
            }
        }
    };
    Ok(vec![y])
}

fn squares(g: &mut Graph, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
    let mut total = None;
    for x in inputs {
        let square = g.mul(*x, *x)?;
        let sum = g.sum_to(square, &[])?;
        total = Some(match total {
            Some(total) => g.add(total, sum)?,
            None => sum,
        });
    }
    total.ok_or_else(|| GraphError::Other("a norm of nothing".to_owned()))
}

/// Number of elements along `axes`.
fn count(ty: &TensorType, axes: &[usize]) -> Dim {
    Dim::product(axes.iter().filter_map(|axis| ty.shape.get(*axis)))
}

pub(super) fn grad(op: &Op, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    if matches!(op, Op::SquaredNorm) {
        return squared_norm_grad(r);
    }
    let x = r.ty(0).clone();
    let (y, dy) = (r.y, r.dy);
    let g = &mut *r.graph;
    let dx = match op {
        Op::Sum { .. } => g.broadcast(dy, &x.shape)?,
        Op::Mean { axes } => {
            // Scaled before it is repeated: fewer multiplications.
            let share = g.mul_scalar(dy, Scalar::recip(count(&x, axes)))?;
            g.broadcast(share, &x.shape)?
        }
        Op::Softmax => g.push1(Op::SoftmaxGrad, &[y, dy])?,
        _ => {
            let total = g.sum(dy, &[x.rank().saturating_sub(1)])?;
            let probability = g.unary(Unary::Exp, y)?;
            let pulled = g.mul(probability, total)?;
            g.sub(dy, pulled)?
        }
    };
    Ok(vec![Some(dx)])
}

/// `2·dy·x` for each operand.
fn squared_norm_grad(r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let twice = r.graph.mul_scalar(r.dy, 2.0)?;
    let mut grads = Vec::with_capacity(r.inputs.len());
    for (i, x) in r.inputs.iter().enumerate() {
        grads.push(if r.need(i) { Some(r.graph.mul(*x, twice)?) } else { None });
    }
    Ok(grads)
}
