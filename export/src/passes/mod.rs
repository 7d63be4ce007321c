//! Passes over the frozen graph before it is written: they rest on what is constant at inference, which the compiler,
//! knowing no weights, leaves alone.
//!
//! Each is a function from graph to graph. What they make of parameters is again constant and is computed when the model
//! is written ([`crate::fold`]).

mod fold_norms;
mod fold_query;
mod typed;

pub use typed::{round_to, rounded};

use crate::ExportError;
use crate::options::{OnnxOptions, Precision};
use vjepa_compiler::ir::{DType, Def, Graph, GraphError, Node, ValueId};
use vjepa_compiler::ops::Op;
use vjepa_compiler::passes::{CommonSubexpressions, DeadCode, Decompose, Pass, Pipeline};

/// The graph in the form that the options ask for.
pub(crate) fn prepare(graph: &Graph, options: &OnnxOptions) -> Result<Graph, ExportError> {
    let mut graph = graph.clone();
    if graph.nodes.iter().any(|node| matches!(node.op, Op::Rotate { .. })) {
        graph = rotations_in_parts(&graph)?;
    }
    if options.fold_query {
        graph = fold_query::run(&graph)?;
    }
    if options.fold_norms {
        graph = fold_norms::run(&graph)?;
    }
    match options.precision {
        Precision::F16 => graph = typed::typed(&graph, DType::F16)?,
        Precision::Bf16 => graph = typed::typed(&graph, DType::BF16)?,
        _ => {}
    }
    Ok(graph)
}

/// ONNX has no rotation that turns the two channels of a pair by different angles: it is written in parts, the cosines and
/// sines of all blocks shared.
fn rotations_in_parts(graph: &Graph) -> Result<Graph, ExportError> {
    let passes: Vec<Box<dyn Pass>> = vec![
        Box::new(Decompose::unless(|op| !matches!(op, Op::Rotate { .. }))),
        Box::new(CommonSubexpressions),
        Box::new(DeadCode),
    ];
    let run = Pipeline::new(passes).run(graph).map_err(|error| ExportError::Graph(error.to_string()))?;
    Ok(run.graph)
}

impl From<GraphError> for ExportError {
    fn from(error: GraphError) -> Self {
        ExportError::Graph(error.to_string())
    }
}

/// A graph that is copied node by node, and where each old value went.
struct Copier<'g> {
    old: &'g Graph,
    new: Graph,
    map: Vec<Option<ValueId>>,
}

impl<'g> Copier<'g> {
    /// Starts with the inputs and parameters; `dtype` may give a parameter another element type.
    fn start(old: &'g Graph, dtype: impl Fn(ValueId) -> DType) -> Result<Self, GraphError> {
        let mut new = Graph::new(&old.name, &[]);
        new.symbols.clone_from(&old.symbols);
        let mut map = vec![None; old.values.len()];
        for id in &old.inputs {
            map[id.0] = Some(new.input(old.source_name(*id).unwrap_or_default(), old.ty(*id).clone())?);
        }
        for id in &old.params {
            let mut ty = old.ty(*id).clone();
            ty.dtype = dtype(*id);
            map[id.0] = Some(new.param(old.source_name(*id).unwrap_or_default(), ty)?);
        }
        Ok(Self { old, new, map })
    }

    fn same(old: &'g Graph) -> Result<Self, GraphError> {
        Self::start(old, |id| old.ty(id).dtype)
    }

    fn get(&self, old: ValueId) -> Result<ValueId, GraphError> {
        self.map.get(old.0).copied().flatten().ok_or(GraphError::UnknownValue(old.0))
    }

    fn put(&mut self, old: ValueId, new: ValueId) {
        if let Some(place) = self.map.get_mut(old.0) {
            *place = Some(new);
        }
    }

    fn copy(&mut self, node: &Node) -> Result<(), GraphError> {
        let inputs = node.inputs.iter().map(|id| self.get(*id)).collect::<Result<Vec<_>, _>>()?;
        let results = self.new.push(node.op.clone(), &inputs)?;
        node.outputs.iter().zip(results).for_each(|(old, new)| self.put(*old, new));
        Ok(())
    }

    fn finish(mut self) -> Result<Graph, GraphError> {
        for (name, id) in &self.old.outputs {
            let id = self.get(*id)?;
            self.new.output(name, id);
        }
        Ok(self.new)
    }
}

/// The node that computes `id`.
fn producer(graph: &Graph, id: ValueId) -> Option<&Node> {
    match graph.value(id).def {
        Def::Node { node, .. } => graph.nodes.get(node.0),
        _ => None,
    }
}

/// All nodes that read `id`; `None` when it is an output as well.
fn readers(graph: &Graph, id: ValueId) -> Option<Vec<&Node>> {
    if graph.outputs.iter().any(|(_, output)| *output == id) {
        return None;
    }
    Some(graph.nodes.iter().filter(|node| node.inputs.contains(&id)).collect())
}

/// True for operations that only move what they are given.
fn moves(op: &Op) -> bool {
    matches!(
        op,
        Op::Reshape { .. }
            | Op::Permute { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Tubelets { .. }
    )
}
