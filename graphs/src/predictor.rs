//! The predictor: context tokens and target positions to predicted target tokens.

use burn::module::{Module, Param};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor};
use vjepa_recipe::config::{Positions, Rotary};

use crate::config::PredictorConfig;
use crate::encoder::check_index;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{BACKBONE_EPS, Block, LayerNorm, Linear, frozen, gather_positions, parameter};
use crate::rotary;

/// What the encoder saw; a predictor may have a vector for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Modality {
    /// Clips.
    #[default]
    Video,
    /// Images.
    Image,
}

/// What the predictor makes of a context.
#[derive(Clone, Debug)]
pub struct Predictions {
    /// Of the target tokens, `[B, K, out]`.
    pub targets: Tensor<3>,
    /// Of the context tokens, `[B, Nc, out]`, where it predicts them.
    pub context: Option<Tensor<3>>,
}

/// Encoder width to predictor width.
// A model has only one of it, and Burn's `Module` does not support boxes.
#[allow(clippy::large_enum_variant)]
#[derive(Module, Debug)]
pub enum PredictorInput {
    /// One linear layer.
    Linear(Linear),
    /// Linear, exact GELU, linear, as the official sequence numbers them: 0, 1 (which has no parameters), 2.
    Mlp(Vec<Option<Linear>>),
}

impl PredictorInput {
    fn empty(config: &PredictorConfig, device: &Device) -> Self {
        let (input, inner, dim) = (config.input_dim(), config.encoder_dim, config.embed_dim);
        if config.levels == 1 {
            return Self::Linear(Linear::empty(input, dim, device));
        }
        Self::Mlp(vec![Some(Linear::empty(input, inner, device)), None, Some(Linear::empty(inner, dim, device))])
    }

    /// `[B, Nc, in]` to `[B, Nc, P]`.
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self {
            Self::Linear(linear) => linear.forward(x),
            Self::Mlp(layers) => layers.iter().fold(x, |x, layer| match layer {
                Some(linear) => linear.forward(x),
                None => gelu(x),
            }),
        }
    }
}

/// The narrow transformer between context and targets (`src/models/predictor.py`, with mask tokens).
#[derive(Module, Debug)]
pub struct Predictor {
    /// Encoder width to predictor width.
    pub predictor_embed: PredictorInput,
    /// One learned token `[1, 1, P]` per mask generator.
    pub mask_tokens: Vec<Param<Tensor<3>>>,
    /// Added to all tokens of an image, `[1, 1, P]`.
    pub img_mod_embed: Option<Param<Tensor<3>>>,
    /// Added to all tokens of a video, `[1, 1, P]`.
    pub video_mod_embed: Option<Param<Tensor<3>>>,
    /// Position table `[1, N, P]`, not learned, where positions are one.
    pub predictor_pos_embed: Option<Param<Tensor<3>>>,
    /// Transformer blocks.
    pub predictor_blocks: Vec<Block>,
    /// Final norm.
    pub predictor_norm: LayerNorm,
    /// Predictor width to the width of the targets.
    pub predictor_proj: Linear,
    /// The same for context tokens, where they are predicted.
    pub predictor_proj_context: Option<Linear>,
    #[module(skip)]
    config: PredictorConfig,
}

