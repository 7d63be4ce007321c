//! Pictures turned for display: their planes, or the RGB made of them.
//!
//! Phones write rotated streams. A row of the displayed picture is a column of such a picture as coded, and to convert it
//! costs many times what a row costs, so whoever reads rows turns the planes first.

use crate::frame::{ColorMatrix, Frame, Orientation};

/// Rows that are transposed together, for their bytes to stay in the first-level cache.
const STRIP: usize = 16;

impl Frame {
    /// The picture as it is displayed: of no orientation, with the pixels that this one shows, bit for bit.
    ///
    /// Planes whose chroma is not a whole number of samples are turned after their conversion, since the samples at the
    /// edge serve fewer pixels: what comes back then holds green, blue and red ([`ColorMatrix::Rgb`]).
    pub fn upright(self) -> Frame {
        let Frame { width, height, chroma_shift: (across, down), orientation, .. } = self;
        if orientation == Orientation::default() {
            return self;
        }
        let whole = |side: usize, shift: u8| subsampling(shift).is_some_and(|step| side.is_multiple_of(step));
        if !(whole(width, across) && whole(height, down)) {
            return self.upright_after_conversion();
        }
        let (chroma_width, chroma_height) = (self.chroma_width(), self.chroma_height());
        let (width, height) = (self.display_width(), self.display_height());
        Frame {
            y: orientation.turn(self.y, self.width, self.height),
            u: orientation.turn(self.u, chroma_width, chroma_height),
            v: orientation.turn(self.v, chroma_width, chroma_height),
            chroma_shift: if orientation.swaps_sides() { (down, across) } else { (across, down) },
            orientation: Orientation::default(),
            width,
            height,
            ..self
        }
    }

    fn upright_after_conversion(self) -> Frame {
        let (width, height, rgb) = (self.display_width(), self.display_height(), self.rgb());
        let plane = |channel: usize| rgb.iter().skip(channel).step_by(3).copied().collect();
        Frame {
            y: plane(1),
            u: plane(2),
            v: plane(0),
            chroma_shift: (0, 0),
            color: crate::ColorSpace { matrix: ColorMatrix::Rgb, ..self.color },
            orientation: Orientation::default(),
            width,
            height,
            ..self
        }
    }
}

/// Pixels that a chroma sample serves along one side, where that is a number at all.
fn subsampling(shift: u8) -> Option<usize> {
    1usize.checked_shl(shift.into())
}

impl Orientation {
    /// A picture of `width x height` pixels turned for display.
    pub(crate) fn turn<T: Copy + Default>(self, mut pixels: Vec<T>, width: usize, height: usize) -> Vec<T> {
        let mirror = |pixels: &mut [T], width: usize| {
            pixels.chunks_exact_mut(width.max(1)).for_each(<[T]>::reverse);
        };
        if self.mirrored {
            mirror(&mut pixels, width);
        }
        if self.swaps_sides() {
            pixels = transposed(&pixels, width, height);
            mirror(&mut pixels, height);
        }
        if self.quarter_turns % 4 >= 2 {
            pixels.reverse();
        }
        pixels
    }
}

/// Rows for columns.
fn transposed<T: Copy + Default>(pixels: &[T], width: usize, height: usize) -> Vec<T> {
    let mut out = vec![T::default(); width * height];
    if out.is_empty() {
        return out;
    }
    for (strip, rows) in pixels.chunks(width * STRIP).enumerate() {
        for (x, line) in out.chunks_exact_mut(height).enumerate() {
            let column = rows.iter().skip(x).step_by(width);
            line.iter_mut().skip(strip * STRIP).zip(column).for_each(|(to, from)| *to = *from);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ColorSpace;
    use proptest::prelude::*;

    /// A picture whose samples are all different as far as bytes allow.
    fn picture(width: usize, height: usize, chroma_shift: (u8, u8), orientation: Orientation) -> Frame {
        let color = ColorSpace { matrix: ColorMatrix::Bt709, full_range: false };
        let (y, u, v, index, time) = (vec![], vec![], vec![], 3, 0.5);
        let mut frame = Frame { width, height, y, u, v, chroma_shift, color, orientation, index, time };
        let plane = |len: usize, step: usize| (0..len).map(|i| (40 + i * step % 170) as u8).collect();
        frame.y = plane(width * height, 7);
        let chroma = frame.chroma_width() * frame.chroma_height();
        (frame.u, frame.v) = (plane(chroma, 11), plane(chroma, 13));
        frame
    }

    proptest! {
        /// Whatever the size, the subsampling and the orientation: the same pixels, whole and by rows.
        #[test]
        fn upright_pictures_show_the_same_pixels(
            width in 1usize..40, height in 1usize..40, shift in (0u8..3, 0u8..3), turns in 0u8..4, mirrored: bool,
        ) {
            let turned = picture(width, height, shift, Orientation { quarter_turns: turns, mirrored });
            let (shown, across, down) = (turned.rgb(), turned.display_width(), turned.display_height());
            let upright = turned.upright();
            prop_assert_eq!((upright.width, upright.height, upright.index), (across, down, 3));
            prop_assert_eq!(upright.orientation, Orientation::default());
            prop_assert_eq!(&upright.rgb(), &shown);
            for (y, expected) in shown.chunks_exact(3 * across).enumerate() {
                let mut row = vec![0; 3 * across];
                upright.rgb_row(y, 0, &mut row);
                prop_assert_eq!(&row, expected);
            }
        }
    }

    #[test]
    fn planes_of_phones_stay_planes() {
        let upright = picture(34, 18, (1, 1), Orientation { quarter_turns: 1, mirrored: false }).upright();
        assert_eq!((upright.chroma_shift, upright.color.matrix), ((1, 1), ColorMatrix::Bt709));
        assert_eq!((upright.chroma_width(), upright.chroma_height()), (9, 17));
    }
}
