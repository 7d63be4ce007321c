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

/// Features of samples, which `ranks` share; bad ones are named in the result and left out. `attend`: the tokens of a view's
/// clips are joined. None on ranks other than 0.
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
    let mut whole = None;
    let mut take = |part| {
        whole = Some(part);
        Ok(())
    };
    let bad = video_features_in_parts(encoder, plan, entries, (keep, attend), ranks, usize::MAX, &mut take, progress)?;
    Ok(whole.map(|whole| VideoFeatures { bad, ..whole }))
}

/// As [`video_features`], a part at a time, which is handed on as soon as it has `most` samples or more, so that few are in
/// memory: rank 0 hands them to `take` in their order, without the bad samples, which are returned.
///
/// # Errors
/// As [`video_features`], and those of `take`.
#[allow(clippy::too_many_arguments)]
pub fn video_features_in_parts(
    encoder: &mut dyn ClipEncoder,
    plan: &SamplePlan,
    entries: &[VideoEntry],
    (keep, attend): (Keep, bool),
    ranks: &dyn Collective,
    most: usize,
    take: &mut dyn FnMut(VideoFeatures) -> Result<(), EvalError>,
    progress: OnProgress<'_>,
) -> Result<Vec<BadVideo>, EvalError> {
    check_clips(encoder, plan)?;
    let [tokens, dim] = encoder.tokens();
    let tokens = if keep == Keep::Tokens { tokens } else { 1 };
    let empty = || VideoFeatures { features: Features::empty(tokens, dim), ..VideoFeatures::default() };
    let (mut part, mut bad, mut used) = (empty(), Vec::new(), 0);
    let mut hand = |part: VideoFeatures| -> Result<(), EvalError> {
        let features = if attend { part.features.join_segments(plan.clips())? } else { part.features };
        take(VideoFeatures { features, ..part })
    };
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
            part.features.values.extend(portion.values);
            for (entry, why) in unit.iter().zip(portion.samples) {
                match why {
                    Some(reason) => bad.push(BadVideo { path: entry.path.clone(), reason }),
                    None => {
                        part.labels.push(entry.label.unwrap_or(-1));
                        part.paths.push(entry.path.clone());
                    }
                }
            }
        }
        done += units.len();
        progress(Progress { what, done, total: entries.len() });
        let full = part.paths.len() >= most || done == entries.len();
        if full && !part.paths.is_empty() {
            used += part.paths.len();
            let part = std::mem::replace(&mut part, empty());
            if ranks.rank() == 0 {
                hand(part)?;
            }
        }
    }
    if ranks.rank() == 0 && used == 0 {
        let first = bad.first().map(|bad| format!("; the first, {}: {}", bad.path.display(), bad.reason));
        let kind = if matches!(plan, SamplePlan::Videos(_)) { "videos" } else { "pictures" };
        return Err(EvalError::setup(format!(
            "none of the {} {kind} can be used{}",
            entries.len(),
            first.unwrap_or_default()
        )));
    }
    Ok(bad)
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

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_collective::Alone;
    use vjepa_data::ViewPlan;
    use vjepa_graphs::ProbeConfig;
    use vjepa_recipe::config::DataConfig;

    /// Two tokens of a clip: its mean, and 1.
    struct Means;

    impl ClipEncoder for Means {
        fn clip(&self) -> [usize; 4] {
            [3, 2, 16, 16]
        }

        fn tokens(&self) -> [usize; 2] {
            [2, 1]
        }

        fn probe(&self, _: usize) -> Result<ProbeConfig, EvalError> {
            Err(EvalError::setup("no probe reads means"))
        }

        fn describe(&self) -> String {
            "means".into()
        }

        fn encode(&mut self, clips: Vec<f32>) -> Result<Features, EvalError> {
            let mean = |clip: &[f32]| [clip.iter().sum::<f32>() / clip.len() as f32, 1.0];
            let values = clips.chunks_exact(3 * 2 * 16 * 16).flat_map(mean).collect();
            Ok(Features { tokens: 2, dim: 1, values })
        }
    }

    #[test]
    fn parts_are_the_whole_and_bad_samples_are_in_none() {
        let data = DataConfig { num_frames: 2, crop_size: 16, sampling_rate: 1, ..DataConfig::default() };
        let plan =
            SamplePlan::Videos(ViewPlan { preprocessing: data.preprocessing(), clips: 2, views: 1, random: None });
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/textures");
        let video = |name: &str| VideoEntry { path: folder.join(name), label: Some(3) };
        let mut entries = vec![video("t0_d0_s0.mp4"); 19];
        entries.extend([video("absent.mp4"), video("t0_d0_s1.webm")]);
        let how = (Keep::Tokens, true);
        let of = |entries: &[VideoEntry], most: usize| {
            let mut parts = Vec::new();
            let mut take = |part: VideoFeatures| {
                parts.push(part);
                Ok(())
            };
            let found = video_features_in_parts(&mut Means, &plan, entries, how, &Alone, most, &mut take, &mut |_| {});
            found.map(|bad| (parts, bad))
        };
        let whole = video_features(&mut Means, &plan, &entries, how, &Alone, &mut |_| {}).unwrap().unwrap();
        let (parts, bad) = of(&entries, 8).unwrap();
        assert_eq!(parts.iter().map(|part| part.paths.len()).collect::<Vec<_>>(), [8, 8, 4]);
        assert!(parts.iter().all(|part| part.features.tokens == 4 && part.bad.is_empty()));
        let joined: Vec<f32> = parts.iter().flat_map(|part| part.features.values.iter().copied()).collect();
        assert_eq!((joined, &bad), (whole.features.values, &whole.bad));
        assert!(bad.len() == 1 && bad[0].path.ends_with("absent.mp4"), "{bad:?}");
        // A part without a usable sample is none; a list without one is an error.
        let (parts, bad) = of(&[vec![video("absent.mp4"); 9], vec![video("t0_d0_s0.mp4")]].concat(), 1).unwrap();
        assert_eq!((parts.len(), bad.len()), (1, 9));
        let told = of(&vec![video("absent.mp4"); 9], 1).unwrap_err().to_string();
        assert!(told.contains("none of the 9 videos"), "{told}");
    }
}
