//! Layer norm over the last axis, and its gradient. What is normalised, its result and the result's gradient may be stored in
//! 16 bits.
//!
//! A cube of units shares a row: each adds up every `units`-th element, then they add their sums in pairs.

use super::{cubes, elements, empty, empty_of, spread, stored};
use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// Rows whose share of a gradient one unit adds up.
pub(super) const ROWS: usize = 128;

/// The sum of `part` over the units of a cube, the same for all of them.
#[cube]
pub(super) fn total(part: f32, sums: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let at = UNIT_POS as usize;
    sums[at] = part;
    sync_cube();
    let mut half = comptime!(units / 2).runtime();
    while half > 0 {
        if at < half {
            sums[at] = sums[at] + sums[at + half];
        }
        sync_cube();
        half /= 2;
    }
    let all = sums[0];
    sync_cube();
    all
}

/// The mean of a row, then the reciprocal of its deviation, from the squares of differences: no digits cancel.
#[cube]
pub(super) fn mean_of<F: Float>(
    x: &[F],
    start: usize,
    width: usize,
    sums: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> f32 {
    let mut part = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        part += f32::cast_from(x[start + i]);
        i += units;
    }
    total(part, sums, units) / f32::cast_from(width)
}

#[cube]
pub(super) fn rstd_of<F: Float>(
    x: &[F],
    start: usize,
    width: usize,
    mean: f32,
    eps: f32,
    sums: &mut Shared<[f32]>,
    #[comptime] units: usize,
) -> f32 {
    let mut part = 0.0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let difference = f32::cast_from(x[start + i]) - mean;
        part += difference * difference;
        i += units;
    }
    1.0f32 / Sqrt::sqrt(total(part, sums, units) / f32::cast_from(width) + eps)
}

#[cube(launch)]
fn layer_norm_kernel<F: Float, G: Float>(
    x: &[F],
    weight: &[f32],
    bias: &[f32],
    y: &mut [G],
    rows: usize,
    width: usize,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] affine: bool,
    #[define(F, G)] _stored: [ElemType; 2],
) {
    let mut sums = Shared::<[f32]>::new_slice(units);
    let row = CUBE_POS;
    if row < rows {
        let start = row * width;
        let mean = mean_of(x, start, width, &mut sums, units);
        let rstd = rstd_of(x, start, width, mean, eps, &mut sums, units);
        let mut i = UNIT_POS as usize;
        while i < width {
            let mut normal = (f32::cast_from(x[start + i]) - mean) * rstd;
            if comptime!(affine) {
                normal = normal * weight[i] + bias[i];
            }
            y[start + i] = G::cast_from(normal);
            i += units;
        }
    }
}

/// `dx = rstd·(g − mean(g) − x̂·mean(g·x̂))` with `g = dy·weight`; `moments` gets each row's mean and rstd.
#[cube(launch)]
fn layer_norm_grad_kernel<F: Float>(
    x: &[f32],
    dy: &[F],
    weight: &[f32],
    dx: &mut [f32],
    moments: &mut [f32],
    rows: usize,
    width: usize,
    eps: f32,
    #[comptime] units: usize,
    #[comptime] affine: bool,
    #[define(F)] _stored: ElemType,
) {
    let mut sums = Shared::<[f32]>::new_slice(units);
    let row = CUBE_POS;
    if row < rows {
        let start = row * width;
        let mean = mean_of(x, start, width, &mut sums, units);
        let rstd = rstd_of(x, start, width, mean, eps, &mut sums, units);
        let mut part = 0.0f32;
        let mut dot = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < width {
            let mut g = f32::cast_from(dy[start + i]);
            if comptime!(affine) {
                g *= weight[i];
            }
            part += g;
            dot += g * (x[start + i] - mean) * rstd;
            i += units;
        }
        let mean_g = total(part, &mut sums, units) / f32::cast_from(width);
        let mean_dot = total(dot, &mut sums, units) / f32::cast_from(width);
        let mut i = UNIT_POS as usize;
        while i < width {
            let mut g = f32::cast_from(dy[start + i]);
            if comptime!(affine) {
                g *= weight[i];
            }
            dx[start + i] = rstd * (g - mean_g - (x[start + i] - mean) * rstd * mean_dot);
            i += units;
        }
        if UNIT_POS == 0 {
            moments[row * 2] = mean;
            moments[row * 2 + 1] = rstd;
        }
    }
}

/// Each unit adds up one column of [`ROWS`] rows: neighbours read neighbours.
#[cube(launch)]
fn shares_kernel<F: Float>(
    x: &[f32],
    dy: &[F],
    moments: &[f32],
    dweights: &mut [f32],
    dbiases: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] at_once: usize,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS < dweights.len() {
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * at_once;
        let mut end = first + at_once;
        if end > rows {
            end = rows;
        }
        let mut dweight = 0.0f32;
        let mut dbias = 0.0f32;
        let mut row = first;
        while row < end {
            let g = f32::cast_from(dy[row * width + column]);
            dbias += g;
            dweight += g * (x[row * width + column] - moments[row * 2]) * moments[row * 2 + 1];
            row += 1;
        }
        dweights[ABSOLUTE_POS] = dweight;
        dbiases[ABSOLUTE_POS] = dbias;
    }
}

