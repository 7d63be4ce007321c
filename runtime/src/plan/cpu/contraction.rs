//! Matrix products through the `gemm` crate.

use super::math;
use super::pool::Pool;
use super::tensor::{dims, floats, tensor};
use crate::plan::KernelError;
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

/// The destination of a product: a matrix in a result of which other threads write other parts.
#[derive(Clone, Copy)]
pub(super) struct Out<'a> {
    /// Element (0, 0).
    start: *mut f32,
    /// Elements from there to the end of the result.
    len: usize,
    /// Distance between rows.
    pub(super) row_stride: usize,
    /// Whether the product is added to what is there.
    pub(super) accumulate: bool,
    result: std::marker::PhantomData<&'a mut [f32]>,
}

// SAFETY: an `Out` is made from a mutable borrow that lives as long as it does, and parts of one are made by
// `Out::part`, whose callers promise that what threads write at the same time does not overlap.
unsafe impl Send for Out<'_> {}
// SAFETY: as above; a shared `Out` is only copied from.
unsafe impl Sync for Out<'_> {}

impl<'a> Out<'a> {
    /// A whole result with rows this far apart, written over.
    pub(super) fn new(data: &'a mut [f32], row_stride: usize) -> Self {
        let (start, len) = (data.as_mut_ptr(), data.len());
        Self { start, len, row_stride, accumulate: false, result: std::marker::PhantomData }
    }

    /// The matrix that begins `offset` elements after this one's, in the same result.
    ///
    /// # Safety
    /// Elements of parts that are written at the same time must not overlap.
    ///
    /// # Panics
    /// When `offset` lies outside the result.
    pub(super) unsafe fn part(self, offset: usize) -> Self {
        assert!(offset <= self.len, "part of a result begins outside of it");
        // SAFETY: the offset lies inside the result or at its end.
        Self { start: unsafe { self.start.add(offset) }, len: self.len - offset, ..self }
    }

    /// Columns `column..column + len` of a row.
    ///
    /// # Safety
    /// Nothing else may read or write these elements while the slice is there.
    ///
    /// # Panics
    /// When they lie outside the result.
    pub(super) unsafe fn row(self, row: usize, column: usize, len: usize) -> &'a mut [f32] {
        let offset = row * self.row_stride + column;
        assert!(offset + len <= self.len, "row outside of the result");
        // SAFETY: inside the result, as asserted; the caller promises that nobody else has these elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }

    /// Adds `bias` to each of `rows` rows.
    fn add_to_rows(self, rows: usize, bias: &[f32]) {
        assert!(rows == 0 || (rows - 1) * self.row_stride + bias.len() <= self.len, "rows outside of the result");
        for row in 0..rows {
            // SAFETY: the rows lie inside the result, as asserted; this part is written by the caller's thread alone.
            let row = unsafe { std::slice::from_raw_parts_mut(self.start.add(row * self.row_stride), bias.len()) };
            math::add_assign(row, bias);
        }
    }

    /// Adds to what is there, or writes over it.
    pub(super) fn accumulating(self, accumulate: bool) -> Self {
        Self { accumulate, ..self }
    }
}

/// `out = a·b` (or `out += a·b`), all in f32.
///
/// # Panics
/// When a buffer is smaller than its matrix: a bug of the caller.
pub(super) fn product(a: Matrix<'_>, b: Matrix<'_>, out: Out<'_>) {
    assert_eq!(a.cols, b.rows, "inner sizes of a matrix product");
    let (m, n, k) = (a.rows, b.cols, a.cols);
    if m == 0 || n == 0 {
        return;
    }
    assert!(a.span() <= a.data.len() && b.span() <= b.data.len(), "operand of a matrix product is too small");
    assert!((m - 1) * out.row_stride + n <= out.len, "result is too small");
    let alpha = if out.accumulate { 1.0 } else { 0.0 };
    // SAFETY: the spans asserted above bound every element that is read or written: row (m−1) and column (n−1) are the
    // farthest, strides are not negative, and `out` stems from a mutable borrow, so it aliases neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.start,
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
            Parallelism::None,
        );
    }
}

/// Products below this many multiplications run on the calling thread: dispatch would cost more than it saves.
const SMALL: usize = 64 * 64 * 64;
/// The least width of a column block, a multiple of the widest vector.
const COLUMNS: usize = 64;
/// Width from which packing the shared operand again for each block costs little.
const WIDE: usize = 256;
/// Row blocks are multiples of this, the microkernels' side along the rows of a row-major result.
const ROWS: usize = 6;

