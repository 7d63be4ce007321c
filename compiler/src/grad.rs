//! Reverse-mode differentiation: from a graph with a loss to one that also computes the loss's gradients.
//!
//! The backward nodes are appended to the same graph and may read any forward value. Only nodes on a path from `wrt` to
//! the loss get one, so a frozen encoder costs nothing; integers carry no gradient. Semantic operations have whole
//! gradient operations (`layer_norm_grad`, `attention_grad`, ...), which kernels can implement.

use crate::ir::{Graph, GraphError, TensorType, ValueId};
use crate::ops::Reverse;

/// A graph that cannot be differentiated.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum GradError {
    /// The loss is not one float.
    #[error("the loss must be a single float, but %{value} is {ty}")]
    NotScalar {
        /// The loss.
        value: usize,
        /// Its type.
        ty: String,
    },
    /// A gradient would have to flow through an operation that has no gradient rule.
    #[error("%{value} is computed by {op}, which has no gradient rule")]
    NotDifferentiable {
        /// First result of the node.
        value: usize,
        /// Operation name.
        op: &'static str,
    },
    /// A value id of another graph, or a rule that built an ill-typed node.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Appends the gradients of `loss` with respect to `wrt` and returns them in the order of `wrt`, each of the type of its
/// value: zeros where the loss does not depend on it.
///
/// # Errors
/// [`GradError`]; the graph may then hold unused nodes but is still well formed.
pub fn differentiate(graph: &mut Graph, loss: ValueId, wrt: &[ValueId]) -> Result<Vec<ValueId>, GradError> {
    for id in wrt.iter().chain([&loss]) {
        if id.0 >= graph.values.len() {
            return Err(GraphError::UnknownValue(id.0).into());
        }
    }
    let ty = graph.ty(loss).clone();
    if !ty.dtype.is_float() || !ty.elements().is_one() {
        return Err(GradError::NotScalar { value: loss.0, ty: ty.to_string() });
    }
    let needed = depends_on(graph, wrt);
    let mut grads: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    let forward = graph.nodes.len();
    if needed.get(loss.0) == Some(&true) {
        grads[loss.0] = Some(graph.full(1.0, ty)?);
    }
    for position in (0..forward).rev() {
        reverse_node(graph, position, &needed, &mut grads)?;
    }
    wrt.iter()
        .map(|id| match grads[id.0] {
            Some(gradient) => Ok(gradient),
            None => Ok(graph.full(0.0, graph.ty(*id).clone())?),
        })
        .collect()
}

/// For each value, whether it is in `wrt` or computed from something in it through floats only.
fn depends_on(graph: &Graph, wrt: &[ValueId]) -> Vec<bool> {
    let is_float = |ty: &TensorType| ty.dtype.is_float();
    let mut depends = vec![false; graph.values.len()];
    for id in wrt {
        depends[id.0] = is_float(graph.ty(*id));
    }
    for node in &graph.nodes {
        if node.inputs.iter().any(|id| depends[id.0]) {
            for id in &node.outputs {
                depends[id.0] |= is_float(graph.ty(*id));
            }
        }
    }
    depends
}

/// Passes the gradient of one node's result on to those operands that need one.
fn reverse_node(
    graph: &mut Graph,
    position: usize,
    needed: &[bool],
    grads: &mut [Option<ValueId>],
) -> Result<(), GradError> {
    let node = graph.nodes[position].clone();
    let needs: Vec<bool> = node.inputs.iter().map(|id| needed[id.0]).collect();
    let Some((y, dy)) = node.outputs.iter().find_map(|id| Some((*id, grads[id.0]?))) else {
        return Ok(());
    };
    if !needs.contains(&true) {
        return Ok(());
    }
    let mut reverse = Reverse { graph: &mut *graph, inputs: &node.inputs, y, dy, needs: &needs };
    let Some(results) = node.op.grad(&mut reverse)? else {
        return Err(GradError::NotDifferentiable { value: y.0, op: node.op.name() });
    };
    for ((input, need), gradient) in node.inputs.iter().zip(&needs).zip(results) {
        let Some(gradient) = gradient.filter(|_| *need) else { continue };
        grads[input.0] = Some(match grads[input.0] {
            Some(sum) => graph.add(sum, gradient)?,
            None => gradient,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
