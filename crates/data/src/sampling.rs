//! Which frames of a video make up its clips (official `datasets/video_dataset.py`).
//!
//! The official spacing is not the one asked for: 16 frames at step 4 are `linspace` over 64 frames with both ends, so
//! 64/15 = 4.27 apart, truncated: 0, 4, 8, 12, 17, ... Released models were trained on that, so it is the default here;
//! [`ClipSampler::exact`] gives a true step instead.
//!
//! V-JEPA 2 gives the step as frames a second ([`Spacing::Fps`]), so that clips of all videos move alike.

/// How clips are cut from a video.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClipSampler {
    /// Frames of a clip.
    pub frames_per_clip: usize,
    /// Video frames from one clip frame to the next.
    pub frame_step: usize,
    /// Clips per video, each from its own equal part of it.
    pub num_clips: usize,
    /// Whether a clip starts anywhere in its part (pre-training) or at its beginning (evaluation).
    pub random: bool,
    /// Where parts are shorter than a clip: whether clips may overlap instead of repeating their last frame.
    pub allow_overlap: bool,
    /// A true step between frames instead of the official `linspace`.
    pub exact: bool,
    /// Refuse videos shorter than a clip instead of repeating frames.
    pub filter_short: bool,
}

/// Why a video gives no clips.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SamplingError {
    /// The video has no frames.
    #[error("the video has no frames")]
    Empty,
    /// The video is shorter than a clip and such videos are filtered.
    #[error("the video has {frames} frames, fewer than the {needed} of a clip")]
    TooShort {
        /// Frames of the video.
        frames: usize,
        /// Frames a clip spans.
        needed: usize,
    },
    /// A setting is zero.
    #[error("`{0}` must be at least 1")]
    Zero(&'static str),
    /// The video has fewer frames a second than a clip.
    #[error("the video has {average} frames a second, fewer than the {fps} of a clip (`data.fps`)")]
    TooSlow {
        /// Average frames a second of the video.
        average: f64,
        /// Frames a second of a clip.
        fps: f64,
    },
    /// A clip of this duration has more frames than the video in that time.
    #[error("{seconds} s of the video, at {average} frames a second, are fewer than the {frames} frames of a clip")]
    TooBrief {
        /// Duration of a clip.
        seconds: f64,
        /// Average frames a second of the video.
        average: f64,
        /// Frames of a clip.
        frames: usize,
    },
}

/// How far apart the frames of a clip are (official `frame_step`, `fps` and `duration` of V-JEPA 2's `VideoDataset`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spacing {
    /// Video frames from one clip frame to the next.
    Step(usize),
    /// Clip frames a second.
    Fps(f64),
    /// Seconds that a clip lasts.
    Duration(f64),
}

impl Spacing {
    /// The step in a video of `average` frames a second, which is rounded up first.
    ///
    /// # Errors
    /// [`SamplingError::TooSlow`] and [`SamplingError::TooBrief`] where the step would be 0; the official code fails an
    /// assertion there.
    pub fn step(self, average: f64, frames_per_clip: usize) -> Result<usize, SamplingError> {
        // Casts truncate and saturate; not a number becomes 0.
        match self {
            Self::Step(step) => Ok(step),
            Self::Fps(fps) => match (average.ceil() / fps).floor() as usize {
                0 => Err(SamplingError::TooSlow { average, fps }),
                step => Ok(step),
            },
            Self::Duration(seconds) => match (seconds * average.ceil() / frames_per_clip.max(1) as f64) as usize {
                0 => Err(SamplingError::TooBrief { seconds, average, frames: frames_per_clip }),
                step => Ok(step),
            },
        }
    }
}

impl ClipSampler {
    /// One official pre-training clip: random start, short videos repeat their last frame.
    pub fn pretrain(frames_per_clip: usize, frame_step: usize) -> Self {
        Self {
            frames_per_clip,
            frame_step,
            num_clips: 1,
            random: true,
            allow_overlap: false,
            exact: false,
            filter_short: false,
        }
    }

    /// Video frames that a clip spans.
    pub fn clip_len(&self) -> usize {
        if self.exact {
            let steps = self.frames_per_clip.saturating_sub(1);
            steps.saturating_mul(self.frame_step).saturating_add(1)
        } else {
            self.frames_per_clip.saturating_mul(self.frame_step)
        }
    }

