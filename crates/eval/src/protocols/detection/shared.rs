//! Key frames dealt out to ranks, and the boxes of one of them.

use vjepa_collective::{Collective, Portion, turn};
use vjepa_data::DataError;
use vjepa_data::detection::{KeyFrameClip, KeyFrameClips, Placed};
use vjepa_data::media::Opener;
use vjepa_recipe::counter::CounterRng;

use super::{BoxValues, LabelledFrame, LabelledRegion};
use crate::{EvalError, OnProgress, Progress};

/// What came of a key frame.
pub(super) struct Seen {
    /// Of each of its boxes, whether the clip shows it.
    pub shown: Vec<bool>,
    /// The numbers of those that it shows, one box after the other.
    pub values: Vec<f32>,
    /// Whether the video ends before it.
    pub beyond: bool,
}

/// Reads the clip of a key frame; the inner error says why its video cannot be used.
pub(super) fn read(
    clips: &KeyFrameClips,
    frame: &LabelledFrame,
    random: Option<&mut CounterRng>,
) -> Result<Result<KeyFrameClip, String>, EvalError> {
    match clips.read(Opener::shared(), &frame.path, frame.key.second, random) {
        Ok(clip) => Ok(Ok(clip)),
        Err(DataError::Bad { reason, .. }) => Ok(Err(reason)),
        Err(error) => Err(error.into()),
    }
}

/// Boxes as a model takes them, `f32[boxes, 5]`: the number of the clip, which is the first, then x1, y1, x2, y2 in its pixels.
pub(super) fn in_pixels<'a>(placed: Placed, regions: impl IntoIterator<Item = &'a LabelledRegion>) -> Vec<f32> {
    let corners = |region: &LabelledRegion| {
        let [x1, y1, x2, y2] = placed.corners(region.corners).map(|corner| corner as f32);
        [0.0, x1, y1, x2, y2]
    };
    regions.into_iter().flat_map(corners).collect()
}

/// Deals key frames out to `ranks` and collects the `width` numbers of each of their boxes, in the order of `frames`; none on
/// ranks other than 0. `seen` gets a key frame and its number, and its inner error says why the video cannot be used, which
/// leaves the key frame out.
///
/// # Errors
/// Those of `seen`; [`EvalError::Collective`]; [`EvalError::Setup`] when no box is left.
pub(super) fn shared(
    frames: &[LabelledFrame],
    width: usize,
    ranks: &dyn Collective,
    progress: OnProgress<'_>,
    seen: impl FnMut(usize, &LabelledFrame) -> Result<Result<Seen, String>, EvalError>,
) -> Result<Option<BoxValues>, EvalError> {
    let Some(found) = collected(frames, width, ranks, progress, seen)? else { return Ok(None) };
    if found.boxes.is_empty() {
        let why = found.bad.first().map(|(key, why)| format!("; the first, {} at {}: {why}", key.video, key.second));
        let (count, why) = (frames.len(), why.unwrap_or_default());
        return Err(EvalError::setup(format!("none of {count} key frames can be used{why}")));
    }
    Ok(Some(found))
}

/// As [`shared`], where it may be that no box is left.
///
/// # Errors
/// Those of `seen`; [`EvalError::Collective`].
pub(super) fn collected(
    frames: &[LabelledFrame],
    width: usize,
    ranks: &dyn Collective,
    progress: OnProgress<'_>,
    mut seen: impl FnMut(usize, &LabelledFrame) -> Result<Result<Seen, String>, EvalError>,
) -> Result<Option<BoxValues>, EvalError> {
    let mut found = BoxValues { width, ..BoxValues::default() };
    for (number, of_turn) in frames.chunks(ranks.world()).enumerate() {
        let first = number * ranks.world();
        let mine = of_turn.get(ranks.rank()).map(|frame| seen(first + ranks.rank(), frame)).transpose()?;
        for (frame, portion) in of_turn.iter().zip(turn(ranks, mine.map(portion))?) {
            take(&mut found, frame, portion);
        }
        progress(Progress { what: "encoding key frames", done: first + of_turn.len(), total: frames.len() });
    }
    Ok((ranks.rank() == 0).then_some(found))
}

