//! Three recordings in lockstep to one graph.

use super::capture::Recording;
use super::solve::Solver;
use super::{Source, TraceError};
use crate::ir::{DType, Dim, Graph, Scalar, Sizes, TensorType, ValueId};
use crate::ops::{Binary, Op, Unary};
use burn_capture::TensorId;
use burn_ir::{
    ActivationOperationIr as Activation, BaseOperationIr as Base, FloatOperationIr as Float,
    ModuleOperationIr as Module, NumericOperationIr as Numeric, OperationIr, ScalarIr, TensorIr,
};
use std::collections::HashMap;

/// Builds the graph.
pub(super) fn import(
    name: &str,
    symbols: &[&str],
    sizes: [Sizes; 3],
    recordings: [Recording; 3],
) -> Result<Graph, TraceError> {
    let mut importer = Importer {
        graph: Graph::new(name, symbols),
        solver: Solver::new(symbols, sizes),
        values: [HashMap::new(), HashMap::new(), HashMap::new()],
        position: 0,
    };
    importer.sources(&recordings)?;
    let counts = [0, 1, 2].map(|set: usize| recordings[set].operations.len());
    for position in 0..counts[0].max(counts[1]).max(counts[2]) {
        importer.position = position;
        let ops = [0, 1, 2].map(|set: usize| recordings[set].operations.get(position));
        let [Some(a), Some(b), Some(c)] = ops else {
            return Err(TraceError::Structure {
                position,
                first: format!("the last of {}", counts[0]),
                second: format!("one of {} or {}", counts[1], counts[2]),
            });
        };
        importer.operation([a, b, c])?;
    }
    importer.outputs(&recordings)?;
    Ok(importer.graph)
}

struct Importer {
    graph: Graph,
    solver: Solver,
    /// The value a tensor of each recording stands for. Reshaped and expanded indices stand for the index itself.
    values: [HashMap<TensorId, ValueId>; 3],
    position: usize,
}

/// The same field of the same operation in the three recordings.
type Three<'a, T> = [&'a T; 3];

impl Importer {
    fn sources(&mut self, recordings: &[Recording; 3]) -> Result<(), TraceError> {
        let [first, second, third] = [0, 1, 2].map(|set: usize| &recordings[set].sources);
        for (a, (b, c)) in first.iter().zip(second.iter().zip(third)) {
            let sources: Three<'_, Source> = [a, b, c];
            let mut shape = Vec::with_capacity(a.shape.len());
            for axis in 0..a.shape.len() {
                let sizes = sources.map(|source| source.shape.get(axis).copied().unwrap_or(0));
                shape.push(self.solver.dim(|| format!("axis {axis} of `{}`", a.name), sizes)?);
            }
            let ty = TensorType::new(a.dtype, shape);
            let id = if a.param { self.graph.param(&a.name, ty)? } else { self.graph.input(&a.name, ty)? };
            for (set, source) in sources.iter().enumerate() {
                self.values[set].insert(source.id, id);
            }
        }
        Ok(())
    }

    fn outputs(&mut self, recordings: &[Recording; 3]) -> Result<(), TraceError> {
        for (position, (name, id)) in recordings[0].outputs.iter().enumerate() {
            let ids = [0, 1, 2].map(|set: usize| recordings[set].outputs.get(position).map_or(*id, |(_, id)| *id));
            let value = self.lookup(&ids)?;
            let value = if self.graph.ty(value).elements().is_one() && self.graph.ty(value).rank() == 1 {
                self.graph.push1(Op::Reshape { shape: Vec::new() }, &[value])?
            } else {
                value
            };
            self.graph.output(name, value);
        }
        Ok(())
    }

    fn lookup(&self, ids: &[TensorId; 3]) -> Result<ValueId, TraceError> {
        let unknown = TraceError::UnknownTensor { position: self.position };
        let found = [0, 1, 2].map(|set: usize| self.values[set].get(&ids[set]).copied());
        match found {
            [Some(a), Some(b), Some(c)] if a == b && b == c => Ok(a),
            [Some(_), Some(_), Some(_)] => Err(TraceError::Structure {
                position: self.position,
                first: "reads one value".to_owned(),
                second: "another".to_owned(),
            }),
            _ => Err(unknown),
        }
    }

    fn value(&self, tensors: Three<'_, TensorIr>) -> Result<ValueId, TraceError> {
        self.lookup(&tensors.map(|tensor| tensor.id))
    }

