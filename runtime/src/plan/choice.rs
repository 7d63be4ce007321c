//! What runs an operation: a kernel of the back end's, Burn's operations, or what it is decomposed into.

use super::executor::cannot_plan;
use super::{Executor, PlanBackend, RunError};
use vjepa_compiler::ir::{Graph, Node, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_compiler::passes::{CommonScalars, Decompose, Pass, Pipeline};

/// How often decomposition is repeated: attention in softmax in exp is the deepest there is.
const DECOMPOSITION_DEPTH: usize = 4;

impl<B: PlanBackend> Executor<B> {
    /// Fails at the first node that neither a kernel nor Burn runs.
    pub(super) fn supported(graph: &Graph, kernels: bool) -> Result<(), RunError> {
        match graph.nodes.iter().enumerate().find(|(_, node)| !Self::runs(kernels, &node.op, &operands(graph, node))) {
            Some((position, node)) => Err(RunError::Unsupported { op: node.op.name(), node: position }),
            None => Ok(()),
        }
    }

    /// The graph with the semantic operations decomposed that `B` has no kernel for and Burn no operation.
    ///
    /// # Errors
    /// [`RunError::Plan`] when the graph is ill formed.
    pub fn lower(graph: &Graph) -> Result<Graph, RunError> {
        Self::lower_for(graph, true)
    }

    /// [`Executor::lower`], with or without the back end's kernels.
    pub(super) fn lower_for(graph: &Graph, kernels: bool) -> Result<Graph, RunError> {
        let pass = Decompose::unless_on(move |op, operands| Self::runs(kernels, op, operands));
        let mut lowered = graph.clone();
        let mut decomposed = false;
        if kernels && B::IS_DEVICE {
            lowered = Pipeline::device().run(&lowered).map_err(|error| cannot_plan(graph, &error))?.graph;
        }
        // Parts of a semantic operation may be semantic themselves; nothing nests deeper than this.
        for _ in 0..DECOMPOSITION_DEPTH {
            match pass.run(&lowered).map_err(|error| cannot_plan(graph, &error))? {
                Some(changed) => (lowered, decomposed) = (changed.graph, true),
                None => break,
            }
        }
        // An optimiser in parts computes the same few rates for each of hundreds of parameters.
        if decomposed && let Some(changed) = CommonScalars.run(&lowered).map_err(|error| cannot_plan(graph, &error))? {
            lowered = changed.graph;
        }
        Ok(lowered)
    }

    /// Whether an operation is run whole, by a kernel, by Burn's operations or with other ranks.
    fn runs(kernels: bool, op: &Op, operands: &[&TensorType]) -> bool {
        op.is_over_ranks() || Self::has_kernel(kernels, op, operands) || B::lowering(op).is_some()
    }

    fn has_kernel(kernels: bool, op: &Op, operands: &[&TensorType]) -> bool {
        kernels && B::chooses(op, operands) && B::kernel(op).is_some()
    }

    /// For each node of a lowered graph, whether a kernel runs it; Burn's operations run the others.
    pub(super) fn by_kernel(graph: &Graph, kernels: bool) -> Vec<bool> {
        graph.nodes.iter().map(|node| Self::has_kernel(kernels, &node.op, &operands(graph, node))).collect()
    }

    /// Whether a kernel runs the node at this position.
    pub(super) fn is_by_kernel(&self, position: usize) -> bool {
        self.by_kernel.get(position) == Some(&true)
    }
}

/// Types of a node's operands.
fn operands<'a>(graph: &'a Graph, node: &Node) -> Vec<&'a TensorType> {
    node.inputs.iter().map(|id| graph.ty(*id)).collect()
}
