//! A training configuration of the golden data, such as `tiny/`: sizes, weights, the first batch and the recorded run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::check::{GoldenError, read_json};
use super::clip::Clip;
use super::run::{Execution, index, load};
use vjepa_graphs::{AnyObjective, EncoderConfig, Jepa, JepaLoss, PredictorConfig};
use vjepa_recipe::config::{Generation, Positions};
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

#[derive(Deserialize)]
struct TrainingJson {
    config: ModelJson,
    hparams: Hparams,
    #[serde(default)]
    first_batch: Value,
    #[serde(default)]
    steps: Value,
}

#[derive(Deserialize)]
struct ModelJson {
    patch: usize,
    tubelet: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    pred_dim: usize,
    pred_depth: usize,
    pred_heads: usize,
    mlp_ratio: f64,
    #[serde(default = "yes")]
    uniform_power: bool,
    #[serde(default)]
    use_rope: bool,
    num_mask_tokens: usize,
    masks: Vec<serde::de::IgnoredAny>,
}

fn yes() -> bool {
    true
}

/// Constants of the recorded run.
#[derive(Deserialize)]
pub(super) struct Hparams {
    /// Peak learning rate.
    pub(super) lr: f64,
    /// Largest norm of a model's gradient, where clipping is on.
    pub(super) clip_grad: Option<f64>,
    pub(super) loss_exp: f64,
    #[serde(default)]
    pub(super) reg_coeff: f64,
    pub(super) betas: [f64; 2],
    pub(super) eps: f64,
}

#[derive(Deserialize)]
struct FirstBatch {
    losses: BTreeMap<String, FirstLosses>,
}

/// Results of the first batch under one form of the loss.
#[derive(Deserialize)]
pub(super) struct FirstLosses {
    pub(super) loss: f64,
    pub(super) loss_jepa: f64,
    pub(super) loss_reg: f64,
    pub(super) enc_grad_norm: f64,
    pub(super) pred_grad_norm: f64,
}

/// One recorded step.
#[derive(Deserialize)]
pub(super) struct Step {
    pub(super) loss: f64,
    pub(super) loss_jepa: f64,
    pub(super) loss_reg: f64,
    pub(super) enc_grad_norm_raw: f64,
    pub(super) pred_grad_norm_raw: f64,
}

/// Everything the checks of a training configuration start from.
pub(super) struct Training {
    pub(super) execution: Execution,
    pub(super) dir: PathBuf,
    pub(super) encoder: EncoderConfig,
    pub(super) predictor: PredictorConfig,
    /// Mask generators.
    pub(super) generators: usize,
    pub(super) hparams: Hparams,
    /// By `exp<exponent>_reg<coefficient>`.
    pub(super) losses: BTreeMap<String, FirstLosses>,
    pub(super) steps: Vec<Step>,
    pub(super) weights: TensorFile,
    pub(super) forward: TensorFile,
    pub(super) clip: Clip,
}

impl Training {
    /// Reads `config.json`, `weights.safetensors` and `forward.safetensors`.
    pub(super) fn read(execution: Execution, dir: &Path) -> Result<Self, GoldenError> {
        let path = dir.join("config.json");
        let TrainingJson { config, hparams, first_batch, steps } = read_json(&path)?;
        let json = |source| GoldenError::Json { path: path.clone(), source };
        // V-JEPA 2's runs are recorded otherwise; `rotary` reads them.
        let (losses, steps) = match (config.use_rope, steps) {
            (true, _) => (BTreeMap::new(), Vec::new()),
            (false, steps) => {
                let FirstBatch { losses } = serde_json::from_value(first_batch).map_err(json)?;
                let steps = if steps.is_null() { Vec::new() } else { serde_json::from_value(steps).map_err(json)? };
                (losses, steps)
            }
        };
        let generation = if config.use_rope { Generation::V2 } else { Generation::V1 };
        let weights = TensorFile::read(dir.join("weights.safetensors"))?;
        let forward = TensorFile::read(dir.join("forward.safetensors"))?;
        let clips = Clip::read(&forward, "clip_u8")?;
        let Some(clip) = clips.into_iter().next() else {
            return Err(GoldenError::Config { path: forward.path().into(), why: "`clip_u8` is empty".to_owned() });
        };
        let [_, channels, num_frames, height, width] = clip.shape;
        let encoder = EncoderConfig {
            num_frames,
            height,
            width,
            tubelet: config.tubelet,
            patch: config.patch,
            channels,
            embed_dim: config.dim,
            depth: config.depth,
            num_heads: config.heads,
            mlp_ratio: config.mlp_ratio,
            uniform_power: config.uniform_power,
            out_layers: Some(vec![0]),
            positions: generation.positions(None),
            levels: Vec::new(),
            image_tubelet: None,
        };
        let wrong =
            |error: vjepa_graphs::ConfigError| GoldenError::Config { path: path.clone(), why: error.to_string() };
        encoder.validate().map_err(wrong)?;
        let predictor = PredictorConfig {
            embed_dim: config.pred_dim,
            depth: config.pred_depth,
            num_heads: config.pred_heads,
            num_mask_tokens: config.num_mask_tokens,
            mlp_ratio: config.mlp_ratio,
            ..PredictorConfig::for_encoder(&encoder)
        };
        predictor.validate().map_err(wrong)?;
        Ok(Self {
            execution,
            dir: dir.into(),
            encoder,
            predictor,
            generators: config.masks.len(),
            hparams,
            losses,
            steps,
            weights,
            forward,
            clip,
        })
    }

    /// The official objective over the configuration's models.
    pub(super) fn objective(&self, loss: JepaLoss) -> AnyObjective {
        let (encoder, predictor) = (self.encoder.clone(), self.predictor.clone());
        Jepa::plain(encoder, predictor, self.generators, loss).into()
    }

    /// The mask token of a generator's targets; V-JEPA 2 has one for each length of clips instead.
    pub(super) fn mask_token(&self, generator: usize) -> usize {
        match self.predictor.positions {
            Positions::Table => generator,
            Positions::Rotary(_) => 0,
        }
    }

    /// The weights a run starts from: encoder, predictor, and the target encoder as a copy of the encoder.
    pub(super) fn params(&self) -> Result<DeviceParams, GoldenError> {
        let mut params = self.execution.params();
        load(&mut params, &self.weights, "encoder.", "encoder.")?;
        load(&mut params, &self.weights, "predictor.", "predictor.")?;
        load(&mut params, &self.weights, "encoder.", "target_encoder.")?;
        Ok(params)
    }

    /// The masks stored under `prefix` as inputs of a step, by input name.
    pub(super) fn masks(&self, tensors: &TensorFile, prefix: &str) -> Result<Vec<(String, HostTensor)>, GoldenError> {
        let mut masks = Vec::new();
        for generator in 0..self.generators {
            for kind in ["mask_enc", "mask_pred"] {
                let name = format!("{kind}.{generator}");
                masks.push((name.clone(), index(tensors, &format!("{prefix}{name}"), self.encoder.tokens())?));
            }
        }
        Ok(masks)
    }
}
