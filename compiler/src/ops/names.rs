//! The names of operations in the text form.

use super::{Binary, Op, RoiSampling, Unary};
use crate::ir::{DType, Dim, TensorType};

/// [`Op::name`] and its inverse from one table, which must list every operation to compile.
macro_rules! operations {
    ($($name:literal: $pattern:pat = $prototype:expr;)*) => {
        impl Op {
            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self {
                    Op::Unary(f) => f.name(),
                    Op::Binary(f) => f.name(),
                    $($pattern => $name,)*
                }
            }

            /// The operation of that name, with placeholder attributes.
            pub(crate) fn prototype(name: &str) -> Option<Op> {
                let unary = Unary::ALL.into_iter().find(|f| f.name() == name).map(Op::Unary);
                let binary = || Binary::ALL.into_iter().find(|f| f.name() == name).map(Op::Binary);
                let other = || match name {
                    $($name => Some($prototype),)*
                    _ => None,
                };
                unary.or_else(binary).or_else(other)
            }

            /// Every operation, with placeholder attributes.
            #[cfg(test)]
            pub(crate) fn prototypes() -> Vec<Op> {
                let functions = Unary::ALL.into_iter().map(Op::Unary).chain(Binary::ALL.into_iter().map(Op::Binary));
                functions.chain([$($prototype),*]).collect()
            }
        }
    };
}

operations! {
    "add_scalar": Op::AddScalar(_) = Op::AddScalar(0.0.into());
    "mul_scalar": Op::MulScalar(_) = Op::MulScalar(1.0.into());
    "pow_scalar": Op::PowScalar(_) = Op::PowScalar(1.0);
    "gelu_grad": Op::GeluGrad = Op::GeluGrad;
    "gelu_with_grad": Op::GeluWithGrad = Op::GeluWithGrad;
    "bias_gelu": Op::BiasGelu = Op::BiasGelu;
    "bias_gelu_grad": Op::BiasGeluGrad { result: false } = Op::BiasGeluGrad { result: false };
    "bias_gelu_with_grad": Op::BiasGeluGrad { result: true } = Op::BiasGeluGrad { result: true };
    "cast": Op::Cast(_) = Op::Cast(DType::F32);
    "sum": Op::Sum { .. } = Op::Sum { axes: Vec::new() };
    "mean": Op::Mean { .. } = Op::Mean { axes: Vec::new() };
    "reduce_max": Op::ReduceMax { .. } = Op::ReduceMax { axes: Vec::new() };
    "softmax": Op::Softmax = Op::Softmax;
    "softmax_grad": Op::SoftmaxGrad = Op::SoftmaxGrad;
    "log_softmax": Op::LogSoftmax = Op::LogSoftmax;
    "squared_norm": Op::SquaredNorm = Op::SquaredNorm;
    "full": Op::Full { .. } = Op::Full { value: 0.0.into(), ty: TensorType::f32([]) };
    "iota": Op::Iota { .. } = Op::Iota { size: Dim::from(1usize) };
    "reshape": Op::Reshape { .. } = Op::Reshape { shape: Vec::new() };
    "permute": Op::Permute { .. } = Op::Permute { axes: Vec::new() };
    "broadcast": Op::Broadcast { .. } = Op::Broadcast { shape: Vec::new() };
    "slice": Op::Slice { .. } = Op::Slice { axis: 0, start: Dim::default(), end: Dim::from(1usize) };
    "pad": Op::Pad { .. } = Op::Pad { axis: 0, before: Dim::default(), after: Dim::default() };
    "concat": Op::Concat { .. } = Op::Concat { axis: 0 };
    "gather_tokens": Op::GatherTokens = Op::GatherTokens;
    "scatter_tokens": Op::ScatterTokens { .. } = Op::ScatterTokens { tokens: Dim::from(1usize) };
    "token_l1": Op::TokenL1 { .. } = Op::TokenL1 { eps: 0.0 };
    "token_l1_grad": Op::TokenL1Grad { .. } = Op::TokenL1Grad { eps: 0.0, scale: 1.0.into() };
    "tubelets": Op::Tubelets { .. } = Op::Tubelets { tubelet: 1, patch: 1 };
    "patch_embed": Op::PatchEmbed { .. } = Op::PatchEmbed { tubelet: 1, patch: 1 };
    "roi_align": Op::RoiAlign { .. } =
        Op::RoiAlign { size: 1, sampling: RoiSampling { scale: 1.0, samples: 0, aligned: false } };
    "roi_align_grad": Op::RoiAlignGrad { .. } =
        Op::RoiAlignGrad { shape: Vec::new(), sampling: RoiSampling { scale: 1.0, samples: 0, aligned: false } };
    "dropout": Op::Dropout { .. } = Op::Dropout { rate: 0.0, place: 0, axes: 1 };
    "matmul": Op::MatMul { .. } = Op::MatMul { ta: false, tb: false };
    "linear": Op::Linear = Op::Linear;
    "layer_norm": Op::LayerNorm { .. } = Op::LayerNorm { eps: 0.0 };
    "layer_norm_grad": Op::LayerNormGrad { .. } = Op::LayerNormGrad { eps: 0.0 };
    "narrow_layer_norm": Op::NarrowLayerNorm { .. } = Op::NarrowLayerNorm { eps: 0.0, to: DType::BF16 };
    "add_widened": Op::AddWidened = Op::AddWidened;
    "attention": Op::Attention { .. } = Op::Attention { scale: 1.0 };
    "attention_grad": Op::AttentionGrad { .. } = Op::AttentionGrad { scale: 1.0 };
    "rotate": Op::Rotate { .. } = Op::Rotate { transposed: false };
    "packed_attention": Op::PackedAttention { sums: false, .. } =
        Op::PackedAttention { heads: 1, scale: 1.0, parts: Vec::new(), sums: false };
    "packed_attention_sums": Op::PackedAttention { sums: true, .. } =
        Op::PackedAttention { heads: 1, scale: 1.0, parts: Vec::new(), sums: true };
    "packed_attention_grad": Op::PackedAttentionGrad { sums: false, .. } =
        Op::PackedAttentionGrad { heads: 1, scale: 1.0, parts: Vec::new(), sums: false };
    "packed_attention_grad_sums": Op::PackedAttentionGrad { sums: true, .. } =
        Op::PackedAttentionGrad { heads: 1, scale: 1.0, parts: Vec::new(), sums: true };
    "adamw": Op::AdamW { .. } = Op::AdamW { beta1: 0.0, beta2: 0.0, eps: 0.0 };
    "ema": Op::Ema = Op::Ema;
    "adamw_ema": Op::AdamWEma { .. } = Op::AdamWEma { beta1: 0.0, beta2: 0.0, eps: 0.0 };
    "adamw_all": Op::AdamWAll { average: false, .. } =
        Op::AdamWAll { beta1: 0.0, beta2: 0.0, eps: 0.0, average: false };
    "adamw_ema_all": Op::AdamWAll { average: true, .. } =
        Op::AdamWAll { beta1: 0.0, beta2: 0.0, eps: 0.0, average: true };
    "all_reduce": Op::AllReduce = Op::AllReduce;
    "all_reduce_start": Op::AllReduceStart = Op::AllReduceStart;
    "all_reduce_done": Op::AllReduceDone = Op::AllReduceDone;
}
