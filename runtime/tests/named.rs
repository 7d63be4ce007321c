//! Models of several inputs on tract and ONNX Runtime against the compiler's interpreter, and what they are not fed.
#![cfg(feature = "tract")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{Dim, Graph, TensorType};
use vjepa_compiler::ops::{Op, RoiSampling};
use vjepa_export::{OnnxOptions, Weights, to_onnx};
use vjepa_runtime::{ClipBatch, NamedInput, NamedOutput, Options, Runtime, Session, Tolerance, compare_named};

fn shape(symbol: &str, rest: &[usize]) -> TensorType {
    TensorType::f32([Dim::symbol(symbol)].into_iter().chain(rest.iter().map(|size| Dim::from(*size))))
}

/// `clip f32[B, 1, 2, 3, 4]` and `states f32[B, 5]` to the sums of a clip's last axis and a linear layer of its states: what they
/// are multiplied by differs, so that inputs that change places are noticed.
fn poses() -> (Graph, Weights) {
    let mut graph = Graph::new("poses", &["B"]);
    let clip = graph.input("clip", shape("B", &[1, 2, 3, 4])).unwrap();
    let states = graph.input("states", shape("B", &[5])).unwrap();
    let weight = graph.param("weight", TensorType::f32([4usize, 5].map(Dim::from))).unwrap();
    let bias = graph.param("bias", TensorType::f32([4usize].map(Dim::from))).unwrap();
    let mean = graph.mean(clip, &[1, 2, 3]).unwrap();
    let mean = graph.reshape(mean, &[Dim::symbol("B"), Dim::from(4usize)]).unwrap();
    let linear = graph.push1(Op::Linear, &[states, weight, bias]).unwrap();
    let y = graph.add(mean, linear).unwrap();
    graph.output("y", y);
    let weights = Weights::from([
        ("weight".to_owned(), (vec![4, 5], wave(20, 0.3))),
        ("bias".to_owned(), (vec![4], wave(4, 0.7))),
    ]);
    (graph, weights)
}

/// `clip f32[B, 5, 8, 8]` and `boxes f32[R, 5]` to the bins of the boxes.
fn boxes() -> (Graph, Weights) {
    let mut graph = Graph::new("boxes", &["B", "R"]);
    let clip = graph.input("clip", shape("B", &[5, 8, 8])).unwrap();
    let boxes = graph.input("boxes", shape("R", &[5])).unwrap();
    let sampling = RoiSampling { scale: 0.5, samples: 0, aligned: true };
    let y = graph.push1(Op::RoiAlign { size: 3, sampling }, &[clip, boxes]).unwrap();
    graph.output("bins", y);
    (graph, Weights::new())
}

fn wave(count: usize, step: f32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * step).sin()).collect()
}

fn write(folder: &Path, (graph, weights): &(Graph, Weights)) -> PathBuf {
    let path = folder.join(format!("{}.onnx", graph.name));
    to_onnx(graph, weights, &OnnxOptions::default()).unwrap().write(&path).unwrap();
    path
}

fn on(runtime: Runtime) -> Options {
    Options { runtime, any_inputs: true, ..Options::default() }
}

/// ONNX Runtime, where it is installed.
fn ort() -> Option<Options> {
    #[cfg(feature = "ort")]
    match Runtime::discover(&vjepa_runtime::library::Search::default()) {
        Ok(_) => return Some(on(Runtime::Ort)),
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(error) => println!("skipping ONNX Runtime: {error}"),
    }
    None
}

