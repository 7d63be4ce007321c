//! Mixup and cutmix in batch mode, targets, and the loss of soft targets.

use std::path::Path;

use serde::Deserialize;
use vjepa_data::augment::{AugmentError, Mixing, OfficialDraws, soft_cross_entropy};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit};
use super::super::sampled::Compare;
use super::recorded::{Exact, read_exact, same_number};
use super::wrong;

/// Of clips, targets and losses.
const LIMIT: f64 = 1e-6;
/// Of the share of a batch's own samples, which goes through powers and logarithms.
const SHARE: f64 = 1e-12;

#[derive(Deserialize)]
struct Info {
    classes: usize,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    seed: u32,
    cutmix: bool,
    lam: Exact,
    #[serde(default)]
    box_yl_yh_xl_xh: Option<[i64; 4]>,
    next_numpy_rand: Exact,
    loss: Exact,
}

/// `eval_mixup/`.
pub(super) fn check(dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let path = dir.join("info.json");
    let info: Info = read_exact(&path)?;
    let file = TensorFile::read(dir.join("mixup.safetensors"))?;
    let fail = |error: AugmentError| wrong(&path, error);
    let (labels, logits, clips) = (file.i64("labels")?, file.f32("logits")?, file.f32("x")?);
    let &[batch, .., height, width] = file.shape("x")? else {
        return Err(wrong(file.path(), "`x` should be a batch of pictures or clips"));
    };
    let mixing = Mixing::default();
    let mut checks = Vec::new();
    for row in &info.rows {
        let name = format!("mixup.seed{}", row.seed);
        let mut draws = OfficialDraws::new(row.seed);
        let mix = mixing.draw(height, width, &mut draws);
        let Exact(share) = row.lam;
        let off = (mix.lambda - share).abs();
        checks.push(Check::measured(format!("{name}.share"), off, off, Limit::MaxAbs(SHARE)));
        checks.push(Check::exact(format!("{name}.cutmix"), &[mix.pasted.is_some()], &[row.cutmix]));
        let ends = |area: vjepa_data::transforms::CropBox| {
            [area.top, area.top + area.height, area.left, area.left + area.width].map(|end| end as i64)
        };
        let (got, want) = (mix.pasted.map(ends).unwrap_or_default(), row.box_yl_yh_xl_xh.unwrap_or_default());
        checks.push(Check::exact(format!("{name}.box"), &got, &want));
        checks.push(same_number(format!("{name}.next_numpy"), draws.next_numpy(), row.next_numpy_rand));
        let mut mixed = clips.clone();
        mix.apply(&mut mixed, batch, (height, width)).map_err(fail)?;
        checks.push(file.compare(&format!("x{}", row.seed), &mixed, Limit::MaxAbs(LIMIT))?.under("mixup"));
        let targets = mixing.targets(&labels, info.classes, mix).map_err(fail)?;
        checks.push(file.compare(&format!("t{}", row.seed), &targets, Limit::MaxAbs(LIMIT))?.under("mixup"));
        let (loss, Exact(want)) = (soft_cross_entropy(&logits, &targets, info.classes).map_err(fail)?, row.loss);
        checks.push(Check::scalar_rel(format!("{name}.loss"), loss, want, LIMIT));
    }
    Ok(checks)
}
