//! Thin layers with the official state dict's names and layouts.
//!
//! Parameters are lazy: none is allocated (or recorded, on a capture device) before it is first read.

use burn::module::{Module, Param, ParamId};
use burn::tensor::activation::gelu;
use burn::tensor::module::{attention, layer_norm};
use burn::tensor::{Device, Int, Tensor};

use crate::rotary::rotate;

/// Epsilon of the encoder's and the predictor's layer norms.
pub const BACKBONE_EPS: f64 = 1e-6;
/// Epsilon of the probe's layer norms.
pub const PROBE_EPS: f64 = 1e-5;

/// A parameter without values, `f32` of the given shape.
pub(crate) fn parameter<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy(shape, device, true)
}

/// A table that is part of the weights but not learned.
pub(crate) fn frozen<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    lazy(shape, device, false)
}

fn lazy<const D: usize>(shape: [usize; D], device: &Device, learned: bool) -> Param<Tensor<D>> {
    let empty = move |device: &Device, learned: bool| Tensor::<D>::empty(shape, device).set_require_grad(learned);
    Param::uninitialized(ParamId::new(), empty, device.clone(), learned, shape.into())
}

/// `y = x · weightᵀ + bias`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[out, in]`.
    pub weight: Param<Tensor<2>>,
    /// `[out]`.
    pub bias: Param<Tensor<1>>,
}

impl Linear {
    /// A layer without values.
    pub fn empty(inputs: usize, outputs: usize, device: &Device) -> Self {
        Self { weight: parameter([outputs, inputs], device), bias: parameter([outputs], device) }
    }

    /// `[..., in]` to `[..., out]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        linear(x, self.weight.val(), self.bias.val())
    }
}

/// Layer normalisation over the last axis, with weight and bias.
#[derive(Module, Debug)]
pub struct LayerNorm {
    /// `[D]`.
    pub weight: Param<Tensor<1>>,
    /// `[D]`.
    pub bias: Param<Tensor<1>>,
    /// Added to the variance.
    pub eps: f64,
}

impl LayerNorm {
    /// A layer without values.
    pub fn empty(dim: usize, eps: f64, device: &Device) -> Self {
        Self { weight: parameter([dim], device), bias: parameter([dim], device), eps }
    }

    /// Keeps the shape.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        layer_norm(x, self.weight.val(), Some(self.bias.val()), self.eps)
    }
}

/// Linear, exact GELU, linear.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Width to hidden width.
    pub fc1: Linear,
    /// Hidden width to width.
    pub fc2: Linear,
}

impl Mlp {
    /// A layer without values.
    pub fn empty(dim: usize, hidden: usize, device: &Device) -> Self {
        Self { fc1: Linear::empty(dim, hidden, device), fc2: Linear::empty(hidden, dim, device) }
    }

    /// Keeps the shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.fc2.forward(gelu(self.fc1.forward(x)))
    }
}

/// Self-attention among all given tokens.
#[derive(Module, Debug)]
pub struct Attention {
    /// Width to three times the width, in the order query, key, value.
    pub qkv: Linear,
    /// Output projection.
    pub proj: Linear,
    /// Heads.
    pub num_heads: usize,
}

impl Attention {
    /// A layer without values.
    pub fn empty(dim: usize, num_heads: usize, device: &Device) -> Self {
        Self { qkv: Linear::empty(dim, 3 * dim, device), proj: Linear::empty(dim, dim, device), num_heads }
    }

    /// `[B, N, D]` to `[B, N, D]`; queries and keys are turned by a [`table`](crate::rotary::table) of angles, if there is
    /// one.
    pub fn forward(&self, x: Tensor<3>, angles: Option<&Tensor<3>>) -> Tensor<3> {
        let [q, k, v] = self.heads(x, angles);
        self.proj.forward(merge_heads(attend(q, k, v)))
    }

    /// Queries, keys and values `[B, heads, N, D / heads]`, as the product sees them.
    pub fn heads(&self, x: Tensor<3>, angles: Option<&Tensor<3>>) -> [Tensor<4>; 3] {
        let dim = x.dims()[2];
        let qkv = self.qkv.forward(x); // [B, N, 3D]
        let [q, k, v] = [0, 1, 2].map(|i| split_heads(qkv.clone().narrow(2, i * dim, dim), self.num_heads));
        match angles {
            Some(table) => [rotate(q, table.clone()), rotate(k, table.clone()), v],
            None => [q, k, v],
        }
    }
}

/// Pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Before the attention.
    pub norm1: LayerNorm,
    /// Self-attention.
    pub attn: Attention,
    /// Before the MLP.
    pub norm2: LayerNorm,
    /// MLP.
    pub mlp: Mlp,
}

impl Block {
    /// A block without values.
    pub fn empty(dim: usize, num_heads: usize, hidden: usize, eps: f64, device: &Device) -> Self {
        Self {
            norm1: LayerNorm::empty(dim, eps, device),
            attn: Attention::empty(dim, num_heads, device),
            norm2: LayerNorm::empty(dim, eps, device),
            mlp: Mlp::empty(dim, hidden, device),
        }
    }

