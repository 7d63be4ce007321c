//! Detectors as exported models, in place of an encoder and a classifier.

use std::path::{Path, PathBuf};

use vjepa_collective::Collective;
use vjepa_data::detection::{KeyFrameClips, Placed};
use vjepa_programs::ExportedDetector;
use vjepa_runtime::{Dimension, NamedInput, Options, Session};

use super::shared::{Seen, in_pixels, read, shared};
use super::{BoxValues, LabelledFrame};
use crate::{EvalError, OnProgress};

/// The output of a detector.
const SCORES: &str = "scores";

/// Exported models of one detector, for clips of different sizes.
pub struct ExportedModels {
    record: ExportedDetector,
    classes: usize,
    models: Vec<Sized>,
}

/// A model for clips of one size.
struct Sized {
    path: PathBuf,
    session: Session,
    size: (usize, usize),
}

impl ExportedModels {
    /// Opens models that `vjepa detect export` wrote.
    ///
    /// # Errors
    /// [`EvalError::File`] for a model that is no detector, [`EvalError::Setup`] for one that cannot be opened, for models of several
    /// detectors, and for two of one size.
    pub fn open(paths: &[PathBuf], options: &Options) -> Result<Self, EvalError> {
        let mut all: Option<Self> = None;
        for path in paths {
            let (model, record, classes) = Sized::open(path, options)?;
            let Some(all) = &mut all else {
                all = Some(Self { record, classes, models: vec![model] });
                continue;
            };
            if all.record != record || all.classes != classes {
                let first = all.models.first().map(|model| model.path.display().to_string()).unwrap_or_default();
                let why = format!(
                    "is of another detector than {first}: give models that were exported from one detector's file"
                );
                return Err(EvalError::file(path, why));
            }
            if let Some(same) = all.models.iter().find(|other| other.size == model.size) {
                let why = format!("takes clips of the same size as {}: give one of them", same.path.display());
                return Err(EvalError::file(path, why));
            }
            all.models.push(model);
        }
        all.ok_or_else(|| EvalError::setup("no exported model was given"))
    }

    /// Scores `f32[boxes, actions]` of the boxes of key frames, as [`super::BoxEncoder::extract`] makes features; none on ranks
    /// other than 0.
    ///
    /// # Errors
    /// [`EvalError::Setup`] for a video whose clips no model takes, and when no key frame is left; [`EvalError::Data`] where videos
    /// cannot be reached; [`EvalError::Collective`] where a rank is lost.
    pub fn scores(
        &self,
        frames: &[LabelledFrame],
        ranks: &dyn Collective,
        progress: OnProgress<'_>,
    ) -> Result<Option<BoxValues>, EvalError> {
        let ExportedDetector { record, patch, normalization, grayscale, .. } = &self.record;
        let clips = KeyFrameClips {
            frames: record.frames,
            step: record.step,
            side: record.side,
            patch: *patch,
            normalization: *normalization,
            grayscale: *grayscale,
        };
        shared(frames, self.classes, ranks, progress, |_, frame| {
            let clip = match read(&clips, frame, None)? {
                Ok(clip) => clip,
                Err(why) => return Ok(Err(why)),
            };
            let boxes = in_pixels(clip.placed, &frame.regions);
            let values = self.model(frame, clip.placed)?.run((record.frames, self.classes), &clip.values, &boxes)?;
            Ok(Ok(Seen { shown: vec![true; frame.regions.len()], values, beyond: clip.beyond }))
        })
    }

    /// The model that takes the clips of a video.
    fn model(&self, frame: &LabelledFrame, placed: Placed) -> Result<&Sized, EvalError> {
        let (height, width) = placed.size;
        self.models.iter().find(|model| model.size == placed.size).ok_or_else(|| {
            EvalError::setup(format!(
                "{} makes clips of {width}x{height} pixels, which no model given takes: write one with `vjepa detect export \
                 --height {height} --width {width}` and give it with another --model",
                frame.path.display()
            ))
        })
    }
}

impl Sized {
    /// Opens a model, with what it says of itself and its number of actions.
    fn open(path: &Path, options: &Options) -> Result<(Self, ExportedDetector, usize), EvalError> {
        let options = Options { any_inputs: true, ..options.clone() };
        let session = Session::open(path, &options).map_err(|error| EvalError::setup(error.to_string()))?;
        let record = ExportedDetector::from_metadata(session.metadata()).map_err(|why| EvalError::file(path, why))?;
        let strange = |what: &str| EvalError::file(path, format!("{what}: export it again with `vjepa detect export`"));
        let clip = session.inputs().iter().find(|input| input.name == "clip").map(|input| input.shape.as_slice());
        let size = match clip {
            Some([_, _, frames, Dimension::Size(height), Dimension::Size(width)])
                if frames.size() == Some(record.record.frames) =>
            {
                (*height, *width)
            }
            _ => return Err(strange("takes other clips than it says")),
        };
        let scores =
            session.outputs().iter().find(|output| output.name == SCORES).map(|output| output.shape.as_slice());
        let Some([_, Dimension::Size(classes @ 1..)]) = scores else {
            return Err(strange("gives no scores f32[boxes, actions]"));
        };
        let classes = *classes;
        Ok((Self { path: path.to_owned(), session, size }, record, classes))
    }

    /// Scores `f32[boxes, classes]` of boxes `f32[boxes, 5]` of one clip.
    fn run(&self, (frames, classes): (usize, usize), clip: &[f32], boxes: &[f32]) -> Result<Vec<f32>, EvalError> {
        let failed = |error: vjepa_runtime::SessionError| EvalError::file(&self.path, error);
        let (clip_shape, boxes_shape) = ([1, 3, frames, self.size.0, self.size.1], [boxes.len() / 5, 5]);
        let inputs = [
            NamedInput::new("clip", &clip_shape, clip).map_err(failed)?,
            NamedInput::new("boxes", &boxes_shape, boxes).map_err(failed)?,
        ];
        let outputs = self.session.run_named(&inputs).map_err(failed)?;
        let scores = outputs.into_iter().find(|output| output.name == SCORES);
        let scores = scores.ok_or_else(|| EvalError::file(&self.path, "lost its scores"))?.data;
        fits(scores.len(), boxes.len() / 5, classes).map_err(|why| EvalError::file(&self.path, why))?;
        Ok(scores)
    }
}

/// Refuses a number of scores that are not those of so many boxes.
fn fits(scores: usize, boxes: usize, classes: usize) -> Result<(), String> {
    match boxes.checked_mul(classes) == Some(scores) {
        true => Ok(()),
        false => Err(format!(
            "gave {scores} scores for {boxes} boxes of {classes} actions each: export it again with `vjepa detect export`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_as_many_as_boxes_have_actions() {
        assert_eq!(fits(12, 3, 4), Ok(()));
        for (scores, boxes, classes) in [(11, 3, 4), (0, 3, 4), (12, 4, 4), (1, usize::MAX, 2)] {
            let told = fits(scores, boxes, classes).unwrap_err();
            assert!(told.contains(&format!("{scores} scores for {boxes} boxes of {classes} actions")), "{told}");
        }
    }
}
