//! Exported models on tract and ONNX Runtime against the compiler's interpreter.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, batched, input};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{Graph, Scalar, Sizes as Symbols, TensorType};
use vjepa_compiler::ops::{Binary, Op, Unary};
use vjepa_export::{ExternalData, Int8, OnnxOptions, PatchEmbedForm, Precision, Target, WeightRange, Weights, to_onnx};
use vjepa_runtime::cpu::Processor;
use vjepa_runtime::{ClipBatch, NamedOutput, Options, Runtime, Session, SessionError, Tolerance, compare};

fn oracle(graph: &Graph, weights: &Weights, shape: [usize; 5], clip: &[f32]) -> Vec<NamedOutput> {
    let mut sources: BTreeMap<String, Tensor> =
        weights.iter().map(|(name, (shape, data))| (name.clone(), Tensor::f32(shape.clone(), data.clone()))).collect();
    sources.insert("clip".to_owned(), Tensor::f32(shape.to_vec(), clip.to_vec()));
    let results = interp::run(graph, &Symbols::from([("B".to_owned(), shape[0])]), &sources).unwrap();
    let output = |(name, tensor): (String, Tensor)| {
        let data = tensor.as_f32().unwrap().to_vec();
        NamedOutput { name, shape: tensor.shape, data }
    };
    results.outputs.into_iter().map(output).collect()
}

fn ort() -> Option<Options> {
    #[cfg(feature = "ort")]
    match Runtime::discover(&vjepa_runtime::library::Search::default()) {
        Ok(library) => {
            println!("{library}");
            return Some(Options { runtime: Runtime::Ort, threads: Some(1), ..Options::default() });
        }
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(error) => println!("skipping ONNX Runtime: {error}"),
    }
    None
}

fn tract() -> Options {
    Options { runtime: Runtime::Tract, ..Options::default() }
}

/// Runs the model everywhere with these batch sizes.
fn check(name: &str, graph: &Graph, weights: &Weights, options: &OnnxOptions, clip: [usize; 5], batches: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), graph, weights, options);
    let sessions = [Some(tract()), ort()].into_iter().flatten();
    let sessions: Vec<Session> = sessions.map(|session| Session::open(&path, &session).unwrap()).collect();
    for batch in batches {
        let shape = [*batch, clip[1], clip[2], clip[3], clip[4]];
        let data = input(&shape);
        let expected = oracle(graph, weights, shape, &data);
        let clips = ClipBatch::new(shape, &data).unwrap();
        for session in &sessions {
            let runtime = session.runtime();
            match compare(session, &clips, &expected, Tolerance::default()) {
                Ok(differences) => {
                    for difference in differences {
                        println!("{name}, batch {batch}, {runtime}: {difference}");
                    }
                }
                Err(error) => panic!("{name}, batch {batch}, {runtime}: {error}"),
            }
        }
    }
}

fn write(folder: &Path, graph: &Graph, weights: &Weights, options: &OnnxOptions) -> PathBuf {
    let path = folder.join("model.onnx");
    to_onnx(graph, weights, options).unwrap().write(&path).unwrap();
    path
}

#[test]
fn encoders_and_probes() {
    let sizes = Sizes::SMALL;
    for head in [Head::None, Head::Attentive, Head::Linear] {
        for split in [Split::Permuted, Split::Sliced, Split::Heads] {
            let model = Model::new(sizes, head, split).unwrap();
            let name = format!("{head:?}, {split:?}");
            check(&name, &model.graph, &model.weights, &OnnxOptions::default(), sizes.clip(1), &[1, 3]);
        }
    }
}

#[test]
fn patch_embedding_as_gemm_and_external_data() {
    let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let gemm = OnnxOptions { patch_embed: PatchEmbedForm::Gemm, ..OnnxOptions::default() };
    let external = OnnxOptions { external_data: ExternalData::Always, ..OnnxOptions::default() };
    for (name, options) in [("gemm", gemm), ("external", external)] {
        check(name, &model.graph, &model.weights, &options, Sizes::SMALL.clip(1), &[2]);
    }
}

#[test]
fn folded_norms_unfolded_queries_old_operators_and_fixed_batches() {
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    let plain = OnnxOptions::default;
    for (name, options) in [
        ("norms", OnnxOptions { fold_norms: true, ..plain() }),
        ("query", OnnxOptions { fold_query: false, ..plain() }),
        ("opset 18", OnnxOptions { opset: 18, ..plain() }),
        ("batch 2", OnnxOptions { batch: Some(2), ..plain() }),
        ("tract", OnnxOptions::new(Target::Tract, Precision::F32)),
        ("blocks of queries", OnnxOptions { largest_scores: Some(300), ..plain() }),
    ] {
        check(name, &model.graph, &model.weights, &options, Sizes::SMALL.clip(1), &[2]);
    }
}

