//! The forms a model can be exported in compute the same on tract.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use vjepa_export::{OnnxOptions, PatchEmbedForm, Target, to_onnx};
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};

fn logits(model: &Model, options: &OnnxOptions) -> Vec<f32> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    to_onnx(&model.graph, &model.weights, options).unwrap().write(&path).unwrap();
    let session = Session::open(&path, &Options { runtime: Runtime::Tract, ..Options::default() }).unwrap();
    let shape = Sizes::SMALL.clip(2);
    let clips: Vec<f32> = (0..shape.iter().product()).map(|i: usize| (i as f32 * 0.37).sin()).collect();
    session.run(&ClipBatch::new(shape, &clips).unwrap()).unwrap().remove(0).data
}

#[test]
fn every_form_computes_the_same() {
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let plain = OnnxOptions { largest_scores: None, ..OnnxOptions::default() };
    let whole = logits(&model, &plain);
    assert_eq!(whole.len(), 2 * Sizes::SMALL.classes);
    for options in [
        OnnxOptions { largest_scores: Some(300), ..plain.clone() },
        OnnxOptions { largest_scores: Some(2000), target: Target::Tract, ..plain.clone() },
        OnnxOptions { largest_scores: Some(300), target: Target::Tract, ..plain.clone() },
        OnnxOptions { fold_norms: true, ..plain.clone() },
        OnnxOptions { fold_query: false, ..plain.clone() },
        OnnxOptions { patch_embed: PatchEmbedForm::Gemm, ..plain.clone() },
    ] {
        let other = logits(&model, &options);
        let worst = whole.iter().zip(&other).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(worst < 1e-5, "{options:?}: {worst}");
    }
}
