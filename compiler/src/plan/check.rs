//! Does a plan run its graph? The question for a plan that was not made here, and the planner's own oracle.

use super::{Plan, PlanError, Step, overwritable, successors};
use crate::ir::{Def, Graph, Node, ValueId};
use crate::ops::Op;
use std::collections::HashSet;

impl Plan {
    /// Checks that every node runs once and after its operands, that nothing is read, returned or kept after it was freed
    /// or overwritten, and that what is overwritten may be. The graph must [verify](crate::verify::verify).
    ///
    /// # Errors
    /// [`PlanError::Unsound`] names the first step that is wrong and why.
    pub fn check(&self, graph: &Graph) -> Result<(), PlanError> {
        let mut check = Check::new(graph, self)?;
        for (time, step) in self.steps.iter().enumerate() {
            check.step(time, step).map_err(|why| unsound(time, why))?;
        }
        let kept = (0..graph.values.len()).map(ValueId).find(|id| {
            let value = graph.value(*id);
            matches!(value.def, Def::Node { .. }) && check.live[id.0] && !check.is_root[id.0]
        });
        match kept {
            Some(id) => Err(unsound(self.steps.len(), format!("value {} is never freed", id.0))),
            None => Ok(()),
        }
    }
}

fn unsound(step: usize, why: impl Into<String>) -> PlanError {
    PlanError::Unsound { step, why: why.into() }
}

/// What is known while the plan is walked; all vectors are indexed by value.
struct Check<'a> {
    graph: &'a Graph,
    /// Time of the last read in the plan's order.
    last_read: Vec<Option<usize>>,
    /// Outputs and updates, which are read when the run is over.
    is_root: Vec<bool>,
    /// Defined, and neither freed nor overwritten.
    live: Vec<bool>,
    /// The value whose memory a value lies in.
    storage: Vec<ValueId>,
    /// Live values in the memory of each.
    sharers: Vec<usize>,
    /// `(parameter, value)`: what may be written over it.
    successors: HashSet<(ValueId, ValueId)>,
}

impl<'a> Check<'a> {
    /// Before the first step. Fails unless every node is in one step.
    fn new(graph: &'a Graph, plan: &Plan) -> Result<Self, PlanError> {
        let count = graph.values.len();
        let mut last_read = vec![None; count];
        let mut runs = vec![false; graph.nodes.len()];
        for (time, step) in plan.steps.iter().enumerate() {
            match (runs.get_mut(step.node.0), graph.nodes.get(step.node.0)) {
                (Some(run), Some(node)) if !*run => {
                    *run = true;
                    node.inputs.iter().for_each(|id| last_read[id.0] = Some(time));
                }
                _ => return Err(unsound(time, format!("node {} runs twice or does not exist", step.node.0))),
            }
        }
        if let Some(node) = runs.iter().position(|run| !run) {
            return Err(unsound(plan.steps.len(), format!("node {node} never runs")));
        }
        let mut is_root = vec![false; count];
        graph.roots().for_each(|id| is_root[id.0] = true);
        let live: Vec<bool> = graph.values.iter().map(|value| !matches!(value.def, Def::Node { .. })).collect();
        let sharers = live.iter().map(|live| usize::from(*live)).collect();
        let storage = (0..count).map(ValueId).collect();
        Ok(Self { graph, last_read, is_root, live, storage, sharers, successors: successors(graph) })
    }

    fn step(&mut self, time: usize, step: &Step) -> Result<(), String> {
        let node = &self.graph.nodes[step.node.0];
        if let Some(id) = node.inputs.iter().find(|id| !self.live[id.0]) {
            return Err(format!("reads value {}, which is not there", id.0));
        }
        let allowed = overwritable(node);
        for (i, (operand, result)) in step.in_place.iter().enumerate() {
            let twice = step.in_place[..i].iter().any(|(x, y)| x == operand || y == result);
            if twice || !allowed.contains(&(*operand, *result)) {
                return Err(format!("cannot write result {result} over operand {operand}"));
            }
            self.overwrite(time, node, *operand, *result)?;
        }
        for (result, id) in node.outputs.iter().enumerate() {
            let over = step.in_place.iter().find(|(_, to)| *to == result).map(|(operand, _)| *operand);
            let over = if matches!(node.op, Op::Reshape { .. }) { Some(0) } else { over };
            if let Some(operand) = over.and_then(|operand| node.inputs.get(operand)) {
                self.storage[id.0] = self.storage[operand.0];
            }
            self.live[id.0] = true;
            self.sharers[self.storage[id.0].0] += 1;
        }
        step.frees.iter().try_for_each(|id| self.free(time, *id))?;
        // An overwritten operand is gone, whether the step says so or, a parameter, cannot.
        for id in step.in_place.iter().filter_map(|(operand, _)| node.inputs.get(*operand)) {
            if !self.live[id.0] {
                continue;
            }
            if !matches!(self.graph.value(*id).def, Def::Param(_)) {
                return Err(format!("overwrites value {} without freeing it", id.0));
            }
            self.live[id.0] = false;
            self.sharers[self.storage[id.0].0] -= 1;
        }
        Ok(())
    }

    /// Nothing reads `id` after `time`.
    fn dies(&self, time: usize, id: ValueId) -> bool {
        !self.is_root[id.0] && self.last_read[id.0].is_none_or(|last| last <= time)
    }

    fn overwrite(&self, time: usize, node: &Node, operand: usize, result: usize) -> Result<(), String> {
        let (Some(x), Some(y)) = (node.inputs.get(operand), node.outputs.get(result)) else {
            return Err(format!("has no operand {operand} or no result {result}"));
        };
        let storage = self.storage[x.0];
        let owned = match self.graph.value(storage).def {
            Def::Node { .. } => true,
            Def::Input(_) => false,
            Def::Param(_) => self.successors.contains(&(storage, *y)),
        };
        let once = node.inputs.iter().filter(|id| *id == x).count() == 1;
        let alone = self.sharers[storage.0] == 1;
        if owned && once && alone && self.dies(time, *x) && self.graph.ty(*x) == self.graph.ty(*y) {
            Ok(())
        } else {
            Err(format!("overwrites value {}, which is still needed or of another type", x.0))
        }
    }

    fn free(&mut self, time: usize, id: ValueId) -> Result<(), String> {
        let is_param = self.graph.values.get(id.0).is_none_or(|value| matches!(value.def, Def::Param(_)));
        if is_param || !self.live[id.0] || !self.dies(time, id) {
            return Err(format!("frees value {}, which is not there or still needed", id.0));
        }
        self.live[id.0] = false;
        self.sharers[self.storage[id.0].0] -= 1;
        Ok(())
    }
}
