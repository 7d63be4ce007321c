//! Tensors on the host, as they go in and come out of a plan.

use crate::preprocess::scale_bytes;
use vjepa_compiler::ir::DType;

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
    /// Bytes that stand for 32-bit floats: an input of floats takes them.
    Pixels(Pixels),
}

/// Clips as bytes, which become floats where they are computed on: a quarter of the memory, and of the way to a device.
#[derive(Clone, Debug, PartialEq)]
pub struct Pixels {
    pub(super) shape: Vec<usize>,
    pub(super) data: Vec<u8>,
    pub(super) scaling: Vec<(f32, f32)>,
}

impl Pixels {
    /// Of `shape`, outermost first: clips, channels, and what a channel has. A byte of channel `c` stands for `gain·x + bias`
    /// of `scaling[c]`. `None` when `data` has not as many values as `shape` says, or `scaling` not as many pairs as there are
    /// channels.
    pub fn new(shape: Vec<usize>, data: Vec<u8>, scaling: Vec<(f32, f32)>) -> Option<Self> {
        let fits = shape.iter().product::<usize>() == data.len() && shape.get(1) == Some(&scaling.len());
        fits.then_some(Self { shape, data, scaling })
    }

    /// The floats they stand for, in `memory`.
    pub fn scaled(&self, mut memory: Vec<f32>) -> Vec<f32> {
        memory.clear();
        scale_bytes(&self.data, self.shape.iter().skip(2).product(), &self.scaling, &mut memory);
        memory
    }
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
            Self::F32 { shape, .. } | Self::I32 { shape, .. } | Self::Pixels(Pixels { shape, .. }) => shape,
        }
    }

    /// The type that a graph knows it by.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32 { .. } | Self::Pixels(_) => DType::F32,
            Self::I32 { .. } => DType::I32,
        }
    }

    /// How many values it has, whatever its shape says.
    pub(super) fn values(&self) -> usize {
        match self {
            Self::F32 { data, .. } => data.len(),
            Self::I32 { data, .. } => data.len(),
            Self::Pixels(Pixels { data, .. }) => data.len(),
        }
    }

    /// The values of a float tensor; empty for integers, and for bytes, which are no floats yet.
    pub fn floats(&self) -> &[f32] {
        match self {
            Self::F32 { data, .. } => data,
            Self::I32 { .. } | Self::Pixels(_) => &[],
        }
    }

    /// The values of a float tensor, by value; empty for an integer tensor.
    pub fn into_floats(self) -> Vec<f32> {
        match self {
            Self::F32 { data, .. } => data,
            Self::I32 { .. } => Vec::new(),
            Self::Pixels(pixels) => pixels.scaled(Vec::new()),
        }
    }
}
