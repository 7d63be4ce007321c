//! Tiles of small matrix products, held in registers: what the products of attention are made of.
//!
//! A tile is `ROWS` rows by one panel of two vectors. Its left operand is read one value at a time, its right operand from
//! panels, in which the columns of a panel lie beside each other for one inner index after the other. Everything here is
//! inlined into a function that [`pulp`] compiles once for each instruction set; nothing else would use its vectors.

use super::contraction::Matrix;
use super::math::ROUND;
use pulp::Simd;

/// Two vectors: the columns of a panel.
pub(super) type Pair<S> = [<S as Simd>::f32s; 2];

/// Columns of a panel.
#[inline(always)]
pub(super) fn columns<S: Simd>() -> usize {
    2 * S::F32_LANES
}

/// Memory that is used again and begins a cache line, so that no vector lies across two.
#[derive(Default)]
pub(super) struct Lines(Vec<f32>);

impl Lines {
    /// `len` floats with arbitrary values.
    pub(super) fn take(&mut self, len: usize) -> &mut [f32] {
        const LINE: usize = 64 / size_of::<f32>();
        if self.0.len() < len + LINE {
            self.0 = vec![0.0; len + LINE];
        }
        let start = self.0.as_ptr().align_offset(64).min(LINE);
        &mut self.0[start..start + len]
    }
}

/// Packs the columns of `source` in panels of `panel`: `[panels, inner, panel]`. Rows and columns that are missing are zero.
#[inline(always)]
pub(super) fn pack<'a>(source: Matrix<'_>, inner: usize, panel: usize, lines: &'a mut Lines) -> &'a mut [f32] {
    let packed = lines.take(inner * source.cols.next_multiple_of(panel));
    for (index, packed) in packed.chunks_exact_mut(inner.max(1) * panel).enumerate() {
        let first = index * panel;
        let count = panel.min(source.cols - first);
        let data = source.data.get(first * source.col_stride..).unwrap_or_default();
        let (packed, missing) = packed.split_at_mut(source.rows * panel);
        missing.fill(0.0);
        if source.col_stride == 1 {
            copy_rows(data, (source.row_stride, count), packed, panel);
        } else {
            if count < panel {
                packed.fill(0.0);
            }
            let turned = match source.row_stride {
                1 => turn(data, (source.rows, count), source.col_stride, panel, packed),
                _ => 0,
            };
            for col in turned..count {
                let column = &data[col * source.col_stride..];
                for (i, row) in packed.chunks_exact_mut(panel).enumerate() {
                    row[col] = column[i * source.row_stride];
                }
            }
        }
    }
    packed
}

/// Copies `count` contiguous values of every row, `stride` apart, and zeros up to a panel's width.
#[inline(always)]
fn copy_rows(data: &[f32], (stride, count): (usize, usize), packed: &mut [f32], panel: usize) {
    if count == panel {
        // The width of a panel is a constant where this is inlined: vectors are moved, and nothing is called.
        for (i, row) in packed.chunks_exact_mut(panel).enumerate() {
            row.copy_from_slice(&data[i * stride..][..panel]);
        }
        return;
    }
    for (i, row) in packed.chunks_exact_mut(panel).enumerate() {
        row[..count].copy_from_slice(&data[i * stride..][..count]);
        row[count..].fill(0.0);
    }
}

/// Side of the blocks that [`turn`] moves: a panel has a multiple of so many columns, but for those of scalar code.
const SIDE: usize = 4;

/// Interleaves contiguous columns, `stride` apart, in blocks that fit registers; returns how many.
#[inline(always)]
fn turn(data: &[f32], (inner, count): (usize, usize), stride: usize, panel: usize, packed: &mut [f32]) -> usize {
    if !inner.is_multiple_of(SIDE) || !panel.is_multiple_of(SIDE) {
        return 0;
    }
    let blocks = count / SIDE;
    for block in 0..blocks {
        let [a, b, c, d] = [0, 1, 2, 3].map(
            #[inline(always)]
            |col| data[(block * SIDE + col) * stride..][..inner].as_chunks::<SIDE>().0,
        );
        let columns = a.iter().zip(b).zip(c.iter().zip(d));
        for (rows, ((a, b), (c, d))) in packed.chunks_exact_mut(SIDE * panel).zip(columns) {
            for (row, values) in rows.chunks_exact_mut(panel).zip(transposed([*a, *b, *c, *d])) {
                row[block * SIDE..][..SIDE].copy_from_slice(&values);
            }
        }
    }
    blocks * SIDE
}

