//! GELU, exact, with its gradient, of a tensor and of one with a bias; a sum of 32 and 16 bits. `F` is what tensors are stored
//! in; the arithmetic is in f32.

use super::norm::{ROWS, join, rows_of};
use super::{alike, elements, empty, spread, stored};
use burn_backend::Shape;
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::ir::ElemType;
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
fn gelu_kernel<F: Float>(x: &[F], y: &mut [F], #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < y.len() {
        let value = f32::cast_from(x[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = F::cast_from(value * below(value));
    }
}

#[cube(launch)]
fn gelu_grad_kernel<F: Float>(x: &[F], dy: &[F], dx: &mut [F], #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < dx.len() {
        let gradient = f32::cast_from(dy[ABSOLUTE_POS]) * slope(f32::cast_from(x[ABSOLUTE_POS]));
        dx[ABSOLUTE_POS] = F::cast_from(gradient);
    }
}

#[cube(launch)]
fn gelu_with_grad_kernel<F: Float>(x: &[F], dy: &[F], y: &mut [F], dx: &mut [F], #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < y.len() {
        let value = f32::cast_from(x[ABSOLUTE_POS]);
        y[ABSOLUTE_POS] = F::cast_from(value * below(value));
        dx[ABSOLUTE_POS] = F::cast_from(f32::cast_from(dy[ABSOLUTE_POS]) * slope(value));
    }
}

#[cube(launch)]
fn bias_gelu_kernel<F: Float>(x: &[F], bias: &[f32], y: &mut [F], width: usize, #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < y.len() {
        let value = f32::cast_from(x[ABSOLUTE_POS]) + bias[ABSOLUTE_POS % width];
        y[ABSOLUTE_POS] = F::cast_from(value * below(value));
    }
}

/// A unit goes down one column of [`ROWS`] rows and adds its gradient up: neighbours read neighbours.
#[cube(launch)]
fn bias_gelu_grad_kernel<F: Float>(
    x: &[F],
    bias: &[f32],
    dy: &[F],
    y: &mut [F],
    dx: &mut [F],
    shares: &mut [f32],
    rows: usize,
    width: usize,
    #[comptime] at_once: usize,
    #[comptime] with_result: bool,
    #[define(F)] _stored: ElemType,
) {
    if ABSOLUTE_POS < shares.len() {
        let column = ABSOLUTE_POS % width;
        let first = ABSOLUTE_POS / width * at_once;
        let mut end = first + at_once;
        if end > rows {
            end = rows;
        }
        let added = bias[column];
        let mut sum = 0.0f32;
        let mut row = first;
        while row < end {
            let at = row * width + column;
            let value = f32::cast_from(x[at]) + added;
            let gradient = f32::cast_from(dy[at]) * slope(value);
            dx[at] = F::cast_from(gradient);
            if comptime!(with_result) {
                y[at] = F::cast_from(value * below(value));
            }
            sum += gradient;
            row += 1;
        }
        shares[ABSOLUTE_POS] = sum;
    }
}

#[cube(launch)]
fn add_kernel<F: Float>(a: &[f32], b: &[F], sum: &mut [f32], #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < sum.len() {
        sum[ABSOLUTE_POS] = a[ABSOLUTE_POS] + f32::cast_from(b[ABSOLUTE_POS]);
    }
}

#[cube(launch)]
fn add_in_place_kernel<F: Float>(a: &mut [f32], b: &[F], #[define(F)] _stored: ElemType) {
    if ABSOLUTE_POS < a.len() {
        a[ABSOLUTE_POS] = a[ABSOLUTE_POS] + f32::cast_from(b[ABSOLUTE_POS]);
    }
}

/// `a + b` of one shape, `a` in f32; over `a` where nobody else holds it.
pub(super) fn add<R: CubeRuntime>(a: CubeTensor<R>, b: CubeTensor<R>) -> CubeTensor<R> {
    if elements(&a) == 0 {
        return a;
    }
    let (client, (count, dim), dtype) = (a.client.clone(), spread(&a, elements(&a)), stored(&b));
    if a.can_mut() {
        add_in_place_kernel::launch::<R>(&client, count, dim, a.clone().into_buffer_arg(), b.into_buffer_arg(), dtype);
        return a;
    }
    let sum = alike(&a);
    let args = (a.into_buffer_arg(), b.into_buffer_arg(), sum.clone().into_buffer_arg());
    add_kernel::launch::<R>(&client, count, dim, args.0, args.1, args.2, dtype);
    sum
}

