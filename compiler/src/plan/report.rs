//! The cost of a graph, as numbers and as a table.

use super::{Memory, Plan, PlanError};
use crate::ir::{Dim, Graph, Node, Sizes, TensorType};
use std::collections::BTreeMap;
use std::fmt;

/// Cost of one node under given sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCost {
    /// Floating-point operations; a multiply-add counts 2.
    pub flops: u64,
    /// Bytes read and written if every operand and result goes through memory once.
    pub bytes: u64,
}

impl NodeCost {
    /// Measures a node of `graph` under `sizes`.
    ///
    /// # Errors
    /// [`PlanError::Size`] when a symbol has no size or a number does not fit 64 bits.
    pub fn new(graph: &Graph, node: &Node, sizes: &Sizes) -> Result<Self, PlanError> {
        let operands: Vec<&TensorType> = node.inputs.iter().map(|id| graph.ty(*id)).collect();
        let results: Vec<&TensorType> = node.outputs.iter().map(|id| graph.ty(*id)).collect();
        let cost = node.op.cost(&operands, &results);
        Ok(Self { flops: number(&cost.flops, sizes)?, bytes: number(&cost.bytes, sizes)? })
    }
}

fn number(dim: &Dim, sizes: &Sizes) -> Result<u64, PlanError> {
    dim.eval(sizes).map(|n| n as u64).ok_or_else(|| PlanError::Size(dim.to_string()))
}

/// Totals of one kind of operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpTotals {
    /// Nodes of the kind.
    pub count: u64,
    /// Floating-point operations; a multiply-add counts 2.
    pub flops: u64,
    /// Bytes read and written.
    pub bytes: u64,
}

impl OpTotals {
    /// All nodes of `graph` under `sizes`.
    ///
    /// # Errors
    /// As [`NodeCost::new`].
    pub fn of(graph: &Graph, sizes: &Sizes) -> Result<Self, PlanError> {
        let mut total = Self::default();
        for node in &graph.nodes {
            total.add(NodeCost::new(graph, node, sizes)?);
        }
        Ok(total)
    }

    fn add(&mut self, cost: NodeCost) {
        self.count += 1;
        self.flops = self.flops.saturating_add(cost.flops);
        self.bytes = self.bytes.saturating_add(cost.bytes);
    }
}

/// Cost of a graph under some sizes. Printed, it is a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Name of the graph.
    pub graph: String,
    /// Everything together.
    pub total: OpTotals,
    /// Parameter elements.
    pub parameters: u64,
    /// Memory of the plan.
    pub memory: Memory,
    /// By operation name, the most arithmetic first.
    pub by_op: Vec<(&'static str, OpTotals)>,
}

impl Report {
    /// Measures `graph` run by `plan` under `sizes`.
    ///
    /// # Errors
    /// [`PlanError::Size`] when a symbol has no size or a number does not fit 64 bits.
    pub fn new(graph: &Graph, plan: &Plan, sizes: &Sizes) -> Result<Self, PlanError> {
        let mut kinds: BTreeMap<&'static str, OpTotals> = BTreeMap::new();
        let mut total = OpTotals::default();
        for node in &graph.nodes {
            let cost = NodeCost::new(graph, node, sizes)?;
            for totals in [kinds.entry(node.op.name()).or_default(), &mut total] {
                totals.add(cost);
            }
        }
        let mut by_op: Vec<_> = kinds.into_iter().collect();
        by_op.sort_by_key(|(_, totals)| std::cmp::Reverse((totals.flops, totals.bytes)));
        let mut parameters = 0u64;
        for id in &graph.params {
            parameters = parameters.saturating_add(number(&graph.ty(*id).elements(), sizes)?);
        }
        Ok(Self { graph: graph.name.clone(), total, parameters, memory: plan.memory(graph, sizes)?, by_op })
    }

    /// Floating-point operations for each byte moved.
    pub fn intensity(&self) -> f64 {
        self.total.flops as f64 / (self.total.bytes as f64).max(1.0)
    }
}

/// Width of a column of names.
pub(super) fn widest<'a>(names: impl Iterator<Item = &'a str>) -> usize {
    names.map(|name| name.chars().count()).max().unwrap_or(0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = widest(self.by_op.iter().map(|(name, _)| *name).chain([self.graph.as_str(), "total"]));
        writeln!(f, "{:<width$} {:>7} {:>14} {:>14}", self.graph, "nodes", "GFLOP", "MB moved")?;
        let total = ("total", self.total);
        for (name, totals) in self.by_op.iter().copied().chain([total]) {
            let (gflop, megabytes) = (totals.flops as f64 / 1e9, totals.bytes as f64 / 1e6);
            writeln!(f, "{name:<width$} {:>7} {gflop:>14.4} {megabytes:>14.3}", totals.count)?;
        }
        let megabytes = |n: u64| n as f64 / 1e6;
        writeln!(f, "parameters  {:.3} M ({:.1} MB)", megabytes(self.parameters), megabytes(self.memory.parameters))?;
        writeln!(f, "peak memory {:.1} MB", megabytes(self.memory.peak))
    }
}