    fn bind(&mut self, tensors: Three<'_, TensorIr>, value: ValueId) -> Result<(), TraceError> {
        // Inferred shapes must be what was recorded, at every size.
        if self.graph.ty(value).dtype != DType::I32 {
            for (set, tensor) in tensors.iter().enumerate() {
                let inferred: Option<Vec<usize>> =
                    self.graph.ty(value).shape.iter().map(|dim| dim.eval(&self.solver.sizes[set])).collect();
                if inferred.as_deref() != Some(&tensor.shape[..]) {
                    return Err(TraceError::Structure {
                        position: self.position,
                        first: format!("inferred as {}", self.graph.ty(value)),
                        second: format!("recorded as {:?}", tensor.shape),
                    });
                }
            }
        }
        for (set, tensor) in tensors.iter().enumerate() {
            self.values[set].insert(tensor.id, value);
        }
        Ok(())
    }

    fn emit(&mut self, op: Op, inputs: &[ValueId], out: Three<'_, TensorIr>) -> Result<(), TraceError> {
        let value = self.graph.push1(op, inputs)?;
        self.bind(out, value)
    }

    fn shape(&self, tensors: Three<'_, TensorIr>) -> Result<Vec<Dim>, TraceError> {
        (0..tensors[0].shape.len())
            .map(|axis| {
                let sizes = tensors.map(|tensor| tensor.shape.get(axis).copied().unwrap_or(0));
                self.solver.dim(|| format!("axis {axis} of operation {}", self.position), sizes)
            })
            .collect()
    }

    fn number(&self, scalars: Three<'_, ScalarIr>) -> Result<Scalar, TraceError> {
        let values = scalars.map(|scalar| scalar.elem::<f64>());
        self.solver.scalar(|| format!("the scalar of operation {}", self.position), values)
    }

    fn unsupported(&self, op: impl std::fmt::Debug) -> TraceError {
        let text = format!("{op:?}");
        let name: String = text.chars().take_while(|c| *c != '{').collect();
        TraceError::Unsupported { position: self.position, op: name.trim().to_owned() }
    }

