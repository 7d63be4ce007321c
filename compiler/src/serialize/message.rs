//! The messages. Field numbers are the format: they are added to, never changed.

use prost::Message;
use std::collections::BTreeMap;

#[derive(Clone, PartialEq, Message)]
pub(super) struct FileMessage {
    #[prost(string, tag = "1")]
    pub format: String,
    #[prost(uint32, tag = "2")]
    pub version: u32,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, repeated, tag = "4")]
    pub symbols: Vec<String>,
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<SourceMessage>,
    #[prost(message, repeated, tag = "6")]
    pub params: Vec<SourceMessage>,
    #[prost(message, repeated, tag = "7")]
    pub nodes: Vec<NodeMessage>,
    #[prost(message, repeated, tag = "8")]
    pub outputs: Vec<OutputMessage>,
    #[prost(message, repeated, tag = "9")]
    pub updates: Vec<UpdateMessage>,
    #[prost(message, repeated, tag = "10")]
    pub steps: Vec<StepMessage>,
    #[prost(btree_map = "string, string", tag = "11")]
    pub record: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct SourceMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    pub ty: Option<TypeMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TypeMessage {
    #[prost(string, tag = "1")]
    pub dtype: String,
    #[prost(message, repeated, tag = "2")]
    pub shape: Vec<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DimMessage {
    #[prost(message, repeated, tag = "1")]
    pub terms: Vec<TermMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct TermMessage {
    #[prost(sint64, tag = "1")]
    pub coefficient: i64,
    #[prost(string, repeated, tag = "2")]
    pub symbols: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct NodeMessage {
    #[prost(string, tag = "1")]
    pub op: String,
    #[prost(message, repeated, tag = "2")]
    pub attributes: Vec<AttributeMessage>,
    #[prost(uint64, repeated, tag = "3")]
    pub operands: Vec<u64>,
    #[prost(message, repeated, tag = "4")]
    pub results: Vec<TypeMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AttributeMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(oneof = "AttributeValue", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub value: Option<AttributeValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum AttributeValue {
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
pub(super) struct ScalarMessage {
    #[prost(double, tag = "1")]
    pub value: f64,
    #[prost(message, optional, tag = "2")]
    pub over: Option<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct DimsMessage {
    #[prost(message, repeated, tag = "1")]
    pub dims: Vec<DimMessage>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct AxesMessage {
    #[prost(uint64, repeated, tag = "1")]
    pub axes: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct OutputMessage {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct UpdateMessage {
    #[prost(uint64, tag = "1")]
    pub param: u64,
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct StepMessage {
    #[prost(uint64, tag = "1")]
    pub node: u64,
    /// Operand and result positions, in turn.
    #[prost(uint64, repeated, tag = "2")]
    pub in_place: Vec<u64>,
    #[prost(uint64, repeated, tag = "3")]
    pub frees: Vec<u64>,
}
