//! Clip sampling, crop boxes and transforms against the official data pipeline.

use std::path::Path;

use serde::Deserialize;

use super::check::{Check, GoldenError, Limit, read_json};
use vjepa_data::sampling::{ClipSampler, Spacing};
use vjepa_data::transforms::{CropBox, Frames, RandomCrop, resize_crop};
use vjepa_recipe::rng::{NumpyRng, PyRandom};
use vjepa_runtime::preprocess::View;
use vjepa_runtime::{Framing, Normalization, Preprocessing, Sampling};
use vjepa_weights::TensorFile;

/// Frame size the golden crop boxes were drawn for.
const BOX_FRAME: (usize, usize) = (240, 320);

#[derive(Deserialize)]
struct SamplingJson {
    deterministic: Vec<Deterministic>,
    random: Vec<Random>,
}

#[derive(Deserialize)]
struct Deterministic {
    n_frames: usize,
    fpc: usize,
    step: usize,
    num_clips: usize,
    overlap: bool,
    /// Absent where the official code raises an error.
    indices: Option<Vec<Vec<i64>>>,
}

#[derive(Deserialize)]
struct Random {
    np_seed: u32,
    n_frames: usize,
    indices: Vec<i64>,
}

#[derive(Deserialize)]
struct TransformsJson {
    boxes_ijhw: Vec<[usize; 4]>,
    spatial_crop_samples_seed_i_j_h_w: Vec<[i64; 5]>,
}

/// Compares with `data/`: clip indices and crop boxes exactly, the training transform at 1e-5, the evaluation ones at
/// one grey level.
///
/// # Errors
/// [`GoldenError`] when a file is missing or malformed.
pub fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let sampling: SamplingJson = read_json(&dir.join("clip_sampling.json"))?;
    let mut checks: Vec<Check> = sampling.deterministic.iter().map(check_deterministic).collect();
    checks.extend(sampling.random.iter().map(check_random));
    let transforms: TransformsJson = read_json(&dir.join("transforms.json"))?;
    checks.push(check_boxes(&transforms.spatial_crop_samples_seed_i_j_h_w));
    let tensors = TensorFile::read(dir.join("transforms.safetensors"))?;
    check_transforms(&tensors, &transforms.boxes_ijhw, &mut checks)?;
    Ok(checks)
}

fn check_deterministic(row: &Deterministic) -> Check {
    let overlap = if row.overlap { "overlap" } else { "apart" };
    let name = format!("data.sampling.{}frames.{}clips.{overlap}", row.n_frames, row.num_clips);
    let sampler = ClipSampler {
        num_clips: row.num_clips,
        random: false,
        allow_overlap: row.overlap,
        ..ClipSampler::pretrain(row.fpc, row.step)
    };
    let got = sampler.sample(row.n_frames, |low, _| low).ok();
    match (got, &row.indices) {
        (Some(got), Some(want)) => Check::exact(name, &flat(&got), &want.concat()),
        (got, want) => Check::exact(format!("{name}.is_error"), &[got.is_none()], &[want.is_none()]),
    }
}

fn check_random(row: &Random) -> Check {
    let mut rng = NumpyRng::new(row.np_seed);
    let got = ClipSampler::pretrain(16, 4).sample(row.n_frames, |low, high| rng.randint(low, high)).unwrap_or_default();
    Check::exact(format!("data.sampling.random.seed{}", row.np_seed), &flat(&got), &row.indices)
}

#[derive(Deserialize)]
struct SpacingJson {
    rows: Vec<SpacingRow>,
}

/// A video and how its frames are chosen.
#[derive(Deserialize)]
struct SpacingRow {
    frames_per_clip: usize,
    avg_fps: f64,
    num_frames: usize,
    random: bool,
    np_seed: u32,
    fps: Option<f64>,
    frame_step: Option<usize>,
    duration: Option<f64>,
    num_clips: Option<usize>,
    #[serde(default)]
    allow_clip_overlap: bool,
    /// Absent where the official code raises an error.
    indices: Option<Vec<Vec<i64>>>,
}

impl SpacingRow {
    /// The frames of its clips; none where there is no step or no clip.
    fn frames(&self) -> Option<Vec<Vec<usize>>> {
        let spacing = match (self.fps, self.frame_step, self.duration) {
            (Some(fps), None, None) => Spacing::Fps(fps),
            (None, Some(step), None) => Spacing::Step(step),
            (None, None, Some(seconds)) => Spacing::Duration(seconds),
            _ => return None,
        };
        let step = spacing.step(self.avg_fps, self.frames_per_clip).ok()?;
        let sampler = ClipSampler {
            num_clips: self.num_clips.unwrap_or(1),
            random: self.random,
            allow_overlap: self.allow_clip_overlap,
            ..ClipSampler::pretrain(self.frames_per_clip, step)
        };
        let mut rng = NumpyRng::new(self.np_seed);
        sampler.sample(self.num_frames, |low, high| rng.randint(low, high)).ok()
    }
}

