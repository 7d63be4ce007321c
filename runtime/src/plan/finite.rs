//! Where a run's numbers first stop being finite.

use super::params::{Params, upload};
use super::{Executor, RunError};
use super::{HostTensor, Operand, PlanBackend};
use std::collections::{BTreeMap, HashSet, VecDeque};
use vjepa_compiler::accumulate::SUM;
use vjepa_compiler::ir::{Def, Graph, ValueId};
use vjepa_compiler::ops::Op;
use vjepa_lower::read_floats;

/// The first value of a run that is NaN or infinite; displayed in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBad {
    /// The input of this name.
    Input(String),
    /// The parameter of this name, before anything was computed on.
    Weight(String),
    /// A node's result, in words.
    Result(String),
}

impl std::fmt::Display for FirstBad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Input(name) => write!(f, "the input `{name}`"),
            Self::Weight(name) => write!(f, "the weight `{name}`"),
            Self::Result(words) => f.write_str(words),
        }
    }
}

/// Nodes that are looked at on the way from a value to the parameter it comes from.
const NEAR: usize = 64;

impl<B: PlanBackend> Executor<B> {
    /// Runs the plan again as far as its first value that is NaN or infinite and says which that is: an input, a
    /// parameter, or a node's result (an activation where the output `loss` depends on it, otherwise a gradient). Nothing is
    /// changed, and no optimiser node runs; none where every value is finite. Every value is read back: slow.
    ///
    /// # Errors
    /// As [`Executor::run`].
    pub fn first_bad(
        &mut self,
        params: &Params<B>,
        inputs: Vec<(&str, HostTensor)>,
    ) -> Result<Option<FirstBad>, RunError> {
        let inputs: BTreeMap<&str, HostTensor> = inputs.into_iter().collect();
        if let Some((name, _)) = inputs.iter().find(|(name, tensor)| **name != "max_norm" && !finite(tensor.floats())) {
            return Ok(Some(FirstBad::Input((*name).to_owned())));
        }
        let sizes = self.bind_sizes(&inputs, params)?;
        self.fits(&sizes, params.device())?;
        self.tokens_exist(&inputs, &sizes)?;
        let mut values: Vec<Option<Operand<B>>> = Vec::new();
        values.resize_with(self.graph().values.len(), || None);
        for id in &self.graph().inputs {
            let tensor = self.graph().source_name(*id).and_then(|name| inputs.get(name));
            values[id.0] = tensor.map(|tensor| upload::<B>(tensor.clone(), params.device()));
        }
        for id in &self.graph().params {
            let name = self.graph().source_name(*id).unwrap_or_default();
            if !params.get(name).is_none_or(|(_, values)| finite(&values)) {
                return Ok(Some(FirstBad::Weight(name.to_owned())));
            }
            values[id.0] = params.operand(name).cloned();
        }
        let steps = self.plan().steps.clone();
        for step in steps {
            let op = &self.graph().nodes[step.node.0].op;
            if matches!(op, Op::AdamW { .. } | Op::Ema | Op::AdamWEma { .. } | Op::AdamWAll { .. }) {
                continue;
            }
            let inputs = &self.graph().nodes[step.node.0].inputs;
            // What comes after an optimiser node is another step's.
            let operands: Option<Vec<Operand<B>>> = inputs.iter().map(|id| values[id.0].clone()).collect();
            let Some(operands) = operands else { continue };
            let results = self.run_node(step.node.0, operands, &sizes, params.device(), None)?;
            let outputs = self.graph().nodes[step.node.0].outputs.clone();
            for (id, result) in outputs.into_iter().zip(results) {
                if let Operand::Float(tensor) = &result
                    && !read_floats::<B>(tensor.clone()).is_ok_and(|values| finite(&values))
                {
                    return Ok(Some(FirstBad::Result(describe(self.graph(), step.node.0))));
                }
                values[id.0] = Some(result);
            }
            for id in &step.frees {
                values[id.0] = None;
            }
        }
        Ok(None)
    }
}

pub(super) fn finite(values: &[f32]) -> bool {
    values.iter().all(|value| value.is_finite())
}

