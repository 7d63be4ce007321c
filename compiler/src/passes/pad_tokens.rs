//! Lets lists of token indices be longer than they are, so that few lengths repeat: what is beyond their end changes no result.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{DType, Def, Dim, Graph, GraphError, Node, Scalar, TensorType, ValueId};
use crate::ops::{Op, Unary};
use std::collections::{BTreeMap, HashMap};

mod kept;

/// See the module's first line.
///
/// For each of the inputs `indices`, `i32[B, N]`, the graph gets another, [`REAL`]`MULTIPLE/NAME`, `f32[N]`: 1 for an index
/// that counts, 0 for padding, which may be any token. Attention gives padding no share, means and sums leave it out and are
/// divided by what counts. So no gradient reaches it either. Other inputs with an axis as long as a list have padding there
/// too, any finite numbers. Runs on a forward graph after dead code is gone, before rows are merged; an operation that it does
/// not know how to mask is an error.
pub struct PadTokens {
    /// Inputs whose lists may be padded.
    pub indices: Vec<String>,
    /// What N is to be a multiple of; for who fills the inputs.
    pub multiple: usize,
}

/// What the inputs that say what counts are called before the name of the list.
pub const REAL: &str = "real/";

/// Channels that queries and keys get for the mask: as many as are loaded at once.
const CHANNELS: usize = 4;

/// Added to the score of padding: the exponential of it is zero, and it is far from what f32 holds.
const HIDDEN: f64 = -1e9;

/// An axis of a value along which padding lies.
#[derive(Clone, PartialEq)]
struct Padding {
    axis: usize,
    /// What lies along it, one after the other.
    parts: Vec<Part>,
}

/// A list of tokens with what of it counts, `f32[size]`, or so many tokens that all count.
#[derive(Clone, PartialEq)]
struct Part {
    size: Dim,
    real: Option<ValueId>,
}

impl Padding {
    /// The parts from one place to another, which must be between parts.
    fn cut(&self, start: &Dim, end: &Dim) -> Option<Self> {
        let mut at = Dim::default();
        let mut parts = Vec::new();
        let mut inside = false;
        for part in &self.parts {
            inside = (inside || at == *start) && at != *end;
            if inside {
                parts.push(part.clone());
            }
            at = &at + &part.size;
        }
        let whole = parts.iter().fold(start.clone(), |sum, part| &sum + &part.size) == *end;
        (whole && !parts.is_empty()).then_some(Self { axis: self.axis, parts })
    }
}

impl Pass for PadTokens {
    fn name(&self) -> &'static str {
        "pad-tokens"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut masker = Masker::start(graph, &self.indices, self.multiple)?;
        for node in &graph.nodes {
            let operands = masker.rewriter.operands(node)?;
            let paddings: Vec<Option<Padding>> = operands.iter().map(|id| masker.paddings.get(id).cloned()).collect();
            match masker.masked(node, &operands, &paddings)? {
                Some((results, padding)) => {
                    let why = format!("%{} ({}): without padding", node.outputs[0].0, node.op.name());
                    masker.rewriter.replace(&node.outputs, &results, why)?;
                    masker.put(&results, padding);
                }
                None => {
                    masker.rewriter.copy(node)?;
                    let results: Vec<ValueId> =
                        node.outputs.iter().map(|id| masker.rewriter.get(*id)).collect::<Result<_, _>>()?;
                    let padding = masker.kept(node, &results, &paddings)?;
                    masker.put(&results, padding);
                }
            }
        }
        for (name, id) in &graph.outputs {
            if masker.paddings.contains_key(&masker.rewriter.get(*id)?) {
                return Err(GraphError::Other(format!("the output `{name}` has a row for each token of a list")));
            }
        }
        masker.rewriter.finish()
    }
}

/// The new graph, and where its values have padding.
struct Masker<'a> {
    rewriter: Rewriter<'a>,
    paddings: HashMap<ValueId, Padding>,
    /// For each symbol that is the length of a list, what counts of it.
    lengths: BTreeMap<String, ValueId>,
}

/// A node's results, and the padding of the first.
type Masked = Option<(Vec<ValueId>, Option<Padding>)>;

