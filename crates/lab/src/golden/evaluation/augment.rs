//! RandAugment, random erasing and the whole training transform of the video probe.

use std::path::Path;

use serde::Deserialize;
use vjepa_data::augment::{ClipAugment, Draws, OfficialDraws, Op, Policy, RandAugment, RandomErasing};
use vjepa_data::transforms::CropBox;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError};
use super::recorded::{Corners, Drawn, Exact, NOISE, apply, around, frames, read_exact, same_bytes, same_number};
use super::wrong;

#[derive(Deserialize)]
struct RandInfo {
    ops: Vec<Single>,
    draws: Vec<Whole>,
}

/// One operation on one picture.
#[derive(Deserialize)]
struct Single {
    key: String,
    src: String,
    #[serde(flatten)]
    drawn: Drawn,
}

/// All operations of a clip, from their seed.
#[derive(Deserialize)]
struct Whole {
    seed: u32,
    key: String,
    steps: Vec<Drawn>,
    next_python_random: Exact,
    next_numpy_rand: Exact,
}

#[derive(Deserialize)]
struct ErasingInfo {
    boxes: Vec<Erased>,
    noise: Vec<Noise>,
}

#[derive(Deserialize)]
struct Erased {
    #[serde(rename = "H")]
    height: usize,
    #[serde(rename = "W")]
    width: usize,
    prob: Exact,
    seed: u32,
    #[serde(rename = "box")]
    area: Option<Corners>,
    next_python_random: Exact,
}

#[derive(Deserialize)]
struct Noise {
    key: String,
    seed: u32,
}

#[derive(Deserialize)]
struct TransformInfo {
    rows: Vec<Transformed>,
}

#[derive(Deserialize)]
struct Transformed {
    seed: u32,
    crop_ijhw: Corners,
    erased_hw: Option<[usize; 2]>,
    next_python_random: Exact,
    next_numpy_rand: Exact,
}

/// `eval_augment/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let mut checks = Vec::new();
    rand_augment(dir, &mut checks)?;
    let transform = TensorFile::read(dir.join("transform.safetensors"))?;
    erasing(dir, &transform, &mut checks)?;
    whole(dir, &transform, &mut checks)?;
    Ok(checks)
}

fn rand_augment(dir: &Path, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let path = dir.join("randaugment.json");
    let info: RandInfo = read_exact(&path)?;
    let file = TensorFile::read(dir.join("randaugment.safetensors"))?;
    for row in &info.ops {
        let (mut pictures, size) = frames(&file, &row.src)?;
        apply(row.drawn.read(&path)?, &mut pictures, size, &path)?;
        let name = format!("augment.{}.{}", row.key, row.drawn.op);
        checks.push(same_bytes(name, &pictures.concat(), &file, &row.key)?);
    }
    let policy = Policy::Rand(RandAugment::OFFICIAL);
    for row in &info.draws {
        let name = format!("augment.{}", row.key);
        let mut draws = OfficialDraws::new(row.seed);
        let steps = policy.draw(&mut draws);
        let want = row.steps.iter().map(|step| step.read(&path)).collect::<Result<Vec<Option<Op>>, _>>()?;
        let same = steps.iter().map(|step| step.op).eq(want);
        checks.push(Check::exact(format!("{name}.operations"), &[same], &[true]));
        checks.push(same_number(format!("{name}.next_python"), draws.next_python(), row.next_python_random));
        checks.push(same_number(format!("{name}.next_numpy"), draws.next_numpy(), row.next_numpy_rand));
        let (mut clip, size) = frames(&file, "clip_u8")?;
        apply(steps.iter().filter_map(|step| step.op), &mut clip, size, &path)?;
        checks.push(same_bytes(format!("{name}.pixels"), &clip.concat(), &file, &row.key)?);
    }
    Ok(())
}

