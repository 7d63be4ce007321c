//! Stacks the rows of several values that go through the same weights, so that each layer runs once for all of them.

use super::rewrite::{Rewriter, as_rows, row_count};
use super::{Changed, Pass};
use crate::ir::{Def, Dim, Graph, GraphError, Node, ValueId};
use crate::ops::{Binary, Op, Unary};
use std::collections::{BTreeMap, HashMap};

/// See the module's first line.
///
/// V-JEPA's encoder and predictor run once for each mask pair. Where their tokens `[B, N0, D]` and `[B, N1, D]` meet the
/// same weight, this stacks them along the row axis as `[B*N0 + B*N1, D]`: a weight is then packed once for all of them, its
/// gradient is one product instead of a sum of several, and no product has few rows. Linear layers are the reason; norms,
/// GELU and sums between them are merged too, so that the rows stay stacked from one layer to the next. Everything else
/// (attention) reads its own rows as a slice, which is a view.
///
/// Runs before differentiation, so that the backward pass is merged too.
pub struct MergeRows;

impl Pass for MergeRows {
    fn name(&self) -> &'static str {
        "merge-rows"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let groups = Groups::find(graph).worthwhile(graph);
        if groups.members.is_empty() {
            return Ok(None);
        }
        let mut merger = Merger { rewriter: Rewriter::start(graph)?, merged: HashMap::new() };
        for members in groups.order(graph) {
            match members.as_slice() {
                [single] => merger.rewriter.copy(&graph.nodes[*single])?,
                _ => merger.merge(&members)?,
            }
        }
        merger.rewriter.finish()
    }
}

/// Positions of the operands whose rows are stacked; the others are shared. `None` for operations that are
/// not merged.
fn row_operands(graph: &Graph, node: &Node) -> Option<&'static [usize]> {
    let result = graph.ty(*node.outputs.first()?);
    let operands: &[usize] = match node.op {
        Op::Linear | Op::LayerNorm { .. } | Op::Unary(Unary::Gelu) => &[0],
        Op::Binary(Binary::Add) if node.inputs.iter().all(|id| graph.ty(*id) == result) => &[0, 1],
        _ => return None,
    };
    (result.rank() >= 2).then_some(operands)
}

/// Properties that merged nodes have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Nodes of one level do not depend on each other.
    level: usize,
    /// The operation with its attributes, element type and width.
    what: (String, String),
    operands: Vec<Operand>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Operand {
    /// The same value for all.
    Shared(ValueId),
    /// Each its own, results of this group.
    Rows(Option<usize>),
}

/// Sets of nodes that are computed as one.
struct Groups {
    /// Positions of the nodes of each group, ascending.
    members: Vec<Vec<usize>>,
    /// For each node the group it is in.
    of: Vec<Option<usize>>,
}

impl Groups {
    /// Groups nodes level by level. The level of a node is the number of nodes that could be merged on the longest path to
    /// it, itself included: a path from one group to another always goes up, so that merging makes no cycle.
    fn find(graph: &Graph) -> Self {
        let levels = levels(graph);
        let mut by_level: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (position, node) in graph.nodes.iter().enumerate() {
            if row_operands(graph, node).is_some() {
                by_level.entry(levels[position]).or_default().push(position);
            }
        }
        let mut groups = Self { members: Vec::new(), of: vec![None; graph.nodes.len()] };
        for (level, positions) in by_level {
            let mut alike: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
            for position in positions {
                if let Some(key) = groups.key(graph, &graph.nodes[position], level) {
                    alike.entry(key).or_default().push(position);
                }
            }
            for members in alike.into_values().filter(|members| members.len() > 1) {
                members.iter().for_each(|position| groups.of[*position] = Some(groups.members.len()));
                groups.members.push(members);
            }
        }
        groups
    }

    fn key(&self, graph: &Graph, node: &Node, level: usize) -> Option<Key> {
        let rows = row_operands(graph, node)?;
        let x = graph.ty(node.inputs[0]);
        let describe = |(position, id): (usize, &ValueId)| match (rows.contains(&position), &node.op) {
            (false, _) => Operand::Shared(*id),
            // Weights in common are reason enough, wherever the rows come from.
            (true, Op::Linear | Op::LayerNorm { .. }) if node.inputs.len() > 1 => Operand::Rows(None),
            (true, _) => Operand::Rows(self.of_value(graph, *id)),
        };
        let operands: Vec<Operand> = node.inputs.iter().enumerate().map(describe).collect();
        let joined = |operand: &Operand| matches!(operand, Operand::Shared(_) | Operand::Rows(Some(_)));
        let what = (format!("{:?}", node.op), format!("{}[{}]", x.dtype.name(), x.shape.last()?));
        operands.iter().any(joined).then_some(Key { level, what, operands })
    }

    /// The group whose result `id` is.
    fn of_value(&self, graph: &Graph, id: ValueId) -> Option<usize> {
        self.of[made_by(graph, id)?]
    }

