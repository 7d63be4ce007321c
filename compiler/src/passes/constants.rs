//! Folds constants: filled tensors through elementwise and shape operations, and chains of scalar operations into one.

use super::rewrite::{Replacement, producer, rewrite_locally};
use super::{Changed, Pass};
use crate::ir::{DType, Graph, GraphError, Scalar, TensorType, ValueId};
use crate::ops::{Binary, Op};

/// See the module's first line.
pub struct FoldConstants;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "constants"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        rewrite_locally(graph, |new, _, op, operands| rule(new, op, operands))
    }
}

fn rule(graph: &mut Graph, op: &Op, inputs: &[ValueId]) -> Result<Option<Replacement>, GraphError> {
    let types: Vec<&TensorType> = inputs.iter().map(|id| graph.ty(*id)).collect();
    let result = op.infer(&types).ok().and_then(|mut types| types.pop());
    let Some(result) = result else { return Ok(None) };
    let filled: Vec<Option<Scalar>> = inputs.iter().map(|id| constant(graph, *id)).collect();
    match (op, filled.as_slice()) {
        (Op::Binary(f), [a, b]) => binary(graph, *f, inputs, (a, b), result),
        (Op::MulScalar(c), [None]) => scaled_twice(graph, inputs, c),
        (Op::AddScalar(c), [None]) => added_twice(graph, inputs, c),
        (_, [Some(value)]) => match through(op, value, graph.ty(inputs[0]).dtype) {
            Some(value) => {
                let y = graph.full(value, result)?;
                Ok(Replacement::one(y, "of a constant"))
            }
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The number that fills `id`.
fn constant(graph: &Graph, id: ValueId) -> Option<Scalar> {
    match &producer(graph, id)?.op {
        Op::Full { value, .. } => Some(value.clone()),
        _ => None,
    }
}

/// The plain number, without a symbolic denominator.
fn number(scalar: &Scalar) -> Option<f64> {
    scalar.over.is_one().then_some(scalar.value)
}

/// The number that fills the result of `op` on a tensor filled with `value`.
fn through(op: &Op, value: &Scalar, from: DType) -> Option<Scalar> {
    // Only in f32: elsewhere the interpreter rounds between the two operations.
    let wide = from == DType::F32;
    match op {
        Op::Reshape { .. } | Op::Permute { .. } | Op::Broadcast { .. } | Op::Slice { .. } => Some(value.clone()),
        Op::Unary(f) if wide => Some(f.apply(number(value)?).into()),
        Op::MulScalar(c) if wide => Some(product(value, c)),
        Op::AddScalar(c) if wide => Some((number(value)? + number(c)?).into()),
        Op::PowScalar(c) if wide => Some(number(value)?.powf(*c).into()),
        Op::Cast(DType::F16 | DType::BF16) if wide => Some(value.clone()),
        _ => None,
    }
}

fn product(a: &Scalar, b: &Scalar) -> Scalar {
    Scalar { value: a.value * b.value, over: &a.over * &b.over }
}

/// Two constants become one; one constant becomes a scalar operation on the other operand.
fn binary(
    graph: &mut Graph,
    f: Binary,
    inputs: &[ValueId],
    (a, b): (&Option<Scalar>, &Option<Scalar>),
    result: TensorType,
) -> Result<Option<Replacement>, GraphError> {
    if result.dtype != DType::F32 {
        return Ok(None);
    }
    if let (Some(a), Some(b)) = (a, b) {
        let folded = match (number(a), number(b)) {
            (Some(a), Some(b)) => Scalar::from(f.apply(a, b)),
            _ if f == Binary::Mul => product(a, b),
            _ => return Ok(None),
        };
        let y = graph.full(folded, result)?;
        return Ok(Replacement::one(y, "of two constants"));
    }
    let (x, scalar) = match (a, b, f) {
        (None, Some(b), _) => (inputs[0], b),
        (Some(a), None, Binary::Add | Binary::Mul) => (inputs[1], a),
        _ => return Ok(None),
    };
    if *graph.ty(x) != result {
        return Ok(None);
    }
    let inverse = || number(scalar).filter(|c| *c != 0.0).map(|c| Scalar::from(1.0 / c));
    let op = match f {
        Binary::Add => Op::AddScalar(scalar.clone()),
        Binary::Sub => Op::AddScalar(Scalar { value: -scalar.value, over: scalar.over.clone() }),
        Binary::Mul => Op::MulScalar(scalar.clone()),
        Binary::Div => match inverse() {
            Some(inverse) => Op::MulScalar(inverse),
            None => return Ok(None),
        },
        Binary::Min | Binary::Max => return Ok(None),
    };
    let y = graph.push1(op, &[x])?;
    Ok(Replacement::one(y, "with a constant"))
}

fn scaled_twice(graph: &mut Graph, inputs: &[ValueId], c: &Scalar) -> Result<Option<Replacement>, GraphError> {
    let Some(Op::MulScalar(first)) = producer(graph, inputs[0]).map(|node| &node.op) else { return Ok(None) };
    chained(graph, inputs, Op::MulScalar(product(first, c)))
}

fn added_twice(graph: &mut Graph, inputs: &[ValueId], c: &Scalar) -> Result<Option<Replacement>, GraphError> {
    let Some(Op::AddScalar(first)) = producer(graph, inputs[0]).map(|node| &node.op) else { return Ok(None) };
    let (Some(first), Some(c)) = (number(first), number(c)) else { return Ok(None) };
    chained(graph, inputs, Op::AddScalar((first + c).into()))
}

/// `op` on what the operand's producer reads.
fn chained(graph: &mut Graph, inputs: &[ValueId], op: Op) -> Result<Option<Replacement>, GraphError> {
    let source = producer(graph, inputs[0]).and_then(|node| node.inputs.first().copied());
    match source {
        Some(source) if graph.ty(source).dtype == DType::F32 => {
            let y = graph.push1(op, &[source])?;
            Ok(Replacement::one(y, "two scalars in a row"))
        }
        _ => Ok(None),
    }
}
