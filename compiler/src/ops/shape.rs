//! Operations that move data without computing.

use super::{Op, TypeError, arity, require};
use crate::ir::{Dim, TensorType};

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
        Op::Slice { axis, start, end } => resized(x, *axis, |_| end - start)?,
        Op::Pad { axis, before, after } => resized(x, *axis, |dim| &(dim + before) + after)?,
        other => return Err(TypeError::Mismatch(format!("{} is no shape operation", other.name()))),
    };
    Ok(vec![TensorType::new(x.dtype, shape)])
}

fn resized(x: &TensorType, axis: usize, size: impl Fn(&Dim) -> Dim) -> Result<Vec<Dim>, TypeError> {
    require(axis < x.rank(), || format!("{x} has no axis {axis}"))?;
    let mut shape = x.shape.clone();
    shape[axis] = size(&shape[axis]);
    require(shape[axis].as_const().is_none_or(|n| n >= 0), || format!("axis {axis} of {x} would become negative"))?;
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
