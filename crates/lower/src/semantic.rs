//! Norms and softmax as Burn's operations.

use super::reduce;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, FloatDType, TensorMetadata};

/// Softmax over the last axis, shifted by each row's maximum: exact for scores of any size.
pub(super) fn softmax<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let last = last_axis::<B>(&x);
    if !reduce::is_long::<B>(&x, last) {
        return B::softmax(x, last);
    }
    let powers = B::float_exp(shifted::<B>(x, last));
    let sum = reduce::sum::<B>(powers.clone(), &[last]);
    B::float_div(powers, sum)
}

/// Minus the largest value of each row of a long axis.
fn shifted<B: Backend>(x: FloatTensor<B>, axis: usize) -> FloatTensor<B> {
    let mut shape = x.shape();
    shape[axis] = 1;
    let most = reduce::largest::<B>(x.clone(), &[axis], shape);
    B::float_sub(x, most)
}

/// The logarithm of the softmax over the last axis.
pub(super) fn log_softmax<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let last = last_axis::<B>(&x);
    if !reduce::is_long::<B>(&x, last) {
        return B::log_softmax(x, last);
    }
    let x = shifted::<B>(x, last);
    let sum = reduce::sum::<B>(B::float_exp(x.clone()), &[last]);
    B::float_sub(x, B::float_log(sum))
}

/// `y·(dy − Σ y·dy)` over the last axis.
pub(super) fn softmax_grad<B: Backend>(y: FloatTensor<B>, dy: FloatTensor<B>) -> FloatTensor<B> {
    let last = last_axis::<B>(&y);
    let inner = reduce::sum::<B>(B::float_mul(y.clone(), dy.clone()), &[last]);
    B::float_mul(y, B::float_sub(dy, inner))
}

/// Layer norm without weight and bias.
pub(super) fn normalised<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let last = last_axis::<B>(&x);
    let mean = reduce::mean::<B>(x.clone(), &[last]);
    let centred = B::float_sub(x, mean);
    let variance = reduce::mean::<B>(B::float_mul(centred.clone(), centred.clone()), &[last]);
    B::float_div(centred, B::float_sqrt(B::float_add_scalar(variance, eps.into())))
}

fn last_axis<B: Backend>(x: &FloatTensor<B>) -> usize {
    x.shape().len().saturating_sub(1)
}

/// `f` in f32, its result in the element type of `x`.
pub(super) fn in_f32<B: Backend>(x: FloatTensor<B>, f: impl Fn(FloatTensor<B>) -> FloatTensor<B>) -> FloatTensor<B> {
    match x.dtype() {
        DType::F32 => f(x),
        dtype => B::float_cast(f(B::float_cast(x, FloatDType::F32)), dtype.into()),
    }
}

/// The tensor in f32.
pub(super) fn to_f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    if x.dtype() == DType::F32 { x } else { B::float_cast(x, FloatDType::F32) }
}
