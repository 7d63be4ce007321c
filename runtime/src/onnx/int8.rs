//! Whether a model's 8-bit products need a processor that adds them exactly ([`crate::cpu`]).

use super::OnnxFile;
use super::check::each_graph;
use super::message::{EXTERNAL, Graph, Model, Node, Tensor};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Metadata of models with 8-bit products: the range of their weights, `reduced` (±64) or `full` (±127).
pub const INT8_RANGE_KEY: &str = "vjepa.int8_range";
/// `TensorProto.DataType.INT8`.
const INT8: i32 = 3;
/// Two products of larger weights with activations of 255 do not fit into 16 bits together.
const LARGEST: u8 = 64;

impl OnnxFile {
    /// Whether 8-bit weights are so large that their sums need VNNI where ONNX Runtime runs on x86.
    ///
    /// The model's own record is believed ([`INT8_RANGE_KEY`]); without one its constants are looked at, as far as they
    /// lie in the file.
    pub fn has_full_range_int8(&self) -> bool {
        match self.metadata.get(INT8_RANGE_KEY).map(String::as_str) {
            Some("full") => return true,
            Some("reduced") => return false,
            _ => {}
        }
        // Written before the range was recorded: it was the full one, and it may lie beside the file.
        if self.metadata.get("vjepa.precision").is_some_and(|precision| precision.starts_with("int8")) {
            return true;
        }
        let model = Model::decode(self.bytes.clone()).unwrap_or_default();
        model.graph.as_ref().is_some_and(in_graph)
    }
}

fn in_graph(graph: &Graph) -> bool {
    let (mut large, mut nodes) = (BTreeSet::new(), Vec::new());
    // It only fails where the closure does.
    let _ = each_graph(graph, &mut |graph| {
        large.extend(graph.initializers.iter().filter(|tensor| is_large(tensor)).map(|tensor| tensor.name.as_str()));
        nodes.extend(&graph.nodes);
        Ok(())
    });
    if large.is_empty() {
        return false;
    }
    let producers: BTreeMap<&str, &Node> =
        nodes.iter().flat_map(|node| node.outputs.iter().map(|output| (output.as_str(), *node))).collect();
    let widened = |name: &str| producers.get(name).filter(|node| node.op == "DequantizeLinear");
    let input = |node: &Node, at: usize| node.inputs.get(at).cloned().unwrap_or_default();
    nodes.iter().any(|node| match node.op.as_str() {
        "MatMulInteger" | "DynamicQuantizeMatMul" | "MatMulIntegerToFloat" | "QAttention" => {
            large.contains(input(node, 1).as_str())
        }
        "QLinearMatMul" | "QLinearConv" | "QGemm" => large.contains(input(node, 3).as_str()),
        // Both operands 8 bits widened: runtimes make one 8-bit product of it. Widened weights alone are no 8-bit product.
        "Gemm" | "MatMul" | "Conv" => {
            let weight = widened(&input(node, 1)).is_some_and(|node| large.contains(input(node, 0).as_str()));
            weight && widened(&input(node, 0)).is_some()
        }
        _ => false,
    })
}

fn is_large(tensor: &Tensor) -> bool {
    tensor.data_type == INT8
        && tensor.data_location != EXTERNAL
        && tensor.raw_data.iter().flatten().any(|byte| (*byte as i8).unsigned_abs() > LARGEST)
}

#[cfg(test)]
mod tests {
    use super::super::message::Entry;
    use super::*;
    use std::path::Path;

    /// A model of one product: its weights, its nodes as operator, inputs and output.
    fn file(weights: &[i8], nodes: &[(&str, &[&str], &str)], metadata: &[(&str, &str)]) -> OnnxFile {
        let raw: Vec<u8> = weights.iter().map(|weight| *weight as u8).collect();
        let weight = Tensor {
            name: "w".to_owned(),
            data_type: INT8,
            dims: vec![weights.len() as i64, 1],
            raw_data: Some(raw.into()),
            ..Tensor::default()
        };
        let node = |(op, inputs, output): &(&str, &[&str], &str)| Node {
            op: (*op).to_owned(),
            inputs: inputs.iter().map(|input| (*input).to_owned()).collect(),
            outputs: vec![(*output).to_owned()],
            ..Node::default()
        };
        let graph = Graph { initializers: vec![weight], nodes: nodes.iter().map(node).collect(), ..Graph::default() };
        let entry = |(key, value): &(&str, &str)| Entry { key: (*key).to_owned(), value: (*value).to_owned() };
        let model = Model { graph: Some(graph), metadata: metadata.iter().map(entry).collect(), ..Model::default() };
        OnnxFile::parse(Path::new("model.onnx"), model.encode_to_vec().into()).unwrap()
    }

    #[test]
    fn products_of_large_weights_are_found() {
        let integer: &[(&str, &[&str], &str)] = &[("MatMulInteger", &["x", "w", "zx", "zw"], "y")];
        let linear: &[(&str, &[&str], &str)] = &[("QLinearMatMul", &["x", "sx", "zx", "w", "sw", "zw", "s", "z"], "y")];
        let fused: &[(&str, &[&str], &str)] = &[("DynamicQuantizeMatMul", &["x", "w", "sw", "zw"], "y")];
        let pairs: &[(&str, &[&str], &str)] = &[
            ("DequantizeLinear", &["x8", "sx", "zx"], "x"),
            ("DequantizeLinear", &["w", "sw", "zw"], "wide"),
            ("Gemm", &["x", "wide"], "y"),
        ];
        for nodes in [integer, linear, fused, pairs] {
            let op = nodes[nodes.len() - 1].0;
            for (weights, large) in [([64i8, -64], false), ([65, 0], true), ([0, -128], true), ([0, 0], false)] {
                assert_eq!(file(&weights, nodes, &[]).has_full_range_int8(), large, "{op} {weights:?}");
            }
        }
    }

    #[test]
    fn weights_that_are_only_stored_in_8_bits_are_no_8_bit_product() {
        let stored: &[(&str, &[&str], &str)] =
            &[("DequantizeLinear", &["w", "sw", "zw"], "wide"), ("MatMul", &["x", "wide"], "y")];
        assert!(!file(&[127, 127], stored, &[]).has_full_range_int8());
        let unused: &[(&str, &[&str], &str)] = &[("MatMulInteger", &["x", "other"], "y")];
        assert!(!file(&[127, 127], unused, &[]).has_full_range_int8());
    }

    #[test]
    fn the_record_is_believed_and_older_files_have_the_full_range() {
        let nodes: &[(&str, &[&str], &str)] = &[("MatMulInteger", &["x", "w"], "y")];
        assert!(file(&[1, 1], nodes, &[(INT8_RANGE_KEY, "full")]).has_full_range_int8());
        assert!(!file(&[127, 1], nodes, &[(INT8_RANGE_KEY, "reduced")]).has_full_range_int8());
        assert!(file(&[1, 1], nodes, &[("vjepa.precision", "int8-static")]).has_full_range_int8());
        assert!(!file(&[1, 1], nodes, &[("vjepa.precision", "f16-weights")]).has_full_range_int8());
    }
}
