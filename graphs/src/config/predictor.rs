//! Sizes of predictors.

use serde::{Deserialize, Serialize};

use vjepa_recipe::config::{Generation, ModelConfig, Positions, mlp_dim};

use super::{EncoderConfig, is_table, position_width, positive, require, transformer};
use crate::error::ConfigError;

/// Sizes of a predictor (`src/models/predictor.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictorConfig {
    /// Token grid of the encoder: time, height, width.
    pub grid: [usize; 3],
    /// Width of the encoder's tokens, in and out.
    pub encoder_dim: usize,
    /// Width of its own tokens.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; divides `embed_dim`. The official code uses as many as in the encoder.
    pub num_heads: usize,
    /// Hidden width of the MLP over `embed_dim`.
    pub mlp_ratio: f64,
    /// Mask tokens: one per mask generator.
    pub num_mask_tokens: usize,
    /// As in [`EncoderConfig`].
    pub uniform_power: bool,
    /// How tokens know where they are.
    #[serde(default, skip_serializing_if = "is_table")]
    pub positions: Positions,
    /// Side of a patch in pixels, which decides what grid positions are mapped to.
    #[serde(default = "usual_patch")]
    pub patch: usize,
    /// Levels of the encoder that it reads, side by side: with several its input layer is an MLP.
    #[serde(default = "one")]
    pub levels: usize,
    /// Width of what it predicts, if not that of what it reads.
    #[serde(default)]
    pub output_dim: Option<usize>,
    /// Whether it predicts the context tokens too, by an output layer of their own.
    #[serde(default)]
    pub predicts_context: bool,
    /// Whether a vector for images or one for videos is added to its tokens.
    #[serde(default)]
    pub modalities: bool,
}

fn usual_patch() -> usize {
    16
}

fn one() -> usize {
    1
}

impl PredictorConfig {
    /// The released predictor for an encoder: 384 wide, 12 blocks, the encoder's heads, two mask tokens; for an encoder with
    /// rotary positions 12 heads and ten mask tokens, or eight where it has levels.
    pub fn for_encoder(encoder: &EncoderConfig) -> Self {
        let generation = encoder.generation();
        let (num_heads, num_mask_tokens) = match generation {
            Generation::V1 => (encoder.num_heads, 2),
            Generation::V2 => (ModelConfig::RELEASED_PRED_HEADS, 10),
            Generation::V21 => (ModelConfig::RELEASED_PRED_HEADS, 8),
        };
        Self {
            positions: encoder.positions,
            patch: encoder.patch,
            levels: encoder.num_levels(),
            output_dim: None,
            predicts_context: generation == Generation::V21,
            modalities: encoder.image_tubelet.is_some(),
            grid: encoder.grid(),
            encoder_dim: encoder.embed_dim,
            embed_dim: ModelConfig::RELEASED_PRED_EMBED_DIM,
            depth: ModelConfig::RELEASED_PRED_DEPTH,
            num_heads,
            mlp_ratio: 4.0,
            num_mask_tokens,
            uniform_power: encoder.uniform_power,
        }
    }

    /// Tokens per clip.
    pub fn tokens(&self) -> usize {
        self.grid.into_iter().product()
    }

    /// Width of what it reads: all levels side by side.
    pub fn input_dim(&self) -> usize {
        self.levels * self.encoder_dim
    }

    /// Width of what it predicts.
    pub fn predicted_dim(&self) -> usize {
        self.output_dim.unwrap_or(self.input_dim())
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim.checked_div(self.num_heads).unwrap_or(0)
    }

    /// Hidden width of the MLP.
    pub fn mlp_dim(&self) -> usize {
        mlp_dim(self.embed_dim, self.mlp_ratio)
    }

    /// Checks every rule.
    ///
    /// # Errors
    /// The first rule that is violated.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(self.tokens() > 0, "grid", || format!("must have tokens along each axis, got {:?}", self.grid))?;
        positive("encoder_dim", self.encoder_dim)?;
        positive("num_mask_tokens", self.num_mask_tokens)?;
        positive("levels", self.levels)?;
        positive("output_dim", self.predicted_dim())?;
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)?;
        position_width(self.embed_dim, self.num_heads, self.positions, self.uniform_power)
    }
}
