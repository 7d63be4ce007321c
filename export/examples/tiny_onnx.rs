//! Writes small models as ONNX into a folder, for `tests/onnx/check.py`:
//! `cargo run -p vjepa-export --example tiny_onnx -- FOLDER`.

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use std::collections::BTreeMap;
use std::path::PathBuf;
use vjepa_export::{ExternalData, OnnxOptions, PatchEmbedForm, to_onnx};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = PathBuf::from(std::env::args().nth(1).ok_or("usage: tiny_onnx FOLDER")?);
    std::fs::create_dir_all(&folder)?;
    let metadata = BTreeMap::from([("vjepa.arch".to_owned(), "test".to_owned())]);
    let plain = OnnxOptions { metadata, ..OnnxOptions::default() };
    let gemm = OnnxOptions { patch_embed: PatchEmbedForm::Gemm, ..plain.clone() };
    let external = OnnxOptions { external_data: ExternalData::Always, ..plain.clone() };
    for (name, sizes, head, split, options) in [
        ("encoder", Sizes::SMALL, Head::None, Split::Permuted, &plain),
        ("encoder-sliced", Sizes::SMALL, Head::None, Split::Sliced, &plain),
        ("encoder-gemm", Sizes::SMALL, Head::None, Split::Permuted, &gemm),
        ("encoder-external", Sizes::SMALL, Head::None, Split::Permuted, &external),
        ("probe", Sizes::SMALL, Head::Attentive, Split::Permuted, &plain),
        ("linear-probe", Sizes::SMALL, Head::Linear, Split::Permuted, &plain),
        ("vit-tiny", Sizes::VIT_TINY, Head::Attentive, Split::Permuted, &plain),
    ] {
        let model = Model::new(sizes, head, split)?;
        let path = folder.join(format!("{name}.onnx"));
        let onnx = to_onnx(&model.graph, &model.weights, options)?;
        let written = onnx.write(&path)?;
        let nodes = onnx.proto().graph.as_ref().map_or(0, |graph| graph.node.len());
        println!("{}: {nodes} nodes, {} bytes", written.model.display(), written.bytes);
    }
    Ok(())
}
