//! YUV to RGB in integer arithmetic, one row at a time, with the orientation applied.
//!
//! Chroma is taken from the nearest sample, as libswscale's unscaled YUV to RGB path does. Coefficients carry 16
//! fractional bits and results are rounded, so each channel is within one code value of the exact conversion.

use crate::frame::{ColorSpace, Frame};

/// Fixed-point coefficients of one colour space, 16 fractional bits.
struct Coefficients {
    y: i32,
    y_offset: i32,
    r_v: i32,
    g_u: i32,
    g_v: i32,
    b_u: i32,
}

impl Coefficients {
    fn new(color: ColorSpace) -> Self {
        let (kr, kb) = color.matrix.kr_kb();
        let kg = 1.0 - kr - kb;
        // Limited range has 219 luma and 224 chroma steps for 255 of RGB.
        let (luma, chroma, y_offset) =
            if color.full_range { (1.0, 1.0, 0) } else { (255.0 / 219.0, 255.0 / 224.0, 16) };
        let fixed = |x: f64| (x * 65536.0).round() as i32;
        Coefficients {
            y: fixed(luma),
            y_offset,
            r_v: fixed(2.0 * (1.0 - kr) * chroma),
            g_u: fixed(-2.0 * (1.0 - kb) * kb / kg * chroma),
            g_v: fixed(-2.0 * (1.0 - kr) * kr / kg * chroma),
            b_u: fixed(2.0 * (1.0 - kb) * chroma),
        }
    }

    fn row(&self, y: &[u8], u: &[u8], v: &[u8], rgb: &mut [u8]) {
        let pairs = y.chunks(2).zip(u.iter().zip(v)).zip(rgb.chunks_mut(6));
        for ((luma, (&u, &v)), out) in pairs {
            let (u, v) = (i32::from(u) - 128, i32::from(v) - 128);
            let (r, g, b) = (self.r_v * v, self.g_u * u + self.g_v * v, self.b_u * u);
            for (&y, px) in luma.iter().zip(out.chunks_exact_mut(3)) {
                let base = (i32::from(y) - self.y_offset) * self.y + (1 << 15);
                for (c, value) in px.iter_mut().zip([base + r, base + g, base + b]) {
                    *c = (value >> 16).clamp(0, 255) as u8;
                }
            }
        }
    }
}

impl Frame {
    /// The picture as interleaved RGB bytes, `display_height x display_width x 3`, mirrored and rotated for display.
    pub fn rgb(&self) -> Vec<u8> {
        let upright = self.upright_rgb();
        if self.orientation == Default::default() { upright } else { self.turn(&upright) }
    }

    fn upright_rgb(&self) -> Vec<u8> {
        let coefficients = Coefficients::new(self.color);
        let mut rgb = vec![0u8; self.width * self.height * 3];
        if rgb.is_empty() {
            return rgb;
        }
        let chroma = self.chroma_width();
        let rows = self.y.chunks_exact(self.width).zip(rgb.chunks_exact_mut(self.width * 3)).enumerate();
        let (u_rows, v_rows) = (self.u.chunks_exact(chroma), self.v.chunks_exact(chroma));
        let chroma_rows: Vec<(&[u8], &[u8])> = u_rows.zip(v_rows).collect();
        for (row, (y, out)) in rows {
            if let Some((u, v)) = chroma_rows.get(row / 2) {
                coefficients.row(y, u, v, out);
            }
        }
        rgb
    }

    fn turn(&self, rgb: &[u8]) -> Vec<u8> {
        let (w, h) = (self.width, self.height);
        let (out_w, out_h) = (self.display_width(), self.display_height());
        let mut out = Vec::with_capacity(rgb.len());
        for row in 0..out_h {
            for col in 0..out_w {
                let (x, y) = match self.orientation.quarter_turns % 4 {
                    0 => (col, row),
                    1 => (row, h - 1 - col),
                    2 => (w - 1 - col, h - 1 - row),
                    _ => (w - 1 - row, col),
                };
                let x = if self.orientation.mirrored { w - 1 - x } else { x };
                let at = (y * w + x) * 3;
                out.extend_from_slice(rgb.get(at..at + 3).unwrap_or(&[0; 3]));
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{ColorMatrix, Orientation};

    fn frame(width: usize, height: usize, y: Vec<u8>, u: u8, v: u8) -> Frame {
        let chroma = width.div_ceil(2) * height.div_ceil(2);
        let (color, orientation) = Default::default();
        Frame { width, height, y, u: vec![u; chroma], v: vec![v; chroma], color, orientation, index: 0, time: 0.0 }
    }

    #[test]
    fn limited_range_spans_black_to_white() {
        assert_eq!(frame(3, 1, vec![16, 235, 126], 128, 128).rgb(), [0, 0, 0, 255, 255, 255, 128, 128, 128]);
        // Values beyond the nominal range clip.
        assert_eq!(frame(2, 1, vec![0, 255], 128, 128).rgb(), [0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn primaries_come_back_within_one_code_value() {
        for matrix in [ColorMatrix::Bt601, ColorMatrix::Bt709, ColorMatrix::Bt2020] {
            for full_range in [false, true] {
                for want in [[255u8, 0, 0], [0, 255, 0], [0, 0, 255], [12, 200, 77]] {
                    let (kr, kb) = matrix.kr_kb();
                    let [r, g, b] = want.map(f64::from);
                    let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
                    let (ys, cs, off) = if full_range { (1.0, 1.0, 0.0) } else { (219.0 / 255.0, 224.0 / 255.0, 16.0) };
                    let y = (luma * ys + off).round() as u8;
                    let u = ((b - luma) / (2.0 * (1.0 - kb)) * cs + 128.0).round().min(255.0) as u8;
                    let v = ((r - luma) / (2.0 * (1.0 - kr)) * cs + 128.0).round().min(255.0) as u8;
                    let mut f = frame(1, 1, vec![y], u, v);
                    f.color = ColorSpace { matrix, full_range };
                    for (got, want) in f.rgb().iter().zip(want) {
                        // Two code values: the 8-bit YUV triple itself was rounded.
                        assert!(got.abs_diff(want) <= 2, "{matrix:?} {full_range} {:?} {want:?}", f.rgb());
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
