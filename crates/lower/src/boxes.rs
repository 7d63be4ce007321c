//! RoIAlign as products: of every channel of a box the rows are averaged, then the columns.
//!
//! The weights are the interpreter's, computed on the host: boxes are few, and a wrong one is an error by name. Reading them
//! waits for what the device had to do before.

use super::semantic::to_f32;
use super::transposed;
use crate::KernelError;
use crate::operand::read_floats;
use burn_backend::tensor::{Device, FloatTensor};
use burn_backend::{Backend, Shape, TensorData, TensorMetadata};
use vjepa_compiler::ops::{RoiBox, RoiSampling, RoiWeights};

/// Bins `[R, C, S, S]` of boxes `[R, 5]` on features `[B, C, H, W]`.
pub(super) fn align<B: Backend>(
    [x, boxes]: [FloatTensor<B>; 2],
    (sampling, size): (RoiSampling, usize),
    largest: u64,
) -> Result<FloatTensor<B>, KernelError> {
    let (features, device, dtype) = (shape4(&x.shape())?, x.device(), x.dtype());
    let [_, channels, ..] = features;
    let found = weights::<B>(boxes, sampling, size, features)?;
    let x = to_f32::<B>(x);
    let mut parts = Vec::new();
    for found in found.chunks(at_once(features, largest)) {
        let samples = found.iter().map(|own| own.batch as i32).collect::<Vec<_>>();
        let index = B::int_from_data(TensorData::new(samples, [found.len()]), &device);
        let planes = B::float_select(x.clone(), 0, index);
        let [rows, columns] = matrices::<B>(found, features, size, &device);
        parts.push(B::float_matmul(B::float_matmul(rows, planes), transposed::<B>(columns)));
    }
    let bins = match parts.is_empty() {
        true => B::float_zeros(Shape::new([0, channels, size, size]), &device, burn_backend::FloatDType::F32),
        false => B::float_cat(parts, 0),
    };
    Ok(B::float_cast(bins, dtype.into()))
}

/// Gradients of bins `[R, C, S, S]`, added up to those of features of this shape, `[B, C, H, W]`, box after box.
pub(super) fn align_grad<B: Backend>(
    [dy, boxes]: [FloatTensor<B>; 2],
    sampling: RoiSampling,
    shape: &Shape,
    largest: u64,
) -> Result<FloatTensor<B>, KernelError> {
    let ([_, _, size, _], features) = (shape4(&dy.shape())?, shape4(shape)?);
    let [batches, channels, height, width] = features;
    let (device, dtype) = (dy.device(), dy.dtype());
    let found = weights::<B>(boxes, sampling, size, features)?;
    let dy = to_f32::<B>(dy);
    let values = channels * height * width;
    let mut sum = B::float_zeros(Shape::new([batches, values]), &device, burn_backend::FloatDType::F32);
    let mut first = 0;
    for found in found.chunks(at_once(features, largest)) {
        let own = super::slice::<B>(dy.clone(), 0, first, first + found.len());
        first += found.len();
        let [rows, columns] = matrices::<B>(found, features, size, &device);
        let planes = B::float_matmul(B::float_matmul(transposed::<B>(rows), own), columns);
        // Which box is of which sample, as a matrix: sums have one order.
        let of = |batch: usize| found.iter().map(move |own| if own.batch == batch { 1f32 } else { 0.0 });
        let of: Vec<f32> = (0..batches).flat_map(of).collect();
        let of = B::float_from_data(TensorData::new(of, [batches, found.len()]), &device);
        let planes = B::float_reshape(planes, Shape::new([found.len(), values]));
        sum = B::float_add(sum, B::float_matmul(of, planes));
    }
    Ok(B::float_cast(B::float_reshape(sum, shape.clone()), dtype.into()))
}

/// Boxes whose planes fit into a buffer.
fn at_once([_, channels, height, width]: [usize; 4], largest: u64) -> usize {
    let plane = (channels * height * width * size_of::<f32>()).max(1) as u64;
    usize::try_from(largest / plane).unwrap_or(usize::MAX).max(1)
}

fn weights<B: Backend>(
    boxes: FloatTensor<B>,
    sampling: RoiSampling,
    size: usize,
    [batches, _, height, width]: [usize; 4],
) -> Result<Vec<RoiBox>, KernelError> {
    let rows = read_floats::<B>(boxes).map_err(|why| KernelError::Unread { operand: 1, why })?;
    let one = |row: &[f32]| sampling.weights(row, size, [batches, height, width]).map_err(KernelError::Box);
    rows.chunks(5).map(one).collect()
}

/// Weights of rows `[R, C, S, H]` and of columns `[R, C, S, W]`, the same for all channels.
fn matrices<B: Backend>(
    found: &[RoiBox],
    [_, channels, height, width]: [usize; 4],
    size: usize,
    device: &Device<B>,
) -> [FloatTensor<B>; 2] {
    let matrix = |cells: usize, bins: &dyn Fn(&RoiBox) -> &[RoiWeights]| {
        let mut dense = vec![0f32; found.len() * size * cells];
        let all = found.iter().flat_map(|own| bins(own).iter());
        for (line, bin) in dense.chunks_exact_mut(cells.max(1)).zip(all) {
            for (cell, weight) in bin.cells() {
                if let Some(value) = line.get_mut(cell) {
                    *value = weight;
                }
            }
        }
        let shape = Shape::new([found.len(), 1, size, cells]);
        let dense = B::float_from_data(TensorData::new(dense, shape.clone()), device);
        B::float_expand(dense, Shape::new([found.len(), channels, size, cells]))
    };
    [matrix(height, &|own| &own.rows), matrix(width, &|own| &own.columns)]
}

fn shape4(shape: &Shape) -> Result<[usize; 4], KernelError> {
    shape
        .to_vec()
        .try_into()
        .map_err(|got| KernelError::Shape { expected: "features [B, C, H, W] or bins [R, C, S, S]", got })
}
