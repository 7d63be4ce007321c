//! Tokens: gathering, scattering, cutting clips into tubelets, concatenation.

use super::contraction;
use super::pool::Pool;
use super::tensor::{dims, floats, indices, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// `x[B|1, N, D]` at `index[B, K]`.
pub(super) fn gather(
    x: &FlexTensor,
    index: &FlexTensor,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let ([batches, tokens, _], [_, kept, width]) = (shape3(&dims(x))?, shape3(shape)?);
    let (values, rows) = (floats(x), rows_of(index, tokens)?);
    let mut out = pool.take(shape.iter().product());
    if width > 0 {
        out.par_chunks_mut(width * 64).enumerate().for_each(|(chunk, out)| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let row = chunk * 64 + i;
                let batch = if batches == 1 { 0 } else { row / kept };
                let start = (batch * tokens + rows[row]) * width;
                out.copy_from_slice(&values[start..start + width]);
            }
        });
    }
    Ok(tensor(out, shape))
}

/// `dy[B, K, D]` added to rows `index[B, K]` of zeros `[B, N, D]`.
pub(super) fn scatter(
    dy: &FlexTensor,
    index: &FlexTensor,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let ([_, kept, _], [_, tokens, width]) = (shape3(&dims(dy))?, shape3(shape)?);
    let (values, rows) = (floats(dy), rows_of(index, tokens)?);
    let mut out = pool.zeros(shape.iter().product());
    if width > 0 && tokens > 0 {
        out.par_chunks_mut(tokens * width).enumerate().for_each(|(batch, out)| {
            for row in batch * kept..(batch + 1) * kept {
                let target = &mut out[rows[row] * width..(rows[row] + 1) * width];
                for (t, v) in target.iter_mut().zip(&values[row * width..(row + 1) * width]) {
                    *t += v;
                }
            }
        });
    }
    Ok(tensor(out, shape))
}

/// The indices, each of which must be one of `0..tokens`.
fn rows_of(index: &FlexTensor, tokens: usize) -> Result<Vec<usize>, KernelError> {
    let row = |token: &i32| {
        let row = usize::try_from(*token).ok().filter(|row| *row < tokens);
        row.ok_or(KernelError::Token { token: i64::from(*token), tokens })
    };
    indices(index).iter().map(row).collect()
}

fn shape3(shape: &[usize]) -> Result<[usize; 3], KernelError> {
    shape.try_into().map_err(|_| KernelError::Shape { expected: "tokens [B, N, D]", got: shape.to_vec() })
}

/// `clip[B, C, T, H, W]` as rows `[B, N, C·tubelet·patch²]`.
pub(super) fn tubelets(
    clip: &FlexTensor,
    tubelet: usize,
    patch: usize,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let (from, values) = (dims(clip), floats(clip));
    let [_, channels, frames, height, width] = from[..] else {
        return Err(KernelError::Shape { expected: "a clip [B, C, T, H, W]", got: from });
    };
    let [_, tokens, features] = shape3(shape)?;
    let (rows, cols) = (height / patch, width / patch);
    let mut out = pool.take(shape.iter().product());
    if features > 0 {
        out.par_chunks_mut(features).enumerate().for_each(|(row, out)| {
            let (batch, token) = (row / tokens, row % tokens);
            let (t, y, x) = (token / (rows * cols), token / cols % rows, token % cols);
            for (line, out) in out.chunks_exact_mut(patch).enumerate() {
                let (dy, dt, c) = (line % patch, line / patch % tubelet, line / (patch * tubelet));
                let frame = (batch * channels + c) * frames + t * tubelet + dt;
                let start = (frame * height + y * patch + dy) * width + x * patch;
                out.copy_from_slice(&values[start..start + patch]);
            }
        });
    }
    Ok(tensor(out, shape))
}

/// Tubelets, then a linear with the flattened weight.
pub(super) fn patch_embed(
    [clip, weight]: [&FlexTensor; 2],
    bias: Option<&FlexTensor>,
    (tubelet, patch): (usize, usize),
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let inner = dims(weight).iter().skip(1).product();
    let [batch, tokens, features] = shape3(shape)?;
    let rows = tubelets(clip, tubelet, patch, &[batch, tokens, inner], pool)?;
    let bias = bias.map(floats);
    let sizes = [batch * tokens, inner, features];
    let out = contraction::linear_rows(&floats(&rows), &floats(weight), bias.as_deref(), sizes, pool);
    pool.recycle(rows);
    Ok(tensor(out, shape))
}

/// One after the other along `axis`.
pub(super) fn concat(parts: &[FlexTensor], axis: usize, shape: &[usize], pool: &mut Pool) -> FlexTensor {
    let inner: usize = shape[axis + 1..].iter().product();
    let outer: usize = shape[..axis].iter().product();
    let parts: Vec<_> = parts.iter().map(|part| (dims(part)[axis] * inner, floats(part))).collect();
    let total = shape[axis] * inner;
    if total == 0 || outer == 0 {
        return tensor(Vec::new(), shape);
    }
    let mut out = pool.take(outer * total);
    out.par_chunks_mut(total).enumerate().for_each(|(row, out)| {
        let mut start = 0;
        for (len, values) in &parts {
            out[start..start + len].copy_from_slice(&values[row * len..(row + 1) * len]);
            start += len;
        }
    });
    tensor(out, shape)
}
