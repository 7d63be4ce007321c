//! Clips before an action, for anticipating it (V-JEPA 2's evaluation on EPIC-KITCHENS-100).
//!
//! A clip ends some time before the *anchor* of an action. The official evaluation counts that time from the action's **last**
//! frame; the task as it is told, and as other codes have it, counts it from its first. Both are here.

use crate::annotations::ActionSegment;
use crate::augment::{ClipAugment, Keyed};
use crate::media::Opener;
use crate::source::{DataError, SampleKey};
use vjepa_recipe::counter::CounterRng;
use vjepa_runtime::Preprocessing;
use vjepa_runtime::preprocess::{View, to_luma};

/// Keys the draws of when a clip ends, apart from all others.
const TIMES: u64 = 0x61_6E74_6963_6970;

/// The frame of an action that the anticipation time counts back from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Anchor {
    /// Its last frame, as the official code has it in validation.
    #[default]
    Stop,
    /// Its first frame, as the task is told.
    Start,
}

impl Anchor {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stop, Self::Start];

    /// Its word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Start => "start",
        }
    }

    /// What it is.
    pub fn about(self) -> &'static str {
        match self {
            Self::Stop => "The action's last frame, as the official evaluation counts",
            Self::Start => "The action's first frame, as the task is told",
        }
    }

    /// That frame.
    fn of(self, segment: &ActionSegment) -> u64 {
        match self {
            Self::Stop => segment.stop,
            Self::Start => segment.start,
        }
    }
}

/// How clips before actions are cut.
#[derive(Clone, Debug, PartialEq)]
pub struct AnticipationClips {
    /// How frames become the encoder's input; `num_frames` of them.
    pub preprocessing: Preprocessing,
    /// Clip frames a second.
    pub fps: f64,
    /// Seconds between the clip's end and the anchor.
    pub seconds: f64,
    /// The anchor.
    pub anchor: Anchor,
}

impl AnticipationClips {
    /// The frames of a clip in a video of `rate` frames a second and `frames` in all: `num_frames` of them, `int(rate / fps)`
    /// apart, of which the next would be the one `seconds` before the anchor. Before the video begins its first frame repeats, as
    /// officially; beyond its end its last.
    ///
    /// # Errors
    /// Why there are none: a video without frames, or slower than a clip.
    pub fn indices(&self, rate: f64, frames: usize, segment: &ActionSegment) -> Result<Vec<usize>, String> {
        self.before(self.anchor.of(segment), self.seconds, (rate, frames))
    }

    /// The frames of a clip `seconds` before a frame, as [`AnticipationClips::indices`] has them.
    fn before(&self, anchor: u64, seconds: f64, (rate, frames): (f64, usize)) -> Result<Vec<usize>, String> {
        let step = (rate / self.fps) as i64;
        if step < 1 {
            return Err(format!("the video has {rate} frames a second, fewer than the {} of a clip", self.fps));
        }
        let last = i64::try_from(frames).unwrap_or(i64::MAX) - 1;
        if last < 0 {
            return Err("the video has no frames".to_owned());
        }
        let end = (anchor as f64 - seconds * rate) as i64;
        let count = self.preprocessing.num_frames as i64;
        let at = |number: i64| (end - (count - number) * step).clamp(0, last);
        Ok((0..count).map(|number| at(number) as usize).collect())
    }

    /// The clip before an action, `[3, T, H, W]` row-major and normalised: the short side resized, the centre.
    ///
    /// # Errors
    /// [`DataError::Bad`] for a video that cannot be used; [`DataError::Storage`] where videos cannot be reached.
    pub fn read(&self, opener: &Opener, segment: &ActionSegment, out: &mut [f32]) -> Result<(), DataError> {
        let path = &segment.path;
        let bad = |reason: String| DataError::Bad { path: path.clone(), reason };
        let mut media = opener.open(path).map_err(|error| error.of(path))?;
        let (rate, frames) = (media.info().average_fps(), media.info().frames);
        let indices = self.indices(rate, frames, segment).map_err(bad)?;
        let clip = media.decode(&indices).map_err(|error| bad(error.to_string()))?;
        let prepared = self.preprocessing.prepare_view(&clip.rgb(), clip.height, clip.width, View::SINGLE, out);
        prepared.map_err(|error| bad(error.to_string()))
    }
}

/// How clips before actions are drawn for training: when they end, and what is done to their pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct AnticipationDraws {
    /// The clips of evaluation: frames and rate are theirs.
    pub clips: AnticipationClips,
    /// Seconds before the anchor, drawn between both.
    pub seconds: [f64; 2],
    /// Where the anchor is, drawn between both: 0 is an action's last frame, 1 its first.
    pub point: [f64; 2],
    /// What is done to the pixels, of the side of the clips.
    pub augment: ClipAugment,
}