/// Adds up the shares of each column, in order.
#[cube(launch)]
fn join_kernel(
    shares: &Sequence<Box<[f32]>>,
    sums: &mut Sequence<Box<[f32]>>,
    width: usize,
    parts: usize,
    #[comptime] count: usize,
) {
    if ABSOLUTE_POS < width {
        #[unroll]
        for i in 0..count {
            let mut sum = 0.0f32;
            let mut part = 0usize.runtime();
            while part < parts {
                sum += shares[i][part * width + ABSOLUTE_POS];
                part += 1;
            }
            let sums = &mut sums[i];
            sums[ABSOLUTE_POS] = sum;
        }
    }
}

/// The sums `[width]` over the first axis of shares `[parts, width]`.
pub(super) fn join<R: CubeRuntime, const N: usize>(
    shares: [CubeTensor<R>; N],
    [parts, width]: [usize; 2],
) -> [CubeTensor<R>; N] {
    let sums = shares.each_ref().map(|share| empty(share, Shape::new([width])));
    if let Some(beside) = sums.first().filter(|_| width > 0) {
        let (count, dim) = spread(beside, width);
        let [from, to] =
            [shares, sums.clone()].map(|tensors| tensors.into_iter().map(CubeTensor::into_buffer_arg).collect());
        join_kernel::launch::<R>(&beside.client, count, dim, from, to, width, parts, N);
    }
    sums
}

/// Rows and width of a tensor.
pub(super) fn rows_of<R: CubeRuntime>(x: &CubeTensor<R>) -> (usize, usize) {
    let width = x.shape().last().copied().unwrap_or(1).max(1);
    (elements(x) / width, width)
}

/// A cube for each row, of as many units as have something to add, and as the device takes.
pub(super) fn per_row<R: CubeRuntime>(x: &CubeTensor<R>, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
    let hardware = &x.client.properties().hardware;
    let most = (hardware.max_units_per_cube.min(256) as usize).max(1);
    let units = width.div_ceil(4).next_power_of_two().clamp(1, 1 << most.ilog2());
    (cubes(x, rows), CubeDim::new_1d(units as u32), units)
}

/// Normalised, times weight plus bias where there are, in `to`.
pub(super) fn layer_norm<R: CubeRuntime>(
    x: CubeTensor<R>,
    affine: Option<[CubeTensor<R>; 2]>,
    to: DType,
    eps: f32,
) -> CubeTensor<R> {
    let y = empty_of(&x, x.shape(), to);
    let (rows, width) = rows_of(&x);
    if rows > 0 {
        let (count, dim, units) = per_row(&x, rows, width);
        let has = affine.is_some();
        // A kernel without them reads neither.
        let [weight, bias] = affine.unwrap_or_else(|| [(); 2].map(|()| empty(&x, Shape::new([1]))));
        let stored = [stored(&x), stored(&y)];
        layer_norm_kernel::launch::<R>(
            &y.client,
            count,
            dim,
            x.into_buffer_arg(),
            weight.into_buffer_arg(),
            bias.into_buffer_arg(),
            y.clone().into_buffer_arg(),
            rows,
            width,
            eps,
            units,
            has,
            stored,
        );
    }
    y
}

/// `dx`, and with a weight `dweight` and `dbias`, in f32 as `x` and the weight are.
pub(super) fn layer_norm_grad<R: CubeRuntime>(
    x: CubeTensor<R>,
    dy: CubeTensor<R>,
    weight: Option<CubeTensor<R>>,
    eps: f32,
) -> Vec<CubeTensor<R>> {
    let dx = empty(&x, x.shape());
    let (rows, width) = rows_of(&x);
    let moments = empty(&x, Shape::new([rows.max(1), 2]));
    let affine = weight.is_some();
    let weight = weight.unwrap_or_else(|| x.clone());
    let (count, dim, units) = per_row(&x, rows, width);
    layer_norm_grad_kernel::launch::<R>(
        &dx.client,
        count,
        dim,
        x.clone().into_buffer_arg(),
        dy.clone().into_buffer_arg(),
        weight.into_buffer_arg(),
        dx.clone().into_buffer_arg(),
        moments.clone().into_buffer_arg(),
        rows,
        width,
        eps,
        units,
        affine,
        stored(&dy),
    );
    if !affine {
        return vec![dx];
    }
    let [dweight, dbias] = affine_grads(x, dy, moments, rows, width);
    vec![dx, dweight, dbias]
}

/// `Σ dy·x̂` and `Σ dy` over the rows.
fn affine_grads<R: CubeRuntime>(
    x: CubeTensor<R>,
    dy: CubeTensor<R>,
    moments: CubeTensor<R>,
    rows: usize,
    width: usize,
) -> [CubeTensor<R>; 2] {
    let parts = rows.div_ceil(ROWS).max(1);
    let shares = [(); 2].map(|()| empty(&x, Shape::new([parts, width])));
    let client = x.client.clone();
    let (count, dim) = spread(&x, parts * width);
    let [dweights, dbiases] = shares.clone().map(CubeTensor::into_buffer_arg);
    let dtype = stored(&dy);
    shares_kernel::launch::<R>(
        &client,
        count,
        dim,
        x.clone().into_buffer_arg(),
        dy.into_buffer_arg(),
        moments.into_buffer_arg(),
        dweights,
        dbiases,
        rows,
        width,
        ROWS,
        dtype,
    );
    join(shares, [parts, width])
}
