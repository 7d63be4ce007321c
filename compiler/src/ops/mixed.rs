//! Operations on f32 with an operand or a result of 16 bits, which are widened where they are read or narrowed where they are
//! written: no cast goes through memory.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, TypeError, arity, norm, require};
use crate::interp::Array;
use crate::ir::{DType, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Norm { eps: f64, to: DType },
    Add,
}

impl Kind {
    fn norm(eps: f64) -> norm::Kind {
        norm::Kind::Forward { eps }
    }
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Norm { eps, to } => {
            require(to.is_narrow(), || format!("`to` is 16 bits, not {}", to.name()))?;
            let wide = norm::infer(Kind::norm(eps), operands)?;
            require(wide.iter().all(|ty| ty.dtype == DType::F32), || format!("needs f32, got {}", operands[0]))?;
            Ok(wide.into_iter().map(|ty| TensorType::new(to, ty.shape)).collect())
        }
        Kind::Add => {
            arity(operands, 2, 2, "2")?;
            let (a, b) = (operands[0], operands[1]);
            require(a.dtype == DType::F32 && b.dtype.is_narrow(), || format!("adds 16 bits to f32, not {b} to {a}"))?;
            require(a.shape == b.shape, || format!("{a} and {b} have different shapes"))?;
            Ok(vec![a.clone()])
        }
    }
}

/// As in f32, and only the bytes there are.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    match op {
        Kind::Norm { eps, .. } => norm::cost(Kind::norm(eps), operands, results),
        Kind::Add => Cost::streaming(1, &operands[0].elements(), operands, results),
    }
}

/// The interpreter rounds every result to its element type.
pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    match op {
        Kind::Norm { eps, .. } => norm::eval(Kind::norm(eps), e),
        Kind::Add => {
            let (a, b) = (e.inputs[0], e.inputs[1]);
            let data = a.data.iter().zip(&b.data).map(|(a, b)| a + b).collect();
            Ok(vec![Array { shape: a.shape.clone(), data }])
        }
    }
}

/// The operation in f32 and the cast.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    match op {
        Kind::Norm { eps, to } => {
            let y = g.push1(Op::LayerNorm { eps }, inputs)?;
            Ok(Some(vec![g.cast(y, to)?]))
        }
        Kind::Add => {
            let b = g.cast(inputs[1], DType::F32)?;
            Ok(Some(vec![g.add(inputs[0], b)?]))
        }
    }
}

/// Made of differentiated graphs only.
pub(super) fn grad(op: Kind) -> Grads {
    match op {
        Kind::Norm { .. } | Kind::Add => None,
    }
}
