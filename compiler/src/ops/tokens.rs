//! Operations on token sequences and clips.

use super::contraction::{self, flat};
use super::rules::{bytes, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Dim, Graph, GraphError, TensorType, ValueId};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Op::GatherTokens | Op::ScatterTokens { .. } => {
            arity(operands, 2, 2, "2")?;
            let (x, index) = (operands[0], operands[1]);
            require(x.rank() == 3 && index.rank() == 2 && index.dtype == DType::I32, || {
                format!("needs tokens [B, N, D] and an index i32[B, K], got {x} and {index}")
            })?;
            let shared = matches!(op, Op::GatherTokens) && x.shape[0].is_one();
            require(shared || x.shape[0] == index.shape[0], || format!("batches of {x} and {index} differ"))?;
            let tokens = match op {
                Op::ScatterTokens { tokens } => {
                    require(x.shape[1] == index.shape[1], || format!("{x} and {index} differ in length"))?;
                    tokens.clone()
                }
                _ => index.shape[1].clone(),
            };
            Ok(vec![TensorType::new(x.dtype, [index.shape[0].clone(), tokens, x.shape[2].clone()])])
        }
        Op::Tubelets { tubelet, patch } => {
            arity(operands, 1, 1, "1")?;
            let (tokens, features) = grid(operands[0], *tubelet, *patch)?;
            Ok(vec![TensorType::new(operands[0].dtype, [operands[0].shape[0].clone(), tokens, features])])
        }
        Op::PatchEmbed { tubelet, patch } => {
            arity(operands, 2, 3, "2 or 3")?;
            let (clip, weight) = (operands[0], operands[1]);
            let (tokens, features) = grid(clip, *tubelet, *patch)?;
            let floats = clip.dtype.is_float() && operands.iter().all(|ty| ty.dtype == clip.dtype);
            require(floats, || "element types differ or are no floats".to_owned())?;
            require(weight.rank() == 5 && Dim::product(&weight.shape[1..]) == features, || {
                format!("weight {weight} does not fit tubelets of {features} values")
            })?;
            require(operands.get(2).is_none_or(|bias| bias.shape == weight.shape[..1]), || {
                format!("bias does not fit weight {weight}")
            })?;
            Ok(vec![TensorType::new(clip.dtype, [clip.shape[0].clone(), tokens, weight.shape[0].clone()])])
        }
        other => Err(TypeError::Mismatch(format!("{} is no token operation", other.name()))),
    }
}

/// Tokens and values a token of a clip `[B, C, T, H, W]`; T, H and W must be numbers that divide evenly.
fn grid(clip: &TensorType, tubelet: usize, patch: usize) -> Result<(Dim, Dim), TypeError> {
    let [_, channels, frames, height, width] = clip.shape.as_slice() else {
        return Err(TypeError::Mismatch(format!("needs a clip [B, C, T, H, W], got {clip}")));
    };
    let mut tokens = Dim::from(1usize);
    for (size, step) in [(frames, tubelet), (height, patch), (width, patch)] {
        tokens = &tokens * &Dim::from(steps(size, step, clip)?);
    }
    let features = [tubelet, patch, patch].map(Dim::from);
    Ok((tokens, channels * &Dim::product(&features)))
}

/// How many times `step` fits `size`, exactly.
fn steps(size: &Dim, step: usize, clip: &TensorType) -> Result<usize, TypeError> {
    let whole = size.as_const().and_then(|n| usize::try_from(n).ok()).filter(|n| step > 0 && n % step == 0);
    Ok(whole.ok_or_else(|| TypeError::Mismatch(format!("{size} in {clip} does not divide by {step}")))? / step)
}

/// Only what is read and written counts: the rows gathered, not the table. Patch embedding is a `linear` over tubelets.
pub(super) fn cost(op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let y = results[0];
    match op {
        Op::GatherTokens => {
            let moved = &(&bytes(y) * &Dim::from(2usize)) + &bytes(operands[1]);
            Cost { flops: Dim::default(), bytes: moved }
        }
        Op::ScatterTokens { .. } => Cost::streaming(1, &operands[0].elements(), operands, results),
        Op::PatchEmbed { .. } => {
            let features = Dim::product(&operands[1].shape[1..]);
            let mut cost = Cost::streaming(2, &(&y.elements() * &features), operands, results);
            if operands.len() == 3 {
                cost.flops = &cost.flops + &y.elements();
            }
            cost
        }
        _ => Cost::streaming(0, &Dim::default(), operands, results),
    }
}

