//! Products in a narrow float type, everything that sums over many values in 32 bits.
//!
//! Linear layers, matrix products, attention and the patch embedding get narrow operands; GELU and operations that only
//! move values keep what they are given; normalisations, softmax, means and the residual stream are 32-bit. A `Cast`
//! stands at every border, so that the model means the same on every runtime, strongly typed ones included.

use super::{Copier, moves};
use crate::ExportError;
use crate::fold::Constants;
use crate::weights::WeightSource;
use half::{bf16, f16};
use std::borrow::Cow;
use std::collections::BTreeMap;
use vjepa_compiler::ir::{DType, Def, Graph, GraphError, Node, ValueId};
use vjepa_compiler::ops::{Op, Unary};

/// The graph with products in `low`; inputs and outputs stay as they are.
pub(super) fn typed(graph: &Graph, low: DType) -> Result<Graph, ExportError> {
    let narrow = narrow_parameters(graph);
    let copier = Copier::start(graph, |id| if narrow[id.0] { low } else { graph.ty(id).dtype })?;
    Typer { copier, casts: BTreeMap::new(), how: How::Cast(low) }.run()
}

/// The same graph in 32-bit arithmetic whose values are rounded wherever [`typed`] has narrow ones: what a runtime for `low`
/// computes, on one that has no such type. Weights are to be read through [`round_to`].
///
/// # Errors
/// [`ExportError::Graph`]: a malformed graph.
pub fn rounded(graph: &Graph, low: DType) -> Result<Graph, ExportError> {
    Typer { copier: Copier::same(graph)?, casts: BTreeMap::new(), how: How::Round(low) }.run()
}

/// Parameters that only products read; what constants are made of stays wide until they are whole.
fn narrow_parameters(graph: &Graph) -> Vec<bool> {
    let constants = Constants::of(graph);
    let computes = |node: &&Node| !is_product(&node.op) || node.outputs.iter().all(|id| constants.contains(*id));
    let mut narrow: Vec<bool> = graph.values.iter().map(|value| matches!(value.def, Def::Param(_))).collect();
    for node in graph.nodes.iter().filter(computes) {
        node.inputs.iter().for_each(|id| narrow[id.0] = false);
    }
    graph.outputs.iter().for_each(|(_, id)| narrow[id.0] = false);
    narrow
}

/// A weight as [`rounded`] wants it: rounded to `low` where the graph has it in a product.
///
/// # Errors
/// When it cannot be read.
pub fn round_to<'w>(
    graph: &Graph,
    low: DType,
    name: &str,
    weights: &'w dyn WeightSource,
) -> std::io::Result<Cow<'w, [f32]>> {
    let values = weights.read(name)?;
    let narrow = graph.find(name).is_some_and(|id| narrow_parameters(graph)[id.0]);
    if !narrow {
        return Ok(values);
    }
    let round = |value: &f32| match low {
        DType::F16 => f16::from_f32(*value).to_f32(),
        DType::BF16 => bf16::from_f32(*value).to_f32(),
        _ => *value,
    };
    Ok(Cow::Owned(values.iter().map(round).collect()))
}

/// The largest number of IEEE half.
const LARGEST_HALF: f64 = 65504.0;

fn is_product(op: &Op) -> bool {
    matches!(op, Op::Linear | Op::MatMul { .. } | Op::Attention { .. } | Op::PatchEmbed { .. })
}

/// What narrowing is.
#[derive(Clone, Copy)]
enum How {
    Cast(DType),
    Round(DType),
}

struct Typer<'g> {
    copier: Copier<'g>,
    /// Narrow and wide forms of values of the new graph.
    casts: BTreeMap<(ValueId, bool), ValueId>,
    how: How,
}

