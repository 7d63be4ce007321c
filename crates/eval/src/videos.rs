//! Samples of an evaluation, videos or pictures with labels, as features.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::features::{ClipEncoder, Features, FrozenEncoder, Keep};
use super::labels::check_not_negative;
use super::{EvalError, OnProgress, Progress};
use vjepa_collective::{Collective, Portion, turn};
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
/// As [`read_list`], [`VideoList::check_found`] and [`check_labelled`].
pub fn labelled_videos(list: &Path) -> Result<VideoList, EvalError> {
    let read = read_list(list)?;
    read.check_found()?;
    check_labelled(&read)?;
    Ok(read)
}

/// Checks that each sample of a list has one label, and none below 0.
///
/// # Errors
/// [`VideoList::check_labels`] for a sample with two labels; [`EvalError::File`] naming the line of one without a label, or with
/// one below 0.
pub fn check_labelled(list: &VideoList) -> Result<(), EvalError> {
    list.check_labels()?;
    if let Some(index) = list.entries.iter().position(|entry| entry.label.is_none()) {
        let why = format!("{} has no label; give a list of \"path label\" lines", list.location(index));
        return Err(EvalError::file(&list.path, why));
    }
    check_not_negative(list)
}

/// Samples decoded at once; a unit of work that ranks are dealt.
const DECODED_AT_ONCE: usize = 8;

/// Checks that an encoder takes the clips that a plan makes.
///
/// # Errors
/// [`EvalError::Setup`].
pub fn check_clips(encoder: &dyn ClipEncoder, plan: &SamplePlan) -> Result<(), EvalError> {
    if plan.clips() == 0 || plan.views() == 0 {
        return Err(EvalError::setup("an evaluation needs at least one clip and one view of each video"));
    }
    let [_, takes @ ..] = encoder.clip();
    let made = plan.clip_size();
    if takes != made {
        let words = |[frames, height, width]: [usize; 3]| format!("{frames} frames of {height}x{width} pixels");
        return Err(EvalError::setup(format!(
            "the encoder takes clips of {}, but they are prepared as {}",
            words(takes),
            words(made)
        )));
    }
    Ok(())
}

/// Features of samples, which `ranks` share; bad ones are named in the result and left out. `attend`: the tokens of a view's clips
/// are joined. None on ranks other than 0.
///
/// # Errors
/// [`EvalError`]: as [`check_clips`], an encoder that cannot be run, a rank that is lost; when every sample is bad.
pub fn video_features(
    encoder: &mut dyn ClipEncoder,
    plan: &SamplePlan,
    entries: &[VideoEntry],
    (keep, attend): (Keep, bool),
    ranks: &dyn Collective,
    progress: OnProgress<'_>,
) -> Result<Option<VideoFeatures>, EvalError> {
    check_clips(encoder, plan)?;
    let [tokens, dim] = encoder.tokens();
    let tokens = if keep == Keep::Tokens { tokens } else { 1 };
    let mut all = VideoFeatures { features: Features::empty(tokens, dim), ..VideoFeatures::default() };
    let what = match plan {
        SamplePlan::Videos(_) => "encoding videos",
        SamplePlan::Pictures(_) => "encoding pictures",
    };
    let mut done = 0;
    for units in entries.chunks(DECODED_AT_ONCE * ranks.world()) {
        let mine = units.chunks(DECODED_AT_ONCE).nth(ranks.rank());
        let first = (done + ranks.rank() * DECODED_AT_ONCE) as u64;
        let mine = mine.map(|unit| portion(encoder, plan, unit, first, keep)).transpose()?;
        for (unit, portion) in units.chunks(DECODED_AT_ONCE).zip(turn(ranks, mine)?) {
            all.features.values.extend(portion.values);
            for (entry, bad) in unit.iter().zip(portion.samples) {
                match bad {
                    Some(reason) => all.bad.push(BadVideo { path: entry.path.clone(), reason }),
                    None => {
                        all.labels.push(entry.label.unwrap_or(-1));
                        all.paths.push(entry.path.clone());
                    }
                }
            }
        }
        done += units.len();
        progress(Progress { what, done, total: entries.len() });
    }
    if ranks.rank() != 0 {
        return Ok(None);
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
    Ok(Some(all))
}

/// Features of a unit of samples, the first of which has the number `first` in its list.
fn portion(
    encoder: &mut dyn ClipEncoder,
    plan: &SamplePlan,
    unit: &[VideoEntry],
    first: u64,
    keep: Keep,
) -> Result<Portion, EvalError> {
    let prepare = |(place, entry): (usize, &VideoEntry)| {
        refuse_stub(&entry.path).and_then(|()| plan.prepare(first + place as u64, &entry.path))
    };
    let prepared: Vec<Result<Vec<f32>, String>> = unit.par_iter().enumerate().map(prepare).collect();
    let batch = plan.clip_len() * FrozenEncoder::BATCH;
    let (mut made, mut waiting) = (Portion::default(), Vec::new());
    let mut encode = |clips: Vec<f32>, values: &mut Vec<f32>| -> Result<(), EvalError> {
        let out = encoder.encode(clips)?;
        let out = if keep == Keep::Tokens { out } else { out.pooled() };
        values.extend(out.values);
        Ok(())
    };
    for prepared in prepared {
        made.samples.push(match prepared {
            Err(reason) => Some(reason),
            Ok(clips) => {
                waiting.extend(clips);
                while waiting.len() >= batch {
                    let rest = waiting.split_off(batch);
                    encode(std::mem::replace(&mut waiting, rest), &mut made.values)?;
                }
                None
            }
        });
    }
    if !waiting.is_empty() {
        encode(waiting, &mut made.values)?;
    }
    Ok(made)
}
