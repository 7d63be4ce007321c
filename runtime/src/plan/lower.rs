//! Operations without a kernel, as Burn's own tensor operations. This is what makes a plan run on any back end.

use super::Operand;
use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_backend::{Backend, FloatDType, Scalar as BurnScalar, Shape, Slice, TensorMetadata};
use vjepa_compiler::ir::{Dim, Sizes, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};

/// Whether [`run`] runs this operation.
pub(super) fn is_primitive(op: &Op) -> bool {
    matches!(
        op,
        Op::Unary(_)
            | Op::Binary(_)
            | Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::PowScalar(_)
            | Op::Sum { .. }
            | Op::Mean { .. }
            | Op::Full { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::MatMul { .. }
            | Op::GatherTokens
            | Op::ScatterTokens { .. }
    )
}

/// Runs a primitive operation; `None` for semantic operations, which are decomposed before they get here.
pub(super) fn run<B: Backend>(
    op: &Op,
    operands: Vec<Operand<B>>,
    result: &TensorType,
    sizes: &Sizes,
    device: &burn_backend::tensor::Device<B>,
) -> Option<Operand<B>> {
    let shape = eval_shape(&result.shape, sizes)?;
    if let Op::Full { value, .. } = op {
        let full = B::float_full(shape, scalar(value.eval(sizes)?), device, FloatDType::F32);
        return Some(Operand::Float(full));
    }
    let mut operands = operands.into_iter();
    let first = operands.next()?;
    let x = match (first, op) {
        (Operand::Float(x), _) => x,
        (Operand::Int(x), Op::Reshape { .. }) => return Some(Operand::Int(B::int_reshape(x, shape))),
        (Operand::Int(_), _) => return None,
    };
    let y = match op {
        Op::Unary(function) => unary::<B>(*function, x),
        Op::Binary(function) => {
            let Operand::Float(other) = operands.next()? else { return None };
            let (x, other) = (expand_rank::<B>(x, shape.len()), expand_rank::<B>(other, shape.len()));
            binary::<B>(*function, x, other, device)
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
        Op::Pad { axis, before, after } => pad::<B>(x, *axis, before.eval(sizes)?, after.eval(sizes)?, device),
        Op::Concat { axis } => {
            let mut all = vec![x];
            for operand in operands {
                let Operand::Float(tensor) = operand else { return None };
                all.push(tensor);
            }
            B::float_cat(all, *axis)
        }
        Op::MatMul { ta, tb } => {
            let Operand::Float(other) = operands.next()? else { return None };
            let last = x.shape().len() - 1;
            let flip = |tensor, flip: bool| if flip { B::float_swap_dims(tensor, last - 1, last) } else { tensor };
            let product = B::float_matmul(flip(x, *ta), flip(other, *tb));
            match operands.next() {
                Some(Operand::Float(added)) => B::float_add(product, added),
                Some(Operand::Int(_)) => return None,
                None => product,
            }
        }
        Op::GatherTokens => {
            let Operand::Int(index) = operands.next()? else { return None };
            gather::<B>(x, index, &shape)
        }
        Op::ScatterTokens { .. } => {
            let Operand::Int(index) = operands.next()? else { return None };
            let rows = x.shape();
            let zeros = B::float_zeros(shape, device, FloatDType::F32);
            B::float_scatter_add(1, zeros, row_index::<B>(index, &rows), x)
        }
        _ => return None,
    };
    Some(Operand::Float(y))
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

fn binary<B: Backend>(
    function: Binary,
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    device: &burn_backend::tensor::Device<B>,
) -> FloatTensor<B> {
    match function {
        Binary::Add => B::float_add(a, b),
        Binary::Sub => B::float_sub(a, b),
        Binary::Mul => B::float_mul(a, b),
        Binary::Div => B::float_div(a, b),
        // min(a, b) = b − relu(b − a) would turn ∞ − ∞ into NaN; compare and choose instead.
        Binary::Min | Binary::Max => {
            let shape = broadcast(&a.shape(), &b.shape());
            let (a, b) = (B::float_expand(a, shape.clone()), B::float_expand(b, shape));
            let bools = burn_backend::get_device_settings::<B>(device).bool_dtype;
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

fn pad<B: Backend>(
    x: FloatTensor<B>,
    axis: usize,
    before: usize,
    after: usize,
    device: &burn_backend::tensor::Device<B>,
) -> FloatTensor<B> {
    let zeros = |count: usize| {
        let mut dims = x.shape().to_vec();
        dims[axis] = count;
        B::float_zeros(Shape::from(dims), device, FloatDType::F32)
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
