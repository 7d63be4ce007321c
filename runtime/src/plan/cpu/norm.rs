//! Layer normalisation over the last axis.

use super::math;
use super::pool::Pool;
use super::simd::{kernel, map};
use super::tensor::{dims, floats, tensor, writable};
use burn_flex::FlexTensor;
use pulp::Simd;
use rayon::prelude::*;
use std::array::from_fn;

/// Rows per task.
const ROWS: usize = 32;
/// Rows summed together, so that their dependency chains overlap.
const TOGETHER: usize = 4;

/// Normalised, times weight plus bias where there are.
pub(super) fn layer_norm(x: &FlexTensor, affine: Option<[&FlexTensor; 2]>, eps: f64, pool: &mut Pool) -> FlexTensor {
    let (shape, values) = (dims(x), floats(x));
    let width = shape.last().copied().unwrap_or(1).max(1);
    let affine = affine.map(|affine| affine.map(floats));
    let mut out = pool.take(values.len());
    let affine = affine.as_ref().map(|[weight, bias]| [&**weight, &**bias]);
    out.par_chunks_mut(width * ROWS)
        .zip(values.par_chunks(width * ROWS))
        .for_each(|(out, x)| normalise(out, x, affine, width, eps as f32));
    tensor(out, &shape)
}

kernel! {
    /// Rows of `width`: `out = (x − mean)·rstd`, times weight plus bias where there are.
    fn normalise<S>(simd, out: &mut [f32], x: &[f32], affine: Option<[&[f32]; 2]>, width: usize, eps: f32) {
        for (out, x) in out.chunks_mut(width * TOGETHER).zip(x.chunks(width * TOGETHER)) {
            let mut moments = [[0f32; 2]; TOGETHER];
            for (moments, x) in moments.iter_mut().zip(x.chunks_exact(width)) {
                *moments = math::moments(x, eps);
            }
            for ((out, x), [mean, rstd]) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(moments) {
                let of = [simd.splat_f32s(mean), simd.splat_f32s(rstd)];
                match affine {
                    Some([weight, bias]) => map(simd, out, [x, weight, bias], #[inline(always)] |_, [x, w, b]| {
                        simd.mul_add_e_f32s(normal(simd, x, of), w, b)
                    }),
                    None => map(simd, out, [x], #[inline(always)] |_, [x]| normal(simd, x, of)),
                }
            }
        }
    }
}

/// (x − mean)·rstd.
#[inline(always)]
fn normal<S: Simd>(simd: S, x: S::f32s, [mean, rstd]: [S::f32s; 2]) -> S::f32s {
    simd.mul_f32s(simd.sub_f32s(x, mean), rstd)
}

