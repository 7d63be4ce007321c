//! Three recordings in lockstep to one graph: the importer and what its parts share. Operations are imported in
//! `import/base.rs`, `numeric.rs` and `module.rs`.

mod base;
mod module;
mod numeric;

use super::capture::Recording;
use super::solve::Solver;
use super::{Source, TraceError};
use crate::ir::{DType, Dim, Graph, Scalar, Sizes, TensorType, ValueId};
use crate::ops::Op;
use burn_capture::TensorId;
use burn_ir::{OperationIr, ScalarIr, TensorIr};
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
        solver: Solver::new(symbols, sizes)?,
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
        self.same_count("declares", [first.len(), second.len(), third.len()], "inputs and parameters")?;
        for (a, (b, c)) in first.iter().zip(second.iter().zip(third)) {
            let sources: Three<'_, Source> = [a, b, c];
            let mut shape = Vec::with_capacity(a.shape.len());
            for axis in 0..a.shape.len() {
                let sizes = self.axis(axis, sources.map(|source| source.shape.as_slice()))?;
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
        let [first, second, third] = [0, 1, 2].map(|set: usize| &recordings[set].outputs);
        self.same_count("returns", [first.len(), second.len(), third.len()], "outputs")?;
        for ((name, a), ((_, b), (_, c))) in first.iter().zip(second.iter().zip(third)) {
            let value = self.lookup(&[*a, *b, *c])?;
            let value = if self.graph.ty(value).elements().is_one() && self.graph.ty(value).rank() == 1 {
                self.graph.push1(Op::Reshape { shape: Vec::new() }, &[value])?
            } else {
                value
            };
            self.graph.output(name, value);
        }
        Ok(())
    }

    fn same_count(&self, does: &str, [a, b, c]: [usize; 3], of: &str) -> Result<(), TraceError> {
        if a == b && b == c {
            return Ok(());
        }
        let (first, second) = (format!("the function {does} {a} {of}"), format!("{b} or {c}"));
        Err(TraceError::Structure { position: self.position, first, second })
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

    /// The size of an axis in each recording.
    fn axis(&self, axis: usize, shapes: [&[usize]; 3]) -> Result<[usize; 3], TraceError> {
        match shapes.map(|shape| shape.get(axis).copied()) {
            [Some(a), Some(b), Some(c)] => Ok([a, b, c]),
            _ => Err(TraceError::Structure {
                position: self.position,
                first: format!("of shape {:?}", shapes[0]),
                second: format!("of shape {:?} or {:?}", shapes[1], shapes[2]),
            }),
        }
    }

    fn shape(&self, tensors: Three<'_, TensorIr>) -> Result<Vec<Dim>, TraceError> {
        (0..tensors[0].shape.len())
            .map(|axis| {
                let sizes = self.axis(axis, tensors.map(|tensor| &tensor.shape[..]))?;
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
}
