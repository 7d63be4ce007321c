//! Pixels as targets, and their loss, through a plan.

use std::path::Path;

use serde::Deserialize;
use vjepa_graphs::objectives::PixelTargets;
use vjepa_programs as compile;
use vjepa_recipe::config::PixelTarget;
use vjepa_runtime::Normalization;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, read_json};
use super::super::run::{Execution, run_once, scalar, values};
use super::wrong;

#[derive(Deserialize)]
struct Info {
    mse_videomae: f64,
    mse_mae: f64,
}

/// Frames and side of a token.
const TOKEN: [usize; 2] = [2, 16];

/// `eval_pixels/`. Clips are prepared as for an encoder; VideoMAE's targets are nevertheless those of pixels in 0 to 1.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let info: Info = read_json(&dir.join("info.json"))?;
    let io = TensorFile::read(dir.join("io.safetensors"))?;
    let &[batch, 3, frames, height, width] = io.shape("clip_u8")? else {
        return Err(wrong(dir, "`clip_u8` must be [B, 3, T, H, W]"));
    };
    let bytes = io.u8("clip_u8")?;
    let of_sample = (bytes.len() / batch.max(1)).max(1);
    let clips = bytes.chunks_exact(of_sample).flat_map(|clip| Normalization::Imagenet.of_planes(clip));
    let clip = HostTensor::F32 { shape: vec![batch, 3, frames, height, width], data: clips.collect() };
    let std = Normalization::Imagenet.statistics().map_or([1.0; 3], |(_, std)| std.map(f64::from));
    let masked: Vec<i32> = io.i64("masked")?.into_iter().filter_map(|token| i32::try_from(token).ok()).collect();
    let index = HostTensor::I32 { shape: vec![batch, masked.len()], data: masked.repeat(batch) };
    let predictions = HostTensor::F32 { shape: io.shape("pred")?.to_vec(), data: io.f32("pred")? };
    let mut checks = Vec::new();
    for (definition, want) in [(PixelTarget::Videomae, info.mse_videomae), (PixelTarget::Mae, info.mse_mae)] {
        let name = definition.name();
        let targets = PixelTargets { definition, std };
        let graph = compile::pixels(targets, [3, frames, height, width], TOKEN).map_err(GoldenError::Compile)?;
        let inputs = vec![("clip", clip.clone()), ("predictions", predictions.clone()), ("mask_pred", index.clone())];
        let outputs = run_once(execution, &graph, &mut execution.params(), inputs)?;
        // The first tokens of every sample are stored.
        let stored = format!("target_{name}_t0");
        let &[_, kept, values_of_token] = io.shape(&stored)? else {
            return Err(wrong(dir, format!("`{stored}` must be [B, tokens, values]")));
        };
        let got = values(&outputs, "targets")?;
        let samples = got.chunks_exact((got.len() / batch.max(1)).max(1));
        let first: Vec<f32> = samples.flat_map(|one| one.iter().copied().take(kept * values_of_token)).collect();
        checks.push(Check::rel_l2(format!("pixels.{name}.targets"), &first, &io.f32(&stored)?, 1e-5));
        checks.push(Check::scalar_rel(format!("pixels.{name}.loss"), scalar(&outputs, "loss")?, want, 1e-5));
    }
    Ok(checks)
}
