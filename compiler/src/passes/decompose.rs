//! Replaces semantic operations with smaller ones, for back ends without a kernel for them.

use super::rewrite::Rewriter;
use super::{Changed, Pass};
use crate::ir::{Graph, GraphError, TensorType};
use crate::ops::Op;

/// See the module's first line.
pub struct Decompose {
    supported: Box<Supported>,
}

/// Whether a back end runs an operation whole, on operands of these types.
type Supported = dyn Fn(&Op, &[&TensorType]) -> bool;

impl Decompose {
    /// Decomposes every operation that can be, once: parts may be semantic operations themselves.
    pub fn all() -> Self {
        Self::unless(|_| false)
    }

    /// Decomposes what the back end does not support.
    pub fn unless(supported: impl Fn(&Op) -> bool + 'static) -> Self {
        Self::unless_on(move |op, _| supported(op))
    }

    /// Decomposes what the back end does not support on operands of these types.
    pub fn unless_on(supported: impl Fn(&Op, &[&TensorType]) -> bool + 'static) -> Self {
        Self { supported: Box::new(supported) }
    }
}

impl Pass for Decompose {
    fn name(&self) -> &'static str {
        "decompose"
    }

    fn run(&self, graph: &Graph) -> Result<Option<Changed>, GraphError> {
        let mut rewriter = Rewriter::start(graph)?;
        for node in &graph.nodes {
            let inputs = rewriter.operands(node)?;
            let types: Vec<&TensorType> = node.inputs.iter().map(|id| graph.ty(*id)).collect();
            let whole = (self.supported)(&node.op, &types);
            let parts = if whole { None } else { node.op.decompose(&mut rewriter.new, &inputs)? };
            match parts {
                Some(results) => rewriter.replace(&node.outputs, &results, format!("{} in parts", node.op.name()))?,
                None => rewriter.copy(node)?,
            }
        }
        rewriter.finish()
    }
}
