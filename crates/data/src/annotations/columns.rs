//! Tables of comma-separated values whose first line names the columns.

use super::error::AnnotationError;
use std::path::Path;

/// Columns listed in a message at most.
const SHOWN: usize = 12;

/// The wanted columns of a table.
pub(super) struct Table<const N: usize> {
    /// How many columns the first line names.
    pub columns: usize,
    /// The lines after it.
    pub rows: Vec<Row<N>>,
}

/// A line of a table.
pub(super) struct Row<const N: usize> {
    /// Its number, from 1.
    pub line: usize,
    /// How many columns it has.
    pub columns: usize,
    /// The wanted values, empty where the line is too short.
    pub values: [String; N],
}

/// Finds the columns of these names, whatever others there are; `hint` ends the message about a missing one.
///
/// # Errors
/// [`AnnotationError`] for what is not CSV, and a missing column.
pub(super) fn table<const N: usize>(
    path: &Path,
    text: &str,
    names: [&str; N],
    hint: impl Fn(&str) -> String,
) -> Result<Table<N>, AnnotationError> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let broken = |error: csv::Error| {
        let line = error.position().map_or(1, |at| at.line() as usize);
        AnnotationError::line(path, line, format!("is not CSV ({error}): download the file again"))
    };
    let header = reader.headers().map_err(broken)?.clone();
    let mut places = [0; N];
    for (place, name) in places.iter_mut().zip(names) {
        *place = header.iter().position(|column| column.eq_ignore_ascii_case(name)).ok_or_else(|| {
            let found: Vec<&str> = header.iter().take(SHOWN).collect();
            let hint = hint(name);
            AnnotationError::line(path, 1, format!("there is no column `{name}` among `{}`; {hint}", found.join(",")))
        })?;
    }
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let line = record.position().map_or(0, |at| at.line() as usize);
        let values = places.map(|place| record.get(place).unwrap_or_default().to_owned());
        rows.push(Row { line, columns: record.len(), values });
    }
    Ok(Table { columns: header.len(), rows })
}
