//! Line charts side by side: the loss next to the diagnostics that show whether it means anything.

mod svg;

use plotters::backend::DrawingBackend;
use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::prelude::{ChartBuilder, Circle, DrawingAreaErrorKind, LineSeries};
use plotters::style::{Color, RGBColor, TextStyle};

use super::canvas::{Canvas, Rgb, ink};
use super::font::font;

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
    /// The quantity shown.
    pub title: String,
    /// What to look for; shown below the title.
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

/// Panels under a title, two per row, all over the same x.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Title of the whole.
    pub title: String,
    /// Name of the x axis.
    pub x_label: String,
    /// The panels.
    pub panels: Vec<Panel>,
}

/// Colours of lines, in their order; the ninth has the first one's.
const COLOURS: [Rgb; 8] = [ink::BLUE, ink::ORANGE, ink::GREEN, ink::PURPLE, ink::RED, ink::TEAL, ink::BROWN, ink::PINK];
/// Size of a panel, and space for the title above all of them.
const PANEL: (usize, usize) = (620, 380);
const HEAD: usize = 64;
/// Font sizes of the chart's title, of a panel's, of what stands below it and at the axes.
pub(super) const TITLE: usize = 28;
const SUBTITLE: usize = 21;
const SMALL: usize = 16;
/// Of lines with fewer points than this each point is shown.
const FEW: usize = 25;

/// Sizes of axes, in pixels.
#[derive(Clone, Copy)]
struct Axes {
    /// Of the labels' font.
    font: f64,
    /// Space below the x axis and left of the y axis.
    below: u32,
    left: u32,
    /// Space to the right.
    right: u32,
    /// Radius of single points.
    point: i32,
}

/// Those of a chart's panels.
const AXES: Axes = Axes { font: SMALL as f64, below: 46, left: 76, right: 30, point: 4 };

impl Chart {
    /// Draws it.
    pub fn draw(&self) -> Canvas {
        let columns = self.panels.len().clamp(1, 2);
        let rows = self.panels.len().div_ceil(columns).max(1);
        let mut canvas = Canvas::new(columns * PANEL.0 + 24, HEAD + rows * PANEL.1 + 12);
        canvas.text(36, 26, &self.title, TITLE, ink::DARK);
        let x = range(self.panels.iter().flat_map(|panel| &panel.series).flat_map(|s| s.points.iter().map(|p| p.0)));
        for (place, panel) in self.panels.iter().enumerate() {
            let corner = (12 + place % columns * PANEL.0, HEAD + place / columns * PANEL.1);
            panel.draw(&mut canvas, corner, x, &self.x_label);
        }
        canvas
    }
}

impl Panel {
    fn draw(&self, canvas: &mut Canvas, (left, top): (usize, usize), x: (f64, f64), x_label: &str) {
        canvas.text(left + 24, top + 14, &self.title, SUBTITLE, ink::DARK);
        canvas.text(left + 24, top + 40, &self.note, SMALL, ink::MUTED);
        let mut legend = left + PANEL.0 - 30;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()).filter(|(s, _)| !s.name.is_empty())
        {
            legend = legend.saturating_sub(Canvas::text_width(&series.name, SMALL) + 34);
            canvas.fill(legend, top + 44, 16, 3, colour);
            canvas.text(legend + 22, top + 40, &series.name, SMALL, ink::MUTED);
        }
        let (corner, size) = ((left as u32, (top + 62) as u32), (PANEL.0 as u32, (PANEL.1 - 62) as u32));
        canvas.draw(|area| self.draw_axes(&area.clone().shrink(corner, size), x, x_label, AXES));
    }

    /// Axes and lines.
    fn draw_axes<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        x: (f64, f64),
        x_label: &str,
        sizes: Axes,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let y = padded(range(self.series.iter().flat_map(|s| s.points.iter().map(|p| p.1))));
        // Steps are whole numbers; on a short axis marks may lie between them.
        let decimals = if x.1 - x.0 < 6.0 { 1 } else { 0 };
        let mut chart = ChartBuilder::on(area)
            .margin_top(4)
            .margin_right(sizes.right)
            .x_label_area_size(sizes.below)
            .y_label_area_size(sizes.left)
            .build_cartesian_2d(x.0..x.1, y.0..y.1)?;
        let muted = rgb(ink::MUTED);
        let label = TextStyle::from(font(sizes.font)).color(&muted);
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_max_light_lines(0)
            .bold_line_style(rgb(ink::FAINT))
            .axis_style(muted)
            .label_style(label.clone())
            .x_labels(6)
            .x_label_formatter(&|x| format!("{x:.decimals$}"))
            .y_labels(5)
            .y_label_formatter(&|value| compact(*value, y))
            .x_desc(x_label)
            .axis_desc_style(label)
            .draw()?;
        for (series, colour) in self.series.iter().zip(COLOURS.into_iter().cycle()) {
            let finite = |p: &(f64, f64)| p.0.is_finite() && p.1.is_finite();
            for run in series.points.split(|point| !finite(point)) {
                chart.draw_series(LineSeries::new(run.iter().copied(), rgb(colour).stroke_width(2)))?;
            }
            if series.points.len() < FEW {
                let points = series.points.iter().copied().filter(finite);
                chart.draw_series(points.map(|point| Circle::new(point, sizes.point, rgb(colour).filled())))?;
            }
        }
        Ok(())
    }
}

