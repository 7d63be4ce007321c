//! Writes small models as ONNX into a folder, for `tests/onnx/check.py`:
//! `cargo run -p vjepa-export --example tiny_onnx -- FOLDER`.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, batched};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vjepa_compiler::ir::{DType, Graph, GraphError, TensorType};
use vjepa_compiler::ops::{Binary, Op};
use vjepa_export::{ExternalData, OnnxOptions, PatchEmbedForm, Precision, Target, Weights, to_onnx};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: tiny_onnx FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    let metadata = BTreeMap::from([("vjepa.arch".to_owned(), "test".to_owned())]);
    let plain = OnnxOptions { metadata, ..OnnxOptions::default() };
    let gemm = OnnxOptions { patch_embed: PatchEmbedForm::Gemm, ..plain.clone() };
    let blocks = OnnxOptions { largest_scores: Some(300), ..plain.clone() };
    let external = OnnxOptions { external_data: ExternalData::Always, ..plain.clone() };
    let narrow = OnnxOptions::new;
    for (name, sizes, head, split, options) in [
        ("encoder", Sizes::SMALL, Head::None, Split::Permuted, &plain),
        ("encoder-sliced", Sizes::SMALL, Head::None, Split::Sliced, &plain),
        ("encoder-heads", Sizes::SMALL, Head::None, Split::Heads, &plain),
        ("encoder-gemm", Sizes::SMALL, Head::None, Split::Permuted, &gemm),
        ("encoder-external", Sizes::SMALL, Head::None, Split::Permuted, &external),
        ("encoder-blocks", Sizes::SMALL, Head::None, Split::Permuted, &blocks),
        ("probe", Sizes::SMALL, Head::Attentive, Split::Permuted, &plain),
        ("linear-probe", Sizes::SMALL, Head::Linear, Split::Permuted, &plain),
        ("vit-tiny", Sizes::VIT_TINY, Head::Attentive, Split::Permuted, &plain),
        ("probe-f16", Sizes::SMALL, Head::Attentive, Split::Permuted, &narrow(Target::Portable, Precision::F16)),
        ("probe-bf16", Sizes::SMALL, Head::Attentive, Split::Permuted, &narrow(Target::Portable, Precision::Bf16)),
        ("tensorrt-f16", Sizes::SMALL, Head::Attentive, Split::Permuted, &narrow(Target::TensorRt, Precision::F16)),
        ("tensorrt-bf16", Sizes::SMALL, Head::Attentive, Split::Permuted, &narrow(Target::TensorRt, Precision::Bf16)),
        (
            "probe-int8",
            Sizes::SMALL,
            Head::Attentive,
            Split::Permuted,
            &narrow(Target::Portable, Precision::Int8Dynamic),
        ),
    ] {
        let model = Model::new(sizes, head, split)?;
        let path = folder.join(format!("{name}.onnx"));
        let onnx = to_onnx(&model.graph, &model.weights, options)?;
        let written = onnx.write(&path)?;
        let nodes = onnx.proto().graph.as_ref().map_or(0, |graph| graph.node.len());
        println!("{}: {nodes} nodes, {} bytes", written.model.display(), written.bytes);
    }
    let (graph, weights) = gathers()?;
    to_onnx(&graph, &weights, &plain)?.write(&folder.join("gathers.onnx"))?;
    Ok(())
}

/// Tokens chosen by an index, as in a predictor: `tokens[index] + table[index]`, then the tokens themselves.
fn gathers() -> Result<(Graph, Weights), GraphError> {
    let mut model = Model::new(Sizes::SMALL, Head::None, Split::Permuted)?;
    (model.graph, model.weights) = (Graph::new("gathers", &["B"]), Weights::new());
    let tokens = model.graph.input("tokens", TensorType::f32(batched(&[6, 5])))?;
    let index = model.graph.input("index", TensorType::new(DType::I32, batched(&[3])))?;
    let table = model.param("table", &[1, 6, 5], 1.0)?;
    let chosen = model.push(Op::GatherTokens, &[tokens, index])?;
    let position = model.push(Op::GatherTokens, &[table, index])?;
    let sum = model.push(Op::Binary(Binary::Add), &[chosen, position])?;
    let all = model.push(Op::Concat { axis: 1 }, &[sum, tokens])?;
    model.graph.output("all", all);
    Ok((model.graph, model.weights))
}
