//! Sums, means and maxima along axes.
//!
//! Burn's reductions through WGSL (0.22.0-pre.3, on Mesa's software device) read the first 65,536 values of an axis and no more, in
//! silence. A longer axis is reduced in parts, whose results are joined; that keeps more digits, too.

use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, Scalar, Shape, TensorMetadata};

/// Values of an axis that are reduced at once.
const AT_ONCE: usize = 1 << 14;

/// Sums over the axes, which stay with size 1.
pub(super) fn sum<B: Backend>(x: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    axes.iter().fold(x, |x, axis| in_parts::<B>(x, *axis, &B::float_sum_dim, &B::float_add))
}

/// Means over the axes, which stay with size 1.
pub(super) fn mean<B: Backend>(x: FloatTensor<B>, axes: &[usize]) -> FloatTensor<B> {
    let long = axes.iter().any(|axis| x.shape()[*axis] > AT_ONCE);
    if !long {
        return axes.iter().fold(x, |x, axis| B::float_mean_dim(x, *axis));
    }
    let count: usize = axes.iter().map(|axis| x.shape()[*axis]).product();
    B::float_div_scalar(sum::<B>(x, axes), Scalar::Float(count as f64))
}

/// The largest values over the axes, which stay with size 1.
pub(super) fn largest<B: Backend>(x: FloatTensor<B>, axes: &[usize], shape: Shape) -> FloatTensor<B> {
    // Back ends do not reduce over nothing, even where nothing comes of it.
    if shape.contains(&0) {
        return B::float_zeros(shape, &x.device(), x.dtype().into());
    }
    let larger = |a, b| B::float_max_dim(B::float_cat(vec![a, b], 0), 0);
    axes.iter().fold(x, |x, axis| {
        if x.shape()[*axis] <= AT_ONCE {
            return B::float_max_dim(x, *axis);
        }
        // Joined along an axis of their own.
        let outer = |x: FloatTensor<B>| {
            let dims: Vec<usize> = std::iter::once(1).chain(x.shape().iter().copied()).collect();
            B::float_reshape(x, Shape::from(dims))
        };
        let joined = in_parts::<B>(outer(x), axis + 1, &B::float_max_dim, &larger);
        let dims: Vec<usize> = joined.shape().iter().skip(1).copied().collect();
        B::float_reshape(joined, Shape::from(dims))
    })
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
        reduce(super::slice::<B>(x.clone(), axis, start, end), axis)
    };
    match size {
        0..=AT_ONCE => reduce(x, axis),
        _ => (AT_ONCE..size).step_by(AT_ONCE).map(part).fold(part(0), join),
    }
}
