//! From a picture of any pixel format to 8-bit planes.

use super::sys::{Component, Decoded};
use crate::backend::{Picture, check_size};
use crate::error::Fault;
use crate::frame::{ColorMatrix, subsampled};

/// Copy the picture out of the decoder. Of more than 8 bits the upper 8 are kept, rounded.
pub(super) fn picture(decoded: &Decoded<'_>) -> Result<Picture, Fault> {
    let (width, height) = decoded.size();
    check_size(width, height)?;
    let layout = &decoded.layout;
    if layout.palette {
        return palette(decoded, width, height);
    }
    let (matrix, full_range) = color(decoded.color(), layout.rgb, &layout.name);
    let read = |component: Option<&Component>, shift: (u8, u8)| {
        let component = component.ok_or_else(|| missing(&layout.name))?;
        let (width, height) = (subsampled(width, shift.0), subsampled(height, shift.1));
        plane(decoded, component, width, height).ok_or_else(|| missing(&layout.name))
    };
    let component = |i: usize| layout.components.get(i);
    let (chroma_shift, y, u, v) = match (layout.components.len(), layout.rgb) {
        (1, _) => {
            let chroma = vec![128; subsampled(width, 1) * subsampled(height, 1)];
            ((1, 1), read(component(0), (0, 0))?, chroma.clone(), chroma)
        }
        (_, true) => {
            let whole = |i| read(component(i), (0, 0));
            ((0, 0), whole(1)?, whole(2)?, whole(0)?)
        }
        _ => {
            let shift = (layout.chroma_shift.0 as u8, layout.chroma_shift.1 as u8);
            (shift, read(component(0), (0, 0))?, read(component(1), shift)?, read(component(2), shift)?)
        }
    };
    Ok(Picture { width, height, y, u, v, chroma_shift, matrix, full_range, order: None })
}

fn missing(format: &str) -> Fault {
    Fault::Unsupported(format!("pictures in the pixel format {format}"))
}

/// Matrix and range, where they are signalled.
pub(super) fn color((matrix, range): (i32, i32), rgb: bool, format: &str) -> (Option<ColorMatrix>, Option<bool>) {
    let matrix = match matrix {
        _ if rgb => Some(ColorMatrix::Rgb),
        // RGB in a format that is not, "unspecified", reserved.
        0 | 2 | 3 => None,
        code => u64::try_from(code).ok().map(ColorMatrix::from_h273),
    };
    let range = match range {
        1 => Some(false),
        2 => Some(true),
        _ => (format.starts_with("yuvj") || format.starts_with("gray")).then_some(true),
    };
    (matrix, range)
}

fn plane(decoded: &Decoded<'_>, c: &Component, width: usize, height: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(width * height);
    let wide = c.shift + c.depth > 8;
    let bytes = c.offset + width.checked_sub(1)? * c.step + 1 + usize::from(wide);
    let big_endian = decoded.layout.big_endian;
    // In formats of whole 16-bit words an 8-bit field is the low byte, which comes second in big endian.
    let low = usize::from(big_endian && !wide && c.depth < 8);
    for y in 0..height {
        let row = decoded.row(c.plane, y, bytes + low)?;
        let samples = row.get(c.offset..)?;
        match (c.step, c.depth, wide) {
            (1, 8, false) => out.extend_from_slice(samples),
            (2, 9.., true) if !big_endian && c.shift == 0 => {
                let pairs = samples.chunks_exact(2).map(|s| match s {
                    [low, high] => narrow(u16::from_le_bytes([*low, *high]), c.depth),
                    _ => 0,
                });
                out.extend(pairs);
            }
            _ => {
                for sample in samples.chunks(c.step).take(width) {
                    let value = match (wide, sample) {
                        (true, [a, b, ..]) if big_endian => u16::from_be_bytes([*a, *b]),
                        (true, [a, b, ..]) => u16::from_le_bytes([*a, *b]),
                        (false, sample) => u16::from(*sample.get(low)?),
                        _ => return None,
                    };
                    let value = u32::from(value) >> c.shift & ((1 << c.depth) - 1);
                    out.push(narrow(value as u16, c.depth));
                }
            }
        }
    }
    (out.len() == width * height).then_some(out)
}

/// A value of `depth` bits as one of 8.
fn narrow(value: u16, depth: u32) -> u8 {
    let value = u32::from(value);
    match depth {
        8 => value as u8,
        9.. => ((value + (1 << (depth - 9))) >> (depth - 8)).min(255) as u8,
        0..8 => (value * 255 / ((1 << depth.max(1)) - 1)) as u8,
    }
}

fn palette(decoded: &Decoded<'_>, width: usize, height: usize) -> Result<Picture, Fault> {
    let colours = decoded.palette().ok_or_else(|| missing("pal8"))?;
    let (mut y, mut u, mut v) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..height {
        for &index in decoded.row(0, row, width).ok_or_else(|| missing("pal8"))? {
            let Some([blue, green, red, _]) = colours.get(4 * usize::from(index)..4 * usize::from(index) + 4) else {
                return Err(missing("pal8"));
            };
            y.push(*green);
            u.push(*blue);
            v.push(*red);
        }
    }
    let (matrix, full_range) = (Some(ColorMatrix::Rgb), Some(true));
    Ok(Picture { width, height, y, u, v, chroma_shift: (0, 0), matrix, full_range, order: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_other_depths_become_bytes() {
        assert_eq!([narrow(0, 10), narrow(64, 10), narrow(940, 10), narrow(1023, 10)], [0, 16, 235, 255]);
        assert_eq!([narrow(2, 10), narrow(1, 10), narrow(4095, 12), narrow(65535, 16)], [1, 0, 255, 255]);
        assert_eq!([narrow(31, 5), narrow(0, 5), narrow(200, 8), narrow(1, 1)], [255, 0, 200, 255]);
    }

    #[test]
    fn colours_that_are_not_signalled_stay_open() {
        assert_eq!(color((2, 0), false, "yuv420p"), (None, None));
        assert_eq!(color((1, 1), false, "yuv420p"), (Some(ColorMatrix::Bt709), Some(false)));
        assert_eq!(color((9, 2), false, "yuv420p10le"), (Some(ColorMatrix::Bt2020), Some(true)));
        assert_eq!(color((2, 0), false, "yuvj420p"), (None, Some(true)));
        assert_eq!(color((0, 0), true, "gbrp"), (Some(ColorMatrix::Rgb), None));
    }
}
