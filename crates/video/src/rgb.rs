//! YUV to RGB in integer arithmetic, one row at a time, with the orientation applied.
//!
//! The arithmetic is that of libswscale's default path on x86 (`yuv420p` to `rgb24`, not scaled), bit for bit: published
//! checkpoints were trained on its pictures. Chroma is taken from the nearest sample; coefficients carry 13 fractional bits,
//! and each product is rounded down on its own, which makes pictures about one code value darker than exact conversion; black
//! and white stay what they are. Those of odd height have their chroma interpolated (`chroma.rs`). Pictures whose chroma is as
//! large as their luma (4:4:4) take another path there, which rounds the sum; so do they here.

use crate::frame::{ColorMatrix, Frame};

/// Fixed-point coefficients of one colour space for samples times 8: 13 fractional bits, products are shifted by 16.
struct Coefficients {
    y: i32,
    y_offset: i32,
    r_v: i32,
    g_u: i32,
    g_v: i32,
    b_u: i32,
    /// Round the sum of the products, not each of them down.
    rounded: bool,
}

impl Coefficients {
    fn of(frame: &Frame) -> Self {
        let color = frame.color;
        let (kr, kb) = color.matrix.kr_kb();
        let kg = 1.0 - kr - kb;
        // Limited range has 219 luma and 224 chroma steps for 255 of RGB. libswscale begins with coefficients of limited
        // range in 16 fractional bits, cuts where it turns them into those of full range, and rounds to 13 bits.
        let chroma = |x: f64| {
            let limited = (x * 255.0 / 224.0 * 65536.0).round() as i32;
            if color.full_range { limited * 224 / 255 } else { limited }
        };
        let (luma, y_offset) = if color.full_range { (1 << 16, 0) } else { ((255 << 16) / 219, 16) };
        let short = |x: i32| (x + 4) >> 3;
        Coefficients {
            y: short(luma),
            y_offset,
            r_v: short(chroma(2.0 * (1.0 - kr))),
            g_u: short(-chroma(2.0 * (1.0 - kb) * kb / kg)),
            g_v: short(-chroma(2.0 * (1.0 - kr) * kr / kg)),
            b_u: short(chroma(2.0 * (1.0 - kb))),
            rounded: frame.chroma_shift == (0, 0) || frame.wide(),
        }
    }

    /// One row; each chroma sample serves `1 << shift` pixels.
    fn row(&self, y: &[u8], u: &[u8], v: &[u8], shift: u8, rgb: &mut [u8]) {
        match shift {
            // The usual ones with a length that the compiler knows.
            0 if self.rounded => self.row_of::<1, true>(1, y, u, v, rgb),
            0 => self.row_of::<1, false>(1, y, u, v, rgb),
            1 => self.halved_row(y, u, v, rgb),
            _ => self.row_of::<0, false>(1 << shift.min(7), y, u, v, rgb),
        }
    }

    /// One row of which a chroma sample serves two pixels: by far the most frequent kind. In blocks, with 16-bit lanes and
    /// one channel after the other, for the compiler to use vectors.
    fn halved_row(&self, y: &[u8], u: &[u8], v: &[u8], rgb: &mut [u8]) {
        const PAIRS: usize = 32;
        // Coefficients are below 2^15 and samples times 8 below 2^11, so that sums stay within 16 bits.
        let high = |sample: i16, coefficient: i32| ((i32::from(sample) * coefficient) >> 16) as i16;
        let byte = |value: i16| value.clamp(0, 255) as u8;
        let offset = self.y_offset as i16;
        let (mut base, mut red, mut green, mut blue) =
            ([[0i16; 2]; PAIRS], [[0u8; 2]; PAIRS], [[0u8; 2]; PAIRS], [[0u8; 2]; PAIRS]);
        let chroma = u.chunks(PAIRS).zip(v.chunks(PAIRS));
        for ((y, (u, v)), out) in y.chunks(2 * PAIRS).zip(chroma).zip(rgb.chunks_mut(6 * PAIRS)) {
            for (base, &y) in base.as_flattened_mut().iter_mut().zip(y) {
                *base = high(8 * (i16::from(y) - offset), self.y);
            }
            let channels = red.iter_mut().zip(&mut green).zip(&mut blue);
            for ((base, ((red, green), blue)), (&u, &v)) in base.iter().zip(channels).zip(u.iter().zip(v)) {
                let (u, v) = (8 * (i16::from(u) - 128), 8 * (i16::from(v) - 128));
                let (r, b) = (high(v, self.r_v), high(u, self.b_u));
                let g = high(u, self.g_u) + high(v, self.g_v);
                *red = base.map(|base| byte(base + r));
                *green = base.map(|base| byte(base + g));
                *blue = base.map(|base| byte(base + b));
            }
            let channels = red.as_flattened().iter().zip(green.as_flattened()).zip(blue.as_flattened());
            for (pixel, ((&r, &g), &b)) in out.chunks_exact_mut(3).zip(channels).take(y.len()) {
                pixel.copy_from_slice(&[r, g, b]);
            }
        }
    }

