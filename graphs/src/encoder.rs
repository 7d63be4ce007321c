//! The encoder: clips, or the part of them that a mask keeps, to tokens.

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};

use crate::config::EncoderConfig;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{BACKBONE_EPS, Block, LayerNorm, frozen, gather_positions, gather_tokens, linear, parameter};
use crate::rotary;
use vjepa_recipe::config::{Positions, Rotary};

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
    /// For tokens of `tubelet` frames.
    fn empty(config: &EncoderConfig, tubelet: usize, device: &Device) -> Self {
        let weight = [config.embed_dim, config.channels, tubelet, config.patch, config.patch];
        Self { proj: TubeletProjection { weight: parameter(weight, device), bias: parameter([weight[0]], device) } }
    }

    /// Clip `[B, C, T, H, W]` to tokens `[B, N, D]`.
    pub fn forward(&self, clip: Tensor<5>) -> Tensor<3> {
        let weight = self.proj.weight.val();
        let [dim, channels, tubelet, patch, _] = weight.dims();
        let tubelets = tubelets(clip, tubelet, patch); // [B, N, C·dt·dy·dx]
        let weight = weight.reshape([dim, channels * tubelet * patch * patch]); // [D, C·dt·dy·dx]
        linear(tubelets, weight, self.proj.bias.val()) // [B, N, D]
    }
}

/// The values of each token of a clip: `[B, C, T, H, W]` to `[B, N, C·dt·dy·dx]`, tokens in the order time, height, width.
pub(crate) fn tubelets(clip: Tensor<5>, tubelet: usize, patch: usize) -> Tensor<3> {
    let [batch, channels, frames, height, width] = clip.dims();
    let [t, h, w] = [frames / tubelet, height / patch, width / patch];
    clip.reshape([batch, channels, t, tubelet, h, patch, w, patch]) // [B, C, t, dt, h, dy, w, dx]
        .permute([0, 2, 4, 6, 1, 3, 5, 7]) // [B, t, h, w, C, dt, dy, dx]
        .reshape([batch, t * h * w, channels * tubelet * patch * patch]) // [B, N, C·dt·dy·dx]
}

/// The vision transformer (`src/models/vision_transformer.py`).
#[derive(Module, Debug)]
pub struct Encoder {
    /// Tubelets to tokens.
    pub patch_embed: PatchEmbed,
    /// Images to tokens, where they have a patch embedding of their own.
    pub patch_embed_img: Option<PatchEmbed>,
    /// Added to the tokens of an image, `[1, 1, D]`.
    pub img_mod_embed: Option<Param<Tensor<3>>>,
    /// Added to the tokens of a video, `[1, 1, D]`.
    pub video_mod_embed: Option<Param<Tensor<3>>>,
    /// Position table `[1, N, D]`, not learned, where positions are one.
    pub pos_embed: Option<Param<Tensor<3>>>,
    /// Transformer blocks.
    pub blocks: Vec<Block>,
    /// Final norm, shared by all [`forward_layers`](Self::forward_layers), of an encoder without levels.
    pub norm: Option<LayerNorm>,
    /// A norm for each level.
    pub norms_block: Option<Vec<LayerNorm>>,
    #[module(skip)]
    config: EncoderConfig,
}

