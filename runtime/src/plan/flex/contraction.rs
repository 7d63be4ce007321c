//! Matrix products through the `gemm` crate.

use super::pool::Pool;
use super::tensor::{dims, floats, tensor};
use burn_flex::FlexTensor;
use gemm::Parallelism;
use rayon::prelude::*;

/// A matrix in memory: rows and columns with their strides, in elements.
#[derive(Clone, Copy)]
pub(super) struct Matrix<'a> {
    /// From element (0, 0) on.
    pub(super) data: &'a [f32],
    /// Number of rows.
    pub(super) rows: usize,
    /// Number of columns.
    pub(super) cols: usize,
    /// Distance between rows.
    pub(super) row_stride: usize,
    /// Distance between columns.
    pub(super) col_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A row-major matrix.
    pub(super) fn rows(data: &'a [f32], rows: usize, cols: usize) -> Self {
        Self { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without moving anything.
    pub(super) fn t(self) -> Self {
        Self { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }

    /// Elements from (0, 0) to the last one, inclusive.
    fn span(&self) -> usize {
        if self.rows == 0 || self.cols == 0 {
            return 0;
        }
        (self.rows - 1) * self.row_stride + (self.cols - 1) * self.col_stride + 1
    }
}

/// Where a product goes.
pub(super) struct Out<'a> {
    /// From element (0, 0) on.
    pub(super) data: &'a mut [f32],
    /// Distance between rows.
    pub(super) row_stride: usize,
    /// Whether the product is added to what is there.
    pub(super) accumulate: bool,
}

/// `out = a·b` (or `out += a·b`), all in f32.
///
/// # Panics
/// When a buffer is smaller than its matrix: a bug of the caller.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>, out: Out<'_>, parallelism: Parallelism) {
    assert_eq!(a.cols, b.rows, "inner sizes of a matrix product");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.span() <= a.data.len() && b.span() <= b.data.len(), "operand of a matrix product is too small");
    assert!((m - 1) * out.row_stride + n <= out.data.len() && n <= out.row_stride.max(n), "result is too small");
    let alpha = if out.accumulate { 1.0 } else { 0.0 };
    // SAFETY: the spans asserted above bound every element that is read or written: row (m−1) and column (n−1) are the
    // farthest, strides are not negative, and `out` is borrowed mutably, so it aliases neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.data.as_mut_ptr(),
            1,
            out.row_stride as isize,
            out.accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            alpha,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Products below this many multiplications are done on the calling thread: dispatch would cost more than it saves.
const SMALL: usize = 64 * 64 * 64;
/// Row blocks are multiples of this: of the microkernels' sides of 6 and 8, which lie along the rows of a row-major
/// result.
const ROWS: usize = 24;

/// [`product`] on all threads: blocks of rows, a task each. Blocks are independent, so a thread that is late (the machine
/// is shared) delays its own block only, where the library's own split waits for every thread at every panel.
fn parallel_product(a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32], accumulate: bool) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let tasks = rayon::current_num_threads();
    let block = m.div_ceil(tasks).next_multiple_of(ROWS);
    if m * n * k < SMALL || block >= m || n == 0 {
        return product(a, b, Out { data: out, row_stride: n, accumulate }, Parallelism::None);
    }
    out.par_chunks_mut(block * n).enumerate().for_each(|(task, out)| {
        let start = task * block;
        let data = a.data.get(start * a.row_stride..).unwrap_or_default();
        let rows = Matrix { data, rows: block.min(m - start), ..a };
        product(rows, b, Out { data: out, row_stride: n, accumulate }, Parallelism::None);
    });
}

/// The product of two `side`×`side` matrices on all threads, for measuring what the machine can do at most.
///
/// # Panics
/// When a slice is shorter than `side²`.
pub fn square_product(a: &[f32], b: &[f32], side: usize) -> Vec<f32> {
    let mut out = vec![0f32; side * side];
    parallel_product(Matrix::rows(a, side, side), Matrix::rows(b, side, side), &mut out, false);
    out
}

/// `x·weightᵀ + bias` over the last axis.
pub(super) fn linear(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    shape: &[usize],
    pool: &mut Pool,
) -> FlexTensor {
    let outer: usize = shape[..shape.len() - 1].iter().product();
    let (values, weights) = (floats(x), floats(weight));
    let [features, inner] = dims(weight)[..] else { return x.clone() };
    let bias = bias.map(floats);
    tensor(linear_rows(&values, &weights, bias.as_deref(), [outer, inner, features], pool), shape)
}

/// [`linear`] on slices: `[rows, inner]` times `[features, inner]`ᵀ.
pub(super) fn linear_rows(
    x: &[f32],
    weight: &[f32],
    bias: Option<&[f32]>,
    [rows, inner, features]: [usize; 3],
    pool: &mut Pool,
) -> Vec<f32> {
    let mut out = pool.take(rows * features);
    if let Some(bias) = bias.filter(|bias| !bias.is_empty()) {
        out.par_chunks_mut(features * 64).for_each(|rows| {
            for row in rows.chunks_exact_mut(features) {
                row.copy_from_slice(bias);
            }
        });
    }
    let (a, b) = (Matrix::rows(x, rows, inner), Matrix::rows(weight, features, inner).t());
    parallel_product(a, b, &mut out, bias.is_some_and(|bias| !bias.is_empty()));
    out
}

/// Batched product with either operand stored transposed.
pub(super) fn matmul(
    a: &FlexTensor,
    b: &FlexTensor,
    ta: bool,
    tb: bool,
    shape: &[usize],
    pool: &mut Pool,
) -> FlexTensor {
    let (left, right) = (floats(a), floats(b));
    let [m, n] = [shape[shape.len() - 2], shape[shape.len() - 1]];
    let k = {
        let stored = dims(a);
        if ta { stored[stored.len() - 2] } else { stored[stored.len() - 1] }
    };
    let mut out = pool.take(shape.iter().product());
    let matrices = |batch: usize| {
        let (a, b) = (&left[batch * m * k..(batch + 1) * m * k], &right[batch * k * n..(batch + 1) * k * n]);
        let a = if ta { Matrix::rows(a, k, m).t() } else { Matrix::rows(a, m, k) };
        let b = if tb { Matrix::rows(b, n, k).t() } else { Matrix::rows(b, k, n) };
        (a, b)
    };
    if out.len() == m * n {
        let (a, b) = matrices(0);
        parallel_product(a, b, &mut out, false);
    } else if m * n > 0 {
        out.par_chunks_mut(m * n).enumerate().for_each(|(batch, out)| {
            let (a, b) = matrices(batch);
            product(a, b, Out { data: out, row_stride: n, accumulate: false }, Parallelism::None);
        });
    }
    tensor(out, shape)
}
