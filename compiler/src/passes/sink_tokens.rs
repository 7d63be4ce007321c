//! Moves token selections up through operations that treat each token separately, so that tokens that are never read are
//! never computed.

use super::rewrite::{Rewriter, producer, use_counts};
use super::{Changed, Pass};
use crate::ir::{Dim, Graph, GraphError, Node, TensorType, ValueId};
use crate::ops::Op;

/// See the module's first line.
///
/// A selection is `gather_tokens` or a `slice` of axis 1 of `[B, N, D]`. It moves up only past values that have no other
/// reader. Attention needs all keys, but only the queries of the selected tokens.
pub struct SinkTokens;

/// A longer chain sinks this far only: recursion must not exhaust the stack.
const DEEPEST: usize = 128;

impl Pass for SinkTokens {
    fn name(&self) -> &'static str {
        "sink-tokens"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut sinker = Sinker { rewriter: Rewriter::start(graph)?, uses: use_counts(graph) };
        for node in &graph.nodes {
            let sunk = match Selection::of(graph, node) {
                Some(selection) => sinker.sink_through(&selection, node.inputs[0], 0)?,
                None => None,
            };
            match sunk {
                Some(value) => {
                    let from = producer(graph, node.inputs[0]).map_or("a source", |node| node.op.name());
                    let change = format!("{} moved up through {from}", node.op.name());
                    sinker.rewriter.replace(&node.outputs, &[value], change)?;
                }
                None => sinker.rewriter.copy(node)?,
            }
        }
        sinker.rewriter.finish()
    }
}

/// Which tokens are kept; ids are of the old graph.
struct Selection {
    op: Op,
    index: Option<ValueId>,
    /// N, before.
    tokens: Dim,
    /// B and K, after.
    batch: Dim,
    kept: Dim,
}

impl Selection {
    fn of(graph: &Graph, node: &Node) -> Option<Self> {
        let whole = graph.ty(*node.inputs.first()?);
        let result = graph.ty(*node.outputs.first()?);
        let selects = matches!(node.op, Op::GatherTokens | Op::Slice { axis: 1, .. });
        let ([batch, tokens, _], [_, kept, _]) = (whole.shape.as_slice(), result.shape.as_slice()) else { return None };
        // A table shared by the batch would grow by being selected from early.
        (selects && whole.shape[0] == result.shape[0]).then(|| Self {
            op: node.op.clone(),
            index: node.inputs.get(1).copied(),
            tokens: tokens.clone(),
            batch: batch.clone(),
            kept: kept.clone(),
        })
    }
}

struct Sinker<'a> {
    rewriter: Rewriter<'a>,
    uses: Vec<usize>,
}