/// The transpose of a block. The compiler makes sixteen loads and stores of the plain loops, a third of the time of
/// attention over few tokens.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn transposed(block: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    use pulp::bytemuck::cast;
    use std::arch::x86_64::{_mm_movehl_ps, _mm_movelh_ps, _mm_unpackhi_ps, _mm_unpacklo_ps};
    let [a, b, c, d] = block;
    let (a, b, c, d) = (cast(a), cast(b), cast(c), cast(d));
    // SAFETY: every x86-64 processor has SSE, and these only move values between registers.
    unsafe {
        let (ab, cd) = (_mm_unpacklo_ps(a, b), _mm_unpacklo_ps(c, d));
        let (ab_high, cd_high) = (_mm_unpackhi_ps(a, b), _mm_unpackhi_ps(c, d));
        let low = [cast(_mm_movelh_ps(ab, cd)), cast(_mm_movehl_ps(cd, ab))];
        let high = [cast(_mm_movelh_ps(ab_high, cd_high)), cast(_mm_movehl_ps(cd_high, ab_high))];
        [low[0], low[1], high[0], high[1]]
    }
}

/// The transpose of a block.
#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn transposed(block: [[f32; SIDE]; SIDE]) -> [[f32; SIDE]; SIDE] {
    std::array::from_fn(|row| std::array::from_fn(|col| block[col][row]))
}

/// `Σᵢ a[i·stride + r]·b[i]` for each of `ROWS` rows r: `a` holds the inner index's values of neighbouring rows.
#[inline(always)]
pub(super) fn tile_of_columns<S: Simd, const ROWS: usize>(
    simd: S,
    a: &[f32],
    stride: usize,
    b: &[Pair<S>],
) -> [Pair<S>; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    // The last chunk may be shorter than a stride, but holds all rows.
    for (a, b) in a.chunks(stride).zip(b) {
        let a = &a[..ROWS];
        for (sum, a) in sums.iter_mut().zip(a) {
            let a = simd.splat_f32s(*a);
            *sum = [simd.mul_add_e_f32s(a, b[0], sum[0]), simd.mul_add_e_f32s(a, b[1], sum[1])];
        }
    }
    sums
}

/// `Σᵢ a[r, i]·b[i]` for each of `ROWS` rows r of a panel's width, added to `sums`.
#[inline(always)]
pub(super) fn tile_of_rows<S: Simd, const ROWS: usize>(
    simd: S,
    a: &[f32],
    b: &[Pair<S>],
    mut sums: [Pair<S>; ROWS],
) -> [Pair<S>; ROWS] {
    // Lengths that the compiler knows: every address is one register and a constant.
    let (a, b) = (&a[..ROWS * columns::<S>()], &b[..columns::<S>()]);
    for (i, b) in b.iter().enumerate() {
        for (r, sum) in sums.iter_mut().enumerate() {
            let a = simd.splat_f32s(a[r * columns::<S>() + i]);
            *sum = [simd.mul_add_e_f32s(a, b[0], sum[0]), simd.mul_add_e_f32s(a, b[1], sum[1])];
        }
    }
    sums
}

/// A slice as pairs of vectors; what does not fill a pair is left out.
#[inline(always)]
pub(super) fn pairs<S: Simd>(values: &[f32]) -> &[Pair<S>] {
    S::as_simd_f32s(values).0.as_chunks().0
}

/// As [`pairs`], to be written.
#[inline(always)]
pub(super) fn pairs_mut<S: Simd>(values: &mut [f32]) -> &mut [Pair<S>] {
    S::as_mut_simd_f32s(values).0.as_chunks_mut().0
}

