//! The font of our pictures: DejaVu Sans, of which the Latin letters, some signs and the box for all others are embedded.

use std::sync::LazyLock;

use plotters::style::{FontDesc, FontFamily, FontStyle, register_font};

/// Made from DejaVu Sans 2.37 with fonttools' `subset`; its licence is in the file beside it.
static DEJAVU: &[u8] = include_bytes!("../assets/DejaVuSans-subset.ttf");

const NAME: &str = "DejaVu Sans";

static REGISTERED: LazyLock<bool> = LazyLock::new(|| register_font(NAME, FontStyle::Normal, DEJAVU).is_ok());

/// The font at a size in pixels.
pub(super) fn font(size: f64) -> FontDesc<'static> {
    assert!(*REGISTERED, "the embedded font is well-formed");
    FontDesc::new(FontFamily::Name(NAME), size, FontStyle::Normal)
}

/// Width of a text in pixels.
pub(super) fn width(text: &str, size: f64) -> usize {
    font(size).box_size(text).map_or(0, |(width, _)| width as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pixels that a text covers.
    fn ink(text: &str) -> Vec<(i32, i32)> {
        let mut pixels = Vec::new();
        let draw = |x, y, cover: f32| {
            if cover > 0.5 {
                pixels.push((x, y));
            }
            Ok::<(), ()>(())
        };
        font(24.0).draw(text, (0, 0), draw).unwrap().unwrap();
        pixels
    }

    #[test]
    fn letters_and_signs_have_shapes_of_their_own() {
        let letters = ('!'..='~').chain('¡'..='ÿ').chain("–—‘’“”…≤≥≈→←μ−".chars());
        let unknown = ink("\u{4e2d}");
        assert!(!unknown.is_empty());
        for letter in letters.filter(|letter| *letter != '\u{ad}') {
            let drawn = ink(&letter.to_string());
            assert!(!drawn.is_empty() && drawn != unknown, "{letter}");
        }
        assert!(width("mmmm", 24.0) > 2 * width("iiii", 24.0));
    }
}
