//! Sums and softmax.

use super::math;
use super::pool::Pool;
use super::tensor::{dims, floats, tensor, writable};
use burn_backend::ops::FloatTensorOps;
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

/// Sum over `axes`, which stay with size 1.
pub(super) fn sum(x: &FlexTensor, axes: &[usize], shape: &[usize]) -> FlexTensor {
    let from = dims(x);
    let values = floats(x);
    let leading = axes.iter().enumerate().all(|(position, axis)| position == *axis);
    let kept: usize = shape.iter().product();
    if leading && kept > 1 && !values.is_empty() {
        return tensor(sum_rows(&values, kept), shape);
    }
    if kept == 1 {
        // Every chunk in f64, then the chunks: as exact as it gets, and the same on any number of threads.
        let parts: Vec<f64> =
            values.par_chunks(1 << 16).map(|chunk| chunk.iter().map(|x| f64::from(*x)).sum()).collect();
        return tensor(vec![parts.iter().sum::<f64>() as f32], shape);
    }
    if let [axis] = axes
        && axis + 1 == from.len()
    {
        let width = from.last().copied().unwrap_or(1).max(1);
        let sums = values.chunks_exact(width).map(row_sum).collect();
        return tensor(sums, shape);
    }
    axes.iter().fold(x.clone(), |x, axis| Flex::float_sum_dim(x, *axis))
}

/// The sum of a row; of a long one in parts, which keep the digits that a single sum loses.
fn row_sum(row: &[f32]) -> f32 {
    const LONG: usize = 4096;
    match row.len() {
        0..=LONG => row.iter().sum(),
        _ => row.chunks(256).map(|part| part.iter().sum::<f32>()).sum(),
    }
}

/// Column sums of a row-major matrix with `width` columns.
fn sum_rows(values: &[f32], width: usize) -> Vec<f32> {
    let shares: Vec<Vec<f32>> = values
        .par_chunks(width * 256)
        .map(|rows| {
            let mut sums = vec![0f32; width];
            for row in rows.chunks_exact(width) {
                math::add_assign(&mut sums, row);
            }
            sums
        })
        .collect();
    let mut total = vec![0f32; width];
    for share in &shares {
        math::add_assign(&mut total, share);
    }
    total
}

/// Values per task of [`squared_norm`].
const SQUARES: usize = 1 << 16;

/// `Σ x²` over all elements of all operands. Chunks are summed in f64 and in order: the same on any number of threads.
pub(super) fn squared_norm(operands: &[FlexTensor]) -> FlexTensor {
    let values: Vec<_> = operands.iter().map(floats).collect();
    let chunks: Vec<&[f32]> = values.iter().flat_map(|values| values.chunks(SQUARES)).collect();
    let parts: Vec<f64> = chunks.par_iter().map(|chunk| math::sum_of_squares(chunk)).collect();
    tensor(vec![parts.iter().sum::<f64>() as f32], &[1])
}

/// Softmax over the last axis.
pub(super) fn softmax(x: FlexTensor, pool: &mut Pool) -> FlexTensor {
    let (width, mut out) = (row(&x), writable(x, pool));
    out.storage_mut::<f32>().par_chunks_mut(width).for_each(math::softmax_row);
    out
}

/// `y·(dy − Σ y·dy)` over the last axis, written over `dy`.
pub(super) fn softmax_grad(y: &FlexTensor, dy: FlexTensor, pool: &mut Pool) -> FlexTensor {
    let (width, mut out) = (row(y), writable(dy, pool));
    let y = floats(y);
    let rows = out.storage_mut::<f32>().par_chunks_mut(width).zip(y.par_chunks(width));
    rows.for_each(|(dy, y)| {
        let d = math::dot(dy, y);
        math::score_grad(dy, y, d);
    });
    out
}

/// The logarithm of the softmax over the last axis.
pub(super) fn log_softmax(x: FlexTensor, pool: &mut Pool) -> FlexTensor {
    let (width, mut out) = (row(&x), writable(x, pool));
    out.storage_mut::<f32>().par_chunks_mut(width).for_each(|row| {
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let log_sum = row.iter().map(|x| (x - max).exp()).sum::<f32>().ln() + max;
        for x in row {
            *x -= log_sum;
        }
    });
    out
}

/// Elements per row; an empty row counts as one, so that there are chunks of it (none).
fn row(x: &FlexTensor) -> usize {
    dims(x).last().copied().unwrap_or(1).max(1)
}
