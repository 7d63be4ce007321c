//! Panels as SVG, for pages: colours are the page's own, by CSS variables.

use std::fmt::Write;

use plotters::drawing::IntoDrawingArea;
use plotters::prelude::SVGBackend;

use super::{Axes, COLOURS, Panel, Rgb, ink, range};

/// Axes of a panel that is about as wide as a telephone.
const AXES: Axes = Axes { font: 15.0, below: 40, left: 58, right: 14, point: 3 };
/// Width and height.
const SIZE: (u32, u32) = (440, 240);

impl Panel {
    /// Axes and lines as an SVG element of 440 by 240, without title, note and legend, which are the page's. `x` is what the
    /// axis holds at least, so that several panels can share it.
    ///
    /// Colours are `var(--muted)`, `var(--faint)` and, for the lines in their order, `var(--line-0)` to `var(--line-7)`, each
    /// with the colour of our pictures where the page does not set it.
    pub fn svg(&self, x: Option<(f64, f64)>, x_label: &str) -> String {
        let own = self.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let shared = x.into_iter().flat_map(|(low, high)| [low, high]);
        let x = range(own.chain(shared));
        let mut text = String::new();
        let area = SVGBackend::with_string(&mut text, SIZE).into_drawing_area();
        // The picture is in memory and the font embedded: there is no file or system that could fail.
        self.draw_axes(&area, x, x_label, AXES).expect("drawing into memory succeeds");
        area.present().expect("drawing into memory succeeds");
        drop(area);
        with_variables(text)
    }
}

/// Colours as the variables of a page.
fn with_variables(mut svg: String) -> String {
    let lines = COLOURS.iter().enumerate().map(|(number, colour)| (format!("line-{number}"), *colour));
    for (name, colour) in [("muted".to_owned(), ink::MUTED), ("faint".to_owned(), ink::FAINT)].into_iter().chain(lines)
    {
        let plain = hex(colour);
        svg = svg.replace(&format!("\"{plain}\""), &format!("\"var(--{name},{plain})\""));
    }
    svg
}

fn hex(colour: Rgb) -> String {
    colour.iter().fold("#".to_owned(), |mut text, value| {
        let _ = write!(text, "{value:02X}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panel_becomes_an_element_in_the_pages_colours() {
        let points = (0..50).map(|i| (f64::from(i), f64::from(i * i))).collect();
        let svg = Panel::single("loss", "", points).svg(Some((0.0, 100.0)), "step <1>");
        assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(svg.contains("viewBox=\"0 0 440 240\""));
        for colour in ["var(--line-0,#2563EB)", "var(--muted,#6B7280)", "var(--faint,#E5E7EB)"] {
            assert!(svg.contains(colour), "{colour}: {svg}");
        }
        assert!(svg.contains("step &lt;1&gt;") && svg.contains("\n100\n"), "{svg}");
        assert!(!svg.contains("NaN"));
        assert!(Panel::single("", "", vec![]).svg(None, "").contains("</svg>"));
    }
}
