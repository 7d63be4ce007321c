//! Shorthands of the builder: one method for each small operation.

use super::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};
use crate::ops::{Binary, Op, Unary};

/// Every method appends one node (or none when the operation would change nothing) and fails as [`Graph::push1`] does.
#[allow(clippy::missing_errors_doc)]
impl Graph {
    /// `f(x)`.
    pub fn unary(&mut self, f: Unary, x: ValueId) -> Result<ValueId, GraphError> {
        self.push1(Op::Unary(f), &[x])
    }

    /// `f(a, b)` with NumPy broadcasting.
    pub fn binary(&mut self, f: Binary, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.push1(Op::Binary(f), &[a, b])
    }

    /// `a + b`.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.binary(Binary::Add, a, b)
    }

    /// `a − b`.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.binary(Binary::Sub, a, b)
    }

    /// `a · b`.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.binary(Binary::Mul, a, b)
    }

    /// `a / b`.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.binary(Binary::Div, a, b)
    }

    /// `x + c`.
    pub fn add_scalar(&mut self, x: ValueId, c: impl Into<Scalar>) -> Result<ValueId, GraphError> {
        self.push1(Op::AddScalar(c.into()), &[x])
    }

    /// `c · x`.
    pub fn mul_scalar(&mut self, x: ValueId, c: impl Into<Scalar>) -> Result<ValueId, GraphError> {
        self.push1(Op::MulScalar(c.into()), &[x])
    }

    /// `Σ x` over `axes`, which stay with size 1; `x` itself when there are none.
    pub fn sum(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, GraphError> {
        if axes.is_empty() { Ok(x) } else { self.push1(Op::Sum { axes: axes.to_vec() }, &[x]) }
    }

    /// Mean of `x` over `axes`, which stay with size 1; `x` itself when there are none.
    pub fn mean(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, GraphError> {
        if axes.is_empty() { Ok(x) } else { self.push1(Op::Mean { axes: axes.to_vec() }, &[x]) }
    }

    /// `x` in another shape; `x` itself when it already has it.
    pub fn reshape(&mut self, x: ValueId, shape: &[Dim]) -> Result<ValueId, GraphError> {
        if self.ty(x).shape == shape { Ok(x) } else { self.push1(Op::Reshape { shape: shape.to_vec() }, &[x]) }
    }

    /// `x` with axes reordered.
    pub fn permute(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, GraphError> {
        self.push1(Op::Permute { axes: axes.to_vec() }, &[x])
    }

    /// `x` with axes of size 1 repeated; `x` itself when it already has the shape.
    pub fn broadcast(&mut self, x: ValueId, shape: &[Dim]) -> Result<ValueId, GraphError> {
        if self.ty(x).shape == shape { Ok(x) } else { self.push1(Op::Broadcast { shape: shape.to_vec() }, &[x]) }
    }

    /// `x[.., start..end, ..]` along `axis`.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: Dim, end: Dim) -> Result<ValueId, GraphError> {
        self.push1(Op::Slice { axis, start, end }, &[x])
    }

    /// Matrix product; see [`Op::MatMul`].
    pub fn matmul(&mut self, a: ValueId, b: ValueId, ta: bool, tb: bool) -> Result<ValueId, GraphError> {
        self.push1(Op::MatMul { ta, tb }, &[a, b])
    }

    /// `x` in another element type; `x` itself when it already has it.
    pub fn cast(&mut self, x: ValueId, dtype: DType) -> Result<ValueId, GraphError> {
        if self.ty(x).dtype == dtype { Ok(x) } else { self.push1(Op::Cast(dtype), &[x]) }
    }

    /// A tensor filled with one number.
    pub fn full(&mut self, value: impl Into<Scalar>, ty: TensorType) -> Result<ValueId, GraphError> {
        self.push1(Op::Full { value: value.into(), ty }, &[])
    }

    /// `x` summed down to `shape`, which broadcasts (NumPy) to the shape of `x`: the reverse of a broadcast.
    pub fn sum_to(&mut self, x: ValueId, shape: &[Dim]) -> Result<ValueId, GraphError> {
        let from = self.ty(x).shape.clone();
        let extra = from.len().saturating_sub(shape.len());
        let repeated = |axis: &usize| {
            let target = axis.checked_sub(extra).and_then(|i| shape.get(i));
            target.is_none_or(|dim| dim.is_one() && !from.get(*axis).is_some_and(Dim::is_one))
        };
        let axes: Vec<usize> = (0..from.len()).filter(repeated).collect();
        let summed = self.sum(x, &axes)?;
        self.reshape(summed, shape)
    }
}
