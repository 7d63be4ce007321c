//! GELU, exact, with its gradient.

use super::{elements, empty, spread};
use burn_backend::TensorMetadata;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The normal distribution up to `x`.
#[cube]
fn below(x: f32) -> f32 {
    0.5f32 * (1.0f32 + Erf::erf(x * 0.707_106_77f32))
}

/// The derivative of `x·Φ(x)`: `Φ(x) + x·φ(x)`.
#[cube]
fn slope(x: f32) -> f32 {
    let density = Exp::exp(x * x * -0.5f32) * 0.398_942_3f32;
    below(x) + x * density
}

#[cube(launch)]
fn gelu_kernel(x: &[f32], y: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let value = x[ABSOLUTE_POS];
        y[ABSOLUTE_POS] = value * below(value);
    }
}

#[cube(launch)]
fn gelu_grad_kernel(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    if ABSOLUTE_POS < dx.len() {
        dx[ABSOLUTE_POS] = dy[ABSOLUTE_POS] * slope(x[ABSOLUTE_POS]);
    }
}

#[cube(launch)]
fn gelu_with_grad_kernel(x: &[f32], dy: &[f32], y: &mut [f32], dx: &mut [f32]) {
    if ABSOLUTE_POS < y.len() {
        let value = x[ABSOLUTE_POS];
        y[ABSOLUTE_POS] = value * below(value);
        dx[ABSOLUTE_POS] = dy[ABSOLUTE_POS] * slope(value);
    }
}

/// `gelu(x)`.
pub(super) fn gelu<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let y = empty(&x, x.shape());
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        gelu_kernel::launch::<R>(&y.client, count, dim, x.into_buffer_arg(), y.clone().into_buffer_arg());
    }
    y
}

/// `dy·gelu'(x)`.
pub(super) fn gelu_grad<R: CubeRuntime>(x: CubeTensor<R>, dy: CubeTensor<R>) -> CubeTensor<R> {
    let dx = empty(&x, x.shape());
    if elements(&dx) > 0 {
        let (count, dim) = spread(&dx, elements(&dx));
        let args = (x.into_buffer_arg(), dy.into_buffer_arg(), dx.clone().into_buffer_arg());
        gelu_grad_kernel::launch::<R>(&dx.client, count, dim, args.0, args.1, args.2);
    }
    dx
}

/// `gelu(x)` and `dy·gelu'(x)`.
pub(super) fn gelu_with_grad<R: CubeRuntime>(x: CubeTensor<R>, dy: CubeTensor<R>) -> [CubeTensor<R>; 2] {
    let (y, dx) = (empty(&x, x.shape()), empty(&x, x.shape()));
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        let operands = [x, dy, y.clone(), dx.clone()].map(CubeTensor::into_buffer_arg);
        let [x, dy, out, slope] = operands;
        gelu_with_grad_kernel::launch::<R>(&y.client, count, dim, x, dy, out, slope);
    }
    [y, dx]
}
