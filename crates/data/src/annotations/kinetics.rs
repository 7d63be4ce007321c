//! Kinetics 400, 600 and 700.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::columns::{Row, table};
use super::error::{AnnotationError, read};
use super::files::{FileIndex, Missing};
use super::json::Json;
use super::listing::{Classes, Listing};
use crate::list::VideoEntry;

/// A labelled span of a video.
struct Span {
    line: usize,
    label: String,
    id: String,
    start: i64,
    end: i64,
}

/// Reads the official CSV (`label,youtube_id,time_start,time_end,split`) or JSON (by id) of a split. Clips are looked for in
/// `videos` as `<id>_<start>_<end>` with six digits each, as most downloaders name them, or as `<id>`. Labels are the places
/// of the names in `classes`, or among the sorted names of this file.
///
/// # Errors
/// [`AnnotationError`] for files that cannot be read, missing columns, spans that end before they begin or are not of whole
/// seconds, unknown classes, spans of different classes that stand for one file. Spans of one class that do are listed once, and
/// counted.
pub fn kinetics(annotations: &Path, videos: &FileIndex, classes: Option<&Classes>) -> Result<Listing, AnnotationError> {
    let json = annotations.extension().is_some_and(|ext| ext.eq_ignore_ascii_case("json"));
    let spans = if json { from_json(annotations)? } else { from_csv(annotations)? };
    let own = Classes::sorted(spans.iter().map(|span| span.label.as_str()));
    let classes = classes.unwrap_or(&own);
    let labels = classes.labels();
    let mut missing = Missing::of(videos);
    let mut listing = Listing { path: annotations.into(), classes: classes.names.clone(), ..Listing::default() };
    // The span that each file is listed for.
    let mut listed: HashMap<PathBuf, &Span> = HashMap::new();
    for span @ Span { line, label, id, start, end } in &spans {
        let Some(number) = labels.get(label.as_str()) else {
            return Err(AnnotationError::line(annotations, *line, classes.unknown(label)));
        };
        let named = format!("{id}_{start:06}_{end:06}");
        let Some(path) = missing.find(&[&named, id], Some(label)) else { continue };
        if let Some(earlier) = listed.get(&path) {
            earlier.agrees(span, &path).map_err(|why| AnnotationError::line(annotations, *line, why))?;
            missing.count("name a file that is listed already, for the same class", path);
        } else {
            listed.insert(path.clone(), span);
            listing.entries.push(VideoEntry { path, label: Some(*number) });
            listing.lines.push(*line);
        }
    }
    listing.missing = missing.reasons();
    Ok(listing)
}

impl Span {
    /// Whether another span of the file that this one is listed for is of its class; what to say if not.
    fn agrees(&self, other: &Self, path: &Path) -> Result<(), String> {
        if self.label == other.label {
            return Ok(());
        }
        let remedy = match (self.start, self.end) == (other.start, other.end) {
            true => "remove one of the lines".to_owned(),
            false => format!(
                "cut the spans into files of their own ({}_{:06}_{:06}), or remove one of the lines",
                other.id, other.start, other.end
            ),
        };
        Err(format!(
            "`{}` is the class of a span of {}, of which line {} says `{}`: {remedy}",
            other.label,
            path.display(),
            self.line,
            self.label
        ))
    }
}

fn from_csv(path: &Path) -> Result<Vec<Span>, AnnotationError> {
    let text = read(path)?;
    let table = table(path, &text, ["label", "youtube_id", "time_start", "time_end"], |name| {
        match name {
            "label" => "the test split has no labels: use train.csv or validate.csv",
            _ => "the first line must be `label,youtube_id,time_start,time_end,split`",
        }
        .to_owned()
    })?;
    let mut spans = Vec::new();
    for Row { line, columns, values } in table.rows {
        let [label, id, start, end] = values.each_ref().map(String::as_str);
        if values.iter().any(String::is_empty) {
            let why =
                format!("has {columns} of {} columns, or an empty one: complete the line or remove it", table.columns);
            return Err(AnnotationError::line(path, line, why));
        }
        let seconds = |text: &str| match text.parse::<f64>() {
            Ok(seconds) if seconds.is_finite() => Ok(seconds),
            _ => Err(AnnotationError::line(path, line, format!("`{text}` is not a time in seconds: correct the line"))),
        };
        let (start, end) = (seconds(start)?, seconds(end)?);
        check_span(start, end).map_err(|why| AnnotationError::line(path, line, why))?;
        spans.push(Span { line, label: label.into(), id: id.into(), start: start as i64, end: end as i64 });
    }
    Ok(spans)
}

fn check_span(start: f64, end: f64) -> Result<(), String> {
    if !(start >= 0.0 && end > start) {
        return Err(format!("the span from {start} to {end} s is negative or empty: correct its times or remove it"));
    }
    match start.fract() == 0.0 && end.fract() == 0.0 {
        true => Ok(()),
        false => Err(format!(
            "the span from {start} to {end} s is not of whole seconds, by which clips are named (ID_000000_000010): write \
             those of the clip's name"
        )),
    }
}

fn from_json(path: &Path) -> Result<Vec<Span>, AnnotationError> {
    let (file, value) = Json::read(path)?;
    let Some(videos) = value.as_object() else {
        let why = "must be an object of entries by video id, as K600 and K700 have it: is it another file?";
        return Err(AnnotationError::file(path, why));
    };
    let mut spans = Vec::new();
    for (number, (id, value)) in videos.iter().enumerate() {
        let video = file.entry(value, number + 1);
        let Some(annotations) = video.get("annotations") else {
            let why = "has no `annotations`; the test split has no labels: use the training or validation file";
            return Err(video.fail(Some(id), why));
        };
        let entry = file.entry(annotations, number + 1);
        let label = entry.text("label", Some(id))?;
        let segment: Vec<f64> = annotations
            .get("segment")
            .and_then(|s| s.as_array())
            .into_iter()
            .flatten()
            .filter_map(|s| s.as_f64())
            .collect();
        let [start, end] = segment[..] else {
            return Err(entry.fail(Some(id), "`segment` must be a list of two times in seconds: correct it"));
        };
        check_span(start, end).map_err(|why| entry.fail(Some(id), why))?;
        spans.push(Span { line: entry.line(id), label, id: id.clone(), start: start as i64, end: end as i64 });
    }
    Ok(spans)
}
