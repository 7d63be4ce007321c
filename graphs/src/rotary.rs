//! Rotary positions: queries and keys are turned by angles that depend on where a token lies.
//!
//! A head's channels are cut into a part for time, one for height and one for width, and a rest that stays as it is. Angles
//! of all tokens are a table, made once for a clip and used in every block; a mask selects rows of it. Everything is
//! ordinary arithmetic on tensors, so that it is recorded like the rest of a model.

use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::Rotary;

/// Logarithm of 10000, the base of the angles' geometric sequence.
const LN_BASE: f64 = 4.0 * std::f64::consts::LN_10;

/// Channels of each of the three parts of a head: the largest even number of which three fit.
pub fn part_width(head_dim: usize) -> usize {
    2 * ((head_dim / 3) / 2)
}

/// Cosines, then sines, of every token's angles: `f32[1, t·h·w, 2·head_dim]`. `side` is the number of patches a side that
/// rows and columns are mapped to, if they are.
///
/// On an axis of one patch, where the official code divides by zero, the only position is 0.
pub fn table(
    rotary: Rotary,
    side: usize,
    [time, height, width]: [usize; 3],
    head_dim: usize,
    device: &Device,
) -> Tensor<3> {
    let stretched = |n: usize| if rotary.interpolate && n > 1 && n != side { Some(side) } else { None };
    let part = part_width(head_dim);
    let rest = head_dim - 3 * part;
    let axes = [
        (axis_angles(time, None, part, device), [time, 1, 1]),
        (axis_angles(height, stretched(height), part, device), [1, height, 1]),
        (axis_angles(width, stretched(width), part, device), [1, 1, width]),
    ];
    let over_grid = |x: Tensor<2>, [t, h, w]: [usize; 3]| {
        let x = spread(x, rotary.tiled); // [n, part]
        x.reshape([t, h, w, part]).expand([time, height, width, part]) // [T, H, W, part]
    };
    let mut cosines: Vec<Tensor<4>> = axes.iter().map(|(x, at)| over_grid(x.clone().cos(), *at)).collect();
    let mut sines: Vec<Tensor<4>> = axes.iter().map(|(x, at)| over_grid(x.clone().sin(), *at)).collect();
    if rest > 0 {
        cosines.push(Tensor::ones([time, height, width, rest], device));
        sines.push(Tensor::zeros([time, height, width, rest], device));
    }
    cosines.extend(sines);
    Tensor::cat(cosines, 3).reshape([1, time * height * width, 2 * head_dim]) // [1, N, 2d]
}

/// The angles of an axis: `[positions, part / 2]`, `position · 10000^(-k / (part / 2))`, of positions 0 to `size - 1`, which
/// `side` maps to `0..side` beforehand.
fn axis_angles(size: usize, side: Option<usize>, part: usize, device: &Device) -> Tensor<2> {
    let mut positions = counted(size, device); // [n]
    if let Some(side) = side {
        positions = positions.mul_scalar((side - 1) as f64).div_scalar((size - 1) as f64);
    }
    let half = part / 2;
    let frequencies = counted(half, device).mul_scalar(-LN_BASE / half as f64).exp(); // [part/2]
    positions.reshape([size, 1]) * frequencies.reshape([1, half]) // [n, part/2]
}

/// `0, 1, .., size - 1`, recorded as a running sum of ones, minus one.
fn counted(size: usize, device: &Device) -> Tensor<1> {
    Tensor::<1>::ones([size], device).cumsum(0).sub_scalar(1.0)
}

/// `[n, part / 2]` to all channels of the part: the whole repeated (`tiled`), or each value twice.
fn spread(x: Tensor<2>, tiled: bool) -> Tensor<2> {
    if tiled {
        return Tensor::cat(vec![x.clone(), x], 1);
    }
    let [n, half] = x.dims();
    x.reshape([n, half, 1]).expand([n, half, 2]).reshape([n, 2 * half])
}

