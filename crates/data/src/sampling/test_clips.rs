//! Which frames and crops the test of a fine-tuned model reads (MCG-NJU/VideoMAE `kinetics.py` and `ssv2.py`, mode `test`).
//!
//! Unlike the frozen evaluation's, these clips have a true step, and the last crop reaches the last pixel.

use super::SamplingError;

/// The clips of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestClips {
    /// Every `step`-th frame of the video makes a row, whose last frame is repeated where it is too short; clips start at even
    /// distances in it, the last one so that it ends with the row. Kinetics: 5 clips of 16 frames, step 4.
    Strided {
        /// Frames of a clip.
        frames: usize,
        /// Video frames from one to the next.
        step: usize,
        /// Clips of a video.
        clips: usize,
    },
    /// The beginning and the middle of each of `frames` equal parts of the video, sorted, dealt out in turn to two clips.
    /// Something-Something: 2 clips of 16 frames.
    Dealt {
        /// Frames of a clip.
        frames: usize,
    },
}

impl TestClips {
    /// 5 clips of 16 frames, every fourth one.
    pub const KINETICS: Self = Self::Strided { frames: 16, step: 4, clips: 5 };
    /// 2 clips of 16 frames, each over the whole video.
    pub const SSV2: Self = Self::Dealt { frames: 16 };

    /// Frame indices of each clip of a video of `total` frames.
    ///
    /// # Errors
    /// [`SamplingError`]: no frames, a setting of zero.
    pub fn sample(&self, total: usize) -> Result<Vec<Vec<usize>>, SamplingError> {
        let positive = |name, value| if value == 0 { Err(SamplingError::Zero(name)) } else { Ok(()) };
        if total == 0 {
            return Err(SamplingError::Empty);
        }
        match *self {
            Self::Strided { frames, step, clips } => {
                positive("frames_per_clip", frames)?;
                positive("sampling_rate", step)?;
                positive("num_clips", clips)?;
                Ok(strided(total, frames, step, clips))
            }
            Self::Dealt { frames } => {
                positive("frames_per_clip", frames)?;
                let part = total as f64 / frames as f64;
                let middle = (0..frames).map(|index| (part / 2.0 + part * index as f64) as usize);
                let mut all: Vec<usize> =
                    middle.chain((0..frames).map(|index| (part * index as f64) as usize)).collect();
                all.sort_unstable();
                Ok((0..2).map(|view| all.iter().copied().skip(view).step_by(2).collect()).collect())
            }
        }
    }
}

fn strided(total: usize, frames: usize, step: usize, clips: usize) -> Vec<Vec<usize>> {
    let row: Vec<usize> = (0..total).step_by(step).collect();
    let last = row.last().copied().unwrap_or(0);
    let apart = row.len().saturating_sub(frames) as f64 / clips.saturating_sub(1).max(1) as f64;
    let clip = |index: usize| {
        let start = (index as f64 * apart) as usize;
        (start..start + frames).map(|at| row.get(at).copied().unwrap_or(last)).collect()
    };
    (0..clips).map(clip).collect()
}

/// Where `count` crops of `size` pixels begin along a side of `long`: evenly from its first pixel to its last. A single one
/// begins at 0, as the rule of the source gives it. The frozen evaluation's crops are [`vjepa_runtime::preprocess::View`]'s.
pub fn crop_starts(long: usize, size: usize, count: usize) -> Vec<usize> {
    let apart = long.saturating_sub(size) as f64 / count.saturating_sub(1).max(1) as f64;
    (0..count).map(|index| (index as f64 * apart) as usize).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_and_zero_are_errors() {
        assert_eq!(TestClips::KINETICS.sample(0), Err(SamplingError::Empty));
        assert_eq!(TestClips::Dealt { frames: 0 }.sample(9), Err(SamplingError::Zero("frames_per_clip")));
        let zero = TestClips::Strided { frames: 16, step: 0, clips: 5 };
        assert_eq!(zero.sample(9), Err(SamplingError::Zero("sampling_rate")));
    }

    proptest! {
        #[test]
        fn indices_are_in_range_and_ordered(
            (total, frames, step, clips) in (1usize..500, 1usize..40, 1usize..9, 1usize..9), dealt in any::<bool>(),
        ) {
            let test = if dealt { TestClips::Dealt { frames } } else { TestClips::Strided { frames, step, clips } };
            for clip in test.sample(total).unwrap() {
                prop_assert_eq!(clip.len(), frames);
                prop_assert!(clip.iter().all(|&index| index < total));
                prop_assert!(clip.windows(2).all(|two| two[0] <= two[1]));
            }
        }
    }
}
