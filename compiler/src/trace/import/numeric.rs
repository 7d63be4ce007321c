//! Arithmetic: functions, scalars, reductions, matrix products.

use super::{Importer, Three};
use crate::ir::{Def, Dim, Node, Scalar, TensorType, ValueId};
use crate::ops::{Binary, Op, Unary};
use crate::trace::TraceError;
use burn_ir::{FloatOperationIr as Float, NumericOperationIr as Numeric};

impl Importer {
    pub(super) fn numeric(&mut self, ops: Three<'_, Numeric>) -> Result<(), TraceError> {
        use Numeric as N;
        let binary = match ops[0] {
            N::Add(_) => Some(Binary::Add),
            N::Sub(_) => Some(Binary::Sub),
            N::Mul(_) => Some(Binary::Mul),
            N::Div(_) => Some(Binary::Div),
            _ => None,
        };
        if let (Some(function), [Some(a), Some(b), Some(c)]) = (binary, ops.map(binary_of)) {
            let left = self.value([&a.lhs, &b.lhs, &c.lhs])?;
            let right = self.value([&a.rhs, &b.rhs, &c.rhs])?;
            return self.emit(Op::Binary(function), &[left, right], [&a.out, &b.out, &c.out]);
        }
        match ops {
            [N::AddScalar(a), N::AddScalar(b), N::AddScalar(c)] => {
                let scalar = self.number([&a.rhs, &b.rhs, &c.rhs])?;
                self.scalar_op(Op::AddScalar(scalar), [a, b, c])
            }
            [N::SubScalar(a), N::SubScalar(b), N::SubScalar(c)] => {
                let mut scalar = self.number([&a.rhs, &b.rhs, &c.rhs])?;
                scalar.value = -scalar.value;
                self.scalar_op(Op::AddScalar(scalar), [a, b, c])
            }
            [N::MulScalar(a), N::MulScalar(b), N::MulScalar(c)] => {
                let scalar = self.number([&a.rhs, &b.rhs, &c.rhs])?;
                self.scalar_op(Op::MulScalar(scalar), [a, b, c])
            }
            [N::DivScalar(a), N::DivScalar(b), N::DivScalar(c)] => {
                let values = [a, b, c].map(|op| op.rhs.elem::<f64>());
                let scalar = self.solver.divisor(|| format!("the divisor of operation {}", self.position), values)?;
                self.scalar_op(Op::MulScalar(scalar), [a, b, c])
            }
            [N::PowiScalar(a), N::PowiScalar(b), N::PowiScalar(c)] => {
                self.scalar_op(Op::PowScalar(a.rhs.elem()), [a, b, c])
            }
            [N::Abs(a), N::Abs(b), N::Abs(c)] => self.unary(Unary::Abs, [a, b, c]),
            [N::Neg(a), N::Neg(b), N::Neg(c)] => self.unary(Unary::Neg, [a, b, c]),
            [N::Sign(a), N::Sign(b), N::Sign(c)] => self.unary(Unary::Sign, [a, b, c]),
            [N::MeanDim(a), N::MeanDim(b), N::MeanDim(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                self.emit(Op::Mean { axes: vec![a.axis] }, &[x], [&a.out, &b.out, &c.out])
            }
            [N::SumDim(a), N::SumDim(b), N::SumDim(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                self.emit(Op::Sum { axes: vec![a.axis] }, &[x], [&a.out, &b.out, &c.out])
            }
            [N::CumSum(a), N::CumSum(b), N::CumSum(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                self.counted(x, [&a.out, &b.out, &c.out])
            }
            [N::Mean(a), N::Mean(b), N::Mean(c)] => self.reduce_all(false, [a, b, c]),
            [N::Sum(a), N::Sum(b), N::Sum(c)] => self.reduce_all(true, [a, b, c]),
            [N::Full(a), N::Full(b), N::Full(c)] => {
                let value = self.number([&a.value, &b.value, &c.value])?;
                let ty = TensorType::f32(self.shape([&a.out, &b.out, &c.out])?);
                self.emit(Op::Full { value, ty }, &[], [&a.out, &b.out, &c.out])
            }
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    fn scalar_op(&mut self, op: Op, [a, b, c]: Three<'_, burn_ir::ScalarOpIr>) -> Result<(), TraceError> {
        let x = self.value([&a.lhs, &b.lhs, &c.lhs])?;
        self.emit(op, &[x], [&a.out, &b.out, &c.out])
    }

    pub(super) fn unary(
        &mut self,
        function: Unary,
        [a, b, c]: Three<'_, burn_ir::UnaryOpIr>,
    ) -> Result<(), TraceError> {
        let x = self.value([&a.input, &b.input, &c.input])?;
        self.emit(Op::Unary(function), &[x], [&a.out, &b.out, &c.out])
    }

    fn reduce_all(&mut self, sum: bool, [a, b, c]: Three<'_, burn_ir::ReduceOpIr>) -> Result<(), TraceError> {
        let x = self.value([&a.input, &b.input, &c.input])?;
        let axes: Vec<usize> = (0..self.graph.ty(x).rank()).collect();
        let op = if sum { Op::Sum { axes } } else { Op::Mean { axes } };
        let reduced = self.graph.push1(op, &[x])?;
        let shape = self.shape([&a.out, &b.out, &c.out])?;
        self.emit(Op::Reshape { shape }, &[reduced], [&a.out, &b.out, &c.out])
    }

    /// A running sum of ones: the numbers from 1. Other running sums have no counterpart.
    fn counted(&mut self, x: ValueId, out: Three<'_, burn_ir::TensorIr>) -> Result<(), TraceError> {
        let ty = self.graph.ty(x);
        let ones = match self.graph.value(x).def {
            Def::Node { node, .. } => self.graph.nodes.get(node.0),
            Def::Input(_) | Def::Param(_) => None,
        };
        let (Some(Node { op: Op::Full { value, .. }, .. }), [size]) = (ones, ty.shape.as_slice()) else {
            return Err(self.unsupported("a running sum of other than ones"));
        };
        if *value != Scalar::from(1.0) {
            return Err(self.unsupported("a running sum of other than ones"));
        }
        let size = size.clone();
        let from_zero = self.graph.push1(Op::Iota { size }, &[])?;
        self.emit(Op::AddScalar(1.0.into()), &[from_zero], out)
    }

    pub(super) fn float(&mut self, ops: Three<'_, Float>) -> Result<(), TraceError> {
        match ops {
            [Float::Exp(a), Float::Exp(b), Float::Exp(c)] => self.unary(Unary::Exp, [a, b, c]),
            [Float::Log(a), Float::Log(b), Float::Log(c)] => self.unary(Unary::Log, [a, b, c]),
            [Float::Sqrt(a), Float::Sqrt(b), Float::Sqrt(c)] => self.unary(Unary::Sqrt, [a, b, c]),
            [Float::Sin(a), Float::Sin(b), Float::Sin(c)] => self.unary(Unary::Sin, [a, b, c]),
            [Float::Cos(a), Float::Cos(b), Float::Cos(c)] => self.unary(Unary::Cos, [a, b, c]),
            [Float::Tanh(a), Float::Tanh(b), Float::Tanh(c)] => self.unary(Unary::Tanh, [a, b, c]),
            [Float::Erf(a), Float::Erf(b), Float::Erf(c)] => self.unary(Unary::Erf, [a, b, c]),
            [Float::Recip(a), Float::Recip(b), Float::Recip(c)] => self.unary(Unary::Recip, [a, b, c]),
            [Float::PowfScalar(a), Float::PowfScalar(b), Float::PowfScalar(c)] => {
                self.scalar_op(Op::PowScalar(a.rhs.elem()), [a, b, c])
            }
            [Float::Matmul(a), Float::Matmul(b), Float::Matmul(c)] => self.matmul([a, b, c]),
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    /// A product with a matrix that has leading axes of 1 (Burn's form of a linear layer) drops them.
    fn matmul(&mut self, [a, b, c]: Three<'_, burn_ir::MatmulOpIr>) -> Result<(), TraceError> {
        let left = self.value([&a.lhs, &b.lhs, &c.lhs])?;
        let right = self.value([&a.rhs, &b.rhs, &c.rhs])?;
        let out = [&a.out, &b.out, &c.out];
        let shape = self.graph.ty(right).shape.clone();
        let (lead, matrix) = shape.split_at(shape.len().saturating_sub(2));
        if !lead.is_empty() && lead.iter().all(Dim::is_one) && self.graph.ty(left).shape[..lead.len()] != *lead {
            let flat = self.graph.push1(Op::Reshape { shape: matrix.to_vec() }, &[right])?;
            let transposed = self.graph.push1(Op::Permute { axes: vec![1, 0] }, &[flat])?;
            return self.emit(Op::Linear, &[left, transposed], out);
        }
        self.emit(Op::MatMul { ta: false, tb: false }, &[left, right], out)
    }
}

fn binary_of(op: &Numeric) -> Option<&burn_ir::BinaryOpIr> {
    match op {
        Numeric::Add(op) | Numeric::Sub(op) | Numeric::Mul(op) | Numeric::Div(op) => Some(op),
        _ => None,
    }
}
