//! Position tables: sine and cosine, in f64 and cast to `f32` at the end (`src/models/utils/pos_embs.py`), and their
//! interpolation to another token grid.
//!
//! Everything runs on the host with `libm`, so that a table is the same on every machine.

use crate::config::{EncoderConfig, PredictorConfig};
use crate::error::ShapeError;

/// Table of width `dim` for positions that need not be integers: row-major `[positions, dim]`. The first half of a row holds
/// sines, the second cosines, of `position · 10000^(-k / (dim / 2))`.
///
/// `dim` must be even; an odd one leaves the last channel 0.
pub fn sincos_1d(dim: usize, positions: &[f64]) -> Vec<f32> {
    let mut table = vec![0f32; positions.len() * dim];
    if dim == 0 {
        return table;
    }
    for (row, &position) in table.chunks_exact_mut(dim).zip(positions) {
        write_axis(row, dim, position);
    }
    table
}

/// Table `[height · width, dim]` of the official image models: height in the first half of the channels, width in the
/// second. `dim` must be a multiple of 4.
pub fn sincos_2d(dim: usize, [height, width]: [usize; 2]) -> Vec<f32> {
    grid_table(dim, &[(height, dim / 2), (width, dim / 2)])
}

/// Table `[time · height · width, dim]`: time, then height, then width in the channels.
///
/// With `uniform_power` each axis gets `2 · ceil(dim / 6)` channels, and the surplus beyond `dim` is cut off at the end: 2
/// channels for a width of 1024, 4 for 1280. Otherwise time gets half of the channels and height and width a quarter each
/// (`dim` must then be a multiple of 8).
pub fn sincos_3d(dim: usize, [time, height, width]: [usize; 3], uniform_power: bool) -> Vec<f32> {
    let [of_time, of_height, of_width] =
        if uniform_power { [dim.div_ceil(6) * 2; 3] } else { [dim / 2, dim / 4, dim / 4] };
    grid_table(dim, &[(time, of_time), (height, of_height), (width, of_width)])
}

impl EncoderConfig {
    /// The encoder's table, `[tokens, embed_dim]`.
    pub fn position_table(&self) -> Vec<f32> {
        sincos_3d(self.embed_dim, self.grid(), self.uniform_power)
    }
}

impl PredictorConfig {
    /// The predictor's table, `[tokens, embed_dim]`.
    pub fn position_table(&self) -> Vec<f32> {
        sincos_3d(self.embed_dim, self.grid, self.uniform_power)
    }
}

/// A table over a grid whose last axis varies fastest, given length and channels of each axis. Channels beyond `dim` are
/// dropped.
fn grid_table(dim: usize, axes: &[(usize, usize)]) -> Vec<f32> {
    let rows: usize = axes.iter().map(|(length, _)| length).product();
    let mut table = vec![0f32; rows * dim];
    if dim == 0 {
        return table;
    }
    for (index, row) in table.chunks_exact_mut(dim).enumerate() {
        let (mut start, mut stride) = (0, rows);
        for &(length, channels) in axes {
            stride /= length;
            let position = (index / stride) % length;
            write_axis(&mut row[start.min(dim)..], channels, position as f64);
            start += channels;
        }
    }
    table
}

/// Writes one axis of `channels` channels at the start of `row`, as far as the row goes.
fn write_axis(row: &mut [f32], channels: usize, position: f64) {
    let half = channels / 2;
    for (channel, value) in row.iter_mut().enumerate().take(2 * half) {
        let exponent = (channel % half) as f64 / half as f64;
        let angle = position / libm::pow(10000.0, exponent);
        *value = if channel < half { libm::sin(angle) } else { libm::cos(angle) } as f32;
    }
}

