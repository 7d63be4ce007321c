//! Labelled video files as an evaluation sees them: several clips a video, several views a clip.
//!
//! As in the official evaluations, nothing is random: clips start at the beginning of equal parts of the video (and overlap
//! where it is short); a single view is the centre as the record frames it, more are spread along the long side.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::features::{Features, FrozenEncoder, Keep};
use super::labels::check_not_negative;
use super::{EvalError, OnProgress, Progress};
use crate::config::{Framing, Preprocessing, Sampling};
use crate::data::sampling::ClipSampler;
use crate::data::transforms::{EvalTransform, Frames, Normalise, Views};
use crate::data::{SMALLEST_FILE, VideoEntry, VideoList, read_list};

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

/// Features of labelled videos.
#[derive(Clone, Debug, Default)]
pub struct VideoFeatures {
    /// For each good video, view after view, the tokens of its clips joined along N: `[videos · views, clips · N, D]`.
    pub features: Features,
    /// Label of each good video, as its list has it.
    pub labels: Vec<i64>,
    /// The good videos.
    pub paths: Vec<PathBuf>,
    /// The bad ones.
    pub bad: Vec<BadVideo>,
}

/// Reads a list of labelled videos.
///
/// # Errors
/// As [`read_list`] and [`VideoList::check_found`]; [`EvalError::File`] for a list where a video has no label, or one below 0.
pub fn labelled_videos(list: &Path) -> Result<VideoList, EvalError> {
    let read = read_list(list)?;
    read.check_found()?;
    if let Some(index) = read.entries.iter().position(|entry| entry.label.is_none()) {
        let why = format!("{} has no label; give a list of \"path label\" lines", read.place(index));
        return Err(EvalError::file(list, why));
    }
    check_not_negative(&read)?;
    Ok(read)
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

/// Replaces each pixel's colours by their luma (BT.601 weights, in 1/256), as training does.
fn to_luma(rgb: &mut [u8]) {
    for pixel in rgb.chunks_exact_mut(3) {
        if let [r, g, b] = pixel {
            let luma = ((77 * u32::from(*r) + 150 * u32::from(*g) + 29 * u32::from(*b) + 128) >> 8) as u8;
            (*r, *g, *b) = (luma, luma, luma);
        }
    }
}

/// Videos decoded at once while the encoder works on those before them.
const DECODED_AT_ONCE: usize = 8;

/// Features of videos; bad videos are named in the result and left out.
///
/// # Errors
/// [`EvalError`]: a plan without clips or views, an encoder that cannot be run; when every video is bad.
pub fn video_features(
    encoder: &mut FrozenEncoder,
    plan: &ViewPlan,
    entries: &[VideoEntry],
    keep: Keep,
    progress: OnProgress<'_>,
) -> Result<VideoFeatures, EvalError> {
    if plan.clips == 0 || plan.views == 0 {
        return Err(EvalError::setup("an evaluation needs at least one clip and one view of each video"));
    }
    let config = encoder.config();
    let expected = config.channels * config.num_frames * config.height * config.width;
    if expected != plan.clip_len() {
        return Err(EvalError::setup(format!(
            "the encoder takes clips of {} frames of {}x{} pixels, but they are prepared as {} frames of {} pixels",
            config.num_frames, config.height, config.width, plan.preprocessing.num_frames, plan.preprocessing.crop_size
        )));
    }
    let (tokens, dim) = (if keep == Keep::Tokens { config.tokens() } else { 1 }, config.embed_dim);
    let mut all = VideoFeatures { features: Features::empty(tokens, dim), ..VideoFeatures::default() };
    for (round, group) in entries.chunks(DECODED_AT_ONCE).enumerate() {
        let prepared: Vec<Result<Vec<f32>, String>> = group.par_iter().map(|entry| plan.prepare(&entry.path)).collect();
        for (entry, clips) in group.iter().zip(prepared) {
            match clips {
                Err(reason) => all.bad.push(BadVideo { path: entry.path.clone(), reason }),
                Ok(clips) => {
                    for batch in clips.chunks(plan.clip_len() * FrozenEncoder::BATCH) {
                        let out = encoder.encode(batch.to_vec())?;
                        let out = if keep == Keep::Tokens { out } else { out.pooled() };
                        all.features.values.extend(out.values);
                    }
                    all.labels.push(entry.label.unwrap_or(-1));
                    all.paths.push(entry.path.clone());
                }
            }
        }
        let done = (round * DECODED_AT_ONCE + group.len()).min(entries.len());
        progress(Progress { what: "encoding videos", done, total: entries.len() });
    }
    if all.paths.is_empty() {
        let first = all.bad.first().map(|bad| format!("; the first, {}: {}", bad.path.display(), bad.reason));
        return Err(EvalError::setup(format!(
            "none of the {} videos can be used{}",
            entries.len(),
            first.unwrap_or_default()
        )));
    }
    all.features = all.features.join_segments(plan.clips)?;
    Ok(all)
}
