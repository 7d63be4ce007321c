//! Rotary positions: pairs of channels turned by the angles of a table, in one pass.

use super::pool::Pool;
use super::tensor::{Strided, dims, floats, strided, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// Tokens per task.
const ROWS: usize = 32;

/// Turns the channels of one row by its angles, cosines and then sines, or back.
#[inline(always)]
pub(super) fn turn(row: &mut [f32], angles: &[f32], back: bool) {
    let (cos, sin) = angles.split_at(angles.len() / 2);
    let angles = cos.chunks_exact(2).zip(sin.chunks_exact(2));
    for (pair, (cos, sin)) in row.chunks_exact_mut(2).zip(angles) {
        let [a, b] = [pair[0], pair[1]];
        if back {
            (pair[0], pair[1]) = (a * cos[0] + b * sin[1], b * cos[1] - a * sin[0]);
        } else {
            (pair[0], pair[1]) = (a * cos[0] - b * sin[0], b * cos[1] + a * sin[1]);
        }
    }
}

/// `(x[B, H, N, d], table[B or 1, N, 2d]) -> x turned`, or turned back. Queries and keys are read in place; the result is
/// written as `[B, N, H, d]`, like that of attention.
pub(super) fn rotate(
    x: &FlexTensor,
    table: &FlexTensor,
    back: bool,
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let shape: [usize; 4] = dims(x).try_into().map_err(|got| KernelError::Shape { expected: "[B, H, N, d]", got })?;
    let [batch, heads, tokens, width] = shape;
    let shared = dims(table).first() == Some(&1);
    let contiguous;
    let x = if strided(x).strides.last() == Some(&1) {
        x
    } else {
        contiguous = x.to_contiguous();
        &contiguous
    };
    let (view, angles) = (strided(x), floats(table));
    if angles.len() < if shared { 1 } else { batch } * tokens * 2 * width {
        return Err(KernelError::Shape { expected: "a table[B or 1, N, 2d] of angles", got: dims(table) });
    }
    let mut out = pool.take(batch * tokens * heads * width);
    let features = (heads * width).max(1);
    out.par_chunks_mut(features * ROWS).enumerate().for_each(|(task, rows)| {
        for (at, row) in rows.chunks_exact_mut(features).enumerate() {
            let (clip, token) = ((task * ROWS + at) / tokens, (task * ROWS + at) % tokens);
            let place = (if shared { token } else { clip * tokens + token }) * 2 * width;
            let angles = angles.get(place..place + 2 * width).unwrap_or_default();
            for (head, row) in row.chunks_exact_mut(width.max(1)).enumerate() {
                row.copy_from_slice(channels(&view, [clip, head, token], width));
                turn(row, angles, back);
            }
        }
    });
    Ok(tensor(out, &[batch, tokens, heads, width]).permute(&[0, 2, 1, 3]))
}

/// The channels of one token and head, which lie next to each other.
fn channels<'a>(view: &Strided<'a>, place: [usize; 3], width: usize) -> &'a [f32] {
    let offset = place.iter().zip(&view.strides).map(|(at, stride)| at * *stride as usize).sum::<usize>();
    &view.data[view.offset + offset..][..width]
}
