//! Pictures as FFmpeg's encoders take them: of even size, in 4:2:0.

use std::ffi::c_int;

use super::sys::Encoder;
use crate::Film;

/// The bytes of an mp4 file.
pub(crate) fn write(film: &Film<'_>) -> Result<Vec<u8>, String> {
    let (width, height) = (film.width.next_multiple_of(2), film.height.next_multiple_of(2));
    let side = |pixels: usize| c_int::try_from(pixels).map_err(|_| format!("{pixels} pixels are too many"));
    let ticks = c_int::try_from(film.each.as_millis() / 10).unwrap_or(c_int::MAX).max(1);
    let mut encoder = Encoder::open(side(width)?, side(height)?, ticks)?;
    for picture in film.pictures {
        let [y, u, v] = planes(picture, film.width, [width, height]);
        encoder.add([&y, &u, &v])?;
    }
    encoder.finish()
}

/// BT.601, limited range; chroma is the mean of four pixels. What is beyond a picture's edge repeats it.
fn planes(rgb: &[u8], columns: usize, [width, height]: [usize; 2]) -> [Vec<u8>; 3] {
    let pixels = rgb.as_chunks::<3>().0;
    let rows = (pixels.len() / columns.max(1)).max(1);
    let at = |x: usize, y: usize| {
        let pixel = pixels.get(y.min(rows - 1) * columns + x.min(columns.saturating_sub(1)));
        pixel.copied().unwrap_or_default().map(f32::from)
    };
    let byte = |value: f32| value.round().clamp(0.0, 255.0) as u8;
    let luma = |[r, g, b]: [f32; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
    let places = |width: usize, height: usize| (0..height).flat_map(move |y| (0..width).map(move |x| (x, y)));
    let y = places(width, height).map(|(x, y)| byte(16.0 + luma(at(x, y)) * 219.0 / 255.0)).collect();
    let chroma = places(width / 2, height / 2).map(|(x, y)| {
        let four = [at(2 * x, 2 * y), at(2 * x + 1, 2 * y), at(2 * x, 2 * y + 1), at(2 * x + 1, 2 * y + 1)];
        let mean: [f32; 3] = std::array::from_fn(|c| four.iter().map(|pixel| pixel[c]).sum::<f32>() / 4.0);
        let [red, _, blue] = mean;
        let of = |colour: f32, share: f32| byte(128.0 + (colour - luma(mean)) * share * 224.0 / 255.0);
        (of(blue, 0.5 / (1.0 - 0.114)), of(red, 0.5 / (1.0 - 0.299)))
    });
    let (u, v) = chroma.unzip();
    [y, u, v]
}