impl Sinker<'_> {
    /// The selected tokens of `value`, an old `[B, N, D]`, in the new graph.
    fn select(&mut self, selection: &Selection, value: ValueId, depth: usize) -> Result<ValueId, GraphError> {
        match self.sink_through(selection, value, depth)? {
            Some(sunk) => Ok(sunk),
            None => {
                let value = self.rewriter.get(value)?;
                self.apply(selection, value)
            }
        }
    }

    /// The selection itself, on a value of the new graph.
    fn apply(&mut self, selection: &Selection, value: ValueId) -> Result<ValueId, GraphError> {
        let mut operands = vec![value];
        if let Some(index) = selection.index {
            operands.push(self.rewriter.get(index)?);
        }
        self.rewriter.new.push1(selection.op.clone(), &operands)
    }

    /// As [`select`](Self::select), but `None` unless the selection can move above the operation that computes `value`.
    fn sink_through(
        &mut self,
        selection: &Selection,
        value: ValueId,
        depth: usize,
    ) -> Result<Option<ValueId>, GraphError> {
        let old = self.rewriter.old;
        let whole = old.ty(value);
        let fits = whole.rank() == 3 && whole.shape[0] == selection.batch && whole.shape[1] == selection.tokens;
        if !fits || depth >= DEEPEST || self.uses.get(value.0) != Some(&1) {
            return Ok(None);
        }
        let Some(node) = producer(old, value) else { return Ok(None) };
        match &node.op {
            Op::Linear
            | Op::LayerNorm { .. }
            | Op::Unary(_)
            | Op::AddScalar(_)
            | Op::MulScalar(_)
            | Op::PowScalar(_)
            | Op::Cast(_)
            | Op::Softmax
            | Op::LogSoftmax => {
                let mut operands = self.rewriter.operands(node)?;
                operands[0] = self.select(selection, node.inputs[0], depth + 1)?;
                self.rewriter.new.push1(node.op.clone(), &operands).map(Some)
            }
            Op::Binary(_) => self.binary(selection, node, depth),
            Op::Broadcast { shape } => self.broadcast(selection, node, shape),
            Op::PatchEmbed { tubelet, patch } => self.patch_embed(selection, node, (*tubelet, *patch)).map(Some),
            Op::Reshape { .. } => self.attention(selection, node),
            _ => Ok(None),
        }
    }

    fn binary(&mut self, selection: &Selection, node: &Node, depth: usize) -> Result<Option<ValueId>, GraphError> {
        let old = self.rewriter.old;
        let Some(sides) = node.inputs.iter().map(|id| side(old.ty(*id), selection)).collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        // `x + x` reads its operand twice, but the selection of it is one value.
        let mut operands: Vec<ValueId> = Vec::with_capacity(2);
        for (id, side) in node.inputs.iter().zip(sides) {
            operands.push(match side {
                _ if node.inputs.first() == Some(id) && !operands.is_empty() => operands[0],
                Side::Tokens => self.select(selection, *id, depth + 1)?,
                Side::Table => {
                    let mut table = self.rewriter.get(*id)?;
                    if let [tokens, width] = old.ty(*id).shape.as_slice() {
                        table =
                            self.rewriter.new.reshape(table, &[Dim::from(1usize), tokens.clone(), width.clone()])?;
                    }
                    self.apply(selection, table)?
                }
                Side::AllAlike => self.rewriter.get(*id)?,
            });
        }
        self.rewriter.new.push1(node.op.clone(), &operands).map(Some)
    }

    /// `[1, N, D]` repeated over the batch.
    fn broadcast(&mut self, selection: &Selection, node: &Node, shape: &[Dim]) -> Result<Option<ValueId>, GraphError> {
        let Some(table) = node.inputs.first() else { return Ok(None) };
        let from = &self.rewriter.old.ty(*table).shape;
        if !from[0].is_one() || from[1] != selection.tokens {
            return Ok(None);
        }
        let table = self.rewriter.get(*table)?;
        let rows = self.apply(selection, table)?;
        let shape = [selection.batch.clone(), selection.kept.clone(), shape[2].clone()];
        self.rewriter.new.broadcast(rows, &shape).map(Some)
    }

    /// Tubelets are cut, selected, and only then projected.
    fn patch_embed(
        &mut self,
        selection: &Selection,
        node: &Node,
        (tubelet, patch): (usize, usize),
    ) -> Result<ValueId, GraphError> {
        let mut operands = self.rewriter.operands(node)?;
        let tubelets = self.rewriter.new.push1(Op::Tubelets { tubelet, patch }, &operands[..1])?;
        operands[0] = self.apply(selection, tubelets)?;
        let kernel = self.rewriter.new.ty(operands[1]).shape.clone();
        let matrix = [kernel[0].clone(), Dim::product(&kernel[1..])];
        operands[1] = self.rewriter.new.reshape(operands[1], &matrix)?;
        self.rewriter.new.push1(Op::Linear, &operands)
    }

    /// `reshape(permute(attention(q, k, v)))` as heads are merged: the same with fewer queries.
    fn attention(&mut self, selection: &Selection, merged: &Node) -> Result<Option<ValueId>, GraphError> {
        const SWAP: [usize; 4] = [0, 2, 1, 3];
        let old = self.rewriter.old;
        let only = |id: ValueId| producer(old, id).filter(|_| self.uses.get(id.0) == Some(&1));
        let Some(permuted) = only(merged.inputs[0]) else { return Ok(None) };
        let Some(attention) = permuted.inputs.first().and_then(|id| only(*id)) else { return Ok(None) };
        let (Op::Permute { axes }, Op::Attention { .. }) = (&permuted.op, &attention.op) else { return Ok(None) };
        let [batch, heads, tokens, width] = old.ty(attention.outputs[0]).shape.as_slice() else { return Ok(None) };
        let features = heads * width;
        if *axes != SWAP || *tokens != selection.tokens || old.ty(merged.outputs[0]).shape[2] != features {
            return Ok(None);
        }
        let mut operands = self.rewriter.operands(attention)?;
        let new = &mut self.rewriter.new;
        let rows = new.permute(operands[0], &SWAP)?;
        let rows = new.reshape(rows, &[batch.clone(), tokens.clone(), features.clone()])?;
        let rows = self.apply(selection, rows)?;
        let new = &mut self.rewriter.new;
        let kept = &selection.kept;
        let rows = new.reshape(rows, &[batch.clone(), kept.clone(), heads.clone(), width.clone()])?;
        operands[0] = new.permute(rows, &SWAP)?;
        let y = new.push1(attention.op.clone(), &operands)?;
        let y = new.permute(y, &SWAP)?;
        new.reshape(y, &[batch.clone(), kept.clone(), features]).map(Some)
    }
}

/// How an operand of a binary operation relates to the tokens of its result.
enum Side {
    /// `[B, N, D]`.
    Tokens,
    /// `[1, N, D]` or `[N, D]`, shared by the batch.
    Table,
    /// The same for every token.
    AllAlike,
}

fn side(ty: &TensorType, selection: &Selection) -> Option<Side> {
    match ty.shape.as_slice() {
        [] | [_] => Some(Side::AllAlike),
        [.., tokens, _] if tokens.is_one() => Some(Side::AllAlike),
        [batch, tokens, _] if *tokens == selection.tokens && *batch == selection.batch => Some(Side::Tokens),
        [batch, tokens, _] if *tokens == selection.tokens && batch.is_one() => Some(Side::Table),
        [tokens, _] if *tokens == selection.tokens => Some(Side::Table),
        _ => None,
    }
}