    fn operation(&mut self, ops: [&OperationIr; 3]) -> Result<(), TraceError> {
        use OperationIr as O;
        match ops {
            [O::BaseFloat(a), O::BaseFloat(b), O::BaseFloat(c)] => self.base([a, b, c]),
            [O::BaseInt(a), O::BaseInt(b), O::BaseInt(c)] => self.base_int([a, b, c]),
            [O::NumericFloat(_, a), O::NumericFloat(_, b), O::NumericFloat(_, c)] => self.numeric([a, b, c]),
            [O::Float(_, a), O::Float(_, b), O::Float(_, c)] => self.float([a, b, c]),
            [O::Module(a), O::Module(b), O::Module(c)] => self.module([a, b, c]),
            [O::Activation(a), O::Activation(b), O::Activation(c)] => self.activation([a, b, c]),
            [O::Drop(_), O::Drop(_), O::Drop(_)] => Ok(()),
            [a, b, _] if std::mem::discriminant(a) != std::mem::discriminant(b) => Err(self.differs(a, b)),
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    fn differs(&self, a: impl std::fmt::Debug, b: impl std::fmt::Debug) -> TraceError {
        let short = |text: String| text.chars().take(80).collect();
        TraceError::Structure {
            position: self.position,
            first: short(format!("{a:?}")),
            second: short(format!("{b:?}")),
        }
    }

    fn base(&mut self, ops: Three<'_, Base>) -> Result<(), TraceError> {
        match ops {
            // Sources were declared by the closure; other empties are never read.
            [Base::Empty(_), Base::Empty(_), Base::Empty(_)] => Ok(()),
            [Base::Reshape(a), Base::Reshape(b), Base::Reshape(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                let shape = self.shape([&a.out, &b.out, &c.out])?;
                self.emit(Op::Reshape { shape }, &[x], [&a.out, &b.out, &c.out])
            }
            [Base::SwapDims(a), Base::SwapDims(b), Base::SwapDims(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                let mut axes: Vec<usize> = (0..self.graph.ty(x).rank()).collect();
                axes.swap(a.dim1, a.dim2);
                self.emit(Op::Permute { axes }, &[x], [&a.out, &b.out, &c.out])
            }
            [Base::Permute(a), Base::Permute(b), Base::Permute(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                self.emit(Op::Permute { axes: a.axes.clone() }, &[x], [&a.out, &b.out, &c.out])
            }
            [Base::Expand(a), Base::Expand(b), Base::Expand(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                let shape = self.shape([&a.out, &b.out, &c.out])?;
                self.expand(x, shape, [&a.out, &b.out, &c.out])
            }
            [Base::RepeatDim(a), Base::RepeatDim(b), Base::RepeatDim(c)] => {
                let x = self.value([&a.tensor, &b.tensor, &c.tensor])?;
                let shape = self.shape([&a.out, &b.out, &c.out])?;
                self.expand(x, shape, [&a.out, &b.out, &c.out])
            }
            [Base::Slice(a), Base::Slice(b), Base::Slice(c)] => self.slice([a, b, c]),
            [Base::Gather(a), Base::Gather(b), Base::Gather(c)] if a.dim == 1 => {
                let x = self.value([&a.tensor, &b.tensor, &c.tensor])?;
                let index = self.value([&a.indices, &b.indices, &c.indices])?;
                self.emit(Op::GatherTokens, &[x, index], [&a.out, &b.out, &c.out])
            }
            [Base::Cat(a), Base::Cat(b), Base::Cat(c)] => {
                let parts = (0..a.tensors.len()).map(|i| match (b.tensors.get(i), c.tensors.get(i)) {
                    (Some(second), Some(third)) => self.value([&a.tensors[i], second, third]),
                    _ => Err(self.differs(a, b)),
                });
                let parts = parts.collect::<Result<Vec<_>, _>>()?;
                self.emit(Op::Concat { axis: a.dim }, &parts, [&a.out, &b.out, &c.out])
            }
            [Base::Zeros(a), Base::Zeros(b), Base::Zeros(c)] => self.fill(0.0, [&a.out, &b.out, &c.out]),
            [Base::Ones(a), Base::Ones(b), Base::Ones(c)] => self.fill(1.0, [&a.out, &b.out, &c.out]),
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    /// Views of an index stand for the index: `gather_tokens` needs `[B, K]` only.
    fn base_int(&mut self, ops: Three<'_, Base>) -> Result<(), TraceError> {
        let (inputs, outs) = match ops {
            [Base::Empty(_), Base::Empty(_), Base::Empty(_)] => return Ok(()),
            [Base::Reshape(a), Base::Reshape(b), Base::Reshape(c)]
            | [Base::Expand(a), Base::Expand(b), Base::Expand(c)] => {
                ([&a.input, &b.input, &c.input], [&a.out, &b.out, &c.out])
            }
            [a, ..] => return Err(self.unsupported(a)),
        };
        let index = self.value(inputs)?;
        let base = self.graph.ty(index).shape.clone();
        let shape = self.shape(outs)?;
        // [B, K] to [B, K, 1] to [B, K, D]: the leading axes must stay what they are.
        if shape.len() < base.len() || shape[..base.len()] != base[..] {
            return Err(self.unsupported("an index that is not [B, K], [B, K, 1] or [B, K, D]"));
        }
        self.bind(outs, index)
    }

    fn expand(&mut self, x: ValueId, shape: Vec<Dim>, out: Three<'_, TensorIr>) -> Result<(), TraceError> {
        let from = self.graph.ty(x).shape.clone();
        let x = if from.len() < shape.len() {
            let mut padded = vec![Dim::from(1usize); shape.len() - from.len()];
            padded.extend(from);
            self.graph.push1(Op::Reshape { shape: padded }, &[x])?
        } else {
            x
        };
        self.emit(Op::Broadcast { shape }, &[x], out)
    }

    fn fill(&mut self, value: f64, out: Three<'_, TensorIr>) -> Result<(), TraceError> {
        let ty = TensorType::f32(self.shape(out)?);
        self.emit(Op::Full { value: Scalar::from(value), ty }, &[], out)
    }

    fn slice(&mut self, [a, b, c]: Three<'_, burn_ir::SliceOpIr>) -> Result<(), TraceError> {
        let mut x = self.value([&a.tensor, &b.tensor, &c.tensor])?;
        for axis in 0..a.ranges.len() {
            let bounds = [a, b, c].map(|op| {
                let (size, range) = (op.tensor.shape[axis] as isize, op.ranges[axis]);
                let absolute = |index: isize| if index < 0 { size + index } else { index };
                let (start, end) = (absolute(range.start), range.end.map_or(size, absolute));
                (range.step == 1).then_some([start.max(0) as usize, end.max(0) as usize])
            });
            let [Some(p), Some(q), Some(r)] = bounds else { return Err(self.unsupported("a slice with a step")) };
            let what = || format!("a bound of slice {}", self.position);
            let start = self.solver.dim(what, [p[0], q[0], r[0]])?;
            let end = self.solver.dim(what, [p[1], q[1], r[1]])?;
            let whole = start == Dim::from(0usize) && end == self.graph.ty(x).shape[axis];
            if !whole {
                x = self.graph.push1(Op::Slice { axis, start, end }, &[x])?;
            }
        }
        self.bind([&a.out, &b.out, &c.out], x)
    }

    fn numeric(&mut self, ops: Three<'_, Numeric>) -> Result<(), TraceError> {
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

    fn unary(&mut self, function: Unary, [a, b, c]: Three<'_, burn_ir::UnaryOpIr>) -> Result<(), TraceError> {
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

    fn float(&mut self, ops: Three<'_, Float>) -> Result<(), TraceError> {
        match ops {
            [Float::Exp(a), Float::Exp(b), Float::Exp(c)] => self.unary(Unary::Exp, [a, b, c]),
            [Float::Log(a), Float::Log(b), Float::Log(c)] => self.unary(Unary::Log, [a, b, c]),
            [Float::Sqrt(a), Float::Sqrt(b), Float::Sqrt(c)] => self.unary(Unary::Sqrt, [a, b, c]),
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

    fn module(&mut self, ops: Three<'_, Module>) -> Result<(), TraceError> {
        match ops {
            [Module::LayerNorm(a), Module::LayerNorm(b), Module::LayerNorm(c)] => {
                let x = self.value([&a.input, &b.input, &c.input])?;
                let weight = self.value([&a.gamma, &b.gamma, &c.gamma])?;
                let [Some(beta_a), Some(beta_b), Some(beta_c)] = [a, b, c].map(|op| op.beta.as_ref()) else {
                    return Err(self.unsupported("a layer norm without bias"));
                };
                let bias = self.value([beta_a, beta_b, beta_c])?;
                let eps = a.epsilon.elem();
                self.emit(Op::LayerNorm { eps }, &[x, weight, bias], [&a.out, &b.out, &c.out])
            }
            [Module::Attention(a), Module::Attention(b), Module::Attention(c)] => {
                if a.mask.is_some() || a.attn_bias.is_some() || a.options.is_causal || a.options.softcap.is_some() {
                    return Err(self.unsupported("attention with a mask, bias or soft cap"));
                }
                let q = self.value([&a.query, &b.query, &c.query])?;
                let k = self.value([&a.key, &b.key, &c.key])?;
                let v = self.value([&a.value, &b.value, &c.value])?;
                let width = a.query.shape.last().copied().unwrap_or(1);
                let scale = a.options.scale.map_or(1.0 / (width as f64).sqrt(), |scale| scale.elem());
                self.emit(Op::Attention { scale }, &[q, k, v], [&a.out, &b.out, &c.out])
            }
            [Module::Linear(a), Module::Linear(b), Module::Linear(c)] => {
                let x = self.value([&a.x, &b.x, &c.x])?;
                let weight = self.value([&a.weight, &b.weight, &c.weight])?;
                let weight = self.graph.push1(Op::Permute { axes: vec![1, 0] }, &[weight])?;
                let mut inputs = vec![x, weight];
                if let [Some(bias_a), Some(bias_b), Some(bias_c)] = [a, b, c].map(|op| op.bias.as_ref()) {
                    inputs.push(self.value([bias_a, bias_b, bias_c])?);
                }
                self.emit(Op::Linear, &inputs, [&a.out, &b.out, &c.out])
            }
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    fn activation(&mut self, ops: Three<'_, Activation>) -> Result<(), TraceError> {
        match ops {
            [Activation::Gelu(a), Activation::Gelu(b), Activation::Gelu(c)] => self.unary(Unary::Gelu, [a, b, c]),
            [Activation::Relu(a), Activation::Relu(b), Activation::Relu(c)] => self.unary(Unary::Relu, [a, b, c]),
            [Activation::Softmax(a), Activation::Softmax(b), Activation::Softmax(c)] => {
                self.last_axis(Op::Softmax, [a, b, c])
            }
            [Activation::LogSoftmax(a), Activation::LogSoftmax(b), Activation::LogSoftmax(c)] => {
                self.last_axis(Op::LogSoftmax, [a, b, c])
            }
            [a, ..] => Err(self.unsupported(a)),
        }
    }

    fn last_axis(&mut self, op: Op, [a, b, c]: Three<'_, burn_ir::DimOpIr>) -> Result<(), TraceError> {
        if a.axis + 1 != a.input.shape.len() {
            return Err(self.unsupported("a softmax that is not over the last axis"));
        }
        let x = self.value([&a.input, &b.input, &c.input])?;
        self.emit(op, &[x], [&a.out, &b.out, &c.out])
    }
}

fn binary_of(op: &Numeric) -> Option<&burn_ir::BinaryOpIr> {
    match op {
        Numeric::Add(op) | Numeric::Sub(op) | Numeric::Mul(op) | Numeric::Div(op) => Some(op),
        _ => None,
    }
}
