//! AVA: boxes of people and what they do, at one key frame per second.
//!
//! None of its files has a header. Coordinates are shares of the frame, 0 to 1.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

pub use vjepa_metrics::ava::KeyFrame;

use super::error::{AnnotationError, lines, read};
use super::files::{FileIndex, Missing};
use super::listing::Listing;
use crate::list::VideoEntry;

mod scored;

pub use scored::{read_detections, read_truth, write_detections};

/// Coordinates this far outside the frame are rounding, and are clipped.
const ROUNDING: f64 = 0.01;

/// A box with all its actions.
#[derive(Debug, Clone, PartialEq)]
pub struct LabelledBox {
    /// x1, y1, x2, y2 as shares of the frame.
    pub corners: [f64; 4],
    /// Action ids, from 1; empty for a person who does nothing that is labelled.
    pub actions: Vec<u32>,
    /// The person's id, where there is one.
    pub person: Option<u32>,
    /// The first line it stands in.
    pub line: usize,
}

/// Labelled boxes by key frame. Frames without boxes have an empty list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Boxes {
    /// By video and second.
    pub frames: BTreeMap<KeyFrame, Vec<LabelledBox>>,
    /// Boxes that reached a little outside the frame and were clipped.
    pub clipped: usize,
}

/// A person found by a detector.
#[derive(Debug, Clone, PartialEq)]
pub struct PersonBox {
    /// x1, y1, x2, y2 as shares of the frame.
    pub corners: [f64; 4],
    /// The detector's score.
    pub score: f64,
}

/// Boxes of a person detector, those that pass a threshold.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PersonBoxes {
    /// By video and second.
    pub frames: BTreeMap<KeyFrame, Vec<PersonBox>>,
    /// Boxes with a score below the threshold.
    pub below: usize,
    /// Boxes that reached a little outside the frame and were clipped.
    pub clipped: usize,
}

/// One line, split at its commas.
struct Row<'a> {
    path: &'a Path,
    line: usize,
    fields: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn of(path: &'a Path, line: usize, text: &'a str) -> Self {
        Self { path, line, fields: text.split(',').map(|field| field.trim().trim_matches('"')).collect() }
    }

    fn fail(&self, why: impl std::fmt::Display) -> AnnotationError {
        AnnotationError::line(self.path, self.line, why)
    }

    fn field(&self, index: usize) -> &'a str {
        self.fields.get(index).copied().unwrap_or_default()
    }

    fn columns(&self, allowed: &[usize], form: &str) -> Result<(), AnnotationError> {
        match allowed.contains(&self.fields.len()) {
            true => Ok(()),
            false => Err(self
                .fail(format!("has {} columns, but must be `{form}`: complete or remove the line", self.fields.len()))),
        }
    }

    fn key(&self) -> Result<KeyFrame, AnnotationError> {
        let second = self.field(1);
        match second.parse::<f64>() {
            Ok(value) if value >= 0.0 && value.fract() == 0.0 && value < 1e6 => {
                Ok(KeyFrame { video: self.field(0).to_owned(), second: value as u32 })
            }
            _ => {
                Err(self.fail(format!("`{second}` is not a second of the video: correct it (AVA has no header line)")))
            }
        }
    }

    /// The four coordinates as written, in the frame but for rounding.
    fn coordinates(&self) -> Result<[f64; 4], AnnotationError> {
        let mut corners = [0.0; 4];
        for (corner, index) in corners.iter_mut().zip(2..) {
            let text = self.field(index);
            *corner =
                text.parse::<f64>().map_err(|_| self.fail(format!("`{text}` is not a coordinate: correct it")))?;
            if !(-ROUNDING..=1.0 + ROUNDING).contains(corner) {
                let why = "coordinates are shares of the frame, 0 to 1: divide pixels by its width and height";
                return Err(self.fail(format!("coordinate {text} lies outside the frame; {why}")));
            }
        }
        Ok(corners)
    }

    /// The corners, and whether they had to be clipped.
    fn corners(&self) -> Result<([f64; 4], bool), AnnotationError> {
        let written = self.coordinates()?;
        let corners @ [x1, y1, x2, y2] = written.map(|corner| corner.clamp(0.0, 1.0));
        match x1 < x2 && y1 < y2 {
            true => Ok((corners, corners != written)),
            false => Err(self.fail(format!(
                "the box {x1},{y1},{x2},{y2} is reversed or empty: its corners are x1,y1,x2,y2 with x1 < x2 and y1 < y2"
            ))),
        }
    }

    fn score(&self) -> Result<f64, AnnotationError> {
        match self.field(7).parse::<f64>() {
            Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
            _ => Err(self.fail(format!("`{}` is not a score from 0 to 1: correct it", self.field(7)))),
        }
    }

    fn number(&self, index: usize, what: &str) -> Result<Option<u32>, AnnotationError> {
        match self.field(index) {
            "" => Ok(None),
            text => match text.parse::<u32>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(self.fail(format!("`{text}` is not the number of {what}: correct it"))),
            },
        }
    }
}