    /// `[B, N, D]` to `[B, N, D]`; for `angles` see [`Attention::forward`].
    pub fn forward(&self, x: Tensor<3>, angles: Option<&Tensor<3>>) -> Tensor<3> {
        self.forward_gated(x, angles, &[None, None])
    }

    /// Like [`Block::forward`], with the attention's and the MLP's branch each multiplied by a gate `[B, 1, 1]`, where there is
    /// one: drop path.
    pub fn forward_gated(&self, x: Tensor<3>, angles: Option<&Tensor<3>>, gates: &[Option<Tensor<3>>; 2]) -> Tensor<3> {
        let gated = |branch: Tensor<3>, gate: &Option<Tensor<3>>| match gate {
            Some(gate) => branch * gate.clone(), // [B, N, D]
            None => branch,
        };
        let x = x.clone() + gated(self.attn.forward(self.norm1.forward(x), angles), &gates[0]);
        x.clone() + gated(self.mlp.forward(self.norm2.forward(x)), &gates[1])
    }
}

/// `x [..., in] · weightᵀ [in, out] + bias [out]`: `[..., out]`.
///
/// Burn's own `linear` is recorded in one of two forms, chosen by the number of rows. This is always the first of them,
/// so that the structure of a trace does not depend on sizes:
///
/// ```text
/// rows = reshape(x)          [rows, in]
/// w    = swap_dims(weight)   [in, out]
/// y    = matmul(rows, w)     [rows, out]
/// b    = reshape(bias)       [1, out]
/// y    = y + b               [rows, out]
/// y    = reshape(y)          [..., out]
/// ```
pub fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Tensor<1>) -> Tensor<D> {
    let mut dims = x.dims();
    let [outputs, inputs] = weight.dims();
    let rows = dims[..D - 1].iter().product::<usize>();
    dims[D - 1] = outputs;
    let y = x
        .reshape([rows, inputs]) // [rows, in]
        .matmul(weight.transpose()); // [rows, out]
    (y + bias.reshape([1, outputs])).reshape(dims) // [..., out]
}

/// `[B, N, D]` to `[B, heads, N, D / heads]`.
pub fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, dim] = x.dims();
    x.reshape([batch, tokens, heads, dim / heads]) // [B, N, H, D/H]
        .swap_dims(1, 2) // [B, H, N, D/H]
}

/// `[B, heads, N, D / heads]` to `[B, N, D]`.
pub fn merge_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, dim] = x.dims();
    x.swap_dims(1, 2) // [B, N, H, D/H]
        .reshape([batch, tokens, heads * dim]) // [B, N, D]
}

/// Scaled dot-product attention, scale `(D / heads)^-½`; all arguments `[B, heads, N, D / heads]`.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    attention(q, k, v, None, None, Default::default())
}

/// Tokens of `x` `[B, N, D]` at `index` `[B, K]`: `[B, K, D]`. Indices must lie in `0..N`.
///
/// The only form of a token gather in this crate: `index` gains a last axis of 1, is expanded to `[B, K, D]`, and gathers
/// along axis 1.
pub fn gather_tokens(x: Tensor<3>, index: Tensor<2, Int>) -> Tensor<3> {
    let [batch, kept] = index.dims();
    let dim = x.dims()[2];
    let index = index
        .unsqueeze_dim::<3>(2) // [B, K, 1]
        .expand([batch, kept, dim]); // [B, K, D]
    x.gather(1, index) // [B, K, D]
}

/// Rows of a table `[1, N, D]` at `index` `[B, K]`: `[B, K, D]`. The table is expanded over the batch, then
/// [`gather_tokens`].
pub fn gather_positions(table: Tensor<3>, index: Tensor<2, Int>) -> Tensor<3> {
    let batch = index.dims()[0];
    let [_, tokens, dim] = table.dims();
    gather_tokens(table.expand([batch, tokens, dim]), index) // [B, K, D]
}

/// Layer normalisation over the last axis without weight and bias. Burn has no operation for it, so it is recorded as
///
/// ```text
/// mean     = mean_dim(x, 2)              [B, N, 1]
/// centred  = x - mean                    [B, N, D]
/// square   = centred * centred           [B, N, D]
/// variance = mean_dim(square, 2)         [B, N, 1]
/// shifted  = variance + eps              [B, N, 1]
/// root     = sqrt(shifted)               [B, N, 1]
/// y        = centred / root              [B, N, D]
/// ```
pub fn layer_norm_no_affine(x: Tensor<3>, eps: f64) -> Tensor<3> {
    let mean = x.clone().mean_dim(2);
    let centred = x - mean;
    let variance = (centred.clone() * centred.clone()).mean_dim(2);
    centred / variance.add_scalar(eps).sqrt()
}
