//! Reductions and softmax.

use super::elementwise::broadcast_offsets;
use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{Dim, Graph, GraphError, Scalar, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Sum(&'a [usize]),
    Mean(&'a [usize]),
    Max(&'a [usize]),
    Softmax,
    SoftmaxGrad,
    LogSoftmax,
    SquaredNorm,
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Sum(axes) | Kind::Mean(axes) | Kind::Max(axes) => {
            let x = single_float(operands)?;
            let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
            require(!axes.is_empty() && ascending && axes.iter().all(|axis| *axis < x.rank()), || {
                format!("axes {axes:?} are not ascending axes of {x}")
            })?;
            let kept = x.shape.iter().enumerate();
            let shape = kept.map(|(axis, dim)| if axes.contains(&axis) { Dim::from(1usize) } else { dim.clone() });
            Ok(vec![TensorType::new(x.dtype, shape)])
        }
        Kind::Softmax | Kind::LogSoftmax => {
            let x = single_float(operands)?;
            require(x.rank() > 0, || "needs at least one axis".to_owned())?;
            Ok(vec![x.clone()])
        }
        Kind::SoftmaxGrad => {
            arity(operands, 2, 2, "2")?;
            let y = operands[0];
            require(y == operands[1], || format!("y is {y} but dy is {}", operands[1]))?;
            require(y.dtype.is_float() && y.rank() > 0, || format!("needs floats with at least one axis, got {y}"))?;
            Ok(vec![y.clone()])
        }
        Kind::SquaredNorm => {
            arity(operands, 1, usize::MAX, "1 or more")?;
            let dtype = operands[0].dtype;
            require(dtype.is_float() && operands.iter().all(|x| x.dtype == dtype), || {
                "all operands must be floats of one type".to_owned()
            })?;
            Ok(vec![TensorType::new(dtype, [])])
        }
    }
}

fn single_float<'a>(operands: &[&'a TensorType]) -> Result<&'a TensorType, TypeError> {
    arity(operands, 1, 1, "1")?;
    require(operands[0].dtype.is_float(), || format!("needs floats, got {}", operands[0]))?;
    Ok(operands[0])
}

/// One operation per element of the operand; 2 for squares, 5 for softmax and log softmax, 4 for the softmax gradient.
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Sum(_) | Kind::Mean(_) | Kind::Max(_) => 1,
        Kind::SquaredNorm => 2,
        Kind::SoftmaxGrad => 4,
        Kind::Softmax | Kind::LogSoftmax => 5,
    };
    let elements = match op {
        Kind::SquaredNorm => operands.iter().fold(Dim::default(), |sum, x| &sum + &x.elements()),
        Kind::Sum(_) | Kind::Mean(_) | Kind::Max(_) => operands[0].elements(),
        Kind::Softmax | Kind::SoftmaxGrad | Kind::LogSoftmax => operands[0].elements(),
    };
    Cost::streaming(per_element, &elements, operands, results)
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let x = e.inputs[0];
    let y = match op {
        Kind::Sum(_) => sum(x, &e.results[0]),
        Kind::Mean(axes) => {
            let count: usize = axes.iter().map(|axis| x.shape[*axis]).product();
            sum(x, &e.results[0]).map(|total| total / count as f64)
        }
        Kind::Max(_) => max(x, &e.results[0]),
        Kind::Softmax => Array { shape: x.shape.clone(), data: x.rows().flat_map(softmax_row).collect() },
        Kind::SquaredNorm => {
            let total = e.inputs.iter().flat_map(|x| &x.data).map(|x| x * x).sum();
            Array { shape: Vec::new(), data: vec![total] }
        }
        Kind::LogSoftmax => Array { shape: x.shape.clone(), data: x.rows().flat_map(log_softmax_row).collect() },
        Kind::SoftmaxGrad => {
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

/// A value that is not a number stays, as in PyTorch.
fn max(x: &Array, shape: &[usize]) -> Array {
    let mut largest = Array::from_fn(shape, |_| f64::NEG_INFINITY);
    for (value, place) in x.data.iter().zip(broadcast_offsets(shape, &x.shape)) {
        if value.is_nan() || *value > largest.data[place] {
            largest.data[place] = *value;
        }
    }
    largest
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

/// Softmax and log softmax without subtracting the row's maximum, which no operation of the IR computes: for moderate
/// scores only.
pub(super) fn decompose(op: Kind<'_>, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let x = inputs[0];
    let last = [g.ty(x).rank().saturating_sub(1)];
    let y = match op {
        Kind::Sum(_) | Kind::Max(_) => return Ok(None),
        Kind::Mean(axes) => {
            let total = g.sum(x, axes)?;
            g.mul_scalar(total, Scalar::recip(count(g.ty(x), axes)))?
        }
        Kind::SquaredNorm => squares(g, inputs)?,
        Kind::SoftmaxGrad => {
            let product = g.mul(x, inputs[1])?;
            let inner = g.sum(product, &last)?;
            let centred = g.sub(inputs[1], inner)?;
            g.mul(x, centred)?
        }
        Kind::Softmax => {
            let exp = g.unary(Unary::Exp, x)?;
            let total = g.sum(exp, &last)?;
            g.div(exp, total)?
        }
        Kind::LogSoftmax => {
            let exp = g.unary(Unary::Exp, x)?;
            let total = g.sum(exp, &last)?;
            let log = g.unary(Unary::Log, total)?;
            g.sub(x, log)?
        }
    };
    Ok(Some(vec![y]))
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

pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let x = r.ty(0).clone();
    let (y, dy) = (r.y, r.dy);
    let g = &mut *r.graph;
    let dx = match op {
        Kind::Sum(_) => g.broadcast(dy, &x.shape)?,
        Kind::Mean(axes) => {
            // Scaled before it is repeated: fewer multiplications.
            let share = g.mul_scalar(dy, Scalar::recip(count(&x, axes)))?;
            g.broadcast(share, &x.shape)?
        }
        Kind::Max(axes) => {
            let below = g.sub(y, r.inputs[0])?;
            let others = g.unary(Unary::Step, below)?;
            let negated = g.mul_scalar(others, -1.0)?;
            let largest = g.add_scalar(negated, 1.0)?;
            let count = g.sum(largest, axes)?;
            let share = g.div(dy, count)?;
            g.mul(largest, share)?
        }
        Kind::Softmax => g.push1(Op::SoftmaxGrad, &[y, dy])?,
        Kind::LogSoftmax => {
            let total = g.sum(dy, &[x.rank().saturating_sub(1)])?;
            let probability = g.unary(Unary::Exp, y)?;
            let pulled = g.mul(probability, total)?;
            g.sub(dy, pulled)?
        }
        Kind::SquaredNorm => return squared_norm_grad(r).map(Some),
        Kind::SoftmaxGrad => return Ok(None),
    };
    Ok(Some(vec![Some(dx)]))
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
