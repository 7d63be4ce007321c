//! Operations that move data without arithmetic.

use super::elementwise::broadcast_offsets;
use super::rules::{Grads, Parts, bytes, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::{Array, offsets, strides};
use crate::ir::{Dim, GraphError, Scalar, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Full(&'a Scalar, &'a TensorType),
    Iota(&'a Dim),
    Reshape(&'a [Dim]),
    Permute(&'a [usize]),
    Broadcast(&'a [Dim]),
    Slice { axis: usize, start: &'a Dim, end: &'a Dim },
    Pad { axis: usize, before: &'a Dim, after: &'a Dim },
    Concat(usize),
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let single = || arity(operands, 1, 1, "1").map(|()| operands[0]);
    let result = match op {
        Kind::Full(_, ty) => {
            arity(operands, 0, 0, "0")?;
            ty.clone()
        }
        Kind::Iota(size) => {
            arity(operands, 0, 0, "0")?;
            require(!is_negative(size), || format!("cannot count to {size}"))?;
            TensorType::f32([size.clone()])
        }
        Kind::Concat(axis) => concat(axis, operands)?,
        Kind::Reshape(shape) => reshape(single()?, shape)?,
        Kind::Permute(axes) => {
            let x = single()?;
            let mut sorted = axes.to_vec();
            sorted.sort_unstable();
            require(sorted.into_iter().eq(0..x.rank()), || {
                format!("{axes:?} is not a permutation of the axes of {x}")
            })?;
            TensorType::new(x.dtype, axes.iter().map(|axis| x.shape[*axis].clone()))
        }
        Kind::Broadcast(shape) => {
            let x = single()?;
            let fits =
                shape.len() == x.rank() && x.shape.iter().zip(shape).all(|(from, to)| from == to || from.is_one());
            require(fits, || format!("{x} does not broadcast to {shape:?}"))?;
            TensorType::new(x.dtype, shape.iter().cloned())
        }
        Kind::Slice { axis, start, end } => {
            let x = single()?;
            let left = x.shape.get(axis).map(|dim| dim - end);
            require(!is_negative(start) && left.is_none_or(|left| !is_negative(&left)), || {
                format!("{start}..{end} is not a range of axis {axis} of {x}")
            })?;
            resized(x, axis, |_| end - start)?
        }
        Kind::Pad { axis, before, after } => {
            let x = single()?;
            let fits = !is_negative(before) && !is_negative(after);
            require(fits, || format!("cannot pad by {before} and {after}"))?;
            resized(x, axis, |dim| &(dim + before) + after)?
        }
    };
    Ok(vec![result])
}

fn reshape(x: &TensorType, shape: &[Dim]) -> Result<TensorType, TypeError> {
    let result = TensorType::new(x.dtype, shape.iter().cloned());
    require(result.is_tame() && x.is_tame(), || "the shape is too complicated".to_owned())?;
    require(Dim::product(shape) == x.elements(), || format!("{x} does not have as many elements as {result}"))?;
    Ok(result)
}

/// True for a number below zero; what symbols make of it is known only at a run.
fn is_negative(dim: &Dim) -> bool {
    dim.as_const().is_some_and(|n| n < 0)
}

fn resized(x: &TensorType, axis: usize, size: impl Fn(&Dim) -> Dim) -> Result<TensorType, TypeError> {
    require(axis < x.rank(), || format!("{x} has no axis {axis}"))?;
    let mut result = x.clone();
    result.shape[axis] = size(&x.shape[axis]);
    require(!is_negative(&result.shape[axis]), || format!("axis {axis} of {x} would become negative"))?;
    Ok(result)
}

fn concat(axis: usize, operands: &[&TensorType]) -> Result<TensorType, TypeError> {
    arity(operands, 1, usize::MAX, "1 or more")?;
    let first = operands[0];
    require(axis < first.rank(), || format!("{first} has no axis {axis}"))?;
    let mut result = first.clone();
    for other in &operands[1..] {
        let same = |i: usize| i == axis || first.shape[i] == other.shape[i];
        require(first.dtype == other.dtype && first.rank() == other.rank() && (0..first.rank()).all(same), || {
            format!("{first} and {other} do not concatenate along axis {axis}")
        })?;
        result.shape[axis] = &result.shape[axis] + &other.shape[axis];
    }
    Ok(result)
}

/// No arithmetic; a reshape moves nothing, a slice reads only what it keeps.
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    match op {
        Kind::Reshape(_) => Cost::default(),
        Kind::Slice { .. } => Cost { flops: Dim::default(), bytes: &bytes(results[0]) * &Dim::from(2usize) },
        Kind::Full(..) | Kind::Iota(_) | Kind::Permute(_) | Kind::Broadcast(_) | Kind::Pad { .. } | Kind::Concat(_) => {
            Cost::streaming(0, &Dim::default(), operands, results)
        }
    }
}

/// Movements of data have no smaller parts.
pub(super) fn decompose(op: Kind<'_>) -> Result<Parts, GraphError> {
    match op {
        Kind::Full(..)
        | Kind::Iota(_)
        | Kind::Reshape(_)
        | Kind::Permute(_)
        | Kind::Broadcast(_)
        | Kind::Slice { .. }
        | Kind::Pad { .. }
        | Kind::Concat(_) => Ok(None),
    }
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let shape = &e.results[0];
    let y = match op {
        Kind::Full(value, _) => {
            let value = e.number(value)?;
            Array::from_fn(shape, |_| value)
        }
        Kind::Iota(_) => Array::from_fn(shape, |i| i as f64),
        Kind::Reshape(_) => {
            let x = e.inputs[0];
            ensure(x.data.len() == shape.iter().product::<usize>(), || {
                format!("{:?} does not reshape to {shape:?}", x.shape)
            })?;
            Array { shape: shape.clone(), data: x.data.clone() }
        }
        Kind::Permute(axes) => {
            let steps = strides(&e.inputs[0].shape);
            let steps: Vec<usize> = axes.iter().map(|axis| steps[*axis]).collect();
            picked(e.inputs[0], shape, &offsets(shape, &steps))
        }
        Kind::Broadcast(_) => picked(e.inputs[0], shape, &broadcast_offsets(&e.inputs[0].shape, shape)),
        Kind::Slice { axis, start, end } => {
            let x = e.inputs[0];
            let (start, end) = (e.size(start)?, e.size(end)?);
            let fits = start <= end && end <= x.shape[axis] && end - start == shape[axis];
            ensure(fits, || format!("{start}..{end} is not a range of axis {axis} of {:?}", x.shape))?;
            let skipped = start * strides(&x.shape)[axis];
            let places: Vec<usize> = offsets(shape, &strides(&x.shape)).iter().map(|i| i + skipped).collect();
            picked(x, shape, &places)
        }
        Kind::Pad { axis, before, after } => {
            let x = e.inputs[0];
            let (before, after) = (e.size(before)?, e.size(after)?);
            ensure(x.shape[axis].checked_add(before).and_then(|n| n.checked_add(after)) == Some(shape[axis]), || {
                format!("{:?} padded by {before} and {after} is not {shape:?}", x.shape)
            })?;
            let mut padded = Array::zeros(shape);
            place(&mut padded, x, axis, before);
            padded
        }
        Kind::Concat(axis) => {
            let total: usize = e.inputs.iter().map(|part| part.shape[axis]).sum();
            ensure(total == shape[axis], || format!("the parts have {total} along axis {axis}, not {shape:?}"))?;
            let mut joined = Array::zeros(shape);
            let mut at = 0;
            for part in e.inputs {
                place(&mut joined, part, axis, at);
                at += part.shape[axis];
            }
            joined
        }
    };
    Ok(vec![y])
}

fn picked(x: &Array, shape: &[usize], places: &[usize]) -> Array {
    Array { shape: shape.to_vec(), data: places.iter().map(|i| x.data[*i]).collect() }
}

/// Writes `part` into `whole`, its first element at index `at` of `axis`.
fn place(whole: &mut Array, part: &Array, axis: usize, at: usize) {
    let steps = strides(&whole.shape);
    for (value, place) in part.data.iter().zip(offsets(&part.shape, &steps)) {
        whole.data[place + at * steps[axis]] = *value;
    }
}

pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let dy = r.dy;
    let dx = match op {
        Kind::Full(..) | Kind::Iota(_) => return Ok(Some(Vec::new())),
        Kind::Concat(axis) => return concat_grad(axis, r).map(Some),
        Kind::Reshape(_) => {
            let shape = r.ty(0).shape.clone();
            r.graph.reshape(dy, &shape)?
        }
        Kind::Permute(axes) => {
            let mut inverse = vec![0; axes.len()];
            for (to, from) in axes.iter().enumerate() {
                inverse[*from] = to;
            }
            r.graph.permute(dy, &inverse)?
        }
        Kind::Broadcast(_) => {
            let shape = r.ty(0).shape.clone();
            r.graph.sum_to(dy, &shape)?
        }
        Kind::Slice { axis, start, end } => {
            let after = &r.ty(0).shape[axis] - end;
            r.graph.push1(Op::Pad { axis, before: start.clone(), after }, &[dy])?
        }
        Kind::Pad { axis, before, .. } => {
            let end = before + &r.ty(0).shape[axis];
            r.graph.slice(dy, axis, before.clone(), end)?
        }
    };
    Ok(Some(vec![Some(dx)]))
}

fn concat_grad(axis: usize, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let mut grads = Vec::with_capacity(r.inputs.len());
    let mut start = Dim::default();
    for i in 0..r.inputs.len() {
        let end = &start + &r.ty(i).shape[axis];
        grads.push(if r.need(i) { Some(r.graph.slice(r.dy, axis, start, end.clone())?) } else { None });
        start = end;
    }
    Ok(grads)
}
