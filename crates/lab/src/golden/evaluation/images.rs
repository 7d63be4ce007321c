//! Still pictures: resizing and cropping, the training transform of the image probe, and stills through an encoder.

use std::path::Path;

use serde::Deserialize;
use vjepa_data::SampleKey;
use vjepa_data::augment::pil::{Filter, resize, resize_window};
use vjepa_data::augment::{AugmentError, Draws, ORIGINAL, OfficialDraws, Op, PictureAugment, Policy};
use vjepa_data::images::{Picture, PictureTransform, eval_crop};
use vjepa_data::transforms::{CropBox, TransformError};
use vjepa_graphs::position::resize_table;
use vjepa_programs as compile;
use vjepa_runtime::Normalization;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit};
use super::super::run::{Execution, FORWARD, run_once, values};
use super::super::sampled::Compare;
use super::super::training::Training;
use super::augment::sides;
use super::recorded::{Corners, Drawn, Exact, around, named, picture, read_exact, same_bytes, same_number};
use super::wrong;

#[derive(Deserialize)]
struct Info {
    eval: EvalInfo,
    train_crops: Vec<TrainCrop>,
    autoaugment: AutoAugment,
    train: Train,
    #[serde(default)]
    stills: Option<Stills>,
}

#[derive(Deserialize)]
struct EvalInfo {
    resolution: usize,
    rows: Vec<EvalRow>,
}

#[derive(Deserialize)]
struct EvalRow {
    image: String,
}

#[derive(Deserialize)]
struct TrainCrop {
    key: String,
    src: String,
    ijhw: Corners,
}

#[derive(Deserialize)]
struct AutoAugment {
    policy: Vec<[(String, Exact, Exact); 2]>,
}

#[derive(Deserialize)]
struct Train {
    src: String,
    rows: Vec<TrainRow>,
}

#[derive(Deserialize)]
struct TrainRow {
    seed: u32,
    crop_ijhw: Corners,
    flipped: bool,
    ops: Vec<Drawn>,
    erased: bool,
}

#[derive(Deserialize)]
struct Stills {
    frames: usize,
}

/// `eval_images/`.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let path = dir.join("info.json");
    let info: Info = read_exact(&path)?;
    let file = TensorFile::read(dir.join("images.safetensors"))?;
    let mut checks = Vec::new();
    evaluated(&info.eval, &file, &mut checks)?;
    for row in &info.train_crops {
        let (source, size) = picture(&file, &row.src)?;
        let (_, out) = picture(&file, &row.key)?;
        let window = CropBox { top: 0, left: 0, height: out.0, width: out.1 };
        let got = resize_window(&source, size, row.ijhw.into(), out, window, Filter::Bicubic).map_err(bad(&file))?;
        checks.push(same_bytes(format!("images.{}", row.key), &got, &file, &row.key)?);
    }
    for (number, (pair, recorded)) in ORIGINAL.iter().zip(&info.autoaugment.policy).enumerate() {
        for (place, ((kind, probability, magnitude), (op, share, level))) in pair.iter().zip(recorded).enumerate() {
            let name = format!("images.policy{number}.{place}");
            checks.push(Check::exact(format!("{name}.operation"), &[format!("{kind:?}") == named(op)], &[true]));
            checks.push(same_number(format!("{name}.probability"), *probability, *share));
            checks.push(same_number(format!("{name}.magnitude"), *magnitude, *level));
        }
    }
    let pairs = [info.autoaugment.policy.len() as i64];
    checks.push(Check::exact("images.policy.pairs", &[ORIGINAL.len() as i64], &pairs));
    trained(&info, &file, &path, &mut checks)?;
    if let Some(stills) = &info.stills {
        self::stills(execution, dir, stills, &file, &mut checks)?;
    }
    Ok(checks)
}

fn bad(file: &TensorFile) -> impl Fn(TransformError) -> GoldenError + '_ {
    |error| wrong(file.path(), error)
}

/// Resized, cropped and normalised as in evaluation.
fn evaluated(info: &EvalInfo, file: &TensorFile, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let fail = |error: AugmentError| wrong(file.path(), error);
    let side = info.resolution;
    for (index, row) in info.rows.iter().enumerate() {
        let (source, (height, width)) = picture(file, &row.image)?;
        let stored = format!("resized{index}");
        let (_, size) = picture(file, &stored)?;
        let got = resize(&source, (height, width), size, Filter::Bilinear).map_err(bad(file))?;
        checks.push(same_bytes(format!("images.{stored}"), &got, file, &stored)?);
        let source = Picture { rgb: source, height, width };
        let stored = format!("cropped{index}");
        checks.push(same_bytes(format!("images.{stored}"), &eval_crop(&source, side).map_err(fail)?, file, &stored)?);
        let stored = format!("eval{index}");
        if file.contains(&stored) {
            let transform = PictureTransform::Eval { size: side, normalization: Normalization::Imagenet };
            let mut out = vec![0.0; 3 * side * side];
            transform.apply(&source, SampleKey { seed: 0, epoch: 0, position: 0, retry: 0 }, &mut out).map_err(fail)?;
            checks.push(file.compare(&stored, &out, Limit::MaxAbs(1e-6))?.under("images"));
        }
    }
    Ok(())
}

