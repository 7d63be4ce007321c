//! What annotations come to: entries, class names, and what is missing.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::{AnnotationError, lines, read};
use crate::list::{VideoEntry, VideoList};
use crate::storage::is_url;
use crate::survey::Reason;

/// The names of classes; the place of a name is its label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Classes {
    /// In the order of the labels.
    pub names: Vec<String>,
    /// The file that they are from; none where they are those of the annotations themselves.
    pub from: Option<PathBuf>,
}

impl Classes {
    /// Reads a file with one class name per line, as [`Listing::write`] writes it.
    ///
    /// # Errors
    /// [`AnnotationError`] for files that cannot be read, and names that occur twice.
    pub fn read(path: &Path) -> Result<Self, AnnotationError> {
        let text = read(path)?;
        let mut names = Vec::new();
        let mut seen = HashMap::new();
        for (line, name) in lines(&text) {
            if let Some(first) = seen.insert(name.to_owned(), line) {
                let why = format!("`{name}` stands in line {first} already: write every class once");
                return Err(AnnotationError::line(path, line, why));
            }
            names.push(name.to_owned());
        }
        Ok(Self { names, from: Some(path.into()) })
    }

    /// Sorted names without repetitions.
    pub(super) fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let names: BTreeSet<&str> = names.collect();
        Self { names: names.into_iter().map(str::to_owned).collect(), from: None }
    }

    /// The label of each name.
    pub(super) fn labels(&self) -> HashMap<&str, i64> {
        self.names.iter().zip(0..).map(|(name, label)| (name.as_str(), label)).collect()
    }

    /// What to say of a name that is not among them, for the end of an error.
    pub(super) fn unknown(&self, name: &str) -> String {
        let count = self.names.len();
        let from = self.from.as_ref().map_or_else(String::new, |from| format!(" of {}", from.display()));
        format!(
            "class `{name}` is not among the {count} classes{from}: correct the name, or use the class names of these annotations"
        )
    }
}

/// A data set as its annotations describe it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// The annotation file or folder.
    pub path: PathBuf,
    /// The samples that there are, in the order of the annotations.
    pub entries: Vec<VideoEntry>,
    /// The line of each in the annotations, from 1; empty where they are not one line per sample.
    pub lines: Vec<usize>,
    /// Class names by label; empty without labels.
    pub classes: Vec<String>,
    /// Samples that are left out, most frequent reason first.
    pub missing: Vec<Reason>,
}

impl Listing {
    /// These samples of a list, to be written anew.
    pub fn part(list: &VideoList, indices: impl IntoIterator<Item = usize>) -> Self {
        let entries = indices.into_iter().filter_map(|index| list.entries.get(index).cloned()).collect();
        Self { path: list.path.clone(), entries, ..Self::default() }
    }

    /// Writes the plain list, and where there are classes their names, one per line.
    ///
    /// # Errors
    /// As [`Listing::write_list`].
    pub fn write(&self, list: &Path, names: &Path) -> Result<(), AnnotationError> {
        self.write_list(list)?;
        if self.classes.is_empty() {
            return Ok(());
        }
        write(names, self.classes.iter().map(|name| format!("{name}\n")).collect())
    }

    /// Writes the plain list alone: "path label" per line, with absolute paths.
    ///
    /// # Errors
    /// [`AnnotationError::File`] for an empty listing, names that fit on no line, and files that cannot be written.
    pub fn write_list(&self, list: &Path) -> Result<(), AnnotationError> {
        if self.entries.is_empty() {
            return Err(AnnotationError::file(&self.path, format!("leaves no sample to list: {self}")));
        }
        let mut text = String::new();
        for entry in &self.entries {
            let path = match is_url(&entry.path) {
                true => entry.path.clone(),
                false => std::path::absolute(&entry.path)
                    .map_err(|error| AnnotationError::file(&entry.path, format!("cannot be made absolute: {error}")))?,
            };
            match path.to_str() {
                Some(path) if !path.contains(['\n', '\r']) => text.push_str(path),
                _ => {
                    let why = "has a name that does not fit on a line of UTF-8 text: rename it";
                    return Err(AnnotationError::file(&path, why));
                }
            }
            if let Some(label) = entry.label {
                text.push_str(&format!(" {label}"));
            }
            text.push('\n');
        }
        write(list, text)
    }

    /// Samples that are left out.
    pub fn left_out(&self) -> usize {
        self.missing.iter().map(|reason| reason.count).sum()
    }

    /// How many samples are left out and why, `"12 left out: 10 have no file in DIR (the first: X), 2 ..."`; none where none is.
    pub fn left_out_in_words(&self) -> Option<String> {
        let reason =
            |Reason { what, count, first }: &Reason| format!("{count} {what} (the first: {})", first.display());
        let reasons: Vec<String> = self.missing.iter().map(reason).collect();
        (!reasons.is_empty()).then(|| format!("{} left out: {}", self.left_out(), reasons.join(", ")))
    }
}

fn write(path: &Path, text: String) -> Result<(), AnnotationError> {
    // A folder that is not there is more likely mistyped than meant.
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.is_dir()) {
        let why = format!("cannot be written: there is no folder {}", folder.display());
        return Err(AnnotationError::file(path, why));
    }
    vjepa_runtime::write_atomically(path, |file| file.write_all(text.as_bytes()))
        .map_err(|error| AnnotationError::file(path, format!("cannot be written: {error}")))
}

/// `"train.csv: 240 samples of 400 classes; 12 left out: 10 have no file in DIR (the first: X), 2 ..."`.
impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = |count: usize| if count == 1 { "" } else { "s" };
        write!(f, "{}: {} sample{}", self.path.display(), self.entries.len(), plural(self.entries.len()))?;
        match self.classes.len() {
            0 => {}
            1 => write!(f, " of 1 class")?,
            count => write!(f, " of {count} classes")?,
        }
        match self.left_out_in_words() {
            Some(words) => write!(f, "; {words}"),
            None => Ok(()),
        }
    }
}

/// Checks that the labels of a plain list are those of `classes` classes, 0 to `classes` - 1.
///
/// # Errors
/// [`AnnotationError::Line`] for the first label out of range, with the remedy where all of them count from 1.
pub fn check_labels(list: &VideoList, classes: usize) -> Result<(), AnnotationError> {
    let labels = || list.entries.iter().zip(list.lines.iter().copied()).filter_map(|(e, line)| Some((e.label?, line)));
    let in_range = |label: i64| usize::try_from(label).is_ok_and(|label| label < classes);
    let Some((label, line)) = labels().find(|(label, _)| !in_range(*label)) else { return Ok(()) };
    let from_one = labels().all(|(label, _)| label >= 1 && in_range(label - 1));
    let remedy = match from_one {
        true => "labels seem to count from 1: subtract 1 from each",
        false => "correct the label, or the class names",
    };
    let last = classes.saturating_sub(1);
    let why = format!("label {label} is not one of the {classes} classes, 0 to {last}; {remedy}");
    Err(AnnotationError::line(&list.path, line, why))
}
