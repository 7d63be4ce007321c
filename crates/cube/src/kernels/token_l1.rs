//! The distance of predicted tokens from normalised ones at an index, and its gradient. A cube of units shares a token.

use super::norm::{mean_of, per_row, rstd_of, total};
use super::tokens::{shape2, shape3};
use super::{elements, empty};
use burn_backend::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use vjepa_lower::KernelError;

/// `step` is the size of a clip of `x`, none where all share one. Without a `scale` the mean distance of each token is written,
/// else the sign of each difference times it.
#[cube(launch)]
fn token_l1_kernel(
    y: &[f32],
    x: &[f32],
    index: &[i32],
    result: &mut [f32],
    rows: usize,
    kept: usize,
    width: usize,
    step: usize,
    eps: f32,
    scale: f32,
    #[comptime] units: usize,
    #[comptime] grad: bool,
) {
    let mut sums = Shared::<[f32]>::new_slice(units);
    let row = CUBE_POS;
    if row < rows {
        let start = row / kept * step + usize::cast_from(index[row]) * width;
        let mean = mean_of(x, start, width, &mut sums, units);
        let rstd = rstd_of(x, start, width, mean, eps, &mut sums, units);
        let mut part = 0.0f32;
        let mut i = UNIT_POS as usize;
        while i < width {
            let difference = y[row * width + i] - (x[start + i] - mean) * rstd;
            if comptime!(grad) {
                // Of zero and of NaN the number itself.
                let mut sign = difference;
                if difference > 0.0f32 {
                    sign = 1.0f32;
                }
                if difference < 0.0f32 {
                    sign = -1.0f32;
                }
                result[row * width + i] = scale * sign;
            } else {
                part += Abs::abs(difference);
            }
            i += units;
        }
        if comptime!(!grad) {
            let sum = total(part, &mut sums, units);
            if UNIT_POS == 0 {
                result[row] = sum / f32::cast_from(width);
            }
        }
    }
}

/// `(y[B, K, D], x[B or 1, N, D], index[B, K])` to the mean distances `[B, K, 1]`, or with a `scale` to `[B, K, D]`.
pub(super) fn token_l1<R: CubeRuntime>(
    y: CubeTensor<R>,
    x: CubeTensor<R>,
    index: CubeTensor<R>,
    eps: f64,
    scale: Option<f64>,
) -> Result<CubeTensor<R>, KernelError> {
    let [batch, tokens, width] = shape3(&x)?;
    let [clips, kept] = shape2(&index)?;
    let shape = if scale.is_some() { y.shape() } else { Shape::new([clips, kept, 1]) };
    let result = empty(&y, shape);
    if elements(&result) > 0 {
        let rows = clips * kept;
        let (count, dim, units) = per_row(&y, rows, width);
        let step = if batch == 1 { 0 } else { tokens * width };
        token_l1_kernel::launch::<R>(
            &result.client,
            count,
            dim,
            y.into_buffer_arg(),
            x.into_buffer_arg(),
            index.into_buffer_arg(),
            result.clone().into_buffer_arg(),
            rows,
            kept,
            width,
            step,
            eps as f32,
            scale.unwrap_or(1.0) as f32,
            units,
            scale.is_some(),
        );
    }
    Ok(result)
}
