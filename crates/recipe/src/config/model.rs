//! The `model` section: which encoder, which predictor, how their weights start.

use serde::Serialize;

use super::error::ConfigError;
use super::reader::{Section, words};

/// The encoder sizes that have a name (`src/models/vision_transformer.py` of the official code).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelName {
    /// 192 wide, 12 blocks, 3 heads.
    Tiny,
    /// 384 wide, 12 blocks, 6 heads.
    Small,
    /// 768 wide, 12 blocks, 12 heads.
    Base,
    /// 1024 wide, 24 blocks, 16 heads.
    Large,
    /// 1280 wide, 32 blocks, 16 heads.
    Huge,
    /// 1408 wide, 40 blocks, 16 heads, MLP ratio 48/11.
    Giant,
}

words!(ModelName {
    Tiny = "vit_tiny",
    Small = "vit_small",
    Base = "vit_base",
    Large = "vit_large",
    Huge = "vit_huge",
    Giant = "vit_giant",
});

impl ModelName {
    /// The sizes behind the name.
    pub fn sizes(self) -> EncoderSizes {
        let (embed_dim, depth, num_heads, mlp_ratio) = match self {
            Self::Tiny => (192, 12, 3, 4.0),
            Self::Small => (384, 12, 6, 4.0),
            Self::Base => (768, 12, 12, 4.0),
            Self::Large => (1024, 24, 16, 4.0),
            Self::Huge => (1280, 32, 16, 4.0),
            Self::Giant => (1408, 40, 16, 48.0 / 11.0),
        };
        EncoderSizes { embed_dim, depth, num_heads, mlp_ratio }
    }
}

/// How the weights of a new model are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Init {
    /// What the official pre-training starts from: normal of deviation .02 everywhere, *without* the depth rescale, which
    /// `init_video_model` undoes.
    #[default]
    Official,
    /// The constructors' own: deviation .02, then attention and MLP outputs divided by sqrt(2·layer).
    Constructor,
    /// Xavier normal cut at two deviations, patch embedding included, with the depth rescale: for narrow encoders, whose
    /// patch tokens would start much smaller than their positions.
    Xavier,
}

words!(Init { Official = "official", Constructor = "constructor", Xavier = "xavier" });

/// The sizes of an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct EncoderSizes {
    /// Token width.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; divides `embed_dim`.
    pub num_heads: usize,
    /// Hidden width of the MLP over the token width.
    pub mlp_ratio: f64,
}

impl EncoderSizes {
    /// Hidden width of the MLP, truncated as the official code does: 6144 for giant.
    pub fn mlp_dim(&self) -> usize {
        // The largest value validation lets through is far below 2^53. 1408 * 48/11 is 6143.999... in binary floating
        // point for some orders of evaluation, so a hair is added before truncating.
        (self.embed_dim as f64 * self.mlp_ratio + 1e-6) as usize
    }
}

/// The sizes of a predictor. Its MLP ratio is always 4, as in the official code.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PredictorSizes {
    /// Token width inside the predictor.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads; divides `embed_dim`. The encoder's number unless `pred_num_heads` says otherwise.
    pub num_heads: usize,
    /// Hidden width of the MLP over the token width.
    pub mlp_ratio: f64,
}

/// The `model` section.
///
/// The encoder is named by `model_name`, spelled out by `embed_dim`, `depth` and `num_heads`, or named and then changed by
/// them. `pred_depth` and `pred_embed_dim` are 12 and 384 with a `model_name`, as in every released recipe (the official
/// constructor's default depth of 6 is used by none), and must be given with a spelled-out encoder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelConfig {
    /// A named size.
    pub model_name: Option<ModelName>,
    /// Predictor blocks.
    pub pred_depth: Option<usize>,
    /// Predictor width.
    pub pred_embed_dim: Option<usize>,
    /// Position table with the three axes given equal shares of the width.
    pub uniform_power: bool,
    /// Learned mask tokens stand for the targets; the only way supported.
    pub use_mask_tokens: bool,
    /// Mask tokens start at zero (otherwise at a normal of deviation .02).
    pub zero_init_mask_tokens: bool,
    /// Encoder width (ours).
    pub embed_dim: Option<usize>,
    /// Encoder blocks (ours).
    pub depth: Option<usize>,
    /// Encoder heads (ours).
    pub num_heads: Option<usize>,
    /// Encoder MLP ratio (ours); 4 unless the named size has its own.
    pub mlp_ratio: Option<f64>,
    /// Predictor heads (ours); the encoder's number by default.
    pub pred_num_heads: Option<usize>,
    /// How weights start (ours).
    pub init: Init,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            model_name: None,
            pred_depth: None,
            pred_embed_dim: None,
            uniform_power: true,
            use_mask_tokens: true,
            zero_init_mask_tokens: true,
            embed_dim: None,
            depth: None,
            num_heads: None,
            mlp_ratio: None,
            pred_num_heads: None,
            init: Init::Official,
        }
    }
}

