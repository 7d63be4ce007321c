//! The encoder: clips, or the part of them that a mask keeps, to tokens.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::config::EncoderConfig;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{BACKBONE_EPS, Block, LayerNorm, frozen, gather_tokens, linear, parameter};

/// Weight and bias of a 3-D convolution whose stride is its kernel.
#[derive(Module, Debug)]
pub struct TubeletProjection {
    /// `[D, C, tubelet, patch, patch]`.
    pub weight: Param<Tensor<5>>,
    /// `[D]`.
    pub bias: Param<Tensor<1>>,
}

/// Tubelets to tokens. Recorded as reshape, permute, reshape, then one linear layer with the flattened kernel, so that
/// the values of a tubelet come in the order channel, frame, row, column.
#[derive(Module, Debug)]
pub struct PatchEmbed {
    /// The projection.
    pub proj: TubeletProjection,
}

impl PatchEmbed {
    fn empty(config: &EncoderConfig, device: &Device) -> Self {
        let weight = [config.embed_dim, config.channels, config.tubelet, config.patch, config.patch];
        Self { proj: TubeletProjection { weight: parameter(weight, device), bias: parameter([weight[0]], device) } }
    }

    /// Clip `[B, C, T, H, W]` to tokens `[B, N, D]`.
    pub fn forward(&self, clip: Tensor<5>) -> Tensor<3> {
        let weight = self.proj.weight.val();
        let [batch, channels, frames, height, width] = clip.dims();
        let [dim, _, tubelet, patch, _] = weight.dims();
        let [t, h, w] = [frames / tubelet, height / patch, width / patch];
        let values = channels * tubelet * patch * patch;
        let tubelets = clip
            .reshape([batch, channels, t, tubelet, h, patch, w, patch]) // [B, C, t, dt, h, dy, w, dx]
            .permute([0, 2, 4, 6, 1, 3, 5, 7]) // [B, t, h, w, C, dt, dy, dx]
            .reshape([batch, t * h * w, values]); // [B, N, C·dt·dy·dx]
        let weight = weight.reshape([dim, values]); // [D, C·dt·dy·dx]
        linear(tubelets, weight, self.proj.bias.val()) // [B, N, D]
    }
}

/// The vision transformer (`src/models/vision_transformer.py`).
#[derive(Module, Debug)]
pub struct Encoder {
    /// Tubelets to tokens.
    pub patch_embed: PatchEmbed,
    /// Position table `[1, N, D]`, not learned.
    pub pos_embed: Param<Tensor<3>>,
    /// Transformer blocks.
    pub blocks: Vec<Block>,
    /// Final norm, shared by all [`forward_layers`](Self::forward_layers).
    pub norm: LayerNorm,
    #[module(skip)]
    config: EncoderConfig,
}

impl Encoder {
    /// An encoder whose parameters have no values yet: fill them with [`load_parameters`](crate::load_parameters), or record
    /// the encoder on a capture device.
    ///
    /// # Errors
    /// [`ConfigError`] for a configuration that is not valid.
    pub fn empty(config: &EncoderConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let (dim, heads, hidden) = (config.embed_dim, config.num_heads, config.mlp_dim());
        Ok(Self {
            patch_embed: PatchEmbed::empty(config, device),
            pos_embed: frozen([1, config.tokens(), dim], device),
            blocks: (0..config.depth).map(|_| Block::empty(dim, heads, hidden, BACKBONE_EPS, device)).collect(),
            norm: LayerNorm::empty(dim, BACKBONE_EPS, device),
            config: config.clone(),
        })
    }

    /// Its sizes.
    pub fn config(&self) -> &EncoderConfig {
        &self.config
    }

    /// Normalised clips `f32[B, C, T, H, W]` to tokens `f32[B, N, D]`. With a mask `[B, K]` of indices in `0..N`, only those
    /// tokens enter the first block, and the result is `f32[B, K, D]`.
    ///
    /// # Errors
    /// [`ShapeError`] for a clip or mask of another shape. Values of the mask are not read.
    pub fn forward(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Tensor<3>, ShapeError> {
        let x = self.embed(clip, mask)?;
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        Ok(self.norm.forward(x))
    }

    /// Like [`forward`](Self::forward), after each of the blocks in `out_layers`, in the order of the blocks, with the final
    /// norm applied to each. Without `out_layers`, only the last block's output.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_layers(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Vec<Tensor<3>>, ShapeError> {
        let last = [self.blocks.len() - 1];
        let wanted = self.config.out_layers.as_deref().unwrap_or(&last);
        let mut x = self.embed(clip, mask)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (i, block) in self.blocks.iter().enumerate().take_while(|(i, _)| wanted.iter().any(|layer| layer >= i)) {
            x = block.forward(x);
            if wanted.contains(&i) {
                outputs.push(self.norm.forward(x.clone()));
            }
        }
        Ok(outputs)
    }

    /// Tokens with their positions, before the first block: `[B, N, D]`, or `[B, K, D]` with a mask.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn embed(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Tensor<3>, ShapeError> {
        let EncoderConfig { channels, num_frames, height, width, .. } = self.config;
        let dims = clip.dims();
        ShapeError::require(
            dims[0] > 0 && dims[1..] == [channels, num_frames, height, width],
            "the clip",
            &dims,
            || {
                format!(
                    "[B, {channels}, {num_frames}, {height}, {width}] (for another size, build the encoder for it and resize \
                 its position table)"
                )
            },
        )?;
        if let Some(mask) = &mask {
            check_index("the encoder mask", mask, dims[0], self.config.tokens())?;
        }
        let x = self.patch_embed.forward(clip) + self.pos_embed.val(); // [B, N, D]
        Ok(match mask {
            Some(mask) => gather_tokens(x, mask), // [B, K, D]
            None => x,
        })
    }
}

/// An index `[B, K]` with K at most the number of tokens.
pub(crate) fn check_index(
    input: &'static str,
    index: &Tensor<2, Int>,
    batch: usize,
    tokens: usize,
) -> Result<(), ShapeError> {
    let dims = index.dims();
    ShapeError::require(dims[0] == batch && dims[1] > 0, input, &dims, || {
        format!("[{batch}, K] with K from 1 to {tokens}")
    })
}
