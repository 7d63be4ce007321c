//! Graphs as bytes (`*.vjg`): protocol buffers, decoded strictly.
//!
//! The messages are written here by hand; field numbers are the format. Values are numbered as the
//! [text form](crate::text) numbers them, inputs and parameters first.

use crate::ir::{DType, Dim, Graph, GraphError, Scalar, TensorType, ValueId};
use crate::ops::{Attribute, Op};
use crate::verify::{VerifyError, verify};
use prost::Message;

/// First field of every file.
const FORMAT: &str = "vjepa graph";
/// Raised when old readers would misread a new file.
const VERSION: u32 = 1;

/// Bytes that are no graph.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// No protocol buffer.
    #[error("not a serialised graph: {0}")]
    Protobuf(String),
    /// A protocol buffer of something else, or of a later version.
    #[error("not a serialised graph of version {VERSION}, but `{format}` of version {version}")]
    Format {
        /// What the first field says.
        format: String,
        /// Its version.
        version: u32,
    },
    /// A field without which the graph cannot be built.
    #[error("{at}: {why}")]
    Field {
        /// The node or source, in words.
        at: String,
        /// What is missing or unknown.
        why: String,
    },
    /// Operands that do not fit.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A graph that is not well formed.
    #[error(transparent)]
    Verify(#[from] VerifyError),
}

