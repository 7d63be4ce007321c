//! Lists whose first line names their columns, as data-frame libraries write them: an index, then `path` and `label` somewhere.

use super::{Cell, Parsed, Row, is_comment, short};

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

/// Reads a list with named columns; none where its first line names none. `cell` reads a label.
///
/// # Errors
/// A sentence that begins with the number of a line that has other columns than the first names, or a label that cannot be read.
pub(super) fn read(text: &str, cell: Cell<'_>) -> Result<Option<Parsed>, String> {
    let mut lines = text.lines().enumerate().map(|(index, text)| (index + 1, text));
    let mut lines = lines.by_ref().filter(|(_, text)| !text.trim().is_empty() && !is_comment(text));
    let Some(header) = lines.next().and_then(|(_, text)| Header::of(text)) else { return Ok(None) };
    let mut parsed = Parsed { rows: Vec::new(), notes: vec![header.note()] };
    for (line, text) in lines {
        let cells = cells(text, header.separator).unwrap_or_default();
        if cells.len() != header.names.len() {
            return Err(format!(
                "line {line} has {} columns, but the first line names {}: put a path that holds the separator in double quotes",
                cells.len(),
                header.names.len()
            ));
        }
        let path = cells.get(header.path).filter(|path| !path.is_empty());
        let path = path.ok_or_else(|| format!("line {line} has an empty path: complete it or take the line out"))?;
        let label = match header.label.and_then(|place| cells.get(place)) {
            Some(text) => Some(cell(line, text)?),
            None => None,
        };
        parsed.rows.push(Row { line, path: path.clone(), label });
    }
    Ok(Some(parsed))
}

/// The columns of a line, without quotes.
fn cells(line: &str, separator: char) -> Option<Vec<String>> {
    let separator = u8::try_from(separator).ok()?;
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(separator)
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(line.as_bytes());
    let record = reader.records().next()?.ok()?;
    Some(record.iter().map(str::to_owned).collect())
}
