//! Lists that name the class of each video in words.

use std::path::Path;

use super::error::{AnnotationError, read};
use super::listing::{Classes, Listing};
use crate::list::read_named;

/// Reads a list of "path class", or one whose first line names its columns, and numbers the classes: in the order of `classes`,
/// else sorted. Paths are those of any list.
///
/// # Errors
/// [`AnnotationError`] for a list that cannot be read, has a line without a class, or one that `classes` does not name.
pub fn named_list(list: &Path, classes: Option<&Classes>) -> Result<Listing, AnnotationError> {
    let text = read(list)?;
    let known = classes.map(|classes| classes.names.as_slice());
    let (read, classes) = read_named(&text, list, known).map_err(|why| AnnotationError::file(list, why))?;
    Ok(Listing { path: list.into(), entries: read.entries, lines: read.lines, classes, ..Listing::default() })
}
