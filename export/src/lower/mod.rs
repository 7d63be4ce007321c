//! Lowering: the nodes a graph's outputs need, one after the other, as ONNX nodes.
//!
//! A value of the graph becomes a [`View`]: the ONNX tensor it can be read from, which may have another shape. Each rule
//! asks for its operands in the shape it works on (`Gemm`, normalisations and sums of token streams: `[tokens, D]`) and
//! says what shape it leaves. A `reshape` of the graph is therefore nothing but a new view.

mod attention;
mod elementwise;
mod movement;
mod outputs;
mod projection;
mod quantised;
mod reduce;
mod roi;
mod tokens;

use crate::emit::{Emitter, View};
use crate::fold::Constants;
use crate::heads::{self, Projection};
use crate::names;
use crate::options::OnnxOptions;
use crate::weights::{Content, WeightSource, data_type};
use crate::{ExportError, OnnxModel};
use std::collections::BTreeMap;
use vjepa_compiler::ir::{Def, Dim, Graph, Node, NodeId, TensorType, ValueId};
use vjepa_compiler::ops::{Op, Unary};

/// Writes a frozen graph as an ONNX model.
///
/// Dimension 0 of the first input, when symbolic, is named `batch`; other symbols keep their name. Initialisers have
/// their parameters' names. The model borrows the weights: they are read when it is serialised.
///
/// # Errors
/// [`ExportError`]: an operation without a form for the target (gradients, optimisers), weights that do not fit the
/// graph, or a graph that trains.
pub fn to_onnx<'w>(
    graph: &Graph,
    weights: &'w dyn WeightSource,
    options: &OnnxOptions,
) -> Result<OnnxModel<'w>, ExportError> {
    if !graph.updates.is_empty() {
        return Err(ExportError::Training(graph.name.clone()));
    }
    if graph.outputs.is_empty() {
        return Err(ExportError::NoOutput(graph.name.clone()));
    }
    options.check()?;
    let graph = &crate::passes::prepare(graph, options)?;
    let mut lowering = Lowering::new(graph, weights, options)?;
    for index in 0..graph.nodes.len() {
        if lowering.needed[index] {
            lowering.node(NodeId(index))?;
        }
    }
    lowering.finish()
}

/// How the attention of a node gets an operand.
#[derive(Clone, Debug)]
enum Operand {
    Value(ValueId),
    Projection(Projection),
}

struct Lowering<'g, 'w> {
    graph: &'g Graph,
    weights: &'w dyn WeightSource,
    options: &'g OnnxOptions,
    constants: Constants<'g>,
    emit: Emitter,
    views: BTreeMap<ValueId, View>,
    needed: Vec<bool>,
    operands: BTreeMap<NodeId, Vec<Operand>>,
    emitted: BTreeMap<(ValueId, Vec<usize>), String>,
    /// Constants of linear layers by name and shape, and what quantised layers share.
    matrices: BTreeMap<(String, Vec<usize>), String>,
    shared: quantised::Shared,
    /// Results of attention that lie by token, `[B, N, H·d]`.
    by_token: BTreeMap<ValueId, View>,
}

impl<'g, 'w> Lowering<'g, 'w> {
    fn new(graph: &'g Graph, weights: &'w dyn WeightSource, options: &'g OnnxOptions) -> Result<Self, ExportError> {
        let mut lowering = Self {
            graph,
            weights,
            options,
            constants: Constants::of(graph),
            emit: Emitter::default(),
            views: BTreeMap::new(),
            needed: vec![false; graph.nodes.len()],
            operands: BTreeMap::new(),
            emitted: BTreeMap::new(),
            matrices: BTreeMap::new(),
            shared: quantised::Shared::default(),
            by_token: BTreeMap::new(),
        };
        lowering.emit.narrow_weights = options.precision == crate::Precision::F16Weights;
        lowering.mark_needed();
        for id in graph.inputs.iter().chain(&graph.params) {
            let name = graph.source_name(*id).unwrap_or_default();
            lowering.emit.reserve(name);
            if let Def::Input(_) = graph.value(*id).def {
                let view = View { tensor: name.to_owned(), shape: graph.ty(*id).shape.clone(), scope: String::new() };
                lowering.views.insert(*id, view);
            }
        }
        for (name, _) in &graph.outputs {
            lowering.emit.reserve(name);
        }
        Ok(lowering)
    }

    /// Marks what the outputs need, and decides on the way how each attention gets its operands.
    fn mark_needed(&mut self) {
        let graph = self.graph;
        let mut open: Vec<ValueId> = graph.outputs.iter().map(|(_, id)| *id).collect();
        while let Some(value) = open.pop() {
            if self.constants.contains(value) {
                continue;
            }
            let Def::Node { node: id, .. } = graph.value(value).def else { continue };
            if std::mem::replace(&mut self.needed[id.0], true) {
                continue;
            }
            let node = &graph.nodes[id.0];
            if !matches!(node.op, Op::Attention { .. }) {
                open.extend(&node.inputs);
                continue;
            }
            let operands: Vec<Operand> = node
                .inputs
                .iter()
                .map(|operand| match heads::projection(graph, &self.constants, *operand) {
                    Some(projection) if !self.constants.contains(*operand) => Operand::Projection(projection),
                    _ => Operand::Value(*operand),
                })
                .collect();
            open.extend(operands.iter().map(|operand| match operand {
                Operand::Value(id) => *id,
                Operand::Projection(projection) => projection.x,
            }));
            self.operands.insert(id, operands);
        }
    }

