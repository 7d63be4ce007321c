//! AdamW and the exponential moving average, as semantic operations.

use super::{Op, TypeError, arity, require};
use crate::ir::TensorType;

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let (tensors, scalars): (&[usize], &[usize]) = match op {
        Op::Ema => (&[0, 1], &[2]),
        Op::AdamW { .. } => (&[0, 1, 2, 3], &[4, 5, 6, 7, 8]),
        _ => (&[0, 1, 2, 3, 9], &[4, 5, 6, 7, 8, 10]),
    };
    let count = tensors.len() + scalars.len();
    arity(operands, count, count, "3 (ema), 9 (adamw) or 11 (adamw_ema)")?;
    let p = operands[0];
    require(tensors.iter().all(|i| operands[*i] == p), || format!("all tensors must be {p}"))?;
    require(scalars.iter().all(|i| operands[*i].rank() == 0), || "rates must be scalars, f32[]".to_owned())?;
    let results = match op {
        Op::Ema => 1,
        Op::AdamW { .. } => 3,
        _ => 4,
    };
    Ok(vec![p.clone(); results])
}
