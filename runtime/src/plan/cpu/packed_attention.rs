//! Attention over the rows of one matrix `[R, 3·H·d]` with several batches stacked, read and written in place.

use super::contraction::{Matrix, Out};
use super::head::{self, HeadGrad};
use super::pool::Pool;
use super::tensor::{floats, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use vjepa_compiler::ir::{Dim, Sizes};

/// One clip's rows.
#[derive(Clone, Copy)]
struct Clip {
    first: usize,
    rows: usize,
}

/// `(qkv) -> y` or `(qkv, y, dy) -> dqkv`, with the operation's heads, scale and parts and the result's shape.
pub(super) fn run(
    operands: &[FlexTensor],
    (heads, scale, parts): (usize, f64, &[Dim]),
    (shape, sizes): (&[usize], &Sizes),
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let [rows, _] = shape else {
        return Err(KernelError::Shape { expected: "rows of a matrix", got: shape.to_vec() });
    };
    // Only a file that was made by hand has parts that are not its rows.
    let clips = clips(parts, sizes, *rows)
        .ok_or_else(|| KernelError::Shape { expected: "as many rows as the parts have", got: shape.to_vec() })?;
    let values: Vec<_> = operands.iter().map(floats).collect();
    let mut out = pool.take(shape.iter().product());
    match values.as_slice() {
        [qkv] => forward(qkv, &clips, (heads, scale), &mut out),
        [qkv, y, dy] => backward([qkv, y, dy], &clips, (heads, scale), &mut out),
        _ => return Err(KernelError::Operands { expected: "1 or 3", got: operands.len() }),
    }
    Ok(tensor(out, shape))
}

/// The clips one after the other, if they are all the rows there are.
fn clips(parts: &[Dim], sizes: &Sizes, all: usize) -> Option<Vec<Clip>> {
    let mut clips = Vec::new();
    let mut first = 0usize;
    for part in parts.chunks_exact(2) {
        let [batch, rows] = [part[0].eval(sizes)?, part[1].eval(sizes)?];
        if batch.checked_mul(rows)?.checked_add(first)? > all {
            return None;
        }
        // No rows are no work, however many clips have none.
        let count = if rows == 0 { 0 } else { batch };
        clips.extend((0..count).map(|clip| Clip { first: first + clip * rows, rows }));
        first += batch * rows;
    }
    (first == all).then_some(clips)
}

/// Columns `column..column + width` of a clip's rows.
fn part<'a>(values: &'a [f32], clip: Clip, stride: usize, column: usize, width: usize) -> Matrix<'a> {
    let data = values.get(clip.first * stride + column..).unwrap_or_default();
    Matrix { data, rows: clip.rows, cols: width, row_stride: stride, col_stride: 1 }
}

fn forward(qkv: &[f32], clips: &[Clip], (heads, scale): (usize, f64), out: &mut [f32]) {
    let rows: usize = clips.iter().map(|clip| clip.rows).sum();
    let features = out.len() / rows.max(1);
    let width = features / heads;
    let shared = Out::new(out, features);
    (0..clips.len() * heads).into_par_iter().for_each(|task| {
        let (clip, column) = (clips[task / heads], task % heads * width);
        let qkv = [0, 1, 2].map(|of| part(qkv, clip, 3 * features, of * features + column, width));
        // SAFETY: a task writes its own head's columns of its own clip's rows, which no other task touches.
        let out = unsafe { shared.part(clip.first * features + column) };
        head::forward(qkv, out, scale);
    });
}

fn backward([qkv, y, dy]: [&[f32]; 3], clips: &[Clip], (heads, scale): (usize, f64), out: &mut [f32]) {
    let rows: usize = clips.iter().map(|clip| clip.rows).sum();
    let features = out.len() / rows.max(1) / 3;
    let width = features / heads;
    let shared = Out::new(out, 3 * features);
    (0..clips.len() * heads).into_par_iter().for_each(|task| {
        let (clip, column) = (clips[task / heads], task % heads * width);
        let [q, k, v] = [0, 1, 2].map(|of| part(qkv, clip, 3 * features, of * features + column, width));
        let [y, dy] = [y, dy].map(|values| part(values, clip, features, column, width));
        let grads = [0, 1, 2].map(|of| {
            // SAFETY: a task writes its own head's columns of its own clip's rows, which no other task touches; those of
            // queries, keys and values are distinct.
            unsafe { shared.part(clip.first * 3 * features + of * features + column) }
        });
        head::backward(&HeadGrad { q, k, v, y, dy, scale }, grads);
    });
}
