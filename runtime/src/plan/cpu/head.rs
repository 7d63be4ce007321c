//! Attention of one head, forward and backward, a few dozen queries at a time.
//!
//! Scores are stored transposed, `[keys, queries]`, so that each query's softmax has its own vector lane and the weights are
//! in the order in which the next product reads them. Only the scores of one unit of queries exist at a time.

use super::contraction::{Matrix, Out};
use super::simd;
use super::tiles::{Lines, Pair, columns, exp2, pack, pairs, pairs_mut, tile_of_columns, tile_of_rows};
use pulp::{Simd, WithSimd};
use std::cell::RefCell;
use std::ops::Range;

/// Keys whose weights and values are used together: both fit a first-level cache.
const KEYS: usize = 64;

thread_local! {
    /// Kept by every worker thread, since a step has hundreds of heads.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory of one thread, as large as its largest head needed.
#[derive(Default)]
struct Scratch {
    keys: Lines,
    values: Lines,
    key_rows: Lines,
    queries: Lines,
    gradients: Lines,
    query_rows: Lines,
    key_sums: Lines,
    value_sums: Lines,
    weights: Lines,
    slopes: Lines,
    sums: Lines,
}

/// `softmax(scale·q·kᵀ)·v` of one head into `out`, which this thread alone writes.
pub(super) fn forward([q, k, v]: [Matrix<'_>; 3], out: Out<'_>, scale: f64) {
    SCRATCH.with_borrow_mut(|scratch| simd::dispatch(Tiled(Forward { q, k, v, out, scale, scratch })));
}

/// Operands of one head's backward pass: queries, keys, values, the result and its gradient.
pub(super) struct HeadGrad<'a> {
    pub(super) q: Matrix<'a>,
    pub(super) k: Matrix<'a>,
    pub(super) v: Matrix<'a>,
    pub(super) y: Matrix<'a>,
    pub(super) dy: Matrix<'a>,
    pub(super) scale: f64,
}

/// Gradients of queries, keys and values, which this thread alone writes.
pub(super) fn backward(head: &HeadGrad<'_>, grads: [Out<'_>; 3]) {
    SCRATCH.with_borrow_mut(|scratch| simd::dispatch(Tiled(Backward { head, grads, scratch })));
}

/// Rows `start..start + rows` of a matrix.
fn rows_of(matrix: Matrix<'_>, start: usize, rows: usize) -> Matrix<'_> {
    Matrix { data: matrix.data.get(start * matrix.row_stride..).unwrap_or_default(), rows, ..matrix }
}

/// Packs up to `unit` queries times scale·log₂ e: scores are exponents of two.
#[inline(always)]
fn scaled_queries<'a>(queries: Matrix<'_>, unit: usize, scale: f64, lines: &'a mut Lines) -> &'a [f32] {
    let packed = pack(queries.t(), queries.cols, unit, lines);
    let factor = (scale * std::f64::consts::LOG2_E) as f32;
    packed.iter_mut().for_each(|q| *q *= factor);
    packed
}

/// A computation in tiles of `ROWS` rows.
trait Kernel {
    fn run<S: Simd, const ROWS: usize>(self, simd: S);
}

/// A kernel with the rows that an instruction set has registers for.
struct Tiled<K>(K);

impl<K: Kernel> WithSimd for Tiled<K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match S::F32_LANES {
            // Without vectors a panel has two columns, and so many rows divide it.
            1 => self.0.run::<S, 2>(simd),
            // Sixteen registers hold sums of four rows, thirty-two those of eight.
            8 => self.0.run::<S, 4>(simd),
            _ => self.0.run::<S, 8>(simd),
        }
    }
}

struct Forward<'a> {
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    out: Out<'a>,
    scale: f64,
    scratch: &'a mut Scratch,
}

impl Kernel for Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { q, k, v, out, scale, scratch } = self;
        let (unit, keys, width) = (columns::<S>(), k.rows, v.cols);
        let packed_keys = pack(k.t(), k.cols, ROWS, &mut scratch.keys);
        let values = pack(v, keys, unit, &mut scratch.values);
        for start in (0..q.rows).step_by(unit) {
            let queries = unit.min(q.rows - start);
            let block = scaled_queries(rows_of(q, start, queries), unit, scale, &mut scratch.queries);
            let weights = scratch.weights.take(keys.next_multiple_of(ROWS) * unit);
            let max = scores::<S, ROWS>(simd, packed_keys, pairs::<S>(block), keys, weights);
            let sums = scratch.sums.take(unit * width.next_multiple_of(unit));
            sums.fill(0.0);
            let mut total = [simd.splat_f32s(0.0); 2];
            for first in (0..keys).step_by(KEYS) {
                let span = first * unit..(first + KEYS).min(keys) * unit;
                exponentials(simd, pairs_mut::<S>(&mut weights[span.clone()]), max, &mut total);
                add_weighted::<S, ROWS>(simd, weights, values, (keys, span), sums);
            }
            let factors = inverse(simd, total);
            store::<S>(sums, unit, (start, queries, width), Some(pulp::bytemuck::cast_slice(&factors)), out);
        }
    }
}