impl<'a> Masker<'a> {
    fn start(graph: &'a Graph, indices: &[String], multiple: usize) -> Result<Self, GraphError> {
        let mut masker = Self { rewriter: Rewriter::start(graph)?, paddings: HashMap::new(), lengths: BTreeMap::new() };
        for name in indices {
            let refused = || GraphError::Other(format!("`{name}` is no input of indices [B, N] with an N of its own"));
            let id = graph.find(name).ok_or_else(refused)?;
            let [_, length] = graph.ty(id).shape.as_slice() else { return Err(refused()) };
            let is_index = graph.ty(id).dtype == DType::I32 && matches!(graph.value(id).def, Def::Input(_));
            let symbol = graph.symbols.iter().find(|symbol| is_index && Dim::symbol(symbol) == *length);
            let symbol = symbol.ok_or_else(refused)?;
            let real = format!("{REAL}{multiple}/{name}");
            let real = masker.rewriter.new.input(&real, TensorType::f32([length.clone()]))?;
            masker.rewriter.note(format!("`{name}` may have padding"));
            let parts = vec![Part { size: length.clone(), real: Some(real) }];
            masker.paddings.insert(masker.rewriter.get(id)?, Padding { axis: 1, parts });
            if masker.lengths.insert(symbol.clone(), real).is_some() {
                return Err(refused());
            }
        }
        for id in &graph.inputs {
            let (name, shape) = (graph.source_name(*id).unwrap_or_default(), &graph.ty(*id).shape);
            let known = masker.rewriter.get(*id)?;
            if masker.paddings.contains_key(&known) || !shape.iter().any(|dim| masker.is_padded(dim)) {
                continue;
            }
            let padding = masker.of_shape(shape).ok_or_else(|| {
                GraphError::Other(format!(
                    "the input `{name}` has an axis for tokens of several lists, or several for one"
                ))
            })?;
            masker.paddings.insert(known, padding);
        }
        Ok(masker)
    }

    fn put(&mut self, results: &[ValueId], padding: Option<Padding>) {
        if let (Some(first), Some(padding)) = (results.first(), padding) {
            self.paddings.insert(*first, padding);
        }
    }

    /// The symbols of list lengths in a dimension.
    fn is_padded(&self, dim: &Dim) -> bool {
        dim.symbols().any(|symbol| self.lengths.contains_key(symbol))
    }

    /// What stands for a node whose result would mix padding with what counts; `None` for one that is copied.
    fn masked(
        &mut self,
        node: &Node,
        operands: &[ValueId],
        paddings: &[Option<Padding>],
    ) -> Result<Masked, GraphError> {
        match (&node.op, operands, paddings) {
            (Op::Attention { scale }, [q, k, v], [of_q, Some(of_k), Some(of_v)]) => {
                if of_k.axis != 2 || of_k != of_v || of_q.as_ref().is_some_and(|padding| padding.axis != 2) {
                    return Err(unknown(node));
                }
                let real = self.real(of_k)?;
                let y = self.attention([*q, *k, *v], *scale, real)?;
                Ok(Some((vec![y], of_q.clone())))
            }
            (Op::Sum { axes }, [x], [Some(padding)]) if axes.contains(&padding.axis) => {
                let real = self.real_of(*x, padding)?;
                let g = &mut self.rewriter.new;
                let masked = g.mul(*x, real)?;
                Ok(Some((vec![g.sum(masked, axes)?], None)))
            }
            (Op::Mean { axes }, [x], [Some(padding)]) if axes.contains(&padding.axis) => {
                let real = self.real_of(*x, padding)?;
                let g = &mut self.rewriter.new;
                let masked = g.mul(*x, real)?;
                let sum = g.sum(masked, axes)?;
                let shape = g.ty(*x).shape.clone();
                let others = axes.iter().filter(|axis| **axis != padding.axis).filter_map(|axis| shape.get(*axis));
                let share = g.mul_scalar(sum, Scalar::recip(Dim::product(others)))?;
                let count = self.real(padding)?;
                let g = &mut self.rewriter.new;
                let count = g.sum(count, &[0])?;
                let count = g.unary(Unary::Recip, count)?;
                let ones = vec![Dim::from(1usize); shape.len()];
                let count = g.reshape(count, &ones)?;
                Ok(Some((vec![g.mul(share, count)?], None)))
            }
            (Op::MulScalar(c), [x], [padding]) if self.is_padded(&c.over) => {
                let factor = self.over(c, node)?;
                let g = &mut self.rewriter.new;
                let ones = vec![Dim::from(1usize); g.ty(*x).rank()];
                let factor = g.reshape(factor, &ones)?;
                Ok(Some((vec![g.mul(*x, factor)?], padding.clone())))
            }
            _ => Ok(None),
        }
    }

    /// What counts along an axis, `f32[size]`.
    fn real(&mut self, padding: &Padding) -> Result<ValueId, GraphError> {
        let g = &mut self.rewriter.new;
        let mut parts = Vec::with_capacity(padding.parts.len());
        for part in &padding.parts {
            parts.push(match part.real {
                Some(real) => real,
                None => g.full(1.0, TensorType::f32([part.size.clone()]))?,
            });
        }
        match parts.as_slice() {
            [one] => Ok(*one),
            _ => g.push1(Op::Concat { axis: 0 }, &parts),
        }
    }

