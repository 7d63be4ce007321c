//! The distance of predicted tokens from normalised ones, and its gradient, with neither the normalised tokens nor the gathered
//! ones in memory.

use super::rules::{Grads, Parts, bytes};
use super::{Cost, Eval, EvalError, Op, TypeError, Unary, arity, require, tokens};
use crate::interp::Array;
use crate::ir::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Forward { eps: f64 },
    Backward { eps: f64, scale: &'a Scalar },
}

impl Kind<'_> {
    fn eps(self) -> f64 {
        match self {
            Kind::Forward { eps } | Kind::Backward { eps, .. } => eps,
        }
    }
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    arity(operands, 3, 3, "3")?;
    let (y, x, index) = (operands[0], operands[1], operands[2]);
    let fit = y.rank() == 3 && x.rank() == 3 && index.dtype == DType::I32 && index.shape[..] == y.shape[..2];
    require(fit && y.dtype.is_float() && y.dtype == x.dtype && y.shape[2] == x.shape[2], || {
        format!("needs tokens [B, K, D], others [B, N, D] and an index i32[B, K], got {y}, {x} and {index}")
    })?;
    require(x.shape[0].is_one() || x.shape[0] == y.shape[0], || format!("batches of {x} and {y} differ"))?;
    Ok(vec![match op {
        Kind::Forward { .. } => TensorType::new(y.dtype, [y.shape[0].clone(), y.shape[1].clone(), Dim::from(1usize)]),
        Kind::Backward { .. } => y.clone(),
    }])
}

/// 11 operations per element of the predicted tokens; of the others, the rows that are gathered count.
pub(super) fn cost(operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let mut cost = Cost::streaming(11, &operands[0].elements(), &[operands[0], operands[2]], results);
    cost.bytes = &cost.bytes + &bytes(operands[0]);
    cost
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let y = e.inputs[0];
    let target = tokens::gathered(e.inputs[1], e.inputs[2], &y.shape)?;
    let mut result = Array::zeros(&e.results[0]);
    let width = y.last().max(1);
    let scale = match op {
        Kind::Forward { .. } => 1.0 / width as f64,
        Kind::Backward { scale, .. } => e.number(scale)?,
    };
    for (at, (y, target)) in y.rows().zip(target.rows()).enumerate() {
        let (normal, _) = super::norm::normalised(target, op.eps());
        for (i, (y, normal)) in y.iter().zip(&normal).enumerate() {
            match op {
                Kind::Forward { .. } => result.data[at] += scale * (y - normal).abs(),
                Kind::Backward { .. } => result.data[at * width + i] = scale * Unary::Sign.apply(y - normal),
            }
        }
    }
    Ok(vec![result])
}

/// Layer norm, a gather and a difference.
pub(super) fn decompose(op: Kind<'_>, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let normal = g.push1(Op::LayerNorm { eps: op.eps() }, &[inputs[1]])?;
    let target = g.push1(Op::GatherTokens, &[normal, inputs[2]])?;
    let difference = g.sub(inputs[0], target)?;
    Ok(Some(vec![match op {
        Kind::Forward { .. } => {
            let distance = g.unary(Unary::Abs, difference)?;
            g.mean(distance, &[2])?
        }
        Kind::Backward { scale, .. } => {
            let sign = g.unary(Unary::Sign, difference)?;
            g.mul_scalar(sign, scale.clone())?
        }
    }]))
}

/// Made of differentiated graphs only.
pub(super) fn grad(op: Kind<'_>) -> Grads {
    match op {
        Kind::Forward { .. } | Kind::Backward { .. } => None,
    }
}
