//! The sizes that a `model` section comes to.

use serde::Serialize;

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
        mlp_dim(self.embed_dim, self.mlp_ratio)
    }
}

/// Hidden width of an MLP over tokens of this width: the official `int(width * ratio)`.
pub fn mlp_dim(width: usize, ratio: f64) -> usize {
    // The largest value validation lets through is far below 2^53. 1408 * 48/11 is 6143.999... in binary floating
    // point for some orders of evaluation, as are ratios read off a file's shapes, so a hair is added before truncating.
    (width as f64 * ratio + 1e-6) as usize
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
