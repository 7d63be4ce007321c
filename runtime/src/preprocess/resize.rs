//! A crop of a resized frame, in the fixed-point arithmetic of OpenCV's `INTER_LINEAR` of bytes.

use super::View;

/// Resizes frames of one size and crops them, without computing what the crop leaves out.
pub(super) struct ResizedCrop {
    /// Bytes of a source row.
    row_bytes: usize,
    rows: Vec<ByteTap>,
    columns: Vec<ByteTap>,
    upper: BlendedRow,
    lower: BlendedRow,
}

impl ResizedCrop {
    /// Frames of `(height, width)` pixels resized to cover `covered`, of which `view` takes `size`, both height and width; no
    /// side of `covered` is shorter than that of `size`.
    pub fn new((height, width): (usize, usize), covered: [usize; 2], size: [usize; 2], view: View) -> Self {
        let [tall, wide] = covered;
        // The side that is left over is truncated, as the official code does with the long one.
        let (tall, wide) = match width * tall < height * wide {
            true => (wide * height / width, wide),
            false => (tall, tall * width / height),
        };
        let (top, left) = corner((tall, wide), size, view);
        let [rows, columns] = size;
        Self {
            row_bytes: width * 3,
            rows: byte_taps(height, tall, top, rows),
            columns: byte_taps(width, wide, left, columns),
            upper: BlendedRow::default(),
            lower: BlendedRow::default(),
        }
    }

    /// Writes the crop of a frame into one plane per channel, each pixel in 0..=255 times the channel's gain plus its bias.
    pub fn frame(&mut self, frame: &[u8], affine: [(f32, f32); 3], planes: [&mut [f32]; 3]) {
        let Self { row_bytes, rows, columns, upper, lower } = self;
        let source = |index: usize| &frame[index * *row_bytes..][..*row_bytes];
        (upper.index, lower.index) = (None, None);
        let mut lines = planes.map(|plane| plane.chunks_exact_mut(columns.len().max(1)));
        for row in rows.iter() {
            // Going down, the lower row of one output row is often the upper one of the next.
            if upper.index != Some(row.first) {
                std::mem::swap(upper, lower);
            }
            upper.blend(row.first, source(row.first), columns);
            lower.blend(row.second, source(row.second), columns);
            let blended = upper.values.iter().zip(&lower.values);
            for ((lines, (gain, bias)), (above, below)) in lines.iter_mut().zip(affine).zip(blended) {
                for ((value, above), below) in lines.next().into_iter().flatten().zip(above).zip(below) {
                    *value = row.down(*above, *below) as f32 * gain + bias;
                }
            }
        }
    }
}

/// Top-left corner of a view in a resized frame, of which no side is shorter than the view's.
pub(super) fn corner((height, width): (usize, usize), [tall, wide]: [usize; 2], view: View) -> (usize, usize) {
    // What is left over along each side.
    let (below, beside) = (height.saturating_sub(tall), width.saturating_sub(wide));
    if view.count == 1 {
        // Python rounds a half to the even neighbour.
        let middle = |rest: usize| (rest as f64 / 2.0).round_ties_even() as usize;
        return (middle(below), middle(beside));
    }
    let start = below.max(beside) / view.count.saturating_sub(1).max(1) * view.index;
    if below > beside { (start, 0) } else { (0, start) }
}

/// A source row with its columns blended.
#[derive(Default)]
struct BlendedRow {
    /// Which row it is.
    index: Option<usize>,
    /// Each column of the red, green and blue plane, in 1/2048.
    values: [Vec<i32>; 3],
}

impl BlendedRow {
    /// Makes it row `index`, of these bytes, if it is another one.
    fn blend(&mut self, index: usize, source: &[u8], columns: &[ByteTap]) {
        if self.index == Some(index) {
            return;
        }
        self.index = Some(index);
        for (c, values) in self.values.iter_mut().enumerate() {
            values.clear();
            values.extend(columns.iter().map(|tap| tap.across(source[tap.first * 3 + c], source[tap.second * 3 + c])));
        }
    }
}

/// A byte pixel between two source pixels of a line; the weights are in 1/2048 (OpenCV `INTER_LINEAR` of bytes).
#[derive(Clone, Copy, Debug, PartialEq)]
struct ByteTap {
    /// The source pixel before it.
    first: usize,
    /// The source pixel after it; the same one at an edge.
    second: usize,
    weights: (i32, i32),
}

impl ByteTap {
    /// Between two pixels of a row, in 1/2048.
    fn across(&self, left: u8, right: u8) -> i32 {
        i32::from(left) * self.weights.0 + i32::from(right) * self.weights.1
    }

    /// Between two such values of neighbouring rows. OpenCV drops four bits before and sixteen after the product.
    fn down(&self, upper: i32, lower: i32) -> i32 {
        let part = |weight: i32, value: i32| (weight * (value >> 4)) >> 16;
        ((part(self.weights.0, upper) + part(self.weights.1, lower) + 2) >> 2).clamp(0, 255)
    }
}

/// Taps of the pixels `start..start + count` of a line of `len` pixels resized to `size`.
fn byte_taps(len: usize, size: usize, start: usize, count: usize) -> Vec<ByteTap> {
    let scale = len as f64 / size as f64;
    let last = len.saturating_sub(1);
    let tap = |target: usize| {
        let source = ((target as f64 + 0.5) * scale - 0.5) as f32;
        let floor = source.floor();
        let first = floor.max(0.0) as usize;
        let weight = if floor < 0.0 || first >= last { 0.0 } else { source - floor };
        let fixed = |weight: f32| (weight * 2048.0).round_ties_even() as i32;
        ByteTap { first: first.min(last), second: (first + 1).min(last), weights: (fixed(1.0 - weight), fixed(weight)) }
    };
    (start..start + count).map(tap).collect()
}