impl ModelConfig {
    /// Predictor blocks of every released recipe.
    pub const RELEASED_PRED_DEPTH: usize = 12;
    /// Predictor width of every released recipe.
    pub const RELEASED_PRED_EMBED_DIM: usize = 384;

    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            model_name: section.opt("model_name", d.model_name)?,
            pred_depth: section.opt("pred_depth", d.pred_depth)?,
            pred_embed_dim: section.opt("pred_embed_dim", d.pred_embed_dim)?,
            uniform_power: section.or("uniform_power", d.uniform_power)?,
            use_mask_tokens: section.or("use_mask_tokens", d.use_mask_tokens)?,
            zero_init_mask_tokens: section.or("zero_init_mask_tokens", d.zero_init_mask_tokens)?,
            embed_dim: section.opt("embed_dim", d.embed_dim)?,
            depth: section.opt("depth", d.depth)?,
            num_heads: section.opt("num_heads", d.num_heads)?,
            mlp_ratio: section.opt("mlp_ratio", d.mlp_ratio)?,
            pred_num_heads: section.opt("pred_num_heads", d.pred_num_heads)?,
            init: section.or("init", d.init)?,
        };
        section.finish()?;
        Ok(config)
    }

    /// The encoder's sizes.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] where neither `model_name` nor the spelled-out key gives a size.
    pub fn sizes(&self) -> Result<EncoderSizes, ConfigError> {
        let named = self.model_name.map(ModelName::sizes);
        let pick = |key: &str, own: Option<usize>, named: Option<usize>| {
            own.or(named).ok_or_else(|| {
                ConfigError::missing(
                    format!("model.{key}"),
                    "give `model.model_name` (vit_tiny to vit_giant), or all of `embed_dim`, `depth` and `num_heads`",
                )
            })
        };
        Ok(EncoderSizes {
            embed_dim: pick("embed_dim", self.embed_dim, named.map(|n| n.embed_dim))?,
            depth: pick("depth", self.depth, named.map(|n| n.depth))?,
            num_heads: pick("num_heads", self.num_heads, named.map(|n| n.num_heads))?,
            mlp_ratio: self.mlp_ratio.or(named.map(|n| n.mlp_ratio)).unwrap_or(4.0),
        })
    }

    /// The predictor's sizes.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] where the encoder is spelled out and the predictor is not, or the encoder has no sizes.
    pub fn predictor_sizes(&self) -> Result<PredictorSizes, ConfigError> {
        let pick = |key: &str, own: Option<usize>, released: usize| {
            own.or(self.model_name.map(|_| released)).ok_or_else(|| {
                ConfigError::missing(
                    format!("model.{key}"),
                    format!(
                        "give it (the released recipes have {released}); it has a default only beside `model_name`"
                    ),
                )
            })
        };
        Ok(PredictorSizes {
            embed_dim: pick("pred_embed_dim", self.pred_embed_dim, Self::RELEASED_PRED_EMBED_DIM)?,
            depth: pick("pred_depth", self.pred_depth, Self::RELEASED_PRED_DEPTH)?,
            num_heads: match self.pred_num_heads {
                Some(heads) => heads,
                None => self.sizes()?.num_heads,
            },
            mlp_ratio: 4.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giant_has_the_official_mlp_width() {
        assert_eq!(ModelName::Giant.sizes().mlp_dim(), 6144);
        assert_eq!(ModelName::Large.sizes().mlp_dim(), 4096);
    }

    #[test]
    fn predictor_heads_follow_the_encoder() {
        let large = ModelConfig { model_name: Some(ModelName::Large), ..ModelConfig::default() };
        let predictor = large.predictor_sizes().unwrap();
        assert_eq!((predictor.embed_dim, predictor.depth, predictor.num_heads), (384, 12, 16));
        let own = ModelConfig { pred_num_heads: Some(12), ..large };
        assert_eq!(own.predictor_sizes().unwrap().num_heads, 12);
    }

    #[test]
    fn a_spelled_out_encoder_needs_a_spelled_out_predictor() {
        let own = ModelConfig { embed_dim: Some(128), depth: Some(4), num_heads: Some(4), ..ModelConfig::default() };
        assert_eq!(own.sizes().unwrap().embed_dim, 128);
        assert_eq!(own.predictor_sizes().unwrap_err().key(), Some("model.pred_embed_dim"));
        assert_eq!(ModelConfig::default().sizes().unwrap_err().key(), Some("model.embed_dim"));
    }
}
