//! Scaled dot-product attention without a mask.

use super::{Op, TypeError, arity, require};
use crate::ir::TensorType;

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let backward = matches!(op, Op::AttentionGrad { .. });
    if backward {
        arity(operands, 5, 5, "5")?
    } else {
        arity(operands, 3, 3, "3")?
    }
    let (q, k, v) = (operands[0], operands[1], operands[2]);
    let fits = q.rank() == 4
        && k == v
        && k.rank() == 4
        && q.dtype == k.dtype
        && q.shape[..2] == k.shape[..2]
        && q.shape[3] == k.shape[3];
    require(fits, || format!("needs q[B, H, N, d] and k, v[B, H, M, d], got {q}, {k} and {v}"))?;
    if backward {
        require(operands[3] == q && operands[4] == q, || format!("y and dy must be {q}"))?;
        Ok(vec![q.clone(), k.clone(), v.clone()])
    } else {
        Ok(vec![q.clone()])
    }
}
