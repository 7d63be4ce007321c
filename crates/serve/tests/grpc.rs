//! The protocol over gRPC against the engine itself, and TLS for both protocols.

mod support;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;
use support::grpc::{body, channel, framed, infer};
use support::*;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tonic::Code;
use tonic::transport::Channel;
use vjepa_serve::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use vjepa_serve::proto::infer_parameter::ParameterChoice;
use vjepa_serve::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use vjepa_serve::proto::*;
use vjepa_serve::{Batching, Limits, Security, Server, Settings, Tls, Token};

type Client = GrpcInferenceServiceClient<Channel>;

async fn client(server: &Server) -> Client {
    Client::new(channel(server).await).max_decoding_message_size(usize::MAX)
}

fn tensor(shape: &[usize]) -> InferInputTensor {
    InferInputTensor {
        name: "clip".to_owned(),
        datatype: "FP32".to_owned(),
        shape: shape.iter().map(|size| *size as i64).collect(),
        ..InferInputTensor::default()
    }
}

fn raw(model: &str, shape: &[usize], data: &[f32]) -> ModelInferRequest {
    let bytes: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
    ModelInferRequest {
        model_name: model.to_owned(),
        id: "seven".to_owned(),
        inputs: vec![tensor(shape)],
        raw_input_contents: vec![bytes.into()],
        ..ModelInferRequest::default()
    }
}

