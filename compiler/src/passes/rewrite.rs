//! What passes are built with: copies a graph node by node and lets the pass replace a node.

use super::Changed;
use crate::ir::{Def, Dim, Graph, GraphError, Node, ValueId};
use crate::ops::Op;

/// The product of all axes but the last.
pub(super) fn row_count(shape: &[Dim]) -> Dim {
    Dim::product(shape.split_last().map_or(shape, |(_, lead)| lead))
}

/// `[.., D]` as a matrix, `[rows, D]`.
pub(super) fn as_rows(shape: &[Dim]) -> Vec<Dim> {
    std::iter::once(row_count(shape)).chain(shape.last().cloned()).collect()
}

/// A new graph under construction, and where each old value went.
pub(super) struct Rewriter<'a> {
    pub old: &'a Graph,
    pub new: Graph,
    map: Vec<Option<ValueId>>,
    changes: Vec<String>,
}

impl<'a> Rewriter<'a> {
    /// Starts with the sources and no nodes.
    pub fn start(old: &'a Graph) -> Result<Self, GraphError> {
        let mut new = Graph::new(&old.name, &[]);
        new.symbols = old.symbols.clone();
        let mut map = vec![None; old.values.len()];
        for (id, is_input) in old.inputs.iter().map(|id| (id, true)).chain(old.params.iter().map(|id| (id, false))) {
            let value = old.values.get(id.0).ok_or(GraphError::UnknownValue(id.0))?;
            // Straight into the tables: the builder would look every name up again.
            let copy = ValueId(new.values.len());
            new.values.push(value.clone());
            if is_input {
                new.inputs.push(copy)
            } else {
                new.params.push(copy)
            }
            map[id.0] = Some(copy);
        }
        Ok(Self { old, new, map, changes: Vec::new() })
    }

    /// Where an old value went.
    pub fn get(&self, old: ValueId) -> Result<ValueId, GraphError> {
        self.map.get(old.0).copied().flatten().ok_or(GraphError::UnknownValue(old.0))
    }

    /// Where a node's operands went.
    pub fn operands(&self, node: &Node) -> Result<Vec<ValueId>, GraphError> {
        node.inputs.iter().map(|id| self.get(*id)).collect()
    }

    /// True when the node's results have already been put somewhere.
    pub fn is_done(&self, node: &Node) -> bool {
        node.outputs.iter().all(|id| self.get(*id).is_ok())
    }

    /// Appends the node as it is.
    pub fn copy(&mut self, node: &Node) -> Result<(), GraphError> {
        let inputs = self.operands(node)?;
        self.copy_with(node, &inputs)
    }

    /// Appends the node with other operands, values of the new graph.
    pub fn copy_with(&mut self, node: &Node, inputs: &[ValueId]) -> Result<(), GraphError> {
        let results = self.new.push(node.op.clone(), inputs)?;
        self.put(&node.outputs, &results)
    }

    /// Lets `results`, values of the new graph, stand for `old` ones of the same types.
    pub fn replace(&mut self, old: &[ValueId], results: &[ValueId], why: String) -> Result<(), GraphError> {
        self.changes.push(why);
        self.put(old, results)
    }

    fn put(&mut self, old: &[ValueId], results: &[ValueId]) -> Result<(), GraphError> {
        if old.len() != results.len() {
            let message = format!("{} results stand in for {}", results.len(), old.len());
            return Err(GraphError::Other(message));
        }
        for (old, new) in old.iter().zip(results) {
            if self.old.ty(*old) != self.new.ty(*new) {
                let (from, to) = (self.old.ty(*old), self.new.ty(*new));
                return Err(GraphError::Other(format!("%{}: {from} would become {to}", old.0)));
            }
            self.map[old.0] = Some(*new);
            // The name goes with the value, unless it became a source or a value that has a name.
            let value = &mut self.new.values[new.0];
            if value.name.is_none() && matches!(value.def, Def::Node { .. }) {
                value.name.clone_from(&self.old.value(*old).name);
            }
        }
        Ok(())
    }

    /// Notes a change that put nothing in a value's place.
    pub fn note(&mut self, change: String) {
        self.changes.push(change);
    }

    /// The new graph with outputs and updates, or `None` when nothing was changed.
    pub fn finish(mut self) -> Result<Option<Changed>, GraphError> {
        if self.changes.is_empty() {
            return Ok(None);
        }
        for (name, id) in &self.old.outputs {
            let id = self.get(*id)?;
            self.new.output(name, id);
        }
        for (param, id) in &self.old.updates {
            let (param, id) = (self.get(*param)?, self.get(*id)?);
            self.new.update(param, id)?;
        }
        Ok(Some(Changed { graph: self.new, changes: self.changes }))
    }
}

/// A local rule's replacement for a node, and the reason.
pub(super) struct Replacement {
    pub results: Vec<ValueId>,
    pub why: &'static str,
}

impl Replacement {
    /// One value for a node with one result.
    pub fn one(value: ValueId, why: &'static str) -> Option<Self> {
        Some(Self { results: vec![value], why })
    }
}

/// Runs a local rule over every node in order. A rule looks at one operation and, through the new graph it gets, at how
/// its operands are computed; it gets their ids in the old graph and in the new one.
pub(super) fn rewrite_locally(
    graph: &Graph,
    rule: impl Fn(&mut Graph, &[ValueId], &Op, &[ValueId]) -> Result<Option<Replacement>, GraphError>,
) -> Result<Option<Changed>, GraphError> {
    let mut rewriter = Rewriter::start(graph)?;
    for node in &graph.nodes {
        let inputs = rewriter.operands(node)?;
        match rule(&mut rewriter.new, &node.inputs, &node.op, &inputs)? {
            Some(replacement) => {
                let value = node.outputs.first().map_or(0, |id| id.0);
                let change = format!("%{value} ({}): {}", node.op.name(), replacement.why);
                rewriter.replace(&node.outputs, &replacement.results, change)?;
            }
            None => rewriter.copy(node)?,
        }
    }
    rewriter.finish()
}

/// The operation that computes `id`, and its operands; `None` for sources and for one of several results.
pub(super) fn producer(graph: &Graph, id: ValueId) -> Option<&Node> {
    let Def::Node { node, .. } = &graph.values.get(id.0)?.def else { return None };
    graph.nodes.get(node.0).filter(|node| node.outputs.len() == 1)
}

/// How often each value is read, outputs and updates included.
pub(super) fn use_counts(graph: &Graph) -> Vec<usize> {
    let mut counts = vec![0; graph.values.len()];
    for id in graph.nodes.iter().flat_map(|node| &node.inputs).copied().chain(graph.roots()) {
        if let Some(count) = counts.get_mut(id.0) {
            *count += 1;
        }
    }
    counts
}
