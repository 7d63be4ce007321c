//! Flex tensors as slices, and slices as Flex tensors.

use super::pool::Pool;
use crate::plan::KernelError;
use burn_backend::{Bytes, DType, Shape};
use burn_flex::{FlexTensor, Layout};
use std::borrow::Cow;

/// A contiguous tensor over `data`.
pub(super) fn tensor(data: Vec<f32>, shape: &[usize]) -> FlexTensor {
    debug_assert_eq!(data.len(), shape.iter().product::<usize>());
    FlexTensor::new(Bytes::from_elems(data), Layout::contiguous(Shape::from(shape.to_vec())), DType::F32)
}

/// The tensor in another shape of as many elements: a view where they lie in order, rows out of a larger tensor too (which
/// Flex's own reshape copies), else a copy.
pub(super) fn reshaped(x: &FlexTensor, shape: &[usize]) -> FlexTensor {
    let shape = Shape::from(shape.to_vec());
    if !x.is_contiguous() {
        return x.reshape(shape);
    }
    let strides = Layout::contiguous(shape.clone()).strides().to_vec();
    FlexTensor::from_arc(x.data_arc(), Layout::new(shape, strides, x.layout().start_offset()), x.dtype())
}

/// Dimensions of a tensor.
pub(super) fn dims(tensor: &FlexTensor) -> Vec<usize> {
    tensor.layout().shape().to_vec()
}

/// The values in row-major order, without a copy where they are contiguous.
///
/// # Panics
/// When the tensor does not hold f32: a kernel's operands are checked before it runs (`node.rs`).
pub(super) fn floats(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Some(slice) => Cow::Borrowed(slice),
        // A new buffer, which holds the elements in order and nothing else.
        None => Cow::Owned(tensor.to_contiguous().storage::<f32>().to_vec()),
    }
}

/// Token indices in row-major order.
///
/// # Panics
/// When the tensor does not hold i32, as [`floats`].
pub(super) fn indices(tensor: &FlexTensor) -> Cow<'_, [i32]> {
    match tensor.as_slice::<i32>() {
        Some(slice) => Cow::Borrowed(slice),
        None => Cow::Owned(tensor.to_contiguous().storage::<i32>().to_vec()),
    }
}

/// The value of a scalar tensor.
pub(super) fn scalar(tensor: &FlexTensor) -> Result<f32, KernelError> {
    match *floats(tensor) {
        [value] => Ok(value),
        _ => Err(KernelError::Shape { expected: "a scalar", got: dims(tensor) }),
    }
}

/// A tensor whose values may be written: the same memory when there is no other reader, else a copy.
pub(super) fn writable(tensor: FlexTensor, pool: &mut Pool) -> FlexTensor {
    let whole = tensor.is_contiguous()
        && tensor.layout().start_offset() == 0
        && tensor.bytes().len() == tensor.layout().num_elements() * size_of::<f32>();
    if whole && tensor.is_unique() {
        return tensor;
    }
    let shape = dims(&tensor);
    let copy = match tensor.as_slice::<f32>() {
        Some(values) => {
            let mut copy = pool.take(values.len());
            copy.copy_from_slice(values);
            copy
        }
        None => floats(&tensor).into_owned(),
    };
    pool.recycle(tensor);
    self::tensor(copy, &shape)
}

/// Where element `[i, j, k, l]` of a rank-4 tensor lies: base pointer offset and strides, in elements.
pub(super) struct Strided<'a> {
    /// The whole buffer.
    pub(super) data: &'a [f32],
    /// Offset of element 0.
    pub(super) offset: usize,
    /// Stride of each axis.
    pub(super) strides: Vec<isize>,
}

/// A strided view of a tensor with non-negative strides (slices and permutations of one buffer; never flipped).
pub(super) fn strided(tensor: &FlexTensor) -> Strided<'_> {
    let layout = tensor.layout();
    Strided { data: tensor.storage::<f32>(), offset: layout.start_offset(), strides: layout.strides().to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_out_of_a_larger_tensor_are_reshaped_where_they_lie() {
        let whole = tensor((0..24).map(|x| x as f32).collect(), &[6, 4]);
        let rows = whole.narrow(0, 2, 3);
        let cut = reshaped(&rows, &[3, 2, 2]);
        assert_eq!((dims(&cut), floats(&cut).to_vec()), (vec![3, 2, 2], (8..20).map(|x| x as f32).collect()));
        assert!(std::sync::Arc::ptr_eq(&whole.data_arc(), &cut.data_arc()));
        let turned = reshaped(&rows.permute(&[1, 0]), &[12]);
        assert_eq!(floats(&turned)[..4], [8.0, 12.0, 16.0, 9.0]);
    }
}
