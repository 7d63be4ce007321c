//! The evaluations' folders (`eval_*`): numbers of metrics, augmentation, pictures, clips and boxes, tables, RoIAlign.

mod augment;
mod ava;
mod detection;
mod finetune;
mod finetune_info;
mod finetune_steps;
mod images;
mod mixup;
mod multiview;
mod numbers;
mod pixels;
mod recorded;

use std::path::Path;

use super::check::{Check, GoldenError};
use super::run::Execution;

/// Which of them a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationFolder {
    /// Predictions averaged over segments and views (`eval_aggregate/`).
    Aggregate,
    /// Votes of nearest neighbours (`eval_knn/`).
    Neighbours,
    /// Mean average precision on AVA (`eval_ava_map/`).
    AvaMap,
    /// Clips and views of the evaluation loaders (`eval_multiview/`).
    Multiview,
    /// Pixels as targets (`eval_pixels/`).
    Pixels,
    /// RoIAlign, boxes, clips around key frames (`eval_detection/`).
    Detection,
    /// Layer decay, drop path, learning rates, steps (`eval_finetune/`).
    Finetune,
    /// RandAugment, random erasing, the video probe's training transform (`eval_augment/`).
    Augment,
    /// Still pictures (`eval_images/`).
    Images,
    /// Mixup and cutmix (`eval_mixup/`).
    Mixup,
}

impl EvaluationFolder {
    /// Recognised by a file, and by a key of `info.json` where it needs one.
    pub(super) fn recognise(dir: &Path, info: impl Fn(&str) -> bool) -> Option<Self> {
        let has = |name: &str| dir.join(name).is_file();
        let known = [
            (Self::AvaMap, has("groundtruth.csv") && has("detections.csv")),
            (Self::Multiview, has("index.json")),
            (Self::Finetune, has("layer_decay.json")),
            (Self::Augment, has("randaugment.json") && has("erasing.json")),
            (Self::Images, has("images.safetensors") && info("/autoaugment")),
            (Self::Mixup, has("mixup.safetensors") && info("/rows")),
            (Self::Detection, has("detection.safetensors") && info("/roi")),
            (Self::Aggregate, has("io.safetensors") && info("/segments_and_views")),
            (Self::Neighbours, has("io.safetensors") && info("/temperature")),
            (Self::Pixels, has("io.safetensors") && info("/mse_videomae")),
        ];
        known.into_iter().find(|(_, fits)| *fits).map(|(kind, _)| kind)
    }

    /// Compares with a folder.
    ///
    /// # Errors
    /// [`GoldenError`] when a file is missing or malformed, or a graph cannot be run.
    pub(super) fn check(self, execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
        match self {
            Self::Aggregate => numbers::aggregate(dir),
            Self::Neighbours => numbers::neighbours(dir),
            Self::AvaMap => ava::check(dir),
            Self::Multiview => multiview::check(dir),
            Self::Pixels => pixels::check(execution, dir),
            Self::Detection => detection::check(execution, dir),
            Self::Finetune => {
                let mut checks = finetune::check(dir)?;
                checks.extend(finetune_steps::check(execution, dir)?);
                Ok(checks)
            }
            Self::Augment => augment::check(dir),
            Self::Images => images::check(execution, dir),
            Self::Mixup => mixup::check(dir),
        }
    }
}

/// Golden data that this program cannot be run on.
fn wrong(path: &Path, why: impl std::fmt::Display) -> GoldenError {
    GoldenError::Config { path: path.into(), why: why.to_string() }
}
