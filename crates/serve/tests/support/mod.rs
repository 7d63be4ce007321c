//! A server on free ports, a small model, and a client that can also misbehave.
#![allow(dead_code)]

pub mod codings;
pub mod grpc;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use vjepa_runtime::{ClipBatch, Dimension, NamedOutput, TensorInfo};
use vjepa_serve::{BatchSizes, Model, ModelInfo, Server, ServingEngine, Settings};

/// A batch of the small classifier's clips.
pub fn clips(batch: usize) -> [usize; 5] {
    [batch, 3, 2, 4, 4]
}

/// Values of an input, the same at each call.
pub fn input(shape: &[usize]) -> Vec<f32> {
    let elements = shape.iter().product::<usize>();
    (0..elements).map(|i| ((i * 7919 + i / 13) % 1000) as f32 / 250.0 - 2.0).collect()
}

/// A small classifier: a linear layer from clips to three classes.
pub struct Tiny;

impl ServingEngine for Tiny {
    fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String> {
        Ok(vec![logits(clips.shape()[0], clips.data())])
    }
}

/// What [`Tiny`] gives.
pub fn logits(batch: usize, values: &[f32]) -> NamedOutput {
    let weight = |i: usize, class: usize| ((i * 37 + class * 11) % 19) as f32 / 90.0 - 0.1;
    let score = |clip: &[f32], class| clip.iter().enumerate().map(|(i, value)| value * weight(i, class)).sum();
    let rows = values.chunks_exact(values.len() / batch);
    let data = rows.flat_map(|clip| [0, 1, 2].map(|class| score(clip, class))).collect();
    NamedOutput { name: "logits".to_owned(), shape: vec![batch, 3], data }
}

pub fn info(name: &str, clip: [usize; 4], output: &str, width: usize) -> ModelInfo {
    let batch = Dimension::Symbol("B".to_owned());
    let sizes = clip.iter().map(|size| Dimension::Size(*size));
    let shape = std::iter::once(batch.clone()).chain(sizes).collect();
    let output = TensorInfo { name: output.to_owned(), shape: vec![batch, Dimension::Size(width)], is_f32: true };
    ModelInfo {
        name: name.to_owned(),
        runtime: "a test".to_owned(),
        input: TensorInfo { name: "clip".to_owned(), shape, is_f32: true },
        outputs: vec![output],
        labels: Vec::new(),
        batch_sizes: BatchSizes::One,
    }
}

/// The small classifier with names for its classes.
pub fn tiny() -> Model {
    let labels = ["ant", "bee", "cat"].map(str::to_owned).to_vec();
    let info = ModelInfo { labels, batch_sizes: BatchSizes::Any, ..info("tiny", [3, 2, 4, 4], "logits", 3) };
    Model::with_engines(info, vec![Box::new(Tiny)]).unwrap()
}

/// Settings with free ports.
pub fn settings() -> Settings {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    Settings { http: any, grpc: Some(any), ..Settings::default() }
}

pub fn serve(settings: Settings) -> Server {
    Server::start(tiny(), settings, None).unwrap()
}

/// An engine whose outputs are the sums of clips, and which does before each run what it is told.
pub struct Scripted(pub Arc<dyn Fn(usize) -> Result<(), String> + Send + Sync>);

impl ServingEngine for Scripted {
    fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String> {
        let batch = clips.shape()[0];
        (self.0)(batch)?;
        let sums = clips.data().chunks_exact(clips.data().len() / batch).map(|clip| clip.iter().sum()).collect();
        Ok(vec![NamedOutput { name: "sum".to_owned(), shape: vec![batch, 1], data: sums }])
    }
}

pub const SUM_CLIP: [usize; 4] = [3, 2, 2, 2];