/// Reads `video,second,x1,y1,x2,y2,action,person`. Rows whose coordinates are written alike are one box; an empty action is
/// none; a row of `video,second` is a frame without boxes. With `actions`, ids that are not among them are refused.
///
/// # Errors
/// [`AnnotationError`] naming the line: columns missing, boxes outside the frame, reversed or empty, unknown actions.
pub fn read_boxes(path: &Path, actions: Option<&BTreeMap<u32, String>>) -> Result<Boxes, AnnotationError> {
    let text = read(path)?;
    let mut boxes = Boxes::default();
    let mut places = Places::new();
    for (line, text) in lines(&text) {
        let row = Row::of(path, line, text);
        row.columns(&[2, 7, 8], "video,second,x1,y1,x2,y2,action,person")?;
        // What is wrong first is said first: a header's second is no number.
        let key = row.key()?;
        if row.fields.len() == 2 {
            boxes.frames.entry(key).or_default();
            continue;
        }
        let person = row.number(7, "a person")?;
        boxes.add(&row, person, actions, &mut places)?;
    }
    Ok(boxes)
}

/// Boxes by frame and coordinates as written: their places within the frame.
type Places<'a> = HashMap<(KeyFrame, [&'a str; 4]), usize>;

impl Boxes {
    /// Adds a row: another action of a box that is there, or a box.
    fn add<'a>(
        &mut self,
        row: &Row<'a>,
        person: Option<u32>,
        actions: Option<&BTreeMap<u32, String>>,
        places: &mut Places<'a>,
    ) -> Result<(), AnnotationError> {
        let (key, (corners, clipped)) = (row.key()?, row.corners()?);
        let action = row.number(6, "an action")?;
        if let (Some(action), Some(known)) = (action, actions)
            && !known.contains_key(&action)
        {
            let last = known.keys().next_back().copied().unwrap_or(0);
            let why = format!("action {action} is not in the label map, whose ids go up to {last} and count from 1");
            return Err(row.fail(format!("{why}: correct it, or give the label map of these annotations")));
        }
        let frame = self.frames.entry(key.clone()).or_default();
        let text = [2, 3, 4, 5].map(|index| row.field(index));
        let place = *places.entry((key, text)).or_insert_with(|| {
            self.clipped += usize::from(clipped);
            frame.push(LabelledBox { corners, actions: Vec::new(), person, line: row.line });
            frame.len() - 1
        });
        if let (Some(action), Some(labelled)) = (action, frame.get_mut(place)) {
            labelled.actions.push(action);
        }
        Ok(())
    }
}

/// Reads a detector's people with their actions, `video,second,x1,y1,x2,y2,action or nothing,score`, as SlowFast's files of
/// predicted training boxes have them (matched with the ground truth at an IoU of 0.9): rows whose coordinates are written
/// alike are one box, and one without an action shows none. Scores below `threshold` are left out and counted.
///
/// # Errors
/// As [`read_boxes`] and [`read_people`].
pub fn read_labelled_people(
    path: &Path,
    threshold: f64,
    actions: Option<&BTreeMap<u32, String>>,
) -> Result<(Boxes, usize), AnnotationError> {
    let text = read_csv(path)?;
    let (mut boxes, mut below) = (Boxes::default(), 0);
    let mut places = Places::new();
    for (line, text) in lines(&text) {
        let row = Row::of(path, line, text);
        row.columns(&[8], "video,second,x1,y1,x2,y2,action or nothing,score")?;
        match row.score()? < threshold {
            true => below += 1,
            false => boxes.add(&row, None, actions, &mut places)?,
        }
    }
    Ok((boxes, below))
}

