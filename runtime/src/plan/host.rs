//! Tensors on the host, as they go in and come out of a plan.

use burn_backend::TensorData;

/// A dense row-major tensor in host memory.
#[derive(Clone, Debug, PartialEq)]
pub enum HostTensor {
    /// 32-bit floats.
    F32 {
        /// Dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major values.
        data: Vec<f32>,
    },
    /// 32-bit integers (token indices).
    I32 {
        /// Dimensions, outermost first.
        shape: Vec<usize>,
        /// Row-major values.
        data: Vec<i32>,
    },
}

impl HostTensor {
    /// A float tensor; `None` when `data` has not as many values as `shape` says.
    pub fn f32(shape: impl Into<Vec<usize>>, data: Vec<f32>) -> Option<Self> {
        let shape = shape.into();
        (shape.iter().product::<usize>() == data.len()).then_some(Self::F32 { shape, data })
    }

    /// An integer tensor; `None` when `data` has not as many values as `shape` says.
    pub fn i32(shape: impl Into<Vec<usize>>, data: Vec<i32>) -> Option<Self> {
        let shape = shape.into();
        (shape.iter().product::<usize>() == data.len()).then_some(Self::I32 { shape, data })
    }

    /// A scalar, `f32[]`.
    pub fn scalar(value: f32) -> Self {
        Self::F32 { shape: Vec::new(), data: vec![value] }
    }

    /// Dimensions.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32 { shape, .. } | Self::I32 { shape, .. } => shape,
        }
    }

    /// The values of a float tensor; empty for an integer tensor.
    pub fn floats(&self) -> &[f32] {
        match self {
            Self::F32 { data, .. } => data,
            Self::I32 { .. } => &[],
        }
    }

    /// The values of a float tensor, by value; empty for an integer tensor.
    pub fn into_floats(self) -> Vec<f32> {
        match self {
            Self::F32 { data, .. } => data,
            Self::I32 { .. } => Vec::new(),
        }
    }

    /// Burn has no rank 0: scalars travel as `[1]`.
    pub(super) fn into_data(self) -> TensorData {
        let shape_of = |shape: Vec<usize>| if shape.is_empty() { vec![1] } else { shape };
        match self {
            Self::F32 { shape, data } => TensorData::new(data, shape_of(shape)),
            Self::I32 { shape, data } => TensorData::new(data, shape_of(shape)),
        }
    }
}