/// Scores `[keys, unit]`, and the largest of each query.
#[inline(always)]
fn scores<S: Simd, const ROWS: usize>(
    simd: S,
    packed_keys: &[f32],
    queries: &[Pair<S>],
    keys: usize,
    scores: &mut [f32],
) -> Pair<S> {
    let mut max = [simd.splat_f32s(f32::NEG_INFINITY); 2];
    let tiles = packed_keys.chunks_exact(ROWS * queries.len().max(1));
    for (tile, (keys_of, scores)) in tiles.zip(pairs_mut::<S>(scores).chunks_exact_mut(ROWS)).enumerate() {
        let sums = tile_of_columns::<S, ROWS>(simd, keys_of, ROWS, queries);
        for (r, (score, sum)) in scores.iter_mut().zip(sums).enumerate() {
            *score = sum;
            // Keys that only fill the tile are none.
            if tile * ROWS + r < keys {
                max = [simd.max_f32s(max[0], sum[0]), simd.max_f32s(max[1], sum[1])];
            }
        }
    }
    max
}

/// `2^(score − max)` in place, and their sums.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, scores: &mut [Pair<S>], max: Pair<S>, total: &mut Pair<S>) {
    for pair in scores {
        for ((score, max), total) in pair.iter_mut().zip(max).zip(total.iter_mut()) {
            *score = exp2(simd, simd.sub_f32s(*score, max));
            *total = simd.add_f32s(*total, *score);
        }
    }
}

/// `sums[panels, unit, unit] += weights[keys, unit]ᵀ·values[panels, keys, unit]` for the keys of a span of the weights.
#[inline(always)]
fn add_weighted<S: Simd, const ROWS: usize>(
    simd: S,
    weights: &[f32],
    values: &[f32],
    (keys, span): (usize, Range<usize>),
    sums: &mut [f32],
) {
    let unit = columns::<S>();
    let weights = &weights[span.clone()];
    for (sums, values) in sums.chunks_exact_mut(unit * unit).zip(values.chunks_exact(keys * unit)) {
        let values = pairs::<S>(&values[span.clone()]);
        for (group, sums) in pairs_mut::<S>(sums).chunks_exact_mut(ROWS).enumerate() {
            let tile = tile_of_columns::<S, ROWS>(simd, &weights[group * ROWS..], unit, values);
            for (sum, tile) in sums.iter_mut().zip(tile) {
                *sum = [simd.add_f32s(sum[0], tile[0]), simd.add_f32s(sum[1], tile[1])];
            }
        }
    }
}

/// 1 / total.
#[inline(always)]
fn inverse<S: Simd>(simd: S, total: Pair<S>) -> Pair<S> {
    total.map(|total| simd.div_f32s(simd.splat_f32s(1.0), total))
}

/// Panels `[panels, rows, unit]` of sums, finished by row, to rows `start..start + count` of a result of `width` columns.
#[inline(always)]
fn store<S: Simd>(
    sums: &[f32],
    rows: usize,
    (start, count, width): (usize, usize, usize),
    factors: Option<&[f32]>,
    out: Out<'_>,
) {
    let unit = columns::<S>();
    for (panel, sums) in sums.chunks_exact((rows * unit).max(1)).enumerate() {
        let first = panel * unit;
        let cols = unit.min(width - first);
        for (row, sums) in sums.chunks_exact(unit).enumerate().take(count) {
            // SAFETY: this thread alone writes these rows of its head, and holds no other reference to them.
            let out = unsafe { out.row(start + row, first, cols) };
            match factors {
                Some(factors) => out.iter_mut().zip(sums).for_each(|(out, sum)| *out = sum * factors[row]),
                None => out.copy_from_slice(&sums[..cols]),
            }
        }
    }
}

