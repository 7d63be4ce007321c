//! The ONNX graph under construction: nodes, shared constants and views.

use crate::proto::attribute_proto::AttributeType;
use crate::proto::tensor_proto::DataType;
use crate::proto::{AttributeProto, NodeProto};
use crate::weights::{Content, Initializer};
use std::collections::{BTreeMap, BTreeSet};
use vjepa_compiler::ir::Dim;

/// A tensor of the ONNX graph, in the shape it really has. Any value of the same elements in the same order can be read
/// from it; a `Reshape` is emitted only when a consumer asks for another shape.
#[derive(Clone, Debug)]
pub(crate) struct View {
    /// Tensor name.
    pub tensor: String,
    /// Its shape in the ONNX graph.
    pub shape: Vec<Dim>,
    /// Path of the module it was computed in, for names.
    pub scope: String,
}

/// Attribute values.
pub(crate) enum Attr<'a> {
    Int(i64),
    Float(f32),
    Ints(&'a [i64]),
    Text(&'a str),
}

/// Collects nodes and initialisers, keeps names unique and constants shared.
#[derive(Default)]
pub(crate) struct Emitter {
    pub nodes: Vec<NodeProto>,
    pub initializers: Vec<Initializer>,
    names: BTreeSet<String>,
    ints: BTreeMap<Vec<i64>, String>,
    scalars: BTreeMap<(i32, u32), String>,
    reshapes: BTreeMap<(String, Vec<Dim>), View>,
    /// Large constants are kept as IEEE half and widened by a `Cast`.
    pub narrow_weights: bool,
    /// True once an operator of ONNX Runtime's own was used.
    pub contrib: bool,
}

/// ONNX Runtime's own operators.
pub(crate) const CONTRIB: &str = "com.microsoft";
/// Smaller constants stay as they are when weights are narrowed.
const SMALLEST_NARROWED: usize = 4096;

impl Emitter {
    /// Keeps `name` from being given to a node.
    pub fn reserve(&mut self, name: &str) {
        self.names.insert(name.to_owned());
    }

    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_owned();
        let mut number = 1;
        while !self.names.insert(name.clone()) {
            number += 1;
            name = format!("{wanted}_{number}");
        }
        name
    }

    /// Appends a node called `name` (made unique) and gives its result's name, which is the same.
    pub fn node(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        let name = self.unique(name);
        self.nodes.push(NodeProto {
            name: Some(name.clone()),
            op_type: Some(op.to_owned()),
            input: inputs.iter().map(|input| (*input).to_owned()).collect(),
            output: vec![name.clone()],
            attribute: attributes.iter().map(|(key, value)| attribute(key, value)).collect(),
            ..NodeProto::default()
        });
        name
    }

    /// A node of ONNX Runtime's own.
    pub fn contrib(&mut self, op: &str, name: &str, inputs: &[&str], attributes: &[(&str, Attr)]) -> String {
        let name = self.node(op, name, inputs, attributes);
        if let Some(node) = self.nodes.last_mut() {
            node.domain = Some(CONTRIB.to_owned());
        }
        self.contrib = true;
        name
    }

    /// Names more results of the last node: `name` with each suffix.
    pub fn more_results(&mut self, name: &str, suffixes: &[&str]) -> Vec<String> {
        let names: Vec<String> = suffixes.iter().map(|suffix| self.unique(&format!("{name}/{suffix}"))).collect();
        if let Some(node) = self.nodes.last_mut() {
            node.output.extend(names.iter().cloned());
        }
        names
    }

    /// Adds a constant called `name` (made unique) and gives the name of the tensor to read.
    pub fn constant(&mut self, name: &str, data_type: DataType, dims: Vec<usize>, content: Content) -> String {
        let name = self.unique(name);
        self.stored(name, data_type, dims, content)
    }

    fn stored(&mut self, name: String, data_type: DataType, dims: Vec<usize>, content: Content) -> String {
        let large = dims.iter().product::<usize>() >= SMALLEST_NARROWED;
        let narrow = self.narrow_weights && large && data_type == DataType::Float;
        let data_type = if narrow { DataType::Float16 } else { data_type };
        self.initializers.push(Initializer { name: name.clone(), data_type, dims, content });
        if !narrow {
            return name;
        }
        let to = [("to", Attr::Int(DataType::Float as i64))];
        self.node("Cast", &format!("{name}/widen"), &[&name], &to)
    }

    /// Adds a constant under exactly this name, which [`Emitter::reserve`] kept for it; a second one gets another name.
    pub fn reserved_constant(&mut self, name: &str, data_type: DataType, dims: Vec<usize>, content: Content) -> String {
        if self.initializers.iter().any(|known| known.name == name) {
            return self.constant(name, data_type, dims, content);
        }
        self.stored(name.to_owned(), data_type, dims, content)
    }

    /// A vector of integers, one constant for equal vectors.
    pub fn ints(&mut self, values: &[i64]) -> String {
        if let Some(name) = self.ints.get(values) {
            return name.clone();
        }
        let text: Vec<String> = values.iter().map(i64::to_string).collect();
        let content = Content::Ints(values.to_vec());
        let name = self.constant(&format!("ints/{}", text.join("_")), DataType::Int64, vec![values.len()], content);
        self.ints.insert(values.to_vec(), name.clone());
        name
    }

    /// A scalar, one constant for equal numbers.
    pub fn scalar(&mut self, value: f32, data_type: DataType) -> String {
        let key = (data_type as i32, value.to_bits());
        if let Some(name) = self.scalars.get(&key) {
            return name.clone();
        }
        let name = self.constant(&format!("scalar/{value:?}"), data_type, Vec::new(), Content::Floats(vec![value]));
        self.scalars.insert(key, name.clone());
        name
    }

    /// A zero point.
    pub fn small_integer(&mut self, value: i64, data_type: DataType) -> String {
        let name = format!("zero_point/{value}{}", if data_type == DataType::Int8 { "/signed" } else { "" });
        match self.initializers.iter().find(|known| known.name == name) {
            Some(known) => known.name.clone(),
            None => self.constant(&name, data_type, Vec::new(), Content::Ints(vec![value])),
        }
    }

    /// `view` in another shape of as many elements; `None` when ONNX needs more than one unknown size for it.
    pub fn reshape(&mut self, view: &View, shape: &[Dim], name: Option<&str>) -> Option<View> {
        if view.shape == shape {
            return Some(view.clone());
        }
        let key = (view.tensor.clone(), shape.to_vec());
        if let Some(known) = self.reshapes.get(&key) {
            return Some(known.clone());
        }
        let target = self.ints(&reshape_target(&view.shape, shape)?);
        let fallback = format!("{}/reshape", view.tensor);
        let tensor = self.node("Reshape", name.unwrap_or(&fallback), &[&view.tensor, &target], &[]);
        let result = View { tensor, shape: shape.to_vec(), scope: view.scope.clone() };
        self.reshapes.insert(key, result.clone());
        Some(result)
    }

    /// `view` with its axes reordered. Moving only axes of size 1 leaves the tensor as it is.
    pub fn transpose(&mut self, view: &View, axes: &[usize], name: &str) -> View {
        let shape: Vec<Dim> = axes.iter().filter_map(|axis| view.shape.get(*axis).cloned()).collect();
        let moved: Vec<usize> =
            axes.iter().copied().filter(|axis| view.shape.get(*axis).is_some_and(|dim| !dim.is_one())).collect();
        if moved.windows(2).all(|pair| pair[0] < pair[1]) {
            return view.clone();
        }
        let perm: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
        let tensor = self.node("Transpose", name, &[&view.tensor], &[("perm", Attr::Ints(&perm))]);
        View { tensor, shape, scope: view.scope.clone() }
    }

    /// Gives the tensor `from`, which a node computes, the name `to` everywhere. False when no node computes it.
    pub fn rename(&mut self, from: &str, to: &str) -> bool {
        if !self.nodes.iter().any(|node| node.output.iter().any(|output| output == from)) {
            return false;
        }
        for node in &mut self.nodes {
            for tensor in node.input.iter_mut().chain(&mut node.output).filter(|tensor| *tensor == from) {
                to.clone_into(tensor);
            }
        }
        true
    }
}

