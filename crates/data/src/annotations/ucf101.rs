//! UCF101.

use std::path::Path;

use super::error::{AnnotationError, lines, read};
use super::files::{FileIndex, Missing};
use super::listing::{Classes, Listing};
use crate::list::VideoEntry;

/// Reads `trainlist0N.txt` (`Class/video.avi 1`, labels from 1) or `testlist0N.txt` (without labels: the folder is the class),
/// with the class names of `classInd.txt`. Labels become those from 0. Clips are looked for by name, with any ending that is
/// read: the set comes as .avi.
///
/// # Errors
/// [`AnnotationError`] for files that cannot be read, unknown classes, and labels that contradict the folder.
pub fn ucf101(list: &Path, class_index: &Path, videos: &FileIndex) -> Result<Listing, AnnotationError> {
    let classes = read_classes(class_index)?;
    let labels = classes.labels();
    let text = read(list)?;
    let mut missing = Missing::of(videos);
    let mut listing = Listing { path: list.into(), classes: classes.names.clone(), ..Listing::default() };
    for (line, text) in lines(&text) {
        let fail = |why: String| AnnotationError::line(list, line, why);
        let (path, label) = match text.rsplit_once([' ', '\t']) {
            Some((path, label)) => match label.parse::<i64>() {
                Ok(label) => (path.trim(), Some(label)),
                Err(_) => (text, None),
            },
            None => (text, None),
        };
        let Some((class, file)) = path.rsplit_once(['/', '\\']) else {
            return Err(fail(format!("`{path}` must be `Class/video.avi`: use the data set's own lists")));
        };
        let Some(number) = labels.get(class) else { return Err(fail(classes.unknown(class))) };
        if label.is_some_and(|label| label != number + 1) {
            let label = label.unwrap_or_default();
            let hint = if label == *number {
                "labels of this list count from 1: add 1 to each"
            } else {
                "correct one of them"
            };
            return Err(fail(format!("label {label} is not that of class `{class}`, {}; {hint}", number + 1)));
        }
        let name = file.rsplit_once('.').map_or(file, |(name, _)| name);
        if let Some(path) = missing.find(&[name], Some(class)) {
            listing.entries.push(VideoEntry { path, label: Some(*number) });
            listing.lines.push(line);
        }
    }
    listing.missing = missing.reasons();
    Ok(listing)
}

/// `1 ApplyEyeMakeup`, from 1 on without gaps.
fn read_classes(path: &Path) -> Result<Classes, AnnotationError> {
    let text = read(path)?;
    let mut names = Vec::new();
    for (line, text) in lines(&text) {
        let wanted = names.len() + 1;
        match text.split_once([' ', '\t']) {
            Some((number, name)) if number.parse() == Ok(wanted) => names.push(name.trim().to_owned()),
            _ => {
                let why = format!("must be `{wanted} ClassName`, got `{text}`: use the data set's own classInd.txt");
                return Err(AnnotationError::line(path, line, why));
            }
        }
    }
    Ok(Classes { names, from: Some(path.into()) })
}
