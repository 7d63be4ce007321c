//! Kernels of the CPU back end: over plain slices of Burn's Flex tensors, on all cores.
//!
//! Which operations have one is decided in one table, [`PlanBackend::kernel`]; `docs/adding-a-kernel.md` walks through one.
//! Matrix products go to the `gemm` crate, which picks AVX-512, AVX2 or NEON at run time; our own loops are compiled for
//! the same instruction sets and dispatched in one place (`simd.rs`). Attention works on blocks of query rows, so no N×N
//! matrix is ever in memory.
//!
//! bf16 is emulated: such values are stored as f32, rounded to bf16 after every operation (`precision.rs`). Products
//! accumulate in f32 as on a GPU; nothing gets faster.

mod attention;
mod contraction;
mod elementwise;
mod head;
mod math;
mod node;
mod norm;
mod optimizer;
mod packed_attention;
mod pool;
mod precision;
mod reduce;
mod roi;
mod rotary;
mod simd;
mod tensor;
mod tiles;
mod tokens;
mod workers;

pub use contraction::square_product;

pub use pool::Pool;
pub use simd::{InstructionSet, SimdError};

use super::backend::{Kernel, KernelError, Operand, PlanBackend, exactly, number, shape_of};
use burn_flex::Flex;
use node::{kernel, reading};
use vjepa_compiler::ops::{Binary, Op, Unary};

impl PlanBackend for Flex {
    type Memory = Pool;

    fn check() -> Result<(), SimdError> {
        InstructionSet::chosen().map(|_| ())
    }