/// [`product`] on all threads, one block per task. Blocks are independent, so a thread that is late (on a
/// shared machine) delays its own block only; the library's own split waits for every thread at every panel.
///
/// Every block packs the operand it shares with the others again, so there are few blocks, along the longer side: see
/// [`Blocks`].
///
/// A bias is added to each block while it is in the cache.
fn parallel_product(a: Matrix<'_>, b: Matrix<'_>, out: Out<'_>, bias: Option<&[f32]>) {
    let (m, n, k) = (a.rows, b.cols, a.cols);
    let threads = rayon::current_num_threads();
    if m * n * k < SMALL || threads == 1 {
        return block_product(a, b, out, bias);
    }
    match Blocks::of(m, n, a.col_stride == 1, threads) {
        Blocks::Columns(columns) => (0..n.div_ceil(columns)).into_par_iter().with_max_len(1).for_each(|task| {
            let start = task * columns;
            let data = b.data.get(start * b.col_stride..).unwrap_or_default();
            let block = Matrix { data, cols: columns.min(n - start), ..b };
            let bias = bias.and_then(|bias| bias.get(start..start + block.cols));
            // SAFETY: blocks are disjoint ranges of columns.
            block_product(a, block, unsafe { out.part(start) }, bias);
        }),
        Blocks::Rows(rows) => (0..m.div_ceil(rows)).into_par_iter().with_max_len(1).for_each(|task| {
            let start = task * rows;
            let data = a.data.get(start * a.row_stride..).unwrap_or_default();
            let block = Matrix { data, rows: rows.min(m - start), ..a };
            // SAFETY: blocks are disjoint ranges of rows.
            block_product(block, b, unsafe { out.part(start * out.row_stride) }, bias);
        }),
    }
}

/// How a product is split among threads: into blocks of this many columns, or rows, of the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Blocks {
    Columns(usize),
    Rows(usize),
}

impl Blocks {
    /// Measured on the shapes of a training step. Columns if `a` is row-major, which is cheap to pack: two blocks per thread,
    /// which evens out late starts, while they are [`WIDE`]; narrower ones cost up to a tenth. A transposed `a` (in a weight's
    /// gradient) costs as much to pack as `b`, so the longer side is split. Rows where there are too few columns for two
    /// blocks per thread.
    fn of(m: usize, n: usize, a_in_rows: bool, threads: usize) -> Self {
        let columns = |blocks: usize| n.div_ceil(blocks).next_multiple_of(16);
        let narrow = columns(2 * threads) < COLUMNS;
        if narrow || (!a_in_rows && m > n) {
            Self::Rows(m.div_ceil(threads).next_multiple_of(ROWS))
        } else if a_in_rows && columns(2 * threads) >= WIDE {
            Self::Columns(columns(2 * threads))
        } else {
            Self::Columns(columns(threads))
        }
    }
}

/// [`product`] on this thread, and then the bias.
fn block_product(a: Matrix<'_>, b: Matrix<'_>, out: Out<'_>, bias: Option<&[f32]>) {
    product(a, b, out);
    if let Some(bias) = bias {
        out.add_to_rows(a.rows, bias);
    }
}

/// The product of two `side`×`side` matrices on all threads, for measuring what the machine can do at most.
///
/// # Panics
/// When a slice is shorter than `side²`.
pub fn square_product(a: &[f32], b: &[f32], side: usize) -> Vec<f32> {
    let mut out = vec![0f32; side * side];
    parallel_product(Matrix::rows(a, side, side), Matrix::rows(b, side, side), Out::new(&mut out, side), None);
    out
}

/// `x·weightᵀ + bias` over the last axis.
pub(super) fn linear(
    x: &FlexTensor,
    weight: &FlexTensor,
    bias: Option<&FlexTensor>,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let [features, inner] = dims(weight)[..] else {
        return Err(KernelError::Shape { expected: "a weight [out, in]", got: dims(weight) });
    };
    let [lead @ .., _] = shape else {
        return Err(KernelError::Shape { expected: "a result [.., out]", got: shape.to_vec() });
    };
    let (values, weights, bias) = (floats(x), floats(weight), bias.map(floats));
    let rows = lead.iter().product();
    Ok(tensor(linear_rows(&values, &weights, bias.as_deref(), [rows, inner, features], pool), shape))
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
    let (a, b) = (Matrix::rows(x, rows, inner), Matrix::rows(weight, features, inner).t());
    parallel_product(a, b, Out::new(&mut out, features), bias);
    out
}

/// Batched product with either operand stored transposed, written to `out` or added to it.
pub(super) fn matmul(
    a: &FlexTensor,
    b: &FlexTensor,
    [ta, tb]: [bool; 2],
    mut out: FlexTensor,
    accumulate: bool,
) -> Result<FlexTensor, KernelError> {
    let (left, right) = (floats(a), floats(b));
    let no_matrix = |got: Vec<usize>| KernelError::Shape { expected: "matrices", got };
    let (shape, stored) = (dims(&out), dims(a));
    let [.., m, n] = shape[..] else { return Err(no_matrix(shape)) };
    let [.., rows, cols] = stored[..] else { return Err(no_matrix(stored)) };
    let k = if ta { rows } else { cols };
    let matrices = |batch: usize| {
        let (a, b) = (&left[batch * m * k..(batch + 1) * m * k], &right[batch * k * n..(batch + 1) * k * n]);
        let a = if ta { Matrix::rows(a, k, m).t() } else { Matrix::rows(a, m, k) };
        let b = if tb { Matrix::rows(b, n, k).t() } else { Matrix::rows(b, k, n) };
        (a, b)
    };
    let result = out.storage_mut::<f32>();
    if result.len() == m * n {
        let (a, b) = matrices(0);
        parallel_product(a, b, Out::new(result, n).accumulating(accumulate), None);
    } else if m * n > 0 {
        result.par_chunks_mut(m * n).enumerate().for_each(|(batch, result)| {
            let (a, b) = matrices(batch);
            product(a, b, Out::new(result, n).accumulating(accumulate));
        });
    }
    Ok(out)
}
