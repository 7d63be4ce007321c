//! Kernels of the CPU back end: over plain slices of Burn's Flex tensors, on all cores.
//!
//! Matrix products go to the `gemm` crate, which picks AVX-512, AVX2 or NEON at run time; the loops beside them are
//! compiled for the same instruction sets and chosen at run time too. Attention works on blocks of query rows, so no
//! N×N matrix is ever in memory.

mod attention;
mod contraction;
mod elementwise;
mod math;
mod norm;
mod optimizer;
mod reduce;
mod tensor;
mod tokens;

pub use contraction::square_product;

use super::backend::{Operand, PlanBackend};
use burn_flex::{Flex, FlexTensor};
use vjepa_compiler::ir::{Sizes, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};

impl PlanBackend for Flex {
    fn has_kernel(op: &Op) -> bool {
        match op {
            Op::Unary(function) => matches!(function, Unary::Gelu | Unary::Neg | Unary::Abs | Unary::Sign),
            Op::Binary(function) => matches!(function, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div),
            Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::GeluGrad
            | Op::Sum { .. }
            | Op::Softmax
            | Op::SoftmaxGrad
            | Op::LogSoftmax
            | Op::Concat { .. }
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
            | Op::AdamW { .. }
            | Op::Ema
            | Op::AdamWEma { .. } => true,
            Op::PowScalar(_)
            | Op::Cast(_)
            | Op::Mean { .. }
            | Op::Full { .. }
            | Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. } => false,
        }
    }

    fn kernel(op: &Op, operands: Vec<Operand<Self>>, results: &[&TensorType], sizes: &Sizes) -> Vec<Operand<Self>> {
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
                vec![elementwise::run(op, operands, &shape, sizes)]
            }
            Op::Sum { axes } => vec![reduce::sum(&operands[0], axes, &shape)],
            Op::Softmax | Op::SoftmaxGrad | Op::LogSoftmax => vec![reduce::softmax(op, operands)],
            Op::Concat { axis } => vec![tokens::concat(&operands, *axis, &shape)],
            Op::GatherTokens => vec![tokens::gather(&operands[0], &operands[1], &shape)],
            Op::ScatterTokens { .. } => vec![tokens::scatter(&operands[0], &operands[1], &shape)],
            Op::Tubelets { tubelet, patch } => vec![tokens::tubelets(&operands[0], *tubelet, *patch, &shape)],
            Op::PatchEmbed { tubelet, patch } => vec![tokens::patch_embed(&operands, *tubelet, *patch, &shape)],
            Op::MatMul { ta, tb } => vec![contraction::matmul(&operands[0], &operands[1], *ta, *tb, &shape)],
            Op::Linear => vec![contraction::linear(&operands[0], &operands[1], operands.get(2), &shape)],
            Op::LayerNorm { eps } => vec![norm::layer_norm(&operands, *eps)],
            Op::LayerNormGrad { eps } => norm::layer_norm_grad(&operands, *eps),
            Op::Attention { scale } => vec![attention::forward(&operands[0], &operands[1], &operands[2], *scale)],
            Op::AttentionGrad { scale } => attention::backward(&operands, *scale),
            Op::AdamW { beta1, beta2, eps } | Op::AdamWEma { beta1, beta2, eps } => {
                optimizer::adamw(operands, optimizer::Betas { beta1: *beta1, beta2: *beta2, eps: *eps })
            }
            Op::Ema => vec![optimizer::ema(operands)],
            // `has_kernel` is the same list; anything else never gets here.
            _ => operands,
        };
        outputs.into_iter().map(Operand::Float).collect()
    }
}
