//! Labelled video files as an evaluation sees them: several clips a video, several views a clip.
//!
//! As in the official evaluations, nothing is random: clips start at the beginning of equal parts of the video (and overlap
//! where it is short); a single view is the centre as the record frames it, more are spread along the long side.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::features::{Features, FrozenEncoder, Keep};
use super::labels::check_not_negative;
use super::{EvalError, OnProgress, Progress};
use vjepa_data::{BadVideo, VideoEntry, VideoList, ViewPlan, read_list, refuse_stub};

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
        let why = format!("{} has no label; give a list of \"path label\" lines", read.location(index));
        return Err(EvalError::file(list, why));
    }
    check_not_negative(&read)?;
    Ok(read)
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
        let prepared: Vec<Result<Vec<f32>, String>> =
            group.par_iter().map(|entry| refuse_stub(&entry.path).and_then(|()| plan.prepare(&entry.path))).collect();
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
