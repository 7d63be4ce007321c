//! The operations of RandAugment and AutoAugment on RGB bytes, with Pillow's arithmetic.
//!
//! Luma is Pillow's (ITU-R 601 in 16 bits); enhancements blend in f32 and truncate. An operation's argument is the same for
//! all frames, but AutoContrast, Equalize and Contrast use the statistics of each frame.

use super::affine;

/// An operation without its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum OpKind {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

/// An operation with its argument.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op {
    /// Stretches each channel to 0..=255.
    AutoContrast,
    /// Flattens the histogram of each channel.
    Equalize,
    /// 255 - x.
    Invert,
    /// Counter-clockwise, in degrees.
    Rotate(f64),
    /// Keeps this many of the high bits; 0 gives black.
    Posterize(u32),
    /// Inverts values from this threshold on; 256 inverts none.
    Solarize(u32),
    /// Adds this to values below 128.
    SolarizeAdd(u32),
    /// Saturation: blend with luma.
    Color(f64),
    /// Blend with the frame's mean luma.
    Contrast(f64),
    /// Blend with black.
    Brightness(f64),
    /// Blend with the smoothed frame.
    Sharpness(f64),
    /// Columns per row.
    ShearX(f64),
    /// Rows per column.
    ShearY(f64),
    /// Share of the width.
    TranslateX(f64),
    /// Share of the height.
    TranslateY(f64),
}

/// Frames of a clip, all of one size, with room for operations that cannot work in place.
pub(super) struct Canvas<'a> {
    pub frames: &'a mut [Vec<u8>],
    pub height: usize,
    pub width: usize,
    /// What rotated, sheared and moved frames leave bare.
    pub fill: [u8; 3],
    pub spare: Vec<Vec<u8>>,
}

impl Op {
    /// Changes every frame. Frames are known to have `height * width * 3` bytes.
    pub(super) fn apply(self, canvas: &mut Canvas<'_>) {
        let (width, height) = (canvas.width as f64, canvas.height as f64);
        match self {
            Self::AutoContrast => canvas.each(|frame| look_up(frame, &histograms(frame).map(|h| auto_contrast(&h)))),
            Self::Equalize => canvas.each(|frame| look_up(frame, &histograms(frame).map(|h| equalize(&h)))),
            Self::Invert => canvas.each(|frame| frame.iter_mut().for_each(|x| *x = !*x)),
            Self::Posterize(bits) => {
                let mask = !(0xFFu32 >> bits.min(8)) as u8;
                canvas.each(|frame| frame.iter_mut().for_each(|x| *x &= mask));
            }
            Self::Solarize(threshold) => {
                if let Ok(threshold) = u8::try_from(threshold) {
                    canvas.each(|frame| frame.iter_mut().for_each(|x| *x = if *x < threshold { *x } else { !*x }));
                }
            }
            Self::SolarizeAdd(add) => {
                let add = add.min(255) as u8;
                let rule = |x: &mut u8| *x = if *x < 128 { x.saturating_add(add) } else { *x };
                canvas.each(|frame| frame.iter_mut().for_each(rule));
            }
            Self::Color(factor) => canvas.each(|frame| color(frame, factor as f32)),
            Self::Contrast(factor) => canvas.each(|frame| {
                let mean = mean_luma(frame);
                let table = blend_table(mean, factor as f32);
                frame.iter_mut().for_each(|x| *x = table[usize::from(*x)]);
            }),
            Self::Brightness(factor) => {
                let table = blend_table(0, factor as f32);
                canvas.each(|frame| frame.iter_mut().for_each(|x| *x = table[usize::from(*x)]));
            }
            Self::Sharpness(factor) => {
                let row = canvas.width * 3;
                canvas.exchange(|frame, out| sharpness(frame, out, row, factor as f32));
            }
            Self::Rotate(degrees) => affine::rotate(canvas, degrees),
            Self::ShearX(factor) => affine::transform(canvas, [1.0, factor, 0.0, 0.0, 1.0, 0.0]),
            Self::ShearY(factor) => affine::transform(canvas, [1.0, 0.0, 0.0, factor, 1.0, 0.0]),
            Self::TranslateX(share) => affine::transform(canvas, [1.0, 0.0, share * width, 0.0, 1.0, 0.0]),
            Self::TranslateY(share) => affine::transform(canvas, [1.0, 0.0, 0.0, 0.0, 1.0, share * height]),
        }
    }
}

