//! Layer normalisation over the last axis.

use super::rules::{Grads, Parts};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Forward { eps: f64 },
    Backward { eps: f64 },
}

pub(super) fn infer(op: Kind, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    let x = *operands.first().ok_or(TypeError::Arity { expected: "1 or more", got: 0 })?;
    require(x.dtype.is_float() && x.rank() > 0, || format!("needs floats with at least one axis, got {x}"))?;
    let affine = |ty: &&TensorType| ty.rank() == 1 && ty.dtype == x.dtype && ty.shape.last() == x.shape.last();
    match op {
        Kind::Forward { .. } => {
            require(matches!(operands.len(), 1 | 3), || "takes x, or x, weight and bias".to_owned())?;
            require(operands[1..].iter().all(affine), || format!("weight and bias do not fit {x}"))?;
            Ok(vec![x.clone()])
        }
        Kind::Backward { .. } => {
            arity(operands, 2, 3, "2 or 3")?;
            // Gradients of products come in 16 bits.
            let alike = operands[1].dtype == x.dtype || (x.dtype == DType::F32 && operands[1].dtype.is_narrow());
            require(alike && operands[1].shape == x.shape, || format!("dy is {} but x is {x}", operands[1]))?;
            require(operands[2..].iter().all(affine), || format!("weight does not fit {x}"))?;
            let mut results = vec![x.clone()];
            if let Some(weight) = operands.get(2) {
                results.extend([(*weight).clone(), (*weight).clone()]);
            }
            Ok(results)
        }
    }
}

/// 8 operations per element forward, 14 backward.
pub(super) fn cost(op: Kind, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Forward { .. } => 8,
        Kind::Backward { .. } => 14,
    };
    Cost::streaming(per_element, &operands[0].elements(), operands, results)
}

pub(super) fn eval(op: Kind, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    Ok(match op {
        Kind::Forward { eps } => vec![forward(e, eps)],
        Kind::Backward { eps } => backward(e, eps),
    })
}

/// The normalised row, and 1 over its deviation.
pub(super) fn normalised(row: &[f64], eps: f64) -> (Vec<f64>, f64) {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let inverse = (variance + eps).sqrt().recip();
    (row.iter().map(|x| (x - mean) * inverse).collect(), inverse)
}

fn forward(e: &Eval<'_>, eps: f64) -> Array {
    let x = e.inputs[0];
    let mut y = Array { shape: x.shape.clone(), data: x.rows().flat_map(|row| normalised(row, eps).0).collect() };
    if let [_, weight, bias] = e.inputs {
        for row in y.data.chunks_mut(x.last().max(1)) {
            for ((y, w), b) in row.iter_mut().zip(&weight.data).zip(&bias.data) {
                *y = *y * w + b;
            }
        }
    }
    y
}

fn backward(e: &Eval<'_>, eps: f64) -> Vec<Array> {
    let (x, dy, weight) = (e.inputs[0], e.inputs[1], e.inputs.get(2));
    let width = x.last();
    let mut dx = Vec::with_capacity(x.data.len());
    let (mut dweight, mut dbias) = (Array::zeros(&[width]), Array::zeros(&[width]));
    for (row, dy) in x.rows().zip(dy.rows()) {
        let (hat, inverse) = normalised(row, eps);
        let scaled: Vec<f64> = dy.iter().enumerate().map(|(i, dy)| dy * weight.map_or(1.0, |w| w.data[i])).collect();
        let mean = scaled.iter().sum::<f64>() / width as f64;
        let along = scaled.iter().zip(&hat).map(|(g, h)| g * h).sum::<f64>() / width as f64;
        dx.extend(scaled.iter().zip(&hat).map(|(g, h)| inverse * (g - mean - h * along)));
        for i in 0..width {
            dweight.data[i] += dy[i] * hat[i];
            dbias.data[i] += dy[i];
        }
    }
    let mut results = vec![Array { shape: x.shape.clone(), data: dx }];
    if weight.is_some() {
        results.extend([dweight, dbias]);
    }
    results
}

pub(super) fn decompose(op: Kind, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    let last = [g.ty(inputs[0]).rank().saturating_sub(1)];
    let (Kind::Forward { eps } | Kind::Backward { eps }) = op;
    let mean = g.mean(inputs[0], &last)?;
    let centred = g.sub(inputs[0], mean)?;
    let square = g.mul(centred, centred)?;
    let variance = g.mean(square, &last)?;
    let shifted = g.add_scalar(variance, eps)?;
    let inverse = g.push1(Op::PowScalar(-0.5), &[shifted])?;
    let hat = g.mul(centred, inverse)?;
    match op {
        Kind::Backward { .. } => {
            let dy = g.cast(inputs[1], g.ty(inputs[0]).dtype)?;
            decompose_grad(g, (hat, inverse), dy, inputs.get(2).copied()).map(Some)
        }
        // With one operand, without weight and bias.
        Kind::Forward { .. } if inputs.len() == 1 => Ok(Some(vec![hat])),
        Kind::Forward { .. } => {
            let scaled = g.mul(hat, inputs[1])?;
            Ok(Some(vec![g.add(scaled, inputs[2])?]))
        }
    }
}

fn decompose_grad(
    g: &mut Graph,
    (hat, inverse): (ValueId, ValueId),
    dy: ValueId,
    weight: Option<ValueId>,
) -> Result<Vec<ValueId>, GraphError> {
    let last = [g.ty(dy).rank().saturating_sub(1)];
    let scaled = match weight {
        Some(weight) => g.mul(dy, weight)?,
        None => dy,
    };
    let mean = g.mean(scaled, &last)?;
    let product = g.mul(scaled, hat)?;
    let along = g.mean(product, &last)?;
    let pulled = g.mul(hat, along)?;
    let centred = g.sub(scaled, mean)?;
    let inner = g.sub(centred, pulled)?;
    let mut results = vec![g.mul(inner, inverse)?];
    if let Some(weight) = weight {
        let shape = g.ty(weight).shape.clone();
        let weighted = g.mul(dy, hat)?;
        results.push(g.sum_to(weighted, &shape)?);
        results.push(g.sum_to(dy, &shape)?);
    }
    Ok(results)
}

pub(super) fn grad(op: Kind, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let eps = match op {
        Kind::Forward { eps } => eps,
        Kind::Backward { .. } => return Ok(None),
    };
    let mut operands = vec![r.inputs[0], r.dy];
    operands.extend(r.inputs.get(1));
    let grads = r.graph.push(Op::LayerNormGrad { eps }, &operands)?;
    Ok(Some(grads.into_iter().map(Some).collect()))
}
