//! V-JEPA 2-AC: a frozen encoder that sees each frame alone, and a predictor of the next frames from actions and poses.
//!
//! (`src/models/ac_predictor.py` and `app/vjepa_droid/train.py` of V-JEPA 2.) Between the tokens of a frame and those of the
//! one before stand one token for the action and one for the pose; every token sees its own frame and all earlier ones.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::Rotary;

use crate::config::require;
use crate::encoder::Encoder;
use crate::error::{ConfigError, ShapeError};
use crate::layers::{BACKBONE_EPS, Block, LayerNorm, Linear, attend, layer_norm_no_affine, merge_heads};
use crate::rotary;

/// Epsilon of the norm without weights over the encoder's tokens and the predictions.
const TOKEN_EPS: f64 = 1e-5;
/// Tokens before each frame's: the action and the pose.
const CONDITIONS: usize = 2;
/// Numbers of an action and of a pose: position, rotation (Euler angles), gripper.
pub const ACTION_WIDTH: usize = 7;
/// Numbers of a camera's extrinsics.
pub const EXTRINSICS_WIDTH: usize = 6;
/// V-JEPA 2's rotation, which this predictor has whatever its encoder's generation.
const ROTARY: Rotary = Rotary { tiled: true, interpolate: false };

/// Sizes of an action-conditioned predictor.
#[derive(Clone, Debug, PartialEq)]
pub struct ActionPredictorConfig {
    /// Frames of a sequence, each of which is one step in time.
    pub frames: usize,
    /// Patches of a frame: height and width.
    pub grid: [usize; 2],
    /// Width D of the encoder's tokens.
    pub encoder_dim: usize,
    /// Width P of its own tokens.
    pub embed_dim: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub num_heads: usize,
    /// Hidden width of the MLPs.
    pub mlp_dim: usize,
}

impl ActionPredictorConfig {
    /// Checks that the sizes fit together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let sizes = [
            ("frames", self.frames),
            ("grid", self.patches()),
            ("encoder_dim", self.encoder_dim),
            ("embed_dim", self.embed_dim),
            ("num_heads", self.num_heads),
            ("mlp_dim", self.mlp_dim),
        ];
        for (key, size) in sizes {
            require(size > 0, key, || "must be at least 1, got 0".to_owned())?;
        }
        require(self.embed_dim.is_multiple_of(self.num_heads), "num_heads", || {
            format!("must divide `embed_dim` = {}, got {}", self.embed_dim, self.num_heads)
        })?;
        require(rotary::part_width(self.head_dim()) > 0, "num_heads", || {
            format!("leaves heads of {} channels, too narrow for positions on three axes", self.head_dim())
        })
    }

    /// Tokens of a frame.
    pub fn patches(&self) -> usize {
        self.grid.iter().product()
    }

    /// Channels of a head.
    pub fn head_dim(&self) -> usize {
        self.embed_dim.checked_div(self.num_heads).unwrap_or(0)
    }
}

/// Predicts the tokens of each next frame.
#[derive(Module, Debug)]
pub struct ActionPredictor {
    /// Encoder width to predictor width.
    pub predictor_embed: Linear,
    /// An action to a token.
    pub action_encoder: Linear,
    /// A pose to a token.
    pub state_encoder: Linear,
    /// A camera's extrinsics to a token; in the released file, and not used by it.
    pub extrinsics_encoder: Linear,
    /// Transformer blocks.
    pub predictor_blocks: Vec<Block>,
    /// Final norm.
    pub predictor_norm: LayerNorm,
    /// Predictor width to encoder width.
    pub predictor_proj: Linear,
    #[module(skip)]
    config: ActionPredictorConfig,
}

impl ActionPredictor {
    /// A predictor whose parameters have no values yet; see [`Encoder::empty`].
    ///
    /// # Errors
    /// [`ConfigError`] for sizes that do not fit together.
    pub fn empty(config: &ActionPredictorConfig, device: &Device) -> Result<Self, ConfigError> {
        config.validate()?;
        let ActionPredictorConfig { encoder_dim, embed_dim: dim, depth, num_heads, mlp_dim, .. } = *config;
        Ok(Self {
            predictor_embed: Linear::empty(encoder_dim, dim, device),
            action_encoder: Linear::empty(ACTION_WIDTH, dim, device),
            state_encoder: Linear::empty(ACTION_WIDTH, dim, device),
            extrinsics_encoder: Linear::empty(EXTRINSICS_WIDTH, dim, device),
            predictor_blocks: (0..depth).map(|_| Block::empty(dim, num_heads, mlp_dim, BACKBONE_EPS, device)).collect(),
            predictor_norm: LayerNorm::empty(dim, BACKBONE_EPS, device),
            predictor_proj: Linear::empty(dim, encoder_dim, device),
            config: config.clone(),
        })
    }

