//! `info.json` of recorded fine-tuning runs.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) config: Sizes,
    pub(super) hparams: Hparams,
    pub(super) lr_schedule: Vec<f64>,
    pub(super) runs: BTreeMap<String, Run>,
    pub(super) droppath: Option<Dropped>,
}

#[derive(Deserialize)]
pub(super) struct Sizes {
    pub(super) img: usize,
    pub(super) frames: usize,
    pub(super) patch: usize,
    pub(super) tubelet: usize,
    pub(super) dim: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    pub(super) classes: usize,
}

#[derive(Deserialize)]
pub(super) struct Hparams {
    pub(super) lr: f64,
    pub(super) min_lr: f64,
    pub(super) layer_decay: f64,
    pub(super) weight_decay: f64,
    pub(super) betas: [f64; 2],
    pub(super) eps: f64,
    pub(super) epochs: u64,
    pub(super) steps_per_epoch: u64,
    pub(super) warmup_epochs: u64,
    pub(super) warmup_steps: i64,
}

#[derive(Deserialize)]
pub(super) struct Run {
    pub(super) steps: Vec<Step>,
    pub(super) groups: Vec<Group>,
}

#[derive(Deserialize)]
pub(super) struct Step {
    pub(super) lr: f64,
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
}

#[derive(Deserialize)]
pub(super) struct Group {
    pub(super) lr_scale: f64,
    pub(super) weight_decay: f64,
    pub(super) names: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Dropped {
    pub(super) rates: Vec<f64>,
    pub(super) head_drop: f64,
    pub(super) loss: f64,
}
