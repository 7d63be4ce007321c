//! The protocol over HTTP against the engine itself.

mod support;

use serde_json::json;
use support::*;
use vjepa_runtime::{ClipBatch, Dimension, NamedOutput};
use vjepa_serve::{Model, Server, ServingEngine};

fn expected(batch: usize) -> (Vec<f32>, Vec<f32>) {
    let data = input(&clips(batch));
    let wanted = logits(batch, &data).data;
    (data, wanted)
}

fn close(got: &[f32], wanted: &[f32]) {
    assert_eq!(got.len(), wanted.len());
    assert!(got.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {wanted:?}");
}

fn numbers(value: &serde_json::Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

fn from_bytes(bytes: &[u8]) -> Vec<f32> {
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

#[test]
fn metadata_health_and_metrics() {
    let server = serve(settings());
    assert_eq!(get(&server, "/v2/health/live").status, 200);
    assert_eq!(get(&server, "/v2/health/ready").status, 200);
    assert_eq!(get(&server, "/v2").json()["extensions"][0], "binary_tensor_data");
    let about = get(&server, "/v2/models/tiny").json();
    assert_eq!(about["inputs"], json!([{"name": "clip", "datatype": "FP32", "shape": [-1, 3, 2, 4, 4]}]));
    assert_eq!(about["outputs"], json!([{"name": "logits", "datatype": "FP32", "shape": [-1, 3]}]));
    assert_eq!(get(&server, "/v2/models/tiny/versions/1/ready").status, 200);
    let config = get(&server, "/v2/models/tiny/config").json();
    assert_eq!((&config["max_batch_size"], &config["input"][0]["dims"]), (&json!(8), &json!([3, 2, 4, 4])));
    let (data, _) = expected(2);
    let body = json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": clips(2), "data": data}]});
    assert_eq!(post(&server, INFER, &body).status, 200);
    let stats = get(&server, "/v2/models/tiny/stats").json();
    assert_eq!(
        (&stats["model_stats"][0]["inference_count"], &stats["model_stats"][0]["execution_count"]),
        (&json!(2), &json!(1))
    );
    let parts = &stats["model_stats"][0]["inference_stats"];
    let counts = ["compute_input", "compute_infer", "compute_output"].map(|part| parts[part]["count"].as_u64());
    assert_eq!(counts, [Some(1); 3], "perf_analyzer insists on it");
    let metrics = String::from_utf8(get(&server, "/metrics").body).unwrap();
    for line in [
        "vjepa_requests_total{endpoint=\"infer\",status=\"200\"} 1",
        "vjepa_clips_total 2",
        "vjepa_queue_depth 0",
        "vjepa_requests_in_flight 0",
        "vjepa_batch_clips_bucket{le=\"2.0\"} 1",
        "vjepa_compute_seconds_count 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[test]
fn tensors_as_json_and_as_bytes_give_what_the_engine_gives() {
    let server = serve(settings());
    for batch in [1, 3] {
        let (data, wanted) = expected(batch);
        let shape = clips(batch);
        let tensor = json!({"name": "clip", "datatype": "FP32", "shape": shape, "data": data});
        let reply = post(&server, INFER, &json!({"id": "seven", "inputs": [tensor]})).json();
        assert_eq!(
            (&reply["id"], &reply["model_name"], &reply["model_version"]),
            (&json!("seven"), &json!("tiny"), &json!("1"))
        );
        assert_eq!(reply["outputs"][0]["shape"], json!([batch, 3]));
        close(&numbers(&reply["outputs"][0]["data"]), &wanted);

        let binary = |extra: serde_json::Value| {
            let size = data.len() * 4;
            let mut head = json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": shape, "parameters": {"binary_data_size": size}}]});
            head.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            post_binary(&server, INFER, &head, &data)
        };
        close(&numbers(&binary(json!({})).json()["outputs"][0]["data"]), &wanted);
        for extra in [
            json!({"parameters": {"binary_data_output": true}}),
            json!({"outputs": [{"name": "logits", "parameters": {"binary_data": true}}]}),
        ] {
            let reply = binary(extra);
            let length: usize = reply.header("inference-header-content-length").unwrap().parse().unwrap();
            let head: serde_json::Value = serde_json::from_slice(&reply.body[..length]).unwrap();
            assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], json!(wanted.len() * 4));
            close(&from_bytes(&reply.body[length..]), &wanted);
        }
        let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        let path = format!("{INFER}?batch={batch}");
        let raw = send(&server, "POST", &path, &[("Inference-Header-Content-Length", "0")], &bytes);
        assert_eq!(raw.status, 200);
        close(&from_bytes(&raw.body[raw.body.len() - wanted.len() * 4..]), &wanted);
    }
}

/// An engine for pairs of clips: the mean of what [`Tiny`] gives for both.
struct Pairs;

impl ServingEngine for Pairs {
    fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String> {
        let both = logits(clips.shape()[0], clips.data());
        let rows =
            both.data.chunks_exact(6).flat_map(|pair| [0, 1, 2].map(|class| (pair[class] + pair[class + 3]) / 2.0));
        Ok(vec![NamedOutput { shape: vec![both.shape[0] / 2, 3], data: rows.collect(), ..both }])
    }
}

#[test]
fn results_made_of_several_clips() {
    let mut info = info("pairs", [3, 2, 4, 4], "logits", 3);
    info.input.shape.insert(1, Dimension::Size(2));
    let server = Server::start(Model::with_engines(info, vec![Box::new(Pairs)]).unwrap(), settings(), None).unwrap();
    let data = input(&clips(6));
    let tensor = json!({"name": "clip", "datatype": "FP32", "shape": [3, 2, 3, 2, 4, 4], "data": data});
    let reply = post(&server, "/v2/models/pairs/infer", &json!({"inputs": [tensor]})).json();
    assert_eq!(reply["outputs"][0]["shape"], json!([3, 3]));
    let wanted = Pairs.run(&ClipBatch::new(clips(6), &data).unwrap()).unwrap().remove(0);
    close(&numbers(&reply["outputs"][0]["data"]), &wanted.data);
    let flat = json!({"name": "clip", "datatype": "FP32", "shape": clips(6), "data": data});
    assert_eq!(post(&server, "/v2/models/pairs/infer", &json!({"inputs": [flat]})).status, 400);
}

#[test]
fn a_fixed_batch_is_asked_for_whole() {
    let mut info = info("two", [3, 2, 4, 4], "logits", 3);
    (info.input.shape[0], info.outputs[0].shape[0]) = (Dimension::Size(2), Dimension::Size(2));
    let server = Server::start(Model::with_engines(info, vec![Box::new(Tiny)]).unwrap(), settings(), None).unwrap();
    assert_eq!(get(&server, "/v2/models/two/config").json()["max_batch_size"], json!(0));
    let ask = |batch: usize| {
        let data = input(&clips(batch));
        let tensor = json!({"name": "clip", "datatype": "FP32", "shape": clips(batch), "data": data});
        (post(&server, "/v2/models/two/infer", &json!({"inputs": [tensor]})), logits(batch, &data).data)
    };
    let (reply, wanted) = ask(2);
    close(&numbers(&reply.json()["outputs"][0]["data"]), &wanted);
    let (refused, _) = ask(1);
    assert!(refused.status == 400 && refused.sentence().contains("f32[2, 3, 2, 4, 4]"), "{refused:?}");
}

#[test]
fn wrong_requests_are_told_what_is_wrong() {
    let server = serve(settings());
    let (data, _) = expected(1);
    let good = json!({"name": "clip", "datatype": "FP32", "shape": clips(1), "data": data});
    let with = |key: &str, value: serde_json::Value| {
        let mut tensor = good.clone();
        tensor[key] = value;
        json!({"inputs": [tensor]})
    };
    let output = |key: &str| json!({"inputs": [good], "outputs": [{"name": "logits", "parameters": {key: 1}}]});
    for (body, status, words) in [
        (with("name", json!("x")), 400, "there is no input `x`; the model takes clip f32["),
        (with("datatype", json!("INT8")), 400, "`clip` is INT8 instead of FP32"),
        (with("shape", json!([1, 3, 2, 4])), 400, "has the shape [1, 3, 2, 4]"),
        (with("shape", json!([1, 3, 2, 4, 5])), 400, "has the shape [1, 3, 2, 4, 5]"),
        (with("shape", json!([0, 3, 2, 4, 4])), 400, "has the shape [0, 3, 2, 4, 4]"),
        (with("shape", json!([1u64 << 60, 3, 2, 4, 4])), 400, "exceeds the 8 clips allowed per request"),
        (with("shape", json!([2, 3, 2, 4, 4])), 400, "the shape implies 192 values, but the request has 96"),
        (with("shape", json!([-1, 3, 2, 4, 4])), 400, "a size of the shape is negative; the model takes clip f32["),
        (with("data", json!(["a"])), 400, "a number in the range of FP32"),
        (with("parameters", json!({"binary_data_size": 4})), 400, "either `data` or `binary_data_size`"),
        (json!({"inputs": []}), 400, "must have one input"),
        (json!({"inputs": [good, good]}), 400, "must have one input"),
        (json!({"inputs": [good], "outputs": [{"name": "x"}]}), 400, "`x` is not an output"),
        (with("parameters", json!({"shared_memory_region": "x"})), 400, "shared memory is not supported"),
        (output("shared_memory_region"), 400, "shared memory is not supported"),
        (output("classification"), 400, "the classification extension is not supported"),
        (output("class_count"), 400, "the classification extension is not supported"),
        (json!({"inputs": [good], "parameters": {"timeout": -1}}), 400, "`timeout` must be a non-negative integer"),
        (json!([]), 400, "expected an object with `inputs`, got an array"),
    ] {
        let reply = post(&server, INFER, &body);
        assert!(reply.status == status && reply.sentence().contains(words), "{words}: {}", reply.sentence());
    }
    for (method, path, status, words) in [
        ("GET", "/v2/models/other", 404, "there is no model `other` here; this server has `tiny`"),
        ("GET", "/v2/models/tiny/versions/2", 404, "`tiny, version 2`"),
        ("GET", "/nowhere", 404, "there is nothing at `/nowhere`"),
        ("GET", INFER, 405, "does not accept GET"),
        ("DELETE", "/v2", 405, "does not accept DELETE"),
        ("POST", "/metrics", 405, "does not accept POST"),
        ("POST", "/v1/classify", 400, "the body is empty"),
    ] {
        let reply = send(&server, method, path, &[], b"");
        assert!(reply.status == status && reply.sentence().contains(words), "{words}: {}", reply.sentence());
    }
    assert_eq!(send(&server, "GET", INFER, &[], b"").header("allow"), Some("POST"));
    let brotli = send(&server, "POST", INFER, &[("Content-Encoding", "br")], b"x");
    assert!(brotli.status == 415 && brotli.sentence().contains("or send the body uncompressed"));
    assert_eq!(brotli.header("accept-encoding"), Some("gzip, deflate"));
}
