//! Kernels of our own, written once in CubeCL for every back end.
//!
//! [`kernel`] is the table. They compute in f32: operands of another type are widened, and results narrowed, around them.
//! Operands are made contiguous first. Sums have one order, whatever the device.

mod elementwise;
mod norm;
mod optimizer;

use burn_backend::{DType, Shape, TensorMetadata};
use burn_cubecl::cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise};
use burn_cubecl::kernel::cast;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeRuntime};
use vjepa_compiler::ops::{Op, Unary};
use vjepa_lower::{KernelError, Lowered, Lowering, Operand, exactly};

/// Our kernel for an operation; `None` where Burn's operations compute it.
pub(crate) fn kernel<R: CubeRuntime>(op: &Op) -> Option<Lowering<'_, CubeBackend<R>>> {
    Some(match op {
        Op::Unary(Unary::Gelu) => floats(|operands| {
            let [x] = exactly(operands)?;
            Ok(vec![elementwise::gelu(x)])
        }),
        Op::GeluGrad => floats(|operands| {
            let [x, dy] = exactly(operands)?;
            Ok(vec![elementwise::gelu_grad(x, dy)])
        }),
        Op::GeluWithGrad => floats(|operands| {
            let [x, dy] = exactly(operands)?;
            Ok(elementwise::gelu_with_grad(x, dy).into())
        }),
        Op::LayerNorm { eps } => floats(|operands| match operands.len() {
            1 => {
                let [x] = exactly(operands)?;
                Ok(vec![norm::layer_norm(x, None, *eps as f32)])
            }
            _ => {
                let [x, weight, bias] = exactly(operands)?;
                Ok(vec![norm::layer_norm(x, Some([weight, bias]), *eps as f32)])
            }
        }),
        Op::LayerNormGrad { eps } => floats(|mut operands| {
            let weight = if operands.len() == 3 { operands.pop() } else { None };
            let [x, dy] = exactly(operands)?;
            Ok(norm::layer_norm_grad(x, dy, weight, *eps as f32))
        }),
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
        _ => return None,
    })
}

/// A kernel of floats, which are contiguous and in f32 when it gets them. Its results get the first operand's type.
fn floats<'a, R: CubeRuntime>(
    f: impl Fn(Vec<CubeTensor<R>>) -> Result<Vec<CubeTensor<R>>, KernelError> + 'a,
) -> Lowering<'a, CubeBackend<R>> {
    Box::new(move |node: Lowered<'_, CubeBackend<R>>| {
        let mut dtype = DType::F32;
        let mut tensors = Vec::with_capacity(node.operands.len());
        for (operand, value) in node.operands.into_iter().enumerate() {
            let Operand::Float(tensor) = value else {
                return Err(KernelError::DType { operand, expected: "floats", got: "i32".to_owned() });
            };
            if operand == 0 {
                dtype = tensor.dtype();
            }
            tensors.push(into_contiguous(cast(tensor, DType::F32)));
        }
        Ok(f(tensors)?.into_iter().map(|result| Operand::Float(cast(result, dtype))).collect())
    })
}

/// Memory for a result, beside an operand.
fn empty<R: CubeRuntime>(beside: &CubeTensor<R>, shape: Shape) -> CubeTensor<R> {
    empty_device_contiguous_dtype(beside.client.clone(), beside.device.clone(), shape, DType::F32)
}

/// The tensor to write over: itself where nobody else holds it, else a copy.
fn writable<R: CubeRuntime>(tensor: CubeTensor<R>) -> CubeTensor<R> {
    if tensor.can_mut() { tensor } else { tensor.copy() }
}

/// Elements of a tensor.
fn elements<R: CubeRuntime>(tensor: &CubeTensor<R>) -> usize {
    tensor.meta.num_elements()
}

/// One unit for each of `count` elements.
fn spread<R: CubeRuntime>(tensor: &CubeTensor<R>, count: usize) -> (CubeCount, CubeDim) {
    let dim = CubeDim::new(&tensor.client, count);
    (calculate_cube_count_elemwise(&tensor.client, count, dim), dim)
}
