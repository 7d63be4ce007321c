//! Pillow's antialiased resizing of RGB bytes (`Resample.c`), bit for bit.
//!
//! Columns first, rounded to bytes, then rows; weights are integers of 22 bits. Pillow 13 chooses the rows first for some
//! shapes, which differs by one grey level here and there; this is the order of 10.4 and before.

use crate::transforms::{CropBox, TransformError};

/// The interpolating function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic of a = -1/2.
    Bicubic,
}

impl Filter {
    fn radius(self) -> f64 {
        match self {
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    fn at(self, x: f64) -> f64 {
        const A: f64 = -0.5;
        let x = x.abs();
        match self {
            Self::Bilinear if x < 1.0 => 1.0 - x,
            Self::Bicubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            _ => 0.0,
        }
    }
}

/// Bits of a weight's fraction.
const BITS: u32 = 22;

/// The source pixels of one output pixel.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Taps that resize a line of `len` pixels to `size`, for the outputs from `start` to `start + count`.
fn taps(len: usize, size: usize, filter: Filter, start: usize, count: usize) -> Vec<Taps> {
    let scale = len as f64 / size as f64;
    let filter_scale = scale.max(1.0);
    let support = filter.radius() * filter_scale;
    let tap = |out: usize| {
        let centre = (out as f64 + 0.5) * scale;
        // Casts truncate and stop at 0, which is Pillow's truncation and clipping.
        let first = (centre - support + 0.5) as usize;
        let end = ((centre + support + 0.5) as usize).min(len);
        let weight = |index: usize| filter.at((index as f64 - centre + 0.5) * (1.0 / filter_scale));
        let weights: Vec<f64> = (first..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let whole = |w: &f64| {
            let w = if sum == 0.0 { *w } else { *w / sum } * f64::from(1 << BITS);
            (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
        };
        Taps { first, weights: weights.iter().map(whole).collect() }
    };
    (start..start + count).map(tap).collect()
}

#[inline]
fn to_byte(sum: i32) -> u8 {
    (sum >> BITS).clamp(0, 255) as u8
}

/// Resizes a picture of interleaved RGB bytes to `size` (height, width).
///
/// # Errors
/// [`TransformError::FrameSize`], [`TransformError::Empty`], [`TransformError::Boxes`] for an empty size.
pub fn resize(
    picture: &[u8],
    (height, width): (usize, usize),
    size: (usize, usize),
    filter: Filter,
) -> Result<Vec<u8>, TransformError> {
    let whole = CropBox { top: 0, left: 0, height, width };
    let out = CropBox { top: 0, left: 0, height: size.0, width: size.1 };
    resize_window(picture, (height, width), whole, size, out, filter)
}

/// Resizes the part `crop` of a picture to `size` (height, width), and gives the part `window` of the result. Pixels outside
/// `crop` have no influence; what lies outside `window` costs nothing.
///
/// # Errors
/// [`TransformError::FrameSize`], [`TransformError::Empty`]; [`TransformError::Boxes`] for boxes that do not fit.
pub fn resize_window(
    picture: &[u8],
    (height, width): (usize, usize),
    crop: CropBox,
    size: (usize, usize),
    window: CropBox,
    filter: Filter,
) -> Result<Vec<u8>, TransformError> {
    crate::transforms::Frames::new(&[picture], height, width)?;
    if !crop.fits(height, width) || !window.fits(size.0, size.1) {
        return Err(TransformError::Boxes);
    }
    let columns = taps(crop.width, size.1, filter, window.left, window.width);
    let rows = taps(crop.height, size.0, filter, window.top, window.height);
    let first_row = rows.iter().map(|row| row.first).min().unwrap_or(0);
    let end_row = rows.iter().map(|row| row.first + row.weights.len()).max().unwrap_or(0);
    let line = window.width * 3;
    let mut between = vec![0u8; (end_row - first_row) * line];
    for (row, out) in (first_row..end_row).zip(between.chunks_exact_mut(line)) {
        let start = ((crop.top + row) * width + crop.left) * 3;
        across(&picture[start..][..crop.width * 3], &columns, out);
    }
    let mut result = vec![0u8; window.height * line];
    let mut sums = vec![0i32; line];
    for (row, out) in rows.iter().zip(result.chunks_exact_mut(line)) {
        sums.fill(1 << (BITS - 1));
        let source = &between[(row.first - first_row) * line..];
        for (weight, values) in row.weights.iter().zip(source.chunks_exact(line)) {
            sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * i32::from(*value));
        }
        out.iter_mut().zip(&sums).for_each(|(value, sum)| *value = to_byte(*sum));
    }
    Ok(result)
}

/// One row with its columns resized.
fn across(row: &[u8], columns: &[Taps], out: &mut [u8]) {
    for (column, target) in columns.iter().zip(out.chunks_exact_mut(3)) {
        let mut sums = [1i32 << (BITS - 1); 3];
        for (weight, pixel) in column.weights.iter().zip(row[column.first * 3..].chunks_exact(3)) {
            sums.iter_mut().zip(pixel).for_each(|(sum, value)| *sum += weight * i32::from(*value));
        }
        target.iter_mut().zip(sums).for_each(|(value, sum)| *value = to_byte(sum));
    }
}
