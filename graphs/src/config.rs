//! Sizes of encoders, predictors and probes, and the rules for them.

use serde::{Deserialize, Serialize};

use vjepa_recipe::config::{EncoderSizes, Generation, ModelName, Positions, mlp_dim};

use crate::error::ConfigError;

mod predictor;
mod probe;

pub use predictor::PredictorConfig;
pub use probe::{BlocksOn, ProbeConfig};

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
    /// How tokens know where they are.
    #[serde(default, skip_serializing_if = "is_table")]
    pub positions: Positions,
    /// Blocks, from 0, ascending, whose outputs are the encoder's levels, each with a norm of its own; the last block is one.
    /// Empty for an encoder with one final norm.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub levels: Vec<usize>,
    /// Frames of an image's token, where images, clips of as many frames, have a patch embedding of their own beside that of
    /// videos, and either adds a vector to its tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_tubelet: Option<usize>,
}

/// For configurations that were written before there was a choice.
fn is_table(positions: &Positions) -> bool {
    *positions == Positions::Table
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
            positions: Positions::Table,
            levels: Vec::new(),
            image_tubelet: None,
        }
    }

    /// The same sizes as a released encoder of another generation.
    ///
    /// # Errors
    /// [`ConfigError`] for a depth that V-JEPA 2.1 has no levels for.
    pub fn of(self, generation: Generation) -> Result<Self, ConfigError> {
        let levels = generation.levels(self.depth).ok_or_else(|| {
            ConfigError::new("depth", format!("must be 12, 24, 40 or 48 for V-JEPA 2.1, got {}", self.depth))
        })?;
        let image_tubelet = (generation == Generation::V21).then_some(1);
        Ok(Self { positions: generation.positions(None), levels: levels.to_vec(), image_tubelet, ..self })
    }

    /// The generation it is closest to: rotary positions make it V-JEPA 2, levels V-JEPA 2.1.
    pub fn generation(&self) -> Generation {
        match (self.positions, self.levels.is_empty()) {
            (Positions::Table, _) => Generation::V1,
            (Positions::Rotary(_), true) => Generation::V2,
            (Positions::Rotary(_), false) => Generation::V21,
        }
    }

    /// Whether clips of so many frames are images to it.
    pub fn is_image(&self, frames: usize) -> bool {
        self.image_tubelet == Some(frames)
    }

    /// Width of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim.checked_div(self.num_heads).unwrap_or(0)
    }

    /// Number of levels side by side in [`forward_levels`](crate::Encoder::forward_levels).
    pub fn num_levels(&self) -> usize {
        self.levels.len().max(1)
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
        self.grid_of([self.num_frames, self.height, self.width])
    }

    /// The grid of a clip or an image of another size: frames, height and width.
    pub fn grid_of(&self, [frames, height, width]: [usize; 3]) -> [usize; 3] {
        let steps = |size: usize, step: usize| size.checked_div(step).unwrap_or(0);
        let tubelet = if self.is_image(frames) { frames } else { self.tubelet };
        [steps(frames, tubelet), steps(height, self.patch), steps(width, self.patch)]
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
            let image = key == "num_frames" && self.is_image(size);
            require(image || size.is_multiple_of(step), key, || {
                format!("must be a multiple of `{step_key}` = {step}, got {size}")
            })?;
        }
        require(self.num_frames > 1 || self.is_image(self.num_frames), "num_frames", || {
            "must be at least 2: one frame is the official image model, which V-JEPA does not use".to_owned()
        })?;
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)?;
        position_width(self.embed_dim, self.num_heads, self.positions, self.uniform_power)?;
        if let Some(last) = self.levels.last() {
            let ascending = self.levels.windows(2).all(|pair| pair[0] < pair[1]);
            require(ascending && last + 1 == self.depth, "levels", || {
                format!("must ascend to the last block, {}, got {:?}", self.depth - 1, self.levels)
            })?;
        }
        if let Some(image) = self.image_tubelet {
            require(image > 0 && !image.is_multiple_of(self.tubelet), "image_tubelet", || {
                format!("must not be a multiple of `tubelet` = {}, got {image}", self.tubelet)
            })?;
        }
        if let Some(layers) = &self.out_layers {
            require(!layers.is_empty(), "out_layers", || "must name at least one block".to_owned())?;
            self.check_blocks(layers).map_err(|why| ConfigError::new("out_layers", format!("names block {why}")))?;
            let normed = self.levels.is_empty() || layers.iter().all(|layer| self.levels.contains(layer));
            require(normed, "out_layers", || {
                format!("must name levels of a V-JEPA 2.1 encoder, {:?}, got {layers:?}", self.levels)
            })?;
        }
        Ok(())
    }

    /// Refuses blocks that the encoder does not have.
    ///
    /// # Errors
    /// The first of them, and which there are, to follow a flag: `12: the encoder has 4 blocks, numbered 0 to 3`.
    pub fn check_blocks(&self, named: &[usize]) -> Result<(), String> {
        match named.iter().find(|block| **block >= self.depth) {
            None => Ok(()),
            Some(block) => {
                let last = self.depth.saturating_sub(1);
                Err(format!("{block}: the encoder has {} blocks, numbered 0 to {last}", self.depth))
            }
        }
    }
}

pub(crate) fn require(holds: bool, key: &'static str, rule: impl FnOnce() -> String) -> Result<(), ConfigError> {
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

fn position_width(dim: usize, heads: usize, positions: Positions, uniform_power: bool) -> Result<(), ConfigError> {
    match positions {
        Positions::Table => require(uniform_power || dim.is_multiple_of(8), "embed_dim", || {
            format!("must be a multiple of 8 when `uniform_power` is off, got {dim}")
        }),
        Positions::Rotary(_) => {
            let width = dim / heads;
            require(width.is_multiple_of(2) && width >= 6, "num_heads", || {
                format!("must leave heads of an even width of at least 6 for rotary positions, got {width}")
            })
        }
    }
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
