//! Clips as commands are given them: a video file, or a safetensors file with `clip_u8` `[B, 3, T, H, W]`.

use std::path::Path;

use vjepa_runtime::{Framing, Normalization, Preprocessing, Sampling, Session};

use crate::frames::is_picture;
use crate::samples::StillPlan;
use crate::views::ViewPlan;
use vjepa_runtime::ClipViews;
use vjepa_weights::{TensorFile, TensorFileError};

/// Why a command's input gives no clips. Every message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ClipError {
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

/// Reads and prepares clips as `record` says. A video gives one clip from its beginning, the centre of each frame; a picture is
/// resized as evaluations of pictures do it and stands still.
pub fn read(path: &Path, record: &Preprocessing) -> Result<Clips, ClipError> {
    vjepa_weights::refuse_foreign(path)?;
    if path.extension().is_some_and(|extension| extension == "safetensors") {
        stored(path, record)
    } else {
        prepare(path, record, ClipViews::SINGLE)
    }
}

/// Metadata keys of a model that averages several clips and views.
pub const CLIPS_KEY: &str = "vjepa.clips";
pub const VIEWS_KEY: &str = "vjepa.views";

/// How many clips and views a model takes for a result.
pub fn clip_views(session: &Session) -> Result<ClipViews, ClipError> {
    let number = |key: &str| match session.metadata().get(key) {
        None => Ok(1),
        Some(text) => text
            .parse::<usize>()
            .ok()
            .filter(|n| (1..=1 << 10).contains(n))
            .ok_or_else(|| format!("its `{key}` is `{text}`, which is not a number of clips; export it again")),
    };
    let clip_views = ClipViews { clips: number(CLIPS_KEY)?, views: number(VIEWS_KEY)? };
    match session.views() {
        taken if taken == clip_views.count() => Ok(clip_views),
        taken => {
            Err(format!("it takes {taken} clips for a result, but says {CLIPS_KEY} and {VIEWS_KEY} {clip_views:?}")
                .into())
        }
    }
}

/// As [`read`] for a model that looks at several clips and views: `[results, views · clips, 3, T, S, S]`. A video gives
/// clips from its beginning to its end; stored clips are taken in groups.
pub fn read_views(path: &Path, record: &Preprocessing, clip_views: ClipViews) -> Result<Clips, ClipError> {
    let count = clip_views.count();
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
    prepare(path, record, clip_views)
}

fn prepare(path: &Path, record: &Preprocessing, clip_views: ClipViews) -> Result<Clips, ClipError> {
    let named = |error: String| format!("{}: {error}", path.display());
    if is_picture(path) {
        let count = clip_views.count();
        if count > 1 {
            return Err(named(format!("is a picture, but the model averages {count} clips of a video")).into());
        }
        let plan = StillPlan::of(record).map_err(|why| named(format!("is a picture, but {why}")))?;
        return Ok(Clips { count, data: plan.prepare(path).map_err(named)? });
    }
    let plan =
        ViewPlan { preprocessing: record.clone(), clips: clip_views.clips, views: clip_views.views, random: None };
    let data = plan.prepare(0, path).map_err(named)?;
    Ok(Clips { count: clip_views.count(), data })
}

fn stored(path: &Path, record: &Preprocessing) -> Result<Clips, ClipError> {
    let tensors = TensorFile::read(path)?;
    let shape = tensors.shape("clip_u8").map_err(|_| {
        format!("{} holds no tensor `clip_u8`; give a video, or u8 clips [B, 3, T, H, W] of that name", path.display())
    })?;
    let wanted = record.clip_shape();
    let &[count, ..] = shape else { return Err(format!("{}: `clip_u8` is a scalar", path.display()).into()) };
    if count == 0 || shape.get(1..) != Some(wanted.as_slice()) {
        let [channels, frames, height, width] = wanted;
        let asked = format!("[B, {channels}, {frames}, {height}, {width}]");
        return Err(format!(
            "{}: `clip_u8` is {shape:?} but the model takes {asked}; give clips of that size, or the --config they belong to",
            path.display()
        )
        .into());
    }
    let clips = tensors.u8("clip_u8")?.chunks_exact(record.clip_len());
    Ok(Clips { count, data: clips.flat_map(|clip| record.prepare_stored(clip)).collect() })
}

/// The record in words: `8 frames of 64x64, every 4th frame, ImageNet mean and deviation`.
pub fn in_words(record: &Preprocessing) -> String {
    let scaled = match record.normalization {
        Normalization::Imagenet => "ImageNet mean and deviation".to_owned(),
        Normalization::PerClip => "normalised per clip".to_owned(),
        Normalization::Custom { mean, std } => format!("mean {mean:?} and deviation {std:?}"),
    };
    let (frames, [height, width], step) = (record.num_frames, record.size(), record.sampling_rate);
    let grey = if record.grayscale { ", greyscale" } else { "" };
    // Official sampling spreads the frames over the span of a step of this size.
    let spaced = match (step, record.sampling == Sampling::Exact) {
        (1, true) => ", every frame".to_owned(),
        (_, true) => format!(", every {step}th frame"),
        (_, false) => format!(", step {step}"),
    };
    let whole = if record.framing == Framing::Whole { ", no cropping" } else { "" };
    format!("{frames} frames of {height}x{width}{whole}{spaced}, {scaled}{grey}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::SamplePlan;
    use crate::sampling::ClipSampler;

    /// An exported model is given a picture as evaluations of pictures give it to the encoder.
    #[test]
    fn pictures_are_prepared_as_evaluations_do() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        let mut encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 90, 70);
        encoder.set_color(png::ColorType::Rgb);
        let pixels: Vec<u8> = (0..90 * 70 * 3).map(|i| (i * 7 % 251) as u8).collect();
        encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
        let data =
            vjepa_recipe::config::DataConfig { num_frames: 2, sampling_rate: 1, crop_size: 16, ..Default::default() };
        let record = data.preprocessing();
        let wanted = SamplePlan::Pictures(StillPlan::of(&record).unwrap()).prepare(0, &path).unwrap();
        assert!(read(&path, &record).unwrap().data == wanted);
        let several = ClipViews { clips: 2, views: 1 };
        let said = read_views(&path, &record, several).err().unwrap().to_string();
        assert!(said.contains("is a picture, but the model averages 2 clips"), "{said}");
    }

    #[test]
    fn streams_and_videos_are_cut_alike() {
        let (normalization, framing) = (Normalization::Imagenet, Framing::Centre);
        for (sampling, exact) in [(Sampling::Vjepa, false), (Sampling::Exact, true)] {
            for (num_frames, sampling_rate) in [(16, 4), (8, 1), (2, 3), (1, 5), (64, 7)] {
                let (crop_size, patch_size, tubelet_size, grayscale) = (4, 4, 2, false);
                #[rustfmt::skip]
                let record = Preprocessing {
                    num_frames, sampling_rate, sampling, crop_size, crop_width: None, patch_size, tubelet_size, normalization,
                    grayscale, framing,
                };
                let sampler = ClipSampler { random: false, exact, ..ClipSampler::pretrain(num_frames, sampling_rate) };
                let video = sampler.sample(num_frames * sampling_rate + 9, |low, _| low).unwrap();
                assert_eq!(video, [record.frame_offsets()], "{record:?}");
            }
        }
    }
}
