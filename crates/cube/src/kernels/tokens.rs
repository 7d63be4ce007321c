//! Gathering tokens by index, and adding their gradients back, in one order and without atomics.

use super::{elements, empty, spread};
use burn_backend::{Shape, TensorMetadata};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;
use vjepa_lower::KernelError;

/// Neighbours copy neighbouring features of a token. `step` is the size of a clip of `x`, none where all share one.
#[cube(launch)]
fn gather_kernel(x: &[f32], index: &[i32], y: &mut [f32], kept: usize, width: usize, step: usize) {
    if ABSOLUTE_POS < y.len() {
        let row = ABSOLUTE_POS / width;
        let token = usize::cast_from(index[row]);
        y[ABSOLUTE_POS] = x[row / kept * step + token * width + ABSOLUTE_POS % width];
    }
}

/// A unit adds up one feature of a clip, token after token.
#[cube(launch)]
fn scatter_kernel(dy: &[f32], index: &[i32], dx: &mut [f32], count: usize, kept: usize, tokens: usize, width: usize) {
    if ABSOLUTE_POS < count {
        let clip = ABSOLUTE_POS / width;
        let feature = ABSOLUTE_POS % width;
        let first = clip * tokens * width + feature;
        let mut token = 0usize.runtime();
        while token < tokens {
            dx[first + token * width] = 0.0f32;
            token += 1;
        }
        let mut row = clip * kept;
        let end = row + kept;
        while row < end {
            let at = first + usize::cast_from(index[row]) * width;
            dx[at] = dx[at] + dy[row * width + feature];
            row += 1;
        }
    }
}

/// `(x[B or 1, N, D], index[B, K]) -> [B, K, D]`.
pub(super) fn gather<R: CubeRuntime>(x: CubeTensor<R>, index: CubeTensor<R>) -> Result<CubeTensor<R>, KernelError> {
    let [batch, tokens, width] = shape3(&x)?;
    let [clips, kept] = shape2(&index)?;
    let y = empty(&x, Shape::new([clips, kept, width]));
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        let step = if batch == 1 { 0 } else { tokens * width };
        let args = (x.into_buffer_arg(), index.into_buffer_arg(), y.clone().into_buffer_arg());
        gather_kernel::launch::<R>(&y.client, count, dim, args.0, args.1, args.2, kept, width, step);
    }
    Ok(y)
}

/// `(dy[B, K, D], index[B, K]) -> [B, N, D]`.
pub(super) fn scatter<R: CubeRuntime>(
    dy: CubeTensor<R>,
    index: CubeTensor<R>,
    tokens: usize,
) -> Result<CubeTensor<R>, KernelError> {
    let [clips, kept, width] = shape3(&dy)?;
    let dx = empty(&dy, Shape::new([clips, tokens, width]));
    if elements(&dx) > 0 {
        let (count, dim) = spread(&dx, clips * width);
        // A buffer of no values cannot be bound; nothing is read of it then.
        let dy = if kept == 0 { empty(&dy, Shape::new([1])) } else { dy };
        let index = if kept == 0 { dy.clone() } else { index };
        let args = (dy.into_buffer_arg(), index.into_buffer_arg(), dx.clone().into_buffer_arg());
        let (units, client) = (clips * width, &dx.client);
        scatter_kernel::launch::<R>(client, count, dim, args.0, args.1, args.2, units, kept, tokens, width);
    }
    Ok(dx)
}

pub(super) fn shape3<R: CubeRuntime>(x: &CubeTensor<R>) -> Result<[usize; 3], KernelError> {
    x.shape().to_vec().try_into().map_err(|got| KernelError::Shape { expected: "[B, N, D]", got })
}

pub(super) fn shape2<R: CubeRuntime>(x: &CubeTensor<R>) -> Result<[usize; 2], KernelError> {
    x.shape().to_vec().try_into().map_err(|got| KernelError::Shape { expected: "[B, K]", got })
}