    fn node(&mut self, id: NodeId) -> Result<(), ExportError> {
        let graph = self.graph;
        let node = &graph.nodes[id.0];
        let view = match &node.op {
            Op::Unary(_) | Op::AddScalar(_) | Op::MulScalar(_) | Op::PowScalar(_) | Op::Cast(_) => self.unary(node)?,
            Op::Binary(f) => self.binary(*f, node)?,
            Op::Sum { .. } | Op::Mean { .. } | Op::ReduceMax { .. } => self.reduce(node)?,
            Op::Softmax | Op::LogSoftmax => self.softmax(node)?,
            Op::Reshape { .. } => self.view(node.inputs[0])?,
            Op::Permute { axes } => self.permute(node, axes)?,
            Op::Broadcast { .. } => self.broadcast(node)?,
            Op::Slice { .. } => self.slice(node)?,
            Op::Pad { .. } => self.pad(node)?,
            Op::Concat { axis } => self.concat(node, *axis)?,
            Op::GatherTokens => self.gather(node)?,
            Op::Tubelets { tubelet, patch } => self.tubelets(node, *tubelet, *patch)?,
            Op::PatchEmbed { tubelet, patch } => self.patch_embed(node, *tubelet, *patch)?,
            Op::MatMul { ta, tb } if node.inputs.len() == 2 => self.matmul(node, *ta, *tb)?,
            Op::Linear => self.linear(node)?,
            Op::RoiAlign { size, sampling } => self.roi_align(node, *size, *sampling)?,
            Op::LayerNorm { eps } => self.layer_norm(node, *eps)?,
            Op::Attention { scale } => self.attention(id, node, *scale)?,
            Op::Full { .. } | Op::Iota { .. } => {
                return Err(self.unsupported(node, "its size or number depends on a symbol"));
            }
            Op::GeluGrad
            | Op::GeluWithGrad
            | Op::BiasGelu
            | Op::BiasGeluGrad { .. }
            | Op::NarrowLayerNorm { .. }
            | Op::AddWidened
            | Op::TokenL1 { .. }
            | Op::TokenL1Grad { .. }
            | Op::SoftmaxGrad
            | Op::SquaredNorm
            | Op::ScatterTokens { .. }
            | Op::MatMul { .. }
            | Op::Dropout { .. }
            | Op::RoiAlignGrad { .. }
            | Op::LayerNormGrad { .. }
            | Op::AttentionGrad { .. }
            | Op::PackedAttention { .. }
            | Op::PackedAttentionGrad { .. }
            | Op::Rotate { .. }
            | Op::AdamW { .. }
            | Op::Ema
            | Op::AdamWEma { .. }
            | Op::AdamWAll { .. }
            | Op::AllReduce
            | Op::AllReduceStart
            | Op::AllReduceDone => {
                return Err(self.unsupported(node, "it is part of training, not of a frozen model"));
            }
        };
        self.views.insert(node.outputs[0], view);
        Ok(())
    }

    fn unsupported(&self, node: &Node, reason: impl Into<String>) -> ExportError {
        ExportError::Unsupported { op: node.op.name(), target: self.options.target, reason: reason.into() }
    }

