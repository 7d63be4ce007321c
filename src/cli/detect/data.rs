//! Key frames with their boxes and videos.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use vjepa_data::annotations::ava::{self, Boxes, KeyFrame, LabelledBox};
use vjepa_data::annotations::{FileIndex, Share, share_of};
use vjepa_eval::protocols::detection::{BoxValues, LabelledFrame, LabelledRegion};

use crate::cli::CliError;

/// Where videos lie.
#[derive(clap::Args)]
pub(super) struct Videos {
    /// Folder of the annotated videos (ID.mp4 and so on), cut to begin at second 900 and converted to 30 frames per second
    #[arg(long, value_name = "DIR")]
    pub(super) videos: PathBuf,
}

/// A person detector's boxes.
#[derive(clap::Args)]
pub(super) struct People {
    /// Boxes of a person detector: video,second,x1,y1,x2,y2,[action],score
    #[arg(long, value_name = "CSV")]
    pub(super) people: Option<PathBuf>,
    /// Lowest score of a person's box
    #[arg(long, default_value_t = 0.8, value_name = "SCORE", requires = "people", value_parser = score)]
    threshold: f64,
}

fn score(word: &str) -> Result<f64, String> {
    match word.parse::<f64>() {
        Ok(score) if (0.0..=1.0).contains(&score) => Ok(score),
        _ => Err("must be a score from 0 to 1".to_owned()),
    }
}

/// Names of actions, and their file.
pub(super) struct LabelMap {
    path: PathBuf,
    pub(super) names: BTreeMap<u32, String>,
}

impl LabelMap {
    pub(super) fn read(path: &Path) -> Result<Self, CliError> {
        Ok(Self { path: path.to_owned(), names: ava::read_label_map(path)? })
    }

    /// What there is to say of actions of these boxes that it does not name. AVA's own map has 60 of the 80 that its boxes show:
    /// the others are learned and not evaluated.
    fn unnamed(&self, annotations: &Path, boxes: &Boxes) -> Option<String> {
        let without = |labelled: &LabelledBox| -> Vec<u32> {
            labelled.actions.iter().copied().filter(|action| !self.names.contains_key(action)).collect()
        };
        let found: Vec<(usize, Vec<u32>)> =
            boxes.frames.values().flatten().map(|labelled| (labelled.line, without(labelled))).collect();
        let found: Vec<(usize, Vec<u32>)> = found.into_iter().filter(|(_, actions)| !actions.is_empty()).collect();
        let (line, actions) = found.iter().min()?;
        let ids: BTreeSet<u32> = found.iter().flat_map(|(_, actions)| actions.iter().copied()).collect();
        let (count, first) = (found.len(), actions.first().copied().unwrap_or_default());
        Some(format!(
            "{}: {count} box{} show{} {} action{} that {} does not name, first {first} of the box in line {line}; they are \
             trained on, and left out by `detect eval` with this map: correct the ids if that is not meant",
            annotations.display(),
            if count == 1 { "" } else { "es" },
            if count == 1 { "s" } else { "" },
            ids.len(),
            if ids.len() == 1 { "" } else { "s" },
            self.path.display(),
        ))
    }
}

/// Key frames to work on, and what was left out.
#[derive(Clone)]
pub(super) struct KeyFrames {
    pub(super) frames: Vec<LabelledFrame>,
    pub(super) notes: Vec<String>,
}

impl KeyFrames {
    /// The key frames of a share of their videos, drawn with `split`; a smaller share of the same draw is part of a larger one.
    /// Videos are drawn, not key frames: those of one video, a second apart, are nearly the same.
    pub(super) fn share(&self, share: Share, split: u64) -> Self {
        let videos: BTreeSet<&str> = self.frames.iter().map(|frame| frame.key.video.as_str()).collect();
        let count = videos.len();
        let chosen = share_of(count, share, split);
        let drawn = |(number, video)| chosen.contains(&number).then_some(video);
        let kept: BTreeSet<&str> = videos.into_iter().enumerate().filter_map(drawn).collect();
        let frames = self.frames.iter().filter(|frame| kept.contains(frame.key.video.as_str())).cloned().collect();
        let mut own = Self { frames, notes: self.notes.clone() };
        own.notes.push(format!(
            "{} of {count} videos are trained on, with {} key frames",
            kept.len(),
            own.frames.len()
        ));
        let all = self.actions();
        let lost = all.difference(&own.actions()).count();
        if lost > 0 {
            own.notes.push(format!("{lost} of {} actions do not occur in them", all.len()));
        }
        own
    }

    /// The key frames of several draws, each once, in the order of their keys, which is that of every draw.
    pub(super) fn of_draws(draws: &[Self]) -> Self {
        let frames = draws.iter().flat_map(|draw| &draw.frames);
        let frames: BTreeMap<&KeyFrame, &LabelledFrame> = frames.map(|frame| (&frame.key, frame)).collect();
        Self { frames: frames.into_values().cloned().collect(), notes: Vec::new() }
    }