/// Tokens before the first block.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// `[B, N, D]`, or `[B, K, D]` with a mask.
    pub tokens: Tensor<3>,
    /// Angles of their positions, `[1, N, 2d]`, or `[B, K, 2d]` with a mask, d being the width of a head. None where
    /// positions are added to the tokens.
    pub angles: Option<Tensor<3>>,
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
        let norm = || LayerNorm::empty(dim, BACKBONE_EPS, device);
        let modality = || config.image_tubelet.map(|_| parameter([1, 1, dim], device));
        Ok(Self {
            patch_embed: PatchEmbed::empty(config, config.tubelet, device),
            patch_embed_img: config.image_tubelet.map(|frames| PatchEmbed::empty(config, frames, device)),
            img_mod_embed: modality(),
            video_mod_embed: modality(),
            pos_embed: match config.positions {
                Positions::Table => Some(frozen([1, config.tokens(), dim], device)),
                Positions::Rotary(_) => None,
            },
            blocks: (0..config.depth).map(|_| Block::empty(dim, heads, hidden, BACKBONE_EPS, device)).collect(),
            norm: config.levels.is_empty().then(norm),
            norms_block: (!config.levels.is_empty()).then(|| config.levels.iter().map(|_| norm()).collect()),
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
    /// [`ShapeError`] for a clip or mask of another shape. Values of the mask are not read. With rotary positions any size
    /// that is a whole number of patches will do.
    pub fn forward(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Tensor<3>, ShapeError> {
        let last = self.config.depth - 1;
        let mut outputs = self.after_blocks(clip, mask, &[last])?;
        let Some(tokens) = outputs.pop() else { unreachable!("the last block has an output") };
        Ok(tokens)
    }

    /// Like [`forward`](Self::forward), with the levels side by side on the features, the first one first:
    /// `f32[B, N, levels · D]`. Without levels the same as `forward`. This is what training predicts from, and predicts.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_levels(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Tensor<3>, ShapeError> {
        if self.config.levels.is_empty() {
            return self.forward(clip, mask);
        }
        let levels = self.config.levels.clone();
        Ok(Tensor::cat(self.after_blocks(clip, mask, &levels)?, 2)) // [B, N, L·D]
    }

    /// Like [`forward`](Self::forward), after each of the blocks in `out_layers`, in the order of the blocks, with the final
    /// norm, or that of the level, applied to each. Without `out_layers`, only the last block's output.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_layers(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Vec<Tensor<3>>, ShapeError> {
        let last = [self.config.depth - 1];
        self.after_blocks(clip, mask, self.config.out_layers.as_deref().unwrap_or(&last))
    }

    /// The last block's output for a whole clip, `f32[B, N, D]`, through the final norm only if `normed`. `gates` are drop
    /// path's, block by block; see [`Block::forward_gated`]. Blocks beyond them have none.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn forward_gated(
        &self,
        clip: Tensor<5>,
        gates: &[[Option<Tensor<3>>; 2]],
        normed: bool,
    ) -> Result<Tensor<3>, ShapeError> {
        let Embedded { tokens: mut x, angles } = self.embed(clip, None)?;
        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward_gated(x, angles.as_ref(), gates.get(i).unwrap_or(&[None, None]));
        }
        Ok(if normed { self.norm_after(self.config.depth - 1).forward(x) } else { x })
    }

    /// Normed outputs of the `wanted` blocks, in the order of the blocks.
    fn after_blocks(
        &self,
        clip: Tensor<5>,
        mask: Option<Tensor<2, Int>>,
        wanted: &[usize],
    ) -> Result<Vec<Tensor<3>>, ShapeError> {
        let Embedded { tokens: mut x, angles } = self.embed(clip, mask)?;
        let mut outputs = Vec::with_capacity(wanted.len());
        for (i, block) in self.blocks.iter().enumerate().take_while(|(i, _)| wanted.iter().any(|layer| layer >= i)) {
            x = block.forward(x, angles.as_ref());
            if wanted.contains(&i) {
                outputs.push(self.norm_after(i).forward(x.clone()));
            }
        }
        Ok(outputs)
    }

    /// The norm that belongs to a block's output.
    fn norm_after(&self, block: usize) -> &LayerNorm {
        let level = self.config.levels.iter().position(|level| *level == block);
        let own = self.norms_block.as_ref().and_then(|norms| norms.get(level?));
        let Some(norm) = own.or(self.norm.as_ref()) else {
            unreachable!("a valid configuration asks for outputs that have a norm")
        };
        norm
    }

    /// Tokens before the first block, with their positions.
    ///
    /// # Errors
    /// As [`forward`](Self::forward).
    pub fn embed(&self, clip: Tensor<5>, mask: Option<Tensor<2, Int>>) -> Result<Embedded, ShapeError> {
        let dims = clip.dims();
        self.check_clip(dims)?;
        let [batch, _, frames, height, width] = dims;
        let grid = self.config.grid_of([frames, height, width]);
        if let Some(mask) = &mask {
            check_index("the encoder mask", mask, batch, grid.iter().product())?;
        }
        let device = clip.device();
        let x = self.embed_patches(clip); // [B, N, D]
        let (x, angles) = match (self.config.positions, &self.pos_embed) {
            (Positions::Rotary(rotary), _) => (x, Some(self.angles(rotary, grid, &device))),
            (Positions::Table, Some(table)) => (x + table.val(), None),
            (Positions::Table, None) => unreachable!("an encoder with a table has one"),
        };
        Ok(match mask {
            Some(mask) => Embedded {
                angles: angles.map(|table| gather_positions(table, mask.clone())), // [B, K, 2d]
                tokens: gather_tokens(x, mask),                                    // [B, K, D]
            },
            None => Embedded { tokens: x, angles },
        })
    }

    /// Patches to tokens, before positions and masks: a video by one embedding, an image by the other, with the vector of its
    /// modality where there is one.
    fn embed_patches(&self, clip: Tensor<5>) -> Tensor<3> {
        let image = self.config.is_image(clip.dims()[2]);
        let (embed, modality) = match &self.patch_embed_img {
            Some(embed) if image => (embed, &self.img_mod_embed),
            _ => (&self.patch_embed, &self.video_mod_embed),
        };
        let x = embed.forward(clip); // [B, N, D]
        match modality {
            Some(vector) => x + vector.val(),
            None => x,
        }
    }

    fn angles(&self, rotary: Rotary, grid: [usize; 3], device: &Device) -> Tensor<3> {
        rotary::table(rotary, Rotary::pretrained_grid(self.config.patch), grid, self.config.head_dim(), device)
    }

    /// A table fits clips of one size only; angles are those of any clip that is a whole number of patches.
    fn check_clip(&self, dims: [usize; 5]) -> Result<(), ShapeError> {
        let EncoderConfig { channels, num_frames, height, width, patch, tubelet, positions, .. } = self.config;
        let [batch, c, t, h, w] = dims;
        match positions {
            Positions::Table => {
                let fits = batch > 0 && [c, t, h, w] == [channels, num_frames, height, width];
                ShapeError::require(fits, "the clip", &dims, || {
                    format!(
                        "[B, {channels}, {num_frames}, {height}, {width}] (for another size, build the encoder for it and \
                         resize its position table)"
                    )
                })
            }
            Positions::Rotary(_) => {
                let whole = (self.config.is_image(t) || t.is_multiple_of(tubelet))
                    && [h, w].iter().all(|size| size.is_multiple_of(patch));
                ShapeError::require(whole && c == channels && !dims.contains(&0), "the clip", &dims, || {
                    format!("[B, {channels}, T, H, W] with T a multiple of {tubelet} and H and W of {patch}")
                })
            }
        }
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
