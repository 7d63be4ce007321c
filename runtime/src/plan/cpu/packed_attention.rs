//! Attention over the rows of one matrix `[R, 3·H·d]` with several batches stacked, read and written in place.

use super::contraction::{Matrix, Out};
use super::head::{self, HeadGrad};
use super::pool::Pool;
use super::rotary::turn;
use super::tensor::{dims, floats, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use std::cell::RefCell;
use vjepa_compiler::ir::{Dim, Sizes};

/// One clip's rows.
#[derive(Clone, Copy)]
struct Clip<'a> {
    first: usize,
    rows: usize,
    /// Cosines, then sines, of each row's angles, where queries and keys are rotated.
    angles: Option<&'a [f32]>,
}

thread_local! {
    /// Rotated queries and keys of a head, kept by every worker thread.
    static TURNED: RefCell<[Vec<f32>; 2]> = RefCell::default();
}

/// `(qkv) -> y` or `(qkv, y, dy) -> dqkv`, and perhaps a table for each part, with the operation's heads, scale and parts and
/// the result's shape.
pub(super) fn run(
    operands: &[FlexTensor],
    (heads, scale, parts, backward_pass): (usize, f64, &[Dim], bool),
    (shape, sizes): (&[usize], &Sizes),
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let [rows, _] = shape else {
        return Err(KernelError::Shape { expected: "rows of a matrix", got: shape.to_vec() });
    };
    let values: Vec<_> = operands.iter().map(floats).collect();
    let own = if backward_pass { 3 } else { 1 };
    let Some((own, tables)) = values.split_at_checked(own) else {
        return Err(KernelError::Operands { expected: "1 or 3, and tables", got: operands.len() });
    };
    let tables: Vec<Table<'_>> = tables
        .iter()
        .zip(&operands[operands.len() - tables.len()..])
        .map(|(values, tensor)| Table { values, shared: dims(tensor).first() == Some(&1) })
        .collect();
    // Only a file that was made by hand has parts that are not its rows.
    let clips = clips((parts, tables.as_slice()), sizes, *rows)
        .ok_or_else(|| KernelError::Shape { expected: "as many rows as the parts have", got: shape.to_vec() })?;
    let mut out = pool.take(shape.iter().product());
    match own {
        [qkv] => forward(qkv, &clips, (heads, scale), &mut out),
        [qkv, y, dy] => backward([qkv, y, dy], &clips, (heads, scale), &mut out),
        _ => return Err(KernelError::Operands { expected: "1 or 3, and tables", got: operands.len() }),
    }
    Ok(tensor(out, shape))
}

/// Angles of a part's tokens.
struct Table<'a> {
    values: &'a [f32],
    /// The same for all its clips.
    shared: bool,
}

/// The clips one after the other, if they are all the rows there are.
fn clips<'a>((parts, tables): (&[Dim], &[Table<'a>]), sizes: &Sizes, all: usize) -> Option<Vec<Clip<'a>>> {
    let mut clips = Vec::new();
    let mut first = 0usize;
    for (number, part) in parts.chunks_exact(2).enumerate() {
        let [batch, rows] = [part[0].eval(sizes)?, part[1].eval(sizes)?];
        if batch.checked_mul(rows)?.checked_add(first)? > all {
            return None;
        }
        // No rows are no work, however many clips have none.
        let count = if rows == 0 { 0 } else { batch };
        for clip in 0..count {
            let angles = match tables.get(number) {
                Some(table) if table.shared => Some(table.values),
                Some(table) => {
                    let one = table.values.len() / count;
                    Some(table.values.get(clip * one..(clip + 1) * one)?)
                }
                None => None,
            };
            clips.push(Clip { first: first + clip * rows, rows, angles });
        }
        first += batch * rows;
    }
    (first == all).then_some(clips)
}

/// A head's queries or keys, turned, in memory of this thread.
fn turned<'a>(matrix: Matrix<'_>, angles: &[f32], memory: &'a mut Vec<f32>) -> Matrix<'a> {
    let (rows, width) = (matrix.rows, matrix.cols);
    memory.clear();
    memory.reserve(rows * width);
    let angles = angles.chunks_exact(2 * width.max(1));
    for (row, angles) in matrix.data.chunks(matrix.row_stride.max(1)).take(rows).zip(angles) {
        let start = memory.len();
        memory.extend_from_slice(&row[..width]);
        turn(&mut memory[start..], angles, false);
    }
    Matrix::rows(memory, rows, width)
}

/// Calls `f` with a head's queries and keys, turned where there are angles.
fn with_turned<R>(clip: Clip<'_>, [q, k]: [Matrix<'_>; 2], f: impl FnOnce([Matrix<'_>; 2]) -> R) -> R {
    let Some(angles) = clip.angles else { return f([q, k]) };
    TURNED.with_borrow_mut(|[queries, keys]| f([turned(q, angles, queries), turned(k, angles, keys)]))
}

/// Columns `column..column + width` of a clip's rows.
fn part<'a>(values: &'a [f32], clip: Clip<'_>, stride: usize, column: usize, width: usize) -> Matrix<'a> {
    let data = values.get(clip.first * stride + column..).unwrap_or_default();
    Matrix { data, rows: clip.rows, cols: width, row_stride: stride, col_stride: 1 }
}

fn forward(qkv: &[f32], clips: &[Clip<'_>], (heads, scale): (usize, f64), out: &mut [f32]) {
    let rows: usize = clips.iter().map(|clip| clip.rows).sum();
    let features = out.len() / rows.max(1);
    let width = features / heads;
    let shared = Out::new(out, features);
    (0..clips.len() * heads).into_par_iter().for_each(|task| {
        let (clip, column) = (clips[task / heads], task % heads * width);
        let [q, k, v] = [0, 1, 2].map(|of| part(qkv, clip, 3 * features, of * features + column, width));
        // SAFETY: a task writes its own head's columns of its own clip's rows, which no other task touches.
        let out = unsafe { shared.part(clip.first * features + column) };
        with_turned(clip, [q, k], |[q, k]| head::forward([q, k, v], out, scale));
    });
}

fn backward([qkv, y, dy]: [&[f32]; 3], clips: &[Clip<'_>], (heads, scale): (usize, f64), out: &mut [f32]) {
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
        with_turned(clip, [q, k], |[q, k]| head::backward(&HeadGrad { q, k, v, y, dy, scale }, grads));
        // The gradients of turned queries and keys are turned back where they lie.
        let angles = clip.angles.unwrap_or_default().chunks_exact(2 * width.max(1));
        for (row, angles) in angles.enumerate().take(clip.rows) {
            for grad in [grads[0], grads[1]] {
                // SAFETY: these are rows this task has just written, and no slice of them is alive.
                turn(unsafe { grad.row(row, 0, width) }, angles, true);
            }
        }
    });
}