/// Resizes an encoder's position table, shape `[1, N, D]` and values, in place to another grid, as
/// [`interpolate_trilinear`] does, so that weights trained on one clip size work on another. Predictors have no such rule:
/// their table is built for the grid.
///
/// # Errors
/// [`ShapeError`] if the table does not fit the grid `from`, or a grid is empty.
pub fn resize_table(table: &mut (Vec<usize>, Vec<f32>), from: [usize; 3], to: [usize; 3]) -> Result<(), ShapeError> {
    let tokens: usize = from.iter().product();
    let dim = table.0.last().copied().unwrap_or(0);
    let fits = table.0 == [1, tokens, dim] && table.1.len() == tokens * dim && tokens > 0;
    ShapeError::require(fits, "the position table", &table.0, || format!("[1, {tokens}, D] for the grid {from:?}"))?;
    ShapeError::require(to.iter().all(|&n| n > 0), "the new grid", &to, || "not empty".to_owned())?;
    if from != to {
        *table = (vec![1, to.iter().product(), dim], interpolate_trilinear(&table.1, dim, from, to));
    }
    Ok(())
}

/// A table `[t · h · w, dim]` on another grid, by trilinear interpolation with half-pixel centres (`align_corners` off), as
/// the official encoder does for clips of another size.
///
/// # Panics
/// If `table` does not have `t · h · w · dim` values, or a grid is empty; [`resize_table`] checks both.
pub fn interpolate_trilinear(table: &[f32], dim: usize, from: [usize; 3], to: [usize; 3]) -> Vec<f32> {
    let taps = [0, 1, 2].map(|axis| (0..to[axis]).map(|i| linear_taps(i, from[axis], to[axis])).collect::<Vec<_>>());
    interpolate(table, dim, &from, &taps)
}

/// A table `[h · w, dim]` on another grid, by bicubic interpolation (a = -0.75, edges repeated, half-pixel centres), as the
/// official image encoder does.
///
/// # Panics
/// If `table` does not have `h · w · dim` values, or a grid is empty.
pub fn interpolate_bicubic(table: &[f32], dim: usize, from: [usize; 2], to: [usize; 2]) -> Vec<f32> {
    let taps = [0, 1].map(|axis| (0..to[axis]).map(|i| cubic_taps(i, from[axis], to[axis])).collect::<Vec<_>>());
    interpolate(table, dim, &from, &taps)
}

/// Source positions of one target position along an axis, with their weights.
type Taps = Vec<(usize, f64)>;

fn centre(index: usize, from: usize, to: usize) -> f64 {
    (index as f64 + 0.5) * (from as f64 / to as f64) - 0.5
}

fn linear_taps(index: usize, from: usize, to: usize) -> Taps {
    let position = centre(index, from, to).max(0.0);
    let low = (position as usize).min(from - 1);
    let high = (low + 1).min(from - 1);
    let fraction = position - low as f64;
    vec![(low, 1.0 - fraction), (high, fraction)]
}

fn cubic_taps(index: usize, from: usize, to: usize) -> Taps {
    const A: f64 = -0.75;
    let near = |x: f64| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f64| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    let position = centre(index, from, to);
    let low = position.floor();
    let t = position - low;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let clamp = |i: f64| i.clamp(0.0, (from - 1) as f64) as usize;
    (0..4).map(|i| (clamp(low + i as f64 - 1.0), weights[i])).collect()
}

/// Separable interpolation over row-major axes, one after the other, the last first.
fn interpolate(table: &[f32], dim: usize, from: &[usize], taps: &[Vec<Taps>]) -> Vec<f32> {
    assert_eq!(table.len(), from.iter().product::<usize>() * dim, "the table does not fit the grid");
    let mut values: Vec<f64> = table.iter().map(|&v| f64::from(v)).collect();
    let mut inner = dim;
    for (axis, taps) in taps.iter().enumerate().rev() {
        let outer: usize = from[..axis].iter().product();
        let mut resized = vec![0f64; outer * taps.len() * inner];
        for (row, target) in resized.chunks_exact_mut(inner.max(1)).enumerate() {
            let (block, position) = (row / taps.len(), row % taps.len());
            for &(source, weight) in &taps[position] {
                let start = (block * from[axis] + source) * inner;
                for (value, &from) in target.iter_mut().zip(&values[start..start + inner]) {
                    *value += weight * from;
                }
            }
        }
        inner *= taps.len();
        values = resized;
    }
    values.into_iter().map(|v| v as f32).collect()
}
