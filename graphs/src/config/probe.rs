//! Sizes of attentive probes.

use serde::{Deserialize, Serialize};

use vjepa_recipe::config::{Generation, mlp_dim};

use super::{EncoderConfig, positive, require, transformer};
use crate::error::ConfigError;
use crate::layers::PROBE_EPS;

/// Sizes of an attentive probe (`src/models/attentive_pooler.py`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeConfig {
    /// Width of the features.
    pub embed_dim: usize,
    /// Attention heads; divides `embed_dim`. As many as in the encoder in the released evaluations.
    pub num_heads: usize,
    /// Hidden width of the MLP over `embed_dim`.
    pub mlp_ratio: f64,
    /// 1 for the cross-attention alone; each additional one adds a self-attention block.
    pub depth: usize,
    /// Cross-attention with residual, norms and MLP, as released; otherwise the attention alone.
    pub complete_block: bool,
    /// Number of classes.
    pub num_classes: usize,
    /// What the self-attention blocks work on.
    #[serde(default)]
    pub blocks_on: BlocksOn,
    /// Added to the variance by its layer norms; the official 1e-5, or what a file says.
    #[serde(default = "probe_eps")]
    pub eps: f64,
}

/// What the self-attention blocks of an attentive probe work on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlocksOn {
    /// The pooled query, after the cross-attention: V-JEPA's probe, whose cross-attention has an output projection that is
    /// stored and never applied.
    #[default]
    Query,
    /// The features, before the query reads them: V-JEPA 2's probe, without that projection.
    Features,
}

fn probe_eps() -> f64 {
    PROBE_EPS
}

impl ProbeConfig {
    /// Heads of V-JEPA 2's released probes, whatever the encoder's.
    pub const RELEASED_HEADS: usize = 16;

    /// V-JEPA's released probe on features of this width: depth 1, complete block.
    pub fn sized(embed_dim: usize, num_heads: usize, num_classes: usize) -> Self {
        Self {
            embed_dim,
            num_heads,
            mlp_ratio: 4.0,
            depth: 1,
            complete_block: true,
            num_classes,
            blocks_on: BlocksOn::Query,
            eps: PROBE_EPS,
        }
    }

    /// The released probe for an encoder: depth 1 and the encoder's heads for V-JEPA, three self-attention blocks on the
    /// features for V-JEPA 2 and 2.1, with 16 heads where they divide the width.
    pub fn for_encoder(encoder: &EncoderConfig, num_classes: usize) -> Self {
        let sized = |heads| Self::sized(encoder.embed_dim, heads, num_classes);
        match encoder.generation() {
            Generation::V1 => sized(encoder.num_heads),
            Generation::V2 | Generation::V21 => {
                let released = encoder.embed_dim.is_multiple_of(Self::RELEASED_HEADS);
                let heads = if released { Self::RELEASED_HEADS } else { encoder.num_heads };
                Self { depth: 4, blocks_on: BlocksOn::Features, ..sized(heads) }
            }
        }
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
        positive("num_classes", self.num_classes)?;
        require(self.eps >= 0.0 && self.eps.is_finite(), "eps", || format!("must be 0 or more, got {}", self.eps))?;
        transformer(self.embed_dim, self.depth, self.num_heads, self.mlp_ratio)
    }
}
