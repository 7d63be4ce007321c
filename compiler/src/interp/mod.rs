//! The interpreter: every operation computed slowly and plainly, one node after the other.
//!
//! It is the oracle that passes, kernels and exported models are compared with. Arithmetic is `f64`; each result is
//! rounded to the element type of its value, so a graph in `f32` or `bf16` loses what that type loses on store, and
//! nothing else.

mod tensor;

pub(crate) use tensor::{Array, offsets, strides};
pub use tensor::{Data, Tensor};

use crate::ir::{DType, Graph, Sizes, TensorType, ValueId};
use crate::ops::{Eval, EvalError};
use crate::verify::{VerifyError, verify};
use std::collections::BTreeMap;

/// No value of an interpreted graph may have more elements (2 GiB as `f64`).
const MOST_ELEMENTS: usize = 1 << 28;

/// Results of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Named outputs.
    pub outputs: BTreeMap<String, Tensor>,
    /// New values of the updated parameters, by parameter name.
    pub updates: BTreeMap<String, Tensor>,
}

/// A graph that cannot be run on the given tensors.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum InterpError {
    /// The graph itself is wrong.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// An input or parameter without a tensor.
    #[error("no tensor was given for `{0}`")]
    MissingSource(String),
    /// A tensor that is not of the declared type.
    #[error("`{name}` should be {expected} but is {got}")]
    WrongSource {
        /// Input or parameter.
        name: String,
        /// Declared type, and its shape under the sizes.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A type without a shape under the given sizes.
    #[error("{0} has no shape, or one too large to interpret, under the given sizes")]
    Sizes(String),
    /// An operation failed on these numbers.
    #[error("%{value} ({op}): {why}")]
    Eval {
        /// First result of the node.
        value: usize,
        /// Its operation.
        op: &'static str,
        /// Why.
        why: String,
    },
}

/// Runs `graph` with these symbol sizes on `sources`, tensors of its inputs and parameters by name (others are ignored).
///
/// # Errors
/// [`InterpError`] when the graph does not verify, a source is missing or misshapen, or an index is out of range.
pub fn run(graph: &Graph, sizes: &Sizes, sources: &BTreeMap<String, Tensor>) -> Result<Results, InterpError> {
    verify(graph)?;
    let mut arrays = BTreeMap::new();
    for id in graph.inputs.iter().chain(&graph.params) {
        let name = graph.source_name(*id).unwrap_or_default();
        let tensor = sources.get(name).ok_or_else(|| InterpError::MissingSource(name.to_owned()))?;
        check_source(name, graph.ty(*id), sizes, tensor)?;
        let mut array = tensor.to_array();
        array.round_to(graph.ty(*id).dtype);
        arrays.insert(name.to_owned(), array);
    }
    let values = run_arrays(graph, sizes, arrays, true)?;
    let tensor = |id: ValueId| values[id.0].as_ref().map(|array| array.to_tensor(graph.ty(id).dtype));
    let outputs = graph.outputs.iter().filter_map(|(name, id)| Some((name.clone(), tensor(*id)?)));
    let updates = graph.updates.iter().filter_map(|(param, id)| {
        let name = graph.source_name(*param)?;
        Some((name.to_owned(), tensor(*id)?))
    });
    Ok(Results { outputs: outputs.collect(), updates: updates.collect() })
}

/// Evaluates a verified graph; outputs and updates are among the values that are `Some` at the end. Without `rounding`
/// everything stays `f64`, whatever the declared element types.
pub(crate) fn run_arrays(
    graph: &Graph,
    sizes: &Sizes,
    mut sources: BTreeMap<String, Array>,
    rounding: bool,
) -> Result<Vec<Option<Array>>, InterpError> {
    let last_use = last_uses(graph);
    let mut values: Vec<Option<Array>> = vec![None; graph.values.len()];
    for id in graph.inputs.iter().chain(&graph.params) {
        values[id.0] = sources.remove(graph.source_name(*id).unwrap_or_default());
    }
    for (position, node) in graph.nodes.iter().enumerate() {
        let shapes = node.outputs.iter().map(|id| concrete(graph.ty(*id), sizes)).collect::<Result<Vec<_>, _>>()?;
        let inputs: Vec<&Array> = node.inputs.iter().filter_map(|id| values[id.0].as_ref()).collect();
        let value = node.outputs.first().map_or(0, |id| id.0);
        let fail = |why: String| InterpError::Eval { value, op: node.op.name(), why };
        if inputs.len() != node.inputs.len() {
            return Err(fail("an operand has no value".to_owned()));
        }
        let results = node.op.eval(&Eval { inputs: &inputs, results: &shapes, sizes });
        let results = results.map_err(|EvalError(why)| fail(why))?;
        if results.len() != node.outputs.len() {
            return Err(fail(format!("there are {} results, not {}", results.len(), node.outputs.len())));
        }
        for ((id, mut array), shape) in node.outputs.iter().zip(results).zip(shapes) {
            if array.shape != shape || array.data.len() != shape.iter().product::<usize>() {
                return Err(fail(format!("the result is {:?}, not {shape:?}", array.shape)));
            }
            if rounding {
                array.round_to(graph.ty(*id).dtype);
            }
            values[id.0] = Some(array);
        }
        for id in node.inputs.iter().filter(|id| last_use[id.0] == Some(position)) {
            values[id.0] = None;
        }
    }
    Ok(values)
}

/// For each value the node that reads it last; `None` for what outlives the run or is never read.
fn last_uses(graph: &Graph) -> Vec<Option<usize>> {
    let mut last = vec![None; graph.values.len()];
    for (position, node) in graph.nodes.iter().enumerate() {
        for id in &node.inputs {
            last[id.0] = Some(position);
        }
    }
    for id in graph.roots() {
        last[id.0] = None;
    }
    last
}

/// The shape under `sizes`.
fn concrete(ty: &TensorType, sizes: &Sizes) -> Result<Vec<usize>, InterpError> {
    let shape: Option<Vec<usize>> = ty.shape.iter().map(|dim| dim.eval(sizes)).collect();
    let fits = |shape: &Vec<usize>| {
        // Zero-sized axes do not excuse absurd ones: strides multiply the rest.
        let total = shape.iter().try_fold(1usize, |total, n| total.checked_mul((*n).max(1)));
        total.is_some_and(|total| total <= MOST_ELEMENTS)
    };
    shape.filter(fits).ok_or_else(|| InterpError::Sizes(ty.to_string()))
}

fn check_source(name: &str, ty: &TensorType, sizes: &Sizes, tensor: &Tensor) -> Result<(), InterpError> {
    let shape = concrete(ty, sizes)?;
    let (kind, length) = match &tensor.data {
        Data::F32(data) => ("f32", data.len()),
        Data::I32(data) => ("i32", data.len()),
    };
    let floats = kind == "f32";
    if tensor.shape == shape && length == shape.iter().product::<usize>() && floats == (ty.dtype != DType::I32) {
        return Ok(());
    }
    Err(InterpError::WrongSource {
        name: name.to_owned(),
        expected: format!("{ty}, here {shape:?}"),
        got: format!("{kind}{:?} with {length} elements", tensor.shape),
    })
}

#[cfg(test)]
mod tests;
