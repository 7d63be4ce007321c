//! Pillow's affine transform with bicubic interpolation (`Geometry.c`), bit for bit.
//!
//! Results are truncated, so the arithmetic has to be Pillow's to the last bit: f64, in its order, with its cubic of a = -1
//! (resizing has another, of -1/2). Where the source moves along one axis only, the other axis' cubic is an exact copy and
//! is left out. Positions are the same for all frames and are computed once.

use super::ops::Canvas;

/// Where one output pixel reads along one axis: `first` is the left one of the two middle taps, `between` the way to the next.
#[derive(Clone, Copy, Default)]
struct Tap {
    first: isize,
    between: f64,
}

impl Tap {
    /// The tap for a source coordinate; none outside `[0, len)`.
    fn at(source: f64, len: usize) -> Option<Self> {
        if !(0.0..len as f64).contains(&source) {
            return None;
        }
        let source = source - 0.5;
        let floor = source.floor();
        Some(Self { first: floor as isize, between: source - floor })
    }

    /// The four taps, clamped to the line.
    fn taps(self, len: usize) -> [usize; 4] {
        let last = len as isize - 1;
        [-1, 0, 1, 2].map(|step| (self.first + step).clamp(0, last) as usize)
    }

    /// True if no tap needs clamping.
    fn inner(self, len: usize) -> bool {
        self.first >= 1 && self.first + 2 < len as isize
    }
}

/// Both taps of an output pixel.
#[derive(Clone, Copy)]
struct Pixel {
    x: Tap,
    y: Tap,
}

/// Which of the axes need interpolation.
#[derive(Clone, Copy, PartialEq)]
enum Axes {
    Horizontal,
    Vertical,
    Both,
}

/// `Image.rotate(degrees, BICUBIC)` about the centre.
pub(super) fn rotate(canvas: &mut Canvas<'_>, degrees: f64) {
    let (w, h) = (canvas.width as f64, canvas.height as f64);
    let degrees = degrees.rem_euclid(360.0);
    if degrees == 0.0 {
        return;
    }
    let angle = -(degrees * (std::f64::consts::PI / 180.0));
    let (a, b) = (round15(angle.cos()), round15(angle.sin()));
    let (d, e) = (round15(-angle.sin()), round15(angle.cos()));
    let (x, y) = (-w / 2.0, -h / 2.0);
    let c = a * x + b * y + 0.0 + w / 2.0;
    let f = d * x + e * y + 0.0 + h / 2.0;
    transform(canvas, [a, b, c, d, e, f]);
}

/// Python's `round(x, 15)`.
fn round15(x: f64) -> f64 {
    // Formatting rounds the exact decimal expansion, as Python does; the text of a finite number always parses.
    format!("{x:.15}").parse().unwrap_or(x)
}

/// `Image.transform(size, AFFINE, matrix, BICUBIC)`: output (x, y) reads the source at (ax + by + c, dx + ey + f).
pub(super) fn transform(canvas: &mut Canvas<'_>, [a, b, c, d, e, f]: [f64; 6]) {
    let (height, width, fill) = (canvas.height, canvas.width, canvas.fill);
    let axes = match (a, b, c, d, e, f) {
        (_, _, _, 0.0, 1.0, 0.0) => Axes::Horizontal,
        (1.0, 0.0, 0.0, _, _, _) => Axes::Vertical,
        _ => Axes::Both,
    };
    let mut row =
        Row { axes, height, width, pixels: Vec::with_capacity(width), betweens: Vec::with_capacity(width * 3) };
    canvas.spare();
    for y in 0..height {
        let yin = y as f64 + 0.5;
        let pixel = |x: usize| {
            let xin = x as f64 + 0.5;
            let (source_x, source_y) = (a * xin + b * yin + c, d * xin + e * yin + f);
            Some(Pixel { x: Tap::at(source_x, width)?, y: Tap::at(source_y, height)? })
        };
        row.pixels.clear();
        row.pixels.extend((0..width).map(pixel));
        row.spread();
        for (source, target) in canvas.frames.iter().zip(&mut canvas.spare) {
            row.write(source, &mut target[y * width * 3..][..width * 3], fill);
        }
    }
    canvas.swap();
}

/// One row of output pixels.
struct Row {
    axes: Axes,
    height: usize,
    width: usize,
    /// None for pixels that read outside the frame.
    pixels: Vec<Option<Pixel>>,
    /// The way between the middle taps of the moving axis, for each channel of each pixel.
    betweens: Vec<f64>,
}

impl Row {
    fn spread(&mut self) {
        let axes = self.axes;
        self.betweens.clear();
        self.betweens.extend(self.pixels.iter().flat_map(|pixel| {
            let between = pixel.map_or(0.0, |p| if axes == Axes::Vertical { p.y.between } else { p.x.between });
            [between; 3]
        }));
    }

    fn write(&self, source: &[u8], target: &mut [u8], fill: [u8; 3]) {
        let mut x = 0;
        while let Some(pixel) = self.pixels.get(x) {
            let run = match pixel {
                Some(pixel) => self.run(x, *pixel),
                None => 0,
            };
            let values = &mut target[x * 3..];
            match pixel {
                None => values[..3].copy_from_slice(&fill),
                Some(pixel) if run > 0 => self.write_run(source, &mut values[..run * 3], x, *pixel),
                Some(pixel) => {
                    let quick = if self.axes == Axes::Both { self.inner(source, *pixel) } else { None };
                    values[..3].copy_from_slice(&quick.unwrap_or_else(|| self.single(source, *pixel)));
                }
            }
            x += run.max(1);
        }
    }

