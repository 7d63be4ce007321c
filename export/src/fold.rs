//! Constant folding: what depends on weights only is computed here and written as one constant.
//!
//! A constant may have a symbolic axis 0 (a probe's query, broadcast to the batch). Its rows are then equal, so it is
//! computed with size 1 there and left to broadcast. Only operations that treat every row of axis 0 alike are folded in
//! that case.

use crate::ExportError;
use crate::weights::{WeightSource, read};
use std::collections::BTreeMap;
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{Def, Dim, Graph, Node, NodeId, Sizes, TensorType, ValueId};
use vjepa_compiler::ops::Op;

/// The values of a graph that do not depend on its inputs.
pub(crate) struct Constants<'g> {
    graph: &'g Graph,
    constant: Vec<bool>,
}

impl<'g> Constants<'g> {
    pub fn of(graph: &'g Graph) -> Self {
        let mut constant: Vec<bool> = graph
            .values
            .iter()
            .map(|value| {
                matches!(value.def, Def::Param(_)) && value.ty.shape.iter().all(|dim| dim.as_const().is_some())
            })
            .collect();
        for node in &graph.nodes {
            if node.inputs.iter().all(|id| constant[id.0]) && foldable(graph, node) {
                for id in &node.outputs {
                    constant[id.0] = true;
                }
            }
        }
        Self { graph, constant }
    }

    /// True when `id` is constant.
    pub fn contains(&self, id: ValueId) -> bool {
        self.constant.get(id.0).copied().unwrap_or(false)
    }

    /// The value that holds the same numbers in the same order, behind reshapes and broadcasts to a symbolic size.
    pub fn behind_views(&self, mut id: ValueId) -> ValueId {
        let elements = |id: ValueId| self.graph.ty(id).shape.iter().filter_map(Dim::as_const).product::<i64>();
        while let Def::Node { node, .. } = self.graph.value(id).def {
            let node = &self.graph.nodes[node.0];
            match (&node.op, node.inputs.as_slice()) {
                (Op::Reshape { .. } | Op::Broadcast { .. }, [x]) if elements(*x) == elements(id) => id = *x,
                _ => break,
            }
        }
        id
    }

    /// What the constant is called: after the last parameter that went into it.
    pub fn label(&self, id: ValueId) -> String {
        let nodes = self.nodes_behind(id);
        let mut sources = nodes.iter().rev().flat_map(|node| &self.graph.nodes[node.0].inputs);
        let name = sources.find_map(|source| self.graph.source_name(*source)).unwrap_or("constant");
        format!("{}.folded", name.strip_suffix(".weight").unwrap_or(name))
    }

    /// Its values; one row where axis 0 is symbolic.
    pub fn values(&self, id: ValueId, weights: &dyn WeightSource, label: &str) -> Result<Vec<f32>, ExportError> {
        let fail = |reason: String| ExportError::Fold { name: label.to_owned(), reason };
        let mut part = Graph { symbols: self.graph.symbols.clone(), ..Graph::new("constant", &[]) };
        let mut ids: BTreeMap<ValueId, ValueId> = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for node in self.nodes_behind(id) {
            let node = &self.graph.nodes[node.0];
            let mut inputs = Vec::with_capacity(node.inputs.len());
            for input in &node.inputs {
                if !ids.contains_key(input)
                    && let Some(name) = self.graph.source_name(*input)
                {
                    let ty = self.graph.ty(*input);
                    ids.insert(*input, part.param(name, ty.clone()).map_err(|error| fail(error.to_string()))?);
                    sources.insert(name.to_owned(), source(name, ty, weights)?);
                }
                inputs.push(*ids.get(input).ok_or_else(|| fail(format!("%{} is not constant", input.0)))?);
            }
            let outputs = part.push(node.op.clone(), &inputs).map_err(|error| fail(error.to_string()))?;
            ids.extend(node.outputs.iter().copied().zip(outputs));
        }
        let result = *ids.get(&id).ok_or_else(|| fail(format!("%{} is not computed by a node", id.0)))?;
        part.output("constant", result);
        let sizes: Sizes = part.symbols.iter().map(|symbol| (symbol.clone(), 1)).collect();
        let results = interp::run(&part, &sizes, &sources).map_err(|error| fail(error.to_string()))?;
        let values = results.outputs.get("constant").and_then(Tensor::as_f32).map(<[f32]>::to_vec);
        let mut values = values.ok_or_else(|| fail("it holds integers".to_owned()))?;
        // A multiple of the batch (`2*B` of two views) has several rows even so.
        let shape = &self.graph.ty(id).shape;
        if let Some(rows) = shape.first().filter(|dim| dim.as_const().is_none()) {
            let one: usize = shape.iter().skip(1).filter_map(Dim::as_const).map(|size| size as usize).product();
            if rows.eval(&sizes).is_none_or(|rows| Some(rows) != values.len().checked_div(one)) {
                return Err(fail(format!("%{} is {}, which has no equal rows", id.0, self.graph.ty(id))));
            }
            values.truncate(one);
        }
        Ok(values)
    }

