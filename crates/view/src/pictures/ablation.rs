//! The rows of an ablation beside each other.

use crate::canvas::{Canvas, ink};
use crate::chart::TITLE;

/// A row's figure: mean, standard error, and what a paper reports.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// The row.
    pub name: String,
    /// Mean and standard error; none of a row that was not run.
    pub figure: Option<(f64, f64)>,
    /// A published figure.
    pub published: Option<f64>,
}

const WIDTH: usize = 900;
const ROW: usize = 44;
const SMALL: usize = 18;
const MARGIN: usize = 28;

/// Horizontal bars from zero, one a row, with their standard errors as whiskers. Published figures stand beside in words: other
/// data and models make their height another scale.
pub fn ablation(title: &str, note: &str, bars: &[Bar]) -> Canvas {
    let widest = bars.iter().map(|bar| Canvas::text_width(&bar.name, SMALL)).max().unwrap_or(0);
    let left = MARGIN + widest + 14;
    let words: Vec<String> = bars.iter().map(in_words).collect();
    let beside = words.iter().map(|words| Canvas::text_width(words, SMALL)).max().unwrap_or(0);
    let room = WIDTH.saturating_sub(left + 14 + beside + MARGIN).max(100);
    let most = bars.iter().filter_map(|bar| bar.figure).map(|(mean, error)| mean + error).fold(0.0, f64::max);
    let length = |value: f64| if most > 0.0 { (value.max(0.0) / most * room as f64).round() as usize } else { 0 };
    let mut canvas = Canvas::new(WIDTH, 104 + bars.len() * ROW + MARGIN);
    canvas.text(MARGIN, 24, title, TITLE, ink::DARK);
    canvas.text(MARGIN, 62, note, 16, ink::MUTED);
    for (place, (bar, words)) in bars.iter().zip(&words).enumerate() {
        let y = 104 + place * ROW;
        canvas.text(left - 14 - Canvas::text_width(&bar.name, SMALL), y + 10, &bar.name, SMALL, ink::DARK);
        if let Some((mean, error)) = bar.figure {
            canvas.fill(left, y + 4, length(mean).max(1), ROW - 16, ink::BLUE);
            let (low, high) = (left + length(mean - error), left + length(mean + error));
            if error > 0.0 {
                canvas.fill(low, y + 17, high.saturating_sub(low).max(1), 2, ink::DARK);
                [low, high].into_iter().for_each(|x| canvas.fill(x, y + 11, 2, 14, ink::DARK));
            }
        }
        let end = bar.figure.map_or(0, |(mean, error)| length(mean + error));
        canvas.text(left + end + 14, y + 10, words, SMALL, ink::MUTED);
    }
    canvas
}

/// What stands beside a bar.
fn in_words(bar: &Bar) -> String {
    let figure = match bar.figure {
        None => "not run yet".to_owned(),
        Some((mean, error)) if error > 0.0 => format!("{mean:.3} \u{b1} {error:.3}"),
        Some((mean, _)) => format!("{mean:.3}"),
    };
    match bar.published {
        Some(published) => format!("{figure}  (published {published})"),
        None => figure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_figures() {
        let bar = |name: &str, mean| Bar { name: name.into(), figure: Some((mean, 0.0)), published: None };
        let bars = [bar("a", 0.8), bar("b", 0.4), Bar { name: "c".into(), figure: None, published: Some(72.9) }];
        let canvas = ablation("Masks", "textures", &bars);
        let blue = |row: usize| (0..WIDTH).filter(|x| canvas.get(*x, 104 + row * ROW + 8) == ink::BLUE).count();
        assert!(blue(0) > 400 && blue(0).abs_diff(2 * blue(1)) <= 2 && blue(2) == 0, "{} {}", blue(0), blue(1));
    }

    #[test]
    fn nothing_is_cut_off() {
        let bar = |name: &str, mean| Bar { name: name.into(), figure: Some((mean, 0.016)), published: Some(72.9) };
        let canvas = ablation("Masks", "", &[bar("multi-block, with a name that takes room", 0.821), bar("tube", 0.7)]);
        let margin = (0..canvas.height()).flat_map(|y| (WIDTH - MARGIN / 2..WIDTH).map(move |x| (x, y)));
        assert!(margin.into_iter().all(|(x, y)| canvas.get(x, y) == canvas.get(WIDTH - 1, 0)));
    }
}
