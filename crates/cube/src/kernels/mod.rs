//! Kernels of our own, written once in CubeCL for every back end.
//!
//! [`kernel`] is the table, and `rules` says where the library's operations are taken instead. They compute in f32. Those between
//! products read and write 16 bits themselves; operands of the others are widened, and results narrowed, around them. Operands are made
//! contiguous first. Sums have one order, whatever the device.

mod attention;
mod elementwise;
mod many;
mod norm;
mod optimizer;
mod pixels;
mod random;
pub(crate) mod rules;
mod token_l1;
mod tokens;

use attention::Packed;
use burn_backend::cubecl::dtype_to_storage_type;
use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::cubecl::ir::ElemType;
use burn_cubecl::cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};
use burn_cubecl::kernel::cast;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
pub(crate) use pixels::pixels;
use vjepa_compiler::ir::Sizes;
use vjepa_compiler::ops::{Op, Unary};
use vjepa_lower::{KernelError, Lowered, Lowering, Operand, exactly, number, size};

/// Units of the largest work group whose size is fixed: those of `many`; attention has fewer, and norms fit the device.
pub(crate) const LARGEST_CUBE: u32 = many::UNITS as u32;

/// Our kernel for an operation; `None` where Burn's operations compute it.
pub(crate) fn kernel<R: CubeRuntime>(op: &Op) -> Option<Lowering<'_, CubeBackend<R>>> {
    Some(match op {
        Op::Unary(Unary::Gelu) => as_they_are(|operands, _| {
            let [x] = exactly(operands)?;
            Ok(vec![elementwise::gelu(x)])
        }),
        Op::GeluGrad => as_they_are(|operands, _| {
            let [x, dy] = exactly(operands)?;
            Ok(vec![elementwise::gelu_grad(x, dy)])
        }),
        Op::GeluWithGrad => as_they_are(|operands, _| {
            let [x, dy] = exactly(operands)?;
            Ok(elementwise::gelu_with_grad(x, dy).into())
        }),
        Op::BiasGelu => as_they_are(|operands, _| {
            let [x, bias] = exactly(operands)?;
            Ok(vec![elementwise::bias_gelu(x, wide(bias))])
        }),
        Op::BiasGeluGrad { result } => as_they_are(|operands, _| {
            let [x, bias, dy] = exactly(operands)?;
            Ok(elementwise::bias_gelu_grad([x, wide(bias), dy], *result))
        }),
        Op::AddWidened => as_they_are(|operands, _| {
            let [a, b] = exactly(operands)?;
            Ok(vec![elementwise::add(a, b)])
        }),
        Op::LayerNorm { eps } => as_they_are(|operands, _| layer_norm(operands, None, *eps)),
        Op::NarrowLayerNorm { eps, to } => as_they_are(|operands, _| layer_norm(operands, Some(element(*to)), *eps)),
        Op::LayerNormGrad { eps } => as_they_are(|mut operands, _| {
            let weight = if operands.len() == 3 { operands.pop().map(wide) } else { None };
            let [x, dy] = exactly(operands)?;
            Ok(norm::layer_norm_grad(wide(x), dy, weight, *eps as f32))
        }),
        Op::Attention { scale } => as_they_are(|operands, _| Ok(vec![attention::heads(exactly(operands)?, *scale)?])),
        Op::AttentionGrad { scale } => as_they_are(|operands, _| attention::heads_grad(exactly(operands)?, *scale)),
        Op::PackedAttention { heads, scale, parts, sums } => as_they_are(move |mut operands, sizes| {
            let op = Packed { heads: *heads, scale: *scale, parts, sizes };
            let tables: Vec<_> = operands.split_off(operands.len().min(1)).into_iter().map(wide).collect();
            let [qkv] = exactly(operands)?;
            let results = attention::packed(&op, qkv, &tables)?;
            Ok(results.into_iter().take(1 + usize::from(*sums)).collect())
        }),
        Op::PackedAttentionGrad { heads, scale, parts, sums } => as_they_are(move |mut operands, sizes| {
            let op = Packed { heads: *heads, scale: *scale, parts, sizes };
            let tables = operands.split_off(operands.len().min(3 + usize::from(*sums)));
            let tables: Vec<_> = tables.into_iter().map(wide).collect();
            let kept = if *sums { operands.pop() } else { None };
            Ok(vec![attention::packed_grad(&op, exactly(operands)?, kept, &tables)?])
        }),
        Op::GatherTokens => Box::new(|node| tokens_of(node, |x, index, _| tokens::gather(x, index))),
        Op::ScatterTokens { tokens } => {
            Box::new(|node| tokens_of(node, |dy, index, sizes| tokens::scatter(dy, index, size(tokens, sizes)?)))
        }
        Op::TokenL1 { eps } => {
            Box::new(move |node| distances(node, |[y, x], index, _| token_l1::token_l1(y, x, index, *eps, None)))
        }
        Op::TokenL1Grad { eps, scale } => Box::new(move |node| {
            distances(node, |[y, x], index, sizes| token_l1::token_l1(y, x, index, *eps, Some(number(scale, sizes)?)))
        }),
        Op::SquaredNorm => floats(|operands| {
            let got = operands.len();
            let sum = many::squared_norm(&operands).ok_or(KernelError::Operands { expected: "1 or more", got })?;
            Ok(vec![sum])
        }),
        Op::Dropout { rate, place, axes } => {
            Box::new(move |node| tokens_of(node, |x, key, _| Ok(random::dropout(x, key, (*rate, *place, *axes)))))
        }
        Op::Ema => floats(|operands| {
            let [target, p, momentum] = exactly(operands)?;
            Ok(vec![optimizer::ema(target, p, momentum)])
        }),
        Op::AdamW { beta1, beta2, eps } => floats(|operands| {
            let [p, g, m, v, lr, wd, c1, c2, clip] = exactly(operands)?;
            Ok(optimizer::adamw([p, g, m, v], [lr, wd, c1, c2, clip], [*beta1, *beta2, *eps]).into())
        }),
        Op::AdamWEma { beta1, beta2, eps } => floats(|operands| {
            let [p, g, m, v, lr, wd, c1, c2, clip, target, momentum] = exactly(operands)?;
            let [p, m, v] = optimizer::adamw([p, g, m, v], [lr, wd, c1, c2, clip], [*beta1, *beta2, *eps]);
            let target = optimizer::ema(target, p.clone(), momentum);
            Ok(vec![p, m, v, target])
        }),
        Op::AdamWAll { beta1, beta2, eps, average } => {
            floats(|operands| Ok(many::adamw_all(operands, [*beta1, *beta2, *eps], *average)))
        }
        _ => return None,
    })
}

