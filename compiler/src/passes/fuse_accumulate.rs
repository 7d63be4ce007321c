//! Fuses a matmul into the add that consumes it, so the product accumulates into the other addend's buffer.

use super::rewrite::{Replacement, rewrite_locally, use_counts};
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, ValueId};
use crate::ops::{Binary, Op};

/// See the module's first line.
///
/// The gradient of a weight that is used twice is the sum of two products: this saves one pass over memory per such weight,
/// and the buffer of the second product.
pub struct FuseAccumulate;

impl Pass for FuseAccumulate {
    fn name(&self) -> &'static str {
        "fuse-accumulate"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let uses = use_counts(graph);
        rewrite_locally(graph, |new, old, op, operands| {
            let (Op::Binary(Binary::Add), [left, right]) = (op, old) else { return Ok(None) };
            // The second operand first: of two products the later one is added to the earlier.
            for (position, product) in [(1, *right), (0, *left)] {
                let read_once = uses[product.0] == 1;
                let Some(factors) = plain_product(new, operands[position]).filter(|_| read_once) else { continue };
                let inputs = [factors.1[0], factors.1[1], operands[1 - position]];
                if new.ty(inputs[2]) == new.ty(operands[position]) {
                    let sum = new.push1(factors.0, &inputs)?;
                    return Ok(Replacement::one(sum, "a product added where the other addend lies"));
                }
            }
            Ok(None)
        })
    }
}

/// The product that computes `id`, unless something is added to it already.
fn plain_product(graph: &Graph, id: ValueId) -> Option<(Op, [ValueId; 2])> {
    let node = super::rewrite::producer(graph, id)?;
    match (&node.op, node.inputs.as_slice()) {
        (Op::MatMul { .. }, [a, b]) => Some((node.op.clone(), [*a, *b])),
        _ => None,
    }
}
