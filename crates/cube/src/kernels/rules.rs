//! Which of our kernels are chosen over the library's operations, when a graph is planned.
//!
//! The rules are here, one line each; `VJEPA_KERNELS` overrules them for measuring and for telling a kernel's mistake from the
//! plan's: `-attention_grad,+attention` leaves out our kernel of one operation and takes that of another.

use super::attention;
use std::collections::BTreeMap;
use std::sync::OnceLock;
use vjepa_compiler::ir::{DType, TensorType};
use vjepa_compiler::ops::Op;

/// Names of the operations that have a kernel. Those of products are NVIDIA's library, by [`cublaslt`](crate::cublaslt).
const NAMES: [&str; 28] = [
    "gelu",
    "gelu_grad",
    "gelu_with_grad",
    "bias_gelu",
    "bias_gelu_grad",
    "bias_gelu_with_grad",
    "layer_norm",
    "layer_norm_grad",
    "narrow_layer_norm",
    "add_widened",
    "attention",
    "attention_grad",
    "packed_attention",
    "packed_attention_grad",
    "packed_attention_sums",
    "packed_attention_grad_sums",
    "gather_tokens",
    "scatter_tokens",
    "token_l1",
    "token_l1_grad",
    "squared_norm",
    "adamw",
    "adamw_ema",
    "adamw_all",
    "adamw_ema_all",
    "dropout",
    "linear",
    "matmul",
];

/// Operations that only NVIDIA's library computes otherwise than Burn's operations do.
const PRODUCTS: [&str; 2] = ["linear", "matmul"];

/// Whether our kernel of an operation, where there is one, is chosen over the library's operations for operands of these types.
pub fn chooses(op: &Op, operands: &[&TensorType]) -> bool {
    possible(op, operands) && overruled().get(op.name()).copied().unwrap_or_else(|| rule(op, operands))
}

/// Whether products are asked of NVIDIA's library.
#[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "asked by CUDA"))]
pub(crate) fn asks_for_products() -> bool {
    PRODUCTS.iter().any(|name| overruled().get(*name) == Some(&true))
}

fn overruled() -> &'static BTreeMap<String, bool> {
    static OVERRULED: OnceLock<BTreeMap<String, bool>> = OnceLock::new();
    OVERRULED.get_or_init(|| {
        // What is no rule was refused when the device was opened.
        std::env::var("VJEPA_KERNELS").ok().and_then(|text| parse(&text).ok()).unwrap_or_default()
    })
}

/// Whether the kernel can do it at all.
fn possible(op: &Op, operands: &[&TensorType]) -> bool {
    match op {
        Op::Attention { .. }
        | Op::AttentionGrad { .. }
        | Op::PackedAttention { .. }
        | Op::PackedAttentionGrad { .. } => width(op, operands).is_some_and(attention::fits),
        _ => true,
    }
}

fn rule(op: &Op, operands: &[&TensorType]) -> bool {
    match op {
        // The library has no sums of scores for the gradient: it would write all scores to memory for them.
        Op::PackedAttention { sums: true, .. } => true,
        // The library's flash attention has tensor cores for 16-bit types; ours computes in f32.
        Op::Attention { .. } | Op::PackedAttention { .. } => operands.first().is_some_and(|q| q.dtype == DType::F32),
        // The library has no gradient but one that stores all scores.
        Op::AttentionGrad { .. } | Op::PackedAttentionGrad { .. } => true,
        // Until it has been measured on a GPU.
        Op::Linear | Op::MatMul { .. } => false,
        _ => true,
    }
}

/// Width of a head.
fn width(op: &Op, operands: &[&TensorType]) -> Option<usize> {
    let last = usize::try_from(operands.first()?.shape.last()?.as_const()?).ok()?;
    match op {
        Op::PackedAttention { heads, .. } | Op::PackedAttentionGrad { heads, .. } => last.checked_div(3 * heads),
        _ => Some(last),
    }
}

/// The rules of `VJEPA_KERNELS`, or the first word that is none.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, bool>, String> {
    let rule = |word: &str| {
        let name = word.strip_prefix(['-', '+']).filter(|name| NAMES.contains(name));
        name.map(|name| (name.to_owned(), word.starts_with('+'))).ok_or_else(|| word.to_owned())
    };
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(rule).collect()
}

/// What is wrong with `VJEPA_KERNELS` for a back end, in words.
pub(crate) fn mistake(back_end: &str) -> Option<String> {
    wrong(&std::env::var("VJEPA_KERNELS").ok()?, back_end)
}

fn wrong(text: &str, back_end: &str) -> Option<String> {
    match parse(text) {
        Err(word) => {
            Some(format!("`{word}` in VJEPA_KERNELS: write -NAME or +NAME, joined by commas, of {}", NAMES.join(", ")))
        }
        Ok(rules) => {
            let name = PRODUCTS.iter().find(|name| back_end != "cuda" && rules.get(**name) == Some(&true))?;
            Some(format!("`+{name}` in VJEPA_KERNELS is cuBLASLt, which {back_end} does not have: use --device cuda"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vjepa_compiler::ir::Dim;

    #[test]
    fn rules_are_read_and_others_refused() {
        let rules = parse("-attention, +gather_tokens").unwrap();
        assert_eq!(rules, BTreeMap::from([("attention".to_owned(), false), ("gather_tokens".to_owned(), true)]));
        assert_eq!(parse(""), Ok(BTreeMap::new()));
        for word in ["attention", "-convolution", "+"] {
            assert_eq!(parse(&format!("+gelu,{word}")), Err(word.to_owned()));
        }
        assert_eq!(wrong("-linear,+gelu", "wgpu"), None);
        assert_eq!(wrong("+linear", "cuda"), None);
        assert!(wrong("+linear", "wgpu").unwrap().contains("cuBLASLt"));
    }

    #[test]
    fn attention_goes_by_type_and_width() {
        let packed = Op::PackedAttention { heads: 2, scale: 1.0, parts: Vec::new(), sums: false };
        let of = |dtype: DType, columns: usize| TensorType::new(dtype, [Dim::symbol("R"), Dim::from(columns)]);
        assert!(chooses(&packed, &[&of(DType::F32, 3 * 2 * 88)]));
        assert!(!chooses(&packed, &[&of(DType::BF16, 3 * 2 * 88)]));
        assert!(!chooses(&packed, &[&of(DType::F32, 3 * 2 * 512)]));
        let with_sums = Op::PackedAttention { heads: 2, scale: 1.0, parts: Vec::new(), sums: true };
        assert!(chooses(&with_sums, &[&of(DType::BF16, 3 * 2 * 88)]));
        assert!(!chooses(&with_sums, &[&of(DType::BF16, 3 * 2 * 512)]));
    }
}
