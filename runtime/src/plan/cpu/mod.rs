//! Kernels of the CPU back end: over plain slices of Burn's Flex tensors, on all cores.
//!
//! Which operations have one is decided in one table, [`PlanBackend::kernel`], and `kernels.rs` takes the operands of each to
//! its loop; `docs/adding-a-kernel.md` walks through one.
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
mod kernels;
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

use super::backend::{Kernel, Operand, PlanBackend};
use burn_flex::Flex;
use vjepa_compiler::ops::Op;

impl PlanBackend for Flex {
    type Memory = Pool;

    fn check() -> Result<(), SimdError> {
        InstructionSet::chosen().map(|_| ())
    }

    fn kernel(op: &Op) -> Option<Kernel<'_, Self>> {
        Some(match op {
            Op::Unary(function) => kernels::unary(*function)?,
            Op::Binary(function) => kernels::binary(*function)?,
            Op::AddScalar(c) => kernels::add_scalar(c),
            Op::MulScalar(c) => kernels::mul_scalar(c),
            Op::GeluGrad => kernels::gelu_grad(),
            Op::GeluWithGrad => kernels::gelu_with_grad(),
            Op::Cast(dtype) if dtype.is_float() => kernels::widen(),
            Op::Sum { axes } => kernels::sum(axes),
            Op::Softmax => kernels::softmax(),
            Op::SoftmaxGrad => kernels::softmax_grad(),
            Op::LogSoftmax => kernels::log_softmax(),
            Op::SquaredNorm => kernels::squared_norm(),
            Op::Reshape { .. } => kernels::reshape(),
            Op::Concat { axis } => kernels::concat(*axis),
            Op::GatherTokens => kernels::gather_tokens(),
            Op::ScatterTokens { .. } => kernels::scatter_tokens(),
            Op::Tubelets { tubelet, patch } => kernels::tubelets(*tubelet, *patch),
            Op::PatchEmbed { tubelet, patch } => kernels::patch_embed(*tubelet, *patch),
            Op::Dropout { rate, place, axes } => kernels::dropout(*rate, *place, *axes),
            Op::RoiAlign { sampling, .. } => kernels::roi_align(*sampling),
            Op::RoiAlignGrad { sampling, .. } => kernels::roi_align_grad(*sampling),
            Op::MatMul { ta, tb } => kernels::matmul([*ta, *tb]),
            Op::Linear => kernels::linear(),
            Op::LayerNorm { eps } => kernels::layer_norm(*eps),
            Op::LayerNormGrad { eps } => kernels::layer_norm_grad(*eps),
            Op::Attention { scale } => kernels::attention(*scale),
            Op::AttentionGrad { scale } => kernels::attention_grad(*scale),
            // Sums are for devices: here they are computed with the shares.
            Op::PackedAttention { sums: true, .. } | Op::PackedAttentionGrad { sums: true, .. } => return None,
            Op::PackedAttention { heads, scale, parts, sums: false } => {
                kernels::packed_attention(*heads, *scale, parts, false)
            }
            Op::PackedAttentionGrad { heads, scale, parts, sums: false } => {
                kernels::packed_attention(*heads, *scale, parts, true)
            }
            Op::Rotate { transposed } => kernels::rotate(*transposed),
            Op::AdamW { beta1, beta2, eps } => kernels::adamw([*beta1, *beta2, *eps]),
            Op::AdamWEma { beta1, beta2, eps } => kernels::adamw_ema([*beta1, *beta2, *eps]),
            Op::Ema => kernels::ema(),
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