/// A kernel of floats, which are contiguous and in f32 when it gets them.
fn floats<'a, R: CubeRuntime>(
    f: impl Fn(Vec<CubeTensor<R>>) -> Result<Vec<CubeTensor<R>>, KernelError> + 'a,
) -> Lowering<'a, CubeBackend<R>> {
    as_they_are(move |operands, _| f(operands.into_iter().map(wide).collect()))
}

/// A kernel of floats, which are contiguous and in the types they have when it gets them.
fn as_they_are<'a, R: CubeRuntime>(
    f: impl Fn(Vec<CubeTensor<R>>, &Sizes) -> Result<Vec<CubeTensor<R>>, KernelError> + 'a,
) -> Lowering<'a, CubeBackend<R>> {
    Box::new(move |mut node: Lowered<'_, CubeBackend<R>>| {
        let operands = node.all_floats()?.into_iter();
        let tensors = operands.map(into_contiguous).collect();
        let results = f(tensors, node.sizes)?.into_iter().zip(node.results);
        Ok(results.map(|(result, ty)| Operand::Float(cast(result, element(ty.dtype)))).collect())
    })
}

/// In f32, and contiguous: the library may leave room after the rows of what it casts.
fn wide<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    into_contiguous(cast(tensor, DType::F32))
}

/// Layer norm of one operand or three, in the operand's type or another.
fn layer_norm<R: CubeRuntime>(
    mut operands: Vec<CubeTensor<R>>,
    to: Option<DType>,
    eps: f64,
) -> Result<Vec<CubeTensor<R>>, KernelError> {
    let rest = operands.split_off(operands.len().min(1));
    let [x] = exactly(operands)?;
    let affine = if rest.is_empty() { None } else { Some(exactly(rest)?.map(wide)) };
    let to = to.unwrap_or_else(|| x.dtype());
    Ok(vec![norm::layer_norm(x, affine, to, eps as f32)])
}