/// `(x, dy, [weight]) -> dx, [dweight, dbias]`.
pub(super) fn layer_norm_grad(
    input: FlexTensor,
    dy: FlexTensor,
    weight: Option<FlexTensor>,
    eps: f64,
    pool: &mut Pool,
) -> Vec<FlexTensor> {
    let shape = dims(&input);
    let (x, weight) = (floats(&input), weight.as_ref().map(floats));
    let width = shape.last().copied().unwrap_or(1).max(1);
    let mut dx = writable(dy, pool);
    let affine = weight.is_some();
    let weight = weight.unwrap_or_else(|| vec![1.0; width].into());
    // Every task sums its own rows' share of dweight and dbias; the shares are added in order, so that the result does
    // not depend on how the tasks were scheduled.
    let shares: Vec<(Vec<f32>, Vec<f32>)> = dx
        .storage_mut::<f32>()
        .par_chunks_mut(width * 128)
        .zip(x.par_chunks(width * 128))
        .map(|(dx, x)| {
            let (mut dweight, mut dbias) = (vec![0f32; width], vec![0f32; width]);
            rows_grad(dx, x, &weight, [&mut dweight, &mut dbias], eps as f32);
            (dweight, dbias)
        })
        .collect();
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

kernel! {
    /// Rows: `dx = rstd·(g − mean(g) − x̂·mean(g·x̂))` with `g = dy·weight`, written over dy; their `Σ dy·x̂` and `Σ dy` are
    /// added to the sums.
    fn rows_grad<S>(simd, dx: &mut [f32], x: &[f32], weight: &[f32], sums: [&mut [f32]; 2], eps: f32) {
        let [dweight, dbias] = sums;
        let width = weight.len();
        let whole = x.len() - x.len() % (width * TOGETHER);
        let ((dx, last_dx), (x, last_x)) = (dx.split_at_mut(whole), x.split_at(whole));
        for (dx, x) in dx.chunks_exact_mut(width * TOGETHER).zip(x.chunks_exact(width * TOGETHER)) {
            some_rows_grad::<S, TOGETHER>(simd, dx, x, weight, [dweight, dbias], eps);
        }
        for (dx, x) in last_dx.chunks_exact_mut(width).zip(last_x.chunks_exact(width)) {
            some_rows_grad::<S, 1>(simd, dx, x, weight, [dweight, dbias], eps);
        }
    }
}

/// [`rows_grad`] of `ROWS` rows, for which weight and sums are read once.
#[inline(always)]
fn some_rows_grad<S: Simd, const ROWS: usize>(
    simd: S,
    dx: &mut [f32],
    x: &[f32],
    weight: &[f32],
    [dweight, dbias]: [&mut [f32]; 2],
    eps: f32,
) {
    let width = weight.len();
    let mut sums = [Sums { of: [simd.splat_f32s(0.0); 2], g: simd.splat_f32s(0.0), dot: simd.splat_f32s(0.0) }; ROWS];
    for (sums, x) in sums.iter_mut().zip(x.chunks_exact(width)) {
        let [mean, rstd] = math::moments(x, eps);
        sums.of = [simd.splat_f32s(mean), simd.splat_f32s(rstd)];
    }
    let ((dws, dw_rest), (dbs, db_rest)) = (S::as_mut_simd_f32s(dweight), S::as_mut_simd_f32s(dbias));
    let (ws, w_rest) = S::as_simd_f32s(weight);
    // Cut once, not for every vector.
    let (dys, xs) = (rows_of::<S, ROWS>(dx, width, ws.len()), rows_of::<S, ROWS>(x, width, ws.len()));
    for (i, (w, (dw, db))) in ws.iter().zip(dws.iter_mut().zip(dbs)).enumerate() {
        for (sums, (dys, xs)) in sums.iter_mut().zip(dys.iter().zip(&xs)) {
            (*dw, *db) = sums.add(simd, [dys[i], xs[i], *w], (*dw, *db));
        }
    }
    if !w_rest.is_empty() {
        let w = simd.partial_load_f32s(w_rest);
        let mut both = (simd.partial_load_f32s(dw_rest), simd.partial_load_f32s(db_rest));
        for (row, sums) in sums.iter_mut().enumerate() {
            let rest = (row + 1) * width - w_rest.len()..(row + 1) * width;
            let [dy, x] = [&dx[rest.clone()], &x[rest]];
            both = sums.add(simd, [simd.partial_load_f32s(dy), simd.partial_load_f32s(x), w], both);
        }
        simd.partial_store_f32s(dw_rest, both.0);
        simd.partial_store_f32s(db_rest, both.1);
    }
    for (sums, (dx, x)) in sums.into_iter().zip(dx.chunks_exact_mut(width).zip(x.chunks_exact(width))) {
        let n = width as f32;
        let mean_g = simd.splat_f32s(simd.reduce_sum_f32s(sums.g) / n);
        let mean_dot = simd.splat_f32s(simd.reduce_sum_f32s(sums.dot) / n);
        map(
            simd,
            dx,
            [x, weight],
            #[inline(always)]
            |dy, [x, w]| {
                let shift = simd.mul_add_e_f32s(normal(simd, x, sums.of), mean_dot, mean_g);
                simd.mul_f32s(sums.of[1], simd.sub_f32s(simd.mul_f32s(dy, w), shift))
            },
        );
    }
}

/// The first `count` vectors of each of `ROWS` rows.
#[inline(always)]
fn rows_of<S: Simd, const ROWS: usize>(values: &[f32], width: usize, count: usize) -> [&[S::f32s]; ROWS] {
    from_fn(|row| &S::as_simd_f32s(&values[row * width..(row + 1) * width]).0[..count])
}

/// Of one row: mean and reciprocal deviation, Σ g and Σ g·x̂.
#[derive(Clone, Copy)]
struct Sums<S: Simd> {
    of: [S::f32s; 2],
    g: S::f32s,
    dot: S::f32s,
}

impl<S: Simd> Sums<S> {
    /// Adds a vector of the row, `[dy, x, weight]`, here and to `Σ dy·x̂` and `Σ dy` of the rows. Where dy is 0, nothing.
    #[inline(always)]
    fn add(&mut self, simd: S, [dy, x, w]: [S::f32s; 3], (dw, db): (S::f32s, S::f32s)) -> (S::f32s, S::f32s) {
        let (g, normal) = (simd.mul_f32s(dy, w), normal(simd, x, self.of));
        self.g = simd.add_f32s(self.g, g);
        self.dot = simd.mul_add_e_f32s(g, normal, self.dot);
        (simd.mul_add_e_f32s(dy, normal, dw), simd.add_f32s(db, dy))
    }
}
