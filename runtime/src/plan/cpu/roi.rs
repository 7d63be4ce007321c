//! RoIAlign: of every channel of a box first the rows, then the columns are averaged, by the weights that the interpreter uses.

use super::pool::Pool;
use super::tensor::{dims, floats, tensor};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use vjepa_compiler::ops::{RoiBox, RoiSampling, RoiWeights};

/// Bins `[R, C, S, S]` of boxes `[R, 5]` on features `[B, C, H, W]`.
pub(super) fn align(
    x: &FlexTensor,
    boxes: &FlexTensor,
    sampling: RoiSampling,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let (features, [_, channels, size, _]) = (shape4(&dims(x))?, shape4(shape)?);
    let [_, _, height, width] = features;
    let found = weights(boxes, sampling, size, features)?;
    let values = floats(x);
    let mut out = pool.zeros(shape.iter().product());
    if channels * size > 0 {
        out.par_chunks_mut(size * size).enumerate().for_each(|(index, bins)| {
            let (own, c) = (&found[index / channels], index % channels);
            let plane = &values[(own.batch * channels + c) * height * width..][..height * width];
            bins_of(plane, width, own, bins);
        });
    }
    Ok(tensor(out, shape))
}

/// Gradients of bins `[R, C, S, S]` added up to those of features `[B, C, H, W]`: a thread has whole channels, whose boxes it
/// takes in their order, so that sums do not depend on the number of threads.
pub(super) fn align_grad(
    dy: &FlexTensor,
    boxes: &FlexTensor,
    sampling: RoiSampling,
    shape: &[usize],
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let (features, [_, _, size, _]) = (shape4(shape)?, shape4(&dims(dy))?);
    let [_, channels, height, width] = features;
    let found = weights(boxes, sampling, size, features)?;
    let values = floats(dy);
    let mut out = pool.zeros(shape.iter().product());
    if height * width > 0 {
        out.par_chunks_mut(height * width).enumerate().for_each(|(index, plane)| {
            let (batch, c) = (index / channels, index % channels);
            for (number, own) in found.iter().enumerate().filter(|(_, own)| own.batch == batch) {
                let bins = &values[(number * channels + c) * size * size..][..size * size];
                add_to(plane, width, own, bins);
            }
        });
    }
    Ok(tensor(out, shape))
}

fn weights(
    boxes: &FlexTensor,
    sampling: RoiSampling,
    size: usize,
    [batches, _, height, width]: [usize; 4],
) -> Result<Vec<RoiBox>, KernelError> {
    let rows = floats(boxes);
    let one = |row: &[f32]| sampling.weights(row, size, [batches, height, width]).map_err(KernelError::Box);
    rows.chunks(5).map(one).collect()
}

/// The bins of one channel.
fn bins_of(plane: &[f32], width: usize, own: &RoiBox, bins: &mut [f32]) {
    let (first, end) = span(&own.columns);
    let mut line = vec![0.0; end - first];
    for (row, bins) in own.rows.iter().zip(bins.chunks_exact_mut(own.columns.len())) {
        line.fill(0.0);
        for (y, weight) in row.cells() {
            let source = &plane[y * width + first..y * width + end];
            line.iter_mut().zip(source).for_each(|(sum, x)| *sum += weight * x);
        }
        for (bin, column) in bins.iter_mut().zip(&own.columns) {
            *bin = column.cells().map(|(x, weight)| weight * line[x - first]).sum();
        }
    }
}

/// The transpose of [`bins_of`].
fn add_to(plane: &mut [f32], width: usize, own: &RoiBox, bins: &[f32]) {
    let (first, end) = span(&own.columns);
    let mut line = vec![0.0; end - first];
    for (row, bins) in own.rows.iter().zip(bins.chunks_exact(own.columns.len())) {
        line.fill(0.0);
        for (bin, column) in bins.iter().zip(&own.columns) {
            column.cells().for_each(|(x, weight)| line[x - first] += weight * bin);
        }
        for (y, weight) in row.cells() {
            let target = &mut plane[y * width + first..y * width + end];
            target.iter_mut().zip(&line).for_each(|(sum, x)| *sum += weight * x);
        }
    }
}

/// First column that any bin reads, and one past the last.
fn span(columns: &[RoiWeights]) -> (usize, usize) {
    let read = || columns.iter().filter(|bin| !bin.values.is_empty());
    let first = read().map(|bin| bin.first).min().unwrap_or(0);
    (first, read().map(|bin| bin.first + bin.values.len()).max().unwrap_or(first))
}

fn shape4(shape: &[usize]) -> Result<[usize; 4], KernelError> {
    shape.try_into().map_err(|_| KernelError::Shape { expected: "features [B, C, H, W]", got: shape.to_vec() })
}
