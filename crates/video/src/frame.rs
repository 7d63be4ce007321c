//! One decoded picture: 8-bit planes with their colour description and orientation.

/// The matrix that took RGB to YUV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum ColorMatrix {
    /// ITU-R BT.601 (also SMPTE 170M and BT.470BG). The default when a file does not say, as in libswscale.
    #[default]
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
    /// SMPTE 240M.
    Smpte240,
    /// US FCC 73.682.
    Fcc,
    /// No matrix: the planes `y`, `u` and `v` hold green, blue and red.
    Rgb,
}

impl ColorMatrix {
    /// From the `matrix_coefficients` code of ITU-T H.273, which H.264, Matroska and ISO-MP4 share.
    pub(crate) fn from_h273(code: u64) -> Self {
        match code {
            1 => ColorMatrix::Bt709,
            4 => ColorMatrix::Fcc,
            7 => ColorMatrix::Smpte240,
            9 | 10 => ColorMatrix::Bt2020,
            _ => ColorMatrix::Bt601,
        }
    }

    /// The luma weights of red and blue.
    pub(crate) fn kr_kb(self) -> (f64, f64) {
        match self {
            ColorMatrix::Bt601 => (0.299, 0.114),
            ColorMatrix::Bt709 => (0.2126, 0.0722),
            ColorMatrix::Bt2020 => (0.2627, 0.0593),
            ColorMatrix::Smpte240 => (0.212, 0.087),
            ColorMatrix::Fcc => (0.30, 0.11),
            // Not used: there is nothing to convert.
            ColorMatrix::Rgb => (0.0, 0.0),
        }
    }
}

/// How code values map to light: matrix and range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ColorSpace {
    /// The YUV matrix.
    pub matrix: ColorMatrix,
    /// True when luma uses 0..=255; false when it uses 16..=235 (the default).
    pub full_range: bool,
}

/// How a decoded picture is turned for display: mirrored first, then rotated clockwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Orientation {
    /// Clockwise quarter turns, 0..=3.
    pub quarter_turns: u8,
    /// Mirror left to right before rotating.
    pub mirrored: bool,
}

impl Orientation {
    /// From the `a b c d` terms of an ISO-MP4 track matrix; angles other than multiples of 90 degrees count as none.
    pub(crate) fn from_matrix(a: i32, b: i32, c: i32, d: i32) -> Self {
        let mirrored = (a as i64) * (d as i64) - (b as i64) * (c as i64) < 0;
        let flip = if mirrored { -1 } else { 1 };
        let quarter_turns = match (a.signum() * flip, b.signum() * flip) {
            (0, 1) => 1,
            (-1, 0) => 2,
            (0, -1) => 3,
            _ => 0,
        };
        Orientation { quarter_turns, mirrored }
    }

    /// True when width and height trade places.
    pub fn swaps_sides(&self) -> bool {
        self.quarter_turns % 2 == 1
    }
}

/// One decoded picture.
///
/// Planes hold bytes row by row without padding: `y` is `height x width`; `u` and `v` are
/// [`chroma_height`](Frame::chroma_height)` x `[`chroma_width`](Frame::chroma_width). They are as coded (of more than 8
/// bits the upper 8, rounded); [`rgb`](Frame::rgb) applies `orientation`.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Width of the luma plane in pixels, before rotation.
    pub width: usize,
    /// Height of the luma plane in pixels, before rotation.
    pub height: usize,
    /// Luma, `height x width` bytes.
    pub y: Vec<u8>,
    /// Blue difference, `chroma_height x chroma_width` bytes.
    pub u: Vec<u8>,
    /// Red difference, as `u`.
    pub v: Vec<u8>,
    /// How often the sides of the chroma planes are halved, across and down: `(1, 1)` is 4:2:0, `(1, 0)` 4:2:2, `(0, 0)`
    /// 4:4:4.
    pub chroma_shift: (u8, u8),
    /// Colour matrix and range.
    pub color: ColorSpace,
    /// How to turn the picture for display.
    pub orientation: Orientation,
    /// Index in presentation order.
    pub index: usize,
    /// Presentation time in seconds.
    pub time: f64,
}

impl Frame {
    /// Width of the chroma planes.
    pub fn chroma_width(&self) -> usize {
        subsampled(self.width, self.chroma_shift.0)
    }

    /// Height of the chroma planes.
    pub fn chroma_height(&self) -> usize {
        subsampled(self.height, self.chroma_shift.1)
    }

    /// Width of [`rgb`](Frame::rgb) in pixels, after rotation.
    pub fn display_width(&self) -> usize {
        if self.orientation.swaps_sides() { self.height } else { self.width }
    }

    /// Height of [`rgb`](Frame::rgb) in pixels, after rotation.
    pub fn display_height(&self) -> usize {
        if self.orientation.swaps_sides() { self.width } else { self.height }
    }
}

/// A side of a chroma plane.
pub(crate) fn subsampled(side: usize, shift: u8) -> usize {
    side.div_ceil(1 << shift.min(7))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_name_the_eight_orientations() {
        let one = 1 << 16;
        let o = Orientation::from_matrix;
        assert_eq!(o(one, 0, 0, one), Orientation::default());
        assert_eq!(o(0, one, -one, 0), Orientation { quarter_turns: 1, mirrored: false });
        assert_eq!(o(-one, 0, 0, -one), Orientation { quarter_turns: 2, mirrored: false });
        assert_eq!(o(0, -one, one, 0), Orientation { quarter_turns: 3, mirrored: false });
        assert_eq!(o(-one, 0, 0, one), Orientation { quarter_turns: 0, mirrored: true });
        assert_eq!(o(one, 0, 0, -one), Orientation { quarter_turns: 2, mirrored: true });
    }
}