/// Narrow models are near the interpreter's 32-bit results, on every runtime that takes them.
#[test]
fn narrow_models_and_onnx_runtimes_own_operators() {
    let sizes = Sizes::SMALL;
    let model = Model::new(sizes, Head::Attentive, Split::Permuted).unwrap();
    let linears = model.weights.keys().filter(|name| name.ends_with("weight") && name.contains("blocks"));
    let ranges = linears.map(|name| (name.clone(), [-8.0, 8.0])).collect();
    let fixed = Int8 { ranges, ..Int8::default() };
    let shape = sizes.clip(2);
    let data = input(&shape);
    let expected = oracle(&model.graph, &model.weights, shape, &data);
    let clips = ClipBatch::new(shape, &data).unwrap();
    let exact = Tolerance::default();
    let near = |relative| Tolerance { absolute: f64::INFINITY, relative };
    for (target, precision, tolerance, on_tract) in [
        (Target::OrtCpu, Precision::F32, exact, false),
        (Target::Portable, Precision::F16Weights, near(2e-3), true),
        (Target::Portable, Precision::F16, near(5e-3), false),
        (Target::Portable, Precision::Int8Dynamic, near(5e-2), true),
        (Target::OrtCpu, Precision::Int8Dynamic, near(5e-2), false),
        (Target::Portable, Precision::Int8Static, near(1e-1), true),
    ] {
        let options = OnnxOptions { int8: fixed.clone(), ..OnnxOptions::new(target, precision) };
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path(), &model.graph, &model.weights, &options);
        for session in [on_tract.then(tract), ort()].into_iter().flatten() {
            let session = Session::open(&path, &session).unwrap();
            let found = compare(&session, &clips, &expected, tolerance);
            let found = found.unwrap_or_else(|error| panic!("{target} {precision}, {}: {error}", session.runtime()));
            println!("{target} {precision}, {}: {}", session.runtime(), found[0]);
        }
    }
}

/// Weights over the full range saturate in ONNX Runtime on x86 without VNNI: the session says so, and nowhere else.
#[test]
fn full_range_weights_are_warned_of_where_they_saturate() {
    let sizes = Sizes::SMALL;
    let model = Model::new(sizes, Head::Attentive, Split::Permuted).unwrap();
    let ranges: BTreeMap<_, _> = model.weights.keys().map(|name| (name.clone(), [-8.0, 8.0])).collect();
    let data = input(&sizes.clip(2));
    let expected = oracle(&model.graph, &model.weights, sizes.clip(2), &data);
    let clips = ClipBatch::new(sizes.clip(2), &data).unwrap();
    for (precision, relative) in [(Precision::Int8Dynamic, 5e-2), (Precision::Int8Static, 1e-1)] {
        for range in [WeightRange::Full, WeightRange::Reduced] {
            let int8 = Int8 { range, ranges: ranges.clone(), ..Int8::default() };
            let options = OnnxOptions { int8, ..OnnxOptions::new(Target::Portable, precision) };
            let folder = tempfile::tempdir().unwrap();
            let path = write(folder.path(), &model.graph, &model.weights, &options);
            for session in [Some(tract()), ort()].into_iter().flatten() {
                let on_ort = session.runtime == Runtime::Ort;
                let session = Session::open(&path, &session).unwrap();
                let warned = range == WeightRange::Full && on_ort && Processor::here().saturates();
                assert_eq!(session.caution().is_some(), warned, "{:?}", session.caution());
                assert!(session.caution().is_none_or(|text| text.contains("VNNI") && text.len() < 1000));
                if !warned {
                    let near = Tolerance { absolute: f64::INFINITY, relative };
                    let found = compare(&session, &clips, &expected, near);
                    found.unwrap_or_else(|error| panic!("{precision} {range}, {}: {error}", session.runtime()));
                }
            }
        }
    }
}

#[test]
fn vit_tiny_with_its_probe() {
    // Few tokens: the interpreter is slow.
    let sizes = Sizes { frames: 4, side: 48, ..Sizes::VIT_TINY };
    let model = Model::new(sizes, Head::Attentive, Split::Permuted).unwrap();
    check("ViT-T", &model.graph, &model.weights, &OnnxOptions::default(), sizes.clip(1), &[2]);
}

