//! Attention of one head, forward and backward, a few dozen queries at a time.
//!
//! Scores are held turned round, keys by queries, so that the softmax of every query has a lane of its own and the weights
//! lie as the next product reads them. The scores of a unit of queries are all there ever is.

use super::contraction::{Matrix, Out};
use super::tiles::{Lines, Pair, columns, exp2, pack, packed_len, pairs, pairs_mut, tile_of_columns, tile_of_rows};
use pulp::{Arch, Simd, WithSimd};
use std::cell::RefCell;

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
    SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(Forward { q, k, v, out, scale, scratch }));
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
    SCRATCH.with_borrow_mut(|scratch| Arch::new().dispatch(Backward { head, grads, scratch }));
}

/// Rows `start..start + rows` of a matrix.
fn rows_of(matrix: Matrix<'_>, start: usize, rows: usize) -> Matrix<'_> {
    Matrix { data: matrix.data.get(start * matrix.row_stride..).unwrap_or_default(), rows, ..matrix }
}

/// log₂ e·scale: scores are exponents of two.
fn base_two(scale: f64) -> f32 {
    (scale * std::f64::consts::LOG2_E) as f32
}

/// Packs a matrix of keys or values, `ROWS` of them beside each other.
#[inline(always)]
fn packed_rows<'a>(source: Matrix<'_>, rows: usize, lines: &'a mut Lines) -> &'a [f32] {
    let packed = lines.take(packed_len(source.cols, source.rows, rows));
    pack(source.t(), rows, packed);
    packed
}

/// Packs the columns of a matrix in panels.
#[inline(always)]
fn packed_columns<'a, S: Simd>(source: Matrix<'_>, lines: &'a mut Lines) -> &'a [f32] {
    let packed = lines.take(packed_len(source.rows, source.cols, columns::<S>()));
    pack(source, columns::<S>(), packed);
    packed
}

/// Calls a method with the rows of a tile: sixteen registers (of eight lanes) hold sums of four rows, thirty-two those of
/// eight; without vectors a panel has two columns, and so many rows divide it.
macro_rules! for_vectors {
    ($simd:ident, $of:ident.$method:ident($value:expr)) => {
        match $simd::F32_LANES {
            1 => $of.$method::<$simd, 2>($value),
            8 => $of.$method::<$simd, 4>($value),
            _ => $of.$method::<$simd, 8>($value),
        }
    };
}

struct Forward<'a> {
    q: Matrix<'a>,
    k: Matrix<'a>,
    v: Matrix<'a>,
    out: Out<'a>,
    scale: f64,
    scratch: &'a mut Scratch,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for_vectors!(S, self.run(simd));
    }
}

impl Forward<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { q, k, v, out, scale, scratch } = self;
        let (unit, keys, width) = (columns::<S>(), k.rows, v.cols);
        let packed_keys = packed_rows(k, ROWS, &mut scratch.keys);
        let values = packed_columns::<S>(v, &mut scratch.values);
        for start in (0..q.rows).step_by(unit) {
            let queries = unit.min(q.rows - start);
            let block = scratch.queries.take(q.cols * unit);
            pack(rows_of(q, start, queries).t(), unit, block);
            block.iter_mut().for_each(|q| *q *= base_two(scale));
            let weights = scratch.weights.take(keys.next_multiple_of(ROWS) * unit);
            let max = scores::<S, ROWS>(simd, packed_keys, pairs::<S>(block), keys, weights);
            let sums = scratch.sums.take(packed_len(unit, width, unit));
            sums.fill(0.0);
            let mut total = [simd.splat_f32s(0.0); 2];
            for first in (0..keys).step_by(KEYS) {
                let count = KEYS.min(keys - first);
                let weights = &mut weights[first * unit..(first + count) * unit];
                exponentials(simd, pairs_mut::<S>(weights), max, &mut total);
                for (sums, values) in sums.chunks_exact_mut(unit * unit).zip(values.chunks_exact(keys * unit)) {
                    let values = pairs::<S>(&values[first * unit..(first + count) * unit]);
                    add_weighted::<S, ROWS>(simd, weights, values, pairs_mut::<S>(sums));
                }
            }
            let inverse = total.map(|total| simd.div_f32s(simd.splat_f32s(1.0), total));
            let inverse = pulp::bytemuck::cast_slice(&inverse);
            store::<S>(sums, unit, (start, queries, width), Some(inverse), out);
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

/// `sums[unit, columns] += weightsᵀ·values` for some keys.
#[inline(always)]
fn add_weighted<S: Simd, const ROWS: usize>(simd: S, weights: &[f32], values: &[Pair<S>], sums: &mut [Pair<S>]) {
    for (group, sums) in sums.chunks_exact_mut(ROWS).enumerate() {
        let tile = tile_of_columns::<S, ROWS>(simd, &weights[group * ROWS..], columns::<S>(), values);
        add(simd, sums, tile);
    }
}

#[inline(always)]
fn add<S: Simd, const ROWS: usize>(simd: S, sums: &mut [Pair<S>], tile: [Pair<S>; ROWS]) {
    for (sum, tile) in sums.iter_mut().zip(tile) {
        *sum = [simd.add_f32s(sum[0], tile[0]), simd.add_f32s(sum[1], tile[1])];
    }
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

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for_vectors!(S, self.run(simd));
    }
}