/// A node's result in words.
fn describe(graph: &Graph, node: usize) -> String {
    let kind = if before_loss(graph).contains(&node) { "activation" } else { "gradient" };
    let op = graph.nodes[node].op.name();
    match nearest(graph, node) {
        Some(name) => format!("the {kind} that `{op}` computes at `{name}` (node {node})"),
        None => format!("the {kind} that `{op}` computes (node {node})"),
    }
}

/// Nodes that the loss depends on.
fn before_loss(graph: &Graph) -> HashSet<usize> {
    let mut found = HashSet::new();
    let mut open: Vec<ValueId> = graph.find_output("loss").into_iter().collect();
    while let Some(id) = open.pop() {
        if let Def::Node { node, .. } = graph.value(id).def
            && found.insert(node.0)
        {
            open.extend(&graph.nodes[node.0].inputs);
        }
    }
    found
}

/// The parameter that a node reads, or the nearest one before it.
fn nearest(graph: &Graph, node: usize) -> Option<String> {
    let mut open: VecDeque<usize> = VecDeque::from([node]);
    let mut seen = HashSet::from([node]);
    for _ in 0..NEAR {
        let inputs = &graph.nodes[open.pop_front()?].inputs;
        let param = inputs.iter().find_map(|id| match &graph.value(*id).def {
            Def::Param(name) => Some(name.strip_prefix(SUM).unwrap_or(name).to_owned()),
            Def::Input(_) | Def::Node { .. } => None,
        });
        if param.is_some() {
            return param;
        }
        for id in inputs {
            if let Def::Node { node, .. } = graph.value(*id).def
                && seen.insert(node.0)
            {
                open.push_back(node.0);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Cpu;
    use vjepa_compiler::ir::{Dim, TensorType};

    /// `loss = mean(x · w)`, and `w` becomes `w − x · w`.
    fn executor() -> Executor<Cpu> {
        let mut g = Graph::new("step", &[]);
        let two = || TensorType::f32([Dim::from(2usize)]);
        let x = g.input("x", two()).unwrap();
        let w = g.param("w", two()).unwrap();
        let y = g.mul(x, w).unwrap();
        let loss = g.mean(y, &[0]).unwrap();
        let loss = g.reshape(loss, &[]).unwrap();
        g.output("loss", loss);
        let new = g.sub(w, y).unwrap();
        g.update(w, new).unwrap();
        let mut executor = Executor::new(&g).unwrap();
        executor.guard();
        executor
    }

    fn params(w: [f32; 2]) -> Params<Cpu> {
        let mut params = Params::new(Default::default());
        params.set("w", HostTensor::F32 { shape: vec![2], data: w.to_vec() });
        params
    }

    fn x(data: [f32; 2]) -> Vec<(&'static str, HostTensor)> {
        vec![("x", HostTensor::F32 { shape: vec![2], data: data.to_vec() })]
    }

    #[test]
    fn a_guarded_run_stops_and_gives_the_parameters_back() {
        let mut executor = executor();
        let mut store = params([2.0, 4.0]);
        executor.run(&mut store, x([0.5, 0.5])).unwrap();
        assert_eq!(store.get("w").unwrap().1, [1.0, 2.0]);
        store.set("w", HostTensor::F32 { shape: vec![2], data: vec![1e30, 1.0] });
        let error = executor.run(&mut store, x([1e30, 1.0])).unwrap_err();
        assert!(matches!(&error, RunError::NotFinite { output, .. } if output == "loss"), "{error}");
        // What the loss is read after may have been updated, but is there.
        assert_eq!(store.get("w").unwrap().0, [2]);
    }

    #[test]
    fn what_goes_first_is_named() {
        let mut executor = executor();
        let mut say = |w, data| executor.first_bad(&params(w), x(data)).unwrap().map(|bad| bad.to_string());
        assert_eq!(say([1.0, 2.0], [1.0, 1.0]), None);
        assert_eq!(say([1.0, f32::NAN], [1.0, 1.0]).as_deref(), Some("the weight `w`"));
        assert_eq!(say([1.0, 1.0], [f32::INFINITY, 1.0]).as_deref(), Some("the input `x`"));
        let said = say([1e30, 1.0], [1e30, 1.0]).unwrap();
        assert_eq!(said, "the activation that `mul` computes at `w` (node 0)");
    }
}
