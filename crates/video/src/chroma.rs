//! Chroma of pictures of odd height, brought to the rows of their luma.
//!
//! libswscale converts pictures of even height with the nearest chroma sample; those of odd height go through its scaler, which
//! takes four samples with bicubic weights (`a` = -0.6), down, and for odd widths across as well. Ours are rounded to whole
//! codes in between, so that RGB is not the same bit for bit: on smooth pictures 0.3 to 0.7 levels off on average, where the
//! nearest sample is 4 to 7.

use crate::frame::Frame;

/// Fractional bits of the weights.
const BITS: u32 = 12;

impl Frame {
    /// True where chroma is interpolated: odd height, fewer samples than pixels.
    pub(crate) fn interpolates(&self) -> bool {
        self.height % 2 == 1
            && matches!(self.chroma_shift, (1, 1) | (1, 0))
            && (self.chroma_shift.1 == 1 || self.wide())
    }

    /// True where it is interpolated across as well, to a sample for each pixel.
    pub(crate) fn wide(&self) -> bool {
        self.height % 2 == 1 && self.width % 2 == 1 && self.chroma_shift.0 == 1
    }

    /// The chroma samples `columns` of picture row `y`: of pixels where the picture is [`wide`](Self::wide), else of
    /// chroma columns.
    pub(crate) fn chroma_row(&self, plane: &[u8], y: usize, columns: std::ops::Range<usize>) -> Vec<u8> {
        let (across, down) = (self.chroma_width(), self.chroma_height());
        let rows = match self.chroma_shift.1 {
            0 => [(y, 1 << BITS), (y, 0), (y, 0), (y, 0)],
            _ => taps(y, self.height, down),
        };
        let sample = |column: usize| {
            let of =
                |(row, weight): (usize, i32)| weight * plane.get(row * across + column).copied().map_or(0, i32::from);
            rows.map(of).iter().sum::<i32>()
        };
        let one = |column: usize| {
            let sum = match self.wide() {
                false => i64::from(sample(column)) << BITS,
                true => {
                    let of = |(column, weight): (usize, i32)| i64::from(weight) * i64::from(sample(column));
                    taps(column, self.width, across).map(of).iter().sum()
                }
            };
            ((sum + (1 << (2 * BITS - 1))) >> (2 * BITS)).clamp(0, 255) as u8
        };
        columns.map(one).collect()
    }
}

/// The samples of `of` around place `at` of `len`, and their weights.
fn taps(at: usize, len: usize, of: usize) -> [(usize, i32); 4] {
    let centre = (at as f64 + 0.5) * of as f64 / len as f64 - 0.5;
    std::array::from_fn(|tap| {
        let place = centre.floor() + tap as f64 - 1.0;
        let last = of.saturating_sub(1) as f64;
        (place.clamp(0.0, last) as usize, (bicubic((centre - place).abs()) * f64::from(1 << BITS)).round() as i32)
    })
}

