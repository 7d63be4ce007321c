//! Elementwise operations.

use super::{Op, TypeError, arity, require};
use crate::ir::{Dim, TensorType};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Op::Binary(_) => {
            arity(operands, 2, 2, "2")?;
            require(operands[0].dtype == operands[1].dtype, || {
                format!("element types differ: {} and {}", operands[0], operands[1])
            })?;
            let shape = broadcast_shapes(&operands[0].shape, &operands[1].shape)
                .ok_or_else(|| TypeError::Mismatch(format!("{} and {} do not broadcast", operands[0], operands[1])))?;
            Ok(vec![TensorType::new(operands[0].dtype, shape)])
        }
        Op::GeluGrad => {
            arity(operands, 2, 2, "2")?;
            require(operands[0] == operands[1], || format!("x is {} but dy is {}", operands[0], operands[1]))?;
            Ok(vec![operands[0].clone()])
        }
        Op::Cast(dtype) => {
            arity(operands, 1, 1, "1")?;
            Ok(vec![TensorType::new(*dtype, operands[0].shape.iter().cloned())])
        }
        _ => {
            arity(operands, 1, 1, "1")?;
            require(operands[0].dtype.is_float(), || format!("needs floats, got {}", operands[0]))?;
            Ok(vec![operands[0].clone()])
        }
    }
}

/// NumPy broadcasting; `None` when two sizes differ and neither is 1.
pub(crate) fn broadcast_shapes(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let one = Dim::from(1usize);
    let at = |shape: &[Dim], axis: usize| -> Dim {
        (axis + shape.len()).checked_sub(rank).map_or_else(|| one.clone(), |i| shape[i].clone())
    };
    (0..rank)
        .map(|axis| match (at(a, axis), at(b, axis)) {
            (x, y) if x == y => Some(x),
            (x, y) if y.is_one() => Some(x),
            (x, y) if x.is_one() => Some(y),
            _ => None,
        })
        .collect()
}
