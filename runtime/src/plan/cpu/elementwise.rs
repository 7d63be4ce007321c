//! Elementwise kernels, in place where the operand is not needed any more.

use super::math;
use super::pool::Pool;
use super::simd;
use super::tensor::{dims, floats, indices, scalar, tensor, writable};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use vjepa_compiler::ops::DropKey;

/// Elements per task: enough to pay for its dispatch, few enough for the first-level cache.
pub(super) const CHUNK: usize = 16 * 1024;

/// −1, 0 or 1; NaN stays NaN.
pub(super) fn sign(x: f32) -> f32 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x * 0.0
    }
}

pub(super) fn map_in_place(x: FlexTensor, function: impl Fn(f32) -> f32 + Sync, pool: &mut Pool) -> FlexTensor {
    let mut x = writable(x, pool);
    x.storage_mut::<f32>().par_chunks_mut(CHUNK).for_each(|chunk| {
        simd::dispatch(
            #[inline(always)]
            || chunk.iter_mut().for_each(|value| *value = function(*value)),
        );
    });
    x
}

/// The `draws` equal parts of `x`, each kept and scaled or zero, by the numbers of `key` at `place`.
pub(super) fn dropout(
    x: FlexTensor,
    key: &FlexTensor,
    (rate, place): (f64, usize),
    draws: usize,
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let wrong = || KernelError::Shape { expected: "a key of four numbers", got: dims(key) };
    let key = DropKey::of_tensor(&indices(key)).ok_or_else(wrong)?;
    let mut x = writable(x, pool);
    let values = x.storage_mut::<f32>();
    let scale = (1.0 / (1.0 - rate)) as f32;
    let each = values.len().checked_div(draws).unwrap_or(0).max(1);
    for (part, kept) in values.chunks_exact_mut(each).zip(key.kept(place, rate, draws)) {
        match kept {
            true => part.iter_mut().for_each(|value| *value *= scale),
            false => part.fill(0.0),
        }
    }
    Ok(x)
}

pub(super) fn gelu(x: FlexTensor, pool: &mut Pool) -> FlexTensor {
    if x.is_unique() {
        let mut x = writable(x, pool);
        x.storage_mut::<f32>().par_chunks_mut(CHUNK).for_each(math::gelu_in_place);
        return x;
    }
    let values = floats(&x);
    let mut out = pool.take(values.len());
    out.par_chunks_mut(CHUNK).zip(values.par_chunks(CHUNK)).for_each(|(out, x)| math::gelu(out, x));
    tensor(out, &dims(&x))
}

pub(super) fn gelu_grad(x: FlexTensor, dy: FlexTensor, pool: &mut Pool) -> FlexTensor {
    let mut out = writable(dy, pool);
    let values = floats(&x);
    out.storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(values.par_chunks(CHUNK))
        .for_each(|(out, x)| math::gelu_grad(out, x));
    drop(values);
    pool.recycle(x);
    out
}

/// `(x, dy) -> gelu(x), dy·gelu'(x)`.
pub(super) fn gelu_with_grad(x: FlexTensor, dy: FlexTensor, pool: &mut Pool) -> [FlexTensor; 2] {
    let (mut y, mut dx) = (writable(x, pool), writable(dy, pool));
    let chunks = y.storage_mut::<f32>().par_chunks_mut(CHUNK).zip(dx.storage_mut::<f32>().par_chunks_mut(CHUNK));
    chunks.for_each(|(x, dy)| math::gelu_with_grad(x, dy));
    [y, dx]
}