/// 2ˣ for x ≤ 0: a polynomial on half a unit around zero, exact to 2e-7 (relative). Zero below 2⁻¹²⁶; NaN stays NaN.
#[inline(always)]
pub(super) fn exp2<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let round = simd.splat_f32s(ROUND);
    let rounded = simd.add_f32s(x, round);
    let rest = simd.sub_f32s(x, simd.sub_f32s(rounded, round));
    // (ln 2)ᵏ / k!
    let mut sum = simd.splat_f32s(1.525_273_4e-5);
    const LN_2: f32 = std::f32::consts::LN_2;
    for factor in [1.540_353e-4, 1.333_355_8e-3, 9.618_129e-3, 5.550_411e-2, 2.402_265e-1, LN_2, 1.0] {
        sum = simd.mul_add_e_f32s(sum, rest, simd.splat_f32s(factor));
    }
    let exponent = simd.add_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(127));
    let power = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(exponent, simd.splat_u32s(23)));
    let small = simd.less_than_f32s(x, simd.splat_f32s(-126.0));
    simd.select_f32s(small, simd.splat_f32s(0.0), simd.mul_f32s(sum, power))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pulp::{Arch, WithSimd};

    struct Powers<'a>(&'a mut [f32]);

    impl WithSimd for Powers<'_> {
        type Output = ();

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) {
            for pair in pairs_mut::<S>(self.0) {
                *pair = pair.map(|x| exp2(simd, x));
            }
        }
    }

    #[test]
    fn powers_are_close_to_exact() {
        let x: Vec<f32> = (0..12_800).map(|i| i as f32 * -0.01).collect();
        let mut powers = x.clone();
        powers[7] = f32::NAN;
        powers[8] = f32::NEG_INFINITY;
        Arch::new().dispatch(Powers(&mut powers));
        assert!(powers[7].is_nan() && powers[8] == 0.0);
        for (x, power) in x.iter().zip(&powers).skip(9) {
            let exact = f64::from(*x).exp2();
            let close = (f64::from(*power) - exact).abs() <= 2e-7 * exact;
            assert!(close || (*x < -126.0 && *power == 0.0), "2^{x}: {power}");
        }
    }

    #[test]
    fn blocks_are_turned_as_single_values_are() {
        // 6 rows of 8: whole blocks and two columns of another, and rows that no block divides.
        let data: Vec<f32> = (0..48).map(|i| i as f32).collect();
        for (inner, panel) in [(8, 4), (8, 8), (8, 16), (7, 4)] {
            let matrix = Matrix { cols: inner, ..Matrix::rows(&data, 6, 8) };
            let mut lines = Lines::default();
            let packed = pack(matrix.t(), inner, panel, &mut lines).to_vec();
            for (at, value) in packed.iter().enumerate() {
                let (column, i) = (at / (inner * panel) * panel + at % panel, at / panel % inner);
                let wanted = if column < 6 { data[column * 8 + i] } else { 0.0 };
                assert_eq!(*value, wanted, "{inner} by {panel}, at {at}");
            }
        }
    }

    #[test]
    fn panels_hold_every_column_and_zeros() {
        let data: Vec<f32> = (0..15).map(|i| i as f32).collect();
        // 3 rows of 5.
        let matrix = Matrix::rows(&data, 3, 5);
        let mut lines = Lines::default();
        lines.take(100).fill(f32::NAN);
        let packed = pack(matrix, 3, 4, &mut lines).to_vec();
        let panels = [
            [0.0, 1.0, 2.0, 3.0, 5.0, 6.0, 7.0, 8.0, 10.0, 11.0, 12.0, 13.0],
            [4.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 14.0, 0.0, 0.0, 0.0],
        ];
        assert_eq!(packed, panels.concat());
        let turned = pack(matrix.t(), 5, 2, &mut lines).to_vec();
        let panels = [
            [0.0, 5.0, 1.0, 6.0, 2.0, 7.0, 3.0, 8.0, 4.0, 9.0],
            [10.0, 0.0, 11.0, 0.0, 12.0, 0.0, 13.0, 0.0, 14.0, 0.0],
        ];
        assert_eq!(turned, panels.concat());
        // A row that is missing.
        let longer = pack(Matrix::rows(&data, 1, 5), 2, 5, &mut lines);
        assert_eq!(longer, [0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