/// Compares with `fps_sampling.json`: frames chosen by the rate or the duration of a clip, exactly.
///
/// # Errors
/// [`GoldenError`] when the file is missing or malformed.
pub(super) fn check_spacing(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let SpacingJson { rows } = read_json(&dir.join("fps_sampling.json"))?;
    let check = |(number, row): (usize, &SpacingRow)| {
        let name = format!("fps_sampling.{number}.{}frames.{}fps", row.num_frames, row.avg_fps);
        match (row.frames(), &row.indices) {
            (Some(got), Some(want)) => Check::exact(name, &flat(&got), &want.concat()),
            (got, want) => Check::exact(format!("{name}.is_error"), &[got.is_none()], &[want.is_none()]),
        }
    };
    Ok(rows.iter().enumerate().map(check).collect())
}

fn flat(clips: &[Vec<usize>]) -> Vec<i64> {
    clips.iter().flatten().map(|&frame| frame as i64).collect()
}

fn check_boxes(rows: &[[i64; 5]]) -> Check {
    let (height, width) = BOX_FRAME;
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for &[seed, i, j, h, w] in rows {
        let crop = CropBox::random(height, width, &RandomCrop::default(), &mut PyRandom::new(seed as u64));
        got.extend([crop.top, crop.left, crop.height, crop.width].map(|x| x as i64));
        want.extend([i, j, h, w]);
    }
    Check::exact("data.crop_boxes", &got, &want)
}

fn check_transforms(tensors: &TensorFile, boxes: &[[usize; 4]], checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let bad = |why: String| GoldenError::Config { path: tensors.path().into(), why };
    let &[channels, count, height, width] = tensors.shape("src_u8_CTHW")? else {
        return Err(bad("`src_u8_CTHW` must have four dimensions".into()));
    };
    // An empty tensor may claim any number of frames.
    if tensors.u8("src_u8_CTHW")?.is_empty() {
        return Err(bad("`src_u8_CTHW` is empty".into()));
    }
    let source = interleaved(tensors.u8("src_u8_CTHW")?, channels, count, height * width);
    let wrong = |error: &dyn std::fmt::Display| bad(error.to_string());
    let frames = Frames::new(&source, height, width).map_err(|error| wrong(&error))?;
    const SIDE: usize = 32;
    let mut out = vec![0.0; 3 * count * SIDE * SIDE];

    for (index, &[top, left, height, width]) in boxes.iter().enumerate() {
        let crop = CropBox { top, left, height, width };
        resize_crop(frames, &[crop], (SIDE, SIDE), false, Some(&Normalization::Imagenet), &mut out)
            .map_err(|error| wrong(&error))?;
        let want = tensors.f32(&format!("pretrain_crop{index}.normed"))?;
        checks.push(Check::max_abs(format!("data.transform.pretrain_crop{index}"), &out, &want, 1e-5));
    }

    // OpenCV's vector code may round the last bit otherwise: one grey level at the smallest deviation.
    let grey_level = Limit::MaxAbs(1.0 / 255.0 / 0.224 + 1e-5);
    let record = Preprocessing {
        num_frames: count,
        sampling_rate: 1,
        sampling: Sampling::Vjepa,
        crop_size: SIDE,
        crop_width: None,
        patch_size: SIDE,
        tubelet_size: 1,
        normalization: Normalization::Imagenet,
        grayscale: false,
        framing: Framing::Centre,
    };
    for (name, count) in [("eval_center_32", 1), ("eval_3view_32", 3)] {
        for index in 0..count {
            let view = View { index, count };
            record.prepare_view(&source, height, width, view, &mut out).map_err(|error| wrong(&error))?;
            let name = if count == 1 { name.to_string() } else { format!("{name}.{index}") };
            let want = tensors.f32(&name)?;
            checks.push(Check::compare(format!("data.transform.{name}"), &out, &want, grey_level));
        }
    }
    Ok(())
}

/// `[C, T, pixels]` to `T` frames of interleaved channels.
fn interleaved(planes: &[u8], channels: usize, count: usize, pixels: usize) -> Vec<Vec<u8>> {
    let value = |c: usize, t: usize, pixel: usize| planes.get((c * count + t) * pixels + pixel).copied().unwrap_or(0);
    let frame = |t: usize| (0..pixels * channels).map(|i| value(i % channels, t, i / channels)).collect();
    (0..count).map(frame).collect()
}