/// Results of the interpreter.
fn oracle((graph, weights): &(Graph, Weights), inputs: &[NamedInput<'_>]) -> Vec<NamedOutput> {
    let mut sources: BTreeMap<String, Tensor> =
        weights.iter().map(|(name, (shape, data))| (name.clone(), Tensor::f32(shape.clone(), data.clone()))).collect();
    let tensor = |input: &NamedInput<'_>| Tensor::f32(input.shape().to_vec(), input.data().to_vec());
    sources.extend(inputs.iter().map(|input| (input.name().to_owned(), tensor(input))));
    let symbols = graph.symbols.iter().zip(inputs).map(|(symbol, input)| (symbol.clone(), input.shape()[0]));
    let results = interp::run(graph, &symbols.collect(), &sources).unwrap();
    let output = |(name, tensor): (String, Tensor)| {
        let data = tensor.as_f32().unwrap().to_vec();
        NamedOutput { name, shape: tensor.shape, data }
    };
    results.outputs.into_iter().map(output).collect()
}

#[test]
fn several_inputs_are_fed_by_name_in_any_order_and_batch() {
    let folder = tempfile::tempdir().unwrap();
    let model = poses();
    let path = write(folder.path(), &model);
    for options in [Some(on(Runtime::Tract)), Some(on(Runtime::Auto)), ort()].into_iter().flatten() {
        let session = Session::open(&path, &options).unwrap();
        let inputs: Vec<String> = session.inputs().iter().map(ToString::to_string).collect();
        assert_eq!(inputs, ["clip f32[batch, 1, 2, 3, 4]", "states f32[batch, 5]"]);
        for batch in [1, 3, 2, 3] {
            let (clip_shape, clip) = ([batch, 1, 2, 3, 4], wave(batch * 24, 0.11));
            let (states_shape, states) = ([batch, 5], wave(batch * 5, 0.23));
            let clip = NamedInput::new("clip", &clip_shape, &clip).unwrap();
            let states = NamedInput::new("states", &states_shape, &states).unwrap();
            let expected = oracle(&model, &[clip, states]);
            for given in [[clip, states], [states, clip]] {
                let found = compare_named(&session, &given, &expected, Tolerance::default());
                assert!(found.is_ok(), "{}, batch {batch}: {}", session.runtime(), found.unwrap_err());
            }
        }
    }
}

#[test]
fn what_a_model_does_not_take_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &poses());
    let told = Session::open(&path, &Options::default()).unwrap_err().to_string();
    assert!(told.contains("states f32[batch, 5]") && told.contains("one input"), "{told}");
    let session = Session::open(&path, &on(Runtime::Tract)).unwrap();
    let (clip, states) = (wave(48, 0.1), wave(15, 0.1));
    let tensor = |name, shape: &'static [usize]| {
        let data = if name == "clip" { &clip } else { &states };
        NamedInput::new(name, shape, &data[..shape.iter().product()]).unwrap()
    };
    let (clip_of_two, states_of_three) = (tensor("clip", &[2, 1, 2, 3, 4]), tensor("states", &[3, 5]));
    for (given, words) in [
        (vec![clip_of_two], "nothing was given for the input `states`"),
        (vec![clip_of_two, tensor("state", &[2, 5])], "no input `state`; it takes clip f32"),
        (vec![clip_of_two, tensor("states", &[2, 4])], "states f32[batch, 5] was given a tensor of shape [2, 4]"),
        (vec![clip_of_two, states_of_three], "`batch` is 2 in the input `clip` and 3 in the input `states`"),
    ] {
        let told = session.run_named(&given).unwrap_err().to_string();
        assert!(told.contains(words), "{words}: {told}");
    }
    let told = session.run(&ClipBatch::new([1, 1, 2, 3, 4], &clip[..24]).unwrap()).unwrap_err().to_string();
    assert!(told.contains("give it a tensor for each of them by name"), "{told}");
}

/// tract has no RoiAlign, which is no fault of the file: ONNX Runtime runs it.
#[test]
fn operators_that_tract_lacks_are_told_apart_from_damage() {
    let folder = tempfile::tempdir().unwrap();
    let model = boxes();
    let path = write(folder.path(), &model);
    let error = Session::open(&path, &on(Runtime::Tract)).unwrap_err();
    assert!(error.lacks_operators(), "{error}");
    assert!(error.to_string().contains("lacks the operators RoiAlign"), "{error}");
    std::fs::write(folder.path().join("cut.onnx"), b"\x08\x0a\x12").unwrap();
    let damaged = Session::open(&folder.path().join("cut.onnx"), &on(Runtime::Tract)).unwrap_err();
    assert!(!damaged.lacks_operators(), "{damaged}");
    let Some(options) = ort() else { return };
    for options in [options, on(Runtime::Auto)] {
        let session = Session::open(&path, &options).unwrap();
        assert_eq!(session.runs_on(), Runtime::Ort);
        let clip_shape = [2, 5, 8, 8];
        let clip = wave(640, 0.05);
        // As many boxes as a run has.
        for rows in [
            &[[0.0, 1.0, 1.0, 9.0, 7.0], [1.0, 0.0, 0.0, 15.0, 15.0], [1.0, 3.0, 4.0, 5.0, 12.5]][..],
            &[[1.0, 2.0, 2.0, 8.0, 8.0]],
        ] {
            let (boxes_shape, boxes) = ([rows.len(), 5], rows.concat());
            let clip = NamedInput::new("clip", &clip_shape, &clip).unwrap();
            let boxes = NamedInput::new("boxes", &boxes_shape, &boxes).unwrap();
            let expected = oracle(&model, &[clip, boxes]);
            compare_named(&session, &[boxes, clip], &expected, Tolerance::default()).unwrap();
        }
    }
}
