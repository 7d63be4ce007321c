//! Operations that move data without computing.

use super::elementwise::broadcast_offsets;
use super::rules::{bytes, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::{Array, offsets, strides};
use crate::ir::{Dim, GraphError, TensorType, ValueId};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Op::Full { ty, .. } => {
            arity(operands, 0, 0, "0")?;
            return Ok(vec![ty.clone()]);
        }
        Op::Concat { axis } => return concat(*axis, operands),
        _ => arity(operands, 1, 1, "1")?,
    }
    let x = operands[0];
    let shape = match op {
        Op::Reshape { shape } => {
            let tame = TensorType::new(x.dtype, shape.iter().cloned()).is_tame();
            require(tame && x.is_tame(), || "the shape is too complicated".to_owned())?;
            require(Dim::product(shape) == x.elements(), || format!("{x} has not as many elements as {shape:?}"))?;
            shape.clone()
        }
        Op::Permute { axes } => {
            let mut sorted = axes.clone();
            sorted.sort_unstable();
            require(sorted.into_iter().eq(0..x.rank()), || format!("{axes:?} is no permutation of the axes of {x}"))?;
            axes.iter().map(|axis| x.shape[*axis].clone()).collect()
        }
        Op::Broadcast { shape } => {
            let fits =
                shape.len() == x.rank() && x.shape.iter().zip(shape).all(|(from, to)| from == to || from.is_one());
            require(fits, || format!("{x} does not broadcast to {shape:?}"))?;
            shape.clone()
        }
        Op::Slice { axis, start, end } => {
            let left = x.shape.get(*axis).map(|dim| dim - end).unwrap_or_default();
            require(!is_negative(start) && !is_negative(&left), || {
                format!("{start}..{end} is no range of axis {axis} of {x}")
            })?;
            resized(x, *axis, |_| end - start)?
        }
        Op::Pad { axis, before, after } => {
            let fits = !is_negative(before) && !is_negative(after);
            require(fits, || format!("cannot pad by {before} and {after}"))?;
            resized(x, *axis, |dim| &(dim + before) + after)?
        }
        other => return Err(TypeError::Mismatch(format!("{} is no shape operation", other.name()))),
    };
    Ok(vec![TensorType::new(x.dtype, shape)])
}

/// True for a number below zero; what symbols make of it is known only at a run.
fn is_negative(dim: &Dim) -> bool {
    dim.as_const().is_some_and(|n| n < 0)
}

fn resized(x: &TensorType, axis: usize, size: impl Fn(&Dim) -> Dim) -> Result<Vec<Dim>, TypeError> {
    require(axis < x.rank(), || format!("{x} has no axis {axis}"))?;
    let mut shape = x.shape.clone();
    shape[axis] = size(&shape[axis]);
    require(!is_negative(&shape[axis]), || format!("axis {axis} of {x} would become negative"))?;
    Ok(shape)
}

fn concat(axis: usize, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
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
    Ok(vec![result])
}

/// No arithmetic; a reshape moves nothing, a slice reads only what it keeps.
pub(super) fn cost(op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    match op {
        Op::Reshape { .. } => Cost::default(),
        Op::Slice { .. } => Cost { flops: Dim::default(), bytes: &bytes(results[0]) * &Dim::from(2usize) },
        _ => Cost::streaming(0, &Dim::default(), operands, results),
    }
}

pub(super) fn eval(op: &Op, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let shape = &e.results[0];
    if let Op::Full { value, .. } = op {
        let value = e.number(value)?;
        return Ok(vec![Array::from_fn(shape, |_| value)]);
    }
    let x = e.inputs[0];
    let y = match op {
        Op::Reshape { .. } => {
            ensure(x.data.len() == shape.iter().product::<usize>(), || {
                format!("{:?} does not reshape to {shape:?}", x.shape)
            })?;
            Array { shape: shape.clone(), data: x.data.clone() }
        }
        Op::Permute { axes } => {
            let steps = strides(&x.shape);
            let steps: Vec<usize> = axes.iter().map(|axis| steps[*axis]).collect();
            picked(x, shape, &offsets(shape, &steps))
        }
        Op::Broadcast { .. } => picked(x, shape, &broadcast_offsets(&x.shape, shape)),
        Op::Slice { axis, start, end } => {
            let (start, end) = (e.size(start)?, e.size(end)?);
            let fits = start <= end && end <= x.shape[*axis] && end - start == shape[*axis];
            ensure(fits, || format!("{start}..{end} is no range of axis {axis} of {:?}", x.shape))?;
            let skipped = start * strides(&x.shape)[*axis];
            let places: Vec<usize> = offsets(shape, &strides(&x.shape)).iter().map(|i| i + skipped).collect();
            picked(x, shape, &places)
        }
        Op::Pad { axis, before, after } => {
            let (before, after) = (e.size(before)?, e.size(after)?);
            ensure(
                x.shape[*axis].checked_add(before).and_then(|n| n.checked_add(after)) == Some(shape[*axis]),
                || format!("{:?} padded by {before} and {after} is not {shape:?}", x.shape),
            )?;
            let mut padded = Array::zeros(shape);
            place(&mut padded, x, *axis, before);
            padded
        }
        Op::Concat { axis } => {
            let total: usize = e.inputs.iter().map(|part| part.shape[*axis]).sum();
            ensure(total == shape[*axis], || format!("the parts have {total} along axis {axis}, not {shape:?}"))?;
            let mut joined = Array::zeros(shape);
            let mut at = 0;
            for part in e.inputs {
                place(&mut joined, part, *axis, at);
                at += part.shape[*axis];
            }
            joined
        }
        _ => x.clone(),
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

pub(super) fn grad(op: &Op, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    if let Op::Concat { axis } = op {
        return concat_grad(*axis, r);
    }
    if r.inputs.is_empty() {
        return Ok(Vec::new());
    }
    let shape = r.ty(0).shape.clone();
    let dy = r.dy;
    let g = &mut *r.graph;
    let dx = match op {
        Op::Reshape { .. } => g.reshape(dy, &shape)?,
        Op::Permute { axes } => {
            let mut inverse = vec![0; axes.len()];
            for (to, from) in axes.iter().enumerate() {
                inverse[*from] = to;
            }
            g.permute(dy, &inverse)?
        }
        Op::Broadcast { .. } => g.sum_to(dy, &shape)?,
        Op::Slice { axis, start, end } => {
            let after = &shape[*axis] - end;
            g.push1(Op::Pad { axis: *axis, before: start.clone(), after }, &[dy])?
        }
        Op::Pad { axis, before, .. } => g.slice(dy, *axis, before.clone(), before + &shape[*axis])?,
        _ => dy,
    };
    Ok(vec![Some(dx)])
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