    /// A part of a row that begins with pixel `left`, which the first chroma sample serves, and maybe some to the left of it.
    fn stretch(&self, y: &[u8], u: &[u8], v: &[u8], shift: u8, left: usize, rgb: &mut [u8]) {
        let step = 1 << shift.min(7);
        let head = ((step - left % step) % step).min(y.len());
        let (first, rest) = y.split_at(head);
        let (first_out, rest_out) = rgb.split_at_mut(rgb.len().min(3 * head));
        self.row(first, u, v, shift, first_out);
        let skip = usize::from(head > 0);
        self.row(rest, u.get(skip..).unwrap_or(&[]), v.get(skip..).unwrap_or(&[]), shift, rest_out);
    }

    #[inline]
    fn row_of<const PIXELS: usize, const ROUNDED: bool>(
        &self,
        pixels: usize,
        y: &[u8],
        u: &[u8],
        v: &[u8],
        rgb: &mut [u8],
    ) {
        let pixels = if PIXELS == 0 { pixels } else { PIXELS };
        let (each, sum, half) = if ROUNDED { (0, 16, 1 << 15) } else { (16, 0, 0) };
        let pairs = y.chunks(pixels).zip(u.iter().zip(v)).zip(rgb.chunks_mut(3 * pixels));
        for ((luma, (&u, &v)), out) in pairs {
            let (u, v) = (8 * (i32::from(u) - 128), 8 * (i32::from(v) - 128));
            let (r, b) = ((self.r_v * v) >> each, (self.b_u * u) >> each);
            let g = ((self.g_u * u) >> each) + ((self.g_v * v) >> each);
            for (&y, px) in luma.iter().zip(out.chunks_exact_mut(3)) {
                let base = ((8 * (i32::from(y) - self.y_offset) * self.y) >> each) + half;
                for (c, value) in px.iter_mut().zip([base + r, base + g, base + b]) {
                    *c = (value >> sum).clamp(0, 255) as u8;
                }
            }
        }
    }
}

impl Frame {
    /// The picture as interleaved RGB bytes, `display_height x display_width x 3`, mirrored and rotated for display.
    pub fn rgb(&self) -> Vec<u8> {
        let rgb = self.upright_rgb();
        if self.orientation == Default::default() {
            return rgb;
        }
        let pixels: Vec<[u8; 3]> = rgb.as_chunks().0.to_vec();
        self.orientation.turn(pixels, self.width, self.height).into_flattened()
    }

    /// Pixels `left..` of row `y` of the displayed picture as RGB bytes, as many as `out` holds: bit for bit those of
    /// [`rgb`](Frame::rgb). Pixels outside of the picture leave `out` as it is. Slow where the picture is to be turned: whoever
    /// reads many rows turns it first ([`upright`](Frame::upright)).
    pub fn rgb_row(&self, y: usize, left: usize, out: &mut [u8]) {
        let coefficients = Coefficients::of(self);
        if self.orientation != Default::default() {
            for (col, out) in out.chunks_exact_mut(3).enumerate() {
                if y < self.display_height() && left + col < self.display_width() {
                    let (x, y) = self.coded(y, left + col);
                    self.stretch(&coefficients, y, x, out);
                }
            }
        } else if y < self.height {
            self.stretch(&coefficients, y, left, out);
        }
    }

    /// As [`rgb_row`](Self::rgb_row), of the picture as coded.
    fn stretch(&self, coefficients: &Coefficients, y: usize, left: usize, out: &mut [u8]) {
        let pixels = (out.len() / 3).min(self.width.saturating_sub(left));
        let (shift, chroma) = (self.chroma_shift, self.chroma_width());
        let luma = self.y.get(y * self.width + left..).and_then(|row| row.get(..pixels));
        if self.interpolates() {
            let across = if self.wide() { 0 } else { shift.0 };
            let columns = left >> across..(left + pixels).div_ceil(1 << across);
            let rows = [&self.u, &self.v].map(|plane| self.chroma_row(plane, y, columns.clone()));
            let [u, v] = &rows;
            return coefficients.stretch(luma.unwrap_or_default(), u, v, across, left, out);
        }
        let start = (y >> shift.1) * chroma + (left >> shift.0);
        let stop = ((y >> shift.1) + 1) * chroma;
        let (Some(luma), Some(u), Some(v)) = (luma, self.u.get(start..stop), self.v.get(start..stop)) else { return };
        if self.color.matrix == ColorMatrix::Rgb {
            for ((out, g), (b, r)) in out.chunks_exact_mut(3).zip(luma).zip(u.iter().zip(v)) {
                out.copy_from_slice(&[*r, *g, *b]);
            }
            return;
        }
        coefficients.stretch(luma, u, v, shift.0, left, out);
    }

