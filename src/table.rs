//! Tables for people: columns that line up, without borders and without colours.

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};

/// Spaces between columns.
const GAP: u16 = 2;

/// A table whose first column is aligned to the left and whose others, numbers mostly, to the right. Each line ends with a
/// newline; an empty `header` has none.
pub(crate) fn aligned(header: &[&str], rows: Vec<Vec<String>>) -> String {
    text(header, rows, |_| CellAlignment::Right)
}

/// The same for columns of words.
pub(crate) fn words(header: &[&str], rows: Vec<Vec<String>>) -> String {
    text(header, rows, |_| CellAlignment::Left)
}

fn text(header: &[&str], rows: Vec<Vec<String>>, alignment: impl Fn(usize) -> CellAlignment) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING);
    if !header.is_empty() {
        table.set_header(header);
    }
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((if index == 0 { 0 } else { GAP }, 0));
        column.set_cell_alignment(if index == 0 { CellAlignment::Left } else { alignment(index) });
    }
    let lines = table.trim_fmt();
    if lines.is_empty() { lines } else { lines + "\n" }
}

/// The lines of a text, moved to the right by two spaces.
pub(crate) fn indented(text: &str) -> String {
    text.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_borders() {
        let rows = vec![vec!["linear".to_owned(), "1.5".to_owned()], vec!["gelu".to_owned(), "10.25".to_owned()]];
        assert_eq!(aligned(&["", "ms"], rows.clone()), "           ms\nlinear    1.5\ngelu    10.25\n");
        assert_eq!(words(&[], rows), "linear  1.5\ngelu    10.25\n");
        assert_eq!(indented("a\n\nb\n"), "  a\n\n  b\n");
        assert_eq!(aligned(&[], Vec::new()), "");
    }
}
