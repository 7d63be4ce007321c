//! Lets operations between products read and write 16 bits themselves, where casts would go through memory around them.

use super::rewrite::{Rewriter, producer};
use super::{Changed, Pass};
use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::{Binary, Op, Unary};
use std::collections::{HashMap, HashSet};

/// See the module's first line.
///
/// For devices, whose kernels compute in f32 whatever they read and write: the same numbers are rounded at the same places, while
/// an activation that is 16 bits wide on both sides of a GELU no longer goes through memory in 32. Runs after
/// [`FuseBiasGelu`](super::FuseBiasGelu); casts that nothing reads any more are left to dead-code elimination.
pub struct AbsorbCasts;

impl Pass for AbsorbCasts {
    fn name(&self) -> &'static str {
        "absorb-casts"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let narrowed = narrowed_alone(graph);
        // Results of 16 bits that stand for old ones of 32, which only casts read.
        let mut written: HashMap<ValueId, ValueId> = HashMap::new();
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            if let (Op::Cast(_), [x]) = (&node.op, &*node.inputs)
                && let Some(narrow) = written.get(x)
            {
                let why = format!("%{}: written in 16 bits", node.outputs[0].0);
                rewriter.replace(&node.outputs, &[*narrow], why)?;
                continue;
            }
            match rule(graph, node, &narrowed) {
                Some(Rule::Whole) => whole(&mut rewriter, node, &mut written)?,
                Some(Rule::Norm { eps, to }) => {
                    let operands = rewriter.operands(node)?;
                    let y = rewriter.new.push1(Op::NarrowLayerNorm { eps, to }, &operands)?;
                    written.insert(node.outputs[0], y);
                }
                Some(Rule::Operand { op, at }) => {
                    let mut operands = rewriter.operands(node)?;
                    if at == 0 {
                        operands.swap(0, 1);
                    }
                    operands[1] = source(&rewriter, node.inputs[at])?;
                    let results = rewriter.new.push(op, &operands)?;
                    let why = format!("%{} ({}): reads 16 bits", node.outputs[0].0, node.op.name());
                    rewriter.replace(&node.outputs, &results, why)?;
                }
                None => rewriter.copy(node)?,
            }
        }
        rewriter.finish()
    }
}

/// What becomes of a node.
enum Rule {
    /// All of its operands that were widened are read, and its results of that size written, in 16 bits.
    Whole,
    /// A layer norm of f32 writes 16 bits.
    Norm { eps: f64, to: DType },
    /// Another operation, or the same, with the second of two operands in 16 bits: the one at this place.
    Operand { op: Op, at: usize },
}

fn rule(graph: &Graph, node: &Node, narrowed: &HashMap<ValueId, DType>) -> Option<Rule> {
    let widened = |at: usize| node.inputs.get(at).and_then(|id| widened_from(graph, *id));
    match &node.op {
        Op::Unary(Unary::Gelu) | Op::GeluGrad | Op::GeluWithGrad | Op::BiasGelu | Op::BiasGeluGrad { .. } => {
            let to = widened(0)?;
            let read = streams(node).all(|(_, id)| widened_from(graph, id) == Some(to));
            let written = wide_results(graph, node).all(|id| narrowed.get(&id) == Some(&to));
            (read && written).then_some(Rule::Whole)
        }
        Op::LayerNorm { eps } => {
            Some(Rule::Norm { eps: *eps, to: *node.outputs.first().and_then(|y| narrowed.get(y))? })
        }
        Op::LayerNormGrad { .. } => widened(1).map(|_| Rule::Operand { op: node.op.clone(), at: 1 }),
        Op::Binary(Binary::Add) => {
            let [a, b] = *node.inputs.as_slice() else { return None };
            if graph.ty(a) != graph.ty(b) || a == b {
                return None;
            }
            let at = match (widened(0), widened(1)) {
                (None, Some(_)) => 1,
                (Some(_), None) => 0,
                (Some(_), Some(_)) | (None, None) => return None,
            };
            Some(Rule::Operand { op: Op::AddWidened, at })
        }
        _ => None,
    }
}

/// Puts the same operation, on 16 bits, in the node's place.
fn whole(rewriter: &mut Rewriter<'_>, node: &Node, written: &mut HashMap<ValueId, ValueId>) -> Result<(), GraphError> {
    let mut operands = rewriter.operands(node)?;
    for (at, id) in streams(node) {
        operands[at] = source(rewriter, id)?;
    }
    let results = rewriter.new.push(node.op.clone(), &operands)?;
    let wide: HashSet<ValueId> = wide_results(rewriter.old, node).collect();
    for (old, new) in node.outputs.iter().zip(results) {
        if wide.contains(old) {
            written.insert(*old, new);
        } else {
            rewriter.replace(&[*old], &[new], format!("%{} ({}): reads 16 bits", old.0, node.op.name()))?;
        }
    }
    Ok(())
}

/// Operands as large as the first, with their places: all but a bias.
fn streams(node: &Node) -> impl Iterator<Item = (usize, ValueId)> + '_ {
    let biased = matches!(node.op, Op::BiasGelu | Op::BiasGeluGrad { .. });
    node.inputs.iter().copied().enumerate().filter(move |(at, _)| !(biased && *at == 1))
}