struct Backward<'a> {
    head: &'a HeadGrad<'a>,
    grads: [Out<'a>; 3],
    scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { head: &HeadGrad { q, k, v, y, dy, scale }, grads: [dq, dk, dv], scratch } = self;
        let (unit, keys, width) = (columns::<S>(), k.rows, k.cols);
        let packed_keys = pack(k.t(), k.cols, ROWS, &mut scratch.keys);
        let packed_values = pack(v.t(), v.cols, ROWS, &mut scratch.values);
        let key_rows = pack(k, keys, unit, &mut scratch.key_rows);
        let rows = keys.next_multiple_of(ROWS);
        let (weights, slopes) = (scratch.weights.take(rows * unit), scratch.slopes.take(rows * unit));
        let [key_sums, value_sums] = [&mut scratch.key_sums, &mut scratch.value_sums]
            .map(|lines| lines.take(rows * width.next_multiple_of(unit)));
        key_sums.fill(0.0);
        value_sums.fill(0.0);
        for start in (0..q.rows).step_by(unit) {
            let queries = unit.min(q.rows - start);
            let [q, y, dy] = [q, y, dy].map(|matrix| rows_of(matrix, start, queries));
            let block = scaled_queries(q, unit, scale, &mut scratch.queries);
            let max = scores::<S, ROWS>(simd, packed_keys, pairs::<S>(block), keys, weights);
            let mut total = [simd.splat_f32s(0.0); 2];
            exponentials(simd, &mut pairs_mut::<S>(weights)[..keys], max, &mut total);

            let gradients = pack(dy.t(), dy.cols, unit, &mut scratch.gradients);
            let mut means = [[simd.splat_f32s(0.0); 2]];
            row_dots(simd, &y, &dy, pulp::bytemuck::cast_slice_mut(&mut means));
            let slope = Slope { inverse: inverse(simd, total), mean: means[0], scale };
            slope.apply::<ROWS>(simd, packed_values, pairs::<S>(gradients), (&mut *weights, &mut *slopes));

            let sums = scratch.sums.take(unit * width.next_multiple_of(unit));
            sums.fill(0.0);
            for first in (0..keys).step_by(KEYS) {
                let span = first * unit..(first + KEYS).min(keys) * unit;
                add_weighted::<S, ROWS>(simd, slopes, key_rows, (keys, span), sums);
            }
            store::<S>(sums, unit, (start, queries, width), None, dq);

            for (source, left, sums) in [(q, &*slopes, &mut *key_sums), (dy, &*weights, &mut *value_sums)] {
                // Short of a unit, rows of zeros stand for the queries that are missing.
                let right = pack(source, unit, unit, &mut scratch.query_rows);
                add_by_keys::<S, ROWS>(simd, left, right, sums);
            }
        }
        for (sums, out) in [(key_sums, dk), (value_sums, dv)] {
            store::<S>(sums, rows, (0, keys, width), None, out);
        }
    }
}

/// What makes gradients of scores from weights and the gradients of these.
struct Slope<S: Simd> {
    inverse: Pair<S>,
    mean: Pair<S>,
    scale: f64,
}

impl<S: Simd> Slope<S> {
    /// Exponentials become weights, and `slopes = scale·weight·(v·dy − mean)`.
    #[inline(always)]
    fn apply<const ROWS: usize>(
        self,
        simd: S,
        packed_values: &[f32],
        gradients: &[Pair<S>],
        (weights, slopes): (&mut [f32], &mut [f32]),
    ) {
        let scale = simd.splat_f32s(self.scale as f32);
        let weights = pairs_mut::<S>(weights).chunks_exact_mut(ROWS);
        let slopes = pairs_mut::<S>(slopes).chunks_exact_mut(ROWS);
        let tiles = packed_values.chunks_exact(ROWS * gradients.len().max(1));
        for (values, (weights, slopes)) in tiles.zip(weights.zip(slopes)) {
            let sums = tile_of_columns::<S, ROWS>(simd, values, ROWS, gradients);
            for ((weight, slope), sum) in weights.iter_mut().zip(slopes).zip(sums) {
                for half in [0, 1] {
                    weight[half] = simd.mul_f32s(weight[half], self.inverse[half]);
                    let centred = simd.sub_f32s(sum[half], self.mean[half]);
                    slope[half] = simd.mul_f32s(simd.mul_f32s(scale, weight[half]), centred);
                }
            }
        }
    }
}

/// `sums[panels, keys, unit] += left[keys, unit]·right[panels, unit, unit]`.
#[inline(always)]
fn add_by_keys<S: Simd, const ROWS: usize>(simd: S, left: &[f32], right: &[f32], sums: &mut [f32]) {
    let unit = columns::<S>();
    for (right, sums) in right.chunks_exact(unit * unit).zip(sums.chunks_exact_mut(left.len().max(1))) {
        let (right, sums) = (pairs::<S>(right), pairs_mut::<S>(sums).as_chunks_mut::<ROWS>().0);
        for (left, sums) in left.chunks_exact(ROWS * unit).zip(sums) {
            *sums = tile_of_rows::<S, ROWS>(simd, left, right, *sums);
        }
    }
}

/// Σ y·dy of each row; rows that are missing stay as they are.
#[inline(always)]
fn row_dots<S: Simd>(simd: S, y: &Matrix<'_>, dy: &Matrix<'_>, dots: &mut [f32]) {
    for (row, dot) in dots.iter_mut().enumerate().take(y.rows) {
        let [a, b] = [y, dy].map(|matrix| &matrix.data[row * matrix.row_stride..]);
        if y.col_stride != 1 || dy.col_stride != 1 {
            *dot = (0..y.cols).map(|col| a[col * y.col_stride] * b[col * dy.col_stride]).sum();
            continue;
        }
        let [(a, a_rest), (b, b_rest)] = [&a[..y.cols], &b[..y.cols]].map(S::as_simd_f32s);
        let mut sum = simd.splat_f32s(0.0);
        for (a, b) in a.iter().zip(b) {
            sum = simd.mul_add_e_f32s(*a, *b, sum);
        }
        *dot = simd.reduce_sum_f32s(sum) + a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum::<f32>();
    }
}

#[cfg(test)]
mod tests;