fn rgb([r, g, b]: Rgb) -> RGBColor {
    RGBColor(r, g, b)
}

/// Least and largest of the finite values; around a single value, half of it to either side but at most a range of width 1.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let finite = values.filter(|value| value.is_finite());
    let (low, high) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    match high - low {
        width if width > 0.0 && width.is_finite() => (low, high),
        _ if low == 0.0 => (-0.5, 0.5),
        _ if low.is_finite() => (low - (0.5 * low.abs()).min(0.5), low + (0.5 * low.abs()).min(0.5)),
        _ => (0.0, 1.0),
    }
}

/// A little room above and below; a range that begins near 0 begins at 0.
fn padded((low, high): (f64, f64)) -> (f64, f64) {
    let room = 0.06 * (high - low);
    let bottom = if low >= 0.0 && low < 0.35 * high { 0.0 } else { low - room };
    (bottom, high + room)
}

/// A value on an axis that goes from `low` to `high`, with as many digits as neighbouring marks differ in.
fn compact(value: f64, (low, high): (f64, f64)) -> String {
    let (largest, apart) = (low.abs().max(high.abs()), (high - low) / 5.0);
    match largest {
        _ if value == 0.0 => "0".to_owned(),
        size if size >= 1e7 => format!("{:.0}M", value / 1e6),
        size if size >= 1e6 => format!("{:.1}M", value / 1e6),
        size if size >= 1e4 => format!("{:.0}k", value / 1e3),
        size if size < 1e-2 => format!("{value:.1e}"),
        _ => format!("{value:.*}", (-apart.log10()).ceil().clamp(0.0, 6.0) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_hold_all_finite_values() {
        assert_eq!(range([f64::NAN, 3.0].into_iter()), (2.5, 3.5));
        assert_eq!(range([-0.5].into_iter()), (-0.75, -0.25));
        assert_eq!(range([0.0].into_iter()), (-0.5, 0.5));
        assert_eq!(range(std::iter::empty()), (0.0, 1.0));
        assert_eq!(padded((0.1, 1.0)).0, 0.0);
        assert!(padded((0.9, 1.0)).0 > 0.8);
    }

    #[test]
    fn marks_have_the_digits_they_differ_in() {
        assert_eq!(compact(0.0, (0.0, 1.0)), "0");
        assert_eq!(compact(0.25, (0.0, 1.0)), "0.2");
        assert_eq!(compact(0.985, (0.98, 1.0)), "0.985");
        assert_eq!(compact(20.0, (0.0, 30.0)), "20");
        assert_eq!(compact(0.0005, (0.0, 0.001)), "5.0e-4");
        assert_eq!(compact(25_000.0, (0.0, 60_000.0)), "25k");
        assert_eq!(compact(2_500_000.0, (0.0, 6e6)), "2.5M");
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