    /// Frame indices of each clip of a video of `frames` frames. `draw(low, high)` returns an integer in [low, high), as
    /// `np.random.randint` does; it is called once per random clip, for the clip's (exclusive) end within its part. What
    /// it returns is clamped to that range.
    ///
    /// # Errors
    /// [`SamplingError`]: no frames, a filtered short video, or a setting of zero.
    pub fn sample(
        &self,
        frames: usize,
        mut draw: impl FnMut(usize, usize) -> usize,
    ) -> Result<Vec<Vec<usize>>, SamplingError> {
        for (key, value) in [
            ("frames_per_clip", self.frames_per_clip),
            ("sampling_rate", self.frame_step),
            ("num_clips", self.num_clips),
        ] {
            if value == 0 {
                return Err(SamplingError::Zero(key));
            }
        }
        if frames == 0 {
            return Err(SamplingError::Empty);
        }
        let clip_len = self.clip_len();
        if self.filter_short && frames < clip_len {
            let needed = clip_len;
            return Err(SamplingError::TooShort { frames, needed });
        }
        let part = frames / self.num_clips;
        // The official code wants a part *longer* than the clip, and so never draws the last possible end.
        let longest = if self.exact { part + 1 } else { part };
        let clip = |index: usize| {
            if longest > clip_len {
                let end = if self.random { draw(clip_len, longest).clamp(clip_len, longest - 1) } else { clip_len };
                self.spread(end - clip_len, end, index * part)
            } else if self.allow_overlap {
                self.overlapping(index, frames)
            } else {
                self.padded(part, index * part, frames)
            }
        };
        Ok((0..self.num_clips).map(clip).collect())
    }

    /// A clip that fits, from `start` to before `end`.
    fn spread(&self, start: usize, end: usize, offset: usize) -> Vec<usize> {
        if self.exact {
            return self.stepped(end - 1 - start, offset + start);
        }
        let positions = linspace(start, end, self.frames_per_clip);
        positions.map(|x| offset + (x as usize).clamp(start, end - 1)).collect()
    }

    /// A clip that may run into the next part: starts spread over the video, frames repeated if that is too short, too.
    fn overlapping(&self, index: usize, frames: usize) -> Vec<usize> {
        let clip_len = self.clip_len();
        // With a single clip the part is the whole video, so there is nothing left over to spread.
        let shift = frames.saturating_sub(clip_len) / (self.num_clips - 1).max(1) * index;
        if self.exact {
            return self.stepped(clip_len.min(frames) - 1, shift);
        }
        self.padded(clip_len.min(frames) - 1, shift, frames)
    }

    /// As many frames as the step allows over `len` video frames, the last one repeated to fill the clip.
    fn padded(&self, len: usize, offset: usize, frames: usize) -> Vec<usize> {
        let Some(last) = len.checked_sub(1) else {
            // Fewer frames than clips: the official index is -1, the last frame of the video.
            return vec![frames - 1; self.frames_per_clip];
        };
        if self.exact {
            return self.stepped(last, offset);
        }
        let spread = linspace(0, len, len / self.frame_step);
        let positions = spread.chain(std::iter::repeat(len as f64)).take(self.frames_per_clip);
        positions.map(|x| offset + (x as usize).min(last)).collect()
    }

    /// Every `frame_step`-th frame from `offset` on, none more than `last` after it.
    fn stepped(&self, last: usize, offset: usize) -> Vec<usize> {
        (0..self.frames_per_clip).map(|frame| offset + frame.saturating_mul(self.frame_step).min(last)).collect()
    }
}

/// The frame step that makes a clip of `frames_per_clip` frames last `seconds` in a video of `fps`; V-JEPA 1's
/// `clip_duration`, which does not round the rate. At least 1.
pub fn step_for_duration(seconds: f64, fps: f64, frames_per_clip: usize) -> usize {
    // A float-to-integer cast truncates and saturates; NaN becomes 0.
    ((seconds * fps / frames_per_clip.max(1) as f64) as usize).max(1)
}

