//! Sizes of encoders, predictors and probes, and the rules for them.

use serde::{Deserialize, Serialize};

use vjepa_recipe::config::{EncoderSizes, ModelConfig, ModelName};

use crate::error::ConfigError;

/// Sizes of an encoder (`src/models/vision_transformer.py` of the official code).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncoderConfig {
    /// Frames per clip; a multiple of `tubelet`.
    pub num_frames: usize,
    /// Height of a frame in pixels; a multiple of `patch`.
    pub height: usize,
    /// Width of a frame in pixels; a multiple of `patch`.
    pub width: usize,
    /// Frames per token.
    pub tubelet: usize,
    /// Height and width of a token in pixels.
    pub patch: usize,
    /// Colour channels.
    pub channels: usize,
    /// Width of a token.
    pub embed_dim: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; divides `embed_dim`.
    pub num_heads: usize,
    /// Hidden width of the MLP over `embed_dim`; the product is truncated.
    pub mlp_ratio: f64,
    /// Equal shares of the position table's width for time, height and width, as in every released recipe (otherwise half
    /// to time and a quarter to each of the others).
    pub uniform_power: bool,
    /// Blocks, from 0, whose outputs [`forward_layers`](crate::Encoder::forward_layers) returns; `None` for the last only.
    pub out_layers: Option<Vec<usize>>,
}

impl EncoderConfig {
    /// A named size for 16 frames of 224×224, tubelet 2, patch 16; like all of the following.
    pub fn named(name: ModelName) -> Self {
        let EncoderSizes { embed_dim, depth, num_heads, mlp_ratio } = name.sizes();
        Self {
            num_frames: 16,
            height: 224,
            width: 224,
            tubelet: 2,
            patch: 16,
            channels: 3,
            embed_dim,
            depth,
            num_heads,
            mlp_ratio,
            uniform_power: true,
            out_layers: None,
        }
    }

    /// ViT-T: 192 wide, 12 blocks, 3 heads.
    pub fn tiny() -> Self {
        Self::named(ModelName::Tiny)
    }

    /// ViT-S: 384 wide, 12 blocks, 6 heads.
    pub fn small() -> Self {
        Self::named(ModelName::Small)
    }

    /// ViT-B: 768 wide, 12 blocks, 12 heads.
    pub fn base() -> Self {
        Self::named(ModelName::Base)
    }

    /// ViT-L: 1024 wide, 24 blocks, 16 heads.
    pub fn large() -> Self {
        Self::named(ModelName::Large)
    }

    /// ViT-H: 1280 wide, 32 blocks, 16 heads.
    pub fn huge() -> Self {
        Self::named(ModelName::Huge)
    }

    /// ViT-g: 1408 wide, 40 blocks, 16 heads, hidden width 6144.
    pub fn giant() -> Self {
        Self::named(ModelName::Giant)
    }

    /// The same encoder for clips of another size.
    pub fn with_clip(self, num_frames: usize, height: usize, width: usize) -> Self {
        Self { num_frames, height, width, ..self }
    }

    /// Tokens in time, height and width. Token order is row-major, width fastest.
    pub fn grid(&self) -> [usize; 3] {
        let steps = |size: usize, step: usize| size.checked_div(step).unwrap_or(0);
        [steps(self.num_frames, self.tubelet), steps(self.height, self.patch), steps(self.width, self.patch)]
    }

    /// Tokens per clip.
    pub fn tokens(&self) -> usize {
        self.grid().into_iter().product()
    }

    /// Pixel values per token.
    pub fn patch_values(&self) -> usize {
        self.channels * self.tubelet * self.patch * self.patch
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
        positive("tubelet", self.tubelet)?;
        positive("patch", self.patch)?;
        positive("channels", self.channels)?;
        for (key, size, step_key, step) in [
            ("num_frames", self.num_frames, "tubelet", self.tubelet),
            ("height", self.height, "patch", self.patch),
            ("width", self.width, "patch", self.patch),
        ] {
            positive(key, size)?;
            require(size.is_multiple_of(step), key, || {
                format!("must be a multiple of `{step_key}` = {step}, got {size}")
            })?;
        }
        require(self.num_frames > 1, "num_frames", || {
            "must be at least 2: one frame is the official image model, which V-JEPA does not use".to_owned()
        })?;
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)?;
        position_width(self.embed_dim, self.uniform_power)?;
        if let Some(layers) = &self.out_layers {
            require(!layers.is_empty(), "out_layers", || "must name at least one block".to_owned())?;
            require(layers.iter().all(|&layer| layer < self.depth), "out_layers", || {
                format!("must name blocks 0 to {}, got {layers:?}", self.depth - 1)
            })?;
        }
        Ok(())
    }
}

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
}