/// A kernel of floats and integers: indices of tokens, or what numbers are drawn by.
fn tokens_of<R: CubeRuntime>(
    node: Lowered<'_, CubeBackend<R>>,
    f: impl Fn(CubeTensor<R>, CubeTensor<R>, &Sizes) -> Result<CubeTensor<R>, KernelError>,
) -> Result<Vec<Operand<CubeBackend<R>>>, KernelError> {
    let (x, index) = match exactly(node.operands)? {
        [Operand::Float(x), Operand::Int(index)] => (x, index),
        [Operand::Int(_), _] => {
            return Err(KernelError::DType { operand: 0, expected: "floats", got: "i32".to_owned() });
        }
        [_, Operand::Float(_)] => {
            return Err(KernelError::DType { operand: 1, expected: "i32", got: "floats".to_owned() });
        }
    };
    let dtype = x.dtype();
    let y = f(into_contiguous(cast(x, DType::F32)), into_contiguous(cast(index, DType::I32)), node.sizes)?;
    Ok(vec![Operand::Float(cast(y, dtype))])
}

/// A kernel of two tensors of floats and indices of tokens.
fn distances<R: CubeRuntime>(
    node: Lowered<'_, CubeBackend<R>>,
    f: impl Fn([CubeTensor<R>; 2], CubeTensor<R>, &Sizes) -> Result<CubeTensor<R>, KernelError>,
) -> Result<Vec<Operand<CubeBackend<R>>>, KernelError> {
    let [y, x, index] = exactly(node.operands)?;
    let Operand::Float(y) = y else {
        return Err(KernelError::DType { operand: 0, expected: "floats", got: "i32".to_owned() });
    };
    let both = Lowered {
        operands: vec![x, index],
        results: node.results,
        sizes: node.sizes,
        device: node.device,
        largest: node.largest,
    };
    let y = into_contiguous(cast(y, DType::F32));
    tokens_of(both, |x, index, sizes| f([y.clone(), x], index, sizes))
}

/// The library's name of an element type.
fn element(dtype: vjepa_compiler::ir::DType) -> DType {
    use vjepa_compiler::ir::DType as Ours;
    match dtype {
        Ours::F32 => DType::F32,
        Ours::F16 => DType::F16,
        Ours::BF16 => DType::BF16,
        Ours::I32 => DType::I32,
    }
}

/// Memory for a result in f32, beside an operand.
fn empty<R: CubeRuntime>(beside: &CubeTensor<R>, shape: Shape) -> CubeTensor<R> {
    empty_of(beside, shape, DType::F32)
}

/// Memory for a result, beside an operand.
fn empty_of<R: CubeRuntime>(beside: &CubeTensor<R>, shape: Shape, dtype: DType) -> CubeTensor<R> {
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), shape, dtype)
}

/// Memory for a result of the shape and the type of an operand.
fn alike<R: CubeRuntime>(x: &CubeTensor<R>) -> CubeTensor<R> {
    empty_of(x, x.shape(), x.dtype())
}

/// What a kernel is compiled for where it reads or writes a tensor.
fn stored<R: CubeRuntime>(tensor: &CubeTensor<R>) -> ElemType {
    dtype_to_storage_type(tensor.dtype())
}

/// The tensor to write over: itself where nobody else holds it, else a copy.
fn writable<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// Elements of a tensor.
fn elements<R: CubeRuntime>(tensor: &CubeTensor<R>) -> usize {
    tensor.meta.num_elements()
}

/// So many cubes, in as many rows of the grid as the device needs for them; a kernel compares with `CUBE_POS`.
fn cubes<R: CubeRuntime>(tensor: &CubeTensor<R>, count: usize) -> CubeCount {
    let across = count.min(tensor.client.properties().hardware.max_cube_count.0 as usize).max(1);
    CubeCount::Static(across as u32, count.div_ceil(across) as u32, 1)
}

/// One unit for each of `count` elements.
fn spread<R: CubeRuntime>(tensor: &CubeTensor<R>, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&tensor.client, count);
    (calculate_cube_count_elemwise(&tensor.client, count, dim), dim)
}
