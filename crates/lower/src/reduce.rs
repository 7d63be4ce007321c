//! Sums, means and maxima along axes; softmax (`semantic.rs`) has them too.
//!
//! Burn's reductions through WGSL (0.22.0-pre.3, on Mesa's software device) read the first 65,536 values of an axis and no
//! more, in silence. A longer axis is reduced in parts, whose results are joined; that keeps more digits, too.

use super::{binary, slice};
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, Scalar, Shape, TensorMetadata};
use vjepa_compiler::ops::Binary;

/// Values of an axis that are reduced at once.
const AT_ONCE: usize = 1 << 14;

/// Whether an axis is longer than Burn's operations that reduce inside take.
pub(super) fn is_long<B: Backend>(x: &FloatTensor<B>, axis: usize) -> bool {
    x.shape()[axis] > AT_ONCE
}

/// Sums over the axes, which stay with size 1.
pub(super) fn sum<B: Backend>(x: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    axes.iter().fold(x, |x, axis| in_parts::<B>(x, *axis, &B::float_sum_dim, &B::float_add))
}

/// Means over the axes, which stay with size 1.
pub(super) fn mean<B: Backend>(x: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    axes.iter().fold(x, |x, axis| match x.shape()[*axis] {
        0..=AT_ONCE => B::float_mean_dim(x, *axis),
        size => B::float_div_scalar(sum::<B>(x, &[*axis]), Scalar::Float(size as f64)),
    })
}

/// The largest values over the axes, which stay with size 1.
pub(super) fn largest<B: Backend>(x: FloatTensor<B>, axes: &[usize], shape: Shape) -> FloatTensor<B> {
    // Back ends do not reduce over nothing, even where nothing comes of it.
    if shape.contains(&0) {
        return B::float_zeros(shape, &x.device(), x.dtype().into());
    }
    let larger = |a, b| binary::<B>(Binary::Max, a, b);
    axes.iter().fold(x, |x, axis| in_parts::<B>(x, *axis, &B::float_max_dim, &larger))
}

/// Reduces an axis part by part.
fn in_parts<B: Backend>(
    x: FloatTensor<B>,
    axis: usize,
    reduce: &dyn Fn(FloatTensor<B>, usize) -> FloatTensor<B>,
    join: &dyn Fn(FloatTensor<B>, FloatTensor<B>) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let size = x.shape()[axis];
    let part = |start: usize| {
        let end = (start + AT_ONCE).min(size);
        reduce(slice::<B>(x.clone(), axis, start, end), axis)
    };
    match size {
        0..=AT_ONCE => reduce(x, axis),
        _ => (AT_ONCE..size).step_by(AT_ONCE).map(part).fold(part(0), join),
    }
}