    fn kernel(op: &Op) -> Option<Kernel<'_, Self>> {
        Some(match op {
            Op::Unary(function) => unary(*function)?,
            Op::Binary(function) => binary(*function)?,
            Op::AddScalar(c) => kernel(move |node| {
                let ([x], c) = (node.floats()?, number(c, node.sizes)? as f32);
                Ok(vec![elementwise::map_in_place(x, move |x| x + c, node.pool)])
            }),
            Op::MulScalar(c) => kernel(move |node| {
                let ([x], c) = (node.floats()?, number(c, node.sizes)? as f32);
                Ok(vec![elementwise::map_in_place(x, move |x| x * c, node.pool)])
            }),
            Op::GeluGrad => kernel(|node| {
                let [x, dy] = node.floats()?;
                Ok(vec![elementwise::gelu_grad(x, dy, node.pool)])
            }),
            Op::GeluWithGrad => kernel(|node| {
                let [x, dy] = node.floats()?;
                Ok(elementwise::gelu_with_grad(x, dy, node.pool).into())
            }),
            Op::Cast(dtype) if dtype.is_float() => kernel(|node| Ok(vec![precision::widened(node.any()?)])),
            Op::Sum { axes } => reading(move |operands, node| match operands {
                [x] => Ok(reduce::sum(x, axes, &node.shape)),
                _ => Err(KernelError::Operands { expected: "1", got: operands.len() }),
            }),
            Op::Softmax => kernel(|node| {
                let [x] = node.floats()?;
                Ok(vec![reduce::softmax(x, node.pool)])
            }),
            Op::SoftmaxGrad => kernel(|node| {
                let [y, dy] = node.floats()?;
                Ok(vec![reduce::softmax_grad(&y, dy, node.pool)])
            }),
            Op::LogSoftmax => kernel(|node| {
                let [x] = node.floats()?;
                Ok(vec![reduce::log_softmax(x, node.pool)])
            }),
            Op::SquaredNorm => reading(|operands, _| Ok(reduce::squared_norm(operands))),
            Op::Reshape { .. } => reshape(),
            Op::Concat { axis } => reading(move |parts, node| Ok(tokens::concat(parts, *axis, &node.shape, node.pool))),
            Op::GatherTokens => kernel(|node| {
                let [x, index] = node.floats_and_index()?;
                let y = tokens::gather(&x, &index, &node.shape, node.pool)?;
                [x, index].into_iter().for_each(|operand| node.pool.recycle(operand));
                Ok(vec![y])
            }),
            Op::ScatterTokens { .. } => kernel(|node| {
                let [dy, index] = node.floats_and_index()?;
                let dx = tokens::scatter(&dy, &index, &node.shape, node.pool)?;
                [dy, index].into_iter().for_each(|operand| node.pool.recycle(operand));
                Ok(vec![dx])
            }),
            Op::Tubelets { tubelet, patch } => reading(move |operands, node| match operands {
                [clip] => tokens::tubelets(clip, *tubelet, *patch, &node.shape, node.pool),
                _ => Err(KernelError::Operands { expected: "1", got: operands.len() }),
            }),
            Op::PatchEmbed { tubelet, patch } => reading(move |operands, node| match operands {
                [clip, weight] => tokens::patch_embed([clip, weight], None, (*tubelet, *patch), &node.shape, node.pool),
                [clip, weight, bias] => {
                    tokens::patch_embed([clip, weight], Some(bias), (*tubelet, *patch), &node.shape, node.pool)
                }
                _ => Err(KernelError::Operands { expected: "2 or 3", got: operands.len() }),
            }),
            Op::Dropout { rate, place, axes } => kernel(move |node| {
                let [x, key] = node.floats_and_index()?;
                let axes = node.shape.get(..*axes).unwrap_or(&node.shape);
                let draws = axes.iter().product();
                Ok(vec![elementwise::dropout(x, &key, (*rate, *place), draws, node.pool)?])
            }),
            Op::RoiAlign { sampling, .. } => kernel(move |node| {
                let [x, boxes] = node.floats()?;
                let y = roi::align(&x, &boxes, *sampling, &node.shape, node.pool)?;
                [x, boxes].into_iter().for_each(|operand| node.pool.recycle(operand));
                Ok(vec![y])
            }),
            Op::RoiAlignGrad { sampling, .. } => kernel(move |node| {
                let [dy, boxes] = node.floats()?;
                let dx = roi::align_grad(&dy, &boxes, *sampling, &node.shape, node.pool)?;
                [dy, boxes].into_iter().for_each(|operand| node.pool.recycle(operand));
                Ok(vec![dx])
            }),
            Op::MatMul { ta, tb } => matmul([*ta, *tb]),
            Op::Linear => reading(|operands, node| match operands {
                [x, weight] => contraction::linear(x, weight, None, &node.shape, node.pool),
                [x, weight, bias] => contraction::linear(x, weight, Some(bias), &node.shape, node.pool),
                _ => Err(KernelError::Operands { expected: "2 or 3", got: operands.len() }),
            }),
            Op::LayerNorm { eps } => reading(move |operands, node| match operands {
                [x] => Ok(norm::layer_norm(x, None, *eps, node.pool)),
                [x, weight, bias] => Ok(norm::layer_norm(x, Some([weight, bias]), *eps, node.pool)),
                _ => Err(KernelError::Operands { expected: "1 or 3", got: operands.len() }),
            }),
            Op::LayerNormGrad { eps } => kernel(move |node| {
                let mut operands = node.all_floats()?;
                let weight = if operands.len() == 3 { operands.pop() } else { None };
                let [x, dy] = exactly(operands)?;
                Ok(norm::layer_norm_grad(x, dy, weight, *eps, node.pool))
            }),
            Op::Attention { scale } => reading(move |operands, node| match operands {
                [q, k, v] => attention::forward(q, k, v, *scale, node.pool),
                _ => Err(KernelError::Operands { expected: "3", got: operands.len() }),
            }),
            Op::AttentionGrad { scale } => kernel(move |node| {
                let operands: [_; 5] = node.floats()?;
                let grads = attention::backward(&operands, *scale, node.pool)?;
                operands.into_iter().for_each(|operand| node.pool.recycle(operand));
                Ok(grads)
            }),
            // Sums are for devices: here they are computed with the shares.
            Op::PackedAttention { sums: true, .. } | Op::PackedAttentionGrad { sums: true, .. } => return None,
            Op::PackedAttention { heads, scale, parts, sums: false }
            | Op::PackedAttentionGrad { heads, scale, parts, sums: false } => {
                let back = matches!(op, Op::PackedAttentionGrad { .. });
                reading(move |operands, node| {
                    let call = (*heads, *scale, parts.as_slice(), back);
                    packed_attention::run(operands, call, (&node.shape, node.sizes), node.pool)
                })
            }
            Op::Rotate { transposed } => reading(move |operands, node| match operands {
                [x, table] => rotary::rotate(x, table, *transposed, node.pool),
                _ => Err(KernelError::Operands { expected: "2", got: operands.len() }),
            }),
            Op::AdamW { beta1, beta2, eps } => kernel(move |node| {
                let [p, g, m, v, rates @ ..] = node.floats::<9>()?;
                let rates = optimizer::Rates::new([*beta1, *beta2, *eps], &rates)?;
                Ok(optimizer::adamw([p, g, m, v], rates, None, node.pool))
            }),
            Op::AdamWEma { beta1, beta2, eps } => kernel(move |node| {
                let [p, g, m, v, lr, wd, c1, c2, clip, target, momentum] = node.floats()?;
                let rates = optimizer::Rates::new([*beta1, *beta2, *eps], &[lr, wd, c1, c2, clip])?;
                let momentum = tensor::scalar(&momentum)?;
                Ok(optimizer::adamw([p, g, m, v], rates, Some((target, momentum)), node.pool))
            }),
            Op::Ema => kernel(|node| {
                let [target, p, momentum] = node.floats()?;
                Ok(vec![optimizer::ema(target, &p, tensor::scalar(&momentum)?, node.pool)])
            }),
            // For devices, whose passes make them: here their parts are as fast.
            Op::BiasGelu
            | Op::BiasGeluGrad { .. }
            | Op::NarrowLayerNorm { .. }
            | Op::AddWidened
            | Op::TokenL1 { .. }
            | Op::TokenL1Grad { .. }
            | Op::AdamWAll { .. } => return None,
            // Lowered to Burn's operations.
            Op::Cast(_)
            | Op::PowScalar(_)
            | Op::Mean { .. }
            | Op::ReduceMax { .. }
            | Op::Full { .. }
            | Op::Iota { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. } => return None,
            // The executor's: other processes take part.
            Op::AllReduce | Op::AllReduceStart | Op::AllReduceDone => return None,
        })
    }

    fn recycle(operand: Operand<Self>, pool: &mut Pool) {
        let (Operand::Float(tensor) | Operand::Int(tensor)) = operand;
        pool.recycle(tensor);
    }

    fn spare(len: usize, pool: &mut Pool) -> Option<Vec<f32>> {
        pool.spare(len)
    }

    /// On a thread of the pool that the kernels share: called from outside, each of them would wake a thread and sleep
    /// until it is done.
    fn on_workers<R: Send>(walk: impl FnOnce() -> R + Send) -> R {
        workers::awake(walk)
    }

    fn end_run(pool: &mut Pool) {
        pool.end_run();
    }
}

