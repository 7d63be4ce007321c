//! AdamW and the moving average, in place where nobody else holds the tensors.
//!
//! Rates are tensors on the device: reading them here would wait for everything before them.

use super::{elements, spread, writable};
use burn_cubecl::CubeRuntime;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// A parameter's new value: decay, then the step along its new moments, as PyTorch orders them.
#[cube]
pub(super) fn step(p: f32, first: f32, second: f32, decay: f32, size: f32, correction: f32, eps: f32) -> f32 {
    p * decay - size * first / (Sqrt::sqrt(second) / correction + eps)
}

/// `momentum·target + (1 − momentum)·p`.
#[cube]
pub(super) fn average(target: f32, p: f32, momentum: f32) -> f32 {
    momentum * target + (1.0f32 - momentum) * p
}

/// Moments, then the step. `take` is `1 − beta`, which f32 cannot subtract exactly.
#[cube(launch)]
fn adamw_kernel(
    p: &mut [f32],
    m: &mut [f32],
    v: &mut [f32],
    g: &[f32],
    lr: &[f32],
    wd: &[f32],
    c1: &[f32],
    c2: &[f32],
    clip: &[f32],
    beta1: f32,
    take1: f32,
    beta2: f32,
    take2: f32,
    eps: f32,
) {
    if ABSOLUTE_POS < p.len() {
        let gradient = clip[0] * g[ABSOLUTE_POS];
        let first = beta1 * m[ABSOLUTE_POS] + take1 * gradient;
        let second = beta2 * v[ABSOLUTE_POS] + take2 * gradient * gradient;
        let (decay, size, correction) = (1.0f32 - lr[0] * wd[0], lr[0] / c1[0], Sqrt::sqrt(c2[0]));
        p[ABSOLUTE_POS] = step(p[ABSOLUTE_POS], first, second, decay, size, correction, eps);
        m[ABSOLUTE_POS] = first;
        v[ABSOLUTE_POS] = second;
    }
}

#[cube(launch)]
fn ema_kernel(target: &mut [f32], p: &[f32], momentum: &[f32]) {
    if ABSOLUTE_POS < target.len() {
        target[ABSOLUTE_POS] = average(target[ABSOLUTE_POS], p[ABSOLUTE_POS], momentum[0]);
    }
}

/// `p', m', v'` of `[p, g, m, v]`, the rates `[lr, wd, c1, c2, clip]` and `[beta1, beta2, eps]`.
pub(super) fn adamw<R: CubeRuntime>(
    [p, g, m, v]: [CubeTensor<R>; 4],
    rates: [CubeTensor<R>; 5],
    [beta1, beta2, eps]: [f64; 3],
) -> [CubeTensor<R>; 3] {
    let [p, m, v] = [p, m, v].map(writable);
    if elements(&p) > 0 {
        let (count, dim) = spread(&p, elements(&p));
        let [lr, wd, c1, c2, clip] = rates.map(CubeTensor::into_buffer_arg);
        let [p_arg, m_arg, v_arg] = [&p, &m, &v].map(|tensor| tensor.clone().into_buffer_arg());
        let take = |beta: f64| (1.0 - beta) as f32;
        adamw_kernel::launch::<R>(
            &p.client,
            count,
            dim,
            p_arg,
            m_arg,
            v_arg,
            g.into_buffer_arg(),
            lr,
            wd,
            c1,
            c2,
            clip,
            beta1 as f32,
            take(beta1),
            beta2 as f32,
            take(beta2),
            eps as f32,
        );
    }
    [p, m, v]
}

/// `momentum·target + (1 − momentum)·p`.
pub(super) fn ema<R: CubeRuntime>(target: CubeTensor<R>, p: CubeTensor<R>, momentum: CubeTensor<R>) -> CubeTensor<R> {
    let target = writable(target);
    if elements(&target) > 0 {
        let (count, dim) = spread(&target, elements(&target));
        let args = [target.clone(), p, momentum].map(CubeTensor::into_buffer_arg);
        let [target_arg, p, momentum] = args;
        ema_kernel::launch::<R>(&target.client, count, dim, target_arg, p, momentum);
    }
    target
}