/// `function(a, b)` with NumPy broadcasting.
pub(super) fn zip(
    a: FlexTensor,
    b: FlexTensor,
    shape: &[usize],
    function: impl Fn(f32, f32) -> f32 + Sync,
    pool: &mut Pool,
) -> Result<FlexTensor, KernelError> {
    let (left, right) = (dims(&a), dims(&b));
    let elements = shape.iter().product::<usize>();
    let count = |dims: &[usize]| dims.iter().product::<usize>();
    if count(&left) == elements && count(&right) == elements {
        // Write into whichever operand is free; with none free, one pass from both into a third.
        if a.is_unique() {
            let mut out = writable(a, pool);
            zip_chunks(out.storage_mut::<f32>(), &floats(&b), &function);
            pool.recycle(b);
            return Ok(out.reshape(burn_backend::Shape::from(shape.to_vec())));
        }
        if b.is_unique() {
            let mut out = writable(b, pool);
            zip_chunks(out.storage_mut::<f32>(), &floats(&a), &|b, a| function(a, b));
            pool.recycle(a);
            return Ok(out.reshape(burn_backend::Shape::from(shape.to_vec())));
        }
        let (left, right) = (floats(&a), floats(&b));
        let mut out = pool.take(elements);
        let operands = left.par_chunks(CHUNK).zip(right.par_chunks(CHUNK));
        out.par_chunks_mut(CHUNK).zip(operands).for_each(|(out, (a, b))| {
            simd::dispatch(
                #[inline(always)]
                || out.iter_mut().zip(a).zip(b).for_each(|((out, a), b)| *out = function(*a, *b)),
            );
        });
        return Ok(tensor(out, shape));
    }
    if count(&left) == elements && count(&right) == 1 {
        let constant = scalar(&b)?;
        return Ok(map_in_place(a, move |x| function(x, constant), pool));
    }
    if count(&left) == elements && is_suffix(&right, shape) {
        // `[.., N, D] op [1, N, D]`: the second operand repeats over the leading axes.
        let mut out = writable(a, pool);
        let period = floats(&b);
        if !period.is_empty() {
            out.storage_mut::<f32>().par_chunks_mut(period.len()).for_each(|chunk| {
                simd::dispatch(
                    #[inline(always)]
                    || chunk.iter_mut().zip(period.iter()).for_each(|(x, p)| *x = function(*x, *p)),
                );
            });
        }
        return Ok(out);
    }
    Ok(tensor(broadcast(&a, &b, shape, &function), shape))
}

fn zip_chunks(out: &mut [f32], other: &[f32], function: &(impl Fn(f32, f32) -> f32 + Sync)) {
    out.par_chunks_mut(CHUNK).zip(other.par_chunks(CHUNK)).for_each(|(out, other)| {
        simd::dispatch(
            #[inline(always)]
            || out.iter_mut().zip(other).for_each(|(a, b)| *a = function(*a, *b)),
        );
    });
}

/// Whether `dims`, less its leading ones, is the tail of `shape`.
fn is_suffix(dims: &[usize], shape: &[usize]) -> bool {
    let core: &[usize] = &dims[dims.iter().take_while(|n| **n == 1).count()..];
    shape.ends_with(core)
}

/// The general case: every result element finds its operands by stride (0 along broadcast axes).
fn broadcast(a: &FlexTensor, b: &FlexTensor, shape: &[usize], function: &impl Fn(f32, f32) -> f32) -> Vec<f32> {
    let (left, right) = (floats(a), floats(b));
    let strides = |dims: &[usize]| -> Vec<usize> {
        let mut strides = vec![0; shape.len()];
        let mut stride = 1;
        let lead = shape.len() - dims.len();
        for axis in (0..dims.len()).rev() {
            strides[lead + axis] = if dims[axis] == 1 { 0 } else { stride };
            stride *= dims[axis];
        }
        strides
    };
    let (sa, sb) = (strides(&dims(a)), strides(&dims(b)));
    let mut index = vec![0usize; shape.len()];
    let (mut ia, mut ib) = (0usize, 0usize);
    let mut out = Vec::with_capacity(shape.iter().product());
    for _ in 0..shape.iter().product::<usize>() {
        out.push(function(left[ia], right[ib]));
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            ia += sa[axis];
            ib += sb[axis];
            if index[axis] < shape[axis] {
                break;
            }
            ia -= sa[axis] * shape[axis];
            ib -= sb[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}
