//! Sums over the ranks of a run: whole, or begun and ended so that what stands between is computed meanwhile.
//!
//! A graph is the program of one rank. Alone it sums over itself, which changes nothing: so do the interpreter and an executor
//! that was given no other ranks.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, TypeError, require};
use crate::interp::Array;
use crate::ir::{DType, Dim, TensorType};

/// The operations of this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Whole,
    Start,
    Done,
}

pub(super) fn infer(operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    require(!operands.is_empty(), || "needs at least one operand".to_owned())?;
    require(operands.iter().all(|ty| ty.dtype == DType::F32), || "all operands must be f32".to_owned())?;
    Ok(operands.iter().map(|ty| (*ty).clone()).collect())
}

/// One addition per element, where they are made; a sum's end only waits.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let elements = operands.iter().fold(Dim::default(), |sum, ty| &sum + &ty.elements());
    match op {
        Kind::Whole => Cost::streaming(1, &elements, operands, results),
        Kind::Start => Cost::streaming(1, &elements, operands, &[]),
        Kind::Done => Cost::streaming(0, &elements, &[], results),
    }
}

/// Of one rank.
pub(super) fn eval(e: &Eval<'_>) -> Vec<Array> {
    e.inputs.iter().map(|x| (*x).clone()).collect()
}

pub(super) fn decompose(op: Kind) -> Parts {
    match op {
        Kind::Whole | Kind::Start | Kind::Done => None,
    }
}

/// What is summed is gradients, which are not differentiated.
pub(super) fn grad(op: Kind) -> Grads {
    match op {
        Kind::Whole | Kind::Start | Kind::Done => None,
    }
}
