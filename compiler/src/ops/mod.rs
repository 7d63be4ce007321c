//! The closed set of operations.
//!
//! [`Op`] is the enumeration; each family file beside this one holds, for its operations, the type rule (`infer`), the
//! cost (`cost`), the interpreter rule (`eval`), the gradient rule (`grad`) and, for semantic operations, the
//! decomposition into smaller ones (`decompose`).

mod attention;
mod contraction;
mod elementwise;
mod norm;
mod optimizer;
mod reduce;
mod shape;
mod tokens;

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
    /// `(x) -> x` in another element type.
    Cast(DType),

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
    /// `(x) -> softmax over the last axis`.
    Softmax,
    /// `(y, dy) -> y·(dy − Σ y·dy)`, y a softmax.
    SoftmaxGrad,
    /// `(x) -> log softmax over the last axis`.
    LogSoftmax,

    // Shape (shape.rs)
    /// `() -> a tensor filled with one number`.
    Full {
        /// The number.
        value: Scalar,
        /// Type of the result.
        ty: TensorType,
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

    // Contractions (contraction.rs)
    /// `(a[.., M, K], b[.., K, N]) -> [.., M, N]`; leading axes equal. A transposed operand is given as stored.
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
}

/// Elementwise functions of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Unary {
    Neg,
    Abs,
    /// −1, 0 or 1.
    Sign,
    Exp,
    Log,
    Sqrt,
    Recip,
    Tanh,
    Erf,
    Relu,
    /// 1 where x > 0, else 0.
    Step,
    /// Exact GELU, `x·Φ(x)`.
    Gelu,
}

/// Elementwise functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Min,
    Max,
}

impl Unary {
    /// All of them.
    pub const ALL: [Unary; 12] = [
        Unary::Neg,
        Unary::Abs,
        Unary::Sign,
        Unary::Exp,
        Unary::Log,
        Unary::Sqrt,
        Unary::Recip,
        Unary::Tanh,
        Unary::Erf,
        Unary::Relu,
        Unary::Step,
        Unary::Gelu,
    ];

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Unary::Neg => "neg",
            Unary::Abs => "abs",
            Unary::Sign => "sign",
            Unary::Exp => "exp",
            Unary::Log => "log",
            Unary::Sqrt => "sqrt",
            Unary::Recip => "recip",
            Unary::Tanh => "tanh",
            Unary::Erf => "erf",
            Unary::Relu => "relu",
            Unary::Step => "step",
            Unary::Gelu => "gelu",
        }
    }
}

impl Binary {
    /// All of them.
    pub const ALL: [Binary; 6] = [Binary::Add, Binary::Sub, Binary::Mul, Binary::Div, Binary::Min, Binary::Max];

    /// Name in the text form.
    pub fn name(self) -> &'static str {
        match self {
            Binary::Add => "add",
            Binary::Sub => "sub",
            Binary::Mul => "mul",
            Binary::Div => "div",
            Binary::Min => "min",
            Binary::Max => "max",
        }
    }
}

/// Operands that do not fit an operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TypeError {
    /// Wrong number of operands.
    #[error("takes {expected} operands, got {got}")]
    Arity {
        /// What it takes, in words.
        expected: &'static str,
        /// What it got.
        got: usize,
    },
    /// Shapes or element types that do not go together.
    #[error("{0}")]
    Mismatch(String),
}

impl Op {
    /// Name in the text form.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Unary(f) => f.name(),
            Op::Binary(f) => f.name(),
            Op::AddScalar(_) => "add_scalar",
            Op::MulScalar(_) => "mul_scalar",
            Op::PowScalar(_) => "pow_scalar",
            Op::GeluGrad => "gelu_grad",
            Op::Cast(_) => "cast",
            Op::Sum { .. } => "sum",
            Op::Mean { .. } => "mean",
            Op::Softmax => "softmax",
            Op::SoftmaxGrad => "softmax_grad",
            Op::LogSoftmax => "log_softmax",
            Op::Full { .. } => "full",
            Op::Reshape { .. } => "reshape",
            Op::Permute { .. } => "permute",
            Op::Broadcast { .. } => "broadcast",
            Op::Slice { .. } => "slice",
            Op::Pad { .. } => "pad",
            Op::Concat { .. } => "concat",
            Op::GatherTokens => "gather_tokens",
            Op::ScatterTokens { .. } => "scatter_tokens",
            Op::Tubelets { .. } => "tubelets",
            Op::PatchEmbed { .. } => "patch_embed",
            Op::MatMul { .. } => "matmul",
            Op::Linear => "linear",
            Op::LayerNorm { .. } => "layer_norm",
            Op::LayerNormGrad { .. } => "layer_norm_grad",
            Op::Attention { .. } => "attention",
            Op::AttentionGrad { .. } => "attention_grad",
            Op::AdamW { .. } => "adamw",
            Op::Ema => "ema",
            Op::AdamWEma { .. } => "adamw_ema",
        }
    }

    /// Result types for operands of these types.
    ///
    /// # Errors
    /// [`TypeError`] says which operand does not fit and why.
    pub fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
        match self {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::PowScalar(_)
            | Op::GeluGrad
            | Op::Cast(_) => elementwise::infer(self, operands),
            Op::Sum { .. } | Op::Mean { .. } | Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax => {
                reduce::infer(self, operands)
            }
            Op::Full { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. } => shape::infer(self, operands),
            Op::GatherTokens | Op::ScatterTokens { .. } | Op::Tubelets { .. } | Op::PatchEmbed { .. } => {
                tokens::infer(self, operands)
            }
            Op::MatMul { .. } | Op::Linear => contraction::infer(self, operands),
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => norm::infer(self, operands),
            Op::Attention { .. } | Op::AttentionGrad { .. } => attention::infer(self, operands),
            Op::AdamW { .. } | Op::Ema | Op::AdamWEma { .. } => optimizer::infer(self, operands),
        }
    }
}

/// Fails unless there are between `least` and `most` operands.
fn arity(operands: &[&TensorType], least: usize, most: usize, expected: &'static str) -> Result<(), TypeError> {
    if (least..=most).contains(&operands.len()) {
        Ok(())
    } else {
        Err(TypeError::Arity { expected, got: operands.len() })
    }
}

/// Fails with a sentence unless `holds`.
fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), TypeError> {
    if holds { Ok(()) } else { Err(TypeError::Mismatch(message())) }
}