    /// What counts, in a shape that multiplies `x`.
    fn real_of(&mut self, x: ValueId, padding: &Padding) -> Result<ValueId, GraphError> {
        let real = self.real(padding)?;
        let g = &mut self.rewriter.new;
        let mut shape = vec![Dim::from(1usize); g.ty(x).rank()];
        let size = g.ty(x).shape.get(padding.axis).cloned();
        match (shape.get_mut(padding.axis), size) {
            (Some(place), Some(size)) => *place = size,
            _ => return Err(GraphError::Other(format!("%{} has no axis {}", x.0, padding.axis))),
        }
        g.reshape(real, &shape)
    }

    /// `value / over` with what counts in place of lengths, `f32[1]`.
    fn over(&mut self, c: &Scalar, node: &Node) -> Result<ValueId, GraphError> {
        let mut terms = Vec::new();
        let mut rest = None;
        for (symbols, factor) in c.over.terms() {
            let (lengths, others): (Vec<&String>, Vec<&String>) =
                symbols.iter().partition(|symbol| self.lengths.contains_key(symbol.as_str()));
            // Over several terms, a size that is not a length would have to be a value.
            let others = Dim::from_terms([(others.into_iter().cloned().collect(), 1)]);
            if rest.replace(others.clone()).is_some_and(|rest| rest != others) {
                return Err(unknown(node));
            }
            terms.push((lengths.into_iter().cloned().collect::<Vec<String>>(), factor));
        }
        let mut total = None;
        for (lengths, factor) in terms {
            let ty = TensorType::f32([Dim::from(1usize)]);
            let mut term = self.rewriter.new.full(factor as f64, ty)?;
            for length in lengths {
                let real = self.lengths.get(&length).copied().ok_or_else(|| unknown(node))?;
                let count = self.rewriter.new.sum(real, &[0])?;
                term = self.rewriter.new.mul(term, count)?;
            }
            total = Some(match total {
                Some(total) => self.rewriter.new.add(total, term)?,
                None => term,
            });
        }
        let (Some(total), Some(rest)) = (total, rest) else { return Err(unknown(node)) };
        let inverse = self.rewriter.new.unary(Unary::Recip, total)?;
        self.rewriter.new.mul_scalar(inverse, Scalar { value: c.value, over: rest })
    }

    /// Attention with more channels: 1 in queries, and in keys 0 or, for padding, what hides them.
    fn attention(&mut self, [q, k, v]: [ValueId; 3], scale: f64, real: ValueId) -> Result<ValueId, GraphError> {
        let g = &mut self.rewriter.new;
        let [_, _, _, width] = g.ty(q).shape.as_slice() else {
            return Err(GraphError::Other(format!("{} is not [B, H, N, d]", g.ty(q))));
        };
        let width = width.clone();
        let extra = |g: &Graph, of: ValueId, channels: usize| {
            let mut shape = g.ty(of).shape.clone();
            if let Some(last) = shape.last_mut() {
                *last = Dim::from(channels);
            }
            TensorType::new(g.ty(of).dtype, shape)
        };
        let ones = g.full(1.0, extra(g, q, CHANNELS))?;
        let q = g.push1(Op::Concat { axis: 3 }, &[q, ones])?;
        let keys = g.ty(real).shape[0].clone();
        let padding = g.mul_scalar(real, -1.0)?;
        let padding = g.add_scalar(padding, 1.0)?;
        let hidden = g.mul_scalar(padding, HIDDEN)?;
        let one = Dim::from(1usize);
        let hidden = g.reshape(hidden, &[one.clone(), one.clone(), keys, one])?;
        let hidden = g.broadcast(hidden, &extra(g, k, 1).shape)?;
        let zeros = g.full(0.0, extra(g, k, CHANNELS - 1))?;
        let k = g.push1(Op::Concat { axis: 3 }, &[k, hidden, zeros])?;
        let zeros = g.full(0.0, extra(g, v, CHANNELS))?;
        let v = g.push1(Op::Concat { axis: 3 }, &[v, zeros])?;
        let y = g.push1(Op::Attention { scale }, &[q, k, v])?;
        g.slice(y, 3, Dim::default(), width)
    }
}

fn unknown(node: &Node) -> GraphError {
    let value = node.outputs.first().map_or(0, |id| id.0);
    GraphError::Other(format!("%{value} ({}) cannot be computed from lists of tokens with padding", node.op.name()))
}

#[cfg(test)]
mod tests;
