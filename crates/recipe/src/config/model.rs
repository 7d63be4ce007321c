//! The `model` section: which encoder, which predictor, how their weights start.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use super::named::{Generation, ModelName};
use super::positions::Positions;
use super::sizes::{EncoderSizes, PredictorSizes};

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

/// The `model` section: the encoder and the predictor.
///
/// Give the encoder's size by name (`model_name`), by numbers (`embed_dim`, `depth` and `num_heads`), or by name with some of
/// the numbers changed. With a `model_name`, `pred_depth` and `pred_embed_dim` default to 12 and 384, as in every released
/// recipe (none uses the official constructor's default depth of 6). Without one they have to be given.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// A named size.
    pub model_name: Option<ModelName>,
    /// Predictor blocks; 12 with a `model_name`.
    pub pred_depth: Option<usize>,
    /// Predictor width; 384 with a `model_name`.
    pub pred_embed_dim: Option<usize>,
    /// Position table with equal shares of the width for time, height and width; otherwise half of it is for time.
    pub uniform_power: bool,
    /// Learned mask tokens take the place of the targets; false is not supported.
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
    /// Hidden width of the encoder's MLP divided by its width; null: the named size's, or 4.
    #[schemars(extend("x-ours" = true))]
    pub mlp_ratio: Option<f64>,
    /// Predictor attention heads; null: as many as the encoder has, or 12 for V-JEPA 2 and 2.1.
    pub pred_num_heads: Option<usize>,
    /// How new weights are drawn.
    #[schemars(extend("x-ours" = true))]
    pub init: Init,
    /// The generation of the model.
    #[schemars(extend("x-ours" = true))]
    pub generation: Generation,
    /// Map the rotary positions of encoder and predictor to a grid of 16; null: as in the generation's released recipe, true
    /// for V-JEPA 2.1.
    pub interpolate_rope: Option<bool>,
    /// The same for the predictor alone; null: the value of `interpolate_rope`.
    #[schemars(extend("x-ours" = true))]
    pub pred_interpolate_rope: Option<bool>,
    /// Blocks, counted from 0, whose outputs are the levels of a V-JEPA 2.1 encoder; the last block must be among them. Null:
    /// the levels of the released models, which have 12, 24, 40 or 48 blocks.
    #[schemars(extend("x-ours" = true))]
    pub levels: Option<Vec<usize>>,
    /// Number of levels, counted from the last one, that a V-JEPA 2.1 predictor reads and predicts; null: all of the encoder's.
    pub levels_predictor: Option<usize>,
    /// Width of what a distilled predictor predicts, all levels together; null: the width of what it reads.
    #[schemars(extend("x-ours" = true))]
    pub teacher_embed_dim: Option<usize>,
    /// Number of mask tokens; null: one per mask generator.
    #[schemars(extend("x-ours" = true))]
    pub num_mask_tokens: Option<usize>,
    /// Rotary positions, which show the generation of official V-JEPA 2 files; null: as the generation has them.
    pub use_rope: Option<bool>,
    /// Frames of an image, for which V-JEPA 2.1 has a separate patch embedding; null: 1 with V-JEPA 2.1. Other sizes are not
    /// supported.
    pub img_temporal_dim_size: Option<usize>,
    /// Vectors that mark tokens as image or video; null: as the generation has them, true for V-JEPA 2.1.
    pub modality_embedding: Option<bool>,
    /// Weight of V-JEPA 2.1's loss on the context tokens of videos.
    pub lambda_value_vid: f64,
    /// The same for images.
    pub lambda_value_img: f64,
    /// Both weights are 0 until step 15000 and then grow linearly until step 30000; false in the cool-down.
    pub lambda_progressive: bool,
    /// Predictions are normalised like targets; true is not supported, and fails in the official code.
    pub normalize_predictor: bool,
    /// How official constructors draw linear layers; only `default` is supported, see `init`.
    pub init_type: InitType,
    /// Gated MLPs in the encoder; true is not supported.
    pub use_silu: bool,
    /// Gated MLPs in the predictor; true is not supported.
    pub use_pred_silu: bool,
    /// Has no effect.
    #[schemars(extend("x-unread" = "it is the width of gated MLPs, which are not supported"))]
    pub wide_silu: bool,
    /// Has no effect.
    #[schemars(extend("x-unread" = "the plan of the compiled step decides what is recomputed"))]
    pub use_activation_checkpointing: bool,
    /// Has no effect.
    #[schemars(extend("x-unread" = "the training step is always compiled"))]
    pub compile_model: bool,
    /// Attention to earlier tokens only, in the encoder; true is not supported.
    pub is_causal: bool,
    /// The same in the predictor; true is not supported.
    pub pred_is_causal: bool,
    /// Register tokens of the encoder; above 0 is not supported, and the official encoder does not create any.
    pub n_registers: usize,
    /// The same for the predictor.
    pub n_registers_predictor: usize,
    /// A class token before the others; true is not supported, and the official encoder does not create one.
    pub has_cls_first: bool,
}

