//! bf16 and f16 on the CPU: values stored as f32, rounded to the lower precision.

use super::tensor::{floats, indices, tensor};
use burn_backend::DType as Stored;
use burn_flex::FlexTensor;
use rayon::prelude::*;
use vjepa_compiler::ir::DType;

/// Values per task.
const CHUNK: usize = 1 << 14;

/// Integers as floats; floats as they are.
pub(super) fn widened(x: FlexTensor) -> FlexTensor {
    if x.dtype() == Stored::F32 {
        return x;
    }
    let shape = x.layout().shape().to_vec();
    tensor(indices(&x).iter().map(|index| *index as f32).collect(), &shape)
}

/// Rounds a result to the element type it has in the graph, to nearest, ties to even.
pub(super) fn stored(x: FlexTensor, dtype: DType) -> FlexTensor {
    match dtype {
        DType::BF16 => rounded(x, |value| half::bf16::from_f32(value).to_f32()),
        DType::F16 => rounded(x, |value| half::f16::from_f32(value).to_f32()),
        DType::F32 | DType::I32 => x,
    }
}

fn rounded(x: FlexTensor, round: impl Fn(f32) -> f32 + Sync) -> FlexTensor {
    let shape = x.layout().shape().to_vec();
    let mut values = floats(&x).into_owned();
    values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|value| *value = round(*value)));
    tensor(values, &shape)
}
