//! Operations without a kernel, as Burn's own tensor operations. This is what makes a plan run on any back end.
//!
//! [`lowering`] is the table: operations that move data or compute element by element are here, `semantic.rs` has norms,
//! softmax and linear layers, `attention.rs` attention and its gradient, `reduce.rs` sums and maxima, `boxes.rs` RoIAlign, `random.rs` dropout. Operations that are in none of them are decomposed
//! in the IR first. Element types are the tensors' own: a `cast` makes a bf16 tensor, and products of bf16 tensors are bf16.

#![warn(missing_docs)]

mod attention;
mod boxes;
mod operand;
mod random;
mod reduce;
mod semantic;

pub use operand::{KernelError, Operand, exactly, number, read_floats, read_indices, shape_of, size};

use burn_backend::tensor::{BoolTensor, Device, FloatTensor, IntTensor};
use burn_backend::{Backend, BoolDType, FloatDType, Scalar as BurnScalar, Shape, Slice, TensorData, TensorMetadata};
use vjepa_compiler::ir::{DType, Sizes, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};

/// Arguments of a lowering: the operands, and the types of the results under the sizes of the run.
pub struct Lowered<'a, B: Backend> {
    /// The operands, in the operation's order.
    pub operands: Vec<Operand<B>>,
    /// Types of the results.
    pub results: &'a [&'a TensorType],
    /// Sizes of the symbols.
    pub sizes: &'a Sizes,
    /// Where results are made that have no operand.
    pub device: &'a Device<B>,
    /// Bytes of the largest buffer the device can have; intermediate results are made in parts where they would be larger.
    pub largest: u64,
}

/// Runs an operation, whose attributes it holds, as Burn's.
pub type Lowering<'a, B> = Box<dyn Fn(Lowered<'_, B>) -> Result<Vec<Operand<B>>, KernelError> + 'a>;

