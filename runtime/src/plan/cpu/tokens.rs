//! Tokens: gathering, scattering, cutting clips into tubelets, concatenation.

use super::contraction;
use super::pool::Pool;
use super::tensor::{dims, floats, indices, tensor};
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// `x[B|1, N, D]` at `index[B, K]`; an index outside 0..N gives a row of NaN, which no loss survives unseen.
pub(super) fn gather(x: &FlexTensor, index: &FlexTensor, shape: &[usize], pool: &mut Pool) -> FlexTensor {
    let (from, values, rows) = (dims(x), floats(x), indices(index));
    let [_, kept, width] = shape[..] else { return x.clone() };
    let (shared, tokens) = (from[0] == 1, from[1]);
    let mut out = pool.take(shape.iter().product());
    if width > 0 {
        out.par_chunks_mut(width * 64).enumerate().for_each(|(chunk, out)| {
            for (i, out) in out.chunks_exact_mut(width).enumerate() {
                let row = chunk * 64 + i;
                let batch = if shared { 0 } else { row / kept };
                match usize::try_from(rows[row]).ok().filter(|token| *token < tokens) {
                    Some(token) => {
                        let start = (batch * tokens + token) * width;
                        out.copy_from_slice(&values[start..start + width]);
                    }
                    None => out.fill(f32::NAN),
                }
            }
        });
    }
    tensor(out, shape)
}

/// `dy[B, K, D]` added to rows `index[B, K]` of zeros `[B, N, D]`.
pub(super) fn scatter(dy: &FlexTensor, index: &FlexTensor, shape: &[usize], pool: &mut Pool) -> FlexTensor {
    let (values, rows) = (floats(dy), indices(index));
    let [_, tokens, width] = shape[..] else { return dy.clone() };
    let kept = dims(dy)[1];
    let mut out = pool.zeros(shape.iter().product());
    if width > 0 && tokens > 0 {
        out.par_chunks_mut(tokens * width).enumerate().for_each(|(batch, out)| {
            for position in 0..kept {
                let row = batch * kept + position;
                if let Some(token) = usize::try_from(rows[row]).ok().filter(|token| *token < tokens) {
                    let target = &mut out[token * width..(token + 1) * width];
                    for (t, v) in target.iter_mut().zip(&values[row * width..(row + 1) * width]) {
                        *t += v;
                    }
                }
            }
        });
    }
    tensor(out, shape)
}

/// `clip[B, C, T, H, W]` as rows `[B, N, C·tubelet·patch²]`.
pub(super) fn tubelets(
    clip: &FlexTensor,
    tubelet: usize,
    patch: usize,
    shape: &[usize],
    pool: &mut Pool,
) -> FlexTensor {
    let (from, values) = (dims(clip), floats(clip));
    let [_, channels, frames, height, width] = from[..] else { return clip.clone() };
    let [_, tokens, features] = shape[..] else { return clip.clone() };
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
    tensor(out, shape)
}

/// `(clip, weight, [bias])`: tubelets, then a linear with the flattened weight.
pub(super) fn patch_embed(
    operands: &[FlexTensor],
    tubelet: usize,
    patch: usize,
    shape: &[usize],
    pool: &mut Pool,
) -> FlexTensor {
    let [clip, weight, bias @ ..] = operands else { return tensor(Vec::new(), &[0]) };
    let inner = dims(weight)[1..].iter().product();
    let [batch, tokens, features] = shape[..] else { return clip.clone() };
    let rows = tubelets(clip, tubelet, patch, &[batch, tokens, inner], pool);
    let bias = bias.first().map(floats);
    let sizes = [batch * tokens, inner, features];
    let out = contraction::linear_rows(&floats(&rows), &floats(weight), bias.as_deref(), sizes, pool);
    pool.recycle(rows);
    tensor(out, shape)
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
