//! Which family an operation belongs to, and the rules by name.

use super::rules::{Grads, Parts};
use super::{
    Cost, Eval, EvalError, Op, Reverse, TypeError, attention, bias_gelu, contraction, elementwise, mixed, norm,
    optimizer, packed_attention, random, ranks, reduce, require, roi, rotary, shape, token_l1, tokens,
};
use crate::interp::Array;
use crate::ir::{Graph, GraphError, TensorType, ValueId};

/// An operation in the enumeration of the file that holds its rules.
#[derive(Clone, Copy)]
pub(super) enum Family<'a> {
    Attention(attention::Kind),
    BiasGelu(bias_gelu::Kind),
    Contraction(contraction::Kind),
    Elementwise(elementwise::Kind<'a>),
    Mixed(mixed::Kind),
    Norm(norm::Kind),
    Optimizer(optimizer::Kind),
    PackedAttention(packed_attention::Kind<'a>),
    Random(random::Kind),
    Ranks(ranks::Kind),
    Reduce(reduce::Kind<'a>),
    Roi(roi::Kind<'a>),
    Rotary(rotary::Kind),
    Shape(shape::Kind<'a>),
    TokenL1(token_l1::Kind<'a>),
    Tokens(tokens::Kind<'a>),
}

impl Op {
    /// The operation as the file with its rules knows it.
    pub(super) fn family(&self) -> Family<'_> {
        use Family as F;
        match self {
            Op::Unary(f) => F::Elementwise(elementwise::Kind::Unary(*f)),
            Op::Binary(f) => F::Elementwise(elementwise::Kind::Binary(*f)),
            Op::AddScalar(c) => F::Elementwise(elementwise::Kind::AddScalar(c)),
            Op::MulScalar(c) => F::Elementwise(elementwise::Kind::MulScalar(c)),
            Op::PowScalar(c) => F::Elementwise(elementwise::Kind::PowScalar(*c)),
            Op::GeluGrad => F::Elementwise(elementwise::Kind::GeluGrad),
            Op::GeluWithGrad => F::Elementwise(elementwise::Kind::GeluWithGrad),
            Op::BiasGelu => F::BiasGelu(bias_gelu::Kind::Forward),
            Op::BiasGeluGrad { result } => F::BiasGelu(bias_gelu::Kind::Backward { result: *result }),
            Op::Cast(dtype) => F::Elementwise(elementwise::Kind::Cast(*dtype)),
            Op::Sum { axes } => F::Reduce(reduce::Kind::Sum(axes)),
            Op::Mean { axes } => F::Reduce(reduce::Kind::Mean(axes)),
            Op::ReduceMax { axes } => F::Reduce(reduce::Kind::Max(axes)),
            Op::Softmax => F::Reduce(reduce::Kind::Softmax),
            Op::SoftmaxGrad => F::Reduce(reduce::Kind::SoftmaxGrad),
            Op::LogSoftmax => F::Reduce(reduce::Kind::LogSoftmax),
            Op::SquaredNorm => F::Reduce(reduce::Kind::SquaredNorm),
            Op::Full { value, ty } => F::Shape(shape::Kind::Full(value, ty)),
            Op::Iota { size } => F::Shape(shape::Kind::Iota(size)),
            Op::Reshape { shape } => F::Shape(shape::Kind::Reshape(shape)),
            Op::Permute { axes } => F::Shape(shape::Kind::Permute(axes)),
            Op::Broadcast { shape } => F::Shape(shape::Kind::Broadcast(shape)),
            Op::Slice { axis, start, end } => F::Shape(shape::Kind::Slice { axis: *axis, start, end }),
            Op::Pad { axis, before, after } => F::Shape(shape::Kind::Pad { axis: *axis, before, after }),
            Op::Concat { axis } => F::Shape(shape::Kind::Concat(*axis)),
            Op::GatherTokens => F::Tokens(tokens::Kind::Gather),
            Op::ScatterTokens { tokens } => F::Tokens(tokens::Kind::Scatter(tokens)),
            Op::TokenL1 { eps } => F::TokenL1(token_l1::Kind::Forward { eps: *eps }),
            Op::TokenL1Grad { eps, scale } => F::TokenL1(token_l1::Kind::Backward { eps: *eps, scale }),
            Op::Tubelets { tubelet, patch } => {
                F::Tokens(tokens::Kind::Tubelets(tokens::Grid { tubelet: *tubelet, patch: *patch }))
            }
            Op::PatchEmbed { tubelet, patch } => {
                F::Tokens(tokens::Kind::PatchEmbed(tokens::Grid { tubelet: *tubelet, patch: *patch }))
            }
            Op::Dropout { rate, place, axes } => F::Random(random::Kind { rate: *rate, place: *place, axes: *axes }),
            Op::RoiAlign { size, sampling } => F::Roi(roi::Kind::Align { size: *size, sampling: *sampling }),
            Op::RoiAlignGrad { shape, sampling } => F::Roi(roi::Kind::Grad { shape, sampling: *sampling }),
            Op::MatMul { ta, tb } => F::Contraction(contraction::Kind::MatMul { ta: *ta, tb: *tb }),
            Op::Linear => F::Contraction(contraction::Kind::Linear),
            Op::LayerNorm { eps } => F::Norm(norm::Kind::Forward { eps: *eps }),
            Op::LayerNormGrad { eps } => F::Norm(norm::Kind::Backward { eps: *eps }),
            Op::NarrowLayerNorm { eps, to } => F::Mixed(mixed::Kind::Norm { eps: *eps, to: *to }),
            Op::AddWidened => F::Mixed(mixed::Kind::Add),
            Op::Attention { scale } => F::Attention(attention::Kind::Forward { scale: *scale }),
            Op::AttentionGrad { scale } => F::Attention(attention::Kind::Backward { scale: *scale }),
            Op::PackedAttention { heads, scale, parts, sums } => F::PackedAttention(packed_attention::Kind {
                backward: false,
                heads: *heads,
                scale: *scale,
                parts,
                sums: *sums,
            }),
            Op::PackedAttentionGrad { heads, scale, parts, sums } => F::PackedAttention(packed_attention::Kind {
                backward: true,
                heads: *heads,
                scale: *scale,
                parts,
                sums: *sums,
            }),
            Op::Rotate { transposed } => F::Rotary(rotary::Kind { transposed: *transposed }),
            Op::AdamW { beta1, beta2, eps } => {
                F::Optimizer(optimizer::Kind::AdamW(optimizer::Constants { beta1: *beta1, beta2: *beta2, eps: *eps }))
            }
            Op::Ema => F::Optimizer(optimizer::Kind::Ema),
            Op::AdamWEma { beta1, beta2, eps } => F::Optimizer(optimizer::Kind::AdamWEma(optimizer::Constants {
                beta1: *beta1,
                beta2: *beta2,
                eps: *eps,
            })),
            Op::AdamWAll { beta1, beta2, eps, average } => F::Optimizer(optimizer::Kind::All {
                constants: optimizer::Constants { beta1: *beta1, beta2: *beta2, eps: *eps },
                average: *average,
            }),
            Op::AllReduce => F::Ranks(ranks::Kind::Whole),
            Op::AllReduceStart => F::Ranks(ranks::Kind::Start),
            Op::AllReduceDone => F::Ranks(ranks::Kind::Done),
        }
    }

    /// Whether other ranks take part: an executor hands its operands over instead of running a kernel.
    pub fn is_over_ranks(&self) -> bool {
        matches!(self.family(), Family::Ranks(_))
    }

    /// Whether the operation's arithmetic is matrix products.
    pub fn is_product(&self) -> bool {
        match self.family() {
            Family::Attention(_) | Family::Contraction(_) | Family::PackedAttention(_) => true,
            Family::Tokens(op) => op.is_product(),
            Family::BiasGelu(_)
            | Family::Elementwise(_)
            | Family::Mixed(_)
            | Family::Norm(_)
            | Family::Optimizer(_)
            | Family::Random(_)
            | Family::Ranks(_)
            | Family::Reduce(_)
            | Family::Roi(_)
            | Family::Rotary(_)
            | Family::Shape(_)
            | Family::TokenL1(_) => false,
        }
    }

    /// Result types for operands of these types.
    ///
    /// # Errors
    /// [`TypeError`] says which operand does not fit and why.
    pub fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
        let results = match self.family() {
            Family::Attention(op) => attention::infer(op, operands)?,
            Family::BiasGelu(op) => bias_gelu::infer(op, operands)?,
            Family::Contraction(op) => contraction::infer(op, operands)?,
            Family::Elementwise(op) => elementwise::infer(op, operands)?,
            Family::Mixed(op) => mixed::infer(op, operands)?,
            Family::Norm(op) => norm::infer(op, operands)?,
            Family::Optimizer(op) => optimizer::infer(op, operands)?,
            Family::PackedAttention(op) => packed_attention::infer(op, operands)?,
            Family::Random(op) => random::infer(op, operands)?,
            Family::Ranks(_) => ranks::infer(operands)?,
            Family::Reduce(op) => reduce::infer(op, operands)?,
            Family::Roi(op) => roi::infer(op, operands)?,
            Family::Rotary(_) => rotary::infer(operands)?,
            Family::Shape(op) => shape::infer(op, operands)?,
            Family::TokenL1(op) => token_l1::infer(op, operands)?,
            Family::Tokens(op) => tokens::infer(op, operands)?,
        };
        require(results.iter().all(TensorType::is_tame), || "the result's shape is too complicated".to_owned())?;
        Ok(results)
    }

    /// Arithmetic and memory traffic, given the types of operands and results (as [`Op::infer`] accepts and returns them).
    pub fn cost(&self, operands: &[&TensorType], results: &[&TensorType]) -> Cost {
        match self.family() {
            Family::Attention(op) => attention::cost(op, operands, results),
            Family::BiasGelu(op) => bias_gelu::cost(op, operands, results),
            Family::Contraction(op) => contraction::cost(op, operands, results),
            Family::Elementwise(op) => elementwise::cost(op, operands, results),
            Family::Mixed(op) => mixed::cost(op, operands, results),
            Family::Norm(op) => norm::cost(op, operands, results),
            Family::Optimizer(op) => optimizer::cost(op, operands, results),
            Family::PackedAttention(op) => packed_attention::cost(op, operands, results),
            Family::Random(op) => random::cost(op, operands, results),
            Family::Ranks(op) => ranks::cost(op, operands, results),
            Family::Reduce(op) => reduce::cost(op, operands, results),
            Family::Roi(op) => roi::cost(op, operands, results),
            Family::Rotary(_) => rotary::cost(operands, results),
            Family::Shape(op) => shape::cost(op, operands, results),
            Family::TokenL1(_) => token_l1::cost(operands, results),
            Family::Tokens(op) => tokens::cost(op, operands, results),
        }
    }

    /// Appends this operation, applied to `inputs`, as smaller operations; `None` when it has no smaller parts.
    ///
    /// # Errors
    /// [`GraphError::Type`] when `inputs` do not fit the operation.
    pub fn decompose(&self, graph: &mut Graph, inputs: &[ValueId]) -> Result<Parts, GraphError> {
        self.check(graph, inputs)?;
        match self.family() {
            Family::Attention(op) => attention::decompose(op, graph, inputs),
            Family::BiasGelu(op) => bias_gelu::decompose(op, graph, inputs),
            Family::Contraction(op) => contraction::decompose(op, graph, inputs),
            Family::Elementwise(op) => elementwise::decompose(op, graph, inputs),
            Family::Mixed(op) => mixed::decompose(op, graph, inputs),
            Family::Norm(op) => norm::decompose(op, graph, inputs),
            Family::Optimizer(op) => optimizer::decompose(op, graph, inputs),
            Family::PackedAttention(op) => packed_attention::decompose(op, graph, inputs),
            Family::Random(op) => Ok(random::decompose(op)),
            Family::Ranks(op) => Ok(ranks::decompose(op)),
            Family::Reduce(op) => reduce::decompose(op, graph, inputs),
            Family::Roi(op) => Ok(roi::decompose(op)),
            Family::Rotary(op) => rotary::decompose(op, graph, inputs),
            Family::Shape(op) => shape::decompose(op),
            Family::TokenL1(op) => token_l1::decompose(op, graph, inputs),
            Family::Tokens(op) => tokens::decompose(op, graph, inputs),
        }
    }

    /// The interpreter rule, on operands of types that [`Op::infer`] accepted.
    pub(crate) fn eval(&self, e: &Eval<'_>) -> Result<Vec<Array>, EvalError> {
        match self.family() {
            Family::Attention(op) => attention::eval(op, e),
            Family::BiasGelu(op) => bias_gelu::eval(op, e),
            Family::Contraction(op) => contraction::eval(op, e),
            Family::Elementwise(op) => elementwise::eval(op, e),
            Family::Mixed(op) => mixed::eval(op, e),
            Family::Norm(op) => norm::eval(op, e),
            Family::Optimizer(op) => optimizer::eval(op, e),
            Family::PackedAttention(op) => packed_attention::eval(op, e),
            Family::Random(op) => random::eval(op, e),
            Family::Ranks(_) => Ok(ranks::eval(e)),
            Family::Reduce(op) => reduce::eval(op, e),
            Family::Roi(op) => roi::eval(op, e),
            Family::Rotary(op) => Ok(rotary::eval(op, e)),
            Family::Shape(op) => shape::eval(op, e),
            Family::TokenL1(op) => token_l1::eval(op, e),
            Family::Tokens(op) => tokens::eval(op, e),
        }
    }

    /// The gradient rule: the gradient of each operand, `None` where it is zero or not needed. `None` as a whole, and
    /// nothing appended, for an operation without one: backward operations and the optimiser.
    pub(crate) fn grad(&self, r: &mut Reverse<'_>) -> Result<Grads, GraphError> {
        match self.family() {
            Family::Attention(op) => attention::grad(op, r),
            Family::BiasGelu(op) => Ok(bias_gelu::grad(op)),
            Family::Contraction(op) => contraction::grad(op, r),
            Family::Elementwise(op) => elementwise::grad(op, r),
            Family::Mixed(op) => Ok(mixed::grad(op)),
            Family::Norm(op) => norm::grad(op, r),
            Family::Optimizer(op) => Ok(optimizer::grad(op)),
            Family::PackedAttention(op) => packed_attention::grad(op, r),
            Family::Random(op) => random::grad(op, r),
            Family::Ranks(op) => Ok(ranks::grad(op)),
            Family::Reduce(op) => reduce::grad(op, r),
            Family::Roi(op) => roi::grad(op, r),
            Family::Rotary(op) => rotary::grad(op, r),
            Family::Shape(op) => shape::grad(op, r),
            Family::TokenL1(op) => Ok(token_l1::grad(op)),
            Family::Tokens(op) => tokens::grad(op, r),
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