    fn ty(&self, id: ValueId) -> &'g TensorType {
        self.graph.ty(id)
    }

    /// The view of a value; a constant is emitted in its own shape.
    fn view(&mut self, id: ValueId) -> Result<View, ExportError> {
        if let Some(view) = self.views.get(&id) {
            return Ok(view.clone());
        }
        let shape = self.constant_shape(id)?;
        let tensor = self.constant(id, &shape)?;
        Ok(View { tensor, shape: shape.into_iter().map(Dim::from).collect(), scope: String::new() })
    }

    /// A value in this shape.
    fn in_shape(&mut self, id: ValueId, shape: &[Dim]) -> Result<View, ExportError> {
        let view = self.view(id)?;
        self.reshaped(&view, shape, None)
    }

    /// A value in the shape it has in the graph.
    fn natural(&mut self, id: ValueId) -> Result<View, ExportError> {
        if self.constants.contains(id) { self.view(id) } else { self.in_shape(id, &self.ty(id).shape) }
    }

    /// A value as rows of its last axis, `[rows, D]`.
    fn rows(&mut self, id: ValueId) -> Result<View, ExportError> {
        let shape = rows_of(&self.ty(id).shape);
        self.in_shape(id, &shape)
    }

    fn reshaped(&mut self, view: &View, shape: &[Dim], name: Option<&str>) -> Result<View, ExportError> {
        self.emit.reshape(view, shape, name).ok_or_else(|| {
            ExportError::Graph(format!(
                "`{}` cannot be reshaped to {}: it has several symbols",
                view.tensor,
                text(shape)
            ))
        })
    }

    /// Shape of a constant: 1 along the axes of a symbolic size, over which it does not vary.
    fn constant_shape(&self, id: ValueId) -> Result<Vec<usize>, ExportError> {
        let size = |dim: &Dim| dim.as_const().map_or(Some(1), |size| usize::try_from(size).ok());
        let shape: Option<Vec<usize>> = self.ty(id).shape.iter().map(size).collect();
        shape
            .filter(|_| self.constants.contains(id))
            .ok_or_else(|| ExportError::Graph(format!("%{} ({}) is used before it is computed", id.0, self.ty(id))))
    }

    /// Emits a constant in `shape` (of as many elements), once.
    fn constant(&mut self, id: ValueId, shape: &[usize]) -> Result<String, ExportError> {
        let id = self.constants.behind_views(id);
        if let Some(name) = self.emitted.get(&(id, shape.to_vec())) {
            return Ok(name.clone());
        }
        let dtype = data_type(self.ty(id).dtype);
        let name = match &self.graph.value(id).def {
            Def::Param(name) => {
                self.check_weight(name, self.ty(id))?;
                self.emit.reserved_constant(name, dtype, shape.to_vec(), Content::Weight(name.clone()))
            }
            _ => {
                let name = self.constants.label(id);
                let values = self.constants.values(id, self.weights, &name)?;
                self.emit.constant(&name, dtype, shape.to_vec(), Content::Floats(values))
            }
        };
        self.emitted.insert((id, shape.to_vec()), name.clone());
        Ok(name)
    }

    /// Fails unless the weights hold `name` with the type it has in the graph.
    fn check_weight(&self, name: &str, expected: &TensorType) -> Result<(), ExportError> {
        let (_, shape) = self.weights.describe(name).ok_or_else(|| ExportError::MissingWeight(name.to_owned()))?;
        if expected.shape.iter().cloned().eq(shape.iter().map(|size| Dim::from(*size))) {
            return Ok(());
        }
        let (expected, found) = (expected.to_string(), format!("{shape:?}"));
        Err(ExportError::WeightShape { name: name.to_owned(), expected, found })
    }

    /// Path of the module that owns the parameter `id`; empty when it is none.
    fn module(&self, id: ValueId) -> String {
        let root = self.options.scope_root.as_deref();
        match &self.graph.value(id).def {
            Def::Param(name) => names::module_path(name, root),
            _ => String::new(),
        }
    }

    /// Path of the module that a weight belongs to, also one that was folded into another constant.
    fn owner(&self, id: ValueId) -> String {
        if matches!(self.graph.value(id).def, Def::Param(_)) || !self.constants.contains(id) {
            return self.module(id);
        }
        let label = self.constants.label(id);
        names::module_path(label.strip_suffix(".folded").unwrap_or(&label), self.options.scope_root.as_deref())
    }

    /// The module the operand that was computed last belongs to.
    fn scope(&self, node: &Node) -> String {
        let computed = node.inputs.iter().filter_map(|id| Some((id, self.views.get(id)?)));
        computed.max_by_key(|(id, _)| **id).map(|(_, view)| view.scope.clone()).unwrap_or_default()
    }
}

/// `[rows, D]` for a shape `[.., D]`.
fn rows_of(shape: &[Dim]) -> Vec<Dim> {
    match shape.split_last() {
        Some((last, leading)) => vec![Dim::product(leading), last.clone()],
        None => vec![Dim::from(1usize), Dim::from(1usize)],
    }
}

/// A dimension that must be a number.
fn number(dim: &Dim) -> Result<usize, ExportError> {
    let size = dim.as_const().and_then(|size| usize::try_from(size).ok());
    size.ok_or_else(|| ExportError::Graph(format!("`{dim}` must be a number to be written as ONNX")))
}

fn text(shape: &[Dim]) -> String {
    let dims: Vec<String> = shape.iter().map(Dim::to_string).collect();
    format!("[{}]", dims.join(", "))
}

/// Name of the function in node names.
fn unary_op(f: Unary) -> Option<&'static str> {
    Some(match f {
        Unary::Neg => "Neg",
        Unary::Abs => "Abs",
        Unary::Sign => "Sign",
        Unary::Exp => "Exp",
        Unary::Log => "Log",
        Unary::Sqrt => "Sqrt",
        Unary::Recip => "Reciprocal",
        Unary::Tanh => "Tanh",
        Unary::Sin => "Sin",
        Unary::Cos => "Cos",
        Unary::Erf => "Erf",
        Unary::Relu => "Relu",
        Unary::Gelu => "Gelu",
        Unary::Step => return None,
    })
}