impl Predictor {
    /// A predictor whose parameters have no values yet; see [`Encoder::empty`](crate::Encoder::empty).
    ///
    /// # Errors
    /// [`ConfigError`] for a configuration that is not valid.
    pub fn empty(config: &PredictorConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let (dim, heads, hidden) = (config.embed_dim, config.num_heads, config.mlp_dim());
        let modality = || config.modalities.then(|| parameter([1, 1, dim], device));
        let output = || Linear::empty(dim, config.predicted_dim(), device);
        Ok(Self {
            predictor_embed: PredictorInput::empty(config, device),
            mask_tokens: (0..config.num_mask_tokens).map(|_| parameter([1, 1, dim], device)).collect(),
            img_mod_embed: modality(),
            video_mod_embed: modality(),
            predictor_pos_embed: match config.positions {
                Positions::Table => Some(frozen([1, config.tokens(), dim], device)),
                Positions::Rotary(_) => None,
            },
            predictor_blocks: (0..config.depth)
                .map(|_| Block::empty(dim, heads, hidden, BACKBONE_EPS, device))
                .collect(),
            predictor_norm: LayerNorm::empty(dim, BACKBONE_EPS, device),
            predictor_proj: output(),
            predictor_proj_context: config.predicts_context.then(output),
            config: config.clone(),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &PredictorConfig {
        &self.config
    }

    /// Encoded context `f32[B, Nc, in]` of videos and two indices, of the context `[B, Nc]` and of the targets `[B, K]`, to
    /// predicted tokens `f32[B, K, out]`. `mask_index` picks the mask token, modulo their number: V-JEPA 1 has one for each
    /// mask generator, V-JEPA 2 one for each length of clips in a batch.
    ///
    /// # Errors
    /// [`ShapeError`] for inputs that do not fit. Values of the masks are not read.
    pub fn forward(
        &self,
        context: Tensor<3>,
        mask_context: Tensor<2, Int>,
        mask_target: Tensor<2, Int>,
        mask_index: usize,
    ) -> Result<Tensor<3>, ShapeError> {
        Ok(self.predict(context, [mask_context, mask_target], mask_index, Modality::Video)?.targets)
    }

    /// Like [`forward`](Self::forward), of either modality, with all that the predictor makes. The indices are those of the
    /// context and of the targets.
    ///
    /// The official code sorts the tokens by position before the blocks and puts them back afterwards; attention does not see
    /// their order, so they stay where they are.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn predict(
        &self,
        context: Tensor<3>,
        [mask_context, mask_target]: [Tensor<2, Int>; 2],
        mask_index: usize,
        modality: Modality,
    ) -> Result<Predictions, ShapeError> {
        let [batch, kept, dim] = context.dims();
        let (tokens, input) = (self.config.tokens(), self.config.input_dim());
        ShapeError::require(batch > 0 && dim == input, "the context", &context.dims(), || format!("[B, Nc, {input}]"))?;
        check_index("the context mask", &mask_context, batch, tokens)?;
        ShapeError::require(mask_context.dims()[1] == kept, "the context mask", &mask_context.dims(), || {
            format!("[{batch}, {kept}], one index per context token")
        })?;
        check_index("the target mask", &mask_target, batch, tokens)?;
        let targets = mask_target.dims()[1];

        let device = context.device();
        let context = self.predictor_embed.forward(context); // [B, Nc, P]
        let token = self.mask_tokens[mask_index % self.mask_tokens.len()].val(); // [1, 1, P]
        let (x, angles) = match (self.config.positions, &self.predictor_pos_embed) {
            (Positions::Rotary(rotary), _) => {
                let target = token.expand([batch, targets, self.config.embed_dim]); // [B, K, P]
                let table = self.angles(rotary, &device);
                let angles = [mask_context, mask_target].map(|mask| gather_positions(table.clone(), mask));
                (Tensor::cat(vec![context, target], 1), Some(Tensor::cat(angles.into(), 1))) // [B, Nc + K, P], [.., 2d]
            }
            (Positions::Table, Some(table)) => {
                let table = table.val(); // [1, N, P]
                let context = context + gather_positions(table.clone(), mask_context); // [B, Nc, P]
                let target = gather_positions(table, mask_target) + token; // [B, K, P]
                (Tensor::cat(vec![context, target], 1), None) // [B, Nc + K, P]
            }
            (Positions::Table, None) => unreachable!("a predictor with a table has one"),
        };
        let x = match self.vector_of(modality) {
            Some(vector) => x + vector.val(),
            None => x,
        };
        let x = self.predictor_blocks.iter().fold(x, |x, block| block.forward(x, angles.as_ref()));
        let x = self.predictor_norm.forward(x); // [B, Nc + K, P]
        let context = self.predictor_proj_context.as_ref().map(|proj| proj.forward(x.clone().narrow(1, 0, kept)));
        Ok(Predictions { targets: self.predictor_proj.forward(x.narrow(1, kept, targets)), context })
    }

    fn vector_of(&self, modality: Modality) -> &Option<Param<Tensor<3>>> {
        match modality {
            Modality::Video => &self.video_mod_embed,
            Modality::Image => &self.img_mod_embed,
        }
    }

    fn angles(&self, rotary: Rotary, device: &Device) -> Tensor<3> {
        let PredictorConfig { patch, grid, .. } = self.config;
        rotary::table(rotary, Rotary::pretrained_grid(patch), grid, self.config.head_dim(), device)
    }
}
