//! The model in files of V-JEPA 2's evaluations, `model_kwargs`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::Skipped;
use super::super::named::ModelName;
use super::{CheckpointKey, EncoderSource};

/// The `model_kwargs` section, whose wrapper is the evaluation's own.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, bound(deserialize = "W: Deserialize<'de> + Default"))]
#[schemars(bound = "W: JsonSchema + Serialize + Default")]
pub(super) struct ModelKwargs<W> {
    pub(super) checkpoint: String,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    module_name: Skipped,
    pub(super) pretrain_kwargs: PretrainKwargs,
    pub(super) wrapper_kwargs: W,
}

#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PretrainKwargs {
    pub(super) encoder: EncoderKwargs,
    /// Of anticipation, whose file says its sizes itself; classification has no predictor.
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    predictor: Skipped,
    /// Whether the file is a V-JEPA 2.1, which it says itself.
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    use_v2_1: Skipped,
}

/// The encoder. What of it a file says itself is named as having no effect.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct EncoderKwargs {
    model_name: Option<ModelName>,
    pub(super) checkpoint_key: CheckpointKey,
    pub(super) patch_size: usize,
    pub(super) tubelet_size: usize,
    uniform_power: bool,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    use_rope: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    use_sdpa: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    interpolate_rope: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    img_temporal_dim_size: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    modality_embedding: Skipped,
    #[serde(skip_serializing)]
    #[allow(dead_code)]
    n_output_distillation: Skipped,
    /// Gated MLPs; not supported.
    pub(super) use_silu: bool,
    wide_silu: bool,
}

impl Default for EncoderKwargs {
    fn default() -> Self {
        Self {
            model_name: None,
            checkpoint_key: CheckpointKey::default(),
            patch_size: 16,
            tubelet_size: 2,
            uniform_power: false,
            use_rope: Skipped,
            use_sdpa: Skipped,
            interpolate_rope: Skipped,
            img_temporal_dim_size: Skipped,
            modality_embedding: Skipped,
            n_output_distillation: Skipped,
            use_silu: false,
            wide_silu: true,
        }
    }
}

impl EncoderKwargs {
    /// The encoder of a checkpoint, which sees clips of `frames` frames and whose `layers` a probe reads.
    pub(super) fn source(self, checkpoint: String, frames: usize, layers: Option<Vec<usize>>) -> EncoderSource {
        EncoderSource {
            checkpoint: PathBuf::from(checkpoint),
            key: self.checkpoint_key,
            model: self.model_name,
            frames,
            tubelet: self.tubelet_size,
            patch: self.patch_size,
            uniform_power: self.uniform_power,
            from_file: true,
            layers,
        }
    }
}

/// Why a key of a model does nothing.
pub(super) const IN_FILE: &str = "the checkpoint says it itself";

/// Keys of the encoder that do nothing here.
pub(super) const ENCODER_UNREAD: [(&str, &str); 8] = [
    ("model_kwargs.pretrain_kwargs.encoder.uniform_power", "it is of a position table, and positions are rotary"),
    ("model_kwargs.pretrain_kwargs.encoder.use_rope", IN_FILE),
    ("model_kwargs.pretrain_kwargs.encoder.interpolate_rope", IN_FILE),
    ("model_kwargs.pretrain_kwargs.encoder.img_temporal_dim_size", IN_FILE),
    ("model_kwargs.pretrain_kwargs.encoder.modality_embedding", IN_FILE),
    ("model_kwargs.pretrain_kwargs.encoder.n_output_distillation", IN_FILE),
    ("model_kwargs.pretrain_kwargs.encoder.use_sdpa", "attention is always the fused one, as in the official model"),
    ("model_kwargs.pretrain_kwargs.encoder.wide_silu", "it is of gated MLPs, and released encoders have plain ones"),
];
