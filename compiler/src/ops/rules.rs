//! Arguments and results of an operation's rules.

use crate::interp::Array;
use crate::ir::{Dim, Graph, Scalar, Sizes, TensorType, ValueId};

/// Operands that do not fit an operation.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TypeError {
    /// Wrong number of operands.
    #[error("takes {expected} operands, got {got}")]
    Arity {
        /// What it takes, in words.
        expected: &'static str,
        /// What it got.
        got: usize,
    },
    /// Shapes or element types that do not go together.
    #[error("{0}")]
    Mismatch(String),
}

/// Fails unless there are between `least` and `most` operands.
pub(super) fn arity(
    operands: &[&TensorType],
    least: usize,
    most: usize,
    expected: &'static str,
) -> Result<(), TypeError> {
    if (least..=most).contains(&operands.len()) {
        Ok(())
    } else {
        Err(TypeError::Arity { expected, got: operands.len() })
    }
}

/// Fails with a sentence unless `holds`.
pub(super) fn require(holds: bool, message: impl FnOnce() -> String) -> Result<(), TypeError> {
    if holds { Ok(()) } else { Err(TypeError::Mismatch(message())) }
}

/// Arithmetic and memory traffic of one operation, as expressions of the graph's symbols.
///
/// A multiply-add counts 2; other elementwise arithmetic counts the nominal number documented with the operation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Cost {
    /// Floating-point operations.
    pub flops: Dim,
    /// Bytes read and written if every operand and result goes through memory once.
    pub bytes: Dim,
}

impl Cost {
    /// `per_element` operations for each of `elements`, reading all operands and writing all results.
    pub(super) fn streaming(
        per_element: usize,
        elements: &Dim,
        operands: &[&TensorType],
        results: &[&TensorType],
    ) -> Self {
        let bytes = operands.iter().chain(results).fold(Dim::default(), |sum, ty| &sum + &bytes(ty));
        Self { flops: elements * &Dim::from(per_element), bytes }
    }
}

/// Size of a tensor in bytes.
pub(crate) fn bytes(ty: &TensorType) -> Dim {
    &ty.elements() * &Dim::from(ty.dtype.bytes())
}

/// Arguments of an interpreter rule: operands whose types were checked, and the shapes of the results.
pub(crate) struct Eval<'a> {
    pub inputs: &'a [&'a Array],
    /// Shapes of the results.
    pub results: &'a [Vec<usize>],
    pub sizes: &'a Sizes,
}

/// Why an operation cannot be evaluated, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EvalError(pub String);

impl Eval<'_> {
    /// A dimension as a number.
    pub fn size(&self, dim: &Dim) -> Result<usize, EvalError> {
        dim.eval(self.sizes).ok_or_else(|| EvalError(format!("`{dim}` has no value under the given sizes")))
    }

    /// A scalar attribute as a number.
    pub fn number(&self, scalar: &Scalar) -> Result<f64, EvalError> {
        scalar.eval(self.sizes).ok_or_else(|| EvalError(format!("`{scalar}` has no value under the given sizes")))
    }
}

/// Fails with a sentence unless `holds`.
pub(super) fn ensure(holds: bool, message: impl FnOnce() -> String) -> Result<(), EvalError> {
    if holds { Ok(()) } else { Err(EvalError(message())) }
}

/// Results of the smaller operations that a decomposition appended; `None` for an operation that has none.
pub(super) type Parts = Option<Vec<ValueId>>;

/// Result of a gradient rule: the gradient of each operand, `None` where it is zero or not needed. `None` as a whole for
/// an operation without a gradient rule.
pub(super) type Grads = Option<Vec<Option<ValueId>>>;

/// Arguments of a gradient rule; new nodes go to the end of `graph`.
pub(crate) struct Reverse<'a> {
    pub graph: &'a mut Graph,
    pub inputs: &'a [ValueId],
    /// The operation's first result.
    pub y: ValueId,
    /// Gradient of `y`, of the same type.
    pub dy: ValueId,
    /// Which operands need a gradient.
    pub needs: &'a [bool],
}

impl Reverse<'_> {
    /// Type of operand `i`.
    pub fn ty(&self, i: usize) -> &TensorType {
        self.graph.ty(self.inputs[i])
    }

    /// Whether operand `i` exists and needs a gradient.
    pub fn need(&self, i: usize) -> bool {
        self.needs.get(i).copied().unwrap_or(false)
    }
}
