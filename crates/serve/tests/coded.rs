//! Compressed messages over gRPC: read within the same limits as others, and answered alike.

mod support;

use bytes::Bytes;
use hyper::HeaderMap;
use prost::Message;
use std::io::Read;
use support::codings::{gzip, zlib};
use support::grpc::{MODEL_INFER, body, call, channel, framed};
use support::*;
use tonic::{Code, Status};
use vjepa_serve::proto::model_infer_request::InferInputTensor;
use vjepa_serve::proto::{ModelInferRequest, ModelInferResponse};
use vjepa_serve::{Limits, Server, Settings};

fn message() -> Vec<u8> {
    let input = InferInputTensor {
        name: "clip".to_owned(),
        datatype: "FP32".to_owned(),
        shape: vec![1, 3, 2, 2, 2],
        ..InferInputTensor::default()
    };
    let data: Vec<u8> = [2f32; 24].iter().flat_map(|value| value.to_le_bytes()).collect();
    let request = ModelInferRequest {
        model_name: "sums".to_owned(),
        inputs: vec![input],
        raw_input_contents: vec![data.into()],
        ..ModelInferRequest::default()
    };
    request.encode_to_vec()
}

/// The answer to these bytes: its status, its headers and its message as it came.
async fn infer(server: &Server, encoding: Option<&str>, bytes: Vec<u8>) -> (Status, HeaderMap, Bytes) {
    let answered = call(&mut channel(server).await, MODEL_INFER, encoding, body(bytes)).await;
    (answered.status, answered.headers, answered.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_messages_are_read() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    for (encoding, body) in [
        (Some("gzip"), framed(1, &gzip(&message()))),
        (Some("deflate"), framed(1, &zlib(&message()))),
        (Some("gzip"), framed(0, &message())),
        (Some("identity"), framed(0, &message())),
        (None, framed(0, &message())),
    ] {
        let (status, _, answer) = infer(&server, encoding, body).await;
        assert_eq!(status.code(), Code::Ok, "{encoding:?}: {status:?}");
        let answer = ModelInferResponse::decode(&answer[5..]).unwrap();
        assert_eq!(answer.raw_output_contents[0], 48f32.to_le_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_compressed_as_their_requests_were() {
    let server = serve_long(settings(), 5_000);
    let (_, headers, plain) = infer(&server, None, framed(0, &message())).await;
    assert!(plain[0] == 0 && !headers.contains_key("grpc-encoding"), "{headers:?}");
    let (_, headers, packed) = infer(&server, Some("gzip"), framed(1, &gzip(&message()))).await;
    assert!(packed[0] == 1 && headers["grpc-encoding"] == "gzip" && packed.len() < plain.len() / 10, "{headers:?}");
    assert_eq!(headers["grpc-accept-encoding"], "identity, gzip, deflate");
    let mut whole = Vec::new();
    flate2::read::GzDecoder::new(&packed[5..]).read_to_end(&mut whole).unwrap();
    assert_eq!(whole, plain[5..]);
    let (_, headers, packed) = infer(&server, Some("deflate"), framed(1, &zlib(&message()))).await;
    assert!(packed[0] == 1 && headers["grpc-encoding"] == "deflate", "{headers:?}");
    whole.clear();
    flate2::read::ZlibDecoder::new(&packed[5..]).read_to_end(&mut whole).unwrap();
    assert_eq!(whole, plain[5..]);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_are_too_large_damaged_or_unknown_are_refused_in_words() {
    let limits = Limits { body: 1 << 20, bodies: 8 << 20, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let bomb = vec![0; 128 << 20];
    let good = gzip(&message());
    for (encoding, body, code, words) in [
        ("gzip", framed(1, &gzip(&bomb)), Code::OutOfRange, "decompressed, the body is larger than 1048576"),
        ("deflate", framed(1, &zlib(&bomb)), Code::OutOfRange, "decompressed, the body is larger"),
        ("gzip", framed(1, &good[..good.len() - 9]), Code::InvalidArgument, "ends early"),
        ("gzip", framed(1, &message()), Code::InvalidArgument, "not valid gzip data"),
        ("gzip", framed(1, &gzip(b"\x2a")), Code::InvalidArgument, "the message is malformed"),
        ("gzip", framed(7, &good), Code::Internal, "the request's message is damaged"),
        ("gzip", framed(1, &good)[..9].to_vec(), Code::Internal, "the request's message is damaged"),
        ("identity", framed(1, &good), Code::Internal, "the request's message is damaged"),
        ("zstd", framed(1, &good), Code::Unimplemented, "messages compressed with `zstd` are not supported"),
        ("snappy", framed(1, &good), Code::Unimplemented, "gzip, deflate"),
        ("identity", framed(0, &vec![0; 2 << 20]), Code::OutOfRange, "the body is larger than 1048576 bytes"),
    ] {
        let (status, headers, _) = infer(&server, Some(encoding), body).await;
        assert!(status.code() == code && status.message().contains(words), "{words}: {status:?}");
        let told = headers.get("grpc-accept-encoding").map(|value| value.to_str().unwrap());
        assert_eq!(told, (encoding != "identity").then_some("identity, gzip, deflate"), "{words}");
    }
    let limits = Limits { body: 8 << 20, bodies: 4 << 20, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let (status, ..) = infer(&server, Some("gzip"), framed(1, &gzip(&bomb))).await;
    assert!(status.code() == Code::Unavailable && status.message().contains("fill the memory"), "{status:?}");
}
