//! Something-Something v2.

use std::path::Path;

use super::error::AnnotationError;
use super::files::{FileIndex, Missing};
use super::json::Json;
use super::listing::{Classes, Listing};
use crate::list::VideoEntry;

/// Reads `train.json` or `validation.json` with the labels of `labels.json`. A class is the entry's `template` without its
/// brackets. Clips are looked for in `videos` as `<id>`. Direction matters in this set: train without flips.
///
/// # Errors
/// [`AnnotationError`] for files that cannot be read, entries without a template (the test split), unknown templates, and
/// labels that do not count from 0.
pub fn ssv2(annotations: &Path, labels: &Path, videos: &FileIndex) -> Result<Listing, AnnotationError> {
    let classes = read_labels(labels)?;
    let numbers = classes.labels();
    let (file, value) = Json::read(annotations)?;
    let mut missing = Missing::of(videos);
    let mut listing = Listing { path: annotations.into(), classes: classes.names.clone(), ..Listing::default() };
    for entry in file.entries(&value, "objects with `id` and `template`")? {
        let id = entry.text("id", None)?;
        if entry.get("template").is_none() && entry.get("label").is_none() {
            let why = "has no `template`; the test split has none: use train.json or validation.json";
            return Err(entry.fail(Some(&id), why));
        }
        let template = entry.text("template", Some(&id))?.replace(['[', ']'], "");
        let Some(number) = numbers.get(template.as_str()) else {
            return Err(entry.fail(Some(&id), classes.unknown(&template)));
        };
        if let Some(path) = missing.find(&[&id], None) {
            listing.entries.push(VideoEntry { path, label: Some(*number) });
        }
    }
    listing.missing = missing.reasons();
    Ok(listing)
}

/// `{template: "index"}`, in the order of the indices.
fn read_labels(path: &Path) -> Result<Classes, AnnotationError> {
    let (file, value) = Json::read(path)?;
    let Some(object) = value.as_object() else {
        let why = "must be an object of template and index, `labels.json` of the data set: is it another file?";
        return Err(AnnotationError::file(path, why));
    };
    let mut names = vec![None; object.len()];
    for (template, index) in object {
        let fail = |why: String| AnnotationError::line(path, file.line_of(template).unwrap_or(1), why);
        let text = index.as_str().map_or_else(|| index.to_string(), str::to_owned);
        let number =
            text.parse::<usize>().map_err(|_| fail(format!("index `{text}` is not a whole number: correct it")))?;
        match names.get_mut(number) {
            Some(place @ None) => *place = Some(template.replace(['[', ']'], "")),
            Some(Some(other)) => {
                return Err(fail(format!("index {number} is that of `{other}`, too: correct one of them")));
            }
            None => {
                let count = object.len();
                return Err(fail(format!(
                    "index {number} is not below the {count} classes: indices count from 0, subtract 1"
                )));
            }
        }
    }
    // As many indices as places, none twice: none is empty.
    Ok(Classes { names: names.into_iter().flatten().collect(), from: Some(path.into()) })
}