/// A file of people, which is no JSON.
fn read_csv(path: &Path) -> Result<String, AnnotationError> {
    let text = read(path)?;
    match text.trim_start().starts_with(['[', '{']) {
        false => Ok(text),
        true => {
            let why = "is JSON with boxes in pixels, which is not read: write video,second,x1,y1,x2,y2,,score with shares of the frame";
            Err(AnnotationError::file(path, why))
        }
    }
}

/// Reads the excluded timestamps, `video,second`.
///
/// # Errors
/// [`AnnotationError`] naming the line.
pub fn read_excluded(path: &Path) -> Result<BTreeSet<KeyFrame>, AnnotationError> {
    let text = read(path)?;
    let key = |(line, text)| {
        let row = Row::of(path, line, text);
        row.columns(&[2], "video,second")?;
        row.key()
    };
    lines(&text).map(key).collect()
}

/// Reads a detector's people, `video,second,x1,y1,x2,y2,action or nothing,score`, and keeps scores of `threshold` (0.8 in the
/// published configurations) or more.
///
/// # Errors
/// [`AnnotationError`] naming the line, as [`read_boxes`]; scores outside 0 to 1; JSON, which holds pixels.
pub fn read_people(path: &Path, threshold: f64) -> Result<PersonBoxes, AnnotationError> {
    let text = read_csv(path)?;
    let mut people = PersonBoxes::default();
    for (line, text) in lines(&text) {
        let row = Row::of(path, line, text);
        row.columns(&[8], "video,second,x1,y1,x2,y2,action or nothing,score")?;
        let (key, (corners, clipped)) = (row.key()?, row.corners()?);
        let score = row.score()?;
        if score < threshold {
            people.below += 1;
            continue;
        }
        people.clipped += usize::from(clipped);
        people.frames.entry(key).or_default().push(PersonBox { corners, score });
    }
    Ok(people)
}

/// Reads a label map (`.pbtxt`): items with `name: "..."` and `id: N` or `label_id: N`.
///
/// # Errors
/// [`AnnotationError`] naming the line: ids that are no numbers, come twice or are 0, items without a name or id.
pub fn read_label_map(path: &Path) -> Result<BTreeMap<u32, String>, AnnotationError> {
    let text = read(path)?;
    let mut names = BTreeMap::new();
    let (mut name, mut id): (Option<String>, Option<u32>) = (None, None);
    for (line, text) in lines(&text) {
        let fail = |why: String| AnnotationError::line(path, line, why);
        match text.split_once(':').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("name", value)) => name = Some(value.trim_matches(['"', '\'']).to_owned()),
            Some(("id" | "label_id", value)) => match value.parse::<u32>() {
                Ok(number @ 1..) => id = Some(number),
                _ => return Err(fail(format!("`{value}` is not an id: ids are whole numbers from 1, correct it"))),
            },
            _ => {}
        }
        if text.ends_with('}') {
            let (Some(name), Some(id)) = (name.take(), id.take()) else {
                return Err(fail("the item that ends here lacks its `name` or `id`: complete it".into()));
            };
            if let Some(other) = names.insert(id, name) {
                return Err(fail(format!("id {id} is that of `{other}`, too: correct one of them")));
            }
        }
    }
    match names.is_empty() {
        true => Err(AnnotationError::file(path, "holds no item with `name` and `id`: give a label map (.pbtxt)")),
        false => Ok(names),
    }
}

/// The videos of annotated frames as a plain list without labels; boxes stay in their own files.
pub fn listing(annotations: &Path, boxes: &Boxes, videos: &FileIndex) -> Listing {
    let ids: BTreeSet<&str> = boxes.frames.keys().map(|key| key.video.as_str()).collect();
    let mut missing = Missing::of(videos);
    let find = |id: &&str| missing.find(&[id], None);
    let paths: Vec<PathBuf> = ids.iter().filter_map(find).collect();
    Listing {
        path: annotations.into(),
        entries: paths.into_iter().map(|path| VideoEntry { path, label: None }).collect(),
        missing: missing.reasons(),
        ..Listing::default()
    }
}
