//! Clips as commands are given them: a video file, or a safetensors file with `clip_u8` `[B, 3, T, H, W]`.

use std::path::Path;

use vjepa_runtime::{Framing, Normalization, Preprocessing, Sampling, Session};

use crate::sampling::ClipSampler;
use crate::transforms::standardise;
use crate::views::ViewPlan;
use vjepa_runtime::Looks;
use vjepa_weights::{TensorFile, TensorFileError};

/// Why a command's input gives no clips. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
    /// The video cannot be decoded.
    #[error(transparent)]
    Video(#[from] vjepa_video::VideoError),
    /// The file of stored clips cannot be read.
    #[error(transparent)]
    Stored(#[from] TensorFileError),
    /// The input does not suit the model, or is another kind of file altogether.
    #[error("{0}")]
    Unsuitable(String),
}

impl From<String> for ClipError {
    fn from(why: String) -> Self {
        Self::Unsuitable(why)
    }
}

/// Prepared clips, `[count, 3, T, S, S]` row-major.
pub struct Clips {
    pub count: usize,
    pub data: Vec<f32>,
}

/// Reads and prepares clips as `record` says. A video gives one clip from its beginning, the centre of each frame.
pub fn read(path: &Path, record: &Preprocessing) -> Result<Clips, ClipError> {
    vjepa_weights::refuse_foreign(path)?;
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        stored(path, record)
    } else {
        video(path, record)
    }
}

/// Metadata keys of a model that averages several clips and views.
pub const CLIPS_KEY: &str = "vjepa.clips";
pub const VIEWS_KEY: &str = "vjepa.views";

/// How many clips and views a model takes for a result.
pub fn looks(session: &Session) -> Result<Looks, ClipError> {
    let number = |key: &str| match session.metadata().get(key) {
        None => Ok(1),
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|n| (1..=1 << 10).contains(n))
            .ok_or_else(|| format!("its `{key}` is `{text}`, which is not a number of clips; export it again")),
    };
    let looks = Looks { clips: number(CLIPS_KEY)?, views: number(VIEWS_KEY)? };
    match session.views() {
        taken if taken == looks.count() => Ok(looks),
        taken => {
            Err(format!("it takes {taken} clips for a result, but says {CLIPS_KEY} and {VIEWS_KEY} {looks:?}").into())
        }
    }
}

/// As [`read`] for a model that looks at several clips and views: `[results, views · clips, 3, T, S, S]`. A video gives
/// clips from its beginning to its end; stored clips are taken in groups.
pub fn read_views(path: &Path, record: &Preprocessing, looks: Looks) -> Result<Clips, ClipError> {
    let count = looks.count();
    if count == 1 || path.extension().is_some_and(|extension| extension == "safetensors") {
        let clips = read(path, record)?;
        return match clips.count % count {
            0 => Ok(clips),
            _ => {
                Err(format!("{} holds {} clips; the model takes {count} for a result", path.display(), clips.count)
                    .into())
            }
        };
    }
    vjepa_weights::refuse_foreign(path)?;
    let plan = ViewPlan { preprocessing: record.clone(), clips: looks.clips, views: looks.views };
    let data = plan.prepare(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Clips { count, data })
}

fn video(path: &Path, record: &Preprocessing) -> Result<Clips, ClipError> {
    let mut clip = vjepa_video::open(path)?;
    let sampler = ClipSampler {
        random: false,
        // As in evaluation: a video shorter than a clip repeats its frames in the same way.
        allow_overlap: true,
        exact: record.sampling == Sampling::Exact,
        ..ClipSampler::pretrain(record.num_frames, record.sampling_rate)
    };
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let indices = sampler.sample(clip.info().frames, |low, _| low).map_err(|error| at(&error))?;
    let indices = indices.first().map(Vec::as_slice).unwrap_or_default();
    let frames = clip.frames(indices)?;
    let Some(first) = frames.first() else { return Err(at(&"the video has no frames").into()) };
    let (height, width) = (first.display_height(), first.display_width());
    let pixels: Vec<Vec<u8>> = frames.iter().map(vjepa_video::Frame::rgb).collect();
    let data = record.prepare(&pixels, height, width).map_err(|error| at(&error))?;
    Ok(Clips { count: 1, data })
}

fn stored(path: &Path, record: &Preprocessing) -> Result<Clips, ClipError> {
    let tensors = TensorFile::read(path)?;
    let shape = tensors.shape("clip_u8").map_err(|_| {
        format!("{} holds no tensor `clip_u8`; give a video, or u8 clips [B, 3, T, H, W] of that name", path.display())
    })?;
    let side = record.crop_size;
    let wanted = [3, record.num_frames, side, side];
    let &[count, ..] = shape else { return Err(format!("{}: `clip_u8` is a scalar", path.display()).into()) };
    if count == 0 || shape.get(1..) != Some(wanted.as_slice()) {
        let asked = format!("[B, 3, {}, {side}, {side}]", record.num_frames);
        return Err(format!(
            "{}: `clip_u8` is {shape:?} but the model takes {asked}; give clips of that size, or the --config they belong to",
            path.display()
        )
        .into());
    }
    let bytes = tensors.u8("clip_u8")?;
    let one: usize = wanted.iter().product();
    let mut data = Vec::with_capacity(bytes.len());
    for clip in bytes.chunks_exact(one) {
        data.extend(prepared(clip, record));
    }
    Ok(Clips { count, data })
}

