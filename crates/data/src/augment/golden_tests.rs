//! Against recorded data of the official code: the folders in `tests/golden`, and the full ones beside the checkout where
//! they are there. Every row of a file is checked, so other files of the same layout are, too.

use std::path::{Path, PathBuf};

use serde_json::Value;
use vjepa_weights::TensorFile;

use super::*;
use crate::images::{Picture, eval_crop};
use crate::transforms::{CropBox, Frames, resize_crop};
use policy::ORIGINAL;
use vjepa_runtime::Normalization;

/// The folders of this name.
fn folders(name: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let carried = root.join("tests/golden").join(name);
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let full = root.join("../shared/golden").join(name);
    [carried, full].into_iter().filter(|folder| folder.is_dir()).collect()
}

/// Reads JSON with its fractions as texts: serde_json's own reading of them may be off by the last bit.
fn json(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    let mut exact = String::new();
    for (index, part) in text.split('"').enumerate() {
        // Every second part is a string; there are no escaped quotes.
        if index % 2 == 1 {
            exact.push_str(&format!("\"{part}\""));
            continue;
        }
        for token in part.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c))) {
            let number = token.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
            match number.contains('.') || number.contains("e-") {
                true => exact.push_str(&format!("\"{number}\"{}", &token[number.len()..])),
                false => exact.push_str(token),
            }
        }
    }
    serde_json::from_str(&exact).unwrap()
}

fn real(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

fn rows(value: &Value) -> &[Value] {
    let rows = value.as_array().unwrap();
    assert!(!rows.is_empty());
    rows
}

fn text<'a>(row: &'a Value, key: &str) -> &'a str {
    row[key].as_str().unwrap()
}

fn seed(row: &Value) -> u32 {
    row["seed"].as_u64().unwrap() as u32
}

fn boxed(value: &Value) -> CropBox {
    let n: Vec<usize> = value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
    CropBox { top: n[0], left: n[1], height: n[2], width: n[3] }
}

/// A tensor `[T, H, W, 3]` or `[H, W, 3]` as frames.
fn frames(file: &TensorFile, name: &str) -> (Vec<Vec<u8>>, (usize, usize)) {
    let shape = file.shape(name).unwrap();
    let (height, width) = (shape[shape.len() - 3], shape[shape.len() - 2]);
    let bytes = file.u8(name).unwrap();
    (bytes.chunks_exact(height * width * 3).map(<[u8]>::to_vec).collect(), (height, width))
}

