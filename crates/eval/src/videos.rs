//! Samples of an evaluation, videos or pictures with labels, as features.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::features::{ClipEncoder, Features, FrozenEncoder, Keep};
use super::labels::check_not_negative;
use super::{EvalError, OnProgress, Progress};
use vjepa_data::{BadVideo, SamplePlan, VideoEntry, VideoList, read_list, refuse_stub};

/// Features of labelled samples.
#[derive(Clone, Debug, Default)]
pub struct VideoFeatures {
    /// For each good sample, view after view: the tokens of its clips joined along N, `[samples · views, clips · N, D]`, or where
    /// clips are apart `[samples · views · clips, N, D]`.
    pub features: Features,
    /// Label of each good sample, as its list has it.
    pub labels: Vec<i64>,
    /// The good samples.
    pub paths: Vec<PathBuf>,
    /// The bad ones.
    pub bad: Vec<BadVideo>,
}

impl VideoFeatures {
    /// Rows of features of a sample.
    pub fn rows(&self) -> usize {
        self.features.len() / self.labels.len().max(1)
    }

    /// The samples of these paths, in the order in which they are here.
    pub fn of_paths(&self, wanted: &std::collections::BTreeSet<&Path>) -> Self {
        let chosen: Vec<usize> = self
            .paths
            .iter()
            .enumerate()
            .filter(|(_, path)| wanted.contains(path.as_path()))
            .map(|(at, _)| at)
            .collect();
        let rows = self.rows();
        let all: Vec<usize> = chosen.iter().flat_map(|at| at * rows..(at + 1) * rows).collect();
        Self {
            features: self.features.select(&all),
            labels: chosen.iter().filter_map(|at| self.labels.get(*at).copied()).collect(),
            paths: chosen.iter().filter_map(|at| self.paths.get(*at).cloned()).collect(),
            bad: self.bad.iter().filter(|bad| wanted.contains(bad.path.as_path())).cloned().collect(),
        }
    }
}

/// Reads a list of labelled videos or pictures.
///
/// # Errors
/// As [`read_list`] and [`VideoList::check_found`]; [`EvalError::File`] for a list where a sample has no label, or one below 0.
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

/// Samples decoded at once while the encoder works on those before them.
const DECODED_AT_ONCE: usize = 8;

/// Checks that an encoder takes the clips that a plan makes.
///
/// # Errors
/// [`EvalError::Setup`].
pub fn check_clips(encoder: &dyn ClipEncoder, plan: &SamplePlan) -> Result<(), EvalError> {
    if plan.clips() == 0 || plan.views() == 0 {
        return Err(EvalError::setup("an evaluation needs at least one clip and one view of each video"));
    }
    let [channels, frames, height, width] = encoder.clip();
    if channels * frames * height * width != plan.clip_len() {
        let [made, side] = plan.clip_size();
        return Err(EvalError::setup(format!(
            "the encoder takes clips of {frames} frames of {width}x{height} pixels, but they are prepared as {made} frames of {side} \
             pixels"
        )));
    }
    Ok(())
}

/// Features of samples; bad ones are named in the result and left out. `attend`: the tokens of a view's clips are joined.
///
/// # Errors
/// [`EvalError`]: as [`check_clips`], an encoder that cannot be run; when every sample is bad.
pub fn video_features(
    encoder: &mut dyn ClipEncoder,
    plan: &SamplePlan,
    entries: &[VideoEntry],
    (keep, attend): (Keep, bool),
    progress: OnProgress<'_>,
) -> Result<VideoFeatures, EvalError> {
    check_clips(encoder, plan)?;
    let [tokens, dim] = encoder.tokens();
    let tokens = if keep == Keep::Tokens { tokens } else { 1 };
    let mut all = VideoFeatures { features: Features::empty(tokens, dim), ..VideoFeatures::default() };
    let what = match plan {
        SamplePlan::Videos(_) => "encoding videos",
        SamplePlan::Pictures(_) => "encoding pictures",
    };
    for (round, group) in entries.chunks(DECODED_AT_ONCE).enumerate() {
        let first = (round * DECODED_AT_ONCE) as u64;
        let prepared: Vec<Result<Vec<f32>, String>> = group
            .par_iter()
            .enumerate()
            .map(|(place, entry)| {
                refuse_stub(&entry.path).and_then(|()| plan.prepare(first + place as u64, &entry.path))
            })
            .collect();
        let batch = plan.clip_len() * FrozenEncoder::BATCH;
        let mut waiting = Vec::new();
        let mut encode = |clips: Vec<f32>| -> Result<(), EvalError> {
            let out = encoder.encode(clips)?;
            let out = if keep == Keep::Tokens { out } else { out.pooled() };
            all.features.values.extend(out.values);
            Ok(())
        };
        for (entry, prepared) in group.iter().zip(prepared) {
            match prepared {
                Err(reason) => all.bad.push(BadVideo { path: entry.path.clone(), reason }),
                Ok(clips) => {
                    waiting.extend(clips);
                    while waiting.len() >= batch {
                        let rest = waiting.split_off(batch);
                        encode(std::mem::replace(&mut waiting, rest))?;
                    }
                    all.labels.push(entry.label.unwrap_or(-1));
                    all.paths.push(entry.path.clone());
                }
            }
        }
        if !waiting.is_empty() {
            encode(waiting)?;
        }
        let done = (round * DECODED_AT_ONCE + group.len()).min(entries.len());
        progress(Progress { what, done, total: entries.len() });
    }
    if all.paths.is_empty() {
        let first = all.bad.first().map(|bad| format!("; the first, {}: {}", bad.path.display(), bad.reason));
        let kind = if matches!(plan, SamplePlan::Videos(_)) { "videos" } else { "pictures" };
        return Err(EvalError::setup(format!(
            "none of the {} {kind} can be used{}",
            entries.len(),
            first.unwrap_or_default()
        )));
    }
    if attend {
        all.features = all.features.join_segments(plan.clips())?;
    }
    Ok(all)
}
