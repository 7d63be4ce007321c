//! Tensors of the interpreter: the public one, and the `f64` array it computes with.

use crate::ir::DType;

/// A tensor handed to or returned by the interpreter, row-major.
///
/// `bf16` and `f16` values are carried as `F32`, already rounded.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Sizes, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// The elements.
    pub data: Data,
}

/// Elements of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum Data {
    /// Floats.
    F32(Vec<f32>),
    /// Token indices.
    I32(Vec<i32>),
}

impl Tensor {
    /// A float tensor. A length that does not fit the shape is reported when the tensor is used.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Self {
        Self { shape: shape.into(), data: Data::F32(data) }
    }

    /// An index tensor.
    pub fn i32(shape: impl Into<Vec<usize>>, data: Vec<i32>) -> Self {
        Self { shape: shape.into(), data: Data::I32(data) }
    }

    /// A float scalar.
    pub fn scalar(value: f32) -> Self {
        Self::f32([], vec![value])
    }

    /// The floats, when it holds floats.
    pub fn as_f32(&self) -> Option<&[f32]> {
        match &self.data {
            Data::F32(data) => Some(data),
            Data::I32(_) => None,
        }
    }

    /// The integers, when it holds integers.
    pub fn as_i32(&self) -> Option<&[i32]> {
        match &self.data {
            Data::I32(data) => Some(data),
            Data::F32(_) => None,
        }
    }

    pub(crate) fn to_array(&self) -> Array {
        let data = match &self.data {
            Data::F32(data) => data.iter().map(|x| f64::from(*x)).collect(),
            Data::I32(data) => data.iter().map(|x| f64::from(*x)).collect(),
        };
        Array { shape: self.shape.clone(), data }
    }
}

/// Elements as `f64`, whatever the element type: every `f32`, `bf16`, `f16` and `i32` is exact in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn from_fn(shape: &[usize], f: impl FnMut(usize) -> f64) -> Self {
        Self { shape: shape.to_vec(), data: (0..shape.iter().product()).map(f).collect() }
    }

    pub fn zeros(shape: &[usize]) -> Self {
        Self::from_fn(shape, |_| 0.0)
    }

    pub fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self { shape: self.shape.clone(), data: self.data.iter().map(|x| f(*x)).collect() }
    }

    /// Size of the last axis, 1 for a scalar.
    pub fn last(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Rows along the last axis; none when it is empty.
    pub fn rows(&self) -> std::slice::ChunksExact<'_, f64> {
        self.data.chunks_exact(self.last().max(1))
    }

    /// The scalar's number (a tensor's first).
    pub fn first(&self) -> f64 {
        self.data.first().copied().unwrap_or(f64::NAN)
    }

    /// Rounds every element to what `dtype` can hold.
    pub fn round_to(&mut self, dtype: DType) {
        for x in &mut self.data {
            *x = match dtype {
                DType::F32 => f64::from(*x as f32),
                // Through f32 as the hardware does: accumulate wide, round once more on store.
                DType::BF16 => f64::from(half::bf16::from_f32(*x as f32)),
                DType::F16 => f64::from(half::f16::from_f32(*x as f32)),
                DType::I32 => f64::from(*x as i32),
            };
        }
    }

    pub fn to_tensor(&self, dtype: DType) -> Tensor {
        let data = match dtype {
            DType::I32 => Data::I32(self.data.iter().map(|x| *x as i32).collect()),
            DType::F32 | DType::BF16 | DType::F16 => Data::F32(self.data.iter().map(|x| *x as f32).collect()),
        };
        Tensor { shape: self.shape.clone(), data }
    }
}

/// Row-major strides of a shape.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// For every element of `shape` in order, `Σ index·steps`: where it lies in an operand with those steps.
pub(crate) fn offsets(shape: &[usize], steps: &[usize]) -> Vec<usize> {
    let mut offsets = vec![0];
    for (size, step) in shape.iter().zip(steps) {
        offsets = offsets.iter().flat_map(|base| (0..*size).map(move |i| base + i * step)).collect();
    }
    offsets
}