fn most(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// An operation from its recorded name and arguments.
fn op(name: &str, args: &[Value]) -> Op {
    let real = || real(&args[0]);
    let whole = || args[0].as_u64().unwrap() as u32;
    match name {
        "AutoContrast" => Op::AutoContrast,
        "Equalize" => Op::Equalize,
        "Invert" => Op::Invert,
        "Rotate" => Op::Rotate(real()),
        "PosterizeIncreasing" | "PosterizeOriginal" => Op::Posterize(whole()),
        "SolarizeIncreasing" | "Solarize" => Op::Solarize(whole()),
        "SolarizeAdd" => Op::SolarizeAdd(whole()),
        "ColorIncreasing" | "Color" => Op::Color(real()),
        "ContrastIncreasing" | "Contrast" => Op::Contrast(real()),
        "BrightnessIncreasing" => Op::Brightness(real()),
        "SharpnessIncreasing" | "Sharpness" => Op::Sharpness(real()),
        "ShearX" => Op::ShearX(real()),
        "ShearY" => Op::ShearY(real()),
        "TranslateXRel" => Op::TranslateX(real()),
        "TranslateYRel" => Op::TranslateY(real()),
        other => panic!("{other}"),
    }
}

/// What a recorded step applies; none for one that was skipped.
fn applied(step: &Value) -> Option<Op> {
    step["applied"].as_bool().unwrap().then(|| op(text(step, "op"), step["args"].as_array().unwrap()))
}

fn step(op: Op) -> Step {
    Step { kind: OpKind::Invert, op: Some(op) }
}

#[test]
fn every_operation_is_bit_exact() {
    for folder in folders("eval_augment") {
        let info = json(&folder.join("randaugment.json"));
        let file = TensorFile::read(folder.join("randaugment.safetensors")).unwrap();
        for row in rows(&info["ops"]) {
            let (mut picture, size) = frames(&file, text(row, "src"));
            let op = op(text(row, "op"), row["args"].as_array().unwrap());
            Policy::apply(&[step(op)], &mut picture, size, Policy::CLIP_FILL).unwrap();
            assert!(picture[0] == file.u8(text(row, "key")).unwrap(), "{row}");
        }
    }
}

#[test]
fn rand_augment_draws_and_pixels_are_exact() {
    let policy: Policy = "rand-m7-n4-mstd0.5-inc1".parse().unwrap();
    for folder in folders("eval_augment") {
        let info = json(&folder.join("randaugment.json"));
        let file = TensorFile::read(folder.join("randaugment.safetensors")).unwrap();
        for row in rows(&info["draws"]) {
            let mut draws = OfficialDraws::new(seed(row));
            let steps = policy.draw(&mut draws);
            let wanted: Vec<Option<Op>> = rows(&row["steps"]).iter().map(applied).collect();
            assert_eq!(steps.iter().map(|step| step.op).collect::<Vec<_>>(), wanted, "{row}");
            assert_eq!(draws.next_python(), real(&row["next_python_random"]), "{row}");
            assert_eq!(draws.next_numpy(), real(&row["next_numpy_rand"]), "{row}");
            let (mut clip, size) = frames(&file, "clip_u8");
            Policy::apply(&steps, &mut clip, size, Policy::CLIP_FILL).unwrap();
            assert!(clip.concat() == file.u8(text(row, "key")).unwrap(), "{row}");
        }
    }
}

#[test]
fn erasing_boxes_are_exact_and_noise_is_pytorchs() {
    for folder in folders("eval_augment") {
        let info = json(&folder.join("erasing.json"));
        for row in rows(&info["boxes"]) {
            let mut draws = OfficialDraws::new(seed(row));
            let side = |key: &str| row[key].as_u64().unwrap() as usize;
            let erase = RandomErasing::clips(real(&row["prob"]));
            let found = erase.draw(side("H"), side("W"), &mut draws);
            let wanted = row["box"].is_array().then(|| boxed(&row["box"]));
            assert_eq!(found, wanted, "{row}");
            assert_eq!(draws.next_python(), real(&row["next_python_random"]), "{row}");
        }
        let file = TensorFile::read(folder.join("transform.safetensors")).unwrap();
        for row in rows(&info["noise"]) {
            let name = text(row, "key");
            let [frames, _, height, width] = file.shape(name).unwrap().try_into().unwrap();
            let mut draws = OfficialDraws::new(seed(row));
            let area = RandomErasing::clips(1.0).draw(height, width, &mut draws).unwrap();
            let mut clip = vec![0.0; 3 * frames * height * width];
            RandomErasing::fill(area, (height, width), &mut clip, &mut draws).unwrap();
            // The recorded order is [T, 3, H, W].
            let plane = height * width;
            let at = |t: usize, c: usize| &clip[(c * frames + t) * plane..][..plane];
            let turned: Vec<f32> =
                (0..frames).flat_map(|t| (0..3).flat_map(move |c| at(t, c).iter().copied())).collect();
            let off = most(&turned, &file.f32(name).unwrap());
            assert!(off <= 1e-5, "{row}: {off}");
        }
    }
}

#[test]
fn the_clip_transform_follows_from_its_seed() {
    for folder in folders("eval_augment") {
        let info = json(&folder.join("transform.json"));
        let file = TensorFile::read(folder.join("transform.safetensors")).unwrap();
        let (clip, size) = frames(&file, "train_clip_u8");
        for row in rows(&info["rows"]) {
            let wanted = file.f32(&format!("train{}", seed(row))).unwrap();
            let shape = file.shape(&format!("train{}", seed(row))).unwrap();
            let augment = ClipAugment::probe(shape[3]);
            let mut draws = OfficialDraws::new(seed(row));
            let mut out = vec![0.0; wanted.len()];
            augment.apply(clip.clone(), size, &mut draws, &mut out).unwrap();
            assert_eq!(draws.next_python(), real(&row["next_python_random"]), "{row}");
            assert_eq!(draws.next_numpy(), real(&row["next_numpy_rand"]), "{row}");
            let (off, allowed) = (most(&out, &wanted), if row["erased_hw"].is_null() { 1e-5 } else { 1e-4 });
            assert!(off <= allowed, "{row}: {off}");
        }
    }
}

#[test]
fn mixup_and_cutmix_are_exact() {
    for folder in folders("eval_mixup") {
        let info = json(&folder.join("info.json"));
        let file = TensorFile::read(folder.join("mixup.safetensors")).unwrap();
        let classes = info["classes"].as_u64().unwrap() as usize;
        let (labels, logits) = (file.i64("labels").unwrap(), file.f32("logits").unwrap());
        let shape = file.shape("x").unwrap();
        let (height, width) = (shape[3], shape[4]);
        for row in rows(&info["rows"]) {
            let mut draws = OfficialDraws::new(seed(row));
            let mixing = Mixing::default();
            let mix = mixing.draw(height, width, &mut draws);
            assert_eq!(mix.lambda, real(&row["lam"]), "{row}");
            assert_eq!(mix.pasted.is_some(), row["cutmix"].as_bool().unwrap());
            if let Some(area) = mix.pasted {
                let ends = [area.top, area.top + area.height, area.left, area.left + area.width];
                let wanted: Vec<u64> = rows(&row["box_yl_yh_xl_xh"]).iter().map(|n| n.as_u64().unwrap()).collect();
                assert_eq!(ends.map(|n| n as u64)[..], wanted[..], "{row}");
            }
            assert_eq!(draws.next_numpy(), real(&row["next_numpy_rand"]), "{row}");
            let mut batch = file.f32("x").unwrap();
            mix.apply(&mut batch, shape[0], (height, width)).unwrap();
            let off = most(&batch, &file.f32(&format!("x{}", seed(row))).unwrap());
            assert!(off <= 1e-6, "{row}: {off}");
            let targets = mixing.targets(&labels, classes, mix).unwrap();
            let off = most(&targets, &file.f32(&format!("t{}", seed(row))).unwrap());
            assert!(off <= 1e-6, "{row}: {off}");
            let (loss, wanted) = (soft_cross_entropy(&logits, &targets, classes).unwrap(), real(&row["loss"]));
            assert!((loss / wanted - 1.0).abs() <= 1e-6, "{row}: {loss}");
        }
    }
}

#[test]
fn resizing_is_pillows_to_the_bit() {
    for folder in folders("eval_images") {
        let info = json(&folder.join("info.json"));
        let file = TensorFile::read(folder.join("images.safetensors")).unwrap();
        let side = info["eval"]["resolution"].as_u64().unwrap() as usize;
        for (index, row) in rows(&info["eval"]["rows"]).iter().enumerate() {
            let (picture, (height, width)) = frames(&file, text(row, "image"));
            let name = format!("resized{index}");
            let (_, size) = frames(&file, &name);
            let resized = pil::resize(&picture[0], (height, width), size, pil::Filter::Bilinear).unwrap();
            assert!(resized == file.u8(&name).unwrap(), "{row}");
            let picture = Picture { rgb: picture[0].clone(), height, width };
            let cropped = eval_crop(&picture, side).unwrap();
            assert!(cropped == file.u8(&format!("cropped{index}")).unwrap(), "{row}");
            let name = format!("eval{index}");
            if file.contains(&name) {
                let whole = CropBox { top: 0, left: 0, height: side, width: side };
                let mut out = vec![0.0; 3 * side * side];
                let clip = [cropped];
                let clip = Frames::new(&clip, side, side).unwrap();
                resize_crop(clip, &[whole], (side, side), false, &Normalization::Imagenet, &mut out).unwrap();
                let off = most(&out, &file.f32(&name).unwrap());
                assert!(off <= 1e-6, "{row}: {off}");
            }
        }
        for row in rows(&info["train_crops"]) {
            let (picture, size) = frames(&file, text(row, "src"));
            let (_, out) = frames(&file, text(row, "key"));
            let window = CropBox { top: 0, left: 0, height: out.0, width: out.1 };
            let crop = boxed(&row["ijhw"]);
            let resized = pil::resize_window(&picture[0], size, crop, out, window, pil::Filter::Bicubic).unwrap();
            assert!(resized == file.u8(text(row, "key")).unwrap(), "{row}");
        }
    }
}

#[test]
fn the_picture_transform_follows_from_its_seed() {
    for folder in folders("eval_images") {
        let info = json(&folder.join("info.json"));
        let file = TensorFile::read(folder.join("images.safetensors")).unwrap();
        let (picture, size) = frames(&file, text(&info["train"], "src"));
        let side = info["eval"]["resolution"].as_u64().unwrap() as usize;
        let augment = PictureAugment::probe(side);
        for row in rows(&info["train"]["rows"]) {
            let mut draws = OfficialDraws::new(seed(row));
            let area = CropBox::random(size.0, size.1, &augment.crop, &mut draws);
            assert_eq!(area, boxed(&row["crop_ijhw"]), "{row}");
            assert_eq!(draws.flip_picture(), row["flipped"].as_bool().unwrap(), "{row}");
            let steps: Vec<Option<Op>> = Policy::Original.draw(&mut draws).iter().map(|step| step.op).collect();
            assert_eq!(steps, rows(&row["ops"]).iter().map(applied).collect::<Vec<_>>(), "{row}");
            let mut draws = OfficialDraws::new(seed(row));
            let mut out = vec![0.0; 3 * side * side];
            augment.apply(&picture[0], size, &mut draws, &mut out).unwrap();
            let off = most(&out, &file.f32(&format!("train{}", seed(row))).unwrap());
            let allowed = if row["erased"].as_bool().unwrap() { 1e-4 } else { 1e-5 };
            assert!(off <= allowed, "{row}: {off}");
        }
        for (pair, recorded) in ORIGINAL.iter().zip(rows(&info["autoaugment"]["policy"])) {
            for ((kind, probability, magnitude), recorded) in pair.iter().zip(rows(recorded)) {
                let name = recorded[0].as_str().unwrap().trim_end_matches("Original").to_owned();
                assert_eq!((format!("{kind:?}"), *probability), (name, real(&recorded[1])));
                assert_eq!(*magnitude, real(&recorded[2]));
            }
        }
    }
}
