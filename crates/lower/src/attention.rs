//! Attention and its gradient as Burn's operations.
//!
//! In bf16 the forward goes to the back end's own attention, a flash kernel where it has one: no N×N matrix is stored.
//! Everything else (f32, since the flash kernels' tiles are not; the gradient, since no back end of Burn has a fused one)
//! builds the scores, of as many clips at once as [`MOST_SCORES`] allows. Products are in the operands' type, softmax and
//! its gradient in f32.

use super::semantic::{softmax, softmax_grad, to_f32};
use super::transposed;
use crate::KernelError;
use burn_backend::ops::AttentionModuleOptions;
use burn_backend::tensor::FloatTensor;
use burn_backend::{Backend, DType, Slice, TensorMetadata};
use std::sync::OnceLock;

/// Scores in memory at once, unless one clip has more or the device's buffers are smaller: 1 GiB in f32.
const MOST_SCORES: usize = 1 << 28;

/// `softmax(scale·q·kᵀ)·v`.
pub(super) fn forward<B: Backend>(
    [q, k, v]: [FloatTensor<B>; 3],
    scale: f64,
    largest: u64,
) -> Result<FloatTensor<B>, KernelError> {
    let [_, _, _, width] = shape4::<B>(&q)?;
    if nothing::<B>(&q, &k)? {
        return Ok(zeros::<B>(&q));
    }
    let usual = 1.0 / (width as f64).sqrt();
    // Burn's flash kernels take their scale from the width, and only that one.
    if flash() && q.dtype() != DType::F32 && (scale - usual).abs() <= 1e-6 * usual {
        return Ok(B::attention(q, k, v, None, None, AttentionModuleOptions::default()));
    }
    let [y] = in_parts::<B, 3, 1>([q, k, v], largest, |[q, k, v]| {
        let back = like::<B>(&q);
        let shares = shares::<B>(q, k, scale);
        [B::float_matmul(back(shares), v)]
    })?;
    Ok(y)
}

/// `dq, dk, dv` of `(q, k, v, y, dy)`.
pub(super) fn backward<B: Backend>(
    [q, k, v, _, dy]: [FloatTensor<B>; 5],
    scale: f64,
    largest: u64,
) -> Result<[FloatTensor<B>; 3], KernelError> {
    if nothing::<B>(&q, &k)? {
        return Ok([&q, &k, &v].map(zeros::<B>));
    }
    in_parts::<B, 4, 3>([q, k, v, dy], largest, |[q, k, v, dy]| {
        let back = like::<B>(&q);
        let shares = shares::<B>(q.clone(), k.clone(), scale);
        let dv = B::float_matmul(transposed::<B>(back(shares.clone())), dy.clone());
        let dshares = to_f32::<B>(B::float_matmul(dy, transposed::<B>(v)));
        let dscores = back(B::float_mul_scalar(softmax_grad::<B>(shares, dshares), scale.into()));
        let dq = B::float_matmul(dscores.clone(), k);
        let dk = B::float_matmul(transposed::<B>(dscores), q);
        [dq, dk, dv]
    })
}

/// `softmax(scale·q·kᵀ)` in f32.
fn shares<B: Backend>(q: FloatTensor<B>, k: FloatTensor<B>, scale: f64) -> FloatTensor<B> {
    let products = to_f32::<B>(B::float_matmul(q, transposed::<B>(k)));
    softmax::<B>(B::float_mul_scalar(products, scale.into()))
}

/// Casts f32 to the element type of `x`.
fn like<B: Backend>(x: &FloatTensor<B>) -> impl Fn(FloatTensor<B>) -> FloatTensor<B> + use<B> {
    let dtype = x.dtype();
    move |y| if dtype == DType::F32 { y } else { B::float_cast(y, dtype.into()) }
}

/// Runs `f` on parts of the clips and joins what comes back. The first two operands are `q` and `k`.
fn in_parts<B: Backend, const N: usize, const M: usize>(
    operands: [FloatTensor<B>; N],
    largest: u64,
    f: impl Fn([FloatTensor<B>; N]) -> [FloatTensor<B>; M],
) -> Result<[FloatTensor<B>; M], KernelError> {
    let [q, k, ..] = operands.as_slice() else {
        return Err(KernelError::Operands { expected: "queries and keys", got: N });
    };
    let ([clips, heads, rows, _], [_, _, keys, _]) = (shape4::<B>(q)?, shape4::<B>(k)?);
    let most = usize::try_from(largest / 4).unwrap_or(usize::MAX).min(MOST_SCORES);
    let at_once = (most / (heads * rows * keys).max(1)).max(1);
    if at_once >= clips {
        return Ok(f(operands));
    }
    let mut parts: [Vec<FloatTensor<B>>; M] = std::array::from_fn(|_| Vec::new());
    for start in (0..clips).step_by(at_once) {
        let range = start..(start + at_once).min(clips);
        let results = f(operands.each_ref().map(|x| clips_of::<B>(x, range.clone())));
        parts.iter_mut().zip(results).for_each(|(parts, result)| parts.push(result));
    }
    Ok(parts.map(|parts| B::float_cat(parts, 0)))
}

/// Whether there is no row or no key, as where a part of a batch has no clip: back ends do not reduce over nothing.
fn nothing<B: Backend>(q: &FloatTensor<B>, k: &FloatTensor<B>) -> Result<bool, KernelError> {
    Ok(shape4::<B>(q)?.contains(&0) || shape4::<B>(k)?.contains(&0))
}

fn zeros<B: Backend>(like: &FloatTensor<B>) -> FloatTensor<B> {
    B::float_zeros(like.shape(), &like.device(), like.dtype().into())
}

fn shape4<B: Backend>(x: &FloatTensor<B>) -> Result<[usize; 4], KernelError> {
    x.shape().to_vec().try_into().map_err(|got| KernelError::Shape { expected: "[B, H, N, d]", got })
}

/// Clips `range` of `[B, H, N, d]`.
fn clips_of<B: Backend>(x: &FloatTensor<B>, range: std::ops::Range<usize>) -> FloatTensor<B> {
    let mut ranges: Vec<Slice> = x.shape().iter().map(|size| Slice::new(0, Some(*size as isize), 1)).collect();
    if let Some(first) = ranges.first_mut() {
        *first = Slice::new(range.start as isize, Some(range.end as isize), 1);
    }
    B::float_slice(x.clone(), &ranges)
}

/// Whether bf16 attention goes to the back end's flash kernels: unless `VJEPA_FLASH=0`, for telling their bugs from ours.
fn flash() -> bool {
    static FLASH: OnceLock<bool> = OnceLock::new();
    *FLASH.get_or_init(|| std::env::var_os("VJEPA_FLASH").is_none_or(|value| value != "0"))
}