/// Every operation that is no part of training, on values that stay in range.
#[test]
fn every_other_operation() {
    let mut m = Model::new(Sizes::SMALL, Head::None, Split::Sliced).unwrap();
    m.graph = Graph::new("operations", &["B"]);
    m.weights.clear();
    let clip = m.graph.input("clip", TensorType::f32(batched(&[3, 2, 4, 4]))).unwrap();
    let x = m.push(Op::Tubelets { tubelet: 1, patch: 2 }, &[clip]).unwrap(); // [B, 8, 12]
    let x = m.push(Op::Unary(Unary::Tanh), &[x]).unwrap();
    let mut sum = m.push(Op::AddScalar(Scalar::from(2.5)), &[x]).unwrap();
    for f in Unary::ALL {
        let y = m.push(Op::Unary(f), &[sum]).unwrap();
        let y = m.push(Op::MulScalar(Scalar::from(0.01)), &[y]).unwrap();
        sum = m.push(Op::Binary(Binary::Add), &[sum, y]).unwrap();
    }
    let other = m.param("other", &[8, 12], 0.3).unwrap();
    for f in Binary::ALL {
        let y = m.push(Op::AddScalar(Scalar::from(2.0)), &[other]).unwrap();
        let y = m.push(Op::Binary(f), &[x, y]).unwrap();
        sum = m.push(Op::Binary(Binary::Add), &[sum, y]).unwrap();
    }
    let y = m.push(Op::AddScalar(Scalar::from(20.0)), &[sum]).unwrap();
    let y = m.push(Op::PowScalar(1.5), &[y]).unwrap();
    let y = m.push(Op::LayerNorm { eps: 1e-5 }, &[y]).unwrap();
    let soft = m.push(Op::Softmax, &[y]).unwrap();
    let log = m.push(Op::LogSoftmax, &[y]).unwrap();
    let y = m.push(Op::Binary(Binary::Add), &[soft, log]).unwrap();
    let mean = m.push(Op::Mean { axes: vec![1] }, &[y]).unwrap();
    let y = m.push(Op::Binary(Binary::Sub), &[y, mean]).unwrap();
    let total = m.push(Op::Sum { axes: vec![2] }, &[y]).unwrap();
    let y = m.push(Op::Binary(Binary::Mul), &[y, total]).unwrap();
    let cut = m.slice(y, 1, 2, 7).unwrap();
    let cut = m.push(Op::Pad { axis: 1, before: 1usize.into(), after: 2usize.into() }, &[cut]).unwrap();
    let y = m.push(Op::Concat { axis: 2 }, &[y, cut]).unwrap(); // [B, 8, 24]
    let turned = m.push(Op::Permute { axes: vec![0, 2, 1] }, &[y]).unwrap();
    let y = m.push(Op::MatMul { ta: false, tb: true }, &[y, y]).unwrap(); // [B, 8, 8]
    let z = m.push(Op::MatMul { ta: true, tb: false }, &[turned, turned]).unwrap();
    let y = m.push(Op::Binary(Binary::Sub), &[y, z]).unwrap();
    let small = m.push(Op::Mean { axes: vec![1] }, &[turned]).unwrap();
    let wide = m.push(Op::Broadcast { shape: batched(&[8, 8]) }, &[small]).unwrap();
    let y = m.push(Op::Binary(Binary::Add), &[y, wide]).unwrap();
    let q = m.reshape(y, &[2, 8, 4]).unwrap();
    let y = m.push(Op::Attention { scale: 0.3 }, &[q, q, q]).unwrap();
    m.graph.output("y", y);
    m.graph.output("total", total);
    check("operations", &m.graph, &m.weights, &OnnxOptions::default(), [1, 3, 2, 4, 4], &[1, 2]);
}

#[test]
fn a_session_describes_itself() {
    let model = Model::new(Sizes::SMALL, Head::Linear, Split::Permuted).unwrap();
    let metadata = BTreeMap::from([("vjepa.arch".to_owned(), "small".to_owned())]);
    let folder = tempfile::tempdir().unwrap();
    let options = OnnxOptions { metadata: metadata.clone(), ..OnnxOptions::default() };
    let path = write(folder.path(), &model.graph, &model.weights, &options);
    let session = Session::open(&path, &Options::default()).unwrap();
    assert_eq!(session.metadata(), &metadata);
    assert_eq!(session.input().to_string(), "clip f32[batch, 3, 4, 32, 32]");
    assert_eq!(session.outputs()[0].to_string(), "logits f32[batch, 7]");
    assert!(session.runtime().starts_with("tract"));
    let shape = [1, 3, 4, 16, 16];
    let data = input(&shape);
    let error = session.run(&ClipBatch::new(shape, &data).unwrap()).unwrap_err();
    assert!(matches!(error, SessionError::Shape { .. }), "{error}");
    assert!(error.to_string().contains("[batch, 3, 4, 32, 32]") && error.to_string().contains("16, 16]"), "{error}");
    assert!(ClipBatch::new(shape, &data[1..]).is_err());
}

#[test]
fn threads_change_nothing_much() {
    let sizes = Sizes::VIT_TINY;
    let model = Model::new(Sizes { depth: 1, ..sizes }, Head::None, Split::Permuted).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &model.graph, &model.weights, &OnnxOptions::default());
    let data = input(&sizes.clip(1));
    let clips = ClipBatch::new(sizes.clip(1), &data).unwrap();
    let one = Session::open(&path, &tract()).unwrap().run(&clips).unwrap();
    let two = Session::open(&path, &Options { threads: Some(2), ..tract() }).unwrap();
    compare(&two, &clips, &one, Tolerance::default()).unwrap();
}

#[cfg(feature = "ort")]
#[test]
fn a_missing_library_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = Model::new(Sizes::SMALL, Head::Linear, Split::Permuted).unwrap();
    let path = write(folder.path(), &model.graph, &model.weights, &OnnxOptions::default());
    let missing = Some(folder.path().join("libonnxruntime.so"));
    let error = Session::open(&path, &Options { runtime: Runtime::Ort, ort_lib: missing, ..Options::default() });
    let error = error.unwrap_err().to_string();
    assert!(error.contains("libonnxruntime.so"), "{error}");
}