/// Queries or keys `[B, heads, N, d]` turned by the angles of a table `[B, N, 2d]`, or `[1, N, 2d]` for all clips alike:
/// `x · cos + y · sin`, where y is x with the channels of each pair exchanged and the first of them negated. Recorded as
///
/// ```text
/// cos, sin = reshape(slice(table, 2))        [B, 1, N, d]
/// pairs    = reshape(x)                      [B, heads, N, d/2, 2]
/// a, b     = slice(pairs, 4)                 [B, heads, N, d/2, 1]
/// y        = reshape(cat(neg(b), a))         [B, heads, N, d]
/// out      = x * cos + y * sin
/// ```
pub fn rotate(x: Tensor<4>, table: Tensor<3>) -> Tensor<4> {
    let [batch, heads, tokens, dim] = x.dims();
    let [shared, _, _] = table.dims();
    let [cos, sin] = [0, 1].map(|i| table.clone().narrow(2, i * dim, dim).reshape([shared, 1, tokens, dim]));
    let pairs = x.clone().reshape([batch, heads, tokens, dim / 2, 2]);
    let [first, second] = [0, 1].map(|i| pairs.clone().narrow(4, i, 1));
    let turned = Tensor::cat(vec![second.neg(), first], 4).reshape([batch, heads, tokens, dim]);
    x * cos + turned * sin
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    fn values(tensor: Tensor<3>) -> Vec<f32> {
        tensor.into_data().try_into_vec_as::<f32>().unwrap()
    }

    /// The rule in f64, channel by channel.
    fn expected(rotary: Rotary, side: usize, grid: [usize; 3], dim: usize) -> Vec<f64> {
        let part = part_width(dim);
        let half = part / 2;
        let [time, height, width] = grid;
        let mut table = Vec::new();
        for token in 0..time * height * width {
            let stretch = |at: usize, size: usize| match rotary.interpolate && size > 1 {
                true => at as f64 * (side - 1) as f64 / (size - 1) as f64,
                false => at as f64,
            };
            let at = [
                (token / (height * width)) as f64,
                stretch(token / width % height, height),
                stretch(token % width, width),
            ];
            let angle = |channel: usize| {
                let (axis, inner) = (channel / part, channel % part);
                let k = if rotary.tiled { inner % half } else { inner / 2 };
                at.get(axis).map_or(0.0, |at| at * 10000f64.powf(-(k as f64) / half as f64))
            };
            table.extend((0..dim).map(|channel| angle(channel).cos()));
            table.extend((0..dim).map(|channel| angle(channel).sin()));
        }
        table
    }

    #[test]
    fn tables_follow_the_rule() {
        for (tiled, interpolate, grid, dim) in [
            (true, false, [2, 3, 5], 32),
            (false, true, [2, 4, 24], 64),
            (false, true, [3, 16, 1], 88),
            (true, false, [8, 2, 2], 24),
            (false, false, [1, 2, 2], 8),
        ] {
            let rotary = Rotary { tiled, interpolate };
            let got = values(table(rotary, 16, grid, dim, &Device::flex()));
            let want = expected(rotary, 16, grid, dim);
            assert_eq!(got.len(), want.len());
            let far = got.iter().zip(&want).map(|(got, want)| (f64::from(*got) - want).abs()).fold(0.0, f64::max);
            assert!(far < 4e-6, "{rotary:?} {grid:?} {dim}: {far}");
        }
    }

    #[test]
    fn pairs_turn_and_the_rest_stays() {
        let device = Device::flex();
        let tensor = |values: Vec<f32>| {
            let shape = [values.len()];
            Tensor::<1>::from_data(TensorData::new(values, shape), &device)
        };
        let x = tensor(vec![1.0, 2.0, 3.0, 4.0]).reshape([1, 1, 1, 4]);
        // A quarter turn, then none: cosines, then sines.
        let table = tensor(vec![0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]).reshape([1, 1, 8]);
        let y = rotate(x, table).into_data().try_into_vec_as::<f32>().unwrap();
        assert_eq!(y, [-2.0, 1.0, 3.0, 4.0]);
    }
}
