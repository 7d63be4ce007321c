//! Operations on token sequences and clips.

use super::{Op, TypeError, arity, require};
use crate::ir::{DType, Dim, TensorType};

pub(super) fn infer(op: &Op, operands: &[&TensorType]) -> Result<Vec<TensorType>, TypeError> {
    match op {
        Op::GatherTokens | Op::ScatterTokens { .. } => {
            arity(operands, 2, 2, "2")?;
            let (x, index) = (operands[0], operands[1]);
            require(x.rank() == 3 && index.rank() == 2 && index.dtype == DType::I32, || {
                format!("needs tokens [B, N, D] and an index i32[B, K], got {x} and {index}")
            })?;
            let shared = matches!(op, Op::GatherTokens) && x.shape[0].is_one();
            require(shared || x.shape[0] == index.shape[0], || format!("batches of {x} and {index} differ"))?;
            let tokens = match op {
                Op::ScatterTokens { tokens } => {
                    require(x.shape[1] == index.shape[1], || format!("{x} and {index} differ in length"))?;
                    tokens.clone()
                }
                _ => index.shape[1].clone(),
            };
            Ok(vec![TensorType::new(x.dtype, [index.shape[0].clone(), tokens, x.shape[2].clone()])])
        }
        Op::Tubelets { tubelet, patch } => {
            arity(operands, 1, 1, "1")?;
            let (tokens, features) = grid(operands[0], *tubelet, *patch)?;
            Ok(vec![TensorType::new(operands[0].dtype, [operands[0].shape[0].clone(), tokens, features])])
        }
        Op::PatchEmbed { tubelet, patch } => {
            arity(operands, 2, 3, "2 or 3")?;
            let (clip, weight) = (operands[0], operands[1]);
            let (tokens, features) = grid(clip, *tubelet, *patch)?;
            require(weight.rank() == 5 && Dim::product(&weight.shape[1..]) == features, || {
                format!("weight {weight} does not fit tubelets of {features} values")
            })?;
            require(operands.get(2).is_none_or(|bias| bias.shape == weight.shape[..1]), || {
                format!("bias does not fit weight {weight}")
            })?;
            Ok(vec![TensorType::new(clip.dtype, [clip.shape[0].clone(), tokens, weight.shape[0].clone()])])
        }
        other => Err(TypeError::Mismatch(format!("{} is no token operation", other.name()))),
    }
}

/// Tokens and values a token of a clip `[B, C, T, H, W]`; T, H and W must be numbers that divide evenly.
fn grid(clip: &TensorType, tubelet: usize, patch: usize) -> Result<(Dim, Dim), TypeError> {
    let [_, channels, frames, height, width] = clip.shape.as_slice() else {
        return Err(TypeError::Mismatch(format!("needs a clip [B, C, T, H, W], got {clip}")));
    };
    let mut tokens = 1;
    for (size, step) in [(frames, tubelet), (height, patch), (width, patch)] {
        let count = size.as_const().and_then(|n| usize::try_from(n).ok()).filter(|n| step > 0 && n % step == 0);
        tokens *=
            count.ok_or_else(|| TypeError::Mismatch(format!("{size} in {clip} does not divide by {step}")))? / step;
    }
    Ok((Dim::from(tokens), channels * &Dim::from(tubelet * patch * patch)))
}