fn bicubic(x: f64) -> f64 {
    const A: f64 = -0.6;
    match x {
        x if x < 1.0 => (A + 2.0) * x.powi(3) - (A + 3.0) * x.powi(2) + 1.0,
        x if x < 2.0 => A * (x.powi(3) - 5.0 * x.powi(2) + 8.0 * x - 4.0),
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ColorSpace, Orientation};

    /// A picture whose chroma is a slope, and mean RGB of some of its rows by `ffmpeg -pix_fmt rgb24` (5.1, x86-64).
    fn slope(width: usize, height: usize) -> Frame {
        let (across, down) = (width.div_ceil(2), height.div_ceil(2));
        let plane = |a: usize, b: usize| -> Vec<u8> {
            (0..down).flat_map(|y| (0..across).map(move |x| (40 + (a * x + b * y) % 170) as u8)).collect()
        };
        let y = (0..height).flat_map(|y| (0..width).map(move |x| (30 + (3 * x + 5 * y) % 190) as u8)).collect();
        let (color, orientation) = (ColorSpace::default(), Orientation::default());
        Frame {
            width,
            height,
            y,
            u: plane(7, 11),
            v: plane(13, 3),
            chroma_shift: (1, 1),
            color,
            orientation,
            index: 0,
            time: 0.0,
        }
    }

    #[test]
    fn pictures_of_odd_height_are_within_a_level_of_ffmpegs() {
        for (width, height, expected) in [(10, 7, &FFMPEG_10X7[..]), (9, 7, &FFMPEG_9X7[..])] {
            let rgb = slope(width, height).rgb();
            assert_eq!(rgb.len(), expected.len());
            let off: u32 = rgb.iter().zip(expected).map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            let mean = f64::from(off) / rgb.len() as f64;
            assert!(mean < 1.0, "{width}x{height}: {mean}");
        }
    }

    #[rustfmt::skip] // one row each
    const FFMPEG_10X7: [u8; 210] = [
        0, 122, 0, 0, 125, 0, 0, 115, 0, 0, 118, 0, 0, 109, 0, 0, 112, 0, 0, 102, 0, 0, 105, 0, 0, 96, 0, 0, 100, 0,
        0, 127, 0, 0, 131, 0, 0, 120, 0, 0, 124, 0, 0, 113, 0, 0, 117, 0, 0, 108, 0, 0, 111, 0, 0, 102, 0, 0, 105, 0,
        0, 129, 0, 0, 132, 0, 0, 123, 0, 0, 126, 0, 0, 116, 0, 0, 119, 0, 0, 110, 0, 0, 113, 0, 0, 104, 0, 3, 108, 0,
        0, 127, 0, 0, 131, 0, 0, 122, 0, 0, 125, 0, 0, 116, 0, 0, 119, 0, 0, 109, 0, 0, 112, 0, 10, 103, 0, 13, 107, 0,
        0, 131, 0, 0, 134, 0, 0, 124, 0, 0, 127, 0, 0, 118, 0, 0, 122, 0, 0, 112, 0, 0, 116, 0, 18, 105, 0, 22, 109, 0,
        0, 133, 0, 0, 137, 0, 0, 126, 0, 0, 130, 0, 0, 120, 0, 0, 124, 0, 0, 115, 0, 3, 118, 0, 27, 108, 8, 31, 111, 11,
        0, 139, 0, 0, 143, 0, 0, 132, 0, 0, 136, 0, 0, 126, 0, 0, 130, 0, 5, 120, 0, 9, 124, 0, 33, 113, 13, 37, 117, 17,
    ];

    #[rustfmt::skip] // one row each
    const FFMPEG_9X7: [u8; 189] = [
        0, 124, 0, 0, 123, 0, 0, 118, 0, 0, 113, 0, 0, 110, 0, 0, 108, 0, 0, 102, 0, 0, 99, 0, 0, 97, 0,
        0, 129, 0, 0, 128, 0, 0, 124, 0, 0, 118, 0, 0, 115, 0, 0, 113, 0, 0, 107, 0, 0, 104, 0, 0, 102, 0,
        0, 132, 0, 0, 131, 0, 0, 126, 0, 0, 120, 0, 0, 118, 0, 0, 115, 0, 0, 110, 0, 0, 106, 0, 2, 104, 0,
        0, 131, 0, 0, 130, 0, 0, 125, 0, 0, 120, 0, 0, 117, 0, 0, 114, 0, 0, 109, 0, 1, 105, 0, 13, 103, 0,
        0, 133, 0, 0, 132, 0, 0, 128, 0, 0, 122, 0, 0, 119, 0, 0, 117, 0, 0, 111, 0, 9, 108, 0, 21, 106, 0,
        0, 136, 0, 0, 135, 0, 0, 130, 0, 0, 124, 0, 0, 122, 0, 0, 119, 0, 3, 114, 0, 17, 110, 0, 30, 108, 9,
        0, 142, 0, 0, 141, 0, 0, 136, 0, 0, 130, 0, 0, 128, 0, 0, 125, 0, 9, 120, 0, 23, 116, 5, 35, 114, 15,
    ];
}