pub(super) fn eval(op: &Op, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let shape = &e.results[0];
    let y = match op {
        Op::Tubelets { tubelet, patch } => cut(e.inputs[0], *tubelet, *patch)?,
        Op::PatchEmbed { tubelet, patch } => {
            let tubelets = cut(e.inputs[0], *tubelet, *patch)?;
            contraction::linear(&tubelets, e.inputs[1], e.inputs.get(2).copied(), shape)?
        }
        _ => rows(matches!(op, Op::GatherTokens), e.inputs[0], e.inputs[1], shape)?,
    };
    Ok(vec![y])
}

/// Gathers rows of `x`, or adds the rows of `x` to where they were gathered from.
fn rows(gather: bool, x: &Array, index: &Array, shape: &[usize]) -> Result<Array, EvalError> {
    let (k, width) = (index.shape[1], shape[2]);
    let tokens = if gather { x.shape[1] } else { shape[1] };
    let mut y = Array::zeros(shape);
    for (place, token) in index.data.iter().enumerate() {
        ensure((0.0..tokens as f64).contains(token), || format!("token {token} is not one of {tokens}"))?;
        let batch = if gather && x.shape[0] == 1 { 0 } else { place / k };
        let (row, table) = (place * width, (batch * tokens + *token as usize) * width);
        for i in 0..width {
            if gather {
                y.data[row + i] = x.data[table + i];
            } else {
                y.data[table + i] += x.data[row + i];
            }
        }
    }
    Ok(y)
}

/// A clip `[B, C, T, H, W]` as tubelets `[B, N, C·tubelet·patch²]`.
fn cut(clip: &Array, tubelet: usize, patch: usize) -> Result<Array, EvalError> {
    let [batch, channels, frames, height, width] = clip.shape[..] else {
        return Err(EvalError(format!("{:?} is no clip", clip.shape)));
    };
    let grid = [frames / tubelet, height / patch, width / patch];
    let mut data = Vec::with_capacity(clip.data.len());
    let tokens = grid[0] * grid[1] * grid[2];
    for (b, token) in (0..batch).flat_map(|b| (0..tokens).map(move |token| (b, token))) {
        let (t, h, w) = (token / (grid[1] * grid[2]), token / grid[2] % grid[1], token % grid[2]);
        for (c, dt) in (0..channels).flat_map(|c| (0..tubelet).map(move |dt| (c, dt))) {
            let frame = (b * channels + c) * frames + t * tubelet + dt;
            for dy in 0..patch {
                let start = (frame * height + h * patch + dy) * width + w * patch;
                data.extend_from_slice(&clip.data[start..start + patch]);
            }
        }
    }
    Ok(Array { shape: vec![batch, tokens, channels * tubelet * patch * patch], data })
}

/// The clip's axes split into steps and places within a step, and the order that puts steps first.
fn split(clip: &TensorType, tubelet: usize, patch: usize) -> Result<(Vec<Dim>, [usize; 8]), TypeError> {
    let [batch, channels, frames, height, width] = clip.shape.as_slice() else {
        return Err(TypeError::Mismatch(format!("needs a clip [B, C, T, H, W], got {clip}")));
    };
    let mut shape = vec![batch.clone(), channels.clone()];
    for (size, step) in [(frames, tubelet), (height, patch), (width, patch)] {
        shape.extend([Dim::from(steps(size, step, clip)?), Dim::from(step)]);
    }
    Ok((shape, [0, 2, 4, 6, 1, 3, 5, 7]))
}

