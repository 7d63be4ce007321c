//! A real model on tract behind the server: what comes over the wire is what its session gives.

#[path = "../../../export/tests/fixtures/mod.rs"]
mod fixtures;
mod support;

use fixtures::{Head, Model as Fixture, Sizes, Split};
use std::path::Path;
use support::{clips, get, input, post, settings};
use vjepa_export::{OnnxOptions, to_onnx};
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};
use vjepa_serve::{Model, Server};

const SIZES: Sizes =
    Sizes { frames: 2, side: 4, tubelet: 2, patch: 2, width: 4, depth: 1, heads: 2, mlp: 1, classes: 3 };

fn session(folder: &Path) -> Session {
    let model = Fixture::new(SIZES, Head::Attentive, Split::Permuted).unwrap();
    let labels = serde_json::json!(["ant", "bee", "cat"]).to_string();
    let options = OnnxOptions { metadata: [("vjepa.labels".to_owned(), labels)].into(), ..OnnxOptions::default() };
    let path = folder.join("tiny.onnx");
    to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
    Session::open(&path, &Options { runtime: Runtime::Tract, ..Options::default() }).unwrap()
}

#[test]
fn a_session_is_served_in_every_batch() {
    let folder = tempfile::tempdir().unwrap();
    let alone = session(folder.path());
    let mut model = Model::new("tiny", vec![session(folder.path()), session(folder.path())]).unwrap();
    model.warm_up(8).unwrap();
    let server = Server::start(model, settings(), None).unwrap();
    let about = get(&server, "/v2/models/tiny").json();
    assert_eq!(about["inputs"], serde_json::json!([{"name": "clip", "datatype": "FP32", "shape": [-1, 3, 2, 4, 4]}]));
    assert!(about["platform"].as_str().unwrap().starts_with("tract"));
    for batch in 1..=8 {
        let data = input(&clips(batch));
        let wanted = alone.run(&ClipBatch::new(clips(batch), &data).unwrap()).unwrap().remove(0);
        let tensor = serde_json::json!({"name": "clip", "datatype": "FP32", "shape": clips(batch), "data": data});
        let reply = post(&server, "/v2/models/tiny/infer", &serde_json::json!({"inputs": [tensor]})).json();
        let got = reply["outputs"][0]["data"].as_array().unwrap();
        assert_eq!(got.len(), wanted.data.len());
        let close = got.iter().zip(&wanted.data).all(|(a, b)| (a.as_f64().unwrap() - f64::from(*b)).abs() < 1e-5);
        assert!(close, "{reply} {wanted:?}");
    }
}