/// One clip of bytes `[3, pixels]`, grey where the record says so, centred and scaled.
fn prepared(clip: &[u8], record: &Preprocessing) -> Vec<f32> {
    let pixels = clip.len() / 3;
    let mut values: Vec<f32> = clip.iter().map(|value| f32::from(*value)).collect();
    if record.grayscale {
        for i in 0..pixels {
            let [red, green, blue] = [0, 1, 2].map(|c| u32::from(clip[c * pixels + i]));
            // The luma of `Preprocessing::prepare`.
            let luma = ((77 * red + 150 * green + 29 * blue + 128) >> 8) as f32;
            (0..3).for_each(|c| values[c * pixels + i] = luma);
        }
    }
    match record.normalization.statistics() {
        None => standardise(&mut values),
        Some((mean, std)) => {
            for (c, plane) in values.chunks_exact_mut(pixels.max(1)).enumerate() {
                let (shift, scale) = (255.0 * mean[c % 3], 255.0 * std[c % 3]);
                plane.iter_mut().for_each(|value| *value = (*value - shift) / scale);
            }
        }
    }
    values
}

/// The record in words: `8 frames of 64x64, every 4th, imagenet`.
pub fn in_words(record: &Preprocessing) -> String {
    let scaled = match record.normalization {
        Normalization::Imagenet => "ImageNet mean and deviation".to_owned(),
        Normalization::PerClip => "standardised per clip".to_owned(),
        Normalization::Custom { mean, std } => format!("mean {mean:?} and deviation {std:?}"),
    };
    let (frames, side, step) = (record.num_frames, record.crop_size, record.sampling_rate);
    let grey = if record.grayscale { ", grey" } else { "" };
    let exact = if record.sampling == Sampling::Exact { " exactly" } else { "" };
    let whole = if record.framing == Framing::Whole { ", uncropped" } else { "" };
    format!("{frames} frames of {side}x{side}{whole}, step {step}{exact}, {scaled}{grey}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_and_decoded_clips_are_scaled_alike() {
        // Frames of the crop's size are resized and cropped, so equal pixels everywhere keep the comparison exact.
        let record = |normalization, grayscale| Preprocessing {
            num_frames: 2,
            sampling_rate: 1,
            sampling: Sampling::Vjepa,
            crop_size: 4,
            patch_size: 4,
            tubelet_size: 2,
            normalization,
            grayscale,
            framing: Framing::Centre,
        };
        let frame: Vec<u8> = [200, 100, 50].repeat(64);
        let stored: Vec<u8> = [[200; 32], [100; 32], [50; 32]].concat();
        for (normalization, grey) in
            [(Normalization::Imagenet, false), (Normalization::Imagenet, true), (Normalization::PerClip, false)]
        {
            let record = record(normalization, grey);
            let decoded = record.prepare(&[&frame, &frame], 8, 8).unwrap();
            let close = prepared(&stored, &record).iter().zip(&decoded).all(|(a, b)| (a - b).abs() < 1e-5);
            assert!(close, "{record:?}");
        }
    }

    #[test]
    fn one_look_is_that_of_an_evaluation() {
        // The videos have 8 frames: some of these clips are longer, one is as long, one shorter.
        let video = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/textures/t0_d0_s0.mp4");
        for (num_frames, sampling_rate) in [(16, 4), (4, 4), (4, 2), (8, 1), (2, 2)] {
            for sampling in [Sampling::Vjepa, Sampling::Exact] {
                let record = Preprocessing {
                    num_frames,
                    sampling_rate,
                    sampling,
                    crop_size: 16,
                    ..vjepa_recipe::config::Config::from_yaml("model: {model_name: vit_tiny}", "", &[])
                        .unwrap()
                        .preprocessing()
                };
                let deployed = read(&video, &record).unwrap().data;
                let evaluated = ViewPlan { preprocessing: record, clips: 1, views: 1 }.prepare(&video).unwrap();
                let close = deployed.iter().zip(&evaluated).all(|(a, b)| (a - b).abs() < 1e-5);
                assert!(
                    deployed.len() == evaluated.len() && close,
                    "{num_frames} frames, every {sampling_rate}, {sampling:?}"
                );
            }
        }
    }

    #[test]
    fn streams_and_videos_are_cut_alike() {
        let (normalization, framing) = (Normalization::Imagenet, Framing::Centre);
        for (sampling, exact) in [(Sampling::Vjepa, false), (Sampling::Exact, true)] {
            for (num_frames, sampling_rate) in [(16, 4), (8, 1), (2, 3), (1, 5), (64, 7)] {
                let (crop_size, patch_size, tubelet_size, grayscale) = (4, 4, 2, false);
                #[rustfmt::skip]
                let record = Preprocessing {
                    num_frames, sampling_rate, sampling, crop_size, patch_size, tubelet_size, normalization, grayscale, framing,
                };
                let sampler = ClipSampler { random: false, exact, ..ClipSampler::pretrain(num_frames, sampling_rate) };
                let video = sampler.sample(num_frames * sampling_rate + 9, |low, _| low).unwrap();
                assert_eq!(video, [record.frame_offsets()], "{record:?}");
            }
        }
    }
}
