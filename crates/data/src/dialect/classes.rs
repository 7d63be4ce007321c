//! Lists that name the class of each video in words.

use super::table::{self, Cells};
use super::{Parsed, Row, is_video, lines_of, official, short, unquoted, video_column, without_label};
use std::collections::{BTreeSet, HashMap};

/// A list of class names, numbered.
#[derive(Debug)]
pub(crate) struct Named {
    /// Its rows, with the numbers as labels.
    pub parsed: Parsed,
    /// The names, in the order of the numbers.
    pub classes: Vec<String>,
}

/// Reads a list whose lines end in class names, or that has a column of them, and numbers the classes: in the order of `known`,
/// else sorted.
///
/// # Errors
/// A sentence that begins with the number of a line without a class, or with one that is not `known`.
pub(crate) fn named(text: &str, known: Option<&[String]>, exists: &dyn Fn(&str) -> bool) -> Result<Named, String> {
    let rows = match table::read(text)? {
        Some(table) => table.rows.into_iter().map(of_columns).collect::<Result<Found, String>>()?,
        None => by_lines(text, exists)?,
    };
    if rows.iter().all(|(.., class)| class.parse::<i64>().is_ok()) {
        return Err("has numbers for labels already: it is read as it is".into());
    }
    let classes: Vec<String> = match known {
        Some(known) => known.to_vec(),
        None => rows.iter().map(|(.., class)| class).collect::<BTreeSet<_>>().into_iter().cloned().collect(),
    };
    let labels: HashMap<&str, i64> = classes.iter().zip(0..).map(|(name, label)| (name.as_str(), label)).collect();
    let mut parsed = Parsed::default();
    for (line, path, class) in &rows {
        let label = labels.get(class.as_str()).ok_or_else(|| {
            format!("line {line} has the class `{}`, which --classes does not name: correct one of them", short(class))
        })?;
        parsed.rows.push(Row { line: *line, path: path.clone(), label: Some(*label) });
    }
    Ok(Named { parsed, classes })
}

/// Line, path and class.
type Found = Vec<(usize, String, String)>;

/// A line of a list whose first line names its columns.
fn of_columns(Cells { line, path, label }: Cells) -> Result<(usize, String, String), String> {
    match label.ok_or("line 1 names no column of classes: call it `label`")? {
        class if class.is_empty() => Err(format!("line {line} has no class: complete it or take the line out")),
        class => Ok((line, path, class)),
    }
}

/// The rows of a list of "path class". A class may hold spaces where the path ends in a known file name ending.
fn by_lines(text: &str, exists: &dyn Fn(&str) -> bool) -> Result<Found, String> {
    let (lines, _) = lines_of(text, exists);
    let mut rows = Vec::new();
    for (index, line) in lines.into_iter().enumerate() {
        let labelled = || official(line).and_then(|row| Some((row.path, row.label?.to_string())));
        let split =
            video_column(line.text).map(|(path, class)| (unquoted(path.trim()).to_owned(), unquoted(class).to_owned()));
        match split.or_else(labelled) {
            Some((path, class)) => rows.push((line.number, path, class)),
            // A header, whatever its words.
            None if index == 0 && !is_video(unquoted(without_label(line.text))) => {}
            None => {
                return Err(format!(
                    "line {} must be \"path class\" with a path that ends as videos do, not `{}`",
                    line.number,
                    short(line.text)
                ));
            }
        }
    }
    match rows.is_empty() {
        true => Err("has no line of \"path class\"".into()),
        false => Ok(rows),
    }
}