    /// The values of these key frames, of values of more of them.
    pub(super) fn values(&self, all: &BoxValues) -> BoxValues {
        let own: BTreeSet<&KeyFrame> = self.frames.iter().map(|frame| &frame.key).collect();
        let rows = all.boxes.iter().zip(all.values.chunks_exact(all.width.max(1)));
        let rows: Vec<_> = rows.filter(|((key, _), _)| own.contains(key)).collect();
        BoxValues {
            width: all.width,
            values: rows.iter().flat_map(|(_, values)| values.iter().copied()).collect(),
            boxes: rows.iter().map(|(of, _)| (*of).clone()).collect(),
            bad: all.bad.iter().filter(|(key, _)| own.contains(key)).cloned().collect(),
            beyond: all.beyond.iter().filter(|key| own.contains(key)).cloned().collect(),
        }
    }

    /// The actions that are shown.
    pub(super) fn actions(&self) -> BTreeSet<u32> {
        let regions = self.frames.iter().flat_map(|frame| &frame.regions);
        regions.flat_map(|region| region.actions.iter().copied()).collect()
    }
}

impl Videos {
    /// The key frames of ground truth with their labelled boxes, and with those of a person detector that have labels where
    /// there are any.
    pub(super) fn lesson(&self, path: &Path, people: &People, map: Option<&LabelMap>) -> Result<KeyFrames, CliError> {
        let mut boxes = ava::read_boxes(path, None)?;
        let mut notes: Vec<String> = map.and_then(|map| map.unnamed(path, &boxes)).into_iter().collect();
        if let Some(path) = &people.people {
            let (predicted, below) = ava::read_labelled_people(path, people.threshold, None)?;
            notes.extend(map.and_then(|map| map.unnamed(path, &predicted)));
            let (mut added, mut negative) = (0, 0);
            for (key, found) in predicted.frames {
                added += found.len();
                negative += found.iter().filter(|person| person.actions.is_empty()).count();
                boxes.frames.entry(key).or_default().extend(found);
            }
            boxes.clipped += predicted.clipped;
            notes.push(format!(
                "{added} boxes of the person detector are added, {negative} of them without an action; {below} are below the \
                 score of {}",
                people.threshold
            ));
        }
        let mut found = self.with_labels(path, &boxes)?;
        found.notes.extend(notes);
        Ok(found)
    }

    /// The key frames of ground truth, with their labelled boxes.
    pub(super) fn labelled(&self, path: &Path) -> Result<KeyFrames, CliError> {
        self.with_labels(path, &ava::read_boxes(path, None)?)
    }

    fn with_labels(&self, path: &Path, boxes: &Boxes) -> Result<KeyFrames, CliError> {
        let regions = |key: &KeyFrame| {
            let of_frame = boxes.frames.get(key).map(Vec::as_slice).unwrap_or_default();
            let region = |labelled: &LabelledBox| LabelledRegion {
                corners: labelled.corners,
                actions: labelled.actions.clone(),
                score: 1.0,
            };
            of_frame.iter().map(region).collect()
        };
        self.found(path, boxes, regions)
    }

    /// The key frames of a person detector's boxes.
    pub(super) fn people(&self, path: &Path, people: &People) -> Result<KeyFrames, CliError> {
        let found = ava::read_people(path, people.threshold)?;
        if found.frames.is_empty() && found.below > 0 {
            let (path, count, least) = (path.display(), found.below, people.threshold);
            return Err(format!("{path}: all {count} boxes are below the score of {least}: lower --threshold").into());
        }
        let keys = found.frames.keys().map(|key| (key.clone(), Vec::new())).collect();
        let boxes = Boxes { frames: keys, ..Boxes::default() };
        let regions = |key: &KeyFrame| {
            let of_frame = found.frames.get(key).map(Vec::as_slice).unwrap_or_default();
            let region = |person: &ava::PersonBox| LabelledRegion {
                corners: person.corners,
                actions: Vec::new(),
                score: person.score,
            };
            of_frame.iter().map(region).collect()
        };
        let mut key_frames = self.found(path, &boxes, regions)?;
        if found.below > 0 {
            key_frames.notes.push(format!("{} boxes are below the score of {}", found.below, people.threshold));
        }
        Ok(key_frames)
    }

    fn found(
        &self,
        annotations: &Path,
        boxes: &Boxes,
        regions: impl Fn(&KeyFrame) -> Vec<LabelledRegion>,
    ) -> Result<KeyFrames, CliError> {
        let index = FileIndex::of(&self.videos)?;
        let listing = ava::listing(annotations, boxes, &index);
        let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        let paths: BTreeMap<String, PathBuf> =
            listing.entries.into_iter().filter_map(|entry| Some((stem(&entry.path)?, entry.path))).collect();
        let frames = boxes.frames.keys().filter_map(|key| {
            let regions = regions(key);
            let path = paths.get(&key.video).filter(|_| !regions.is_empty())?.clone();
            Some(LabelledFrame { key: key.clone(), path, regions })
        });
        let frames: Vec<LabelledFrame> = frames.collect();
        let mut notes: Vec<String> =
            listing.missing.iter().map(|reason| format!("{} videos {}", reason.count, reason.what)).collect();
        if boxes.clipped > 0 {
            notes.push(format!("{} boxes reached a little outside the frame and were clipped", boxes.clipped));
        }
        if frames.is_empty() {
            let why = notes.first().map(|note| format!(": {note}")).unwrap_or_default();
            return Err(format!(
                "{} names no key frame whose video is in {}{why}",
                annotations.display(),
                self.videos.display()
            )
            .into());
        }
        Ok(KeyFrames { frames, notes })
    }
}