impl Backward<'_> {
    #[inline(always)]
    fn run<S: Simd, const ROWS: usize>(self, simd: S) {
        let Self { head: &HeadGrad { q, k, v, y, dy, scale }, grads: [dq, dk, dv], scratch } = self;
        let (unit, keys, width) = (columns::<S>(), k.rows, k.cols);
        let packed_keys = packed_rows(k, ROWS, &mut scratch.keys);
        let packed_values = packed_rows(v, ROWS, &mut scratch.values);
        let key_rows = packed_columns::<S>(k, &mut scratch.key_rows);
        let all = keys.next_multiple_of(ROWS) * unit;
        let (weights, slopes) = (scratch.weights.take(all), scratch.slopes.take(all));
        let [key_sums, value_sums] = [&mut scratch.key_sums, &mut scratch.value_sums]
            .map(|lines| lines.take(packed_len(keys.next_multiple_of(ROWS), width, unit)));
        key_sums.fill(0.0);
        value_sums.fill(0.0);
        for start in (0..q.rows).step_by(unit) {
            let queries = unit.min(q.rows - start);
            let [q, y, dy] = [q, y, dy].map(|matrix| rows_of(matrix, start, queries));
            let block = scratch.queries.take(q.cols * unit);
            pack(q.t(), unit, block);
            block.iter_mut().for_each(|q| *q *= base_two(scale));
            let max = scores::<S, ROWS>(simd, packed_keys, pairs::<S>(block), keys, weights);
            let mut total = [simd.splat_f32s(0.0); 2];
            exponentials(simd, &mut pairs_mut::<S>(weights)[..keys], max, &mut total);

            let gradients = scratch.gradients.take(dy.cols * unit);
            pack(dy.t(), unit, gradients);
            let mut means = [[simd.splat_f32s(0.0); 2]];
            row_dots(simd, &y, &dy, pulp::bytemuck::cast_slice_mut(&mut means));
            let slope = Slope { inverse: total.map(|t| simd.div_f32s(simd.splat_f32s(1.0), t)), mean: means[0], scale };
            slope.apply::<ROWS>(simd, packed_values, pairs::<S>(gradients), (&mut *weights, &mut *slopes));

            let sums = scratch.sums.take(packed_len(unit, width, unit));
            sums.fill(0.0);
            for first in (0..keys).step_by(KEYS) {
                let span = first * unit..(first + KEYS.min(keys - first)) * unit;
                for (sums, key_rows) in sums.chunks_exact_mut(unit * unit).zip(key_rows.chunks_exact(keys * unit)) {
                    let (slopes, key_rows) = (&slopes[span.clone()], pairs::<S>(&key_rows[span.clone()]));
                    add_weighted::<S, ROWS>(simd, slopes, key_rows, pairs_mut::<S>(sums));
                }
            }
            store::<S>(sums, unit, (start, queries, width), None, dq);

            for (source, left, sums) in [(q, &*slopes, &mut *key_sums), (dy, &*weights, &mut *value_sums)] {
                // Short of a unit, rows of zeros stand for the queries that are missing.
                let right = scratch.query_rows.take(packed_len(unit, source.cols, unit));
                pack_padded(source, unit, right);
                add_by_keys::<S, ROWS>(simd, left, right, sums);
            }
        }
        for (sums, out) in [(key_sums, dk), (value_sums, dv)] {
            store::<S>(sums, keys.next_multiple_of(ROWS), (0, keys, width), None, out);
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

/// Packs the columns of up to `unit` rows in panels of `unit`; rows that are missing are zero.
#[inline(always)]
fn pack_padded(source: Matrix<'_>, unit: usize, packed: &mut [f32]) {
    for (panel, packed) in packed.chunks_exact_mut(unit * unit).enumerate() {
        let cols = unit.min(source.cols - panel * unit);
        let data = source.data.get(panel * unit * source.col_stride..).unwrap_or_default();
        let (rows, rest) = packed.split_at_mut(source.rows * unit);
        pack(Matrix { data, cols, ..source }, unit, rows);
        rest.fill(0.0);
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
