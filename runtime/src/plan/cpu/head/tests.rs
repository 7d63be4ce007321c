//! One head against a direct computation in f64, with every instruction set there is.

use super::*;
use crate::plan::cpu::simd::InstructionSet;
use pulp::Arch;

/// Queries, keys, features of a head.
const SIZES: [[usize; 3]; 7] =
    [[1, 1, 1], [3, 5, 7], [32, 64, 64], [33, 65, 24], [70, 31, 80], [5, 200, 33], [96, 96, 32]];

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1013) as f32 / 506.5 - 1.0).collect()
}

/// A matrix whose elements lie `col_stride` apart in rows that are longer.
fn matrix(data: &[f32], rows: usize, cols: usize, col_stride: usize) -> Matrix<'_> {
    Matrix { data, rows, cols, row_stride: cols * col_stride + 3, col_stride }
}

fn at(matrix: &Matrix<'_>, row: usize, col: usize) -> f64 {
    f64::from(matrix.data[row * matrix.row_stride + col * matrix.col_stride])
}

/// Result and gradients of queries, keys and values, row after row.
fn direct([q, k, v, dy]: [&Matrix<'_>; 4], scale: f64) -> [Vec<f64>; 4] {
    let mut results = [q.rows, q.rows, k.rows, k.rows].map(|rows| vec![0.0; rows * q.cols]);
    let dot =
        |a: &Matrix<'_>, row, b: &Matrix<'_>, other| (0..a.cols).map(|i| at(a, row, i) * at(b, other, i)).sum::<f64>();
    for row in 0..q.rows {
        let scores: Vec<f64> = (0..k.rows).map(|key| (scale * dot(q, row, k, key)).exp()).collect();
        let total: f64 = scores.iter().sum();
        let weights: Vec<f64> = scores.iter().map(|score| score / total).collect();
        let slopes: Vec<f64> = (0..k.rows).map(|key| dot(dy, row, v, key)).collect();
        let mean: f64 = weights.iter().zip(&slopes).map(|(weight, slope)| weight * slope).sum();
        for (key, (weight, slope)) in weights.iter().zip(&slopes).enumerate() {
            let slope = scale * weight * (slope - mean);
            for i in 0..q.cols {
                results[0][row * q.cols + i] += weight * at(v, key, i);
                results[1][row * q.cols + i] += slope * at(k, key, i);
                results[2][key * q.cols + i] += slope * at(q, row, i);
                results[3][key * q.cols + i] += weight * at(dy, row, i);
            }
        }
    }
    results
}

fn check(with: Arch) {
    let scratch = &mut Scratch::default();
    for ([queries, keys, width], stride) in SIZES.into_iter().flat_map(|sizes| [(sizes, 1), (sizes, 2)]) {
        let data = [queries, keys, keys, queries].map(|rows| values(rows * (width * stride + 3), rows + stride));
        let [q, k, v, dy] =
            [(0, queries), (1, keys), (2, keys), (3, queries)].map(|(i, rows)| matrix(&data[i], rows, width, stride));
        let (scale, wide) = (0.7, width + 2);
        let wanted = direct([&q, &k, &v, &dy], scale);
        let mut results = [queries, queries, keys, keys].map(|rows| vec![f32::NAN; rows * wide]);
        let [y, dq, dk, dv] = &mut results;
        with.dispatch(Tiled(Forward { q, k, v, out: Out::new(y, wide), scale, scratch }));
        let y = Matrix { data: y, rows: queries, cols: width, row_stride: wide, col_stride: 1 };
        let head = HeadGrad { q, k, v, y, dy, scale };
        with.dispatch(Tiled(Backward { head: &head, grads: [dq, dk, dv].map(|grad| Out::new(grad, wide)), scratch }));
        for (result, wanted) in results.iter().zip(&wanted) {
            for (row, wanted) in result.chunks(wide).zip(wanted.chunks(width)) {
                let close = |(got, wanted): (&f32, &f64)| (f64::from(*got) - wanted).abs() < 2e-5;
                assert!(
                    row.iter().zip(wanted).all(close),
                    "{queries} queries, {keys} keys, {width} features, stride {stride}"
                );
                assert!(row[width..].iter().all(|rest| rest.is_nan()), "written beside the head's columns");
            }
        }
    }
}

#[test]
fn every_instruction_set_computes_attention_and_its_gradient() {
    for set in InstructionSet::available() {
        check(set.arch().unwrap());
    }
}

#[test]
fn large_scores_are_no_overflow_and_nan_is_told() {
    let mut data = values(40 * 8, 1);
    data.iter_mut().for_each(|value| *value *= 1e4);
    let run = |data: &[f32]| {
        let mut y = vec![0.0; 40 * 8];
        let of = Matrix::rows(data, 40, 8);
        forward([of; 3], Out::new(&mut y, 8), 1.0);
        y
    };
    assert!(run(&data).iter().all(|value| value.is_finite()));
    // Scores far below zero: the largest of them counts, not the zeros that fill a tile.
    let low: Vec<f32> = data
        .iter()
        .enumerate()
        .map(|(i, value)| if i < 160 { value.abs() + 1.0 } else { -value.abs() - 1.0 })
        .collect();
    let mut y = vec![f32::NAN; 20 * 8];
    let (q, k) = (Matrix::rows(&low[..160], 20, 8), Matrix::rows(&low[160..160 + 7 * 8], 7, 8));
    forward([q, k, k], Out::new(&mut y, 8), 1.0);
    assert!(y.iter().all(|value| value.is_finite()));
    data[100] = f32::NAN;
    assert!(run(&data).iter().all(|value| value.is_nan()));
}
