//! Attention of one constant query (an attentive probe's): the query goes through the key projection beforehand.
//!
//! With `q_h` a constant, `q_h · (W_k,h x + b_k,h) = (W_k,hᵀ q_h) · x + c_h`, and a softmax does not see `c_h`. The weights of
//! a softmax sum to 1, so `Σ p_n (W_v,h x_n + b_v,h) = W_v,h (Σ p_n x_n) + b_v,h`. What is left of keys and values of all
//! tokens, `4·N·D²` operations, is one product of H columns, a weighted mean of the tokens, and `D²` for the values.

use super::Copier;
use crate::ExportError;
use crate::fold::Constants;
use crate::heads::{self, Projection};
use vjepa_compiler::ir::{Dim, Graph, GraphError, Node, ValueId};
use vjepa_compiler::ops::Op;

pub(super) fn run(graph: &Graph) -> Result<Graph, ExportError> {
    let constants = Constants::of(graph);
    let mut copier = Copier::same(graph)?;
    for node in &graph.nodes {
        match pooling(graph, &constants, node) {
            Some(pooling) => {
                let pooled = rewrite(&mut copier, &pooling)?;
                copier.put(node.outputs[0], pooled);
            }
            None => copier.copy(node)?,
        }
    }
    Ok(copier.finish()?)
}

/// An attention that can be folded.
struct Pooling {
    query: ValueId,
    x: ValueId,
    scale: f64,
    weight: ValueId,
    bias: Option<ValueId>,
    /// First rows of key and value in the projection.
    keys: usize,
    values: usize,
    batch: Dim,
    heads: usize,
    size: usize,
    width: Dim,
}

fn pooling(graph: &Graph, constants: &Constants<'_>, node: &Node) -> Option<Pooling> {
    let Op::Attention { scale } = node.op else { return None };
    let &[query, key, value] = node.inputs.as_slice() else { return None };
    let [batch, heads, queries, size] = graph.ty(query).shape.as_slice() else { return None };
    if !constants.contains(query) || !queries.is_one() || constants.contains(key) {
        return None;
    }
    let (key, value) = (heads::projection(graph, constants, key)?, heads::projection(graph, constants, value)?);
    let one = key.x == value.x && key.weight == value.weight && key.bias == value.bias && graph.ty(key.x).rank() == 3;
    let number = |dim: &Dim| dim.as_const().and_then(|size| usize::try_from(size).ok());
    Some(Pooling {
        query,
        x: key.x,
        scale,
        weight: key.weight,
        bias: key.bias,
        keys: first_of_run(&key)?,
        values: first_of_run(&value)?,
        batch: batch.clone(),
        heads: number(heads)?,
        size: number(size)?,
        width: graph.ty(key.x).shape.last()?.clone(),
    })
    .filter(|_| one)
}

/// The first row, when they follow each other.
fn first_of_run(projection: &Projection) -> Option<usize> {
    let first = *projection.rows.first()?;
    projection.rows.iter().copied().eq(first..first + projection.rows.len()).then_some(first)
}

/// The folded form, `[B, H, 1, d]` as the attention was.
fn rewrite(copier: &mut Copier<'_>, p: &Pooling) -> Result<ValueId, GraphError> {
    let (query, x, weight) = (copier.get(p.query)?, copier.get(p.x)?, copier.get(p.weight)?);
    let bias = p.bias.map(|bias| copier.get(bias)).transpose()?;
    let g = &mut copier.new;
    let (one, heads, size) = (Dim::from(1usize), Dim::from(p.heads), Dim::from(p.size));
    let channels = p.heads * p.size;
    let rows = |g: &mut Graph, first: usize| {
        let rows = g.slice(weight, 0, first.into(), (first + channels).into())?; // [H·d, D]
        g.reshape(rows, &[one.clone(), heads.clone(), size.clone(), p.width.clone()]) // [1, H, d, D]
    };
    // Keys: constant, [B, H, 1, d] · [B, H, d, D].
    let keys = rows(g, p.keys)?;
    let keys = g.broadcast(keys, &[p.batch.clone(), heads.clone(), size.clone(), p.width.clone()])?;
    let folded = g.matmul(query, keys, false, false)?; // [B, H, 1, D]
    let folded = g.mul_scalar(folded, p.scale)?;
    let folded = g.reshape(folded, &[p.batch.clone(), heads.clone(), p.width.clone()])?; // [B, H, D]
    let folded = g.permute(folded, &[0, 2, 1])?; // [B, D, H]
    let scores = g.matmul(x, folded, false, false)?; // [B, N, H]
    let scores = g.permute(scores, &[0, 2, 1])?; // [B, H, N]
    let weights = g.push1(Op::Softmax, &[scores])?;
    let pooled = g.matmul(weights, x, false, false)?; // [B, H, D]
    let pooled = g.reshape(pooled, &[p.batch.clone(), heads.clone(), one.clone(), p.width.clone()])?;
    let values = rows(g, p.values)?;
    let values = g.permute(values, &[0, 1, 3, 2])?; // [1, H, D, d]
    let values = g.broadcast(values, &[p.batch.clone(), heads.clone(), p.width.clone(), size.clone()])?;
    let result = g.matmul(pooled, values, false, false)?; // [B, H, 1, d]
    let Some(bias) = bias else { return Ok(result) };
    let bias = g.slice(bias, 0, p.values.into(), (p.values + channels).into())?;
    let bias = g.reshape(bias, &[one.clone(), heads, one, size])?; // [1, H, 1, d]
    g.add(result, bias)
}
