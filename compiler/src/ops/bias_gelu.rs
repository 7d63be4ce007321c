//! GELU of a linear layer's result before its bias is added: what reads the result adds the bias, and a pass over memory is
//! saved. The result may be in 16 bits where the bias is in 32; the arithmetic, and the bias's gradient, then are in 32.

use super::functions::gelu_slope;
use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, TypeError, Unary, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Forward,
    Backward { result: bool },
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Forward => arity(operands, 2, 2, "2")?,
        Kind::Backward { .. } => arity(operands, 3, 3, "3")?,
    }
    let (x, bias) = (operands[0], operands[1]);
    require(x.dtype.is_float() && x.rank() > 0, || format!("needs floats with at least one axis, got {x}"))?;
    let fits = bias.dtype == x.dtype || (bias.dtype == DType::F32 && x.dtype.is_narrow());
    require(fits && bias.rank() == 1 && bias.shape.last() == x.shape.last(), || {
        format!("bias {bias} does not fit {x}")
    })?;
    require(operands[2..].iter().all(|dy| *dy == x), || format!("dy is {} but x is {x}", operands[2]))?;
    Ok(match op {
        Kind::Forward => vec![x.clone()],
        Kind::Backward { result: false } => vec![x.clone(), bias.clone()],
        Kind::Backward { result: true } => vec![x.clone(), x.clone(), bias.clone()],
    })
}

/// 9 operations per element forward, 14 backward, 15 for both.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Forward => 9,
        Kind::Backward { result: false } => 14,
        Kind::Backward { result: true } => 15,
    };
    Cost::streaming(per_element, &operands[0].elements(), operands, results)
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let (x, bias) = (e.inputs[0], e.inputs[1]);
    let width = bias.data.len();
    let sums: Vec<f64> = x.data.iter().enumerate().map(|(i, x)| x + bias.data[i % width]).collect();
    let shaped = |data| Array { shape: x.shape.clone(), data };
    let y = || shaped(sums.iter().map(|sum| Unary::Gelu.apply(*sum)).collect());
    let result = match op {
        Kind::Forward => return Ok(vec![y()]),
        Kind::Backward { result } => result,
    };
    let dx: Vec<f64> = e.inputs[2].data.iter().zip(&sums).map(|(dy, sum)| dy * gelu_slope(*sum)).collect();
    let mut dbias = Array::zeros(&bias.shape);
    for (i, dx) in dx.iter().enumerate() {
        dbias.data[i % width] += dx;
    }
    let mut results = if result { vec![y()] } else { Vec::new() };
    results.extend([shaped(dx), dbias]);
    Ok(results)
}

/// A sum, and GELU or its gradient.
pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let [narrow, wide] = [inputs[0], inputs[1]].map(|id| g.ty(id).dtype);
    let x = g.cast(inputs[0], wide)?;
    let sum = g.add(x, inputs[1])?;
    let mut results = match op {
        Kind::Forward => vec![g.unary(Unary::Gelu, sum)?],
        Kind::Backward { result } => {
            let dy = g.cast(inputs[2], wide)?;
            g.push(if result { Op::GeluWithGrad } else { Op::GeluGrad }, &[sum, dy])?
        }
    };
    let dbias = match (op, results.last()) {
        (Kind::Backward { .. }, Some(dx)) => Some(g.sum_to(*dx, &g.ty(inputs[1]).shape.clone())?),
        _ => None,
    };
    for y in &mut results {
        *y = g.cast(*y, narrow)?;
    }
    results.extend(dbias);
    Ok(Some(results))
}

/// Made of differentiated graphs only.
pub(super) fn grad(op: Kind) -> Grads {
    match op {
        Kind::Forward | Kind::Backward { .. } => None,
    }
}