    /// Column and row as coded of a displayed pixel.
    fn coded(&self, row: usize, col: usize) -> (usize, usize) {
        let (w, h) = (self.width, self.height);
        let (x, y) = match self.orientation.quarter_turns % 4 {
            0 => (col, row),
            1 => (row, h - 1 - col),
            2 => (w - 1 - col, h - 1 - row),
            _ => (w - 1 - row, col),
        };
        (if self.orientation.mirrored { w - 1 - x } else { x }, y)
    }

    fn upright_rgb(&self) -> Vec<u8> {
        let mut rgb = vec![0u8; self.width * self.height * 3];
        if rgb.is_empty() {
            return rgb;
        }
        if self.color.matrix == ColorMatrix::Rgb {
            for ((out, g), (b, r)) in rgb.chunks_exact_mut(3).zip(&self.y).zip(self.u.iter().zip(&self.v)) {
                out.copy_from_slice(&[*r, *g, *b]);
            }
            return rgb;
        }
        let coefficients = Coefficients::of(self);
        if self.interpolates() {
            let rows = rgb.chunks_exact_mut(self.width * 3).enumerate();
            rows.for_each(|(row, out)| self.stretch(&coefficients, row, 0, out));
            return rgb;
        }
        let chroma = self.chroma_width();
        let rows = self.y.chunks_exact(self.width).zip(rgb.chunks_exact_mut(self.width * 3)).enumerate();
        let (u_rows, v_rows) = (self.u.chunks_exact(chroma), self.v.chunks_exact(chroma));
        let chroma_rows: Vec<(&[u8], &[u8])> = u_rows.zip(v_rows).collect();
        for (row, (y, out)) in rows {
            if let Some((u, v)) = chroma_rows.get(row >> self.chroma_shift.1) {
                coefficients.row(y, u, v, self.chroma_shift.0, out);
            }
        }
        rgb
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ColorSpace, Orientation};

    fn frame(width: usize, height: usize, y: Vec<u8>, u: u8, v: u8) -> Frame {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        let (color, orientation) = Default::default();
        let (u, v) = (vec![u; chroma], vec![v; chroma]);
        Frame { width, height, y, u, v, chroma_shift: (1, 1), color, orientation, index: 0, time: 0.0 }
    }

    #[test]
    fn limited_range_spans_black_to_white() {
        assert_eq!(frame(3, 1, vec![16, 235, 126], 128, 128).rgb(), [0, 0, 0, 255, 255, 255, 128, 128, 128]);
        // Values beyond the nominal range clip.
        assert_eq!(frame(2, 1, vec![0, 255], 128, 128).rgb(), [0, 0, 0, 255, 255, 255]);
    }

    /// What `ffmpeg -vf setparams=colorspace=MATRIX:range=RANGE -pix_fmt rgb24` (5.1, x86-64) makes of pictures of one
    /// colour, yuv420p.
    #[test]
    fn colours_are_ffmpegs_bit_for_bit() {
        let triples = [
            (235, 128, 128),
            (0, 255, 0),
            (81, 90, 240),
            (145, 54, 34),
            (41, 240, 110),
            (255, 1, 254),
            (126, 131, 119),
            (60, 77, 201),
        ];
        #[rustfmt::skip] // one row each
        let expected = [
            (ColorMatrix::Bt601, false, [[255, 255, 255], [0, 35, 237], [253, 0, 0], [0, 254, 0], [0, 0, 254], [255, 224, 21], [113, 133, 134], [167, 10, 0]]),
            (ColorMatrix::Bt601, true, [[235, 235, 235], [0, 47, 225], [238, 14, 13], [13, 237, 13], [15, 14, 239], [255, 208, 29], [113, 130, 131], [162, 24, 0]]),
            (ColorMatrix::Bt709, false, [[255, 255, 255], [0, 21, 249], [255, 23, 0], [0, 215, 0], [0, 14, 255], [255, 237, 9], [111, 131, 134], [181, 22, 0]]),
            (ColorMatrix::Bt709, true, [[235, 235, 235], [0, 35, 235], [255, 35, 10], [0, 202, 7], [12, 28, 248], [255, 219, 19], [111, 129, 131], [174, 34, 0]]),
            (ColorMatrix::Bt2020, false, [[255, 255, 255], [0, 40, 252], [255, 9, 0], [0, 224, 0], [0, 19, 255], [255, 219, 6], [112, 132, 134], [173, 12, 0]]),
            (ColorMatrix::Bt2020, true, [[235, 235, 235], [0, 52, 238], [246, 23, 9], [6, 210, 5], [14, 32, 251], [255, 203, 16], [112, 130, 131], [167, 26, 0]]),
            (ColorMatrix::Smpte240, false, [[255, 255, 255], [0, 17, 244], [255, 23, 0], [0, 220, 0], [0, 9, 255], [255, 241, 14], [111, 131, 134], [181, 24, 0]]),
            (ColorMatrix::Smpte240, true, [[235, 235, 235], [0, 32, 231], [255, 35, 11], [0, 205, 9], [12, 23, 245], [255, 222, 23], [111, 129, 131], [175, 36, 0]]),
            (ColorMatrix::Fcc, false, [[255, 255, 255], [0, 36, 238], [253, 0, 0], [0, 253, 0], [0, 0, 255], [255, 222, 20], [113, 133, 134], [167, 10, 0]]),
            (ColorMatrix::Fcc, true, [[235, 235, 235], [0, 48, 226], [237, 13, 13], [13, 235, 13], [15, 15, 240], [255, 207, 28], [113, 131, 131], [162, 24, 0]]),
        ];
        for (matrix, full_range, rgb) in expected {
            for ((y, u, v), rgb) in triples.into_iter().zip(rgb) {
                let mut f = frame(1, 2, vec![y; 2], u, v);
                f.color = ColorSpace { matrix, full_range };
                assert_eq!(f.rgb(), [rgb, rgb].concat(), "{matrix:?} {full_range} {y} {u} {v}");
            }
        }
    }

