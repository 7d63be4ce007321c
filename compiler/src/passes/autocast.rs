//! Gives contractions operands of 16 bits (bf16 or f16) through casts; norms, softmax, losses, sums and all state stay f32.
//!
//! Results of contractions are of that type and are cast back where f32 is needed. Operations that only move values (reshapes,
//! permutations, slices, gathers) follow their operand, so that queries, keys and values stay in it from the layer that
//! computes them to the attention that reads them. Each value is cast once; two casts never follow one another, since
//! narrowing what was only just widened is exact and needs none. (The official code trains under PyTorch's autocast; it
//! keeps the residual stream in bf16 too where it is in place, here it is f32 throughout.)
//!
//! Run it on the differentiated step, whose gradient products are contractions like any other.

use super::rewrite::{Rewriter, producer};
use super::{Changed, DeadCode, Pass};
use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::Op;
use std::collections::HashMap;

/// See the module's first line.
pub struct Autocast {
    /// The type of operands, [`DType::BF16`] or [`DType::F16`].
    pub to: DType,
}

impl Pass for Autocast {
    fn name(&self) -> &'static str {
        "autocast"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut rewriter = Rewriter::start(graph)?;
        let mut narrow = HashMap::new();
        for node in &graph.nodes {
            let inputs = rewriter.operands(node)?;
            if !(is_contraction(node, graph) || follows(node, graph, &rewriter.new, &inputs, self.to)) {
                rewriter.copy(node)?;
                continue;
            }
            // A sum that a product is added to stays f32.
            let sum = inputs.get(2).copied().filter(|_| matches!(node.op, Op::MatMul { .. }));
            let factors = if sum.is_some() { &inputs[..2] } else { &inputs };
            let operands = factors
                .iter()
                .map(|id| narrowed(&mut rewriter.new, &mut narrow, *id, self.to))
                .collect::<Result<Vec<_>, _>>()?;
            let results = rewriter.new.push(node.op.clone(), &operands)?;
            let mut wide =
                results.iter().map(|id| rewriter.new.cast(*id, DType::F32)).collect::<Result<Vec<_>, _>>()?;
            if let (Some(sum), [product]) = (sum, wide.as_mut_slice()) {
                *product = rewriter.new.add(*product, sum)?;
            }
            rewriter.replace(&node.outputs, &wide, format!("{} in {}", node.op.name(), self.to.name()))?;
        }
        let Some(changed) = rewriter.finish()? else { return Ok(None) };
        // Widened results that only narrow operations read have no reader left.
        let graph = DeadCode.run(&changed.graph)?.map_or(changed.graph, |cleaned| cleaned.graph);
        Ok(Some(Changed { graph, changes: changed.changes }))
    }
}

/// How autocast treats an operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// Takes narrow operands.
    Product,
    /// Follows the element type of its operands.
    Movement,
    /// Stays f32.
    Wide,
}

