//! The classifier that is trained together with its encoder: the mean token, a norm, a linear layer.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::finetune::Pooling;

use crate::error::ShapeError;
use crate::layers::{BACKBONE_EPS, LayerNorm, Linear};

/// Sizes of a [`TunedClassifier`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunedHead {
    /// Width of the tokens.
    pub embed_dim: usize,
    /// Number of classes.
    pub num_classes: usize,
    /// Which norm there is.
    pub pooling: Pooling,
}

impl TunedHead {
    /// Names and shapes of its parameters.
    pub fn parameter_shapes(&self) -> Vec<(String, Vec<usize>)> {
        let Self { embed_dim, num_classes, pooling } = *self;
        let mut shapes = Vec::new();
        if pooling == Pooling::FcNorm {
            shapes.extend(["fc_norm.weight", "fc_norm.bias"].map(|name| (name.to_owned(), vec![embed_dim])));
        }
        shapes.push(("head.weight".to_owned(), vec![num_classes, embed_dim]));
        shapes.push(("head.bias".to_owned(), vec![num_classes]));
        shapes
    }
}

/// Mean token to logits (VideoMAE `modeling_finetune.py`, whose names the parameters have).
#[derive(Module, Debug)]
pub struct TunedClassifier {
    /// Of the mean token; none where the encoder's own norm came before the mean.
    pub fc_norm: Option<LayerNorm>,
    /// The linear layer.
    pub head: Linear,
    #[module(skip)]
    dim: usize,
}

impl TunedClassifier {
    /// A classifier whose parameters have no values yet.
    pub fn empty(sizes: &TunedHead, device: &Device) -> Self {
        let TunedHead { embed_dim, num_classes, pooling } = *sizes;
        Self {
            fc_norm: (pooling == Pooling::FcNorm).then(|| LayerNorm::empty(embed_dim, BACKBONE_EPS, device)),
            head: Linear::empty(embed_dim, num_classes, device),
            dim: embed_dim,
        }
    }

    /// Tokens `f32[B, N, D]` to logits `f32[B, classes]`. The normed mean is multiplied by a gate `[B, 1, D]`, where there is
    /// one: dropout.
    ///
    /// # Errors
    /// [`ShapeError`] for tokens of another width.
    pub fn forward(&self, tokens: Tensor<3>, gate: Option<Tensor<3>>) -> Result<Tensor<2>, ShapeError> {
        let dims = tokens.dims();
        let dim = self.dim;
        ShapeError::require(dims[0] > 0 && dims[1] > 0 && dims[2] == dim, "the tokens", &dims, || {
            format!("[B, N, {dim}]")
        })?;
        let mean = tokens.mean_dim(1); // [B, 1, D]
        let normed = match &self.fc_norm {
            Some(norm) => norm.forward(mean),
            None => mean,
        };
        let kept = match gate {
            Some(gate) => normed * gate,
            None => normed,
        };
        Ok(self.head.forward(kept.squeeze_dim::<2>(1))) // [B, D] to [B, classes]
    }
}