/// The constant operand of `Reshape`: numbers, one `-1`, and `0` where a size stays at its place.
fn reshape_target(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut inferred = false;
    to.iter()
        .enumerate()
        .map(|(axis, dim)| match dim.as_const() {
            Some(0) => None,
            Some(size) => Some(size),
            None if !inferred => {
                inferred = true;
                Some(-1)
            }
            None => (from.get(axis) == Some(dim)).then_some(0),
        })
        .collect()
}

fn attribute(name: &str, value: &Attr) -> AttributeProto {
    let mut proto = AttributeProto { name: Some(name.to_owned()), ..AttributeProto::default() };
    let kind = match value {
        Attr::Int(i) => {
            proto.i = Some(*i);
            AttributeType::Int
        }
        Attr::Float(f) => {
            proto.f = Some(*f);
            AttributeType::Float
        }
        Attr::Ints(ints) => {
            proto.ints = ints.to_vec();
            AttributeType::Ints
        }
        Attr::Text(text) => {
            proto.s = Some(text.as_bytes().to_vec());
            AttributeType::String
        }
    };
    proto.r#type = Some(kind as i32);
    proto
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dims(sizes: &[usize]) -> Vec<Dim> {
        let mut shape = vec![Dim::symbol("B")];
        shape.extend(sizes.iter().map(|size| Dim::from(*size)));
        shape
    }

    #[test]
    fn reshapes_are_shared_and_never_idle() {
        let mut emit = Emitter::default();
        let view = View { tensor: "x".into(), shape: dims(&[4, 6]), scope: String::new() };
        let heads = emit.reshape(&view, &dims(&[4, 2, 3]), None).unwrap();
        assert_eq!(emit.reshape(&view, &dims(&[4, 2, 3]), None).unwrap().tensor, heads.tensor);
        assert_eq!(emit.reshape(&view, &dims(&[4, 6]), None).unwrap().tensor, "x");
        assert_eq!(emit.nodes.len(), 1);
        assert_eq!(emit.initializers[0].name, "ints/-1_4_2_3");
    }

    #[test]
    fn moving_an_axis_of_size_one_needs_no_transpose() {
        let mut emit = Emitter::default();
        let view = View { tensor: "x".into(), shape: dims(&[4, 1, 6]), scope: String::new() };
        assert_eq!(emit.transpose(&view, &[0, 2, 1, 3], "t").shape, view.shape);
        assert_eq!(emit.transpose(&view, &[0, 3, 2, 1], "t").tensor, "t");
    }
}