fn values(response: &ModelInferResponse) -> Vec<f32> {
    response.raw_output_contents[0].chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tensors_raw_and_typed_give_what_the_engine_gives() {
    let server = serve(settings());
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let name = || "tiny".to_owned();
    let ready = ModelReadyRequest { name: name(), version: "1".to_owned() };
    assert!(client.model_ready(ready).await.unwrap().into_inner().ready);
    assert_eq!(client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner().name, "vjepa");
    let asked = ModelMetadataRequest { name: name(), version: String::new() };
    let about = client.model_metadata(asked).await.unwrap().into_inner();
    assert_eq!((about.inputs[0].shape.as_slice(), about.outputs[0].name.as_str()), (&[-1, 3, 2, 4, 4][..], "logits"));
    let asked = ModelConfigRequest { name: name(), version: String::new() };
    let config = client.model_config(asked).await.unwrap().into_inner().config.unwrap();
    assert_eq!((config.max_batch_size, config.input[0].dims.as_slice()), (8, &[3, 2, 4, 4][..]));

    for batch in [1, 3] {
        let shape = clips(batch);
        let data = input(&shape);
        let wanted = logits(batch, &data).data;
        let bytes = raw("tiny", &shape, &data);
        let mut typed = bytes.clone();
        typed.raw_input_contents.clear();
        typed.inputs[0].contents = Some(InferTensorContents { fp32_contents: data, ..Default::default() });
        typed.outputs = vec![InferRequestedOutputTensor { name: "logits".to_owned(), ..Default::default() }];
        for request in [bytes, typed] {
            let response = client.model_infer(request).await.unwrap().into_inner();
            assert_eq!((response.id.as_str(), response.outputs[0].shape.as_slice()), ("seven", &[batch as i64, 3][..]));
            let got = values(&response);
            assert!(got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-5), "{got:?} {wanted:?}");
        }
    }
    let asked = ModelStatisticsRequest { name: name(), version: String::new() };
    let all = client.model_statistics(asked).await.unwrap().into_inner().model_stats.remove(0);
    assert_eq!((all.inference_count, all.execution_count), (8, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_have_their_code_and_sentence() {
    let limits = Limits { body: 1 << 16, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let mut client = client(&server).await;
    let shape = [1, 3, 2, 2, 2];
    let good = raw("sums", &shape, &[1.0; 24]);
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = good.clone();
        change(&mut request);
        request
    };
    let output = |key: &str| {
        let parameters = [(key.to_owned(), InferParameter::default())].into();
        vec![InferRequestedOutputTensor { name: "sum".to_owned(), parameters }]
    };
    let timeout = |value| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(value)) };
    for (request, code, words) in [
        (with(&|r| r.model_name = "x".to_owned()), Code::NotFound, "there is no model `x`"),
        (with(&|r| r.model_version = "2".to_owned()), Code::NotFound, "version 2"),
        (with(&|r| r.inputs.clear()), Code::InvalidArgument, "must have one input"),
        (with(&|r| r.inputs[0].name = "x".to_owned()), Code::InvalidArgument, "there is no input `x`"),
        (with(&|r| r.inputs[0].datatype = "INT8".to_owned()), Code::InvalidArgument, "is INT8 instead of FP32"),
        (with(&|r| r.inputs[0].shape = vec![1 << 60; 5]), Code::InvalidArgument, "has the shape"),
        (with(&|r| r.inputs[0].shape[0] = -1), Code::InvalidArgument, "negative"),
        (with(&|r| r.raw_input_contents[0].truncate(95)), Code::InvalidArgument, "not a whole number"),
        (with(&|r| r.raw_input_contents[0].truncate(92)), Code::InvalidArgument, "but the request has 23"),
        (with(&|r| r.raw_input_contents.clear()), Code::InvalidArgument, "has no values"),
        (with(&|r| r.raw_input_contents.push(vec![0; 96].into())), Code::InvalidArgument, "more than once"),
        (
            with(&|r| drop(r.parameters.insert("timeout".to_owned(), timeout("x".to_owned())))),
            Code::InvalidArgument,
            "`timeout`",
        ),
        (with(&|r| r.raw_input_contents[0] = vec![0; 1 << 20].into()), Code::OutOfRange, ""),
        (with(&|r| r.inputs = vec![tensor(&shape); 65]), Code::InvalidArgument, "more inputs than the 64"),
        (
            with(&|r| r.outputs = output("shared_memory_region")),
            Code::InvalidArgument,
            "shared memory is not supported",
        ),
        (with(&|r| r.outputs = output("classification")), Code::InvalidArgument, "the classification extension"),
        (with(&|r| r.outputs = output("class_count")), Code::InvalidArgument, "the classification extension"),
    ] {
        let status = client.model_infer(request).await.unwrap_err();
        assert!(status.code() == code && status.message().contains(words), "{words}: {status:?}");
    }
    assert_eq!(values(&client.model_infer(good).await.unwrap().into_inner()), [24.0]);
    let metrics = String::from_utf8(get(&server, "/metrics").body).unwrap();
    for (status, count) in [(400, 14), (404, 2), (413, 1), (200, 1)] {
        let line = format!("vjepa_requests_total{{endpoint=\"grpc_infer\",status=\"{status}\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("vjepa_requests_rejected_total{reason=\"too_large\"} 1"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_are_the_earliest_of_all() {
    let batching = Batching { max_clips: 1, max_delay: Duration::ZERO };
    let server = serve_scripted(Settings { batching, ..settings() }, 1, |_| {
        std::thread::sleep(Duration::from_millis(400));
        Ok(())
    });
    let mut client = client(&server).await;
    let request = || raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24]);
    let mut impatient = tonic::Request::new(request());
    impatient.metadata_mut().insert("grpc-timeout", "50m".parse().unwrap());
    // Client and server watch this one; the client may be first and calls it cancelled.
    let code = client.model_infer(impatient).await.unwrap_err().code();
    assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code}");
    let mut asked = request();
    let micros = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(50_000)) };
    asked.parameters.insert("timeout".to_owned(), micros);
    assert_eq!(client.model_infer(asked).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(values(&client.model_infer(request()).await.unwrap().into_inner()), [24.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_asked_for_over_grpc_too() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let security = Security { token, ..Security::default() };
    let server = serve_scripted(Settings { security, ..settings() }, 1, |_| Ok(()));
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.is_ok());
    let request = || tonic::Request::new(raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24]));
    assert_eq!(client.model_infer(request()).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(client.server_metadata(ServerMetadataRequest {}).await.unwrap_err().code(), Code::Unauthenticated);
    let bearer = || "Bearer 0123456789abcdef".parse().unwrap();
    let mut known = request();
    known.metadata_mut().insert("authorization", bearer());
    assert_eq!(values(&client.model_infer(known).await.unwrap().into_inner()), [24.0]);
    let mut known = tonic::Request::new(ServerMetadataRequest {});
    known.metadata_mut().insert("authorization", bearer());
    client.server_metadata(known).await.unwrap();
    // Each is counted under what it asked for.
    let metrics = send(&server, "GET", "/metrics", &[("Authorization", "Bearer 0123456789abcdef")], b"").body;
    let metrics = String::from_utf8(metrics).unwrap();
    for (endpoint, status) in [("infer", 401), ("infer", 200), ("metadata", 401), ("metadata", 200)] {
        let line = format!("vjepa_requests_total{{endpoint=\"grpc_{endpoint}\",status=\"{status}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages_have_a_code_and_the_next_good_one_its_result() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let mut channel = channel(&server).await;
    let good = prost::Message::encode_to_vec(&raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24]));
    let mut random = 5u64;
    let mut below = |limit: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % limit
    };
    let mut refused = 0;
    for _ in 0..2_000 {
        let mut message = good.clone();
        for _ in 0..1 + below(4) {
            let at = below(message.len());
            message[at] = below(256) as u8;
        }
        message.truncate(message.len() - below(2) * below(message.len()));
        // The length before the message lies now and then.
        let told = if below(8) == 0 { below(1 << 31) as u32 } else { message.len() as u32 };
        let bytes = [&[0][..], &told.to_be_bytes(), &message].concat();
        let status = infer(&mut channel, body(bytes)).await;
        assert!(!status.message().contains("panic"), "{status:?}");
        refused += usize::from(status.code() != Code::Ok);
    }
    assert!(refused > 1_000, "{refused}");
    let mut client = client(&server).await;
    let request = raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24]);
    assert_eq!(values(&client.model_infer(request).await.unwrap().into_inner()), [24.0]);
}

