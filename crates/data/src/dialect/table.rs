//! Lists whose first line names their columns, as data-frame libraries write them: an index, then `path` and `label` somewhere.

use super::form::unclosed;
use super::{is_comment, short};

/// Names of the column of paths.
const PATHS: [&str; 11] = [
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "video",
    "video_path",
    "videopath",
    "video_file",
    "clip",
];
/// Names of the column of labels.
const LABELS: [&str; 8] = ["label", "labels", "class", "class_id", "class_index", "label_id", "target", "category"];

/// Where the columns are.
struct Header {
    separator: char,
    names: Vec<String>,
    path: usize,
    label: Option<usize>,
}

impl Header {
    /// Of a first line that names a column of paths among others; none of "path label", which every list may begin with.
    fn of(line: &str) -> Option<Self> {
        let separator = if line.contains('\t') { '\t' } else { ',' };
        let names: Vec<String> = cells(line, separator)?;
        let find = |wanted: &[&str]| {
            let mut places = names.iter().enumerate().filter(|(_, name)| {
                let name = name.to_ascii_lowercase();
                wanted.contains(&name.as_str())
            });
            // Two such columns are no answer.
            places.next().map(|(place, _)| place).filter(|_| places.next().is_none())
        };
        let (path, label) = (find(&PATHS)?, find(&LABELS));
        let usual = names.len() == 2 && (path, label) == (0, Some(1));
        (names.len() > 1 && !usual).then_some(Self { separator, names, path, label })
    }

    fn note(&self) -> String {
        let named = |place: usize| self.names.get(place).map_or("", String::as_str);
        match self.label {
            Some(label) => format!(
                "of its {} columns, `{}` and `{}` are read, as its first line names them",
                self.names.len(),
                short(named(self.path)),
                short(named(label))
            ),
            None => format!(
                "of its {} columns, `{}` is read and none as label, as its first line names them",
                self.names.len(),
                short(named(self.path))
            ),
        }
    }
}

/// A list with named columns.
pub(super) struct Table {
    pub rows: Vec<Cells>,
    /// Which columns were read.
    pub note: String,
    /// How many lines were comments.
    pub comments: usize,
    /// Whether anything stands in quotes.
    pub quotes: bool,
}

/// What a line of it says.
pub(super) struct Cells {
    /// Its number, from 1.
    pub line: usize,
    pub path: String,
    /// As it is written; none where no column is of labels.
    pub label: Option<String>,
}

/// Reads a list with named columns; none where its first line names none.
///
/// # Errors
/// A sentence that begins with the number of a line that has other columns than the first names, or no path.
pub(super) fn read(text: &str) -> Result<Option<Table>, String> {
    let mut comments = 0;
    let mut lines = text.lines().zip(1..).filter(|(text, _)| {
        let comment = is_comment(text);
        comments += usize::from(comment);
        !comment && !text.trim().is_empty()
    });
    let Some(header) = lines.next().and_then(|(text, _)| Header::of(text)) else { return Ok(None) };
    let mut rows = Vec::new();
    let opens = |text: &str| text.split(header.separator).any(|cell| cell.trim_start().starts_with('"'));
    for (text, line) in lines {
        if text.matches('"').count() % 2 == 1 && opens(text) {
            return Err(unclosed(line, text));
        }
        let mut cells = cells(text, header.separator).unwrap_or_default();
        if cells.len() != header.names.len() {
            return Err(format!(
                "line {line} has {} columns, but the first line names {}: put a path that holds the separator in double quotes",
                cells.len(),
                header.names.len()
            ));
        }
        let mut take = |place: usize| cells.get_mut(place).map(std::mem::take);
        let path = take(header.path).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| format!("line {line} has an empty path: complete it or take the line out"))?;
        rows.push(Cells { line, path, label: header.label.and_then(take) });
    }
    Ok(Some(Table { rows, note: header.note(), comments, quotes: text.contains('"') }))
}

/// The columns of a line, without quotes.
fn cells(line: &str, separator: char) -> Option<Vec<String>> {
    // Most lines have none, and a reader for each takes longer than the rest.
    if !line.contains('"') {
        return Some(line.split(separator).map(|cell| cell.trim().to_owned()).collect());
    }
    let separator = u8::try_from(separator).ok()?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}