/// The training transform from its seeds alone.
fn trained(info: &Info, file: &TensorFile, path: &Path, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let (source, size) = picture(file, &info.train.src)?;
    for row in &info.train.rows {
        let stored = format!("train{}", row.seed);
        let name = format!("images.{stored}");
        let want = file.f32(&stored)?;
        let side = file.shape(&stored)?.last().copied().unwrap_or(0);
        let augment = PictureAugment::probe(side);
        let mut draws = OfficialDraws::new(row.seed);
        let crop = CropBox::random(size.0, size.1, &augment.crop, &mut draws);
        checks.push(Check::exact(format!("{name}.crop"), &sides(Some(crop)), &sides(Some(row.crop_ijhw.into()))));
        checks.push(Check::exact(format!("{name}.flipped"), &[draws.flip_picture()], &[row.flipped]));
        let steps = Policy::Original.draw(&mut draws);
        let recorded = row.ops.iter().map(|op| op.read(path)).collect::<Result<Vec<Option<Op>>, _>>()?;
        let same = steps.iter().map(|step| step.op).eq(recorded);
        checks.push(Check::exact(format!("{name}.operations"), &[same], &[true]));
        let erased = augment.erase.and_then(|erase| erase.draw(side, side, &mut draws));
        checks.push(Check::exact(format!("{name}.erased"), &[erased.is_some()], &[row.erased]));
        let mut got = vec![0.0; want.len()];
        let fail = |error: AugmentError| wrong(path, error);
        augment.apply(&source, size, &mut OfficialDraws::new(row.seed), &mut got).map_err(fail)?;
        around(&name, &got, &want, side, erased, checks);
    }
    Ok(())
}

/// Pictures repeated to all frames of golden `tiny`'s encoder, and to the two of one token.
fn stills(
    execution: Execution,
    dir: &Path,
    stills: &Stills,
    file: &TensorFile,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let model = dir.parent().unwrap_or(dir).join("tiny");
    if !model.join("weights.safetensors").is_file() {
        let why = format!("the encoder's weights are not in {}: keep the folders together", model.display());
        checks.push(Check::unsupported("images.stills", why));
        return Ok(());
    }
    let training = Training::read(execution, &model)?;
    let &[count, height, width, _] = file.shape("still_u8")? else {
        return Err(wrong(file.path(), "`still_u8` should be pictures [B, H, W, 3]"));
    };
    let pixels = file.u8("still_u8")?;
    let planar: Vec<Vec<f32>> = pixels.chunks_exact((height * width * 3).max(1)).map(planes).collect();
    let trained = &training.encoder;
    for (stored, frames) in [("still_full", stills.frames), ("still_2frames", trained.tubelet)] {
        let config =
            vjepa_graphs::EncoderConfig { out_layers: None, ..trained.clone() }.with_clip(frames, height, width);
        let mut table = (vec![1, trained.tokens(), trained.embed_dim], trained.position_table());
        resize_table(&mut table, trained.grid(), config.grid()).map_err(|error| wrong(file.path(), error))?;
        let positions = format!("{stored}_pos");
        if file.contains(&positions) {
            checks.push(file.compare(&positions, &table.1, Limit::MaxAbs(1e-6))?.under("images"));
        }
        let mut params = training.params()?;
        params.set("encoder.pos_embed", HostTensor::F32 { shape: table.0, data: table.1 });
        let clip = planar.iter().flat_map(|picture| repeated(picture, height * width, frames)).collect();
        let clip = HostTensor::F32 { shape: vec![count, 3, frames, height, width], data: clip };
        let graph = compile::encoder(&config, "encoder.")?;
        let features = values(&run_once(execution, &graph, &mut params, vec![("clip", clip)])?, "encoder_out")?;
        checks.push(file.compare(stored, &features, FORWARD)?.under("images"));
    }
    Ok(())
}

/// Bytes `[H, W, 3]` as normalised planes `[3, H, W]`.
fn planes(picture: &[u8]) -> Vec<f32> {
    let channel = |c: usize| picture.iter().skip(c).step_by(3).copied();
    let planar: Vec<u8> = (0..3).flat_map(channel).collect();
    Normalization::Imagenet.of_planes(&planar)
}

/// `[3, H, W]` as `[3, T, H, W]`.
fn repeated(picture: &[f32], plane: usize, frames: usize) -> Vec<f32> {
    picture
        .chunks_exact(plane.max(1))
        .flat_map(|channel| std::iter::repeat_n(channel, frames).flatten())
        .copied()
        .collect()
}
