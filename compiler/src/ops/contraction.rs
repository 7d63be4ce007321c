//! Matrix products.

use super::{Op, TypeError, arity, require};
use crate::ir::TensorType;

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Op::MatMul { ta, tb } => {
            arity(operands, 2, 2, "2")?;
            let (a, b) = (operands[0], operands[1]);
            require(a.rank() >= 2 && a.rank() == b.rank() && a.dtype == b.dtype, || {
                format!("{a} and {b} are not matrices of one rank and element type")
            })?;
            let lead = a.rank() - 2;
            require(a.shape[..lead] == b.shape[..lead], || format!("leading axes of {a} and {b} differ"))?;
            let (m, ka) = if *ta { (lead + 1, lead) } else { (lead, lead + 1) };
            let (kb, n) = if *tb { (lead + 1, lead) } else { (lead, lead + 1) };
            require(a.shape[ka] == b.shape[kb], || {
                format!("inner sizes differ: {} in {a} and {} in {b}", a.shape[ka], b.shape[kb])
            })?;
            let mut shape = a.shape[..lead].to_vec();
            shape.extend([a.shape[m].clone(), b.shape[n].clone()]);
            Ok(vec![TensorType::new(a.dtype, shape)])
        }
        _ => {
            arity(operands, 2, 3, "2 or 3")?;
            let (x, weight) = (operands[0], operands[1]);
            require(x.rank() >= 1 && weight.rank() == 2 && x.shape.last() == weight.shape.last(), || {
                format!("weight {weight} does not fit {x}: [out, in] with in = the last axis is needed")
            })?;
            require(operands.get(2).is_none_or(|bias| bias.shape == weight.shape[..1]), || {
                format!("bias does not fit weight {weight}")
            })?;
            require(operands.iter().all(|ty| ty.dtype == x.dtype), || "element types differ".to_owned())?;
            let mut shape = x.shape[..x.rank() - 1].to_vec();
            shape.push(weight.shape[0].clone());
            Ok(vec![TensorType::new(x.dtype, shape)])
        }
    }
}
