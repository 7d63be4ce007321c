//! Graphs as messages, and back.

use super::message::{
    AttributeMessage, AttributeValue, AxesMessage, DimMessage, DimsMessage, FileMessage, NodeMessage, OutputMessage,
    ScalarMessage, SourceMessage, TermMessage, TypeMessage, UpdateMessage,
};
use super::{DecodeError, field};
use crate::ir::{DType, Def, Dim, Graph, Scalar, TensorType, Value, ValueId};
use crate::ops::{Attribute, Op};

/// Most symbols of a graph: checking a shape looks through all of them.
const MAX_SYMBOLS: usize = 1024;
/// Most terms of a dimension, and most symbols multiplied in one. No model comes near; a hostile file can.
const MAX_TERMS: usize = 256;

/// The fields that hold the graph; the others stay empty.
pub(super) fn encode(graph: &Graph) -> FileMessage {
    let source = |id: &ValueId| SourceMessage {
        name: graph.source_name(*id).unwrap_or_default().to_owned(),
        ty: Some(encode_type(graph.ty(*id))),
    };
    let number = |id: &ValueId| id.0 as u64;
    FileMessage {
        name: graph.name.clone(),
        symbols: graph.symbols.clone(),
        inputs: graph.inputs.iter().map(source).collect(),
        params: graph.params.iter().map(source).collect(),
        nodes: graph
            .nodes
            .iter()
            .map(|node| NodeMessage {
                op: node.op.name().to_owned(),
                attributes: node.op.attributes().into_iter().map(encode_attribute).collect(),
                operands: node.inputs.iter().map(number).collect(),
                results: node.outputs.iter().map(|id| encode_type(graph.ty(*id))).collect(),
            })
            .collect(),
        outputs: graph
            .outputs
            .iter()
            .map(|(name, id)| OutputMessage { name: name.clone(), value: number(id) })
            .collect(),
        updates: graph
            .updates
            .iter()
            .map(|(param, id)| UpdateMessage { param: number(param), value: number(id) })
            .collect(),
        ..FileMessage::default()
    }
}

fn encode_type(ty: &TensorType) -> TypeMessage {
    TypeMessage { dtype: ty.dtype.name().to_owned(), shape: ty.shape.iter().map(encode_dim).collect() }
}

fn encode_dim(dim: &Dim) -> DimMessage {
    let term = |(symbols, coefficient): (&[String], i64)| TermMessage { coefficient, symbols: symbols.to_vec() };
    DimMessage { terms: dim.terms().map(term).collect() }
}