impl PredictorConfig {
    /// The released predictor for an encoder: 384 wide, 12 blocks, the encoder's heads, two mask tokens.
    pub fn for_encoder(encoder: &EncoderConfig) -> Self {
        Self {
            grid: encoder.grid(),
            encoder_dim: encoder.embed_dim,
            embed_dim: ModelConfig::RELEASED_PRED_EMBED_DIM,
            depth: ModelConfig::RELEASED_PRED_DEPTH,
            num_heads: encoder.num_heads,
            mlp_ratio: 4.0,
            num_mask_tokens: 2,
            uniform_power: encoder.uniform_power,
        }
    }

    /// Tokens per clip.
    pub fn tokens(&self) -> usize {
        self.grid.into_iter().product()
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
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)?;
        position_width(self.embed_dim, self.uniform_power)
    }
}

/// Sizes of an attentive probe (`src/models/attentive_pooler.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeConfig {
    /// Width of the features.
    pub embed_dim: usize,
    /// Attention heads; divides `embed_dim`. As many as in the encoder in the released evaluations.
    pub num_heads: usize,
    /// Hidden width of the MLP over `embed_dim`.
    pub mlp_ratio: f64,
    /// 1 for the cross-attention alone; each additional one adds a self-attention block over the pooled query.
    pub depth: usize,
    /// Cross-attention with residual, norms and MLP, as released; otherwise the attention alone.
    pub complete_block: bool,
    /// Number of classes.
    pub num_classes: usize,
}

impl ProbeConfig {
    /// The released probe for an encoder: depth 1, complete block, the encoder's heads.
    pub fn for_encoder(encoder: &EncoderConfig, num_classes: usize) -> Self {
        Self {
            embed_dim: encoder.embed_dim,
            num_heads: encoder.num_heads,
            mlp_ratio: 4.0,
            depth: 1,
            complete_block: true,
            num_classes,
        }
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
        positive("num_classes", self.num_classes)?;
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)
    }
}

/// `int(dim * ratio)` of the official code.
fn mlp_dim(dim: usize, ratio: f64) -> usize {
    (dim as f64 * ratio) as usize
}

fn require(holds: bool, key: &'static str, rule: impl FnOnce() -> String) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(key, rule())) }
}

fn positive(key: &'static str, value: usize) -> Result<(), ConfigError> {
    require(value > 0, key, || "must be at least 1, got 0".to_owned())
}

fn transformer(dim: usize, depth: usize, heads: usize, mlp_ratio: f64) -> Result<(), ConfigError> {
    positive("embed_dim", dim)?;
    positive("depth", depth)?;
    positive("num_heads", heads)?;
    require(dim.is_multiple_of(heads), "num_heads", || format!("must divide `embed_dim` = {dim}, got {heads}"))?;
    require(mlp_ratio.is_finite() && mlp_dim(dim, mlp_ratio) > 0, "mlp_ratio", || {
        format!("must give the MLP at least one hidden value, got {mlp_ratio}")
    })
}

fn position_width(dim: usize, uniform_power: bool) -> Result<(), ConfigError> {
    require(uniform_power || dim.is_multiple_of(8), "embed_dim", || {
        format!("must be a multiple of 8 when `uniform_power` is off, got {dim}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn presets_hold_their_own_rules() {
        for preset in [
            EncoderConfig::tiny(),
            EncoderConfig::small(),
            EncoderConfig::base(),
            EncoderConfig::large(),
            EncoderConfig::huge(),
            EncoderConfig::giant(),
        ] {
            preset.validate().unwrap();
            assert_eq!(preset.tokens(), 1568);
            let predictor = PredictorConfig::for_encoder(&preset);
            assert_eq!(predictor.validate().is_ok(), 384usize.is_multiple_of(preset.num_heads));
            ProbeConfig::for_encoder(&preset, 400).validate().unwrap();
        }
        assert_eq!(EncoderConfig::giant().mlp_dim(), 6144);
    }

    #[test]
    fn errors_name_the_key() {
        let key = |config: EncoderConfig| config.validate().unwrap_err().key;
        let tiny = EncoderConfig::tiny;
        assert_eq!(key(EncoderConfig { num_frames: 15, ..tiny() }), "num_frames");
        assert_eq!(key(EncoderConfig { num_frames: 1, tubelet: 1, ..tiny() }), "num_frames");
        assert_eq!(key(EncoderConfig { width: 230, ..tiny() }), "width");
        assert_eq!(key(EncoderConfig { patch: 0, ..tiny() }), "patch");
        assert_eq!(key(EncoderConfig { num_heads: 5, ..tiny() }), "num_heads");
        assert_eq!(key(EncoderConfig { mlp_ratio: f64::NAN, ..tiny() }), "mlp_ratio");
        assert_eq!(key(EncoderConfig { out_layers: Some(vec![12]), ..tiny() }), "out_layers");
        assert_eq!(key(EncoderConfig { embed_dim: 36, uniform_power: false, ..tiny() }), "embed_dim");
        let message = EncoderConfig { height: 230, ..tiny() }.validate().unwrap_err().to_string();
        assert_eq!(message, "`height` must be a multiple of `patch` = 16, got 230");
    }
}
