//! The order of the nodes: the graph's own, except that optimiser nodes come early and constants late.

use crate::ir::{Def, Graph, ValueId};
use crate::ops::Op;

/// Positions of the nodes in the order they run.
pub(super) fn order(graph: &Graph) -> Vec<usize> {
    let mut schedule = Schedule::new(graph);
    let eager: Vec<usize> = (0..graph.nodes.len()).filter(|i| schedule.is_eager(*i)).collect();
    for position in eager {
        schedule.emit_if_ready(position);
    }
    for position in 0..graph.nodes.len() {
        if !graph.nodes[position].inputs.is_empty() {
            schedule.emit(position);
        }
    }
    for position in 0..graph.nodes.len() {
        schedule.emit(position);
    }
    schedule.order
}

struct Schedule<'a> {
    graph: &'a Graph,
    order: Vec<usize>,
    emitted: Vec<bool>,
    /// For an optimiser node, how many nodes it waits for.
    waiting: Vec<usize>,
    /// For each node, the optimiser nodes that wait for it.
    wakes: Vec<Vec<usize>>,
}

impl<'a> Schedule<'a> {
    fn new(graph: &'a Graph) -> Self {
        let count = graph.nodes.len();
        let mut schedule = Self {
            graph,
            order: Vec::with_capacity(count),
            emitted: vec![false; count],
            waiting: vec![0; count],
            wakes: vec![Vec::new(); count],
        };
        let mut readers: Vec<Vec<usize>> = vec![Vec::new(); graph.values.len()];
        for (position, node) in graph.nodes.iter().enumerate() {
            if schedule.is_eager(position) {
                let producers = node.inputs.iter().filter_map(|id| schedule.producer(*id));
                // Earlier readers of the old values go first, so that those can be overwritten.
                let mut before: Vec<usize> = producers.collect();
                before.extend(node.inputs.iter().filter(|id| is_param(graph, **id)).flat_map(|id| &readers[id.0]));
                before.sort_unstable();
                before.dedup();
                before.retain(|other| !graph.nodes[*other].inputs.is_empty());
                schedule.waiting[position] = before.len();
                for other in before {
                    schedule.wakes[other].push(position);
                }
            }
            for id in &node.inputs {
                readers[id.0].push(position);
            }
        }
        schedule
    }

    fn is_eager(&self, position: usize) -> bool {
        matches!(self.graph.nodes[position].op, Op::AdamW { .. } | Op::Ema | Op::AdamWEma { .. } | Op::AdamWAll { .. })
    }

    fn producer(&self, id: ValueId) -> Option<usize> {
        match self.graph.value(id).def {
            Def::Node { node, .. } => Some(node.0),
            _ => None,
        }
    }

    fn emit_if_ready(&mut self, position: usize) {
        if self.waiting[position] == 0 {
            self.emit(position);
        }
    }

    /// Appends a node whose operands are there or are constants, and then the optimiser nodes it made ready.
    fn emit(&mut self, position: usize) {
        let mut ready = vec![position];
        while let Some(position) = ready.pop() {
            if self.emitted[position] {
                continue;
            }
            let operands = self.graph.nodes[position].inputs.iter().filter_map(|id| self.producer(*id));
            for constant in operands.collect::<Vec<_>>() {
                if !self.emitted[constant] {
                    self.append(constant);
                }
            }
            self.append(position);
            for woken in std::mem::take(&mut self.wakes[position]) {
                self.waiting[woken] -= 1;
                if self.waiting[woken] == 0 {
                    ready.push(woken);
                }
            }
        }
    }

    fn append(&mut self, position: usize) {
        self.emitted[position] = true;
        self.order.push(position);
    }
}

fn is_param(graph: &Graph, id: ValueId) -> bool {
    matches!(graph.value(id).def, Def::Param(_))
}
