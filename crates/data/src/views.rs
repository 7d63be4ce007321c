//! The clips and views of a video for an evaluation or a deployed model.
//!
//! Nothing is random unless it is asked for: clips start at the beginning of equal parts of the video (and overlap where it is
//! short); a single view is the centre as the record frames it, several are spread along the long side. The official evaluation
//! leaves its validation clips random, which [`ViewPlan::random`] follows, by a seed.

use std::path::{Path, PathBuf};

use vjepa_recipe::rng::{NumpyRng, Stream};
use vjepa_runtime::preprocess::View;
use vjepa_runtime::{Preprocessing, Sampling};

use super::media::Opener;
use super::sampling::ClipSampler;

/// Which clips of a video are prepared, and how.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewPlan {
    /// How clips are prepared.
    pub preprocessing: Preprocessing,
    /// Clips per video.
    pub clips: usize,
    /// Views per clip.
    pub views: usize,
    /// Clips start anywhere in their parts, drawn by this seed and the video's number, as the official evaluation does it.
    pub random: Option<u64>,
}

/// A video that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BadVideo {
    /// The file.
    pub path: PathBuf,
    /// Why not.
    pub reason: String,
}

impl ViewPlan {
    /// Values of one prepared clip.
    pub fn clip_len(&self) -> usize {
        self.preprocessing.clip_len()
    }

    /// All views of all clips of a video, view-major: `[views, clips, 3, T, S, S]`. `number` is what random starts are drawn by.
    ///
    /// # Errors
    /// Why the video cannot be used, without its name.
    pub fn prepare(&self, number: u64, path: &Path) -> Result<Vec<f32>, String> {
        let record = &self.preprocessing;
        let mut video = Opener::shared().open(path).map_err(|error| error.reason(path))?;
        let sampler = ClipSampler {
            num_clips: self.clips,
            random: self.random.is_some(),
            allow_overlap: true,
            exact: record.sampling == Sampling::Exact,
            ..ClipSampler::pretrain(record.num_frames, record.sampling_rate)
        };
        let mut starts = self.random.map(|seed| NumpyRng::keyed(seed, Stream::Clips, number));
        let draw = |low, high| starts.as_mut().map_or(low, |starts| starts.randint(low, high));
        let clips = sampler.sample(video.info().frames, draw).map_err(|error| error.to_string())?;
        let len = self.clip_len();
        let mut out = vec![0f32; self.views * self.clips * len];
        for (number, indices) in clips.iter().enumerate() {
            let clip = video.decode(indices)?;
            let pictures = clip.rgb();
            for index in 0..self.views {
                let slot = (index * self.clips + number) * len;
                let view = View { index, count: self.views };
                record
                    .prepare_view(&pictures, clip.height, clip.width, view, &mut out[slot..slot + len])
                    .map_err(|error| error.to_string())?;
            }
        }
        Ok(out)
    }
}