#[derive(Clone, PartialEq, Message)]
struct GraphMessage {
    #[prost(string, tag = "1")]
    format: String,
    #[prost(uint32, tag = "2")]
    version: u32,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, repeated, tag = "4")]
    symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<SourceMessage>,
    #[prost(message, repeated, tag = "6")]
    params: Vec<SourceMessage>,
    #[prost(message, repeated, tag = "7")]
    nodes: Vec<NodeMessage>,
    #[prost(message, repeated, tag = "8")]
    outputs: Vec<OutputMessage>,
    #[prost(message, repeated, tag = "9")]
    updates: Vec<UpdateMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct SourceMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    ty: Option<TypeMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMessage {
    #[prost(string, tag = "1")]
    dtype: String,
    #[prost(message, repeated, tag = "2")]
    shape: Vec<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct DimMessage {
    #[prost(message, repeated, tag = "1")]
    terms: Vec<TermMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct TermMessage {
    #[prost(sint64, tag = "1")]
    coefficient: i64,
    #[prost(string, repeated, tag = "2")]
    symbols: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeMessage {
    #[prost(string, tag = "1")]
    op: String,
    #[prost(message, repeated, tag = "2")]
    attributes: Vec<AttributeMessage>,
    #[prost(uint64, repeated, tag = "3")]
    operands: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    results: Vec<TypeMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(oneof = "AttributeValue", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum AttributeValue {
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(message, tag = "3")]
    Scalar(ScalarMessage),
    #[prost(uint64, tag = "4")]
    Count(u64),
    #[prost(bool, tag = "5")]
    Flag(bool),
    #[prost(string, tag = "6")]
    DType(String),
    #[prost(message, tag = "7")]
    Type(TypeMessage),
    #[prost(message, tag = "8")]
    Dim(DimMessage),
    #[prost(message, tag = "9")]
    Dims(DimsMessage),
    #[prost(message, tag = "10")]
    Axes(AxesMessage),
}

#[derive(Clone, PartialEq, Message)]
struct ScalarMessage {
    #[prost(double, tag = "1")]
    value: f64,
    #[prost(message, optional, tag = "2")]
    over: Option<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct DimsMessage {
    #[prost(message, repeated, tag = "1")]
    dims: Vec<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct AxesMessage {
    #[prost(uint64, repeated, tag = "1")]
    axes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct OutputMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    value: u64,
}

#[derive(Clone, PartialEq, Message)]
struct UpdateMessage {
    #[prost(uint64, tag = "1")]
    param: u64,
    #[prost(uint64, tag = "2")]
    value: u64,
}

/// The bytes of a graph.
pub fn encode(graph: &Graph) -> Vec<u8> {
    let graph = graph.canonical();
    let source = |id: &ValueId| SourceMessage {
        name: graph.source_name(*id).unwrap_or_default().to_owned(),
        ty: Some(encode_type(graph.ty(*id))),
    };
    let number = |id: &ValueId| id.0 as u64;
    let message = GraphMessage {
        format: FORMAT.to_owned(),
        version: VERSION,
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
    };
    message.encode_to_vec()
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

/// Reads what [`encode`] wrote. Every declared type is checked, and the graph verified.
///
/// # Errors
/// [`DecodeError`]; no input panics.
pub fn decode(bytes: &[u8]) -> Result<Graph, DecodeError> {
    let message = GraphMessage::decode(bytes).map_err(|error| DecodeError::Protobuf(error.to_string()))?;
    if message.format != FORMAT || message.version != VERSION {
        return Err(DecodeError::Format { format: message.format, version: message.version });
    }
    let mut graph = Graph::new(&message.name, &[]);
    graph.symbols = message.symbols;
    for source in &message.inputs {
        graph.input(&source.name, source_type(source)?)?;
    }
    for source in &message.params {
        graph.param(&source.name, source_type(source)?)?;
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
        graph.update(param, value)?;
    }
    verify(&graph)?;
    Ok(graph)
}

fn field(at: impl Into<String>, why: impl Into<String>) -> DecodeError {
    DecodeError::Field { at: at.into(), why: why.into() }
}

fn value_id(graph: &Graph, number: u64) -> Result<ValueId, DecodeError> {
    let known = usize::try_from(number).ok().filter(|number| *number < graph.values.len());
    known.map(ValueId).ok_or_else(|| field(format!("value {number}"), "is not defined there"))
}

fn source_type(source: &SourceMessage) -> Result<TensorType, DecodeError> {
    let at = || format!("`{}`", source.name);
    let ty = source.ty.as_ref().ok_or_else(|| field(at(), "has no type"))?;
    decode_type(ty).ok_or_else(|| field(at(), format!("has the unknown element type `{}`", ty.dtype)))
}

fn decode_node(graph: &mut Graph, position: usize, node: &NodeMessage) -> Result<(), DecodeError> {
    let at = format!("node {position} ({})", node.op);
    let mut op = Op::prototype(&node.op).ok_or_else(|| field(&at, "is no operation"))?;
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
    Some(TensorType::new(DType::from_name(&ty.dtype)?, ty.shape.iter().map(decode_dim)))
}

fn decode_dim(dim: &DimMessage) -> Dim {
    Dim::from_terms(dim.terms.iter().map(|term| (term.symbols.clone(), term.coefficient)))
}

fn decode_attribute(value: &AttributeValue) -> Option<Attribute> {
    let count = |n: &u64| usize::try_from(*n).ok();
    Some(match value {
        AttributeValue::Number(x) => Attribute::Number(*x),
        AttributeValue::Scalar(x) => Attribute::Scalar(Scalar { value: x.value, over: decode_dim(x.over.as_ref()?) }),
        AttributeValue::Count(x) => Attribute::Count(count(x)?),
        AttributeValue::Flag(x) => Attribute::Flag(*x),
        AttributeValue::DType(x) => Attribute::DType(DType::from_name(x)?),
        AttributeValue::Type(x) => Attribute::Type(decode_type(x)?),
        AttributeValue::Dim(x) => Attribute::Dim(decode_dim(x)),
        AttributeValue::Dims(x) => Attribute::Dims(x.dims.iter().map(decode_dim).collect()),
        AttributeValue::Axes(x) => Attribute::Axes(x.axes.iter().map(count).collect::<Option<_>>()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random_graph;
    use proptest::prelude::*;

    #[test]
    fn other_bytes_are_told_apart() {
        assert!(matches!(decode(b"graph g[]"), Err(DecodeError::Protobuf(_))));
        let error = decode(&[]).unwrap_err().to_string();
        assert_eq!(error, "not a serialised graph of version 1, but `` of version 0");
    }

    proptest! {
        #[test]
        fn graphs_round_trip(seed in any::<u64>()) {
            let graph = random_graph(seed).graph;
            prop_assert_eq!(decode(&encode(&graph)).unwrap(), graph.canonical());
        }

        #[test]
        fn mutated_bytes_never_panic(
            seed in any::<u64>(),
            edits in prop::collection::vec((any::<u16>(), any::<u8>(), any::<bool>()), 1..5),
        ) {
            let mut bytes = encode(&random_graph(seed).graph);
            for (place, byte, cut) in edits {
                let place = usize::from(place) % bytes.len();
                match (cut, byte) {
                    (true, 0..16) if place > 0 => bytes.truncate(place),
                    (true, _) if bytes.len() > 1 => { bytes.remove(place); }
                    _ => bytes[place] = byte,
                }
            }
            if let Ok(graph) = decode(&bytes) {
                prop_assert_eq!(verify(&graph), Ok(()));
            }
        }
    }
}