    /// Tokens of the frames `f32[B, T·N, D]`, as [`frame_tokens`] makes them, with the poses `f32[B, T, 7]` and the actions
    /// `f32[B, T, 7]` that follow each: the tokens of every next frame, `f32[B, T·N, D]`, normed like the frames'.
    ///
    /// # Errors
    /// [`ShapeError`] for inputs that do not fit.
    pub fn forward(&self, tokens: Tensor<3>, states: Tensor<3>, actions: Tensor<3>) -> Result<Tensor<3>, ShapeError> {
        let ActionPredictorConfig { frames, encoder_dim, embed_dim: dim, .. } = self.config;
        let (patches, batch) = (self.config.patches(), tokens.dims()[0]);
        ShapeError::require(
            tokens.dims() == [batch, frames * patches, encoder_dim],
            "the tokens",
            &tokens.dims(),
            || format!("[B, {}, {encoder_dim}]", frames * patches),
        )?;
        for (name, numbers) in [("the states", &states), ("the actions", &actions)] {
            ShapeError::require(numbers.dims() == [batch, frames, ACTION_WIDTH], name, &numbers.dims(), || {
                format!("[{batch}, {frames}, {ACTION_WIDTH}]")
            })?;
        }
        let device = tokens.device();
        let condition = |token: Tensor<3>| token.reshape([batch, frames, 1, dim]);
        let parts = vec![
            condition(self.action_encoder.forward(actions)),
            condition(self.state_encoder.forward(states)),
            self.predictor_embed.forward(tokens).reshape([batch, frames, patches, dim]),
        ];
        let of_frame = CONDITIONS + patches;
        let x = Tensor::cat(parts, 2).reshape([batch, frames * of_frame, dim]); // [B, T·(2 + N), P]
        let angles = self.angles(&device);
        let x = self.predictor_blocks.iter().fold(x, |x, block| causal(block, x, &angles, frames));
        let x = x.reshape([batch, frames, of_frame, dim]).narrow(2, CONDITIONS, patches); // [B, T, N, P]
        let x = self.predictor_norm.forward(x.reshape([batch, frames * patches, dim]));
        Ok(layer_norm_no_affine(self.predictor_proj.forward(x), TOKEN_EPS)) // [B, T·N, D]
    }

    /// Angles of all tokens, `[1, T·(2 + N), 2d]`: patches have a place on three axes, actions and poses in time alone.
    fn angles(&self, device: &Device) -> Tensor<3> {
        let ActionPredictorConfig { frames, grid: [height, width], .. } = self.config;
        let (patches, head) = (self.config.patches(), self.config.head_dim());
        let table = |grid| rotary::table(ROTARY, height, grid, head, device);
        let of_patches = table([frames, height, width]).reshape([1, frames, patches, 2 * head]);
        let of_conditions = table([frames, 1, 1]).reshape([1, frames, 1, 2 * head]);
        let of_conditions = of_conditions.expand([1, frames, CONDITIONS, 2 * head]);
        let all = Tensor::cat(vec![of_conditions, of_patches], 2); // [1, T, 2 + N, 2d]
        all.reshape([1, frames * (CONDITIONS + patches), 2 * head])
    }
}

/// A block over `frames` equal parts of the tokens, each of which attends to itself and to those before it. The official code
/// masks one product over all tokens; here what is masked there is not computed.
fn causal(block: &Block, x: Tensor<3>, angles: &Tensor<3>, frames: usize) -> Tensor<3> {
    let part = x.dims()[1] / frames.max(1);
    let [q, k, v] = block.attn.heads(block.norm1.forward(x.clone()), Some(angles)); // [B, heads, T·n, d]
    let attended = (0..frames).map(|frame| {
        let seen = (frame + 1) * part;
        attend(q.clone().narrow(2, frame * part, part), k.clone().narrow(2, 0, seen), v.clone().narrow(2, 0, seen))
    });
    let x = x + block.attn.proj.forward(merge_heads(Tensor::cat(attended.collect(), 2)));
    x.clone() + block.mlp.forward(block.norm2.forward(x))
}

/// Frames `f32[B, C, T, H, W]` to the tokens of each, seen alone as a clip of equal frames, without what lies before and after:
/// `f32[B, T·N, D]`, normed without weights. The encoder's clip is one tubelet long.
///
/// # Errors
/// [`ShapeError`] for frames that the encoder does not take.
pub fn frame_tokens(encoder: &Encoder, frames: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
    let [batch, channels, time, height, width] = frames.dims();
    let tubelet = encoder.config().tubelet;
    let single = frames.swap_dims(1, 2).reshape([batch * time, channels, 1, height, width]); // [B·T, C, 1, H, W]
    let clips = single.expand([batch * time, channels, tubelet, height, width]); // [B·T, C, tubelet, H, W]
    let tokens = encoder.forward(clips, None)?; // [B·T, N, D]
    let [_, patches, dim] = tokens.dims();
    let tokens = tokens.reshape([batch, time * patches, dim]);
    Ok(layer_norm_no_affine(tokens, TOKEN_EPS)) // [B, T·N, D]
}
