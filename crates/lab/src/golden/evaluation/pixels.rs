//! Pixels as targets.

use std::path::Path;

use serde::Deserialize;
use vjepa_data::pixels::{PixelTarget, TokenGrid, masked_squared_error, pixel_targets};
use vjepa_runtime::Normalization;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, read_json};
use super::wrong;

#[derive(Deserialize)]
struct Info {
    mse_videomae: f64,
    mse_mae: f64,
}

/// `eval_pixels/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let info: Info = read_json(&dir.join("info.json"))?;
    let io = TensorFile::read(dir.join("io.safetensors"))?;
    let &[batch, 3, frames, height, width] = io.shape("clip_u8")? else {
        return Err(wrong(dir, "`clip_u8` must be [B, 3, T, H, W]"));
    };
    let grid = TokenGrid { clip: [frames, height, width], tubelet: 2, patch: 16 };
    let bytes = io.u8("clip_u8")?;
    let masked: Vec<usize> = io.i64("masked")?.into_iter().filter_map(|token| usize::try_from(token).ok()).collect();
    let predictions = io.f32("pred")?;
    let fail = |error: vjepa_data::transforms::TransformError| wrong(dir, error);
    let mut checks = Vec::new();
    for (name, target, want) in
        [("videomae", PixelTarget::Videomae, info.mse_videomae), ("mae", PixelTarget::Mae, info.mse_mae)]
    {
        let stored = format!("target_{name}_t0");
        // The first tokens of every sample are stored.
        let kept = io.shape(&stored)?.get(1).copied().unwrap_or(0) * grid.width();
        let (mut first, mut loss) = (Vec::new(), 0.0);
        let samples = bytes.chunks_exact((bytes.len() / batch.max(1)).max(1));
        let predicted = predictions.chunks_exact((masked.len() * grid.width()).max(1));
        for (bytes, predicted) in samples.zip(predicted) {
            let clip = match target {
                PixelTarget::Videomae => bytes.iter().map(|x| f32::from(*x) / 255.0).collect(),
                PixelTarget::Mae => Normalization::Imagenet.of_planes(bytes),
            };
            let got = pixel_targets(&clip, grid, target).map_err(fail)?;
            loss += masked_squared_error(predicted, &got, grid.width(), &masked).map_err(fail)? / batch as f64;
            first.extend(got.into_iter().take(kept));
        }
        checks.push(Check::rel_l2(format!("pixels.{name}.targets"), &first, &io.f32(&stored)?, 1e-5));
        checks.push(Check::scalar_rel(format!("pixels.{name}.loss"), loss, want, 1e-5));
    }
    Ok(checks)
}