fn encode_attribute((name, value): (&'static str, Attribute)) -> AttributeMessage {
    let value = match value {
        Attribute::Number(x) => AttributeValue::Number(x),
        Attribute::Scalar(x) => {
            AttributeValue::Scalar(ScalarMessage { value: x.value, over: Some(encode_dim(&x.over)) })
        }
        Attribute::Count(x) => AttributeValue::Count(x as u64),
        Attribute::Flag(x) => AttributeValue::Flag(x),
        Attribute::DType(x) => AttributeValue::DType(x.name().to_owned()),
        Attribute::Type(x) => AttributeValue::Type(encode_type(&x)),
        Attribute::Dim(x) => AttributeValue::Dim(encode_dim(&x)),
        Attribute::Dims(x) => AttributeValue::Dims(DimsMessage { dims: x.iter().map(encode_dim).collect() }),
        Attribute::Axes(x) => AttributeValue::Axes(AxesMessage { axes: x.iter().map(|axis| *axis as u64).collect() }),
    };
    AttributeMessage { name: name.to_owned(), value: Some(value) }
}

/// The graph of a message, its declared types checked. The caller verifies it: names and updates are looked at there.
pub(super) fn decode(message: &FileMessage) -> Result<Graph, DecodeError> {
    if message.symbols.len() > MAX_SYMBOLS {
        return Err(field("the graph", format!("has more than {MAX_SYMBOLS} symbols")));
    }
    let mut graph = Graph::new(&message.name, &[]);
    graph.symbols.clone_from(&message.symbols);
    // Not through `Graph::input` and the like, which look through all names each time.
    for source in &message.inputs {
        let id = push_source(&mut graph, source, Def::Input(source.name.clone()))?;
        graph.inputs.push(id);
    }
    for source in &message.params {
        let id = push_source(&mut graph, source, Def::Param(source.name.clone()))?;
        graph.params.push(id);
    }
    for (position, node) in message.nodes.iter().enumerate() {
        decode_node(&mut graph, position, node)?;
    }
    for output in &message.outputs {
        let value = value_id(&graph, output.value)?;
        graph.output(&output.name, value);
    }
    for update in &message.updates {
        let (param, value) = (value_id(&graph, update.param)?, value_id(&graph, update.value)?);
        graph.updates.push((param, value));
    }
    Ok(graph)
}

fn push_source(graph: &mut Graph, source: &SourceMessage, def: Def) -> Result<ValueId, DecodeError> {
    let at = || format!("`{}`", source.name);
    let ty = source.ty.as_ref().ok_or_else(|| field(at(), "has no type"))?;
    let ty = decode_type(ty).ok_or_else(|| field(at(), "has an unknown element type or too complicated a shape"))?;
    graph.values.push(Value { ty, def, name: None });
    Ok(ValueId(graph.values.len() - 1))
}

fn value_id(graph: &Graph, number: u64) -> Result<ValueId, DecodeError> {
    let known = usize::try_from(number).ok().filter(|number| *number < graph.values.len());
    known.map(ValueId).ok_or_else(|| field(format!("value {number}"), "is not defined there"))
}

fn decode_node(graph: &mut Graph, position: usize, node: &NodeMessage) -> Result<(), DecodeError> {
    let at = format!("node {position} ({})", node.op);
    let mut op = Op::prototype(&node.op).ok_or_else(|| field(&at, "is not an operation"))?;
    let mut places = op.attributes_mut();
    if places.len() != node.attributes.len() {
        return Err(field(at, format!("needs {} attributes", places.len())));
    }
    for ((name, place), attribute) in places.iter_mut().zip(&node.attributes) {
        let value = attribute.value.as_ref().and_then(decode_attribute);
        if attribute.name != *name || !value.is_some_and(|value| place.set(value)) {
            return Err(field(at, format!("the attribute `{name}` is missing or of the wrong kind")));
        }
    }
    let operands = node.operands.iter().map(|number| value_id(graph, *number)).collect::<Result<Vec<_>, _>>()?;
    let results = graph.push(op, &operands)?;
    let declared: Option<Vec<TensorType>> = node.results.iter().map(decode_type).collect();
    let inferred: Vec<TensorType> = results.iter().map(|id| graph.ty(*id).clone()).collect();
    if declared.as_ref() == Some(&inferred) { Ok(()) } else { Err(field(at, "a result is not of the declared type")) }
}

fn decode_type(ty: &TypeMessage) -> Option<TensorType> {
    decode_shape(DType::from_name(&ty.dtype)?, &ty.shape)
}

fn decode_shape(dtype: DType, dims: &[DimMessage]) -> Option<TensorType> {
    let shape = dims.iter().map(decode_dim).collect::<Option<Vec<_>>>()?;
    Some(TensorType::new(dtype, shape)).filter(TensorType::is_tame)
}

fn decode_dim(dim: &DimMessage) -> Option<Dim> {
    let small = dim.terms.len() <= MAX_TERMS && dim.terms.iter().all(|term| term.symbols.len() <= MAX_TERMS);
    small.then(|| Dim::from_terms(dim.terms.iter().map(|term| (term.symbols.clone(), term.coefficient))))
}

fn decode_attribute(value: &AttributeValue) -> Option<Attribute> {
    let count = |n: &u64| usize::try_from(*n).ok();
    Some(match value {
        AttributeValue::Number(x) => Attribute::Number(*x),
        AttributeValue::Scalar(x) => Attribute::Scalar(Scalar { value: x.value, over: decode_dim(x.over.as_ref()?)? }),
        AttributeValue::Count(x) => Attribute::Count(count(x)?),
        AttributeValue::Flag(x) => Attribute::Flag(*x),
        AttributeValue::DType(x) => Attribute::DType(DType::from_name(x)?),
        AttributeValue::Type(x) => Attribute::Type(decode_type(x)?),
        AttributeValue::Dim(x) => Attribute::Dim(decode_dim(x)?),
        AttributeValue::Dims(x) => Attribute::Dims(decode_shape(DType::F32, &x.dims)?.shape),
        AttributeValue::Axes(x) => Attribute::Axes(x.axes.iter().map(count).collect::<Option<_>>()?),
    })
}
