//! The closed set of operations.
//!
//! [`Op`] is the enumeration; each family file beside this one holds, for its operations, the type rule (`infer`), the
//! cost (`cost`), the interpreter rule (`eval`), the gradient rule (`grad`) and, for semantic operations, the
//! decomposition into smaller ones (`decompose`).

mod attention;
mod attributes;
mod contraction;
mod elementwise;
mod functions;
mod norm;
mod optimizer;
mod reduce;
mod rules;
mod shape;
mod tokens;

pub(crate) use attributes::{Attribute, AttributeMut};
pub use functions::{Binary, Unary};
pub use rules::Cost;
pub(crate) use rules::{Eval, EvalError, Reverse, bytes};

use crate::interp::Array;
use crate::ir::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};

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

/// One per file beside this one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Family {
    Attention,
    Contraction,
    Elementwise,
    Norm,
    Optimizer,
    Reduce,
    Shape,
    Tokens,
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

    /// The file that holds this operation's rules.
    fn family(&self) -> Family {
        match self {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::PowScalar(_)
            | Op::GeluGrad
            | Op::Cast(_) => Family::Elementwise,
            Op::Sum { .. } | Op::Mean { .. } | Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax => Family::Reduce,
            Op::Full { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. } => Family::Shape,
            Op::GatherTokens | Op::ScatterTokens { .. } | Op::Tubelets { .. } | Op::PatchEmbed { .. } => Family::Tokens,
            Op::MatMul { .. } | Op::Linear => Family::Contraction,
            Op::LayerNorm { .. } | Op::LayerNormGrad { .. } => Family::Norm,
            Op::Attention { .. } | Op::AttentionGrad { .. } => Family::Attention,
            Op::AdamW { .. } | Op::Ema | Op::AdamWEma { .. } => Family::Optimizer,
        }
    }

    /// Result types for operands of these types.
    ///
    /// # Errors
    /// [`TypeError`] says which operand does not fit and why.
    pub fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let results = match self.family() {
            Family::Attention => attention::infer(self, operands)?,
            Family::Contraction => contraction::infer(self, operands)?,
            Family::Elementwise => elementwise::infer(self, operands)?,
            Family::Norm => norm::infer(self, operands)?,
            Family::Optimizer => optimizer::infer(self, operands)?,
            Family::Reduce => reduce::infer(self, operands)?,
            Family::Shape => shape::infer(self, operands)?,
            Family::Tokens => tokens::infer(self, operands)?,
        };
        require(results.iter().all(TensorType::is_tame), || "the result's shape is too complicated".to_owned())?;
        Ok(results)
    }

    /// Arithmetic and memory traffic, given the types of operands and results (as [`Op::infer`] accepts and returns them).
    pub fn cost(&self, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
        match self.family() {
            Family::Attention => attention::cost(self, operands, results),
            Family::Contraction => contraction::cost(self, operands, results),
            Family::Elementwise => elementwise::cost(self, operands, results),
            Family::Norm => norm::cost(self, operands, results),
            Family::Optimizer => optimizer::cost(self, operands, results),
            Family::Reduce => reduce::cost(self, operands, results),
            Family::Shape => shape::cost(self, operands, results),
            Family::Tokens => tokens::cost(self, operands, results),
        }
    }

    /// Appends this operation, applied to `inputs`, as smaller operations; `None` when it is not a semantic one.
    ///
    /// # Errors
    /// [`GraphError::Type`] when `inputs` do not fit the operation.
    pub fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Result<Option<Vec<ValueId>>, GraphError> {
        self.check(graph, inputs)?;
        match self {
            Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax | Op::Mean { .. } => {
                reduce::decompose(self, graph, inputs).map(Some)
            }
            Op::Unary(Unary::Gelu) | Op::GeluGrad => elementwise::decompose(self, graph, inputs).map(Some),
            Op::Tubelets { .. } | Op::PatchEmbed { .. } => tokens::decompose(self, graph, inputs).map(Some),
            Op::Linear => contraction::decompose(graph, inputs).map(Some),
            _ => match self.family() {
                Family::Norm => norm::decompose(self, graph, inputs).map(Some),
                Family::Attention => attention::decompose(self, graph, inputs).map(Some),
                Family::Optimizer => optimizer::decompose(self, graph, inputs).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// True when a gradient rule exists; backward operations and the optimiser have none.
    pub fn differentiable(&self) -> bool {
        let backward =
            matches!(self, Op::GeluGrad | Op::SoftmaxGrad | Op::LayerNormGrad { .. } | Op::AttentionGrad { .. });
        !backward && self.family() != Family::Optimizer
    }

    /// The interpreter rule, on operands of types that [`Op::infer`] accepted.
    pub(crate) fn eval(&self, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
        match self.family() {
            Family::Attention => attention::eval(self, e),
            Family::Contraction => contraction::eval(self, e),
            Family::Elementwise => elementwise::eval(self, e),
            Family::Norm => norm::eval(self, e),
            Family::Optimizer => optimizer::eval(self, e),
            Family::Reduce => reduce::eval(self, e),
            Family::Shape => shape::eval(self, e),
            Family::Tokens => tokens::eval(self, e),
        }
    }

    /// The gradient rule of a [differentiable](Op::differentiable) operation: for each operand its gradient, `None` where
    /// it is zero or not needed.
    pub(crate) fn grad(&self, r: &mut Reverse<'_>) -> Result<Vec<Option<ValueId>>, GraphError> {
        match self.family() {
            Family::Attention => attention::grad(self, r),
            Family::Contraction => contraction::grad(self, r),
            Family::Elementwise => elementwise::grad(self, r),
            Family::Norm => norm::grad(self, r),
            Family::Optimizer => Ok(Vec::new()),
            Family::Reduce => reduce::grad(self, r),
            Family::Shape => shape::grad(self, r),
            Family::Tokens => tokens::grad(self, r),
        }
    }

    /// Fails unless `inputs` exist and fit.
    fn check(&self, graph: &Graph, inputs: &[ValueId]) -> Result<(), GraphError> {
        let mut types = Vec::with_capacity(inputs.len());
        for id in inputs {
            types.push(&graph.values.get(id.0).ok_or(GraphError::UnknownValue(id.0))?.ty);
        }
        self.infer(&types).map(|_| ()).map_err(|source| GraphError::Type { op: self.name(), source })
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

#[cfg(test)]
mod tests;
