//! What of the protocol and of gRPC's standard services is there, and that what is not says so.

mod support;

use serde_json::{Value, json};
use std::time::Duration;
use support::grpc::{body, call, channel};
use support::*;
use tonic::Code;
use tonic::codegen::tokio_stream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use vjepa_serve::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use vjepa_serve::proto::{InferParameter, RepositoryIndexRequest};
use vjepa_serve::{Security, Settings, Token};

#[test]
fn null_is_absent_everywhere() {
    let server = serve(settings());
    let clip = json!({"name": "clip", "datatype": "FP32", "shape": clips(1), "data": input(&clips(1))});
    let wanted = post(&server, INFER, &json!({"inputs": [clip]})).json();
    let with = |at: &str, value: Value| {
        let mut request = json!({"id": null, "inputs": [clip], "outputs": [{"name": "logits"}]});
        for part in ["/parameters", "/inputs/0/parameters", "/outputs/0/parameters"] {
            let (parent, key) = part.rsplit_once('/').unwrap();
            request.pointer_mut(parent).unwrap()[key] = json!({});
        }
        let (parent, key) = at.rsplit_once('/').unwrap();
        request.pointer_mut(parent).unwrap()[key] = value;
        request
    };
    let optional = [
        "/id",
        "/parameters",
        "/parameters/timeout",
        "/parameters/binary_data_output",
        "/inputs/0/parameters",
        "/inputs/0/parameters/binary_data_size",
        "/inputs/0/parameters/shared_memory_region",
        "/outputs",
        "/outputs/0/parameters",
        "/outputs/0/parameters/binary_data",
        "/outputs/0/parameters/classification",
        "/outputs/0/parameters/class_count",
        "/outputs/0/parameters/shared_memory_region",
        "/other",
    ];
    for at in optional {
        let reply = post(&server, INFER, &with(at, Value::Null));
        assert_eq!((reply.status, &reply.json()["outputs"]), (200, &wanted["outputs"]), "{at}: {reply:?}");
    }
    // What has to be there is missed by its name.
    for (at, words) in [
        ("/inputs", "must have one input"),
        ("/inputs/0/name", "the input has no `name`"),
        ("/inputs/0/datatype", "the input has no `datatype`"),
        ("/inputs/0/shape", "the input has no `shape`"),
        ("/inputs/0/data", "neither `data` nor `binary_data_size`"),
        ("/outputs/0/name", "an output has no `name`"),
    ] {
        let reply = post(&server, INFER, &with(at, Value::Null));
        assert!(reply.status == 400 && reply.sentence().contains(words), "{at}: {reply:?}");
        let mut without = with(at, Value::Null);
        let (parent, key) = at.rsplit_once('/').unwrap();
        without.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key);
        assert!(post(&server, INFER, &without).sentence().contains(words), "{at}");
    }
    let binary = json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": clips(1), "data": null,
        "parameters": {"binary_data_size": 384}}]});
    assert_eq!(post_binary(&server, INFER, &binary, &input(&clips(1))).status, 200);
    for body in ["", "{}", "{\"ready\": null}"] {
        assert_eq!(send(&server, "POST", "/v2/repository/index", &[], body.as_bytes()).status, 200, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_without_a_value_is_absent_over_grpc_too() {
    let server = serve(settings());
    let mut client = GrpcInferenceServiceClient::new(channel(&server).await);
    let data: Vec<u8> = input(&clips(1)).iter().flat_map(|value| value.to_le_bytes()).collect();
    let input = vjepa_serve::proto::model_infer_request::InferInputTensor {
        name: "clip".to_owned(),
        datatype: "FP32".to_owned(),
        shape: clips(1).iter().map(|size| *size as i64).collect(),
        ..Default::default()
    };
    let request = vjepa_serve::proto::ModelInferRequest {
        model_name: "tiny".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![data.into()],
        parameters: [("timeout".to_owned(), InferParameter::default())].into(),
        ..Default::default()
    };
    client.model_infer(request).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_standard_health_service_answers_without_a_token() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let security = Security { token, ..Security::default() };
    let server = serve_scripted(Settings { security, ..settings() }, 1, |_| Ok(()));
    let mut client = HealthClient::new(channel(&server).await);
    let ask = |service: &str| HealthCheckRequest { service: service.to_owned() };
    for service in ["", "inference.GRPCInferenceService", "sums"] {
        let answer = client.check(ask(service)).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service}");
    }
    let unknown = client.check(ask("other")).await.unwrap_err();
    assert!(unknown.code() == Code::NotFound && unknown.message().contains("no service `other`"), "{unknown:?}");
    let mut watched = client.watch(ask("")).await.unwrap().into_inner();
    let mut stranger = client.watch(ask("other")).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    assert_eq!(stranger.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    // A watcher hears of the end, and does not hold it up.
    server.handle().drain();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert!(watched.message().await.unwrap().is_none());
    tokio::task::spawn_blocking(move || server.wait()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_that_hears_nothing_for_long_keeps_its_connection() {
    let limits = vjepa_serve::Limits {
        head: Duration::from_millis(800),
        body_time: Duration::from_millis(800),
        ..vjepa_serve::Limits::default()
    };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let mut client = HealthClient::new(channel(&server).await);
    let mut watched = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    server.handle().drain();
    assert_eq!(watched.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
}

#[tokio::test(flavor = "multi_thread")]
async fn reflection_gives_the_services_away() {
    let server = serve(settings());
    let mut client = ServerReflectionClient::new(channel(&server).await);
    let ask = |request: MessageRequest| ServerReflectionRequest { host: String::new(), message_request: Some(request) };
    let asked = tokio_stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("inference.GRPCInferenceService".to_owned())),
        ask(MessageRequest::FileContainingSymbol("inference.ModelInferRequest".to_owned())),
    ]);
    let mut answers = client.server_reflection_info(asked).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list");
    };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in ["inference.GRPCInferenceService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"] {
        assert!(names.contains(&name), "{names:?}");
    }
    for _ in 0..2 {
        let file = answers.message().await.unwrap().unwrap().message_response;
        assert!(matches!(file, Some(MessageResponse::FileDescriptorResponse(_))), "{file:?}");
    }
    let mut old =
        tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(channel(&server).await);
    use tonic_reflection::pb::v1alpha as alpha;
    let request = alpha::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
    };
    assert!(
        old.server_reflection_info(tokio_stream::iter([request]))
            .await
            .unwrap()
            .into_inner()
            .message()
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_one_model_is_in_every_index() {
    let server = serve(settings());
    assert_eq!(get(&server, "/v2/models").json(), json!({"models": ["tiny"]}));
    let entry = json!([{"name": "tiny", "version": "1", "state": "READY", "reason": ""}]);
    for body in ["", "{}", "{\"ready\": true}"] {
        assert_eq!(send(&server, "POST", "/v2/repository/index", &[], body.as_bytes()).json(), entry);
    }
    let refused = send(&server, "POST", "/v2/repository/index", &[], b"{\"ready\": 7}");
    assert!(refused.status == 400 && refused.sentence().contains("`ready`"), "{refused:?}");
    let mut client = GrpcInferenceServiceClient::new(channel(&server).await);
    let models = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner().models;
    assert_eq!((models[0].name.as_str(), models[0].state.as_str()), ("tiny", "READY"));
    let named = RepositoryIndexRequest { repository_name: "x".to_owned(), ready: true };
    let status = client.repository_index(named).await.unwrap_err();
    assert!(status.code() == Code::InvalidArgument && status.message().contains("no repository `x`"), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_offered_says_so_over_grpc() {
    let server = serve(settings());
    let mut channel = channel(&server).await;
    let service = "/inference.GRPCInferenceService/";
    for (method, words) in [
        ("ModelStreamInfer", "call ModelInfer"),
        ("RepositoryModelLoad", "the server has one model"),
        ("RepositoryModelUnload", "the server has one model"),
        ("SystemSharedMemoryRegister", "send tensors in the request"),
        ("CudaSharedMemoryStatus", "send tensors in the request"),
        ("TraceSetting", "/metrics"),
        ("LogSettings", "--verbose"),
        ("NoSuchThing", "has ModelInfer, ServerLive"),
        ("", "has ModelInfer, ServerLive"),
    ] {
        let status = call(&mut channel, &format!("{service}{method}"), None, body(vec![0; 5])).await.status;
        assert!(status.code() == Code::Unimplemented && status.message().contains(words), "{method}: {status:?}");
    }
    for path in
        ["/other.Service/Method", "/grpc.health.v1.Health/List", "/tensorflow.serving.PredictionService/Predict", "/"]
    {
        let status = call(&mut channel, path, None, body(vec![0; 5])).await.status;
        assert!(
            status.code() == Code::Unimplemented && status.message().contains("there is no method"),
            "{path}: {status:?}"
        );
    }
    // Every method that the description names is there.
    let proto = include_str!("../proto/inference.proto");
    let methods: Vec<&str> =
        proto.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()).collect();
    assert_eq!(methods.len(), 9);
    for method in methods {
        let status = call(&mut channel, &format!("{service}{method}"), None, body(vec![0; 5])).await.status;
        assert_ne!(status.code(), Code::Unimplemented, "{method}");
    }
}

#[test]
fn what_is_not_offered_says_so_over_http() {
    let server = serve(settings());
    for (method, path, words) in [
        ("POST", "/v2/repository/models/tiny/load", "the server has one model"),
        ("POST", "/v2/repository/models/tiny/unload", "the server has one model"),
        ("GET", "/v2/systemsharedmemory/status", "send tensors in the request"),
        ("POST", "/v2/cudasharedmemory/region/x/register", "send tensors in the request"),
        ("GET", "/v2/trace/setting", "/metrics"),
        ("POST", "/v2/models/tiny/trace/setting", "/metrics"),
        ("POST", "/v2/logging", "--verbose"),
        ("POST", "/v2/models/tiny/generate", "returns no text"),
        ("POST", "/v2/models/tiny/generate_stream", "returns no text"),
        ("POST", "/v1/models/tiny:predict", "version 1 of the protocol"),
    ] {
        let reply = send(&server, method, path, &[], b"");
        assert!(reply.status == 501 && reply.sentence().contains(words), "{path}: {reply:?}");
    }
}
