//! Attention forward and backward, block by block of query rows: the score matrix never exists as a whole.
//!
//! Operands are read where they lie (permuted views of one QKV buffer), results are written as `[B, N, H, d]` and
//! handed out as `[B, H, N, d]` views, so that the permutation back costs nothing.

use super::contraction::{Matrix, Out, product};
use super::math;
use super::pool::Pool;
use super::tensor::{Strided, dims, strided, tensor};
use burn_flex::FlexTensor;
use gemm::Parallelism;
use rayon::prelude::*;

/// Scores of one block, in elements: 1 MiB, half of a second-level cache. Each block packs keys and values again, so
/// blocks are as large as the cache allows.
const SCORES: usize = 256 * 1024;

/// Query rows of one block, for so many keys and `buffers` matrices of scores.
pub(super) fn block_rows(rows: usize, keys: usize, buffers: usize) -> usize {
    (SCORES / (buffers * keys.max(1))).next_multiple_of(8).clamp(32, 512).min(rows)
}

/// One head's matrix inside a `[B, H, N, d]` tensor.
fn head<'a>(view: &Strided<'a>, batch: usize, head: usize, rows: usize, cols: usize) -> Matrix<'a> {
    let at = |axis: usize| view.strides[axis] as usize;
    let offset = view.offset + batch * at(0) + head * at(1);
    let data = view.data.get(offset..).unwrap_or_default();
    Matrix { data, rows, cols, row_stride: at(2), col_stride: at(3) }
}

