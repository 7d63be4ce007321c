//! What kernels and lowerings take and return, and what they refuse.

use burn_backend::tensor::{FloatTensor, IntTensor};
use burn_backend::{Backend, Shape, TensorMetadata};
use vjepa_compiler::ir::{Dim, Scalar, Sizes, TensorType};

/// A tensor of a back end.
#[derive(Clone)]
pub enum Operand<B: Backend> {
    /// Floats.
    Float(FloatTensor<B>),
    /// Token indices.
    Int(IntTensor<B>),
}

impl<B: Backend> Operand<B> {
    /// Dimensions; a scalar is `[1]`.
    pub fn shape(&self) -> Shape {
        match self {
            Operand::Float(tensor) => tensor.shape(),
            Operand::Int(tensor) => tensor.shape(),
        }
    }
}

/// Operands or sizes that a kernel does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelError {
    /// Too few or too many operands.
    #[error("takes {expected} operands, got {got}")]
    Operands {
        /// How many it takes, in words.
        expected: &'static str,
        /// How many it got.
        got: usize,
    },
    /// An operand of another element type.
    #[error("operand {operand} must be {expected} but is {got}")]
    DType {
        /// Position of the operand.
        operand: usize,
        /// The element type it takes.
        expected: &'static str,
        /// The element type of the operand.
        got: String,
    },
    /// Operands whose shapes do not go together.
    #[error("needs {expected}, got {got:?}")]
    Shape {
        /// The shapes it takes, in words.
        expected: &'static str,
        /// The shape it got.
        got: Vec<usize>,
    },
    /// A token index out of range.
    #[error("token {token} is not one of the {tokens} there are")]
    Token {
        /// The index.
        token: i64,
        /// How many tokens there are.
        tokens: usize,
    },
    /// An operand that the host has to know.
    #[error("operand {operand} cannot be read: {why}")]
    Unread {
        /// Position of the operand.
        operand: usize,
        /// What the device says.
        why: String,
    },
    /// A library that the operation was given to.
    #[error("{0}")]
    Library(String),
    /// A box that cannot be meant.
    #[error("{0}")]
    Box(String),
    /// A dimension or a scalar without a value.
    #[error("`{0}` has no value under the sizes of this run")]
    Size(String),
    /// Another number of results than the operation has.
    #[error("made {got} results, not {expected}")]
    Results {
        /// Results of the operation.
        expected: usize,
        /// Results of the kernel.
        got: usize,
    },
}

/// This many operands.
///
/// # Errors
/// [`KernelError::Operands`].
pub fn exactly<T, const N: usize>(operands: Vec<T>) -> Result<[T; N], KernelError> {
    const WORDS: [&str; 12] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11"];
    let expected = WORDS.get(N).copied().unwrap_or("more than 11");
    operands.try_into().map_err(|operands: Vec<T>| KernelError::Operands { expected, got: operands.len() })
}

/// A dimension under the sizes of the run.
///
/// # Errors
/// [`KernelError::Size`].
pub fn size(dim: &Dim, sizes: &Sizes) -> Result<usize, KernelError> {
    dim.eval(sizes).ok_or_else(|| KernelError::Size(dim.to_string()))
}

/// A scalar attribute under the sizes of the run.
///
/// # Errors
/// [`KernelError::Size`].
pub fn number(scalar: &Scalar, sizes: &Sizes) -> Result<f64, KernelError> {
    scalar.eval(sizes).ok_or_else(|| KernelError::Size(scalar.to_string()))
}

/// The shape of a result; a scalar is `[1]`, since Burn has no rank 0.
///
/// # Errors
/// [`KernelError::Size`].
pub fn shape_of(ty: &TensorType, sizes: &Sizes) -> Result<Vec<usize>, KernelError> {
    let dims = ty.shape.iter().map(|dim| size(dim, sizes)).collect::<Result<Vec<usize>, _>>()?;
    Ok(if dims.is_empty() { vec![1] } else { dims })
}

/// Copies indices to the host, or says why the device cannot return them.
///
/// # Errors
/// What the device says.
pub fn read_indices<B: Backend>(tensor: IntTensor<B>) -> Result<Vec<i32>, String> {
    let data = burn_backend::try_read_sync(B::int_into_data(tensor)).ok_or("it cannot be read here")?;
    let data = data.map_err(|error| error.to_string())?;
    data.try_into_vec_as::<i32>().map_err(|error| format!("{error:?}"))
}

/// Copies floats to the host, or says why the device cannot return them.
///
/// # Errors
/// What the device says.
pub fn read_floats<B: Backend>(tensor: FloatTensor<B>) -> Result<Vec<f32>, String> {
    let data = burn_backend::try_read_sync(B::float_into_data(tensor)).ok_or("it cannot be read here")?;
    let data = data.map_err(|error| error.to_string())?;
    data.try_into_vec_as::<f32>().map_err(|error| format!("{error:?}"))
}