/// What official constructors of V-JEPA 2.1 draw linear layers from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InitType {
    /// Normal with standard deviation 0.02.
    #[default]
    Default,
    /// Xavier's uniform distribution.
    XavierUniform,
    /// Xavier's normal distribution.
    XavierNormal,
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
            generation: Generation::V1,
            interpolate_rope: None,
            pred_interpolate_rope: None,
            levels: None,
            levels_predictor: None,
            teacher_embed_dim: None,
            num_mask_tokens: None,
            use_rope: None,
            img_temporal_dim_size: None,
            modality_embedding: None,
            lambda_value_vid: 0.5,
            lambda_value_img: 0.5,
            lambda_progressive: true,
            normalize_predictor: false,
            init_type: InitType::Default,
            use_silu: false,
            use_pred_silu: false,
            wide_silu: false,
            use_activation_checkpointing: false,
            compile_model: false,
            is_causal: false,
            pred_is_causal: false,
            n_registers: 0,
            n_registers_predictor: 0,
            has_cls_first: false,
        }
    }
}

impl ModelConfig {
    /// Predictor blocks of every released recipe.
    pub const RELEASED_PRED_DEPTH: usize = 12;
    /// Predictor width of every released recipe.
    pub const RELEASED_PRED_EMBED_DIM: usize = 384;

    /// Predictor heads of every released recipe with rotary positions.
    pub const RELEASED_PRED_HEADS: usize = 12;

    /// How the encoder's tokens know where they are.
    pub fn positions(&self) -> Positions {
        self.generation.positions(self.interpolate_rope)
    }

    /// How the predictor's tokens know where they are.
    pub fn predictor_positions(&self) -> Positions {
        self.generation.positions(self.pred_interpolate_rope.or(self.interpolate_rope))
    }

    /// The blocks whose outputs are the encoder's levels; empty for an encoder with one final norm.
    ///
    /// # Errors
    /// [`ConfigError`] for levels that the encoder cannot have, and for a depth whose levels are neither given nor known.
    pub fn encoder_levels(&self) -> Result<Vec<usize>, ConfigError> {
        let depth = self.sizes()?.depth;
        let rule = |why: String| Err(ConfigError::rule("model.levels".to_owned(), why));
        match (self.generation, &self.levels) {
            (Generation::V21, Some(levels)) => {
                let ascending = levels.windows(2).all(|pair| pair[0] < pair[1]);
                if ascending && levels.last().copied() == depth.checked_sub(1) {
                    return Ok(levels.clone());
                }
                rule(format!(
                    "is {levels:?}; it must be ascending and end with the last block, {}",
                    depth.saturating_sub(1)
                ))
            }
            (generation, Some(_)) => {
                rule(format!("is for V-JEPA 2.1, but model.generation is {}; leave it out", generation.name()))
            }
            (generation, None) => match generation.levels(depth) {
                Some(levels) => Ok(levels.to_vec()),
                None => rule(format!(
                    "must be given for {depth} blocks; the released models have 12, 24, 40 or 48 blocks, or give the blocks \
                     whose outputs are levels"
                )),
            },
        }
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
                    "give `model.model_name` (vit_tiny to vit_gigantic_xformers), or all of `embed_dim`, `depth` and `num_heads`",
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
            num_heads: match (self.pred_num_heads, self.generation) {
                (Some(heads), _) => heads,
                (None, Generation::V1) => self.sizes()?.num_heads,
                (None, Generation::V2 | Generation::V21) => Self::RELEASED_PRED_HEADS,
            },
            mlp_ratio: 4.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::positions::Rotary;
    use super::*;

    #[test]
    fn giant_has_the_official_mlp_width() {
        assert_eq!(ModelName::Giant.sizes().mlp_dim(), 6144);
        assert_eq!(ModelName::Large.sizes().mlp_dim(), 4096);
    }

    #[test]
    fn gigantic_has_the_official_mlp_width() {
        assert_eq!(ModelName::GiganticXformers.sizes().mlp_dim(), 8192);
        for name in ModelName::ALL {
            let sizes = name.sizes();
            assert!(sizes.embed_dim.is_multiple_of(sizes.num_heads), "{name:?}");
        }
    }

    #[test]
    fn generations_choose_positions_heads_and_levels() {
        let of =
            |generation, model_name| ModelConfig { generation, model_name: Some(model_name), ..ModelConfig::default() };
        let second = of(Generation::V2, ModelName::Large);
        assert_eq!(second.positions(), Positions::Rotary(Rotary { tiled: true, interpolate: false }));
        assert_eq!((second.predictor_sizes().unwrap().num_heads, second.encoder_levels().unwrap().len()), (12, 0));
        let later = of(Generation::V21, ModelName::GiganticXformers);
        assert_eq!(later.encoder_levels().unwrap(), [11, 23, 37, 47]);
        let hub = ModelConfig { pred_interpolate_rope: Some(false), ..later };
        assert_eq!(hub.positions(), Positions::Rotary(Rotary { tiled: false, interpolate: true }));
        assert_eq!(hub.predictor_positions(), Positions::Rotary(Rotary { tiled: false, interpolate: false }));
        let odd = ModelConfig { depth: Some(6), ..of(Generation::V21, ModelName::Tiny) };
        assert_eq!(odd.encoder_levels().unwrap_err().key(), Some("model.levels"));
        assert_eq!(ModelConfig { levels: Some(vec![2, 5]), ..odd.clone() }.encoder_levels().unwrap(), [2, 5]);
        assert!(ModelConfig { levels: Some(vec![2, 4]), ..odd }.encoder_levels().is_err());
        assert_eq!(of(Generation::V1, ModelName::Tiny).positions(), Positions::Table);
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
