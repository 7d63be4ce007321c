//! Weight and bias of a layer norm go into the linear layers that read it: `W(γ∘n + β) + b = (W∘γ)n + (Wβ + b)`.

use super::{Copier, producer, readers};
use crate::ExportError;
use std::collections::BTreeMap;
use vjepa_compiler::ir::{Def, Dim, Graph, Node, ValueId};
use vjepa_compiler::ops::Op;

pub(super) fn run(graph: &Graph) -> Result<Graph, ExportError> {
    let mut copier = Copier::same(graph)?;
    // Folded weight and bias by the pair of norm and linear weight; `qkv` is one linear layer, but nothing says it must be.
    let mut folded: BTreeMap<(ValueId, ValueId), [ValueId; 2]> = BTreeMap::new();
    for node in &graph.nodes {
        let norm = node.inputs.first().and_then(|x| producer(graph, *x)).filter(|norm| is_folded(graph, norm));
        match (&node.op, norm) {
            (Op::LayerNorm { .. }, _) if is_folded(graph, node) => {
                let x = copier.get(node.inputs[0])?;
                let bare = copier.new.push1(node.op.clone(), &[x])?;
                copier.put(node.outputs[0], bare);
            }
            (Op::Linear, Some(norm)) => {
                let key = (norm.outputs[0], node.inputs[1]);
                let [weight, bias] = match folded.get(&key) {
                    Some(known) => *known,
                    None => fold(&mut copier, norm, node)?,
                };
                folded.insert(key, [weight, bias]);
                let x = copier.get(node.inputs[0])?;
                let y = copier.new.push1(Op::Linear, &[x, weight, bias])?;
                copier.put(node.outputs[0], y);
            }
            _ => copier.copy(node)?,
        }
    }
    Ok(copier.finish()?)
}

/// True for a norm with weight and bias that is read by linear layers of parameters only.
fn is_folded(graph: &Graph, node: &Node) -> bool {
    let is_param = |id: &ValueId| matches!(graph.value(*id).def, Def::Param(_));
    let linear =
        |reader: &&Node| reader.op == Op::Linear && reader.inputs.len() == 3 && reader.inputs[1..].iter().all(is_param);
    matches!(node.op, Op::LayerNorm { .. })
        && node.inputs.len() == 3
        && node.inputs[1..].iter().all(is_param)
        && readers(graph, node.outputs[0]).is_some_and(|readers| !readers.is_empty() && readers.iter().all(linear))
}

fn fold(copier: &mut Copier<'_>, norm: &Node, linear: &Node) -> Result<[ValueId; 2], ExportError> {
    let (gamma, beta) = (copier.get(norm.inputs[1])?, copier.get(norm.inputs[2])?);
    let (weight, bias) = (copier.get(linear.inputs[1])?, copier.get(linear.inputs[2])?);
    let g = &mut copier.new;
    let [out, width] = <[Dim; 2]>::try_from(g.ty(weight).shape.clone())
        .map_err(|_| ExportError::Graph("the weight of a linear layer is not a matrix".to_owned()))?;
    let scaled = g.mul(weight, gamma)?;
    let beta = g.reshape(beta, &[width, Dim::from(1usize)])?;
    let shift = g.matmul(weight, beta, false, false)?;
    let shift = g.reshape(shift, &[out])?;
    Ok([scaled, g.add(bias, shift)?])
}
