//! The clips and views of a video that an evaluation or a deployed model looks at.
//!
//! As in the official evaluations, nothing is random: clips start at the beginning of equal parts of the video (and overlap
//! where it is short); a single view is the centre as the record frames it, more are spread along the long side.

use std::path::{Path, PathBuf};

use vjepa_runtime::preprocess::to_luma;
use vjepa_runtime::{Framing, Preprocessing, Sampling};

use super::dataset::SMALLEST_FILE;
use super::sampling::ClipSampler;
use super::transforms::{EvalTransform, Frames, Normalise, Views};

/// How a video is looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewPlan {
    /// How clips are prepared.
    pub preprocessing: Preprocessing,
    /// Clips of a video.
    pub clips: usize,
    /// Views of each clip.
    pub views: usize,
}

/// A video that could not be used.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct BadVideo {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl ViewPlan {
    /// Values of one prepared clip.
    pub fn clip_len(&self) -> usize {
        3 * self.preprocessing.num_frames * self.preprocessing.crop_size * self.preprocessing.crop_size
    }

    /// All views of all clips of a video, view-major: `[views, clips, 3, T, S, S]`.
    ///
    /// # Errors
    /// Why the video cannot be used, without its name.
    pub fn prepare(&self, path: &Path) -> Result<Vec<f32>, String> {
        let text = |error: &dyn std::fmt::Display| {
            let message = error.to_string();
            message.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&message).to_owned()
        };
        let record = &self.preprocessing;
        let size = std::fs::metadata(path).map_err(|error| format!("cannot be opened: {error}"))?.len();
        if size < SMALLEST_FILE {
            return Err(format!("has {size} bytes; files under 1 KiB are skipped, as by the official loader"));
        }
        let mut video = vjepa_video::open(path).map_err(|error| text(&error))?;
        let sampler = ClipSampler {
            num_clips: self.clips,
            random: false,
            allow_overlap: true,
            exact: record.sampling == Sampling::Exact,
            ..ClipSampler::pretrain(record.num_frames, record.sampling_rate)
        };
        let clips = sampler.sample(video.info().frames, |low, _| low).map_err(|error| text(&error))?;
        let transform = EvalTransform {
            size: record.crop_size,
            views: match (self.views, record.framing) {
                (1, Framing::Centre) => Views::Centre,
                (1, Framing::Whole) => Views::Whole,
                (views, _) => Views::Spread(views),
            },
            normalise: Normalise::from_statistics(record.normalization.statistics()),
        };
        let len = self.clip_len();
        let mut out = vec![0f32; self.views * self.clips * len];
        for (number, indices) in clips.iter().enumerate() {
            let decoded = video.frames(indices).map_err(|error| text(&error))?;
            let Some(first) = decoded.first() else { return Err("has no frames".to_owned()) };
            let (height, width) = (first.display_height(), first.display_width());
            if decoded.iter().any(|f| (f.display_height(), f.display_width()) != (height, width)) {
                return Err("changes its picture size within the clip".to_owned());
            }
            let mut frames: Vec<Vec<u8>> = decoded.iter().map(|frame| frame.rgb()).collect();
            if record.grayscale {
                frames.iter_mut().for_each(|frame| to_luma(frame));
            }
            let frames = Frames::new(&frames, height, width).map_err(|error| text(&error))?;
            for view in 0..self.views {
                let slot = (view * self.clips + number) * len;
                transform.apply(frames, view, &mut out[slot..slot + len]).map_err(|error| text(&error))?;
            }
        }
        Ok(out)
    }
}
