//! What exported models consist of, and what cannot be exported.

mod fixtures;

use fixtures::{Head, Model, Sizes, Split, batched};
use prost::Message;
use std::collections::BTreeMap;
use vjepa_compiler::ir::{Graph, TensorType};
use vjepa_compiler::ops::{Op, Unary};
use vjepa_export::proto::ModelProto;
use vjepa_export::proto::tensor_proto::DataType;
use vjepa_export::{ExportError, ExternalData, OnnxOptions, Precision, Target, Weights, to_onnx};

fn export(model: &Model, options: &OnnxOptions) -> ModelProto {
    let bytes = to_onnx(&model.graph, &model.weights, options).unwrap().to_bytes().unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

fn operators(model: &ModelProto) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for node in &model.graph.as_ref().unwrap().node {
        *counts.entry(node.op_type().to_owned()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn an_encoder_has_these_nodes_and_no_others() {
    for split in [Split::Permuted, Split::Sliced, Split::Heads] {
        let model = export(&Model::new(Sizes::SMALL, Head::None, split).unwrap(), &OnnxOptions::default());
        let depth = Sizes::SMALL.depth;
        let expected = [
            ("Add", 1 + 2 * depth),
            ("Conv", 1),
            ("Gelu", depth),
            ("Gemm", 6 * depth),
            ("LayerNormalization", 2 * depth + 1),
            ("MatMul", 2 * depth),
            ("Reshape", 3 + 4 * depth),
            ("Softmax", depth),
            ("Transpose", 1 + 4 * depth),
        ];
        assert_eq!(operators(&model), expected.map(|(op, count)| (op.to_owned(), count)).into());
        let graph = model.graph.unwrap();
        let names: Vec<&str> = graph.node.iter().map(|node| node.name()).collect();
        for name in ["patch_embed/proj", "pos_embed", "blocks.0/attn/q", "blocks.1/attn/softmax", "blocks.1/mlp/gelu"] {
            assert!(names.contains(&name), "{name} is not among {names:?}");
        }
        let constants: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name()).collect();
        assert!(constants.contains(&"encoder.blocks.0.attn.q.weight"));
        assert!(constants.contains(&"encoder.blocks.0.attn.proj.weight") && constants.contains(&"encoder.pos_embed"));
        assert!(!constants.contains(&"encoder.blocks.0.attn.qkv.weight"));
    }
}

#[test]
fn the_header_is_portable() {
    let metadata = BTreeMap::from([("vjepa.a".to_owned(), "1".to_owned()), ("vjepa.b".to_owned(), "2".to_owned())]);
    let options = OnnxOptions { metadata, ..OnnxOptions::default() };
    let model = export(&Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap(), &options);
    assert_eq!((model.ir_version(), model.opset_import[0].version()), (9, 20));
    assert_eq!(model.metadata_props.iter().map(|entry| entry.key()).collect::<Vec<_>>(), ["vjepa.a", "vjepa.b"]);
    let text = format!("{:?}", model.graph.unwrap().output);
    assert!(text.contains("DimParam(\"batch\")") && text.contains("logits"), "{text}");
}

#[test]
fn no_key_or_value_is_projected_for_the_query_of_a_probe() {
    let model = export(&Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap(), &OnnxOptions::default());
    let graph = model.graph.unwrap();
    assert!(!graph.node.iter().any(|node| node.name().contains("xattn/q") || node.name().contains("xattn/k")));
    let constants: Vec<_> = graph.initializer.iter().filter(|tensor| tensor.name().contains("xattn")).collect();
    let shapes: Vec<&[i64]> = constants.iter().map(|tensor| tensor.dims.as_slice()).collect();
    // The folded query [D, H], and a value projection of each head [1, H, D, d], with its bias.
    assert!(shapes.contains(&[24, 3].as_slice()) && shapes.contains(&[1, 3, 24, 8].as_slice()), "{shapes:?}");
    let plain = OnnxOptions { fold_query: false, ..OnnxOptions::default() };
    let plain = export(&Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap(), &plain);
    assert!(plain.graph.unwrap().node.iter().any(|node| node.name().ends_with("xattn/k")));
}

#[test]
fn onnx_runtimes_own_attention_is_used_where_asked_for() {
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let model = export(&model, &OnnxOptions::new(Target::OrtCpu, Precision::F32));
    assert_eq!(operators(&model).get("MultiHeadAttention"), Some(&Sizes::SMALL.depth));
    let domains: Vec<&str> = model.opset_import.iter().map(|set| set.domain()).collect();
    assert_eq!(domains, ["", "com.microsoft"]);
}

#[test]
fn many_scores_are_worked_through_in_blocks_of_queries() {
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let options = OnnxOptions { largest_scores: Some(300), ..OnnxOptions::default() };
    let blocks = export(&model, &options);
    let whole = export(&model, &OnnxOptions::default());
    assert_eq!(operators(&whole).get("Split"), None);
    assert_eq!(operators(&blocks).get("Split"), Some(&Sizes::SMALL.depth));
    assert!(operators(&blocks).get("Softmax") > operators(&whole).get("Softmax"));
    assert_eq!(OnnxOptions::new(Target::TensorRt, Precision::F32).largest_scores, None);

    // tract: groups of heads, so that keys and values are split as well.
    let heads = export(&model, &OnnxOptions { target: Target::Tract, ..options });
    assert_eq!(operators(&heads).get("Split"), Some(&(3 * Sizes::SMALL.depth)));
}

#[test]
fn narrow_models_have_casts_at_every_border_and_no_others() {
    for (precision, element) in [(Precision::F16, DataType::Float16), (Precision::Bf16, DataType::Bfloat16)] {
        let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
        let model = export(&model, &OnnxOptions::new(Target::TensorRt, precision));
        let depth = Sizes::SMALL.depth;
        // The clip and the patch tokens; each block: two norms, two branches, softmax in and out.
        assert_eq!(operators(&model).get("Cast"), Some(&(2 + 6 * depth)));
        for tensor in &model.graph.unwrap().initializer {
            let wide = tensor.name().contains("norm") || tensor.name().contains("pos_embed");
            let floats = tensor.data_type() != DataType::Int64 as i32;
            let expected = if wide { DataType::Float } else { element };
            assert!(!floats || tensor.data_type() == expected as i32, "{}", tensor.name());
        }
    }
}

#[test]
fn eight_bit_models_keep_what_they_are_told_to() {
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let mut options = OnnxOptions::new(Target::Portable, Precision::Int8Dynamic);
    options.int8.keep.insert("encoder.blocks.1.mlp.fc2.weight".to_owned());
    let exported = export(&model, &options);
    let counts = operators(&exported);
    // Query, key and value share one quantised input.
    assert_eq!((counts["MatMulInteger"], counts["DynamicQuantizeLinear"]), (6 * 2 - 1, 4 * 2 - 1));
    let graph = exported.graph.unwrap();
    assert!(graph.node.iter().any(|node| node.name() == "blocks.1/mlp/fc2" && node.op_type() == "Gemm"));

    options.precision = Precision::Int8Static;
    let error = to_onnx(&model.graph, &model.weights, &options).err().unwrap().to_string();
    assert!(error.contains("needs the range") && error.contains("qkv.weight"), "{error}");
}

#[test]
fn what_a_target_cannot_do_says_what_can_be_done() {
    let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let refuse = |options: OnnxOptions| to_onnx(&model.graph, &model.weights, &options).err().unwrap().to_string();
    let message = refuse(OnnxOptions::new(Target::Tract, Precision::Bf16));
    assert!(message.contains("`bf16`") && message.contains("`tract`") && message.contains("use f32"), "{message}");
    assert!(refuse(OnnxOptions::new(Target::TensorRt, Precision::Int8Dynamic)).contains("int8-static"));
    assert!(refuse(OnnxOptions { opset: 17, ..OnnxOptions::default() }).contains("18 to 25"));
    assert!(refuse(OnnxOptions { batch: Some(0), ..OnnxOptions::default() }).contains("at least 1"));
}

#[test]
fn a_fixed_batch_is_in_every_shape() {
    let model = Model::new(Sizes::SMALL, Head::Linear, Split::Permuted).unwrap();
    let model = export(&model, &OnnxOptions { batch: Some(3), ..OnnxOptions::default() });
    let graph = model.graph.unwrap();
    let text = format!("{:?} {:?}", graph.input, graph.output);
    assert!(text.contains("DimValue(3)") && !text.contains("DimParam"), "{text}");
}

#[test]
fn equal_input_gives_equal_bytes_and_external_data_is_aligned() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let options = OnnxOptions { external_data: ExternalData::Always, ..OnnxOptions::default() };
    let mut seen = Vec::new();
    for _ in 0..2 {
        let model = Model::new(Sizes::SMALL, Head::Linear, Split::Permuted).unwrap();
        let written = to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
        let data = written.data.unwrap();
        let (model, data) = (std::fs::read(&written.model).unwrap(), std::fs::read(data).unwrap());
        assert_eq!(written.bytes as usize, model.len() + data.len());
        seen.push((model, data));
    }
    assert_eq!(seen[0], seen[1]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "temporary files are left");
    let model = ModelProto::decode(seen[0].0.as_slice()).unwrap();
    let mut external = 0;
    for tensor in &model.graph.unwrap().initializer {
        for entry in tensor.external_data.iter().filter(|entry| entry.key() == "offset") {
            assert_eq!(entry.value().parse::<usize>().unwrap() % 4096, 0);
            external += 1;
        }
    }
    assert!(external > 10);
}

#[test]
fn training_and_misfits_are_errors() {
    let mut graph = Graph::new("gradient", &["B"]);
    let x = graph.input("x", TensorType::f32(batched(&[4]))).unwrap();
    let y = graph.push1(Op::GeluGrad, &[x, x]).unwrap();
    graph.output("y", y);
    let error = to_onnx(&graph, &Weights::new(), &OnnxOptions::default()).err().unwrap().to_string();
    assert!(error.contains("gelu_grad") && error.contains("portable"), "{error}");

    let mut model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let x = model.graph.params[0];
    let y = model.push(Op::Unary(Unary::Neg), &[x]).unwrap();
    model.graph.update(x, y).unwrap();
    let error = to_onnx(&model.graph, &model.weights, &OnnxOptions::default());
    assert!(matches!(error, Err(ExportError::Training(_))));

    let mut model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    model.weights.remove("encoder.blocks.1.mlp.fc1.weight");
    let error = to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).err().unwrap().to_string();
    assert!(error.contains("encoder.blocks.1.mlp.fc1.weight"), "{error}");
    model.weights.insert("encoder.blocks.1.mlp.fc1.weight".into(), (vec![2, 2], vec![0.0; 4]));
    let error = to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).err();
    assert!(matches!(error, Some(ExportError::WeightShape { .. })));
}
