//! Dropout and drop path: which elements are kept is drawn on the host, by the numbers of every device.

use crate::KernelError;
use crate::operand::read_indices;
use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_backend::{Backend, Shape, TensorData, TensorMetadata};
use vjepa_compiler::ops::DropKey;

/// `x` with some of the elements of its first `axes` axes dropped, and the others scaled up.
pub(super) fn dropout<B: Backend>(
    x: FloatTensor<B>,
    key: IntTensor<B>,
    (rate, place, axes): (f64, usize, usize),
) -> Result<FloatTensor<B>, KernelError> {
    let key = read_indices::<B>(key).map_err(|why| KernelError::Unread { operand: 1, why })?;
    let key = DropKey::of_tensor(&key)
        .ok_or(KernelError::Shape { expected: "a key of four numbers", got: vec![key.len()] })?;
    let (shape, device) = (x.shape(), x.device());
    let mut drawn: Vec<usize> = shape.to_vec();
    drawn.iter_mut().skip(axes).for_each(|size| *size = 1);
    let scale = (1.0 / (1.0 - rate)) as f32;
    let count = drawn.iter().product();
    let kept: Vec<f32> = key.kept(place, rate, count).map(|kept| if kept { scale } else { 0.0 }).collect();
    let kept = B::float_cast(B::float_from_data(TensorData::new(kept, drawn), &device), x.dtype().into());
    Ok(B::float_mul(x, B::float_expand(kept, Shape::from(shape.to_vec()))))
}
