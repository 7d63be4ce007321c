//! Line charts side by side: the loss beside the diagnostics that tell whether it means anything.

use super::canvas::{Canvas, Rgb, ink};

/// A line.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Name in the legend; empty for none.
    pub name: String,
    /// Points, by ascending x; values that are not finite interrupt the line.
    pub points: Vec<(f64, f64)>,
}

/// One pair of axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What is drawn.
    pub title: String,
    /// What to look for, a line below the title.
    pub note: String,
    /// The lines.
    pub series: Vec<Series>,
}

impl Panel {
    /// A panel of one line.
    pub fn single(title: &str, note: &str, points: Vec<(f64, f64)>) -> Self {
        Self { title: title.into(), note: note.into(), series: vec![Series { name: String::new(), points }] }
    }
}

/// Panels under a title, two a row, all over the same x.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Title of the whole.
    pub title: String,
    /// Name of the x axis.
    pub x_label: String,
    /// The panels.
    pub panels: Vec<Panel>,
}

const COLOURS: [Rgb; 4] = [ink::BLUE, ink::ORANGE, ink::GREEN, ink::PURPLE];
const PANEL: (usize, usize) = (620, 380);
const HEAD: usize = 64;
/// Space around the axes: left, top, right, bottom.
const MARGIN: [usize; 4] = [86, 66, 30, 54];

impl Chart {
    /// Draws it.
    pub fn draw(&self) -> Canvas {
        let columns = self.panels.len().clamp(1, 2);
        let rows = self.panels.len().div_ceil(columns).max(1);
        let mut canvas = Canvas::new(columns * PANEL.0 + 24, HEAD + rows * PANEL.1 + 12);
        canvas.text(36, 26, &self.title, 3, ink::DARK);
        let x = range(self.panels.iter().flat_map(|panel| &panel.series).flat_map(|s| s.points.iter().map(|p| p.0)));
        for (place, panel) in self.panels.iter().enumerate() {
            let corner = (12 + place % columns * PANEL.0, HEAD + place / columns * PANEL.1);
            panel.draw(&mut canvas, corner, x, &self.x_label);
        }
        canvas
    }
}

impl Panel {
    fn draw(&self, canvas: &mut Canvas, corner: (usize, usize), x: (f64, f64), x_label: &str) {
        let [left, top, right, bottom] = MARGIN;
        let (x0, y0) = (corner.0 + left, corner.1 + top);
        let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
        canvas.text(corner.0 + 24, corner.1 + 14, &self.title, 2, ink::DARK);
        canvas.text(corner.0 + 24, corner.1 + 38, &self.note, 1, ink::MUTED);
        let values = self.series.iter().flat_map(|s| s.points.iter().map(|p| p.1));
        let y = padded(range(values));
        let at = |(px, py): (f64, f64)| {
            let share = |value: f64, (low, high): (f64, f64)| ((value - low) / (high - low)) as f32;
            (x0 as f32 + share(px, x) * width as f32, (y0 + height) as f32 - share(py, y) * height as f32)
        };
        for tick in ticks(y, 5) {
            let line = at((x.0, tick)).1;
            canvas.fill(x0, line as usize, width, 1, ink::FAINT);
            let label = number(tick, y);
            let label_x = x0.saturating_sub(12 + Canvas::text_width(&label, 2));
            canvas.text(label_x, (line as usize).saturating_sub(6), &label, 2, ink::MUTED);
        }
        for tick in ticks(x, 5) {
            let column = at((tick, y.0)).0 as usize;
            canvas.fill(column, y0 + height, 1, 6, ink::MUTED);
            let label = number(tick, x);
            let label_x = column.saturating_sub(Canvas::text_width(&label, 2) / 2);
            canvas.text(label_x, y0 + height + 12, &label, 2, ink::MUTED);
        }
        canvas.fill(x0, y0 + height, width, 1, ink::MUTED);
        let label_x = x0 + width - Canvas::text_width(x_label, 1);
        canvas.text(label_x, y0 + height + 36, x_label, 1, ink::MUTED);
        let mut legend = x0 + width;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            for pair in series.points.windows(2) {
                let finite = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
                if let [from, to] = pair
                    && finite(from)
                    && finite(to)
                {
                    canvas.line(at(*from), at(*to), 2.4, colour);
                }
            }
            // Where points are few, each is shown.
            for point in
                series.points.iter().filter(|p| series.points.len() <= 24 && p.0.is_finite() && p.1.is_finite())
            {
                canvas.line(at(*point), at(*point), 7.0, colour);
            }
            if !series.name.is_empty() {
                legend = legend.saturating_sub(Canvas::text_width(&series.name, 1) + 26);
                canvas.fill(legend, corner.1 + 40, 12, 3, colour);
                canvas.text(legend + 16, corner.1 + 38, &series.name, 1, ink::MUTED);
            }
        }
    }
}

/// Least and largest of the finite values; a range of width 1 where there is none.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        width if width > 0.0 && width.is_finite() => (low, high),
        _ if low.is_finite() => (low - 0.5, low + 0.5),
        _ => (0.0, 1.0),
    }
}

/// A little room above and below; a range that begins near 0 begins at 0.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let room = 0.06 * (high - low);
    let bottom = if low >= 0.0 && low < 0.35 * high { 0.0 } else { low - room };
    (bottom, high + room)
}

/// About `count` round numbers within a range.
fn ticks((low, high): (f64, f64), count: usize) -> Vec<f64> {
    let step = round_step((high - low) / count.max(1) as f64);
    let first = (low / step).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    (first..=last.min(first + 100)).map(|i| i as f64 * step).collect()
}

/// 1, 2 or 5 times a power of ten, at least `rough`.
fn round_step(rough: f64) -> f64 {
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * 0.999).unwrap_or(10.0);
    factor * power
}

/// A tick's number, with as many decimals as the range needs.
fn number(value: f64, (low, high): (f64, f64)) -> String {
    let step = round_step((high - low) / 5.0);
    let decimals = (-step.log10().floor()).clamp(0.0, 6.0) as usize;
    // No minus before a zero.
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_ticks() {
        assert_eq!(ticks((0.0, 750.0), 5), [0.0, 200.0, 400.0, 600.0]);
        assert_eq!(ticks((0.41, 0.59), 5).len(), 3);
        assert_eq!(number(0.45, (0.41, 0.59)), "0.45");
        assert_eq!(number(-0.0, (-1.0, 1.0)), "0.0");
        assert_eq!(range([f64::NAN, 3.0].into_iter()), (2.5, 3.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
    }

    #[test]
    fn charts_of_anything_can_be_drawn() {
        let odd = vec![(0.0, f64::NAN), (1.0, 2.0), (2.0, f64::INFINITY), (3.0, -1.0)];
        let panels = vec![
            Panel::single("odd", "", odd),
            Panel::single("empty", "note", vec![]),
            Panel::single("one", "", vec![(1.0, 1.0)]),
        ];
        let canvas = Chart { title: "t".into(), x_label: "step".into(), panels }.draw();
        assert!(canvas.width() > 1000 && canvas.height() > 700);
        let blue = (0..canvas.height()).flat_map(|y| (0..canvas.width()).map(move |x| (x, y)));
        assert!(blue.filter(|(x, y)| canvas.get(*x, *y) == ink::BLUE).count() > 20);
        assert_eq!(Chart { title: String::new(), x_label: String::new(), panels: vec![] }.draw().height(), 456);
    }
}
