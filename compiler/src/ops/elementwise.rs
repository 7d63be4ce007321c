//! Elementwise operations.

use super::functions::gelu_slope;
use super::rules::{Grads, Parts};
use super::{Binary, Cost, Eval, EvalError, Op, Reverse, TypeError, Unary, arity, require};
use crate::interp::{Array, offsets, strides};
use crate::ir::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Unary(Unary),
    Binary(Binary),
    AddScalar(&'a Scalar),
    MulScalar(&'a Scalar),
    PowScalar(f64),
    GeluGrad,
    GeluWithGrad,
    Cast(DType),
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Binary(_) => {
            arity(operands, 2, 2, "2")?;
            require(operands[0].dtype == operands[1].dtype, || {
                format!("element types differ: {} and {}", operands[0], operands[1])
            })?;
            let shape = broadcast_shapes(&operands[0].shape, &operands[1].shape)
                .ok_or_else(|| TypeError::Mismatch(format!("{} and {} do not broadcast", operands[0], operands[1])))?;
            Ok(vec![TensorType::new(operands[0].dtype, shape)])
        }
        Kind::GeluGrad => Ok(vec![gelu_operand(operands)?]),
        Kind::GeluWithGrad => Ok(vec![gelu_operand(operands)?; 2]),
        Kind::Cast(dtype) => {
            arity(operands, 1, 1, "1")?;
            Ok(vec![TensorType::new(dtype, operands[0].shape.iter().cloned())])
        }
        Kind::Unary(_) | Kind::AddScalar(_) | Kind::MulScalar(_) | Kind::PowScalar(_) => {
            arity(operands, 1, 1, "1")?;
            require(operands[0].dtype.is_float(), || format!("needs floats, got {}", operands[0]))?;
            Ok(vec![operands[0].clone()])
        }
    }
}

/// The type of `x` and `dy`, which must be the same.
fn gelu_operand(operands: &[&TensorType]) -> Result<TensorType, TypeError> {
    arity(operands, 2, 2, "2")?;
    require(operands[0] == operands[1], || format!("x is {} but dy is {}", operands[0], operands[1]))?;
    require(operands[0].dtype.is_float(), || format!("needs floats, got {}", operands[0]))?;
    Ok(operands[0].clone())
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

/// One operation per element; 8 for GELU, 12 for its gradient and 13 for both; none for a cast.
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let per_element = match op {
        Kind::Unary(Unary::Gelu) => 8,
        Kind::GeluGrad => 12,
        Kind::GeluWithGrad => 13,
        Kind::Cast(_) => 0,
        Kind::Unary(_) | Kind::Binary(_) | Kind::AddScalar(_) | Kind::MulScalar(_) | Kind::PowScalar(_) => 1,
    };
    Cost::streaming(per_element, &results[0].elements(), operands, results)
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let x = e.inputs[0];
    let y = match op {
        Kind::Unary(f) => x.map(|x| f.apply(x)),
        Kind::Binary(f) => zip(x, e.inputs[1], &e.results[0], |a, b| f.apply(a, b)),
        Kind::AddScalar(c) => {
            let c = e.number(c)?;
            x.map(|x| x + c)
        }
        Kind::MulScalar(c) => {
            let c = e.number(c)?;
            x.map(|x| c * x)
        }
        Kind::PowScalar(c) => x.map(|x| x.powf(c)),
        Kind::GeluGrad => zip(x, e.inputs[1], &e.results[0], |x, dy| dy * gelu_slope(x)),
        Kind::GeluWithGrad => {
            let y = x.map(|x| Unary::Gelu.apply(x));
            return Ok(vec![y, zip(x, e.inputs[1], &e.results[1], |x, dy| dy * gelu_slope(x))]);
        }
        // The interpreter rounds every result to its element type.
        Kind::Cast(_) => x.clone(),
    };
    Ok(vec![y])
}

fn zip(a: &Array, b: &Array, shape: &[usize], f: impl Fn(f64, f64) -> f64) -> Array {
    let (left, right) = (broadcast_offsets(&a.shape, shape), broadcast_offsets(&b.shape, shape));
    let data = left.iter().zip(&right).map(|(i, j)| f(a.data[*i], b.data[*j])).collect();
    Array { shape: shape.to_vec(), data }
}

/// For every element of `to`, where a tensor of shape `from` has the element broadcast there.
pub(super) fn broadcast_offsets(from: &[usize], to: &[usize]) -> Vec<usize> {
    let mut steps = vec![0; to.len() - from.len()];
    let own = from.iter().zip(strides(from)).zip(&to[to.len() - from.len()..]);
    steps.extend(own.map(|((size, stride), result)| if size == result { stride } else { 0 }));
    offsets(to, &steps)
}

/// `gelu` and `gelu_grad` in terms of erf; `gelu_with_grad` as the two of them.
pub(super) fn decompose(op: Kind<'_>, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    Ok(match op {
        Kind::Unary(Unary::Gelu) => {
            let cdf = normal_cdf(g, inputs[0])?;
            Some(vec![g.mul(inputs[0], cdf)?])
        }
        Kind::GeluGrad => Some(vec![decompose_gelu_grad(g, inputs[0], inputs[1])?]),
        Kind::GeluWithGrad => Some(vec![g.unary(Unary::Gelu, inputs[0])?, g.push1(Op::GeluGrad, inputs)?]),
        Kind::Unary(_)
        | Kind::Binary(_)
        | Kind::AddScalar(_)
        | Kind::MulScalar(_)
        | Kind::PowScalar(_)
        | Kind::Cast(_) => None,
    })
}

