//! AdamW and the moving average: one pass over memory per parameter.

use super::elementwise::CHUNK;
use super::pool::Pool;
use super::simd::{kernel, map};
use super::tensor::{floats, scalar, writable};
use crate::plan::KernelError;
use burn_flex::FlexTensor;
use rayon::prelude::*;

/// Elements per piece of a task's chunk: all tensors of an update fit the first-level cache together.
const PIECE: usize = 1024;

/// What one update needs besides the tensors.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    beta1: f32,
    beta2: f32,
    /// `1 − beta1` and `1 − beta2`, taken in f64: of .999 in f32 the second would be 1.3e-5 off.
    take1: f32,
    take2: f32,
    eps: f32,
    /// `1 − lr·wd`.
    decay: f32,
    /// `lr / c1`.
    step: f32,
    /// `1 / √c2`.
    inv_root_c2: f32,
    clip: f32,
}

impl Rates {
    /// From the operation's `[beta1, beta2, eps]` and its operands `[lr, wd, c1, c2, clip]`.
    pub(super) fn new([beta1, beta2, eps]: [f64; 3], operands: &[FlexTensor; 5]) -> Result<Self, KernelError> {
        let [lr, wd, c1, c2, clip] = operands;
        let [lr, wd, c1, c2, clip] = [scalar(lr)?, scalar(wd)?, scalar(c1)?, scalar(c2)?, scalar(clip)?];
        Ok(Self {
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            take1: (1.0 - beta1) as f32,
            take2: (1.0 - beta2) as f32,
            eps: eps as f32,
            decay: 1.0 - lr * wd,
            step: lr / c1,
            inv_root_c2: 1.0 / c2.sqrt(),
            clip,
        })
    }
}

/// `p', m', v'` of `[p, g, m, v]`, and `target'` of `(target, momentum)`.
pub(super) fn adamw(
    [p, g, m, v]: [FlexTensor; 4],
    rates: Rates,
    average_into: Option<(FlexTensor, f32)>,
    pool: &mut Pool,
) -> Vec<FlexTensor> {
    let (mut p, mut m, mut v) = (writable(p, pool), writable(m, pool), writable(v, pool));
    let mut target = average_into.map(|(target, momentum)| (writable(target, pool), momentum));
    let values = floats(&g);
    let chunks = p
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(m.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(v.storage_mut::<f32>().par_chunks_mut(CHUNK))
        .zip(values.par_chunks(CHUNK));
    match &mut target {
        Some((target, momentum)) => {
            let momentum = *momentum;
            chunks.zip(target.storage_mut::<f32>().par_chunks_mut(CHUNK)).for_each(|((((p, m), v), g), t)| {
                update(p, m, v, g, rates);
                average(t, p, momentum);
            })
        }
        None => chunks.for_each(|(((p, m), v), g)| update(p, m, v, g, rates)),
    }
    drop(values);
    pool.recycle(g);
    [Some(p), Some(m), Some(v), target.map(|(target, _)| target)].into_iter().flatten().collect()
}

kernel! {
    fn update<S>(simd, p: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32], rates: Rates) {
        let Rates { beta1, beta2, take1, take2, eps, decay, step, inv_root_c2, clip } = rates;
        // In pieces that stay in the first-level cache between the three.
        let chunks = p.chunks_mut(PIECE).zip(m.chunks_mut(PIECE)).zip(v.chunks_mut(PIECE)).zip(g.chunks(PIECE));
        for (((p, m), v), g) in chunks {
            let (keep, take) = (simd.splat_f32s(beta1), simd.splat_f32s(take1 * clip));
            map(simd, m, [g], #[inline(always)] |m, [g]| simd.mul_add_e_f32s(keep, m, simd.mul_f32s(take, g)));
            let (keep, take, clip) = (simd.splat_f32s(beta2), simd.splat_f32s(take2), simd.splat_f32s(clip));
            map(simd, v, [g], #[inline(always)] |v, [g]| {
                let g = simd.mul_f32s(g, clip);
                simd.mul_add_e_f32s(keep, v, simd.mul_f32s(take, simd.mul_f32s(g, g)))
            });
            let (decay, step) = (simd.splat_f32s(decay), simd.splat_f32s(-step));
            let (inv_root_c2, eps) = (simd.splat_f32s(inv_root_c2), simd.splat_f32s(eps));
            map(simd, p, [&*m, &*v], #[inline(always)] |p, [m, v]| {
                let root = simd.mul_add_e_f32s(simd.sqrt_f32s(v), inv_root_c2, eps);
                simd.mul_add_e_f32s(p, decay, simd.div_f32s(simd.mul_f32s(step, m), root))
            });
        }
    }
}

/// `momentum·target + (1 − momentum)·p`.
pub(super) fn ema(target: FlexTensor, p: &FlexTensor, momentum: f32, pool: &mut Pool) -> FlexTensor {
    let mut target = writable(target, pool);
    let p = floats(p);
    target
        .storage_mut::<f32>()
        .par_chunks_mut(CHUNK)
        .zip(p.par_chunks(CHUNK))
        .for_each(|(t, p)| average(t, p, momentum));
    target
}

kernel! {
    fn average<S>(simd, target: &mut [f32], p: &[f32], momentum: f32) {
        let (keep, take) = (simd.splat_f32s(momentum), simd.splat_f32s(1.0 - momentum));
        map(simd, target, [p], #[inline(always)] |t, [p]| simd.mul_add_e_f32s(keep, t, simd.mul_f32s(take, p)));
    }
}