fn erasing(dir: &Path, file: &TensorFile, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let path = dir.join("erasing.json");
    let info: ErasingInfo = read_exact(&path)?;
    for row in &info.boxes {
        let Exact(probability) = row.prob;
        let name = format!("augment.erasing.{}x{}.p{probability}.seed{}", row.width, row.height, row.seed);
        let mut draws = OfficialDraws::new(row.seed);
        let found = RandomErasing::clips(probability).draw(row.height, row.width, &mut draws);
        checks.push(Check::exact(format!("{name}.box"), &sides(found), &sides(row.area.map(CropBox::from))));
        checks.push(same_number(format!("{name}.next_python"), draws.next_python(), row.next_python_random));
    }
    for row in &info.noise {
        // [T, 3, H, W], while ours is [3, T, H, W].
        let &[frames, channels, height, width] = file.shape(&row.key)? else {
            return Err(wrong(file.path(), format!("`{}` should be frames of channels", row.key)));
        };
        let mut draws = OfficialDraws::new(row.seed);
        let mut clip = vec![0.0; channels * frames * height * width];
        if let Some(area) = RandomErasing::clips(1.0).draw(height, width, &mut draws) {
            RandomErasing::fill(area, (height, width), &mut clip, &mut draws).map_err(|error| wrong(&path, error))?;
        }
        let planes: Vec<&[f32]> = clip.chunks_exact((height * width).max(1)).collect();
        let plane = |t: usize, c: usize| planes.get(c * frames + t).copied().unwrap_or_default();
        let turned: Vec<f32> =
            (0..frames).flat_map(|t| (0..channels).flat_map(move |c| plane(t, c).iter().copied())).collect();
        checks.push(Check::max_abs(format!("augment.{}", row.key), &turned, &file.f32(&row.key)?, NOISE));
    }
    Ok(())
}

/// The transform from its seed alone: the choices one by one, then the pixels.
fn whole(dir: &Path, file: &TensorFile, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let path = dir.join("transform.json");
    let info: TransformInfo = read_exact(&path)?;
    let (clip, size) = frames(file, "train_clip_u8")?;
    for row in &info.rows {
        let name = format!("augment.train{}", row.seed);
        let stored = format!("train{}", row.seed);
        let side = file.shape(&stored)?.last().copied().unwrap_or(0);
        let want = file.f32(&stored)?;
        let augment = ClipAugment::probe(side);
        let (crop, erased) = choices(&augment, size, &mut OfficialDraws::new(row.seed));
        checks.push(Check::exact(format!("{name}.crop"), &sides(Some(crop)), &sides(Some(row.crop_ijhw.into()))));
        let area = |found: Option<[usize; 2]>| found.map_or([-1, -1], |sides| sides.map(|side| side as i64));
        let found = erased.map(|area| [area.height, area.width]);
        checks.push(Check::exact(format!("{name}.erased_size"), &area(found), &area(row.erased_hw)));
        let mut draws = OfficialDraws::new(row.seed);
        let mut got = vec![0.0; want.len()];
        augment.apply(clip.clone(), size, &mut draws, &mut got).map_err(|error| wrong(&path, error))?;
        checks.push(same_number(format!("{name}.next_python"), draws.next_python(), row.next_python_random));
        checks.push(same_number(format!("{name}.next_numpy"), draws.next_numpy(), row.next_numpy_rand));
        around(&name, &got, &want, side, erased, checks);
    }
    Ok(())
}

/// Crop and erased box of a clip of this size.
fn choices(
    augment: &ClipAugment,
    (height, width): (usize, usize),
    draws: &mut impl Draws,
) -> (CropBox, Option<CropBox>) {
    if let Some(policy) = &augment.policy {
        policy.draw(draws);
    }
    let crop = CropBox::random(height, width, &augment.crop, draws);
    let erased = augment.erase.and_then(|erase| erase.draw(augment.size, augment.size, draws));
    (crop, erased)
}

/// A box as numbers; four times -1 for none.
pub(super) fn sides(area: Option<CropBox>) -> [i64; 4] {
    area.map_or([-1; 4], |area| [area.top, area.left, area.height, area.width].map(|side| side as i64))
}
