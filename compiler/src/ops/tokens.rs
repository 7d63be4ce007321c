//! Operations on token sequences and clips.

use super::contraction::{self, flat};
use super::rules::{Grads, Parts, bytes, ensure};
use super::{Cost, Eval, EvalError, Op, Reverse, TypeError, arity, require};
use crate::interp::Array;
use crate::ir::{DType, Dim, Graph, GraphError, TensorType, ValueId};

/// The operations of this file.
#[derive(Clone, Copy)]
pub(super) enum Kind<'a> {
    Gather,
    Scatter(&'a Dim),
    Tubelets(Grid),
    PatchEmbed(Grid),
}

impl Kind<'_> {
    /// Whether its arithmetic is matrix products.
    pub fn is_product(self) -> bool {
        match self {
            Kind::PatchEmbed(_) => true,
            Kind::Gather | Kind::Scatter(_) | Kind::Tubelets(_) => false,
        }
    }
}

/// How a clip is cut: frames per tubelet, and the side of a patch in pixels.
#[derive(Clone, Copy)]
pub(super) struct Grid {
    pub tubelet: usize,
    pub patch: usize,
}

pub(super) fn infer(op: Kind<'_>, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Kind::Gather => {
            let (x, index) = rows_and_index(operands)?;
            require(x.shape[0].is_one() || x.shape[0] == index.shape[0], || {
                format!("batches of {x} and {index} differ")
            })?;
            let shape = [index.shape[0].clone(), index.shape[1].clone(), x.shape[2].clone()];
            Ok(vec![TensorType::new(x.dtype, shape)])
        }
        Kind::Scatter(tokens) => {
            let (x, index) = rows_and_index(operands)?;
            require(x.shape[0] == index.shape[0], || format!("batches of {x} and {index} differ"))?;
            require(x.shape[1] == index.shape[1], || format!("{x} and {index} differ in length"))?;
            Ok(vec![TensorType::new(x.dtype, [x.shape[0].clone(), tokens.clone(), x.shape[2].clone()])])
        }
        Kind::Tubelets(cut) => {
            arity(operands, 1, 1, "1")?;
            let (tokens, features) = grid(operands[0], cut)?;
            Ok(vec![TensorType::new(operands[0].dtype, [operands[0].shape[0].clone(), tokens, features])])
        }
        Kind::PatchEmbed(cut) => {
            arity(operands, 2, 3, "2 or 3")?;
            let (clip, weight) = (operands[0], operands[1]);
            let (tokens, features) = grid(clip, cut)?;
            let floats = clip.dtype.is_float() && operands.iter().all(|ty| ty.dtype == clip.dtype);
            require(floats, || "element types differ or are not floats".to_owned())?;
            require(weight.rank() == 5 && Dim::product(&weight.shape[1..]) == features, || {
                format!("weight {weight} does not fit tubelets of {features} values")
            })?;
            require(operands.get(2).is_none_or(|bias| bias.shape == weight.shape[..1]), || {
                format!("bias does not fit weight {weight}")
            })?;
            Ok(vec![TensorType::new(clip.dtype, [clip.shape[0].clone(), tokens, weight.shape[0].clone()])])
        }
    }
}

/// `x[B, N, D]` and `index[B, K]`.
fn rows_and_index<'a>(operands: &[&'a TensorType]) -> Result<(&'a TensorType, &'a TensorType), TypeError> {
    arity(operands, 2, 2, "2")?;
    let (x, index) = (operands[0], operands[1]);
    require(x.rank() == 3 && index.rank() == 2 && index.dtype == DType::I32, || {
        format!("needs tokens [B, N, D] and an index i32[B, K], got {x} and {index}")
    })?;
    Ok((x, index))
}

