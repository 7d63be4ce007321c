//! Operations without a kernel, as Burn's own tensor operations. This is what makes a plan run on any back end.
//!
//! Here are the operations that move data or compute element by element; `semantic.rs` has norms, softmax and linear
//! layers, `attention.rs` attention and its gradient. What is in none of them is decomposed in the IR before it gets here
//! ([`is_lowered`] says which). Element types are the tensors' own: a `cast` makes a bf16 tensor, and products of bf16
//! tensors are bf16.

mod attention;
mod semantic;

use super::Operand;
use burn_backend::tensor::{Device, FloatTensor, IntTensor};
use burn_backend::{Backend, FloatDType, Scalar as BurnScalar, Shape, Slice, TensorMetadata};
use vjepa_compiler::ir::{DType, Dim, Sizes, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};

/// Whether [`run`] runs this operation.
pub(super) fn is_lowered(op: &Op) -> bool {
    match op {
        Op::Cast(dtype) => dtype.is_float(),
        Op::Unary(_)
        | Op::Binary(_)
        | Op::AddScalar(_)
        | Op::MulScalar(_)
        | Op::PowScalar(_)
        | Op::Sum { .. }
        | Op::Mean { .. }
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::LogSoftmax
        | Op::Full { .. }
        | Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Pad { .. }
        | Op::Concat { .. }
        | Op::MatMul { .. }
        | Op::Linear
        | Op::LayerNorm { .. }
        | Op::Attention { .. }
        | Op::AttentionGrad { .. }
        | Op::GatherTokens
        | Op::ScatterTokens { .. } => true,
        _ => false,
    }
}

/// Runs an operation on operands the verifier has checked; `None` for one that is not lowered ([`is_lowered`]).
pub(super) fn run<B: Backend>(
    op: &Op,
    operands: Vec<Operand<B>>,
    results: &[&TensorType],
    sizes: &Sizes,
    device: &Device<B>,
) -> Option<Vec<Operand<B>>> {
    let ty = results.first()?;
    let shape = eval_shape(&ty.shape, sizes)?;
    if let Op::Full { value, .. } = op {
        let full = B::float_full(shape, scalar(value.eval(sizes)?), device, float_dtype(ty.dtype));
        return Some(vec![Operand::Float(full)]);
    }
    let mut index = None;
    let mut floats = Vec::with_capacity(operands.len());
    for operand in operands {
        match operand {
            Operand::Float(tensor) => floats.push(tensor),
            Operand::Int(tensor) => index = Some(tensor),
        }
    }
    if let (Op::Reshape { .. }, Some(index)) = (op, index.take_if(|_| floats.is_empty())) {
        return Some(vec![Operand::Int(B::int_reshape(index, shape))]);
    }
    let results = match op {
        Op::AttentionGrad { scale } => attention::backward::<B>(floats, *scale)?,
        Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax | Op::Linear | Op::LayerNorm { .. } => {
            vec![semantic::run::<B>(op, floats)?]
        }
        Op::Attention { scale } => vec![attention::forward::<B>(floats, *scale)?],
        Op::Concat { axis } => vec![B::float_cat(floats, *axis)],
        _ => vec![primitive::<B>(op, floats, index, shape, sizes)?],
    };
    Some(results.into_iter().map(Operand::Float).collect())
}

fn primitive<B: Backend>(
    op: &Op,
    floats: Vec<FloatTensor<B>>,
    index: Option<IntTensor<B>>,
    shape: Shape,
    sizes: &Sizes,
) -> Option<FloatTensor<B>> {
    let mut floats = floats.into_iter();
    let x = floats.next()?;
    Some(match op {
        Op::Cast(dtype) => B::float_cast(x, float_dtype(*dtype)),
        Op::Unary(function) => unary::<B>(*function, x),
        Op::Binary(function) => {
            let (x, other) = (expand_rank::<B>(x, shape.len()), expand_rank::<B>(floats.next()?, shape.len()));
            binary::<B>(*function, x, other)
        }
        Op::AddScalar(c) => B::float_add_scalar(x, scalar(c.eval(sizes)?)),
        Op::MulScalar(c) => B::float_mul_scalar(x, scalar(c.eval(sizes)?)),
        Op::PowScalar(c) => B::float_powf_scalar(x, scalar(*c)),
        Op::Sum { axes } => axes.iter().fold(x, |x, axis| B::float_sum_dim(x, *axis)),
        Op::Mean { axes } => axes.iter().fold(x, |x, axis| B::float_mean_dim(x, *axis)),
        Op::Reshape { .. } => B::float_reshape(x, shape),
        Op::Permute { axes } => B::float_permute(x, axes),
        Op::Broadcast { .. } => B::float_expand(x, shape),
        Op::Slice { axis, start, end } => slice::<B>(x, *axis, start.eval(sizes)?, end.eval(sizes)?),
        Op::Pad { axis, before, after } => pad::<B>(x, *axis, before.eval(sizes)?, after.eval(sizes)?),
        Op::MatMul { ta, tb } => {
            let flip = |tensor, flip: bool| if flip { transposed::<B>(tensor) } else { tensor };
            let product = B::float_matmul(flip(x, *ta), flip(floats.next()?, *tb));
            match floats.next() {
                Some(added) => B::float_add(product, added),
                None => product,
            }
        }
        Op::GatherTokens => gather::<B>(x, index?, &shape),
        Op::ScatterTokens { .. } => {
            let rows = x.shape();
            let zeros = B::float_zeros(shape, &x.device(), x.dtype().into());
            B::float_scatter_add(1, zeros, row_index::<B>(index?, &rows), x)
        }
        _ => return None,
    })
}

