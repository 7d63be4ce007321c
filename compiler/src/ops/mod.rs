//! The closed set of operations.
//!
//! [`Op`] is the enumeration; `dispatch.rs` sorts it into families, one per file. A family file has an enumeration `Kind` of
//! its own operations and matches it without a wildcard in each of its rules: the types of the results (`infer`), the cost
//! (`cost`), the interpreter (`eval`), the gradient (`grad`) and the decomposition into smaller operations (`decompose`). So
//! an operation that is added and lacks a rule does not compile. `docs/adding-an-operation.md` walks through one.

mod attention;
mod attributes;
mod bias_gelu;
mod contraction;
mod dispatch;
mod elementwise;
mod functions;
mod mixed;
mod names;
mod norm;
mod optimizer;
mod packed_attention;
mod random;
mod ranks;
mod reduce;
mod roi;
mod rotary;
mod rules;
mod shape;
mod token_l1;
mod tokens;

pub(crate) use attributes::{Attribute, AttributeMut};
pub use functions::{Binary, Unary};
pub use random::DropKey;
pub use roi::{RoiBox, RoiSampling, RoiWeights};
pub use rules::{Cost, TypeError};
pub(crate) use rules::{Eval, EvalError, Reverse, bytes};
use rules::{arity, require};

use crate::ir::{DType, Dim, Scalar, TensorType};