/// A message that begins and never ends.
struct Stalled(Option<hyper::body::Bytes>);

impl hyper::body::Body for Stalled {
    type Data = hyper::body::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, tonic::Status>>> {
        match self.0.take() {
            Some(bytes) => std::task::Poll::Ready(Some(Ok(hyper::body::Frame::data(bytes)))),
            None => std::task::Poll::Pending,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_dawdle_or_fill_the_memory_are_ended() {
    let limits = Limits { body_time: Duration::from_millis(300), bodies: 1 << 16, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let mut channel = channel(&server).await;
    for (message, code) in [(vec![0, 0, 0, 1, 0, 7], Code::DeadlineExceeded), (vec![0; 1 << 17], Code::Unavailable)] {
        let body = tonic::body::Body::new(Stalled(Some([&[0, 0, 2, 0, 0][..], &message].concat().into())));
        let status = infer(&mut channel, body).await;
        assert_eq!(status.code(), code, "{status:?}");
    }
    let mut client = client(&server).await;
    assert_eq!(
        values(&client.model_infer(raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24])).await.unwrap().into_inner()),
        [24.0]
    );
}

/// A message that comes after a while.
struct Late(std::pin::Pin<Box<tokio::time::Sleep>>, Option<hyper::body::Bytes>);

impl hyper::body::Body for Late {
    type Data = hyper::body::Bytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, tonic::Status>>> {
        std::task::ready!(std::future::Future::poll(self.0.as_mut(), context));
        std::task::Poll::Ready(self.1.take().map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_message() {
    let limits = Limits { body: 1 << 16, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let mut channel = channel(&server).await;
    let message = ModelInferRequest { model_name: "x".repeat(100 << 10), ..ModelInferRequest::default() };
    let message = prost::Message::encode_to_vec(&message);
    let bytes = framed(0, &message);
    for (times, code) in [(1, Code::NotFound), (9, Code::OutOfRange)] {
        let status = infer(&mut channel, body(bytes.repeat(times))).await;
        assert_eq!(status.code(), code, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_requests_time_begins_with_its_head() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let mut channel = channel(&server).await;
    for (millis, code) in [(400, Code::DeadlineExceeded), (20_000, Code::Ok)] {
        let mut request = raw("sums", &[1, 3, 2, 2, 2], &[1.0; 24]);
        let micros = InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(millis * 1_000)) };
        request.parameters.insert("timeout".to_owned(), micros);
        let message = prost::Message::encode_to_vec(&request);
        let bytes = framed(0, &message);
        let pause = Box::pin(tokio::time::sleep(Duration::from_millis(600)));
        let status = infer(&mut channel, tonic::body::Body::new(Late(pause, Some(bytes.into())))).await;
        assert_eq!(status.code(), code, "{status:?}");
    }
}

#[test]
fn tls_for_http_and_grpc() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    assert!(Tls::read(&key, &key).unwrap_err().to_string().contains("no certificate"));
    assert!(Tls::read(&chain, &folder.path().join("none")).unwrap_err().to_string().contains("none"));
    let security = Security { tls: Some(Tls::read(&chain, &key).unwrap()), ..Security::default() };
    let server = serve_scripted(Settings { security, ..settings() }, 1, |_| Ok(()));

    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let config = |protocol: &[u8]| {
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Arc::new(config)
    };
    let name = || ServerName::try_from("localhost").unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config(b"http/1.1"), name()).unwrap(), connect(&server));
    stream.write_all(&request("POST", SUM_INFER, &[], sum_request(2.0).to_string().as_bytes())).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().json()["outputs"][0]["data"], serde_json::json!([48.0]));

    let grpc = std::net::TcpStream::connect(server.grpc().unwrap()).unwrap();
    let mut stream = StreamOwned::new(ClientConnection::new(config(b"h2"), name()).unwrap(), grpc);
    // HTTP/2's preface and empty settings; the server's settings come back.
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut frame = [0; 9];
    std::io::Read::read_exact(&mut stream, &mut frame).unwrap();
    assert_eq!(frame[3], 4);

    // Without TLS nothing is answered but that it is missing.
    let mut plain = connect(&server);
    plain.write_all(&request("GET", "/v2/health/live", &[], b"")).unwrap();
    let reply = read_reply(&mut plain).unwrap();
    assert_eq!(
        (reply.status, reply.sentence()),
        (400, "this port requires TLS: use https://, or for gRPC a secure channel".to_owned())
    );
}