/// `np.linspace(start, stop, num)`: both ends, and the last value exactly `stop` (unless it is the only one).
fn linspace(start: usize, stop: usize, num: usize) -> impl Iterator<Item = f64> {
    let (first, last) = (start as f64, stop as f64);
    let step = (last - first) / num.saturating_sub(1).max(1) as f64;
    (0..num).map(move |i| if i > 0 && i + 1 == num { last } else { first + i as f64 * step })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn no_draw(_: usize, _: usize) -> usize {
        panic!("deterministic sampling must not draw")
    }

    fn deterministic() -> ClipSampler {
        ClipSampler { random: false, ..ClipSampler::pretrain(16, 4) }
    }

    #[test]
    fn official_spacing_is_not_the_step() {
        let clips = deterministic().sample(300, no_draw).unwrap();
        let want = [0, 4, 8, 12, 17, 21, 25, 29, 34, 38, 42, 46, 51, 55, 59, 63];
        assert_eq!(clips, [want]);
    }

    #[test]
    fn exact_spacing_is_the_step() {
        let sampler = ClipSampler { exact: true, ..deterministic() };
        assert_eq!(sampler.clip_len(), 61);
        let clips = sampler.sample(61, no_draw).unwrap();
        assert_eq!(clips[0], (0..16).map(|i| i * 4).collect::<Vec<_>>());
        // 61 frames fit once, so a random clip has one place to be.
        let random = ClipSampler { random: true, ..sampler };
        let mut range = None;
        let clips = random.sample(62, |low, high| {
            range = Some((low, high));
            high - 1
        });
        assert_eq!(range, Some((61, 63)));
        assert_eq!(clips.unwrap()[0][15], 61);
    }

    #[test]
    fn short_videos_repeat_their_last_frame() {
        let clips = deterministic().sample(10, no_draw).unwrap();
        assert_eq!(clips[0][..3], [0, 9, 9]);
        // With overlap the official code never reaches the last frame.
        let overlap = ClipSampler { allow_overlap: true, ..deterministic() };
        assert_eq!(overlap.sample(10, no_draw).unwrap()[0][..3], [0, 8, 8]);
    }

    #[test]
    fn fewer_frames_than_clips_gives_the_last_frame() {
        let sampler = ClipSampler { num_clips: 8, ..deterministic() };
        assert!(sampler.sample(3, no_draw).unwrap().iter().flatten().all(|&frame| frame == 2));
    }

    #[test]
    fn errors() {
        assert_eq!(deterministic().sample(0, no_draw), Err(SamplingError::Empty));
        let filter = ClipSampler { filter_short: true, ..deterministic() };
        let error = filter.sample(63, no_draw).unwrap_err();
        assert_eq!(error.to_string(), "the video has 63 frames, fewer than the 64 of a clip");
        assert!(filter.sample(64, no_draw).is_ok());
        let zero = ClipSampler { num_clips: 0, ..filter };
        assert_eq!(zero.sample(64, no_draw), Err(SamplingError::Zero("num_clips")));
    }

    #[test]
    fn duration_sets_the_step() {
        assert_eq!(step_for_duration(4.0, 30.0, 16), 7);
        assert_eq!(step_for_duration(0.1, 10.0, 16), 1);
        assert_eq!(step_for_duration(f64::NAN, 10.0, 0), 1);
    }

    #[test]
    fn frames_a_second_are_the_official_ones() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let folders = [root.join("tests/golden/vjepa2_train"), root.join("../shared/golden/vjepa2_train")];
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            let text = std::fs::read_to_string(folder.join("fps_sampling.json")).unwrap();
            let recorded: serde_json::Value = serde_json::from_str(&text).unwrap();
            let rows = recorded["rows"].as_array().unwrap();
            assert!(rows.len() >= 180, "{}", folder.display());
            for row in rows {
                let size = |key: &str| row[key].as_u64().map(|value| value as usize);
                let real = |key: &str| row[key].as_f64();
                let spacing = match (real("fps"), real("duration"), size("frame_step")) {
                    (Some(fps), None, None) => Spacing::Fps(fps),
                    (None, Some(seconds), None) => Spacing::Duration(seconds),
                    (None, None, Some(step)) => Spacing::Step(step),
                    other => panic!("{other:?}"),
                };
                let frames_per_clip = size("frames_per_clip").unwrap();
                let mut rng = vjepa_recipe::rng::NumpyRng::new(size("np_seed").unwrap() as u32);
                let clips = spacing.step(real("avg_fps").unwrap(), frames_per_clip).and_then(|step| {
                    let sampler = ClipSampler {
                        num_clips: size("num_clips").unwrap_or(1),
                        random: row["random"].as_bool().unwrap(),
                        allow_overlap: row["allow_clip_overlap"].as_bool().unwrap_or(false),
                        ..ClipSampler::pretrain(frames_per_clip, step)
                    };
                    sampler.sample(size("num_frames").unwrap(), |low, high| rng.randint(low, high))
                });
                let wanted: Option<Vec<Vec<usize>>> = serde_json::from_value(row["indices"].clone()).unwrap();
                assert_eq!(clips.as_ref().ok(), wanted.as_ref(), "{row}: {clips:?}");
            }
        }
    }

    #[test]
    fn a_slow_video_is_named() {
        let error = Spacing::Fps(4.0).step(3.0, 16).unwrap_err();
        assert_eq!(error.to_string(), "the video has 3 frames a second, fewer than the 4 of a clip (`data.fps`)");
        assert!(Spacing::Fps(4.0).step(f64::NAN, 16).is_err() && Spacing::Duration(0.1).step(30.0, 16).is_err());
        assert_eq!(Spacing::Fps(4.0).step(29.97, 16), Ok(7));
    }

    proptest! {
        #[test]
        fn indices_are_in_range_and_ordered(
            (frames, frames_per_clip, frame_step, num_clips) in (1usize..500, 1usize..20, 1usize..9, 1usize..10),
            (random, allow_overlap, exact) in any::<(bool, bool, bool)>(),
            wild in any::<usize>(),
        ) {
            let sampler = ClipSampler {
                frames_per_clip, frame_step, num_clips, random, allow_overlap, exact, filter_short: false,
            };
            let clips = sampler.sample(frames, |_, _| wild).unwrap();
            prop_assert_eq!(clips.len(), num_clips);
            for clip in clips {
                prop_assert_eq!(clip.len(), frames_per_clip);
                prop_assert!(clip.iter().all(|&index| index < frames));
                prop_assert!(clip.windows(2).all(|two| two[0] <= two[1]));
                if exact && frames / num_clips >= sampler.clip_len() {
                    prop_assert!(clip.windows(2).all(|two| two[1] - two[0] == frame_step));
                }
            }
        }
    }
}