/// Tokens, and values per token, of a clip `[B, C, T, H, W]`; T, H and W must be numbers that divide evenly.
fn grid(clip: &TensorType, Grid { tubelet, patch }: Grid) -> Result<(Dim, Dim), TypeError> {
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
pub(super) fn cost(op: Kind<'_>, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
    let y = results[0];
    match op {
        Kind::Gather => {
            let moved = &(&bytes(y) * &Dim::from(2usize)) + &bytes(operands[1]);
            Cost { flops: Dim::default(), bytes: moved }
        }
        Kind::Scatter(_) => Cost::streaming(1, &operands[0].elements(), operands, results),
        Kind::PatchEmbed(_) => {
            let features = Dim::product(&operands[1].shape[1..]);
            let mut cost = Cost::streaming(2, &(&y.elements() * &features), operands, results);
            if operands.len() == 3 {
                cost.flops = &cost.flops + &y.elements();
            }
            cost
        }
        Kind::Tubelets(_) => Cost::streaming(0, &Dim::default(), operands, results),
    }
}

pub(super) fn eval(op: Kind<'_>, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
    let shape = &e.results[0];
    let y = match op {
        Kind::Gather => rows(true, e.inputs[0], e.inputs[1], shape)?,
        Kind::Scatter(_) => rows(false, e.inputs[0], e.inputs[1], shape)?,
        Kind::Tubelets(grid) => cut(e.inputs[0], grid)?,
        Kind::PatchEmbed(grid) => {
            let tubelets = cut(e.inputs[0], grid)?;
            contraction::linear(&tubelets, e.inputs[1], e.inputs.get(2).copied(), shape)?
        }
    };
    Ok(vec![y])
}

/// `x[B|1, N, D]` at `index[B, K]`, of that shape.
pub(super) fn gathered(x: &Array, index: &Array, shape: &[usize]) -> Result<Array, EvalError> {
    rows(true, x, index, shape)
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
fn cut(clip: &Array, Grid { tubelet, patch }: Grid) -> Result<Array, EvalError> {
    let [batch, channels, frames, height, width] = clip.shape[..] else {
        return Err(EvalError(format!("{:?} is not a clip [B, C, T, H, W]", clip.shape)));
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
fn split(clip: &TensorType, Grid { tubelet, patch }: Grid) -> Result<(Vec<Dim>, [usize; 8]), TypeError> {
    let [batch, channels, frames, height, width] = clip.shape.as_slice() else {
        return Err(TypeError::Mismatch(format!("needs a clip [B, C, T, H, W], got {clip}")));
    };
    let mut shape = vec![batch.clone(), channels.clone()];
    for (size, step) in [(frames, tubelet), (height, patch), (width, patch)] {
        shape.extend([Dim::from(steps(size, step, clip)?), Dim::from(step)]);
    }
    Ok((shape, [0, 2, 4, 6, 1, 3, 5, 7]))
}

pub(super) fn decompose(op: Kind<'_>, g: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
    match op {
        Kind::Gather | Kind::Scatter(_) => Ok(None),
        Kind::Tubelets(cut) => {
            let clip = g.ty(inputs[0]).clone();
            let fail = |source| GraphError::Type { op: "tubelets", source };
            let (shape, order) = split(&clip, cut).map_err(fail)?;
            let (tokens, features) = grid(&clip, cut).map_err(fail)?;
            let parts = g.reshape(inputs[0], &shape)?;
            let ordered = g.permute(parts, &order)?;
            Ok(Some(vec![g.reshape(ordered, &[clip.shape[0].clone(), tokens, features])?]))
        }
        Kind::PatchEmbed(Grid { tubelet, patch }) => {
            let tubelets = g.push1(Op::Tubelets { tubelet, patch }, &[inputs[0]])?;
            let matrix = weight_matrix(g, inputs[1])?;
            let operands = [&[tubelets, matrix], &inputs[2..]].concat();
            Ok(Some(vec![g.push1(Op::Linear, &operands)?]))
        }
    }
}

/// A convolution weight `[D, C, tubelet, patch, patch]` as the weight `[D, C·tubelet·patch²]` of a linear.
fn weight_matrix(g: &mut Graph, weight: ValueId) -> Result<ValueId, GraphError> {
    let shape = g.ty(weight).shape.clone();
    g.reshape(weight, &[shape[0].clone(), Dim::product(&shape[1..])])
}

pub(super) fn grad(op: Kind<'_>, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
    let dy = r.dy;
    match op {
        Kind::Gather => {
            let shape = r.ty(0).shape.clone();
            let tokens = shape[1].clone();
            let spread = r.graph.push1(Op::ScatterTokens { tokens }, &[dy, r.inputs[1]])?;
            Ok(Some(vec![Some(r.graph.sum_to(spread, &shape)?), None]))
        }
        Kind::Scatter(_) => Ok(Some(vec![Some(r.graph.push1(Op::GatherTokens, &[dy, r.inputs[1]])?), None])),
        Kind::Tubelets(cut) => Ok(Some(vec![Some(uncut(r, dy, cut)?)])),
        Kind::PatchEmbed(cut) => patch_embed_grad(r, cut).map(Some),
    }
}

/// Tubelets reassembled into a clip: the reverse of `tubelets`.
fn uncut(r: &mut Reverse<'_>, dy: ValueId, cut: Grid) -> Result<ValueId, GraphError> {
    let clip = r.ty(0).clone();
    let (shape, order) = split(&clip, cut).map_err(|source| GraphError::Type { op: "tubelets", source })?;
    let ordered: Vec<Dim> = order.iter().map(|axis| shape[*axis].clone()).collect();
    let parts = r.graph.reshape(dy, &ordered)?;
    let back = r.graph.permute(parts, &[0, 4, 1, 5, 2, 6, 3, 7])?;
    r.graph.reshape(back, &clip.shape)
}

fn patch_embed_grad(r: &mut Reverse<'_>, cut: Grid) -> Result<Vec<Option<ValueId>>, GraphError> {
    let weight = r.ty(1).shape.clone();
    let dy = flat(r.graph, r.dy)?;
    let mut grads = vec![None; r.inputs.len()];
    if r.need(0) {
        let matrix = weight_matrix(r.graph, r.inputs[1])?;
        let rows = r.graph.matmul(dy, matrix, false, false)?;
        grads[0] = Some(uncut(r, rows, cut)?);
    }
    if r.need(1) {
        let Grid { tubelet, patch } = cut;
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