impl Canvas<'_> {
    fn each(&mut self, rule: impl Fn(&mut [u8])) {
        self.frames.iter_mut().for_each(|frame| rule(frame));
    }

    /// Frames to write results into, as many as there are and as long.
    pub fn spare(&mut self) -> &mut [Vec<u8>] {
        let bytes = self.height * self.width * 3;
        self.spare.resize_with(self.frames.len(), Vec::new);
        self.spare.iter_mut().for_each(|frame| frame.resize(bytes, 0));
        &mut self.spare
    }

    /// Makes the spare frames the frames.
    pub fn swap(&mut self) {
        self.frames.iter_mut().zip(&mut self.spare).for_each(|(frame, spare)| std::mem::swap(frame, spare));
    }

    fn exchange(&mut self, rule: impl Fn(&[u8], &mut [u8])) {
        self.spare();
        self.frames.iter().zip(&mut self.spare).for_each(|(frame, out)| rule(frame, out));
        self.swap();
    }
}

type Table = [u8; 256];

/// How often each value occurs in each channel.
fn histograms(frame: &[u8]) -> [[u32; 256]; 3] {
    let mut counts = [[0u32; 256]; 3];
    for pixel in frame.chunks_exact(3) {
        for (channel, &value) in counts.iter_mut().zip(pixel) {
            channel[usize::from(value)] += 1;
        }
    }
    counts
}

fn look_up(frame: &mut [u8], tables: &[Table; 3]) {
    for pixel in frame.chunks_exact_mut(3) {
        for (value, table) in pixel.iter_mut().zip(tables) {
            *value = table[usize::from(*value)];
        }
    }
}

fn identity() -> Table {
    std::array::from_fn(|value| value as u8)
}

/// `ImageOps.autocontrast` without a cutoff.
fn auto_contrast(counts: &[u32; 256]) -> Table {
    let lo = counts.iter().position(|&n| n > 0);
    let hi = counts.iter().rposition(|&n| n > 0);
    match (lo, hi) {
        (Some(lo), Some(hi)) if hi > lo => {
            let scale = 255.0 / (hi - lo) as f64;
            let offset = -(lo as f64) * scale;
            std::array::from_fn(|value| (value as f64 * scale + offset) as u8)
        }
        _ => identity(),
    }
}

/// `ImageOps.equalize`.
fn equalize(counts: &[u32; 256]) -> Table {
    let last = counts.iter().rev().find(|&&n| n > 0).copied().unwrap_or(0);
    let step = (counts.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return identity();
    }
    let mut sum = step / 2;
    counts.map(|n| {
        let value = (sum / step).min(255) as u8;
        sum += n;
        value
    })
}

#[inline]
fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [0, 1, 2].map(|c| u32::from(pixel[c]));
    ((19_595 * r + 38_470 * g + 7_471 * b + 32_768) >> 16) as u8
}

fn mean_luma(frame: &[u8]) -> u8 {
    let sum: u64 = frame.chunks_exact(3).map(|pixel| u64::from(luma(pixel))).sum();
    let pixels = frame.len() / 3;
    (sum as f64 / pixels as f64 + 0.5) as u8
}

/// `Image.blend(from, to, factor)` of one value: in f32, truncated.
#[inline]
fn blend(from: u8, to: u8, factor: f32) -> u8 {
    let value = f32::from(from) + factor * (f32::from(to) - f32::from(from));
    value.clamp(0.0, 255.0) as i32 as u8
}

fn blend_table(from: u8, factor: f32) -> Table {
    std::array::from_fn(|value| blend(from, value as u8, factor))
}

fn color(frame: &mut [u8], factor: f32) {
    // Luma first, repeated for the channels, so that blending is one loop over bytes.
    let mut greys = [0u8; 192];
    for block in frame.chunks_mut(greys.len()) {
        for (grey, pixel) in greys.chunks_exact_mut(3).zip(block.chunks_exact(3)) {
            grey.fill(luma(pixel));
        }
        block.iter_mut().zip(&greys).for_each(|(value, grey)| *value = blend(*grey, *value, factor));
    }
}

/// Blends each inner pixel with the 3x3 mean of weight 5 in the centre and 1 around it; `row` is the bytes of a row.
fn sharpness(frame: &[u8], out: &mut [u8], row: usize, factor: f32) {
    out.copy_from_slice(frame);
    if row < 9 {
        return;
    }
    let inner = row - 6;
    let mut sums = vec![0u16; inner];
    for (rows, target) in frame.windows(3 * row).step_by(row).zip(out.chunks_exact_mut(row).skip(1)) {
        sums.fill(0);
        for start in [0, row, 2 * row] {
            for shift in [0, 3, 6] {
                let values = &rows[start + shift..][..inner];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += u16::from(*value));
            }
        }
        let centre = &rows[row + 3..][..inner];
        for ((value, sum), centre) in target[3..][..inner].iter_mut().zip(&sums).zip(centre) {
            // Rounded to nearest; thirteenths have no halves.
            let smooth = (2 * (sum + 4 * u16::from(*centre)) + 13) / 26;
            *value = blend(smooth as u8, *centre, factor);
        }
    }
}
