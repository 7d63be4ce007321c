//! The `model` section: which encoder, which predictor, how their weights start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;

/// The encoder sizes that have a name (`src/models/vision_transformer.py` of the official code).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ModelName {
    /// 192 wide, 12 blocks, 3 heads.
    #[serde(rename = "vit_tiny")]
    Tiny,
    /// 384 wide, 12 blocks, 6 heads.
    #[serde(rename = "vit_small")]
    Small,
    /// 768 wide, 12 blocks, 12 heads.
    #[serde(rename = "vit_base")]
    Base,
    /// 1024 wide, 24 blocks, 16 heads.
    #[serde(rename = "vit_large")]
    Large,
    /// 1280 wide, 32 blocks, 16 heads.
    #[serde(rename = "vit_huge")]
    Huge,
    /// 1408 wide, 40 blocks, 16 heads, MLP ratio 48/11.
    #[serde(rename = "vit_giant")]
    Giant,
}

impl ModelName {
    /// The sizes behind the name: the only table of them.
    pub const fn sizes(self) -> EncoderSizes {
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// What official pre-training starts from: normal with standard deviation 0.02 everywhere, *without* the depth rescale,
    /// which `init_video_model` undoes by drawing every linear layer again.
    #[default]
    Official,
    /// What the official constructors draw: standard deviation 0.02, then the weights of each block's `attn.proj` and
    /// `mlp.fc2` divided by `sqrt(2 * layer)`, layers counted from 1.
    Constructor,
    /// Xavier normal, standard deviation `sqrt(2 / (in + out))`, truncated at two deviations, with the depth rescale; the
    /// patch embedding counts as a linear layer of its tubelet. For narrow encoders, whose patch tokens would otherwise
    /// start much smaller than their positions.
    Xavier,
}

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

/// The `model` section: the encoder and the predictor.
///
/// The encoder is named by `model_name`, spelled out by `embed_dim`, `depth` and `num_heads`, or named and then adjusted by
/// them. With a `model_name`, `pred_depth` and `pred_embed_dim` default to 12 and 384, as in every released recipe (the
/// official constructor's default depth of 6 is used by none); a spelled-out encoder needs them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A named size.
    pub model_name: Option<ModelName>,
    /// Predictor blocks; 12 with a `model_name`.
    pub pred_depth: Option<usize>,
    /// Predictor width; 384 with a `model_name`.
    pub pred_embed_dim: Option<usize>,
    /// Position table with equal shares of the width for time, height and width; otherwise half goes to time.
    pub uniform_power: bool,
    /// Learned mask tokens stand in for the targets; false is not supported.
    pub use_mask_tokens: bool,
    /// Mask tokens start at zero; otherwise normal with standard deviation 0.02.
    pub zero_init_mask_tokens: bool,
    /// Encoder width, instead of the named size's.
    #[schemars(extend("x-ours" = true))]
    pub embed_dim: Option<usize>,
    /// Encoder blocks, instead of the named size's.
    #[schemars(extend("x-ours" = true))]
    pub depth: Option<usize>,
    /// Encoder attention heads, instead of the named size's; divides the width.
    #[schemars(extend("x-ours" = true))]
    pub num_heads: Option<usize>,
    /// Hidden width of the encoder's MLP over its width; the named size's, or 4.
    #[schemars(extend("x-ours" = true))]
    pub mlp_ratio: Option<f64>,
    /// Predictor attention heads; the encoder's number unless given.
    #[schemars(extend("x-ours" = true))]
    pub pred_num_heads: Option<usize>,
    /// How new weights are drawn.
    #[schemars(extend("x-ours" = true))]
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