    /// Only groups connected to one of linear layers: norms and sums alone are not worth stacking rows for.
    fn worthwhile(self, graph: &Graph) -> Self {
        let mut component: Vec<usize> = (0..self.members.len()).collect();
        for (group, members) in self.members.iter().enumerate() {
            for id in members.iter().flat_map(|position| &graph.nodes[*position].inputs) {
                if let Some(other) = self.of_value(graph, *id) {
                    let (a, b) = (root(&mut component, group), root(&mut component, other));
                    component[a.max(b)] = a.min(b);
                }
            }
        }
        let mut linear = vec![false; self.members.len()];
        for (group, members) in self.members.iter().enumerate() {
            if graph.nodes[members[0]].op == Op::Linear {
                linear[root(&mut component, group)] = true;
            }
        }
        let mut kept = Self { members: Vec::new(), of: vec![None; self.of.len()] };
        for (group, members) in self.members.into_iter().enumerate() {
            if linear[root(&mut component, group)] {
                members.iter().for_each(|position| kept.of[*position] = Some(kept.members.len()));
                kept.members.push(members);
            }
        }
        kept
    }

    /// All nodes, those of a group together, in an order in which operands come first; otherwise as they were.
    fn order(&self, graph: &Graph) -> Vec<Vec<usize>> {
        let members = |position: usize| match self.of[position] {
            Some(group) => self.members[group].clone(),
            None => vec![position],
        };
        let (mut done, mut entered) = (vec![false; graph.nodes.len()], vec![false; graph.nodes.len()]);
        let mut order = Vec::new();
        for start in 0..graph.nodes.len() {
            // A stack of our own: what a member of a group needs may be a long way behind.
            let mut pending = vec![start];
            while let Some(position) = pending.pop() {
                if done[position] {
                    continue;
                }
                let members = members(position);
                if std::mem::replace(&mut entered[members[0]], true) {
                    members.iter().for_each(|position| done[*position] = true);
                    order.push(members);
                    continue;
                }
                pending.push(position);
                let operands = members.iter().flat_map(|position| &graph.nodes[*position].inputs);
                let needed: Vec<usize> = operands.filter_map(|id| made_by(graph, *id)).filter(|p| !done[*p]).collect();
                pending.extend(needed.into_iter().rev());
            }
        }
        order
    }
}

/// Position of the node that computes `id`.
fn made_by(graph: &Graph, id: ValueId) -> Option<usize> {
    match graph.value(id).def {
        Def::Node { node, .. } => Some(node.0),
        _ => None,
    }
}

fn levels(graph: &Graph) -> Vec<usize> {
    let mut levels: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    for node in &graph.nodes {
        let operands = node.inputs.iter().filter_map(|id| made_by(graph, *id));
        let below = operands.filter_map(|position| levels.get(position).copied()).max().unwrap_or(0);
        levels.push(below + usize::from(row_operands(graph, node).is_some()));
    }
    levels
}

fn root(component: &mut [usize], mut group: usize) -> usize {
    while component[group] != group {
        component[group] = component[component[group]];
        group = component[group];
    }
    group
}

struct Merger<'a> {
    rewriter: Rewriter<'a>,
    /// Old values and the new one that holds their stacked rows.
    merged: HashMap<Vec<ValueId>, ValueId>,
}

impl Merger<'_> {
    /// One node for all `members`, and a view of its own rows for each.
    fn merge(&mut self, members: &[usize]) -> Result<(), GraphError> {
        let old = self.rewriter.old;
        let first = &old.nodes[members[0]];
        let rows = row_operands(old, first).unwrap_or_default();
        let mut operands = Vec::with_capacity(first.inputs.len());
        for (position, shared) in first.inputs.iter().enumerate() {
            operands.push(if rows.contains(&position) {
                let parts: Vec<ValueId> = members.iter().map(|member| old.nodes[*member].inputs[position]).collect();
                self.below_each_other(parts)?
            } else {
                self.rewriter.get(*shared)?
            });
        }
        let whole = self.rewriter.new.push1(first.op.clone(), &operands)?;
        let results: Vec<ValueId> = members.iter().map(|member| old.nodes[*member].outputs[0]).collect();
        let mut start = Dim::default();
        for id in &results {
            let shape = &old.ty(*id).shape;
            let end = &start + &row_count(shape);
            let part = self.rewriter.new.slice(whole, 0, start, end.clone())?;
            let part = self.rewriter.new.reshape(part, shape)?;
            let why = format!("%{} ({}): rows of one with {} others", id.0, first.op.name(), members.len() - 1);
            self.rewriter.replace(&[*id], &[part], why)?;
            start = end;
        }
        self.merged.insert(results, whole);
        Ok(())
    }

    /// Old values `[.., D]` as one new `[rows, D]`.
    fn below_each_other(&mut self, parts: Vec<ValueId>) -> Result<ValueId, GraphError> {
        if let Some(whole) = self.merged.get(&parts) {
            return Ok(*whole);
        }
        let mut matrices = Vec::with_capacity(parts.len());
        for id in &parts {
            let shape = &self.rewriter.old.ty(*id).shape;
            let part = self.rewriter.get(*id)?;
            matrices.push(self.rewriter.new.reshape(part, &as_rows(shape))?);
        }
        let whole = self.rewriter.new.push1(Op::Concat { axis: 0 }, &matrices)?;
        self.merged.insert(parts, whole);
        Ok(whole)
    }
}

#[cfg(test)]
mod tests;