/// Burn's element type; token indices are never asked for.
fn float_dtype(dtype: DType) -> FloatDType {
    match dtype {
        DType::BF16 => FloatDType::BF16,
        DType::F16 => FloatDType::F16,
        DType::F32 | DType::I32 => FloatDType::F32,
    }
}

/// The last two axes swapped, as a view.
fn transposed<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let rank = x.shape().len();
    B::float_swap_dims(x, rank - 2, rank - 1)
}

/// A shape under `sizes`; scalars become `[1]`, since Burn has no rank 0.
pub(super) fn eval_shape(shape: &[Dim], sizes: &Sizes) -> Option<Shape> {
    let mut dims = shape.iter().map(|dim| dim.eval(sizes)).collect::<Option<Vec<usize>>>()?;
    if dims.is_empty() {
        dims.push(1);
    }
    Some(Shape::from(dims))
}

fn scalar(value: f64) -> BurnScalar {
    BurnScalar::Float(value)
}

fn unary<B: Backend>(function: Unary, x: FloatTensor<B>) -> FloatTensor<B> {
    match function {
        Unary::Neg => B::float_neg(x),
        Unary::Abs => B::float_abs(x),
        Unary::Sign => B::float_sign(x),
        Unary::Exp => B::float_exp(x),
        Unary::Log => B::float_log(x),
        Unary::Sqrt => B::float_sqrt(x),
        Unary::Recip => B::float_recip(x),
        Unary::Tanh => B::float_tanh(x),
        Unary::Erf => B::float_erf(x),
        Unary::Relu => B::relu(x),
        // sign(relu(x)) is 1 where x > 0 and 0 elsewhere.
        Unary::Step => B::float_sign(B::relu(x)),
        Unary::Gelu => B::gelu(x),
    }
}

fn binary<B: Backend>(function: Binary, a: FloatTensor<B>, b: FloatTensor<B>) -> FloatTensor<B> {
    match function {
        Binary::Add => B::float_add(a, b),
        Binary::Sub => B::float_sub(a, b),
        Binary::Mul => B::float_mul(a, b),
        Binary::Div => B::float_div(a, b),
        // min(a, b) = b − relu(b − a) would turn ∞ − ∞ into NaN; compare and choose instead.
        Binary::Min | Binary::Max => {
            let shape = broadcast(&a.shape(), &b.shape());
            let (a, b) = (B::float_expand(a, shape.clone()), B::float_expand(b, shape));
            let bools = burn_backend::get_device_settings::<B>(&a.device()).bool_dtype;
            let take_b = match function {
                Binary::Min => B::float_lower(b.clone(), a.clone(), bools),
                _ => B::float_greater(b.clone(), a.clone(), bools),
            };
            B::float_mask_where(a, take_b, b)
        }
    }
}

fn broadcast(a: &Shape, b: &Shape) -> Shape {
    Shape::from(a.iter().zip(b.iter()).map(|(x, y)| (*x).max(*y)).collect::<Vec<_>>())
}

/// Puts axes of size 1 in front until the tensor has `rank` axes.
fn expand_rank<B: Backend>(x: FloatTensor<B>, rank: usize) -> FloatTensor<B> {
    let shape = x.shape();
    if shape.len() >= rank {
        return x;
    }
    let mut dims = vec![1; rank - shape.len()];
    dims.extend(shape.iter());
    B::float_reshape(x, Shape::from(dims))
}

fn slice<B: Backend>(x: FloatTensor<B>, axis: usize, start: usize, end: usize) -> FloatTensor<B> {
    let shape = x.shape();
    let whole = |size: usize| Slice::new(0, Some(size as isize), 1);
    let mut ranges: Vec<Slice> = shape.iter().map(|size| whole(*size)).collect();
    ranges[axis] = Slice::new(start as isize, Some(end as isize), 1);
    B::float_slice(x, &ranges)
}

fn pad<B: Backend>(x: FloatTensor<B>, axis: usize, before: usize, after: usize) -> FloatTensor<B> {
    let zeros = |count: usize| {
        let mut dims = x.shape().to_vec();
        dims[axis] = count;
        B::float_zeros(Shape::from(dims), &x.device(), x.dtype().into())
    };
    let mut parts = Vec::with_capacity(3);
    if before > 0 {
        parts.push(zeros(before));
    }
    let tail = (after > 0).then(|| zeros(after));
    parts.push(x);
    parts.extend(tail);
    B::float_cat(parts, axis)
}

fn gather<B: Backend>(x: FloatTensor<B>, index: IntTensor<B>, result: &Shape) -> FloatTensor<B> {
    let mut source = x.shape().to_vec();
    source[0] = result[0];
    let x = B::float_expand(x, Shape::from(source));
    B::float_gather(1, x, row_index::<B>(index, result))
}

/// `[B, K]` repeated over the features: `[B, K, D]`.
fn row_index<B: Backend>(index: IntTensor<B>, rows: &Shape) -> IntTensor<B> {
    let flat = B::int_reshape(index, Shape::new([rows[0], rows[1], 1]));
    B::int_expand(flat, rows.clone())
}