fn unary(function: Unary) -> Option<Kernel<'static, Flex>> {
    let in_place = |function: fn(f32) -> f32| {
        kernel(move |node| {
            let [x] = node.floats()?;
            Ok(vec![elementwise::map_in_place(x, function, node.pool)])
        })
    };
    Some(match function {
        Unary::Gelu => kernel(|node| {
            let [x] = node.floats()?;
            Ok(vec![elementwise::gelu(x, node.pool)])
        }),
        Unary::Neg => in_place(|x| -x),
        Unary::Abs => in_place(f32::abs),
        Unary::Sign => in_place(elementwise::sign),
        Unary::Exp
        | Unary::Log
        | Unary::Sqrt
        | Unary::Recip
        | Unary::Tanh
        | Unary::Sin
        | Unary::Cos
        | Unary::Erf
        | Unary::Relu
        | Unary::Step => return None,
    })
}

fn binary(function: Binary) -> Option<Kernel<'static, Flex>> {
    // One loop per function, so that each is vectorised.
    macro_rules! zip {
        ($function:expr) => {
            kernel(move |node| {
                let [a, b] = node.floats()?;
                Ok(vec![elementwise::zip(a, b, &node.shape, $function, node.pool)?])
            })
        };
    }
    Some(match function {
        Binary::Add => zip!(|a, b| a + b),
        Binary::Sub => zip!(|a, b| a - b),
        Binary::Mul => zip!(|a, b| a * b),
        Binary::Div => zip!(|a, b| a / b),
        Binary::Min | Binary::Max => return None,
    })
}

/// With a third operand the product is added to it, in its memory.
fn matmul(transposed: [bool; 2]) -> Kernel<'static, Flex> {
    kernel(move |node| {
        let mut operands = node.all_floats()?;
        let addend = if operands.len() == 3 { operands.pop() } else { None };
        let [a, b] = exactly(operands)?;
        let accumulate = addend.is_some();
        let out = match addend {
            Some(addend) => tensor::writable(addend, node.pool),
            None => node.pool.empty(&node.shape),
        };
        let product = contraction::matmul(&a, &b, transposed, out, accumulate)?;
        [a, b].into_iter().for_each(|operand| node.pool.recycle(operand));
        Ok(vec![product])
    })
}

/// A view where the elements lie in order, of floats or of indices.
fn reshape() -> Kernel<'static, Flex> {
    Box::new(|call| {
        let ([operand], [ty]) = (call.operands.as_slice(), call.results) else {
            return Err(KernelError::Operands { expected: "1", got: call.operands.len() });
        };
        let shape = shape_of(ty, call.sizes)?;
        Ok(vec![match operand {
            Operand::Float(x) => Operand::Float(tensor::reshaped(x, &shape)),
            Operand::Int(x) => Operand::Int(tensor::reshaped(x, &shape)),
        }])
    })
}
