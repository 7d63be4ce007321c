//! Layer normalisation over the last axis.

use super::math;
use super::pool::Pool;
use super::tensor::{dims, floats, tensor, writable};
use burn_flex::FlexTensor;
use multiversion::multiversion;
use rayon::prelude::*;

/// Rows a task works on.
const ROWS: usize = 32;

/// `(x, [weight, bias])`.
pub(super) fn layer_norm(operands: &[FlexTensor], eps: f64, pool: &mut Pool) -> FlexTensor {
    let Some(x) = operands.first() else { return tensor(Vec::new(), &[0]) };
    let (shape, values) = (dims(x), floats(x));
    let width = shape.last().copied().unwrap_or(1).max(1);
    let affine = match operands {
        [_, weight, bias] => Some((floats(weight), floats(bias))),
        _ => None,
    };
    let mut out = pool.take(values.len());
    out.par_chunks_mut(width * ROWS).zip(values.par_chunks(width * ROWS)).for_each(|(out, x)| {
        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, rstd) = math::moments(x, eps as f32);
            match &affine {
                Some((weight, bias)) => normalise_affine(out, x, weight, bias, mean, rstd),
                None => normalise(out, x, mean, rstd),
            }
        }
    });
    tensor(out, &shape)
}

#[multiversion(targets = "simd")]
fn normalise(out: &mut [f32], x: &[f32], mean: f32, rstd: f32) {
    for (out, x) in out.iter_mut().zip(x) {
        *out = (x - mean) * rstd;
    }
}

#[multiversion(targets = "simd")]
fn normalise_affine(out: &mut [f32], x: &[f32], weight: &[f32], bias: &[f32], mean: f32, rstd: f32) {
    for (((out, x), w), b) in out.iter_mut().zip(x).zip(weight).zip(bias) {
        *out = (x - mean) * rstd * w + b;
    }
}

/// `(x, dy, [weight]) -> dx, [dweight, dbias]`.
pub(super) fn layer_norm_grad(operands: Vec<FlexTensor>, eps: f64, pool: &mut Pool) -> Vec<FlexTensor> {
    let mut operands = operands.into_iter();
    let (Some(input), Some(dy)) = (operands.next(), operands.next()) else { return Vec::new() };
    let weight = operands.next();
    let shape = dims(&input);
    let (x, weight) = (floats(&input), weight.as_ref().map(floats));
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut dx = writable(dy, pool);
    let weight = weight.as_deref();
    // Every task sums its own rows' share of dweight and dbias; the shares are added in order, so that the result does
    // not depend on how the tasks were scheduled.
    let shares: Vec<(Vec<f32>, Vec<f32>)> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(width * 128)
        .zip(x.par_chunks(width * 128))
        .map(|(dx, x)| {
            let (mut dweight, mut dbias) = (vec![0f32; width], vec![0f32; width]);
            for (dx, x) in dx.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let (mean, rstd) = math::moments(x, eps as f32);
                row_grad(dx, x, weight, [&mut dweight, &mut dbias], mean, rstd);
            }
            (dweight, dbias)
        })
        .collect();
    let affine = weight.is_some();
    drop(x);
    pool.recycle(input);
    if !affine {
        return vec![dx];
    }
    let (mut dweight, mut dbias) = (vec![0f32; width], vec![0f32; width]);
    for (w, b) in &shares {
        math::add_assign(&mut dweight, w);
        math::add_assign(&mut dbias, b);
    }
    vec![dx, tensor(dweight, &[width]), tensor(dbias, &[width])]
}

/// One row: `dx = rstd·(g − mean(g) − x̂·mean(g·x̂))` with `g = dy·weight`, written over dy.
#[multiversion(targets = "simd")]
fn row_grad(dx: &mut [f32], x: &[f32], weight: Option<&[f32]>, sums: [&mut [f32]; 2], mean: f32, rstd: f32) {
    let [dweight, dbias] = sums;
    let n = x.len() as f32;
    for (((dy, x), dw), db) in dx.iter().zip(x).zip(dweight.iter_mut()).zip(dbias.iter_mut()) {
        *dw += dy * (x - mean) * rstd;
        *db += dy;
    }
    if let Some(weight) = weight {
        for (g, w) in dx.iter_mut().zip(weight) {
            *g *= w;
        }
    }
    let (mut sum, mut dot) = ([0f32; 16], [0f32; 16]);
    let (g_chunks, x_chunks) = (dx.chunks_exact(16), x.chunks_exact(16));
    let (g_rest, x_rest) = (g_chunks.remainder(), x_chunks.remainder());
    for (g, x) in g_chunks.zip(x_chunks) {
        for (((sum, dot), g), x) in sum.iter_mut().zip(dot.iter_mut()).zip(g).zip(x) {
            *sum += g;
            *dot += g * (x - mean);
        }
    }
    let (mut total, mut total_dot) = (math::lane_sum(sum), math::lane_sum(dot));
    for (g, x) in g_rest.iter().zip(x_rest) {
        total += g;
        total_dot += g * (x - mean);
    }
    let (mean_g, mean_gx) = (total / n, total_dot * rstd / n);
    for (g, x) in dx.iter_mut().zip(x) {
        *g = rstd * (*g - mean_g - (x - mean) * rstd * mean_gx);
    }
}