/// Rows `start..start + rows` of a matrix.
fn rows_of(matrix: Matrix<'_>, start: usize, rows: usize) -> Matrix<'_> {
    Matrix { data: &matrix.data[start * matrix.row_stride..], rows, ..matrix }
}

/// `[B, N, H, d]` in memory, seen as `[B, H, N, d]`.
fn heads_first(data: Vec<f32>, [batch, heads, rows, width]: [usize; 4]) -> FlexTensor {
    tensor(data, &[batch, rows, heads, width]).permute(&[0, 2, 1, 3])
}

/// `softmax(scale·q·kᵀ)·v`.
pub(super) fn forward(q: &FlexTensor, k: &FlexTensor, v: &FlexTensor, scale: f64, pool: &mut Pool) -> FlexTensor {
    let ([batch, heads, rows, width], keys) = (shape4(q), shape4(k)[2]);
    let (q, k, v) = (strided(q), strided(k), strided(v));
    let mut out = pool.take(batch * heads * rows * width);
    let shared = Out::new(&mut out, heads * width);
    let most = block_rows(rows, keys, 1);
    (0..batch * heads).into_par_iter().for_each_init(
        || vec![0f32; most * keys],
        |scores, task| {
            let (b, h) = (task / heads, task % heads);
            let (q, k, v) = (head(&q, b, h, rows, width), head(&k, b, h, keys, width), head(&v, b, h, keys, width));
            // SAFETY: a task writes columns h·d .. h·d + d of the rows of its own b, which no other (b, h) touches.
            let out = unsafe { shared.part((b * rows * heads + h) * width) };
            head_forward([q, k, v], out, scale, scores, most);
        },
    );
    heads_first(out, [batch, heads, rows, width])
}

/// One head, `most` query rows at a time; `out` is written by this thread alone.
pub(super) fn head_forward([q, k, v]: [Matrix<'_>; 3], out: Out<'_>, scale: f64, scores: &mut [f32], most: usize) {
    for start in (0..q.rows).step_by(most.max(1)) {
        let block = most.min(q.rows - start);
        let scores = &mut scores[..block * k.rows];
        probabilities(rows_of(q, start, block), k, scores, scale);
        // SAFETY: rows of the head's own part, one block after the other.
        let out = unsafe { out.part(start * out.row_stride) };
        product(Matrix::rows(scores, block, k.rows), v, out, Parallelism::None);
    }
}

fn probabilities(q: Matrix<'_>, k: Matrix<'_>, scores: &mut [f32], scale: f64) {
    let keys = k.rows;
    product(q, k.t(), Out::new(scores, keys), Parallelism::None);
    for row in scores.chunks_exact_mut(keys) {
        math::softmax_row(row, scale as f32);
    }
}

/// `(q, k, v, y, dy) -> dq, dk, dv`; the probabilities are computed again, block by block.
pub(super) fn backward(operands: &[FlexTensor], scale: f64, pool: &mut Pool) -> Vec<FlexTensor> {
    let [q, k, v, y, dy] = operands else { return Vec::new() };
    let ([batch, heads, rows, width], keys) = (shape4(q), shape4(k)[2]);
    let [q, k, v, y, dy] = [q, k, v, y, dy].map(strided);
    let mut grads = [rows, keys, keys].map(|n| pool.take(batch * heads * n * width));
    let [dq, dk, dv] = &mut grads;
    let most = block_rows(rows, keys, 2);
    let shared = [dq, dk, dv].map(|grad| Out::new(grad, heads * width));
    (0..batch * heads).into_par_iter().for_each_init(
        || [vec![0f32; most * keys], vec![0f32; most * keys]],
        |[p, dp], task| {
            let (b, h) = (task / heads, task % heads);
            let task = HeadGrad {
                q: head(&q, b, h, rows, width),
                k: head(&k, b, h, keys, width),
                v: head(&v, b, h, keys, width),
                y: head(&y, b, h, rows, width),
                dy: head(&dy, b, h, rows, width),
                scale,
            };
            let [dq, dk, dv] = [(0, rows), (1, keys), (2, keys)].map(|(i, n)| {
                let offset = (b * n * heads + h) * width;
                // SAFETY: a task writes columns h·d .. h·d + d of the rows of its own b, which no other (b, h) touches; the
                // three results are distinct.
                unsafe { shared[i].part(offset) }
            });
            task.run([p, dp], [dq, dk, dv], most);
        },
    );
    let [dq, dk, dv] = grads;
    let view = |data, n| heads_first(data, [batch, heads, n, width]);
    vec![view(dq, rows), view(dk, keys), view(dv, keys)]
}

/// Operands of one head's backward pass.
pub(super) struct HeadGrad<'a> {
    pub(super) q: Matrix<'a>,
    pub(super) k: Matrix<'a>,
    pub(super) v: Matrix<'a>,
    pub(super) y: Matrix<'a>,
    pub(super) dy: Matrix<'a>,
    pub(super) scale: f64,
}

impl HeadGrad<'_> {
    /// All query rows, `most` at a time; the results are written by this thread alone.
    pub(super) fn run(&self, [p, dp]: [&mut Vec<f32>; 2], [dq, dk, dv]: [Out<'_>; 3], most: usize) {
        for start in (0..self.q.rows).step_by(most.max(1)) {
            // SAFETY: rows of the head's own part, one block after the other.
            let dq = unsafe { dq.part(start * dq.row_stride) };
            self.block(start, most.min(self.q.rows - start), [&mut *p, &mut *dp], [dq, dk, dv]);
        }
    }

    /// Query rows `start..start + block`: dq of these rows, and their share of dk and dv.
    fn block(&self, start: usize, block: usize, [p, dp]: [&mut Vec<f32>; 2], [dq, dk, dv]: [Out<'_>; 3]) {
        let keys = self.k.rows;
        let (p, dp) = (&mut p[..block * keys], &mut dp[..block * keys]);
        let (q, y, dy) = (rows_of(self.q, start, block), rows_of(self.y, start, block), rows_of(self.dy, start, block));
        probabilities(q, self.k, p, self.scale);
        product(dy, self.v.t(), Out::new(dp, keys), Parallelism::None);
        for row in 0..block {
            let d = row_dot(y, dy, row);
            let span = row * keys..(row + 1) * keys;
            math::score_grad(&mut dp[span.clone()], &p[span], d, self.scale as f32);
        }
        let (p, ds) = (Matrix::rows(p, block, keys), Matrix::rows(dp, block, keys));
        product(ds, self.k, dq, Parallelism::None);
        // The first block writes dk and dv, later ones add to them.
        product(ds.t(), q, dk.accumulating(start > 0), Parallelism::None);
        product(p.t(), dy, dv.accumulating(start > 0), Parallelism::None);
    }
}

/// Σ y·dy of one row.
fn row_dot(y: Matrix<'_>, dy: Matrix<'_>, row: usize) -> f32 {
    let (a, b) = (row * y.row_stride, row * dy.row_stride);
    if y.col_stride == 1 && dy.col_stride == 1 {
        return math::dot(&y.data[a..a + y.cols], &dy.data[b..b + y.cols]);
    }
    (0..y.cols).map(|col| y.data[a + col * y.col_stride] * dy.data[b + col * dy.col_stride]).sum()
}

fn shape4(tensor: &FlexTensor) -> [usize; 4] {
    let dims = dims(tensor);
    [0, 1, 2, 3].map(|axis| dims.get(axis).copied().unwrap_or(1))
}
