//! Which classes are taken for which.

use super::heat;
use crate::canvas::{Canvas, ink};
use crate::chart::TITLE;

/// Space around the matrix.
const MARGIN: usize = 28;
/// Above the matrix.
const TOP: usize = 124;
/// Up to so many classes their names stand beside rows and above columns, and counts in the cells.
const NAMED: usize = 40;
const COUNTED: usize = 20;
/// Side of the matrix in pixels, about.
const SIDE: usize = 760;
const SMALL: usize = 16;
/// Side of a cell, at most.
const LARGEST: usize = 96;
/// Letters of a name that are shown.
const LETTERS: usize = 22;

/// A confusion matrix: `rows` are the counts of each class by the class predicted, coloured by their share of the row. The
/// diagonal is what was right.
pub fn confusion(title: &str, note: &str, names: &[String], rows: &[&[u64]]) -> Canvas {
    let classes = rows.len().max(1);
    let cell = (SIDE / classes).clamp(1, LARGEST);
    let named = classes <= NAMED;
    let name = |class: usize| -> String {
        let name = match names.get(class).filter(|name| **name != class.to_string()) {
            Some(name) => format!("{class} {name}"),
            None => class.to_string(),
        };
        if name.chars().count() > LETTERS { name.chars().take(LETTERS - 1).chain(['\u{2026}']).collect() } else { name }
    };
    let widest = (0..classes).map(|class| Canvas::text_width(&name(class), SMALL)).max().unwrap_or(0);
    let left = MARGIN + if named { widest + 12 } else { 0 };
    let top = TOP;
    // Names would not fit above columns, which stand in the order of the rows: they are numbered, as the rows are.
    let width = (left + classes * cell + MARGIN).max(MARGIN * 2 + Canvas::text_width(title, TITLE));
    let width = width.max(MARGIN * 2 + Canvas::text_width(note, SMALL));
    let mut canvas = Canvas::new(width, top + classes * cell + MARGIN);
    canvas.text(MARGIN, 24, title, TITLE, ink::DARK);
    canvas.text(MARGIN, 60, note, SMALL, ink::MUTED);
    for (class, row) in rows.iter().enumerate() {
        let y = top + class * cell;
        let sum: u64 = row.iter().sum();
        if named {
            let (number, x) = (class.to_string(), left + class * cell);
            let inset = cell.saturating_sub(Canvas::text_width(&number, SMALL)) / 2;
            canvas.text(x + inset, top - 22, &number, SMALL, ink::MUTED);
            let (name, baseline) = (name(class), y + (cell / 2).saturating_sub(5));
            canvas.text(left - 10 - Canvas::text_width(&name, SMALL), baseline, &name, SMALL, ink::DARK);
        }
        for (predicted, count) in row.iter().enumerate().take(classes) {
            let share = if sum == 0 { 0.0 } else { *count as f32 / sum as f32 };
            let x = left + predicted * cell;
            canvas.fill(x, y, cell, cell, heat(share));
            if classes <= COUNTED && *count > 0 {
                let (text, colour) = (count.to_string(), if share > 0.6 { ink::DARK } else { ink::PAPER });
                let inset = cell.saturating_sub(Canvas::text_width(&text, SMALL)) / 2;
                canvas.text(x + inset, y + (cell / 2).saturating_sub(5), &text, SMALL, colour);
            }
        }
    }
    canvas
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_diagonal_of_a_good_classifier_is_bright() {
        let names = ["cat".to_owned(), "dog".to_owned()];
        let rows: [&[u64]; 2] = [&[9, 1], &[0, 10]];
        let canvas = confusion("Confusion", "two classes", &names, &rows);
        let left =
            MARGIN + 12 + ["0 cat", "1 dog"].map(|name| Canvas::text_width(name, SMALL)).into_iter().max().unwrap();
        let bright =
            |class: usize, predicted: usize| canvas.get(left + predicted * LARGEST + 3, TOP + class * LARGEST + 3)[1];
        assert!(bright(0, 0) > bright(0, 1) && bright(1, 1) > bright(1, 0));
        assert_eq!(bright(1, 1), heat(1.0)[1]);
        // Many classes are still a picture of a size that can be looked at.
        let row: Vec<u64> = vec![1; 400];
        let rows: Vec<&[u64]> = (0..400).map(|_| row.as_slice()).collect();
        assert!(confusion("Many", "", &[], &rows).height() < 1000);
    }
}