    /// The nodes that compute `id`, in order.
    fn nodes_behind(&self, id: ValueId) -> Vec<NodeId> {
        let mut found = std::collections::BTreeSet::new();
        let mut open = vec![id];
        while let Some(value) = open.pop() {
            if let Def::Node { node, .. } = self.graph.value(value).def
                && found.insert(node)
            {
                open.extend(&self.graph.nodes[node.0].inputs);
            }
        }
        found.into_iter().collect()
    }
}

fn source(name: &str, ty: &TensorType, weights: &dyn WeightSource) -> Result<Tensor, ExportError> {
    let (_, shape) = weights.describe(name).ok_or_else(|| ExportError::MissingWeight(name.to_owned()))?;
    if !ty.shape.iter().cloned().eq(shape.iter().map(|size| Dim::from(*size))) {
        let (expected, found) = (ty.to_string(), format!("{shape:?}"));
        return Err(ExportError::WeightShape { name: name.to_owned(), expected, found });
    }
    let data = read(weights, name, shape.iter().product())?.into_owned();
    Ok(Tensor::f32(shape, data))
}

/// True when a node whose operands are constant gives a constant.
fn foldable(graph: &Graph, node: &Node) -> bool {
    let types = || node.inputs.iter().chain(&node.outputs).map(|id| graph.ty(*id));
    if types().any(|ty| !ty.dtype.is_float()) {
        return false;
    }
    if types().all(|ty| ty.shape.iter().all(|dim| dim.as_const().is_some())) {
        return !matches!(&node.op, Op::AddScalar(c) | Op::MulScalar(c) if c.over.as_const().is_none());
    }
    // With symbols: at axis 0 only, and each row on its own.
    let by_row = |ty: &TensorType| ty.shape.iter().skip(1).all(|dim| dim.as_const().is_some());
    types().all(by_row) && rowwise(graph, node)
}

fn rowwise(graph: &Graph, node: &Node) -> bool {
    let (Some(input), Some(output)) = (node.inputs.first(), node.outputs.first()) else {
        return matches!(&node.op, Op::Full { value, .. } if value.over.as_const().is_some());
    };
    let (from, to) = (graph.ty(*input), graph.ty(*output));
    let batched = |ty: &TensorType| ty.shape.first() == to.shape.first();
    match &node.op {
        Op::Unary(_) | Op::PowScalar(_) | Op::Cast(_) | Op::Broadcast { .. } => true,
        Op::Binary(_) => true,
        Op::AddScalar(c) | Op::MulScalar(c) => c.over.as_const().is_some(),
        Op::Sum { axes } | Op::Mean { axes } => !axes.contains(&0),
        Op::Softmax | Op::LogSoftmax | Op::Linear | Op::LayerNorm { .. } => from.rank() > 1,
        Op::Reshape { .. } => batched(from),
        Op::Permute { axes } => axes.first() == Some(&0),
        Op::Slice { axis, .. } | Op::Pad { axis, .. } | Op::Concat { axis } => *axis != 0,
        Op::MatMul { .. } => from.rank() > 2,
        Op::Attention { .. } => true,
        _ => false,
    }
}
