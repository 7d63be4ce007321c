//! Operations that move data: reshapes, slices, gathers, concatenation, filled tensors.

use super::{Importer, Three};
use crate::ir::{Dim, Scalar, TensorType, ValueId};
use crate::ops::Op;
use crate::trace::TraceError;
use burn_ir::{BaseOperationIr as Base, TensorIr};

impl Importer {
    pub(super) fn base(&mut self, ops: Three<'_, Base>) -> Result<(), TraceError> {
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
    pub(super) fn base_int(&mut self, ops: Three<'_, Base>) -> Result<(), TraceError> {
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
}
