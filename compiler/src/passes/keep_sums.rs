//! Keeps the sums of attention's softmax for its gradient, which otherwise goes over all scores once more.

use super::rewrite::{Rewriter, producer};
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::Op;
use std::collections::{HashMap, HashSet};

/// See the module's first line.
///
/// For devices whose kernels never have a whole row of scores: one number for each row and head takes 1/d of the memory of the
/// result. Runs last, on a differentiated graph.
pub struct KeepSums;

impl Pass for KeepSums {
    fn name(&self) -> &'static str {
        "keep-sums"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let wanted: HashSet<ValueId> = graph.nodes.iter().filter_map(|node| forward_of(graph, node)).collect();
        let mut rewriter = Rewriter::start(graph)?;
        let mut kept: HashMap<ValueId, ValueId> = HashMap::new();
        for node in &graph.nodes {
            let first = node.outputs.first().copied();
            match &node.op {
                Op::PackedAttention { heads, scale, parts, sums: false }
                    if first.is_some_and(|y| wanted.contains(&y)) =>
                {
                    let op = Op::PackedAttention { heads: *heads, scale: *scale, parts: parts.clone(), sums: true };
                    let operands = rewriter.operands(node)?;
                    let results = rewriter.new.push(op, &operands)?;
                    let ([y, sums], Some(old)) = (results.as_slice(), first) else {
                        return Err(GraphError::Other("attention with its sums has two results".to_owned()));
                    };
                    kept.insert(old, *sums);
                    rewriter.replace(&node.outputs, &[*y], format!("%{}: its sums are kept", old.0))?;
                }
                Op::PackedAttentionGrad { heads, scale, parts, sums: false } => {
                    let sums = forward_of(graph, node).and_then(|y| kept.get(&y).copied());
                    let Some(sums) = sums else {
                        rewriter.copy(node)?;
                        continue;
                    };
                    let op = Op::PackedAttentionGrad { heads: *heads, scale: *scale, parts: parts.clone(), sums: true };
                    let mut operands = rewriter.operands(node)?;
                    operands.insert(3, sums);
                    let result = rewriter.new.push1(op, &operands)?;
                    let why = format!("%{}: reads the sums", result.0);
                    rewriter.replace(&node.outputs, &[result], why)?;
                }
                _ => rewriter.copy(node)?,
            }
        }
        rewriter.finish()
    }
}

/// The result of the attention that `node` is the gradient of. Its other operands may have been computed again.
fn forward_of(graph: &Graph, node: &Node) -> Option<ValueId> {
    let Op::PackedAttentionGrad { heads, scale, parts, sums: false } = &node.op else { return None };
    let y = *node.inputs.get(1)?;
    let forward = producer(graph, y)?;
    let same = Op::PackedAttention { heads: *heads, scale: *scale, parts: parts.clone(), sums: false };
    (forward.op == same && forward.inputs.len() + 2 == node.inputs.len()).then_some(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Case, Rng, assert_close, exact, random_sources, roots_of, sizes};
    use crate::text::parse;

    const TEXT: &str = "graph g[B, N]
  input qkv: f32[B*N + 6, 24]
  input dy: f32[B*N + 6, 8]
  %0: f32[B*N + 6, 8] = packed_attention(qkv) {heads: 2, scale: 0.5, parts: [B, N, 2, 3]}
  %1: f32[B*N + 6, 24] = packed_attention_grad(qkv, %0, dy) {heads: 2, scale: 0.5, parts: [B, N, 2, 3]}
  output y = %0
  output dqkv = %1
";

    #[test]
    fn the_gradient_reads_what_the_forward_kept() {
        let graph = parse(TEXT).unwrap();
        let kept = KeepSums.run(&graph).unwrap().unwrap().graph;
        let names: Vec<&str> = kept.nodes.iter().map(|node| node.op.name()).collect();
        assert_eq!(names, ["packed_attention_sums", "packed_attention_grad_sums"]);
        let sources = random_sources(&graph, &sizes(), &mut Rng(3));
        let case = Case { graph, sizes: sizes(), sources };
        assert_close(&exact(&case), &roots_of(&kept, &case.sizes, &case.sources), 1e-12);
        assert!(KeepSums.run(&kept).unwrap().is_none());
    }

    #[test]
    fn a_result_of_other_attention_is_not_its_forward() {
        let other = TEXT.replacen("scale: 0.5", "scale: 0.25", 1);
        assert!(KeepSums.run(&parse(&other).unwrap()).unwrap().is_none());
    }
}
