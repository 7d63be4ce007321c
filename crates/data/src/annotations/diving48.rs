//! Diving48.

use std::path::Path;

use serde_json::Value;

use super::error::AnnotationError;
use super::files::{FileIndex, Missing};
use super::json::{Entry, Json};
use super::listing::Listing;
use crate::list::VideoEntry;

/// Reads `Diving48_V2_train.json` or `..._test.json` with the class names of `Diving48_vocab.json`. Clips are looked for in
/// `videos` as `<vid_name>`. Use V2: labels of V1 are noisy.
///
/// # Errors
/// [`AnnotationError`] for files that cannot be read, missing keys, labels without a name, spans that end before they begin.
pub fn diving48(annotations: &Path, vocabulary: &Path, videos: &FileIndex) -> Result<Listing, AnnotationError> {
    let classes = read_vocabulary(vocabulary)?;
    let (file, value) = Json::read(annotations)?;
    let entries = file.entries(&value, "objects with `vid_name` and `label`")?;
    let label = |entry: &Entry<'_>| -> Result<(String, i64), AnnotationError> {
        let name = entry.text("vid_name", None)?;
        let label = entry.whole("label", Some(&name))?;
        Ok((name, label))
    };
    let labels = entries.iter().map(label).collect::<Result<Vec<_>, _>>()?;
    let last = classes.len() as i64 - 1;
    let from_one = labels.iter().all(|(_, label)| (1..=last + 1).contains(label));
    let mut missing = Missing::of(videos);
    let mut listing = Listing { path: annotations.into(), classes, ..Listing::default() };
    for (entry, (name, label)) in entries.iter().zip(labels) {
        if !(0..=last).contains(&label) {
            let remedy = if from_one { "labels seem to count from 1: subtract 1 from each" } else { "correct it" };
            let why = format!("label {label} is not one of the {} classes, 0 to {last}; {remedy}", last + 1);
            return Err(entry.fail(Some(&name), why));
        }
        if entry.get("start_frame").is_some() || entry.get("end_frame").is_some() {
            let (start, end) = (entry.whole("start_frame", Some(&name))?, entry.whole("end_frame", Some(&name))?);
            if start < 0 || end <= start {
                let why =
                    format!("the span from frame {start} to {end} is negative or empty: correct or remove the entry");
                return Err(entry.fail(Some(&name), why));
            }
        }
        if let Some(path) = missing.find(&[&name], None) {
            listing.entries.push(VideoEntry { path, label: Some(label) });
        }
    }
    listing.missing = missing.reasons();
    Ok(listing)
}

/// A list of classes, each a list of attributes or a text.
fn read_vocabulary(path: &Path) -> Result<Vec<String>, AnnotationError> {
    let (file, value) = Json::read(path)?;
    let Value::Array(classes) = &value else {
        let why = "must be the list of classes, `Diving48_vocab.json`: is it another file?";
        return Err(AnnotationError::file(path, why));
    };
    let name = |(index, class): (usize, &Value)| match class {
        Value::String(name) => Ok(name.clone()),
        Value::Array(parts) => {
            let parts: Vec<&str> = parts.iter().filter_map(Value::as_str).collect();
            Ok(parts.join(" "))
        }
        _ => Err(file.entry(class, index + 1).fail(None, "must be a list of texts: use the data set's own vocabulary")),
    };
    classes.iter().enumerate().map(name).collect()
}
