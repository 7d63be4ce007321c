//! Answers on their way: a slow client gets all of its own, one that takes nothing is cut off.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use support::*;
use tonic::transport::Channel;
use vjepa_serve::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use vjepa_serve::proto::model_infer_request::InferInputTensor;
use vjepa_serve::proto::*;
use vjepa_serve::{Limits, Server, Settings};

/// Values of an answer: more bytes than sockets buffer.
const ZEROS: usize = 6 << 20;

fn impatient() -> Settings {
    let limits =
        Limits { head: Duration::from_millis(500), body_time: Duration::from_millis(1_000), ..Limits::default() };
    Settings { limits, ..settings() }
}

/// A connection on which a long answer begins.
fn begin(server: &Server) -> std::net::TcpStream {
    let mut stream = connect(server);
    let body: Vec<u8> = [1f32; 24].iter().flat_map(|value| value.to_le_bytes()).collect();
    let headers = [("Inference-Header-Content-Length", "0")];
    stream.write_all(&request("POST", SUM_INFER, &headers, &body)).unwrap();
    stream
}

fn connections(server: &Server) -> String {
    let text = String::from_utf8(get(server, "/metrics").body).unwrap();
    text.lines().find(|line| line.starts_with("vjepa_connections ")).unwrap().to_owned()
}

#[test]
fn a_slow_client_gets_its_whole_answer() {
    let server = serve_long(impatient(), ZEROS);
    let mut stream = begin(&server);
    let (mut got, mut part, began) = (0, vec![0; 1 << 20], Instant::now());
    while got < ZEROS * 4 {
        let count = stream.read(&mut part).unwrap();
        assert!(count > 0, "closed after {got} bytes and {:?}", began.elapsed());
        got += count;
        std::thread::sleep(Duration::from_millis(1).mul_f64(count as f64 / 8192.0));
    }
    assert!(began.elapsed() > Duration::from_millis(2_000), "{:?}", began.elapsed());
}

#[test]
fn a_client_that_takes_nothing_is_cut_off() {
    let server = serve_long(impatient(), ZEROS);
    let mut stream = begin(&server);
    let began = Instant::now();
    // The one that asks is there too.
    while connections(&server) != "vjepa_connections 1" {
        assert!(began.elapsed() < Duration::from_secs(10), "it is still there");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err() || rest.len() < ZEROS * 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_client_without_a_window_is_cut_off() {
    let server = serve_long(impatient(), 24);
    let address = format!("http://{}", server.grpc().unwrap());
    // It answers pings all the same.
    let endpoint = Channel::from_shared(address).unwrap().initial_stream_window_size(0);
    let mut client = GrpcInferenceServiceClient::new(endpoint.connect().await.unwrap());
    let input = InferInputTensor {
        name: "clip".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 3, 2, 2, 2],
        ..InferInputTensor::default()
    };
    let request = ModelInferRequest {
        model_name: "sums".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![vec![0; 96].into()],
        ..ModelInferRequest::default()
    };
    let answer = tokio::time::timeout(Duration::from_secs(10), client.model_infer(request)).await;
    assert!(answer.expect("the connection is still there").is_err());
}