/// How Burn runs this operation; `None` for one that it has no operations for.
pub fn lowering<B: Backend>(op: &Op) -> Option<Lowering<'_, B>> {
    Some(match op {
        Op::Full { value, .. } => Box::new(move |node| {
            let ty = node.first()?;
            let (shape, value) = (Shape::from(shape_of(ty, node.sizes)?), number(value, node.sizes)?);
            Ok(vec![Operand::Float(B::float_full(shape, scalar(value), node.device, float_dtype(ty.dtype)))])
        }),
        Op::Iota { size: count } => Box::new(move |node| {
            let count = size(count, node.sizes)?;
            let numbers: Vec<f32> = (0..count).map(|i| i as f32).collect();
            Ok(vec![Operand::Float(B::float_from_data(TensorData::new(numbers, [count]), node.device))])
        }),
        Op::Reshape { .. } => Box::new(|mut node| {
            let shape = node.shape()?;
            Ok(vec![match node.one()? {
                Operand::Float(x) => Operand::Float(B::float_reshape(x, shape)),
                Operand::Int(x) => Operand::Int(B::int_reshape(x, shape)),
            }])
        }),
        Op::Cast(dtype) if dtype.is_float() => single(move |x, _| Ok(B::float_cast(x, float_dtype(*dtype)))),
        // Burn has no float type of integers.
        Op::Cast(_) => return None,
        Op::Unary(function) => single(|x, _| Ok(unary::<B>(*function, x))),
        Op::Binary(function) => Box::new(move |mut node| {
            let rank = node.shape()?.len();
            let [a, b] = node.floats()?.map(|x| expand_rank::<B>(x, rank));
            one(binary::<B>(*function, a, b))
        }),
        Op::AddScalar(c) => single(move |x, node| Ok(B::float_add_scalar(x, scalar(number(c, node.sizes)?)))),
        Op::MulScalar(c) => single(move |x, node| Ok(B::float_mul_scalar(x, scalar(number(c, node.sizes)?)))),
        Op::PowScalar(c) => single(move |x, _| Ok(B::float_powf_scalar(x, scalar(*c)))),
        Op::Sum { axes } => single(move |x, _| Ok(reduce::sum::<B>(x, axes))),
        Op::Mean { axes } => single(move |x, _| Ok(reduce::mean::<B>(x, axes))),
        Op::ReduceMax { axes } => single(move |x, node| Ok(reduce::largest::<B>(x, axes, node.shape()?))),
        Op::Permute { axes } => single(move |x, _| Ok(B::float_permute(x, axes))),
        Op::Broadcast { .. } => single(|x, node| Ok(B::float_expand(x, node.shape()?))),
        Op::Slice { axis, start, end } => {
            single(move |x, node| Ok(slice::<B>(x, *axis, size(start, node.sizes)?, size(end, node.sizes)?)))
        }
        Op::Pad { axis, before, after } => {
            single(move |x, node| Ok(pad::<B>(x, *axis, size(before, node.sizes)?, size(after, node.sizes)?)))
        }
        Op::Concat { axis } => Box::new(move |mut node| one(B::float_cat(node.all_floats()?, *axis))),
        Op::GatherTokens => Box::new(|mut node| {
            let shape = node.shape()?;
            let (x, index) = node.float_and_index()?;
            one(gather::<B>(x, index, &shape))
        }),
        Op::ScatterTokens { .. } => Box::new(|mut node| {
            let shape = node.shape()?;
            let (x, index) = node.float_and_index()?;
            let rows = x.shape();
            let zeros = B::float_zeros(shape, &x.device(), x.dtype().into());
            one(B::float_scatter_add(1, zeros, row_index::<B>(index, &rows), x))
        }),
        Op::MatMul { ta, tb } => Box::new(move |mut node| {
            let ([a, b], addend) = node.floats_and_one::<2>()?;
            let flip = |tensor, flip: bool| if flip { transposed::<B>(tensor) } else { tensor };
            let product = B::float_matmul(flip(a, *ta), flip(b, *tb));
            one(match addend {
                Some(addend) => B::float_add(product, addend),
                None => product,
            })
        }),
        Op::Linear => Box::new(|mut node| {
            let ([x, weight], bias) = node.floats_and_one()?;
            one(B::linear(x, transposed::<B>(weight), bias))
        }),
        Op::Softmax => single(|x, _| Ok(semantic::in_f32::<B>(x, semantic::softmax::<B>))),
        Op::LogSoftmax => single(|x, _| Ok(semantic::in_f32::<B>(x, semantic::log_softmax::<B>))),
        Op::SoftmaxGrad => Box::new(|mut node| {
            let [y, dy] = node.floats()?;
            let dtype = y.dtype();
            let dx = semantic::softmax_grad::<B>(semantic::to_f32::<B>(y), semantic::to_f32::<B>(dy));
            one(B::float_cast(dx, dtype.into()))
        }),
        Op::LayerNorm { eps } => Box::new(move |mut node| {
            let mut operands = node.all_floats()?.into_iter();
            let got = operands.len();
            match (operands.next(), operands.next()) {
                (Some(x), Some(weight)) => one(B::layer_norm(x, weight, operands.next(), *eps)),
                (Some(x), None) => one(semantic::normalised::<B>(x, *eps)),
                (None, _) => Err(KernelError::Operands { expected: "1 or 3", got }),
            }
        }),
        Op::Attention { scale } => Box::new(move |mut node| one(attention::forward::<B>(node.floats()?, *scale, node.largest)?)),
        Op::AttentionGrad { scale } => Box::new(move |mut node| {
            let grads = attention::backward::<B>(node.floats()?, *scale, node.largest)?;
            Ok(grads.into_iter().map(Operand::Float).collect())
        }),
        Op::Dropout { rate, place, axes } => Box::new(move |mut node| {
            let (x, key) = node.float_and_index()?;
            one(random::dropout::<B>(x, key, (*rate, *place, *axes))?)
        }),
        Op::RoiAlign { size, sampling } => {
            Box::new(move |mut node| one(boxes::align::<B>(node.floats()?, (*sampling, *size), node.largest)?))
        }
        Op::RoiAlignGrad { sampling, .. } => Box::new(move |mut node| {
            let shape = node.shape()?;
            one(boxes::align_grad::<B>(node.floats()?, *sampling, &shape, node.largest)?)
        }),
        // Decomposed.
        Op::GeluGrad
        | Op::GeluWithGrad
        | Op::BiasGelu
        | Op::BiasGeluGrad { .. }
        | Op::NarrowLayerNorm { .. }
        | Op::AddWidened
        | Op::TokenL1 { .. }
        | Op::TokenL1Grad { .. }
        | Op::SquaredNorm
        | Op::Tubelets { .. }
        | Op::PatchEmbed { .. }
        | Op::LayerNormGrad { .. }
        | Op::Rotate { .. }
        | Op::PackedAttention { .. }
        | Op::PackedAttentionGrad { .. }
        | Op::AdamW { .. }
        | Op::Ema
        | Op::AdamWEma { .. }
        | Op::AdamWAll { .. }
        // The executor's: other processes take part.
        | Op::AllReduce
        | Op::AllReduceStart
        | Op::AllReduceDone => return None,
    })
}

