//! Nothing about a tensor is guessed: what contradicts itself, or could be something else, is refused.

mod support;

use serde_json::json;
use support::*;
use vjepa_runtime::Dimension;
use vjepa_serve::{Model, Server, VideoReader};

const RAW: [(&str, &str); 1] = [("Inference-Header-Content-Length", "0")];

fn raw(server: &Server, query: &str, bytes: &[u8]) -> Reply {
    send(server, "POST", &format!("{INFER}{query}"), &RAW, bytes)
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn a_raw_body_is_one_clip_unless_the_request_says_how_many() {
    let server = serve(settings());
    let one = input(&clips(1));
    let doubles: Vec<u8> = one.iter().flat_map(|value| f64::from(*value).to_le_bytes()).collect();
    let [single, double, triple] = [1, 2, 3].map(|batch| bytes(&input(&clips(batch))));
    for (query, body, words) in [
        // One clip in FP64, which is as long as two in FP32.
        ("", &doubles, "say so with `?batch=2`; other types are not supported"),
        ("", &double, "say so with `?batch=2`"),
        ("", &triple, "say so with `?batch=3`"),
        ("?batch=3", &double, "has 768 bytes, and 3 clips of FP32 1152"),
        ("?batch=2", &single, "has 384 bytes, and 2 clips of FP32 768"),
        ("", &single[..192].to_vec(), "has 192 bytes, and a clip of FP32 384; the model takes clip f32["),
        ("", &Vec::new(), "has 0 bytes"),
        ("?batch=9", &single, "exceeds the 8 clips allowed"),
        ("?batch=0", &single, "`batch=0` must be a positive integer"),
        ("?batch=1&batch=2", &single, "must be a positive integer"),
        ("?batch=x", &single, "`batch=x` must be a positive integer"),
    ] {
        let reply = raw(&server, query, body);
        assert!(reply.status == 400 && reply.sentence().contains(words), "{words}: {reply:?}");
    }
    for (query, body) in [("", &single), ("?batch=1", &single), ("?batch=2", &double), ("?other=1&batch=3", &triple)] {
        assert_eq!(raw(&server, query, body).status, 200, "{query}");
    }
    let json = send(&server, "POST", &format!("{INFER}?batch=2"), &[], b"{}");
    assert!(json.status == 400 && json.sentence().contains("`batch` is for raw bodies"), "{json:?}");
}

#[test]
fn a_fixed_batch_is_asked_for_by_its_number() {
    let mut info = info("two", [3, 2, 4, 4], "logits", 3);
    (info.input.shape[0], info.outputs[0].shape[0]) = (Dimension::Size(2), Dimension::Size(2));
    let server = Server::start(Model::with_engines(info, vec![Box::new(Tiny)]).unwrap(), settings(), None).unwrap();
    let body = bytes(&input(&clips(2)));
    let ask = |query: &str| send(&server, "POST", &format!("/v2/models/two/infer{query}"), &RAW, &body);
    let refused = ask("");
    assert!(refused.status == 400 && refused.sentence().contains("send 2 with `?batch=2`"), "{refused:?}");
    assert_eq!((ask("?batch=1").status, ask("?batch=2").status), (400, 200));
}

/// Values of one clip, nested as these sizes.
fn nested(sizes: &[usize], values: &mut impl Iterator<Item = f32>) -> serde_json::Value {
    match sizes.split_first() {
        None => json!(values.next().unwrap()),
        Some((size, rest)) => (0..*size).map(|_| nested(rest, values)).collect(),
    }
}

#[test]
fn nesting_says_what_the_shape_says_or_nothing() {
    let server = serve(settings());
    let ask = |shape: &[usize], data: serde_json::Value| {
        let tensor = json!({"name": "clip", "datatype": "FP32", "shape": shape, "data": data});
        post(&server, INFER, &json!({"inputs": [tensor]}))
    };
    let all = input(&clips(2));
    let as_sizes = |sizes: &[usize]| nested(sizes, &mut all.iter().copied());
    let flat = ask(&clips(2), json!(all)).json();
    assert_eq!(ask(&clips(2), as_sizes(&clips(2))).json()["outputs"], flat["outputs"]);
    // As many values in each, in another order or of other clips.
    for sizes in [
        &[2, 96][..],
        &[1, 6, 2, 4, 4],
        &[2, 2, 3, 4, 4],
        &[2, 4, 4, 2, 3],
        &[6, 2, 4, 4],
        &[1, 192],
        &[2, 3, 2, 4, 4, 1],
    ] {
        let reply = ask(&clips(2), as_sizes(sizes));
        assert!(reply.status == 400 && reply.sentence().contains("`data` is nested as ["), "{sizes:?}: {reply:?}");
    }
    let mut ragged = as_sizes(&clips(2));
    let moved = ragged[1].as_array_mut().unwrap().pop().unwrap();
    ragged[0].as_array_mut().unwrap().push(moved);
    let reply = ask(&clips(2), ragged);
    assert!(reply.status == 400 && reply.sentence().contains("are ragged"), "{reply:?}");
    let mut mixed = as_sizes(&clips(2));
    mixed.as_array_mut().unwrap().push(json!(1.0));
    assert!(ask(&clips(2), mixed).sentence().contains("mixes numbers and arrays"));
    assert!(ask(&clips(2), json!([[], []])).sentence().contains("`data` is nested as [2, 0]"));
}

#[test]
fn what_is_said_twice_is_refused() {
    let server = serve(settings());
    let data = input(&clips(1));
    let good = json!({"name": "clip", "datatype": "FP32", "shape": clips(1), "data": data}).to_string();
    let inside = good.strip_prefix('{').unwrap();
    for (body, words) in [
        (format!("{{\"inputs\": [{good}], \"inputs\": [{good}]}}"), "`inputs` is given twice"),
        (format!("{{\"inputs\": [{{\"shape\": [8], {inside}]}}"), "`shape` is given twice"),
        (format!("{{\"inputs\": [{{\"data\": [1], {inside}]}}"), "`data` is given twice"),
        (format!("{{\"inputs\": [{{\"datatype\": \"FP64\", {inside}]}}"), "`datatype` is given twice"),
    ] {
        let reply = send(&server, "POST", INFER, &[], body.as_bytes());
        assert!(reply.status == 400 && reply.sentence().contains(words), "{words}: {reply:?}");
    }
    let length = "Inference-Header-Content-Length";
    let body = bytes(&data);
    for headers in
        [vec![(length, "0"), (length, "99")], vec![(length, "+0")], vec![(length, "0x10")], vec![(length, "")]]
    {
        let reply = send(&server, "POST", INFER, &headers, &body);
        assert!(reply.status == 400 && reply.sentence().contains("is not a number of bytes"), "{reply:?}");
    }
    let head = json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": clips(1), "data": data}]});
    let reply = post_binary(&server, INFER, &head, &data);
    assert!(reply.status == 400 && reply.sentence().contains("belong to no input"), "{reply:?}");
    let bytes_type = json!({"inputs": [{"name": "clip", "datatype": "BYTES", "shape": clips(1), "parameters": {"binary_data_size": 384}}]});
    let reply = post_binary(&server, INFER, &bytes_type, &data);
    assert!(reply.status == 400 && reply.sentence().contains("is BYTES instead of FP32"), "{reply:?}");
}

#[test]
fn a_form_has_one_file_and_a_query_one_value() {
    let reader: std::sync::Arc<VideoReader> = std::sync::Arc::new(|_: &std::path::Path| Ok(input(&clips(1))));
    let server = Server::start(tiny(), settings(), Some(reader)).unwrap();
    let part = |name: &str, file: &str| {
        format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\nclip\r\n")
    };
    let file = "; filename=\"a.mp4\"";
    let ask = |parts: &[String]| {
        let body = format!("{}--x--\r\n", parts.concat());
        send(&server, "POST", "/v1/classify", &[("Content-Type", "multipart/form-data; boundary=x")], body.as_bytes())
    };
    assert_eq!(ask(&[part("file", file)]).status, 200);
    for (parts, words) in [
        (vec![part("a", file), part("b", file)], "more than one file"),
        (vec![part("file", ""), part("file", "")], "more than one file"),
        (vec![part("file", file), part("top_k", "")], "`top_k` belongs in the address"),
        (vec![part("note", "")], "it has no file"),
    ] {
        let reply = ask(&parts);
        assert!(reply.status == 400 && reply.sentence().contains(words), "{words}: {reply:?}");
    }
    let twice = send(&server, "POST", "/v1/classify?top_k=1&top_k=2", &[], b"clip");
    assert!(twice.status == 400 && twice.sentence().contains("`top_k` is given twice"), "{twice:?}");
}
