//! Reductions and softmax.

use super::{Op, TypeError, arity, require};
use crate::ir::{Dim, TensorType};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    if matches!(op, Op::SoftmaxGrad) {
        arity(operands, 2, 2, "2")?;
        require(operands[0] == operands[1], || format!("y is {} but dy is {}", operands[0], operands[1]))?;
        return Ok(vec![operands[0].clone()]);
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