    /// How many pixels from `x` on read the same rows, of columns that follow one another, none at the border.
    fn run(&self, x: usize, start: Pixel) -> usize {
        let inner = |p: Pixel| match self.axes {
            Axes::Horizontal => p.x.inner(self.width),
            Axes::Vertical => p.y.inner(self.height),
            Axes::Both => false,
        };
        if !inner(start) {
            return 0;
        }
        let follows = |(step, pixel): &(usize, &Option<Pixel>)| {
            pixel.is_some_and(|p| p.y.first == start.y.first && p.x.first == start.x.first + *step as isize && inner(p))
        };
        self.pixels.iter().skip(x).enumerate().take_while(follows).count()
    }

    /// A run along one axis: the four taps are four slices of the frame.
    fn write_run(&self, source: &[u8], target: &mut [u8], x: usize, start: Pixel) {
        let len = target.len();
        let row = self.width * 3;
        // Not negative: the run lies inside.
        let middle = start.y.first as usize * row + start.x.first as usize * 3;
        let step = if self.axes == Axes::Horizontal { 3 } else { row };
        let tap = |n: usize| &source[middle + n * step - step..][..len];
        let (first, second, third, fourth) = (tap(0), tap(1), tap(2), tap(3));
        let betweens = &self.betweens[x * 3..][..len];
        for (i, value) in target.iter_mut().enumerate() {
            *value = cubic_of_bytes([first[i], second[i], third[i], fourth[i]], betweens[i]);
        }
    }

    /// A pixel of both axes away from the border; none at it. The three channels and a fourth value that is not used are four
    /// lanes of the same arithmetic.
    #[inline(always)]
    fn inner(&self, source: &[u8], Pixel { x, y }: Pixel) -> Option<[u8; 3]> {
        if !x.inner(self.width) || !y.inner(self.height) {
            return None;
        }
        let row = self.width * 3;
        let start = (y.first - 1) as usize * row + (x.first - 1) as usize * 3;
        let line = |n: usize| -> Option<[f64; 4]> {
            let bytes: &[u8; 13] = source.get(start + n * row..)?.first_chunk()?;
            let tap = |k: usize| [bytes[3 * k], bytes[3 * k + 1], bytes[3 * k + 2], bytes[3 * k + 3]].map(i32::from);
            let (v1, v2, v3, v4) = (tap(0), tap(1), tap(2), tap(3));
            let p2 = lanes(|c| f64::from(v3[c] - v1[c]));
            let p3 = lanes(|c| f64::from(2 * (v1[c] - v2[c]) + v3[c] - v4[c]));
            let p4 = lanes(|c| f64::from(v2[c] - v1[c] + v4[c] - v3[c]));
            Some(lanes(|c| f64::from(v2[c]) + x.between * (p2[c] + x.between * (p3[c] + x.between * p4[c]))))
        };
        let (v1, v2, v3, v4) = (line(0)?, line(1)?, line(2)?, line(3)?);
        let values = lanes(|c| cubic([v1[c], v2[c], v3[c], v4[c]], y.between));
        let [r, g, b, _] = values.map(to_byte);
        Some([r, g, b])
    }

    fn single(&self, source: &[u8], pixel: Pixel) -> [u8; 3] {
        let (columns, rows) = (pixel.x.taps(self.width), pixel.y.taps(self.height));
        let at = |row: usize, column: usize, c: usize| source[(row * self.width + column) * 3 + c];
        let line = |row: usize, c: usize| columns.map(|column| at(row, column, c));
        [0, 1, 2].map(|c| match self.axes {
            Axes::Horizontal => cubic_of_bytes(line(rows[1], c), pixel.x.between),
            Axes::Vertical => cubic_of_bytes(rows.map(|row| at(row, columns[1], c)), pixel.y.between),
            Axes::Both => {
                let lines = rows.map(|row| cubic(line(row, c).map(f64::from), pixel.x.between));
                to_byte(cubic(lines, pixel.y.between))
            }
        })
    }
}

#[inline(always)]
fn lanes(value: impl Fn(usize) -> f64) -> [f64; 4] {
    [value(0), value(1), value(2), value(3)]
}

/// Pillow's cubic of a = -1 through four values, at `between` from the second to the third.
#[inline(always)]
fn cubic([v1, v2, v3, v4]: [f64; 4], between: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + between * (p2 + between * (p3 + between * p4))
}

/// [`cubic`] of bytes; their differences are exact as integers, too.
#[inline(always)]
fn cubic_of_bytes(values: [u8; 4], between: f64) -> u8 {
    let [v1, v2, v3, v4] = values.map(i32::from);
    let (p2, p3, p4) = (v3 - v1, 2 * (v1 - v2) + v3 - v4, v2 - v1 + v4 - v3);
    to_byte(f64::from(v2) + between * (f64::from(p2) + between * (f64::from(p3) + between * f64::from(p4))))
}

/// Truncated, clipped.
#[inline(always)]
fn to_byte(value: f64) -> u8 {
    value.clamp(0.0, 255.0) as i32 as u8
}
