//! The predictor: context tokens and target positions to predicted target tokens.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::config::PredictorConfig;
use crate::encoder::check_index;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{BACKBONE_EPS, Block, LayerNorm, Linear, frozen, gather_positions, parameter};

/// The narrow transformer between context and targets (`src/models/predictor.py`, with mask tokens).
#[derive(Module, Debug)]
pub struct Predictor {
    /// Encoder width to predictor width.
    pub predictor_embed: Linear,
    /// One learned token `[1, 1, P]` per mask generator.
    pub mask_tokens: Vec<Param<Tensor<3>>>,
    /// Position table `[1, N, P]`, not learned.
    pub predictor_pos_embed: Param<Tensor<3>>,
    /// Transformer blocks.
    pub predictor_blocks: Vec<Block>,
    /// Final norm.
    pub predictor_norm: LayerNorm,
    /// Predictor width to encoder width.
    pub predictor_proj: Linear,
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
        Ok(Self {
            predictor_embed: Linear::empty(config.encoder_dim, dim, device),
            mask_tokens: (0..config.num_mask_tokens).map(|_| parameter([1, 1, dim], device)).collect(),
            predictor_pos_embed: frozen([1, config.tokens(), dim], device),
            predictor_blocks: (0..config.depth)
                .map(|_| Block::empty(dim, heads, hidden, BACKBONE_EPS, device))
                .collect(),
            predictor_norm: LayerNorm::empty(dim, BACKBONE_EPS, device),
            predictor_proj: Linear::empty(dim, config.encoder_dim, device),
            config: config.clone(),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &PredictorConfig {
        &self.config
    }

    /// Encoded context `f32[B, Nc, D]` and two indices, of the context `[B, Nc]` and of the targets `[B, K]`, to predicted
    /// tokens `f32[B, K, D]`. `mask_index` is the number of the mask generator and picks the mask token, modulo their
    /// number.
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
        let [batch, kept, dim] = context.dims();
        let tokens = self.config.tokens();
        ShapeError::require(batch > 0 && dim == self.config.encoder_dim, "the context", &context.dims(), || {
            format!("[B, Nc, {}]", self.config.encoder_dim)
        })?;
        check_index("the context mask", &mask_context, batch, tokens)?;
        ShapeError::require(mask_context.dims()[1] == kept, "the context mask", &mask_context.dims(), || {
            format!("[{batch}, {kept}], one index per context token")
        })?;
        check_index("the target mask", &mask_target, batch, tokens)?;
        let targets = mask_target.dims()[1];

        let table = self.predictor_pos_embed.val(); // [1, N, P]
        let context = self.predictor_embed.forward(context) + gather_positions(table.clone(), mask_context); // [B, Nc, P]
        let token = self.mask_tokens[mask_index % self.mask_tokens.len()].val(); // [1, 1, P]
        let target = gather_positions(table, mask_target) + token; // [B, K, P]
        let x = Tensor::cat(vec![context, target], 1); // [B, Nc + K, P]
        let x = self.predictor_blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.predictor_norm.forward(x).narrow(1, kept, targets); // [B, K, P]
        Ok(self.predictor_proj.forward(x)) // [B, K, D]
    }
}