/// A server with scripted engines on clips of [`SUM_CLIP`].
pub fn serve_scripted(
    settings: Settings,
    engines: usize,
    script: impl Fn(usize) -> Result<(), String> + Send + Sync + 'static,
) -> Server {
    let info = ModelInfo { batch_sizes: BatchSizes::Any, ..info("sums", SUM_CLIP, "sum", 1) };
    let script: Arc<dyn Fn(usize) -> Result<(), String> + Send + Sync> = Arc::new(script);
    let engines = (0..engines).map(|_| Box::new(Scripted(script.clone())) as Box<dyn ServingEngine>).collect();
    Server::start(Model::with_engines(info, engines).unwrap(), settings, None).unwrap()
}

/// A server whose answers are long: zeros, as many for a clip of [`SUM_CLIP`].
pub fn serve_long(settings: Settings, zeros: usize) -> Server {
    struct Long(usize);
    impl ServingEngine for Long {
        fn run(&mut self, clips: &ClipBatch<'_>) -> Result<Vec<NamedOutput>, String> {
            let batch = clips.shape()[0];
            let data = vec![0.0; batch * self.0];
            Ok(vec![NamedOutput { name: "zeros".to_owned(), shape: vec![batch, self.0], data }])
        }
    }
    let info = info("sums", SUM_CLIP, "zeros", zeros);
    Server::start(Model::with_engines(info, vec![Box::new(Long(zeros))]).unwrap(), settings, None).unwrap()
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|_| panic!("no JSON: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The sentence of a refusal.
    pub fn sentence(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no sentence: {}", self.json())).to_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

pub fn connect(server: &Server) -> TcpStream {
    let stream = TcpStream::connect(server.http()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Reads one answer; none when the server closes or resets the connection first.
pub fn read_reply(stream: &mut impl Read) -> Option<Reply> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
            let mut reply = Reply { status: head.get(9..12)?.parse().ok()?, head, body: bytes[end + 4..].to_vec() };
            let length: usize = reply.header("content-length").map_or(0, |length| length.parse().unwrap());
            while reply.body.len() < length {
                match stream.read(&mut buffer) {
                    Ok(0) | Err(_) => return None,
                    Ok(count) => reply.body.extend_from_slice(&buffer[..count]),
                }
            }
            // What a client would take for the answer.
            reply.body.truncate(length);
            return Some(reply);
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// A request as bytes.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend_from_slice(body);
    bytes
}

pub fn send(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut stream = connect(server);
    // A refusal may come before all is sent.
    let _ = stream.write_all(&request(method, path, headers, body));
    read_reply(&mut stream).expect("an answer")
}

pub fn get(server: &Server, path: &str) -> Reply {
    send(server, "GET", path, &[], b"")
}

pub fn post(server: &Server, path: &str, body: &serde_json::Value) -> Reply {
    send(server, "POST", path, &[], body.to_string().as_bytes())
}

/// A request with binary data behind its JSON.
pub fn post_binary(server: &Server, path: &str, json: &serde_json::Value, data: &[f32]) -> Reply {
    let json = json.to_string();
    let mut body = json.clone().into_bytes();
    data.iter().for_each(|value| body.extend_from_slice(&value.to_le_bytes()));
    send(server, "POST", path, &[("Inference-Header-Content-Length", &json.len().to_string())], &body)
}

/// An inference request of one constant clip to a scripted server.
pub fn sum_request(value: f32) -> serde_json::Value {
    let data = vec![value; SUM_CLIP.iter().product()];
    serde_json::json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": [1, 3, 2, 2, 2], "data": data}]})
}

/// Waits until something holds that will.
pub fn wait_for(holds: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(30), "it never came true");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub const SUM_INFER: &str = "/v2/models/sums/infer";
pub const INFER: &str = "/v2/models/tiny/infer";

/// The server's memory in KiB, as the system counts it.
pub fn resident() -> usize {
    memory("VmRSS:")
}

/// The most memory in KiB that the server ever had.
pub fn peak() -> usize {
    memory("VmHWM:")
}

fn memory(what: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
