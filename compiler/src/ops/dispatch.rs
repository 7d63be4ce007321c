//! Which file holds the rules of an operation, and the rules by name.

use super::{
    Cost, Eval, EvalError, Op, Reverse, TypeError, Unary, attention, contraction, elementwise, norm, optimizer,
    packed_attention, reduce, require, shape, tokens,
};
use crate::interp::Array;
use crate::ir::{Graph, GraphError, TensorType, ValueId};

/// One per file beside this one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Attention,
    Contraction,
    Elementwise,
    Norm,
    Optimizer,
    PackedAttention,
    Reduce,
    Shape,
    Tokens,
}

impl Op {
    /// The file that holds this operation's rules.
    pub(super) fn family(&self) -> Family {
        match self {
            Op::Unary(_)
            | Op::Binary(_)
            | Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::PowScalar(_)
            | Op::GeluGrad
            | Op::GeluWithGrad
            | Op::Cast(_) => Family::Elementwise,
            Op::Sum { .. } | Op::Mean { .. } | Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax | Op::SquaredNorm => {
                Family::Reduce
            }
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
            Op::PackedAttention { .. } | Op::PackedAttentionGrad { .. } => Family::PackedAttention,
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
            Family::PackedAttention => packed_attention::infer(self, operands)?,
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
            Family::PackedAttention => packed_attention::cost(self, operands, results),
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
            Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax | Op::Mean { .. } | Op::SquaredNorm => {
                reduce::decompose(self, graph, inputs).map(Some)
            }
            Op::Unary(Unary::Gelu) | Op::GeluGrad | Op::GeluWithGrad => {
                elementwise::decompose(self, graph, inputs).map(Some)
            }
            Op::Tubelets { .. } | Op::PatchEmbed { .. } => tokens::decompose(self, graph, inputs).map(Some),
            Op::Linear => contraction::decompose(graph, inputs).map(Some),
            _ => match self.family() {
                Family::Norm => norm::decompose(self, graph, inputs).map(Some),
                Family::Attention => attention::decompose(self, graph, inputs).map(Some),
                Family::Optimizer => optimizer::decompose(self, graph, inputs).map(Some),
                Family::PackedAttention => packed_attention::decompose(self, graph, inputs).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// True when a gradient rule exists; backward operations and the optimiser have none.
    pub fn differentiable(&self) -> bool {
        let backward = matches!(
            self,
            Op::GeluGrad
                | Op::GeluWithGrad
                | Op::SoftmaxGrad
                | Op::LayerNormGrad { .. }
                | Op::AttentionGrad { .. }
                | Op::PackedAttentionGrad { .. }
        );
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
            Family::PackedAttention => packed_attention::eval(self, e),
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
            Family::PackedAttention => packed_attention::grad(self, r),
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