/// Float operands that an operation always has, and one that it may have.
type FloatsAndOne<B, const N: usize> = ([FloatTensor<B>; N], Option<FloatTensor<B>>);

/// A lowering of one float operand to one result.
fn single<'a, B: Backend>(
    f: impl Fn(FloatTensor<B>, &Lowered<'_, B>) -> Result<FloatTensor<B>, KernelError> + 'a,
) -> Lowering<'a, B> {
    Box::new(move |mut node| {
        let [x] = node.floats()?;
        one(f(x, &node)?)
    })
}

fn one<B: Backend>(result: FloatTensor<B>) -> Result<Vec<Operand<B>>, KernelError> {
    Ok(vec![Operand::Float(result)])
}

impl<B: Backend> Lowered<'_, B> {
    fn first(&self) -> Result<&TensorType, KernelError> {
        self.results.first().copied().ok_or(KernelError::Results { expected: 0, got: 1 })
    }

    /// Shape of the first result.
    fn shape(&self) -> Result<Shape, KernelError> {
        Ok(Shape::from(shape_of(self.first()?, self.sizes)?))
    }

    fn one(&mut self) -> Result<Operand<B>, KernelError> {
        let [operand] = exactly(std::mem::take(&mut self.operands))?;
        Ok(operand)
    }

    /// The operands, however many, all floats.
    ///
    /// # Errors
    /// [`KernelError::DType`].
    pub fn all_floats(&mut self) -> Result<Vec<FloatTensor<B>>, KernelError> {
        let operands = std::mem::take(&mut self.operands).into_iter().enumerate();
        let float = |(position, operand)| match operand {
            Operand::Float(tensor) => Ok(tensor),
            Operand::Int(_) => Err(KernelError::DType { operand: position, expected: "floats", got: "i32".to_owned() }),
        };
        operands.map(float).collect()
    }

    /// The operands, which must be this many, all floats.
    fn floats<const N: usize>(&mut self) -> Result<[FloatTensor<B>; N], KernelError> {
        exactly(self.all_floats()?)
    }

    /// This many operands and perhaps another, all floats.
    ///
    /// # Errors
    /// [`KernelError::Operands`], [`KernelError::DType`].
    pub fn floats_and_one<const N: usize>(&mut self) -> Result<FloatsAndOne<B, N>, KernelError> {
        let mut operands = self.all_floats()?;
        let last = if operands.len() > N { operands.pop() } else { None };
        Ok((exactly(operands)?, last))
    }

    fn float_and_index(&mut self) -> Result<(FloatTensor<B>, IntTensor<B>), KernelError> {
        match exactly(std::mem::take(&mut self.operands))? {
            [Operand::Float(x), Operand::Int(index)] => Ok((x, index)),
            [Operand::Int(_), _] => Err(KernelError::DType { operand: 0, expected: "floats", got: "i32".to_owned() }),
            [_, Operand::Float(_)] => Err(KernelError::DType { operand: 1, expected: "i32", got: "floats".to_owned() }),
        }
    }
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
        Unary::Sin => B::float_sin(x),
        Unary::Cos => B::float_cos(x),
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
        Binary::Min => choose::<B>(a, b, |b, a, bools| B::float_lower(b, a, bools)),
        Binary::Max => choose::<B>(a, b, |b, a, bools| B::float_greater(b, a, bools)),
    }
}

/// `b` where `take_b(b, a)`, else `a`. (min(a, b) = b − relu(b − a) would turn ∞ − ∞ into NaN.)
fn choose<B: Backend>(
    a: FloatTensor<B>,
    b: FloatTensor<B>,
    take_b: impl Fn(FloatTensor<B>, FloatTensor<B>, BoolDType) -> BoolTensor<B>,
) -> FloatTensor<B> {
    let shape = broadcast(&a.shape(), &b.shape());
    let (a, b) = (B::float_expand(a, shape.clone()), B::float_expand(b, shape));
    let bools = burn_backend::get_device_settings::<B>(&a.device()).bool_dtype;
    let mask = take_b(b.clone(), a.clone(), bools);
    B::float_mask_where(a, mask, b)
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