/// Φ(x).
fn normal_cdf(g: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let scaled = g.mul_scalar(x, std::f64::consts::FRAC_1_SQRT_2)?;
    let erf = g.unary(Unary::Erf, scaled)?;
    let twice = g.add_scalar(erf, 1.0)?;
    g.mul_scalar(twice, 0.5)
}

/// `dy·(Φ(x) + x·φ(x))`.
fn decompose_gelu_grad(g: &mut Graph, x: ValueId, dy: ValueId) -> Result<ValueId, GraphError> {
    let cdf = normal_cdf(g, x)?;
    let square = g.mul(x, x)?;
    let exponent = g.mul_scalar(square, -0.5)?;
    let bell = g.unary(Unary::Exp, exponent)?;
    let density = g.mul_scalar(bell, 1.0 / (2.0 * std::f64::consts::PI).sqrt())?;
    let weighted = g.mul(x, density)?;
    let slope = g.add(cdf, weighted)?;
    g.mul(dy, slope)
}

pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let (x, dy) = (r.inputs[0], r.dy);
    let dx = match op {
        Kind::Unary(f) => unary_grad(f, r)?,
        Kind::Binary(f) => return binary_grad(f, r).map(Some),
        Kind::AddScalar(_) => Some(dy),
        Kind::MulScalar(c) => Some(r.graph.mul_scalar(dy, c.clone())?),
        // x⁰ is constant.
        Kind::PowScalar(0.0) => None,
        Kind::PowScalar(c) => {
            let power = r.graph.push1(Op::PowScalar(c - 1.0), &[x])?;
            let slope = r.graph.mul_scalar(power, c)?;
            Some(r.graph.mul(dy, slope)?)
        }
        Kind::Cast(_) => {
            let dtype = r.ty(0).dtype;
            Some(r.graph.cast(dy, dtype)?)
        }
        Kind::GeluGrad | Kind::GeluWithGrad => return Ok(None),
    };
    Ok(Some(vec![dx]))
}

fn unary_grad(f: Unary, r: &mut Reverse<'_>) -> Result<Option<ValueId>, GraphError> {
    let (x, y, dy) = (r.inputs[0], r.y, r.dy);
    let g = &mut *r.graph;
    let dx = match f {
        Unary::Neg => g.unary(Unary::Neg, dy)?,
        Unary::Sign | Unary::Step => return Ok(None),
        Unary::Abs | Unary::Relu => {
            let slope = g.unary(if f == Unary::Abs { Unary::Sign } else { Unary::Step }, x)?;
            g.mul(dy, slope)?
        }
        Unary::Exp => g.mul(dy, y)?,
        Unary::Log => g.div(dy, x)?,
        Unary::Sqrt => {
            let ratio = g.div(dy, y)?;
            g.mul_scalar(ratio, 0.5)?
        }
        Unary::Recip => {
            let square = g.mul(y, y)?;
            let product = g.mul(dy, square)?;
            g.unary(Unary::Neg, product)?
        }
        Unary::Tanh => {
            let square = g.mul(y, y)?;
            let minus = g.unary(Unary::Neg, square)?;
            let slope = g.add_scalar(minus, 1.0)?;
            g.mul(dy, slope)?
        }
        Unary::Sin => {
            let slope = g.unary(Unary::Cos, x)?;
            g.mul(dy, slope)?
        }
        Unary::Cos => {
            let sine = g.unary(Unary::Sin, x)?;
            let product = g.mul(dy, sine)?;
            g.unary(Unary::Neg, product)?
        }
        Unary::Erf => {
            let square = g.mul(x, x)?;
            let exponent = g.unary(Unary::Neg, square)?;
            let bell = g.unary(Unary::Exp, exponent)?;
            let slope = g.mul_scalar(bell, std::f64::consts::FRAC_2_SQRT_PI)?;
            g.mul(dy, slope)?
        }
        Unary::Gelu => g.push1(Op::GeluGrad, &[x, dy])?,
    };
    Ok(Some(dx))
}

fn binary_grad(f: Binary, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let (a, b, y, dy) = (r.inputs[0], r.inputs[1], r.y, r.dy);
    let needs = [r.need(0), r.need(1)];
    let g = &mut *r.graph;
    let mut grads = vec![None, None];
    for side in [0, 1].into_iter().filter(|side| needs[*side]) {
        let wide = match (f, side) {
            (Binary::Add, _) | (Binary::Sub, 0) => dy,
            (Binary::Sub, _) => g.unary(Unary::Neg, dy)?,
            (Binary::Mul, _) => g.mul(dy, if side == 0 { b } else { a })?,
            (Binary::Div, 0) => g.div(dy, b)?,
            (Binary::Div, _) => {
                let slope = g.div(y, b)?;
                let product = g.mul(dy, slope)?;
                g.unary(Unary::Neg, product)?
            }
            (Binary::Min | Binary::Max, _) => {
                let share = winner_share(g, f, if side == 0 { (a, b) } else { (b, a) })?;
                g.mul(dy, share)?
            }
        };
        let shape = g.ty([a, b][side]).shape.clone();
        grads[side] = Some(g.sum_to(wide, &shape)?);
    }
    Ok(grads)
}

/// 1 where `own` is the smaller (min) or greater (max), 0 where `other` is, ½ on a tie, as PyTorch does.
fn winner_share(g: &mut Graph, f: Binary, (own, other): (ValueId, ValueId)) -> Result<ValueId, GraphError> {
    let difference = if f == Binary::Max { g.sub(own, other)? } else { g.sub(other, own)? };
    let sign = g.unary(Unary::Sign, difference)?;
    let twice = g.add_scalar(sign, 1.0)?;
    g.mul_scalar(twice, 0.5)
}