/// `gelu(x + bias)`.
pub(super) fn bias_gelu<R: CubeRuntime>(x: CubeTensor<R>, bias: CubeTensor<R>) -> CubeTensor<R> {
    let y = alike(&x);
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        let (_, width) = rows_of(&x);
        let args = (x.into_buffer_arg(), bias.into_buffer_arg(), y.clone().into_buffer_arg());
        bias_gelu_kernel::launch::<R>(&y.client, count, dim, args.0, args.1, args.2, width, stored(&y));
    }
    y
}

/// `gelu(x + bias)` where it is wanted, its gradient `dx`, and that of the bias.
pub(super) fn bias_gelu_grad<R: CubeRuntime>(
    [x, bias, dy]: [CubeTensor<R>; 3],
    with_result: bool,
) -> Vec<CubeTensor<R>> {
    let (rows, width) = rows_of(&x);
    let parts = rows.div_ceil(ROWS).max(1);
    let (dx, shares) = (alike(&x), empty(&x, Shape::new([parts, width])));
    let y = with_result.then(|| alike(&x));
    let (count, dim) = spread(&x, parts * width);
    // A buffer of no values cannot be bound; nothing is read or written of it then.
    let bound = |tensor: &CubeTensor<R>| if rows == 0 { bias.clone() } else { tensor.clone() };
    let args = [&x, &bias, &dy, y.as_ref().unwrap_or(&dx), &dx].map(|tensor| bound(tensor).into_buffer_arg());
    let [x, bias_arg, dy, y_arg, dx_arg] = args;
    let sums = shares.clone().into_buffer_arg();
    let client = &dx.client;
    bias_gelu_grad_kernel::launch::<R>(
        client,
        count,
        dim,
        x,
        bias_arg,
        dy,
        y_arg,
        dx_arg,
        sums,
        rows,
        width,
        ROWS,
        with_result,
        stored(&dx),
    );
    y.into_iter().chain([dx]).chain(join([shares], [parts, width])).collect()
}

/// `gelu(x)`.
pub(super) fn gelu<R: CubeRuntime>(x: CubeTensor<R>) -> CubeTensor<R> {
    let y = alike(&x);
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        let args = (x.into_buffer_arg(), y.clone().into_buffer_arg());
        gelu_kernel::launch::<R>(&y.client, count, dim, args.0, args.1, stored(&y));
    }
    y
}

/// `dy·gelu'(x)`.
pub(super) fn gelu_grad<R: CubeRuntime>(x: CubeTensor<R>, dy: CubeTensor<R>) -> CubeTensor<R> {
    let dx = alike(&x);
    if elements(&dx) > 0 {
        let (count, dim) = spread(&dx, elements(&dx));
        let args = (x.into_buffer_arg(), dy.into_buffer_arg(), dx.clone().into_buffer_arg());
        gelu_grad_kernel::launch::<R>(&dx.client, count, dim, args.0, args.1, args.2, stored(&dx));
    }
    dx
}

/// `gelu(x)` and `dy·gelu'(x)`.
pub(super) fn gelu_with_grad<R: CubeRuntime>(x: CubeTensor<R>, dy: CubeTensor<R>) -> [CubeTensor<R>; 2] {
    let (y, dx) = (alike(&x), alike(&x));
    if elements(&y) > 0 {
        let (count, dim) = spread(&y, elements(&y));
        let operands = [x, dy, y.clone(), dx.clone()].map(CubeTensor::into_buffer_arg);
        let [x, dy, out, slope] = operands;
        gelu_with_grad_kernel::launch::<R>(&y.client, count, dim, x, dy, out, slope, stored(&y));
    }
    [y, dx]
}