/// As it travels: why its video cannot be used, or nothing, then something where the video ends before it, and then for each box
/// nothing where the clip shows it.
fn portion(seen: Result<Seen, String>) -> Portion {
    match seen {
        Err(why) => Portion { samples: vec![Some(why)], values: Vec::new() },
        Ok(Seen { shown, values, beyond }) => {
            let boxes = shown.into_iter().map(|shown| (!shown).then(String::new));
            Portion { samples: [None, beyond.then(String::new)].into_iter().chain(boxes).collect(), values }
        }
    }
}

/// The inverse of [`portion`], for a key frame.
fn take(found: &mut BoxValues, frame: &LabelledFrame, portion: Portion) {
    let mut samples = portion.samples.into_iter();
    if let Some(why) = samples.next().flatten() {
        found.bad.push((frame.key.clone(), why));
        return;
    }
    if samples.next().flatten().is_some() {
        found.beyond.push(frame.key.clone());
    }
    let shown = frame.regions.iter().zip(samples).filter(|(_, hidden)| hidden.is_none());
    found.boxes.extend(shown.map(|(region, _)| (frame.key.clone(), region.clone())));
    found.values.extend(portion.values);
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_collective::Alone;
    use vjepa_metrics::ava::KeyFrame;

    fn frame(second: u32, boxes: usize) -> LabelledFrame {
        let region = |number: usize| LabelledRegion {
            corners: [0.0, 0.0, 0.5, 1.0],
            actions: vec![number as u32 + 1],
            score: 1.0,
        };
        let key = KeyFrame { video: "v".to_owned(), second };
        LabelledFrame { key, path: "v.mp4".into(), regions: (0..boxes).map(region).collect() }
    }

    #[test]
    fn boxes_that_are_seen_keep_their_numbers() {
        let frames = [frame(900, 2), frame(901, 1), frame(902, 3)];
        let seen = |number: usize, frame: &LabelledFrame| {
            Ok(match number {
                1 => Err("is cut off".to_owned()),
                // The second box of each lies outside.
                _ => {
                    let shown: Vec<bool> = (0..frame.regions.len()).map(|at| at != 1).collect();
                    let count = shown.iter().filter(|shown| **shown).count();
                    let values = (0..count * 2).map(|at| (number * 10 + at) as f32).collect();
                    Ok(Seen { shown, values, beyond: number == 2 })
                }
            })
        };
        let found = shared(&frames, 2, &Alone, &mut |_| {}, seen).unwrap().unwrap();
        assert_eq!(found.values, [0.0, 1.0, 20.0, 21.0, 22.0, 23.0]);
        let kept: Vec<(u32, u32)> = found.boxes.iter().map(|(key, region)| (key.second, region.actions[0])).collect();
        assert_eq!(kept, [(900, 1), (902, 1), (902, 3)]);
        assert_eq!(found.bad, [(frames[1].key.clone(), "is cut off".to_owned())]);
        assert_eq!(found.beyond, [frames[2].key.clone()]);
    }

    #[test]
    fn nothing_left_is_an_error_that_says_why() {
        let bad = |_: usize, _: &LabelledFrame| Ok(Err("has no frames".to_owned()));
        let told = shared(&[frame(900, 1)], 2, &Alone, &mut |_| {}, bad).unwrap_err().to_string();
        assert_eq!(told, "none of 1 key frames can be used; the first, v at 900: has no frames");
        let found = collected(&[frame(900, 1)], 2, &Alone, &mut |_| {}, bad).unwrap().unwrap();
        assert_eq!((found.boxes.len(), found.bad.len()), (0, 1));
    }
}
