//! Leaves the bias of a linear layer before a GELU to the GELU and to its gradient, which then adds the bias's gradient up as
//! well.

use super::rewrite::{Rewriter, producer, use_counts};
use super::{Changed, Pass};
use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::{Op, Unary};
use std::collections::HashMap;

/// See the module's first line.
///
/// For devices, whose products write their result before a bias is added to it: a pass over the widest activations is saved
/// forward, and one for the bias's gradient backward. Runs on a differentiated graph, and on one that never is.
pub struct FuseBiasGelu;

/// A linear layer whose bias can be left to what reads it.
struct Layer {
    /// The bias in f32, in the old graph.
    bias: ValueId,
    /// The product, in the new graph, and what it was widened to.
    products: HashMap<ValueId, ValueId>,
}

impl Pass for FuseBiasGelu {
    fn name(&self) -> &'static str {
        "fuse-bias-gelu"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut layers = layers(graph);
        // Which layer a value is the result of, or its result widened.
        let mut results: HashMap<ValueId, ValueId> = layers.keys().map(|id| (*id, *id)).collect();
        let mut gradients: HashMap<ValueId, ValueId> = HashMap::new();
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            if let Some(layer) = node.outputs.first().and_then(|y| layers.get_mut(y)) {
                let operands = rewriter.operands(node)?;
                let product = rewriter.new.push1(node.op.clone(), &operands[..2])?;
                layer.products.insert(node.outputs[0], product);
                continue;
            }
            let x = node.inputs.first().copied();
            if let (Op::Sum { axes }, Some(dbias)) = (&node.op, x.and_then(|x| gradients.get(&x)))
                && axes.len() + 1 == graph.ty(node.inputs[0]).rank()
                && axes.iter().enumerate().all(|(at, axis)| at == *axis)
            {
                let sum = rewriter.new.reshape(*dbias, &graph.ty(node.outputs[0]).shape)?;
                rewriter.replace(&node.outputs, &[sum], format!("%{}: with its GELU", node.outputs[0].0))?;
                continue;
            }
            let Some((x, layer)) = x.and_then(|x| Some((x, layers.get_mut(results.get(&x)?)?))) else {
                rewriter.copy(node)?;
                continue;
            };
            let product = *layer.products.get(&x).ok_or(GraphError::UnknownValue(x.0))?;
            if let Op::Cast(dtype) = node.op {
                let wide = rewriter.new.cast(product, dtype)?;
                layer.products.insert(node.outputs[0], wide);
                results.insert(node.outputs[0], results[&x]);
                continue;
            }
            let bias = rewriter.get(layer.bias)?;
            if let Some((old, new)) = fuse(&mut rewriter, node, [product, bias])? {
                gradients.insert(old, new);
            }
        }
        rewriter.finish()
    }
}

/// Layers whose results only GELUs and their gradients read, perhaps widened first.
fn layers(graph: &Graph) -> HashMap<ValueId, Layer> {
    let counts = use_counts(graph);
    let mut readers: HashMap<ValueId, Vec<&Node>> = HashMap::new();
    for node in &graph.nodes {
        for id in &node.inputs {
            readers.entry(*id).or_default().push(node);
        }
    }
    // Outputs and updates are no nodes.
    let of = |id: ValueId| readers.get(&id).filter(|nodes| counts.get(id.0) == Some(&nodes.len()));
    let by_gelu = |id: ValueId| {
        of(id).is_some_and(|nodes| {
            // Not as what comes back to a GELU, its second operand.
            let first_alone = |inputs: &[ValueId]| {
                inputs.split_first().is_some_and(|(first, rest)| *first == id && !rest.contains(&id))
            };
            nodes.iter().all(|node| is_gelu(&node.op) && first_alone(&node.inputs))
        })
    };
    let layer = |node: &Node| {
        let ([_, _, bias], [y], Op::Linear) = (&*node.inputs, &*node.outputs, &node.op) else { return None };
        let bias = if graph.ty(*y).dtype == DType::F32 {
            by_gelu(*y).then_some(*bias)?
        } else {
            let wide = |node: &&Node| node.op == Op::Cast(DType::F32) && by_gelu(node.outputs[0]);
            of(*y)?.iter().all(wide).then(|| narrowed_from(graph, *bias))??
        };
        Some((*y, Layer { bias, products: HashMap::new() }))
    };
    graph.nodes.iter().filter_map(layer).collect()
}

/// Whether it is a function of its first operand's GELU.
fn is_gelu(op: &Op) -> bool {
    matches!(op, Op::Unary(Unary::Gelu) | Op::GeluGrad | Op::GeluWithGrad)
}

/// The f32 value that `id` was narrowed from.
fn narrowed_from(graph: &Graph, id: ValueId) -> Option<ValueId> {
    let before = producer(graph, id)?;
    let source = before.inputs.first().copied()?;
    (matches!(before.op, Op::Cast(_)) && graph.ty(source).dtype == DType::F32).then_some(source)
}

/// Puts the operation with a bias in the node's place; for a gradient, the old one and the new gradient of the bias.
fn fuse(
    rewriter: &mut Rewriter<'_>,
    node: &Node,
    [product, bias]: [ValueId; 2],
) -> Result<Option<(ValueId, ValueId)>, GraphError> {
    let why = format!("%{} ({}): adds the bias", node.outputs[0].0, node.op.name());
    let Some(dy) = node.inputs.get(1) else {
        let y = rewriter.new.push1(Op::BiasGelu, &[product, bias])?;
        rewriter.replace(&node.outputs, &[y], why)?;
        return Ok(None);
    };
    let op = Op::BiasGeluGrad { result: node.op == Op::GeluWithGrad };
    let dy = rewriter.get(*dy)?;
    let results = rewriter.new.push(op, &[product, bias, dy])?;
    let (Some((dbias, results)), Some(dx)) = (results.split_last(), node.outputs.last()) else {
        return Err(GraphError::Other("the gradient of a GELU has no result".to_owned()));
    };
    rewriter.replace(&node.outputs, results, why)?;
    Ok(Some((*dx, *dbias)))
}
