//! Kernels of the CPU back end: over plain slices of Burn's Flex tensors, on all cores.
//!
//! Matrix products go to the `gemm` crate, which picks AVX-512, AVX2 or NEON at run time; the loops beside them are
//! compiled for the same instruction sets and chosen in one place (`simd.rs`). Attention works on blocks of query rows, so no
//! N×N matrix is ever in memory.
//!
//! bf16 is emulated: such values lie in f32 storage, rounded to what bf16 holds after every operation (`precision.rs`).
//! Products accumulate in f32 as on a GPU; nothing gets faster.

mod attention;
mod contraction;
mod elementwise;
mod head;
mod math;
mod norm;
mod optimizer;
mod packed_attention;
mod pool;
mod precision;
mod reduce;
mod simd;
mod tensor;
mod tiles;
mod tokens;
mod workers;

pub use contraction::square_product;

pub use pool::Pool;
pub use simd::{InstructionSet, SimdError};

use super::backend::{Operand, PlanBackend};
use burn_flex::{Flex, FlexTensor};
use vjepa_compiler::ir::{Sizes, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};

impl PlanBackend for Flex {
    type Memory = Pool;

    fn check() -> Result<(), SimdError> {
        InstructionSet::chosen().map(|_| ())
    }

    fn has_kernel(op: &Op) -> bool {
        match op {
            Op::Unary(function) => matches!(function, Unary::Gelu | Unary::Neg | Unary::Abs | Unary::Sign),
            Op::Binary(function) => matches!(function, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div),
            Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::GeluGrad
            | Op::GeluWithGrad
            | Op::Sum { .. }
            | Op::Softmax
            | Op::SoftmaxGrad
            | Op::LogSoftmax
            | Op::SquaredNorm
            | Op::Concat { .. }
            | Op::Reshape { .. }
            | Op::GatherTokens
            | Op::ScatterTokens { .. }
            | Op::Tubelets { .. }
            | Op::PatchEmbed { .. }
            | Op::MatMul { .. }
            | Op::Linear
            | Op::LayerNorm { .. }
            | Op::LayerNormGrad { .. }
            | Op::Attention { .. }
            | Op::AttentionGrad { .. }
            | Op::PackedAttention { .. }
            | Op::PackedAttentionGrad { .. }
            | Op::AdamW { .. }
            | Op::Ema
            | Op::AdamWEma { .. } => true,
            Op::Cast(dtype) => dtype.is_float(),
            Op::PowScalar(_)
            | Op::Mean { .. }
            | Op::Full { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. } => false,
        }
    }

    fn kernel(
        op: &Op,
        operands: Vec<Operand<Self>>,
        results: &[&TensorType],
        sizes: &Sizes,
        pool: &mut Pool,
    ) -> Vec<Operand<Self>> {
        if let (Op::Reshape { .. }, Some(operand)) = (op, operands.first()) {
            let shape = tensor::shape_of(results, sizes);
            return vec![match operand {
                Operand::Float(x) => Operand::Float(tensor::reshaped(x, &shape)),
                Operand::Int(x) => Operand::Int(tensor::reshaped(x, &shape)),
            }];
        }
        // Flex has one tensor type for floats and integers; the verifier has checked which is which.
        let operands: Vec<FlexTensor> = operands
            .into_iter()
            .map(|operand| match operand {
                Operand::Float(tensor) | Operand::Int(tensor) => tensor,
            })
            .collect();
        let shape = tensor::shape_of(results, sizes);
        let outputs = match op {
            Op::Unary(_) | Op::Binary(_) | Op::AddScalar(_) | Op::MulScalar(_) | Op::GeluGrad => {
                vec![elementwise::run(op, operands, &shape, sizes, pool)]
            }
            Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax => vec![reduce::softmax(op, operands, pool)],
            Op::GeluWithGrad => elementwise::gelu_with_grad(operands, pool),
            Op::LayerNormGrad { eps } => norm::layer_norm_grad(operands, *eps, pool),
            Op::Cast(_) => operands.into_iter().take(1).map(precision::widened).collect(),
            Op::AdamW { beta1, beta2, eps } | Op::AdamWEma { beta1, beta2, eps } => {
                optimizer::adamw(operands, optimizer::Betas { beta1: *beta1, beta2: *beta2, eps: *eps }, pool)
            }
            Op::MatMul { ta, tb } if operands.len() == 3 => {
                let mut operands = operands.into_iter();
                let (Some(a), Some(b), Some(c)) = (operands.next(), operands.next(), operands.next()) else {
                    return Vec::new();
                };
                let sum = contraction::matmul(&a, &b, [*ta, *tb], tensor::writable(c, pool), true);
                [a, b].into_iter().for_each(|operand| pool.recycle(operand));
                vec![sum]
            }
            Op::Ema => vec![optimizer::ema(operands, pool)],
            Op::PackedAttention { heads, scale, parts } | Op::PackedAttentionGrad { heads, scale, parts } => {
                let outputs = vec![packed_attention::run(&operands, (*heads, *scale, parts), (&shape, sizes), pool)];
                operands.into_iter().for_each(|operand| pool.recycle(operand));
                outputs
            }
            _ => {
                let outputs = read_only(op, &operands, &shape, pool);
                operands.into_iter().for_each(|operand| pool.recycle(operand));
                outputs
            }
        };
        let stored = outputs.into_iter().zip(results).map(|(output, ty)| precision::stored(output, ty.dtype));
        stored.map(Operand::Float).collect()
    }

    fn recycle(operand: Operand<Self>, pool: &mut Pool) {
        let (Operand::Float(tensor) | Operand::Int(tensor)) = operand;
        pool.recycle(tensor);
    }

    /// On a thread of the pool the kernels share: called from outside, every one of them would wake a thread, sleep, and
    /// be woken again.
    fn on_workers<R: Send>(walk: impl FnOnce() -> R + Send) -> R {
        workers::awake(walk)
    }

    fn end_run(pool: &mut Pool) {
        pool.end_run();
    }
}

/// Kernels that write into none of their operands.
fn read_only(op: &Op, operands: &[FlexTensor], shape: &[usize], pool: &mut Pool) -> Vec<FlexTensor> {
    vec![match (op, operands) {
        (Op::Sum { axes }, [x]) => reduce::sum(x, axes, shape),
        (Op::SquaredNorm, parts) => reduce::squared_norm(parts),
        (Op::Concat { axis }, parts) => tokens::concat(parts, *axis, shape, pool),
        (Op::GatherTokens, [x, index]) => tokens::gather(x, index, shape, pool),
        (Op::ScatterTokens { .. }, [x, index]) => tokens::scatter(x, index, shape, pool),
        (Op::Tubelets { tubelet, patch }, [clip]) => tokens::tubelets(clip, *tubelet, *patch, shape, pool),
        (Op::PatchEmbed { tubelet, patch }, _) => tokens::patch_embed(operands, *tubelet, *patch, shape, pool),
        (Op::MatMul { ta, tb }, [a, b]) => contraction::matmul(a, b, [*ta, *tb], pool.empty(shape), false),
        (Op::Linear, [x, weight, bias @ ..]) => contraction::linear(x, weight, bias.first(), shape, pool),
        (Op::LayerNorm { eps }, _) => norm::layer_norm(operands, *eps, pool),
        (Op::Attention { scale }, [q, k, v]) => attention::forward(q, k, v, *scale, pool),
        (Op::AttentionGrad { scale }, _) => return attention::backward(operands, *scale, pool),
        // `has_kernel` is the same list; anything else never gets here.
        _ => return operands.to_vec(),
    }]
}