fn class(op: &Op) -> Class {
    match op {
        Op::MatMul { .. }
        | Op::Linear
        | Op::PatchEmbed { .. }
        | Op::Attention { .. }
        | Op::AttentionGrad { .. }
        | Op::PackedAttention { .. }
        | Op::PackedAttentionGrad { .. } => Class::Product,
        Op::Reshape { .. }
        | Op::Permute { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::GatherTokens
        | Op::Tubelets { .. } => Class::Movement,
        Op::Unary(_)
        | Op::Binary(_)
        | Op::AddScalar(_)
        | Op::MulScalar(_)
        | Op::PowScalar(_)
        | Op::GeluGrad
        | Op::GeluWithGrad
        | Op::BiasGelu
        | Op::BiasGeluGrad { .. }
        | Op::NarrowLayerNorm { .. }
        | Op::AddWidened
        | Op::TokenL1 { .. }
        | Op::TokenL1Grad { .. }
        | Op::Cast(_)
        | Op::Sum { .. }
        | Op::Mean { .. }
        | Op::ReduceMax { .. }
        | Op::Softmax
        | Op::SoftmaxGrad
        | Op::LogSoftmax
        | Op::SquaredNorm
        | Op::Full { .. }
        | Op::Iota { .. }
        | Op::Rotate { .. }
        | Op::Pad { .. }
        | Op::ScatterTokens { .. }
        | Op::Dropout { .. }
        | Op::RoiAlign { .. }
        | Op::RoiAlignGrad { .. }
        | Op::LayerNorm { .. }
        | Op::LayerNormGrad { .. }
        | Op::AdamW { .. }
        | Op::Ema
        | Op::AdamWEma { .. }
        | Op::AdamWAll { .. }
        | Op::AllReduce
        | Op::AllReduceStart
        | Op::AllReduceDone => Class::Wide,
    }
}

/// A product of f32 operands, forward or backward.
fn is_contraction(node: &Node, graph: &Graph) -> bool {
    class(&node.op) == Class::Product && node.inputs.iter().all(|id| graph.ty(*id).dtype == DType::F32)
}

/// An operation that moves values all of which were widened.
fn follows(node: &Node, graph: &Graph, new: &Graph, inputs: &[ValueId], to: DType) -> bool {
    let moves = class(&node.op) == Class::Movement;
    let mut floats = node.inputs.iter().zip(inputs).filter(|(old, _)| graph.ty(**old).dtype.is_float()).peekable();
    moves && floats.peek().is_some() && floats.all(|(_, id)| widened_from(new, *id, to).is_some())
}

/// The narrow value that `id` was widened from, if it was.
fn widened_from(graph: &Graph, id: ValueId, to: DType) -> Option<ValueId> {
    let before = producer(graph, id)?;
    let source = before.inputs.first().copied()?;
    let widens = before.op == Op::Cast(DType::F32) && graph.ty(source).dtype == to;
    widens.then_some(source)
}

/// `id` narrow: what it was widened from, or a cast that all its readers share. Indices stay what they are.
fn narrowed(
    graph: &mut Graph,
    known: &mut HashMap<ValueId, ValueId>,
    id: ValueId,
    to: DType,
) -> Result<ValueId, GraphError> {
    if graph.ty(id).dtype != DType::F32 {
        return Ok(id);
    }
    if let Some(narrow) = known.get(&id).copied().or_else(|| widened_from(graph, id, to)) {
        return Ok(narrow);
    }
    let narrow = graph.cast(id, to)?;
    known.insert(id, narrow);
    Ok(narrow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grad::differentiate;
    use crate::interp::{self, Tensor};
    use crate::ir::{Def, Dim, Sizes, TensorType};
    use crate::verify::verify;
    use std::collections::BTreeMap;

    fn ty(shape: &[usize]) -> TensorType {
        TensorType::f32(shape.iter().map(|n| Dim::from(*n)))
    }

    /// A pre-norm attention block and its gradients.
    fn block() -> Graph {
        let mut g = Graph::new("block", &[]);
        let x = g.input("x", ty(&[2, 6, 8])).unwrap();
        let [weight, bias] = ["norm.weight", "norm.bias"].map(|name| g.param(name, ty(&[8])).unwrap());
        let qkv = g.param("qkv.weight", ty(&[24, 8])).unwrap();
        let proj = g.param("proj.weight", ty(&[8, 8])).unwrap();
        let y = g.push1(Op::LayerNorm { eps: 1e-6 }, &[x, weight, bias]).unwrap();
        let y = g.push1(Op::Linear, &[y, qkv]).unwrap();
        let y = g.reshape(y, &[2, 6, 3, 2, 4].map(|n: usize| Dim::from(n))).unwrap();
        let y = g.permute(y, &[2, 0, 3, 1, 4]).unwrap();
        let heads = [0usize, 1, 2].map(|i| {
            let part = g.slice(y, 0, Dim::from(i), Dim::from(i + 1)).unwrap();
            g.reshape(part, &[2, 2, 6, 4].map(|n: usize| Dim::from(n))).unwrap()
        });
        let y = g.push1(Op::Attention { scale: 0.5 }, &heads).unwrap();
        let y = g.permute(y, &[0, 2, 1, 3]).unwrap();
        let y = g.reshape(y, &[2, 6, 8].map(|n: usize| Dim::from(n))).unwrap();
        let y = g.push1(Op::Linear, &[y, proj]).unwrap();
        let y = g.add(x, y).unwrap();
        let square = g.mul(y, y).unwrap();
        let loss = g.mean(square, &[0, 1, 2]).unwrap();
        let loss = g.reshape(loss, &[]).unwrap();
        g.output("loss", loss);
        let wrt = [qkv, proj, weight];
        for (i, grad) in differentiate(&mut g, loss, &wrt).unwrap().into_iter().enumerate() {
            g.output(&format!("d{i}"), grad);
        }
        g
    }

    const BF16: Autocast = Autocast { to: DType::BF16 };

    fn cast(graph: &Graph) -> Graph {
        let graph = BF16.run(graph).unwrap().unwrap().graph;
        verify(&graph).unwrap();
        graph
    }

    #[test]
    fn only_contractions_and_what_moves_their_results_are_narrow() {
        let graph = cast(&block());
        for node in &graph.nodes {
            let dtype = graph.ty(node.outputs[0]).dtype;
            match node.op {
                Op::MatMul { .. } | Op::Linear | Op::Attention { .. } | Op::AttentionGrad { .. } => {
                    assert_eq!(dtype, DType::BF16, "{}", node.op.name());
                }
                Op::LayerNorm { .. } | Op::LayerNormGrad { .. } | Op::Binary(_) | Op::Mean { .. } => {
                    assert_eq!(dtype, DType::F32, "{}", node.op.name());
                }
                _ => {}
            }
        }
        // From the projection to the attention nothing is widened.
        let attention = graph.nodes.iter().find(|node| matches!(node.op, Op::Attention { .. })).unwrap();
        let narrow = |id: &ValueId| producer(&graph, *id).is_some_and(|node| matches!(node.op, Op::Reshape { .. }));
        assert!(attention.inputs.iter().all(narrow));
    }

    #[test]
    fn sums_of_products_stay_wide() {
        let mut g = Graph::new("sum", &[]);
        let [a, b, c] = ["a", "b", "c"].map(|name| g.input(name, ty(&[4, 4])).unwrap());
        let y = g.push1(Op::MatMul { ta: false, tb: false }, &[a, b, c]).unwrap();
        g.output("y", y);
        let ops: Vec<&str> = cast(&g).nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(ops, ["cast", "cast", "matmul", "cast", "add"]);
    }

    #[test]
    fn casts_are_shared_and_never_follow_one_another() {
        let graph = cast(&block());
        let mut seen = std::collections::HashSet::new();
        for node in graph.nodes.iter().filter(|node| matches!(node.op, Op::Cast(_))) {
            let from = node.inputs[0];
            assert!(seen.insert((from, graph.ty(node.outputs[0]).dtype)), "%{} is cast twice", from.0);
            if let Def::Node { node: before, .. } = graph.value(from).def {
                assert!(!matches!(graph.nodes[before.0].op, Op::Cast(_)), "two casts in a row");
            }
        }
        assert!(seen.len() > 5);
        assert!(BF16.run(&graph).unwrap().is_none(), "there is nothing left to do");
    }

    #[test]
    fn the_results_are_those_of_f32_but_for_rounding() {
        let wide = block();
        // f16 has three more bits.
        let narrow = [(DType::BF16, 0.02), (DType::F16, 0.0025)].map(|(to, limit)| {
            let graph = Autocast { to }.run(&wide).unwrap().unwrap().graph;
            verify(&graph).unwrap();
            assert!(graph.values.iter().any(|value| value.ty.dtype == to));
            (graph, limit)
        });
        let mut sources = BTreeMap::new();
        for (seed, id) in wide.inputs.iter().chain(&wide.params).enumerate() {
            let shape: Vec<usize> = wide.ty(*id).shape.iter().map(|dim| dim.eval(&Sizes::new()).unwrap()).collect();
            let count = shape.iter().product::<usize>();
            let data = (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect();
            sources.insert(wide.source_name(*id).unwrap().to_owned(), Tensor::f32(shape, data));
        }
        let run = |graph: &Graph| interp::run(graph, &Sizes::new(), &sources).unwrap().outputs;
        let wide = run(&wide);
        for (narrow, limit) in narrow {
            let narrow = run(&narrow);
            for (name, tensor) in &wide {
                let (a, b) = (tensor.as_f32().unwrap(), narrow[name].as_f32().unwrap());
                let norm: f32 = a.iter().map(|x| x * x).sum::<f32>().sqrt();
                let error: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
                assert!(error > 0.0 && error < limit * norm, "{name}: {error} of {norm}");
            }
        }
    }
}