/// Results as large as the first operand: all but the gradient of a bias.
fn wide_results<'a>(graph: &'a Graph, node: &'a Node) -> impl Iterator<Item = ValueId> + 'a {
    let x = node.inputs.first().map(|id| graph.ty(*id));
    node.outputs.iter().copied().filter(move |id| Some(graph.ty(*id)) == x)
}

/// The element type that a value was widened from.
fn widened_from(graph: &Graph, id: ValueId) -> Option<DType> {
    let before = producer(graph, id)?;
    let dtype = graph.ty(*before.inputs.first()?).dtype;
    (before.op == Op::Cast(DType::F32) && dtype.is_narrow()).then_some(dtype)
}

/// Where what a value was widened from went.
fn source(rewriter: &Rewriter<'_>, id: ValueId) -> Result<ValueId, GraphError> {
    let before = producer(rewriter.old, id).and_then(|node| node.inputs.first());
    rewriter.get(*before.ok_or(GraphError::UnknownValue(id.0))?)
}

/// Values of f32 that are read only to be narrowed, with the type that all of their readers narrow them to.
fn narrowed_alone(graph: &Graph) -> HashMap<ValueId, DType> {
    let mut found: HashMap<ValueId, Option<DType>> = graph.roots().map(|id| (id, None)).collect();
    for node in &graph.nodes {
        let to = match node.op {
            Op::Cast(dtype) if dtype.is_narrow() => Some(dtype),
            _ => None,
        };
        for id in &node.inputs {
            let known = found.entry(*id).or_insert(to);
            if *known != to {
                *known = None;
            }
        }
    }
    found
        .into_iter()
        .filter(|(id, _)| graph.ty(*id).dtype == DType::F32)
        .filter_map(|(id, to)| Some((id, to?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interp::{self, Tensor};
    use crate::ir::Sizes;
    use crate::passes::{Autocast, DeadCode, FuseBiasGelu, FuseGelu, Recompute, Recomputed};
    use crate::testing::ty;
    use crate::verify::verify;
    use std::collections::BTreeMap;

    /// Norm, two layers with a GELU between, a residual sum, and the gradients.
    fn block() -> Graph {
        let mut g = Graph::new("block", &[]);
        let x = g.input("x", ty("6 8")).unwrap();
        let names = [("gain", "8"), ("shift", "8"), ("up", "12 8"), ("b", "12"), ("down", "8 12"), ("c", "8")];
        let params = names.map(|(name, shape)| g.param(name, ty(shape)).unwrap());
        let [gain, shift, up, b, down, c] = params;
        let y = g.push1(Op::LayerNorm { eps: 1e-6 }, &[x, gain, shift]).unwrap();
        let y = g.push1(Op::Linear, &[y, up, b]).unwrap();
        let y = g.unary(Unary::Gelu, y).unwrap();
        let y = g.push1(Op::Linear, &[y, down, c]).unwrap();
        let y = g.add(x, y).unwrap();
        let square = g.mul(y, y).unwrap();
        let loss = g.mean(square, &[0, 1]).unwrap();
        let loss = g.reshape(loss, &[]).unwrap();
        g.output("loss", loss);
        for ((name, _), grad) in names.iter().zip(crate::grad::differentiate(&mut g, loss, &params).unwrap()) {
            g.output(&format!("d {name}"), grad);
        }
        g
    }

    fn after(graph: Graph, pass: &dyn Pass) -> Graph {
        let changed = pass.run(&graph).unwrap().map_or(graph, |changed| changed.graph);
        verify(&changed).unwrap();
        changed
    }

    /// As the interpreter rounds every value to its type, the same numbers are rounded at the same places.
    #[test]
    fn results_keep_every_bit() {
        for to in [DType::BF16, DType::F16] {
            let passes: [&dyn Pass; 4] = [
                &Autocast { to },
                &Recompute { output: "loss".to_owned(), what: Recomputed::Elementwise },
                &FuseGelu,
                &FuseBiasGelu,
            ];
            let before = after(passes.into_iter().fold(block(), after), &DeadCode);
            let narrow = after(after(before.clone(), &AbsorbCasts), &DeadCode);
            let casts = |graph: &Graph| graph.nodes.iter().filter(|node| matches!(node.op, Op::Cast(_))).count();
            assert_eq!((casts(&before), casts(&narrow)), (18, 8), "{}", crate::text::print(&narrow));
            for name in ["narrow_layer_norm", "add_widened", "bias_gelu", "bias_gelu_with_grad"] {
                assert!(narrow.nodes.iter().any(|node| node.op.name() == name), "{name}");
            }
            let mut sources = BTreeMap::new();
            for (seed, id) in before.inputs.iter().chain(&before.params).enumerate() {
                let shape: Vec<usize> =
                    before.ty(*id).shape.iter().map(|dim| dim.eval(&Sizes::new()).unwrap()).collect();
                let count = shape.iter().product::<usize>();
                let data = (0..count).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect();
                sources.insert(before.source_name(*id).unwrap().to_owned(), Tensor::f32(shape, data));
            }
            let run = |graph: &Graph| interp::run(graph, &Sizes::new(), &sources).unwrap().outputs;
            assert_eq!(run(&before), run(&narrow));
        }
    }
}