pub(super) fn decompose(op: &Op, g: &mut Graph, inputs: &[ValueId]) -> Result<Vec<ValueId>, GraphError> {
    let (Op::Tubelets { tubelet, patch } | Op::PatchEmbed { tubelet, patch }) = op else { return Ok(Vec::new()) };
    if let [clip, weight, bias @ ..] = inputs {
        let tubelets = g.push1(Op::Tubelets { tubelet: *tubelet, patch: *patch }, &[*clip])?;
        let matrix = weight_matrix(g, *weight)?;
        let operands = [&[tubelets, matrix], bias].concat();
        return Ok(vec![g.push1(Op::Linear, &operands)?]);
    }
    let clip = g.ty(inputs[0]).clone();
    let fail = |source| GraphError::Type { op: op.name(), source };
    let (shape, order) = split(&clip, *tubelet, *patch).map_err(fail)?;
    let (tokens, features) = grid(&clip, *tubelet, *patch).map_err(fail)?;
    let parts = g.reshape(inputs[0], &shape)?;
    let ordered = g.permute(parts, &order)?;
    Ok(vec![g.reshape(ordered, &[clip.shape[0].clone(), tokens, features])?])
}

/// A convolution weight `[D, C, tubelet, patch, patch]` as the weight `[D, C·tubelet·patch²]` of a linear.
fn weight_matrix(g: &mut Graph, weight: ValueId) -> Result<ValueId, GraphError> {
    let shape = g.ty(weight).shape.clone();
    g.reshape(weight, &[shape[0].clone(), Dim::product(&shape[1..])])
}

pub(super) fn grad(op: &Op, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
    let dy = r.dy;
    let shape = r.ty(0).shape.clone();
    match op {
        Op::GatherTokens => {
            let tokens = shape[1].clone();
            let spread = r.graph.push1(Op::ScatterTokens { tokens }, &[dy, r.inputs[1]])?;
            Ok(vec![Some(r.graph.sum_to(spread, &shape)?), None])
        }
        Op::ScatterTokens { .. } => Ok(vec![Some(r.graph.push1(Op::GatherTokens, &[dy, r.inputs[1]])?), None]),
        Op::Tubelets { tubelet, patch } => Ok(vec![Some(uncut(op, r, dy, *tubelet, *patch)?)]),
        Op::PatchEmbed { tubelet, patch } => patch_embed_grad(op, r, *tubelet, *patch),
        _ => Ok(Vec::new()),
    }
}

/// Tubelets put back into a clip: the reverse of `tubelets`.
fn uncut(op: &Op, r: &mut Reverse<'_>, dy: ValueId, tubelet: usize, patch: usize) -> Result<ValueId, GraphError> {
    let clip = r.ty(0).clone();
    let fail = |source| GraphError::Type { op: op.name(), source };
    let (shape, order) = split(&clip, tubelet, patch).map_err(fail)?;
    let ordered: Vec<Dim> = order.iter().map(|axis| shape[*axis].clone()).collect();
    let parts = r.graph.reshape(dy, &ordered)?;
    let back = r.graph.permute(parts, &[0, 4, 1, 5, 2, 6, 3, 7])?;
    r.graph.reshape(back, &clip.shape)
}

fn patch_embed_grad(
    op: &Op,
    r: &mut Reverse<'_>,
    tubelet: usize,
    patch: usize,
) -> Result<Vec<Option<ValueId>>, GraphError> {
    let weight = r.ty(1).shape.clone();
    let dy = flat(r.graph, r.dy)?;
    let mut grads = vec![None; r.inputs.len()];
    if r.need(0) {
        let matrix = weight_matrix(r.graph, r.inputs[1])?;
        let rows = r.graph.matmul(dy, matrix, false, false)?;
        grads[0] = Some(uncut(op, r, rows, tubelet, patch)?);
    }
    if r.need(1) {
        let tubelets = r.graph.push1(Op::Tubelets { tubelet, patch }, &[r.inputs[0]])?;
        let rows = flat(r.graph, tubelets)?;
        let matrix = r.graph.matmul(dy, rows, true, false)?;
        grads[1] = Some(r.graph.reshape(matrix, &weight)?);
    }
    if r.need(2) {
        grads[2] = Some(r.graph.sum_to(dy, &weight[..1])?);
    }
    Ok(grads)
}
