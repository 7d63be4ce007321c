//! Attention forward and backward, block by block of query rows: the score matrix never exists as a whole.
//!
//! Operands are read in place (permuted views of one QKV buffer); results are written as `[B, N, H, d]` and returned as
//! `[B, H, N, d]` views, so the permutation back costs nothing.

use super::contraction::{Matrix, Out};
use super::head::{self, HeadGrad};
use super::pool::Pool;
use super::tensor::{Strided, dims, strided, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// One head's matrix inside a `[B, H, N, d]` tensor.
fn head_of<'a>(view: &Strided<'a>, batch: usize, head: usize, rows: usize, cols: usize) -> Matrix<'a> {
    let at = |axis: usize| view.strides[axis] as usize;
    let offset = view.offset + batch * at(0) + head * at(1);
    let data = view.data.get(offset..).unwrap_or_default();
    Matrix { data, rows, cols, row_stride: at(2), col_stride: at(3) }
}

/// `[B, N, H, d]` in memory, seen as `[B, H, N, d]`.
fn heads_first(data: Vec<f32>, [batch, heads, rows, width]: [usize; 4]) -> FlexTensor {
    tensor(data, &[batch, rows, heads, width]).permute(&[0, 2, 1, 3])
}

/// `softmax(scale·q·kᵀ)·v`.
pub(super) fn forward(
    q: &FlexTensor,
    k: &FlexTensor,
    v: &FlexTensor,
    scale: f64,
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let ([batch, heads, rows, width], [_, _, keys, _]) = (shape4(q)?, shape4(k)?);
    let (q, k, v) = (strided(q), strided(k), strided(v));
    let mut out = pool.take(batch * heads * rows * width);
    let shared = Out::new(&mut out, heads * width);
    (0..batch * heads).into_par_iter().for_each(|task| {
        let (b, h) = (task / heads, task % heads);
        let (q, k, v) =
            (head_of(&q, b, h, rows, width), head_of(&k, b, h, keys, width), head_of(&v, b, h, keys, width));
        // SAFETY: a task writes columns h·d .. h·d + d of the rows of its own b, which no other (b, h) touches.
        let out = unsafe { shared.part((b * rows * heads + h) * width) };
        head::forward([q, k, v], out, scale);
    });
    Ok(heads_first(out, [batch, heads, rows, width]))
}

/// `(q, k, v, y, dy) -> dq, dk, dv`; the probabilities are recomputed, block by block.
pub(super) fn backward(
    operands: &[FlexTensor; 5],
    scale: f64,
    pool: &mut Pool,
) -> Result<Vec<FlexTensor>, KernelError> {
    let [q, k, ..] = operands;
    let ([batch, heads, rows, width], [_, _, keys, _]) = (shape4(q)?, shape4(k)?);
    let [q, k, v, y, dy] = operands.each_ref().map(strided);
    let mut grads = [rows, keys, keys].map(|n| pool.take(batch * heads * n * width));
    let [dq, dk, dv] = &mut grads;
    let shared = [dq, dk, dv].map(|grad| Out::new(grad, heads * width));
    (0..batch * heads).into_par_iter().for_each(|task| {
        let (b, h) = (task / heads, task % heads);
        let task = HeadGrad {
            q: head_of(&q, b, h, rows, width),
            k: head_of(&k, b, h, keys, width),
            v: head_of(&v, b, h, keys, width),
            y: head_of(&y, b, h, rows, width),
            dy: head_of(&dy, b, h, rows, width),
            scale,
        };
        let [dq, dk, dv] = [(0, rows), (1, keys), (2, keys)].map(|(i, n)| {
            let offset = (b * n * heads + h) * width;
            // SAFETY: a task writes columns h·d .. h·d + d of the rows of its own b, which no other (b, h) touches; the
            // three results are distinct.
            unsafe { shared[i].part(offset) }
        });
        head::backward(&task, [dq, dk, dv]);
    });
    let [dq, dk, dv] = grads;
    let view = |data, n| heads_first(data, [batch, heads, n, width]);
    Ok(vec![view(dq, rows), view(dk, keys), view(dv, keys)])
}

fn shape4(tensor: &FlexTensor) -> Result<[usize; 4], KernelError> {
    dims(tensor).try_into().map_err(|got| KernelError::Shape { expected: "[B, H, N, d]", got })
}