    #[test]
    fn pictures_with_whole_chroma_are_rounded() {
        for (y, u, v) in [(81, 90, 240), (145, 54, 34), (41, 240, 110), (126, 131, 119), (60, 77, 201)] {
            let mut f = frame(1, 1, vec![y], u, v);
            f.chroma_shift = (0, 0);
            let [y, u, v] = [f64::from(y) - 16.0, f64::from(u) - 128.0, f64::from(v) - 128.0];
            let (luma, chroma) = (255.0 / 219.0 * y, 255.0 / 224.0);
            let exact =
                [luma + 1.402 * chroma * v, luma - (0.344_136 * u + 0.714_136 * v) * chroma, luma + 1.772 * chroma * u];
            for (got, exact) in f.rgb().into_iter().zip(exact) {
                assert!((f64::from(got) - exact.clamp(0.0, 255.0)).abs() < 0.51, "{got} {exact}");
            }
        }
    }

    #[test]
    fn rows_are_those_of_the_whole_picture() {
        for chroma_shift in [(1, 1), (1, 0), (0, 0), (2, 0)] {
            for (matrix, turns, mirrored) in [
                (ColorMatrix::Bt709, 0, false),
                (ColorMatrix::Rgb, 0, false),
                (ColorMatrix::Bt601, 1, false),
                (ColorMatrix::Bt2020, 3, true),
            ] {
                let chroma_shift = if matrix == ColorMatrix::Rgb { (0, 0) } else { chroma_shift };
                let mut f = frame(7, 5, (0..35).map(|i| 16 + 6 * i).collect(), 0, 0);
                f.chroma_shift = chroma_shift;
                let chroma = f.chroma_width() * f.chroma_height();
                (f.u, f.v) = ((0..chroma).map(|i| (90 + 5 * i) as u8).collect(), vec![150; chroma]);
                f.color.matrix = matrix;
                f.orientation = Orientation { quarter_turns: turns, mirrored };
                let (whole, width) = (f.rgb(), f.display_width());
                for y in 0..f.display_height() {
                    for left in 0..width {
                        for pixels in 0..=width - left {
                            let mut row = vec![9; 3 * pixels];
                            f.rgb_row(y, left, &mut row);
                            assert_eq!(
                                row,
                                whole[(y * width + left) * 3..][..3 * pixels],
                                "{matrix:?} {y} {left} {pixels}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn quarter_turns_move_the_top_left_corner_clockwise() {
        let corner = |quarter_turns, mirrored| {
            let mut y = vec![16; 6];
            y[0] = 235;
            let mut f = frame(3, 2, y, 128, 128);
            f.orientation = Orientation { quarter_turns, mirrored };
            let (w, rgb) = (f.display_width(), f.rgb());
            let at = rgb.chunks(3).position(|p| p[0] == 255).unwrap();
            (at % w, at / w)
        };
        assert_eq!(corner(0, false), (0, 0));
        assert_eq!(corner(1, false), (1, 0));
        assert_eq!(corner(2, false), (2, 1));
        assert_eq!(corner(3, false), (0, 2));
        assert_eq!(corner(0, true), (2, 0));
    }
}
