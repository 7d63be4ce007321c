//! What was recorded, beside tensors.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Json {
    pub(super) config: Config,
    pub(super) hparams: Hparams,
    pub(super) first_batch: BTreeMap<String, serde_json::Value>,
    pub(super) runs: BTreeMap<String, RunJson>,
    pub(super) lambda_schedule: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
pub(super) struct Config {
    pub(super) img: usize,
    pub(super) frames: usize,
    pub(super) patch: usize,
    pub(super) tubelet: usize,
    pub(super) image_tubelet: usize,
    pub(super) dim: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    pub(super) mlp_ratio: f64,
    pub(super) hierarchical_layers: Vec<usize>,
    pub(super) interpolate_rope: bool,
    pub(super) pred_dim: usize,
    pub(super) pred_depth: usize,
    pub(super) pred_heads: usize,
    pub(super) pred_interpolate_rope: bool,
    pub(super) levels: usize,
    pub(super) num_mask_tokens: usize,
    pub(super) masks: Vec<serde_json::Map<String, serde_json::Value>>,
    pub(super) img_masks: Vec<serde_json::Map<String, serde_json::Value>>,
    pub(super) mask_global_seed: u64,
    pub(super) img_mask_global_seed: u64,
    pub(super) distilled: Distilled,
}

#[derive(Deserialize)]
pub(super) struct Distilled {
    pub(super) pred_dim: usize,
    pub(super) depth: usize,
    pub(super) heads: usize,
    pub(super) levels: usize,
    pub(super) teacher_embed_dim: usize,
    pub(super) num_mask_tokens: usize,
    pub(super) interpolate_rope: bool,
}

#[derive(Deserialize)]
pub(super) struct Hparams {
    pub(super) ipe: u64,
    pub(super) epochs: u64,
    pub(super) warmup: u64,
    pub(super) start_lr: f64,
    pub(super) lr: f64,
    pub(super) final_lr: f64,
    pub(super) wd: f64,
    pub(super) final_wd: f64,
    pub(super) ema: [f64; 2],
    pub(super) ipe_scale: f64,
    pub(super) loss_exp: f64,
    pub(super) lambda_value: f64,
    pub(super) lambda_progressive: bool,
    pub(super) weight_distance_loss: bool,
    pub(super) betas: [f64; 2],
    pub(super) eps: f64,
}

#[derive(Deserialize)]
pub(super) struct First {
    pub(super) loss: f64,
    pub(super) loss_pred: f64,
    pub(super) loss_context: f64,
    pub(super) enc_grad_norm: f64,
    pub(super) pred_grad_norm: f64,
}

#[derive(Deserialize)]
pub(super) struct RunJson {
    pub(super) steps: Vec<Row>,
}

#[derive(Deserialize)]
pub(super) struct Row {
    pub(super) lr: f64,
    pub(super) wd: f64,
    pub(super) momentum: f64,
    pub(super) loss: f64,
    pub(super) loss_pred: f64,
    pub(super) loss_context: f64,
    pub(super) enc_grad_norm: f64,
    pub(super) pred_grad_norm: f64,
    pub(super) image_loss: Option<f64>,
    pub(super) image_loss_pred: Option<f64>,
    pub(super) image_loss_context: Option<f64>,
}

impl Row {
    /// Output names with what was recorded; of two modalities the mean of their losses.
    pub(super) fn recorded(&self) -> Vec<(&'static str, f64)> {
        let mean = |video: f64, image: Option<f64>| image.map_or(video, |image| 0.5 * (video + image));
        vec![
            ("loss", mean(self.loss, self.image_loss)),
            ("loss_pred", mean(self.loss_pred, self.image_loss_pred)),
            ("loss_context", mean(self.loss_context, self.image_loss_context)),
            ("grad_norm.encoder", self.enc_grad_norm),
            ("grad_norm.predictor", self.pred_grad_norm),
        ]
    }
}