/// An operation with its attributes. Operands are listed as `(a, b, [optional])`, results after the arrow.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    // Elementwise (elementwise.rs)
    /// `(x) -> f(x)`.
    Unary(Unary),
    /// `(a, b) -> f(a, b)` with NumPy broadcasting.
    Binary(Binary),
    /// `(x) -> x + c`.
    AddScalar(Scalar),
    /// `(x) -> c·x`.
    MulScalar(Scalar),
    /// `(x) -> x^c`.
    PowScalar(f64),
    /// `(x, dy) -> dy · gelu'(x)`, exact (erf) GELU.
    GeluGrad,
    /// `(x, dy) -> gelu(x), dy · gelu'(x)`, which have most of their arithmetic in common.
    GeluWithGrad,
    /// `(x) -> x` in another element type.
    Cast(DType),

    // GELU of a sum (bias_gelu.rs)
    /// `(x[.., D], bias[D]) -> gelu(x + bias)`.
    BiasGelu,
    /// `(x[.., D], bias[D], dy) -> [gelu(x + bias)], dx, dbias`.
    BiasGeluGrad {
        /// Whether the forward's result is the first result; part of the operation's name.
        result: bool,
    },

    // Reductions (reduce.rs): the reduced axes stay, with size 1.
    /// `(x) -> sum over axes`.
    Sum {
        /// Axes, ascending.
        axes: Vec<usize>,
    },
    /// `(x) -> mean over axes`.
    Mean {
        /// Axes, ascending.
        axes: Vec<usize>,
    },
    /// `(x) -> largest over axes`. Its gradient goes to the largest, in equal parts where there are several.
    ReduceMax {
        /// Axes, ascending.
        axes: Vec<usize>,
    },
    /// `(x) -> softmax over the last axis`.
    Softmax,
    /// `(y, dy) -> y·(dy − Σ y·dy)`, y a softmax.
    SoftmaxGrad,
    /// `(x) -> log softmax over the last axis`.
    LogSoftmax,
    /// `(a, b, ..) -> f32[]`, the sum of the squares of all elements of all operands.
    SquaredNorm,

    // Shape (shape.rs)
    /// `() -> a tensor filled with one number`.
    Full {
        /// The number.
        value: Scalar,
        /// Type of the result.
        ty: TensorType,
    },
    /// `() -> f32[size]`, the numbers 0, 1, 2, ...
    Iota {
        /// How many.
        size: Dim,
    },
    /// `(x) -> x` in another shape of as many elements.
    Reshape {
        /// The new shape.
        shape: Vec<Dim>,
    },
    /// `(x) -> x` with axes reordered: result axis `i` is operand axis `axes[i]`.
    Permute {
        /// The permutation.
        axes: Vec<usize>,
    },
    /// `(x) -> x` with axes of size 1 repeated (operand and result have the same rank).
    Broadcast {
        /// The new shape.
        shape: Vec<Dim>,
    },
    /// `(x) -> x[.., start..end, ..]`.
    Slice {
        /// Axis that is cut.
        axis: usize,
        /// First index kept.
        start: Dim,
        /// One past the last index kept.
        end: Dim,
    },
    /// `(x) -> x` with zeros before and after along an axis.
    Pad {
        /// Axis that grows.
        axis: usize,
        /// Zeros before.
        before: Dim,
        /// Zeros after.
        after: Dim,
    },
    /// `(a, b, ..) -> one after the other along an axis`.
    Concat {
        /// The axis.
        axis: usize,
    },

    // Tokens (tokens.rs)
    /// `(x[B|1, N, D], index i32[B, K]) -> [B, K, D]`.
    GatherTokens,
    /// `(dy[B, K, D], index i32[B, K]) -> [B, N, D]`: rows added to where they were gathered from.
    ScatterTokens {
        /// N.
        tokens: Dim,
    },
    /// `(clip[B, C, T, H, W]) -> [B, N, C·tubelet·patch²]`, tokens in t, h, w order, features in c, dt, dy, dx order.
    Tubelets {
        /// Frames a tubelet spans.
        tubelet: usize,
        /// Side of a patch in pixels.
        patch: usize,
    },
    /// `(clip[B, C, T, H, W], weight[D, C, tubelet, patch, patch], [bias[D]]) -> [B, N, D]`: a linear over tubelets.
    PatchEmbed {
        /// Frames a tubelet spans.
        tubelet: usize,
        /// Side of a patch in pixels.
        patch: usize,
    },

    // Distances of tokens (token_l1.rs)
    /// `(y[B, K, D], x[B|1, N, D], index i32[B, K]) -> [B, K, 1]`, the mean of `|y − x̂|` over the last axis, x̂ being the
    /// tokens of `x` at the index, normalised.
    TokenL1 {
        /// Added to the variance.
        eps: f64,
    },
    /// `(y, x, index) -> dy`, `scale·sign(y − x̂)`.
    TokenL1Grad {
        /// As in the forward.
        eps: f64,
        /// Gradient of the mean, times 1/D.
        scale: Scalar,
    },

    // Boxes (roi.rs)
    /// `(x[B, C, H, W], boxes f32[R, 5]) -> [R, C, size, size]`: RoIAlign, features averaged over the bins of boxes. A box is its
    /// sample's index, then x1, y1, x2, y2 in pixels.
    RoiAlign {
        /// Bins of a side.
        size: usize,
        /// Where the bins are sampled.
        sampling: RoiSampling,
    },
    /// `(dy[R, C, S, S], boxes f32[R, 5]) -> [B, C, H, W]`.
    RoiAlignGrad {
        /// B, C, H, W.
        shape: Vec<Dim>,
        /// As in the forward.
        sampling: RoiSampling,
    },

    // Random numbers (random.rs)
    /// `(x, key i32[4]) -> x/(1 − rate) or 0`: dropout, or with one axis drop path. The key is the seed and the step
    /// ([`DropKey`]).
    Dropout {
        /// Share that is dropped.
        rate: f64,
        /// Which of the graph's dropouts it is.
        place: usize,
        /// Leading axes over which each index has its own number; the others share it.
        axes: usize,
    },

    // Contractions (contraction.rs)
    /// `(a[.., M, K], b[.., K, N], [c[.., M, N]]) -> a·b + c`; leading axes equal. A transposed operand is given as stored.
    MatMul {
        /// `a` is stored as `[.., K, M]`.
        ta: bool,
        /// `b` is stored as `[.., N, K]`.
        tb: bool,
    },
    /// `(x[.., in], weight[out, in], [bias[out]]) -> [.., out]`.
    Linear,

    // Normalisation (norm.rs)
    /// `(x[.., D], [weight[D], bias[D]]) -> normalised over the last axis`.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// `(x, dy, [weight]) -> dx, [dweight, dbias]`; with a weight there are three results, without one only `dx`.
    LayerNormGrad {
        /// As in the forward.
        eps: f64,
    },

    // Of 32 and 16 bits (mixed.rs)
    /// `(x f32[.., D], [weight f32[D], bias f32[D]]) -> normalised over the last axis`, in 16 bits.
    NarrowLayerNorm {
        /// Added to the variance.
        eps: f64,
        /// Element type of the result.
        to: DType,
    },
    /// `(a f32, b of 16 bits) -> f32 a + b`, of one shape.
    AddWidened,

    // Attention (attention.rs)
    /// `(q[B, H, N, d], k[B, H, M, d], v[B, H, M, d]) -> softmax(scale·q·kᵀ)·v`.
    Attention {
        /// Multiplies the scores.
        scale: f64,
    },
    /// `(q, k, v, y, dy) -> dq, dk, dv`.
    AttentionGrad {
        /// As in the forward.
        scale: f64,
    },

    // Rotary positions (rotary.rs)
    /// `(x[B, H, N, d], table[B|1, N, 2d]) -> x·cos + y·sin`, with cosines in the first half of the table's columns and sines
    /// in the second, and y the channels of x in pairs, exchanged, the first of each negated.
    Rotate {
        /// The transposed map, which takes the gradient of a result to that of x.
        transposed: bool,
    },

    // Attention over rows as a linear layer makes them (packed_attention.rs)
    /// `(qkv[R, 3·H·d], [table[B|1, N, 2d], ..]) -> [R, H·d]`: attention of each clip's rows among themselves. Queries, keys and
    /// values of a row lie one after the other, head by head; R = Σ B·N over the parts. With tables, one for each part, queries
    /// and keys are rotated first. With `sums` there is a second result, `f32[R, H]`: for each row and head the logarithm of the
    /// sum of the exponentials of its scores, from which a gradient computes shares without adding them up again.
    PackedAttention {
        /// H.
        heads: usize,
        /// Multiplies the scores.
        scale: f64,
        /// B and N of each part in turn: B clips of N rows.
        parts: Vec<Dim>,
        /// Whether the logarithms of the sums are a result; part of the operation's name.
        sums: bool,
    },
    /// `(qkv, y, dy, [sums], [table, ..]) -> dqkv`.
    PackedAttentionGrad {
        /// H.
        heads: usize,
        /// As in the forward.
        scale: f64,
        /// As in the forward.
        parts: Vec<Dim>,
        /// Whether the forward's second result is an operand; part of the operation's name.
        sums: bool,
    },

    // Optimiser (optimizer.rs); lr, wd, c1, c2, clip and momentum are f32[] values.
    /// `(p, g, m, v, lr, wd, c1, c2, clip) -> p', m', v'`: AdamW with decoupled decay on `clip·g`; c1 and c2 are the bias
    /// corrections `1 − β^t`.
    AdamW {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// `(target, p, momentum) -> momentum·target + (1 − momentum)·p`.
    Ema,
    /// `(p, g, m, v, lr, wd, c1, c2, clip, target, momentum) -> p', m', v', target'`: AdamW, then the EMA of the result.
    AdamWEma {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
    },
    /// `(lr, wd, c1, c2, clip, [momentum], p, g, m, v, [target], p, g, m, v, [target], ..) -> p', m', v', [target'], ..`: the
    /// above for any number of parameters with the same rates.
    AdamWAll {
        /// Decay of the first moment.
        beta1: f64,
        /// Decay of the second moment.
        beta2: f64,
        /// Added to the root of the second moment.
        eps: f64,
        /// Whether each parameter has an average; part of the operation's name.
        average: bool,
    },

    // Ranks (ranks.rs): each operand's sum over all ranks of the run, which all compute the same graph.
    /// `(a, b, ..) -> Σ a, Σ b, ..`.
    AllReduce,
    /// `(a, b, ..) -> a', b', ..`, which only [`Op::AllReduceDone`] reads: the sums are begun.
    AllReduceStart,
    /// `(a', b', ..) -> Σ a, Σ b, ..`: the sums that were begun are there.
    AllReduceDone,
}

#[cfg(test)]
mod tests;
