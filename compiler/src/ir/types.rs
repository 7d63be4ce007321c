//! Element types and tensor types.

use super::{Dim, Sizes};
use std::fmt;

/// Element type of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// 32-bit float.
    F32,
    /// bfloat16.
    BF16,
    /// IEEE half.
    F16,
    /// 32-bit signed integer (token indices).
    I32,
}

impl DType {
    /// Size of one element in bytes.
    pub fn bytes(self) -> usize {
        match self {
            DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
        }
    }

    /// True for the floating-point types.
    pub fn is_float(self) -> bool {
        self != DType::I32
    }

    /// True for the floating-point types of 16 bits.
    pub fn is_narrow(self) -> bool {
        matches!(self, DType::BF16 | DType::F16)
    }

    /// Name in the text form: `f32`, `bf16`, `f16`, `i32`.
    pub fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
        }
    }

    /// The type with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [DType::F32, DType::BF16, DType::F16, DType::I32].into_iter().find(|dtype| dtype.name() == name)
    }
}

/// Type of a value: element type and shape, printed as `f32[B, 1568, 1024]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Dimensions, outermost first; empty for a scalar.
    pub shape: Vec<Dim>,
}

impl TensorType {
    /// A type from its parts.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        Self { dtype, shape: shape.into_iter().collect() }
    }

    /// An `f32` tensor.
    pub fn f32(shape: impl IntoIterator<Item = Dim>) -> Self {
        Self::new(DType::F32, shape)
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// The sizes, where none has a symbol.
    pub fn fixed_shape(&self) -> Option<Vec<usize>> {
        self.shape.iter().map(|dim| dim.eval(&Sizes::new())).collect()
    }

    /// False for shapes whose element count could be a polynomial too large to compute with: more than 64 axes, or more
    /// than 4096 products of terms. No model comes near; a hostile file can.
    pub fn is_tame(&self) -> bool {
        let terms = self.shape.iter().map(|dim| dim.terms().count().max(1));
        let products = terms.fold(1usize, usize::saturating_mul);
        self.rank() <= 64 && products <= 4096
    }

    /// The type with numbers for its symbols, `f32[4, 1568, 1024]`; `None` when one has no size.
    pub fn sized(&self, sizes: &Sizes) -> Option<String> {
        let dims = self.shape.iter().map(|dim| dim.eval(sizes).map(Dim::from)).collect::<Option<Vec<_>>>()?;
        Some(Self::new(self.dtype, dims).to_string())
    }

    /// Number of elements, as an expression.
    pub fn elements(&self) -> Dim {
        Dim::product(&self.shape)
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[", self.dtype.name())?;
        for (axis, dim) in self.shape.iter().enumerate() {
            if axis > 0 {
                write!(f, ", ")?;
            }
            write!(f, "{dim}")?;
        }
        write!(f, "]")
    }
}