impl AnticipationDraws {
    /// The frame that time counts back from, and how long before it the clip of a key ends.
    fn end(&self, key: SampleKey, segment: &ActionSegment) -> (u64, f64) {
        let mut rng = CounterRng::new(&[key.seed, TIMES, key.draw()]);
        let mut between = |[from, to]: [f64; 2]| rng.uniform(from, to);
        let (seconds, point) = (between(self.seconds), between(self.point));
        let anchor = point * segment.start as f64 + (1.0 - point) * segment.stop as f64;
        (anchor as u64, seconds)
    }

    /// The clip before an action, `[3, T, S, S]` row-major and normalised, and the seconds from its end to the anchor: both are a
    /// function of the key.
    ///
    /// # Errors
    /// [`DataError::Bad`] for a video that cannot be used; [`DataError::Storage`] where videos cannot be reached.
    pub fn prepare(
        &self,
        opener: &Opener,
        key: SampleKey,
        segment: &ActionSegment,
    ) -> Result<(f64, Vec<f32>), DataError> {
        let path = &segment.path;
        let bad = |reason: String| DataError::Bad { path: path.clone(), reason };
        let mut media = opener.open(path).map_err(|error| error.of(path))?;
        let film = (media.info().average_fps(), media.info().frames);
        let (anchor, seconds) = self.end(key, segment);
        let indices = self.clips.before(anchor, seconds, film).map_err(bad)?;
        let clip = media.decode(&indices).map_err(bad)?;
        let (mut frames, size) = (clip.rgb(), (clip.height, clip.width));
        if self.clips.preprocessing.grayscale {
            frames.iter_mut().for_each(|frame| to_luma(frame));
        }
        let mut out = vec![0.0; 3 * indices.len() * self.augment.size * self.augment.size];
        let applied = self.augment.apply(frames, size, &mut Keyed::new(key, 0), &mut out);
        applied.map_err(|error| bad(error.to_string()))?;
        Ok((seconds, out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_recipe::config::DataConfig;

    fn clips(anchor: Anchor, seconds: f64) -> AnticipationClips {
        let preprocessing = DataConfig { num_frames: 4, ..DataConfig::default() }.preprocessing();
        AnticipationClips { preprocessing, fps: 8.0, seconds, anchor }
    }

    #[test]
    fn a_clip_ends_a_time_before_its_anchor() {
        let segment = ActionSegment { path: "v.mp4".into(), start: 150, stop: 200, verb: 0, noun: 0 };
        // 60 frames a second at 8: every 7th frame; the one a second before the last frame, 140, would be the next.
        assert_eq!(clips(Anchor::Stop, 1.0).indices(60.0, 1000, &segment).unwrap(), [112, 119, 126, 133]);
        assert_eq!(clips(Anchor::Start, 1.0).indices(60.0, 1000, &segment).unwrap(), [62, 69, 76, 83]);
        assert_eq!(clips(Anchor::Stop, 0.25).indices(60.0, 1000, &segment).unwrap()[3], 185 - 7);
        // Before the beginning, beyond the end.
        assert_eq!(clips(Anchor::Start, 2.3).indices(60.0, 1000, &segment).unwrap(), [0, 0, 0, 5]);
        assert_eq!(clips(Anchor::Stop, 0.0).indices(60.0, 181, &segment).unwrap(), [172, 179, 180, 180]);
        assert!(clips(Anchor::Stop, 1.0).indices(7.0, 100, &segment).unwrap_err().contains("fewer than the 8"));
        assert!(clips(Anchor::Stop, 1.0).indices(30.0, 0, &segment).is_err());
    }

    #[test]
    fn a_training_clip_is_drawn_by_its_key() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../video/tests/clips/vp9_ssv2.webm");
        let segment = ActionSegment { path, start: 20, stop: 40, verb: 0, noun: 0 };
        let draws = AnticipationDraws {
            clips: AnticipationClips { fps: 4.0, ..clips(Anchor::Stop, 1.0) },
            seconds: [0.25, 1.75],
            point: [0.0, 0.25],
            augment: ClipAugment::probe(32),
        };
        let key = |position| SampleKey { seed: 1, epoch: 2, position, retry: 0 };
        let prepare = |position| draws.prepare(Opener::shared(), key(position), &segment).unwrap();
        let (seconds, clip) = prepare(0);
        assert_eq!((clip.len(), prepare(0)), (3 * 4 * 32 * 32, (seconds, clip.clone())));
        assert!(prepare(1).0 != seconds && prepare(1).1 != clip);
        let ends: Vec<(u64, f64)> = (0..200).map(|position| draws.end(key(position), &segment)).collect();
        assert!(ends.iter().all(|(anchor, seconds)| (35..=40).contains(anchor) && (0.25..1.75).contains(seconds)));
        assert!(ends.iter().any(|(anchor, _)| *anchor == 35) && ends.iter().any(|(_, seconds)| *seconds > 1.7));
        // Nothing to draw is the clip of the evaluation.
        let fixed = AnticipationDraws { seconds: [0.5; 2], point: [1.0; 2], ..draws };
        assert_eq!(fixed.end(key(7), &segment), (20, 0.5));
    }
}
