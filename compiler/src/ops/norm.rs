//! Layer normalisation over the last axis.

use super::{Op, TypeError, arity, require};
use crate::ir::TensorType;

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let x = *operands.first().ok_or(TypeError::Arity { expected: "1 or more", got: 0 })?;
    let affine = |ty: &&TensorType| ty.rank() == 1 && ty.shape.last() == x.shape.last();
    match op {
        Op::LayerNorm { .. } => {
            require(matches!(operands.len(), 1 | 3), || "takes x, or x, weight and bias".to_owned())?;
            require(operands[1..].iter().all(affine), || format!("weight and bias do not fit {x}"))?;
            Ok(vec![x.clone()])
        }
        _ => {
            arity(operands, 2, 3, "2 or 3")?;
            require(operands[1] == x, || format!("dy is {} but x is {x}", operands[1]))?;
            require(operands[2..].iter().all(affine), || format!("weight does not fit {x}"))?;
            let mut results = vec![x.clone()];
            if let Some(weight) = operands.get(2) {
                results.extend([(*weight).clone(), (*weight).clone()]);
            }
            Ok(results)
        }
    }
}