impl Typer<'_> {
    fn run(mut self) -> Result<Graph, ExportError> {
        let graph = self.copier.old;
        let constants = Constants::of(graph);
        let mut narrow = narrow_parameters(graph);
        for node in &graph.nodes {
            if node.outputs.iter().all(|id| constants.contains(*id)) {
                self.copier.copy(node)?;
                continue;
            }
            let keeps = moves(&node.op) || node.op == Op::Unary(Unary::Gelu);
            let low = is_product(&node.op) || (keeps && node.inputs.iter().all(|id| narrow[id.0]));
            if let (How::Round(_), Op::Attention { scale }) = (self.how, &node.op) {
                self.attention(node, *scale)?;
            } else {
                self.node(node, low, !keeps || node.op == Op::Unary(Unary::Gelu))?;
            }
            node.outputs.iter().for_each(|id| narrow[id.0] = low);
        }
        for (name, id) in &graph.outputs {
            let id = self.copier.get(*id)?;
            let id = self.operand(id, false)?;
            self.copier.new.output(name, id);
        }
        Ok(self.copier.new)
    }

    fn node(&mut self, node: &Node, low: bool, computes: bool) -> Result<(), GraphError> {
        let mut inputs = Vec::with_capacity(node.inputs.len());
        for id in &node.inputs {
            let id = self.copier.get(*id)?;
            let floats = self.copier.new.ty(id).dtype.is_float();
            inputs.push(if floats { self.operand(id, low)? } else { id });
        }
        let results = self.copier.new.push(node.op.clone(), &inputs)?;
        for (old, new) in node.outputs.iter().zip(results) {
            let new = match self.how {
                How::Round(_) if low && computes => self.operand(new, true)?,
                _ => new,
            };
            self.copier.put(*old, new);
        }
        Ok(())
    }

    /// Attention in the steps that round.
    fn attention(&mut self, node: &Node, scale: f64) -> Result<(), GraphError> {
        let mut operands = Vec::with_capacity(3);
        for id in &node.inputs {
            let id = self.copier.get(*id)?;
            operands.push(self.operand(id, true)?);
        }
        let &[q, k, v] = operands.as_slice() else { return Err(GraphError::Other("attention of no query".to_owned())) };
        let q = self.copier.new.mul_scalar(q, scale)?;
        let q = self.operand(q, true)?;
        let scores = self.copier.new.matmul(q, k, false, true)?;
        let scores = self.operand(scores, true)?;
        let weights = self.copier.new.push1(Op::Softmax, &[scores])?;
        let weights = self.operand(weights, true)?;
        let result = self.copier.new.matmul(weights, v, false, false)?;
        let result = self.operand(result, true)?;
        self.copier.put(node.outputs[0], result);
        Ok(())
    }

    /// A value of the new graph, narrow or wide.
    fn operand(&mut self, id: ValueId, low: bool) -> Result<ValueId, GraphError> {
        if let Some(known) = self.casts.get(&(id, low)) {
            return Ok(*known);
        }
        let graph = &mut self.copier.new;
        let result = match self.how {
            How::Cast(dtype) => graph.cast(id, if low { dtype } else { DType::F32 })?,
            How::Round(_) if !low || matches!(graph.value(id).def, Def::Param(_)) => id,
            How::Round(dtype) => {
                // Veltkamp's splitting: `c·x − (c·x − x)` is x rounded to the nearest value of as many bits.
                let bits = if dtype == DType::F16 { 13 } else { 16 };
                let large = graph.mul_scalar(id, f64::from((1 << bits) + 1))?;
                let rest = graph.sub(large, id)?;
                let value = graph.sub(large, rest)?;
                if dtype == DType::F16 { overflowing(graph, value)? } else { value }
            }
        };
        self.casts.insert((id, low), result);
        // What is narrow already stays as it is.
        self.casts.insert((result, low), result);
        Ok(result)
    }
}

/// The value, or infinity where IEEE half has nothing so large: silent overflow is what makes such models go wrong.
fn overflowing(graph: &mut Graph, value: ValueId) -> Result<ValueId, GraphError> {
    let size = graph.unary(Unary::Abs, value)?;
    let excess = graph.add_scalar(size, -LARGEST_HALF)?;
    let excess = graph.unary(Unary::Relu, excess)?;
    // The next value after the largest is 32 above it: beyond the largest 32-bit float, times this.
    let infinite = graph.mul_scalar(excess, 1e38)?;
    let sign = graph.unary(Unary::Sign, value)?;
    let infinite = graph.mul(infinite, sign)?;
    graph.add(value, infinite)
}
