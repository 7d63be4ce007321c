//! What stands between clients and the server: proxies, balancers, browsers, scrapers, and the wrong port.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;
use support::codings::{gzip, raw_deflate, zlib};
use support::*;
use tonic::transport::Channel;
use vjepa_serve::{Limits, Security, Server, Settings, Token, Web};

fn with_web(origins: &[&str], prefix: &str) -> Settings {
    let origins: Vec<String> = origins.iter().map(|origin| (*origin).to_owned()).collect();
    Settings { web: Web::new(&origins, prefix).unwrap(), ..settings() }
}

#[test]
fn a_connection_is_kept_for_as_long_as_is_told() {
    assert_eq!(Limits::default().keep_alive, Duration::from_secs(75), "longer than a balancer's 60 s");
    let server = serve(settings());
    assert_eq!(get(&server, "/v2/health/live").header("keep-alive"), Some("timeout=75"));
    assert_eq!(send(&server, "GET", "/v2", &[("Connection", "close")], b"").header("keep-alive"), None);
    // The time for a head is much shorter than the time between requests, and ends neither.
    let limits = Limits { head: Duration::from_millis(200), keep_alive: Duration::from_secs(4), ..Limits::default() };
    let server = serve(Settings { limits, ..settings() });
    let mut stream = connect(&server);
    for _ in 0..2 {
        stream.write_all(&request("GET", "/v2/health/live", &[], b"")).unwrap();
        assert_eq!(read_reply(&mut stream).unwrap().header("keep-alive"), Some("timeout=4"));
        std::thread::sleep(Duration::from_millis(700));
    }
    // It ends in the end, and a head that dawdles on a kept connection ends it sooner.
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0);
    let limits = Limits { head: Duration::from_millis(200), keep_alive: Duration::from_secs(600), ..Limits::default() };
    let server = serve(Settings { limits, ..settings() });
    let mut stream = connect(&server);
    stream.write_all(&request("GET", "/v2/health/live", &[], b"")).unwrap();
    assert_eq!(read_reply(&mut stream).unwrap().status, 200);
    stream.write_all(b"GET /v2 HT").unwrap();
    assert_eq!(stream.read_to_end(&mut rest).unwrap(), 0);
}

#[test]
fn no_keep_alive_is_said_too() {
    let limits = Limits { keep_alive: Duration::ZERO, ..Limits::default() };
    let reply = get(&serve(Settings { limits, ..settings() }), "/v2/health/live");
    assert_eq!((reply.header("connection"), reply.header("keep-alive")), (Some("close"), None));
}

#[test]
fn pages_of_listed_origins_may_ask_and_read() {
    let server = serve_scripted(with_web(&["https://lab.example", "http://localhost:3000"], ""), 1, |_| Ok(()));
    let body = sum_request(2.0).to_string();
    let ask = |origin: &str| {
        let headers = [("Origin", origin), ("Sec-Fetch-Site", "cross-site")];
        send(&server, "POST", SUM_INFER, &headers, body.as_bytes())
    };
    for origin in ["https://lab.example", "http://localhost:3000"] {
        let reply = ask(origin);
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (200, Some(origin)));
        assert!(reply.header("vary").is_some_and(|vary| vary.contains("Origin")), "{reply:?}");
    }
    for origin in
        ["https://evil.example", "http://lab.example", "https://lab.example:8443", "https://lab.example.evil", "null"]
    {
        let reply = ask(origin);
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (403, None), "{origin}");
    }
    let preflight = |origin: &str, extra: &[(&str, &str)]| {
        let headers = [&[("Origin", origin), ("Access-Control-Request-Method", "POST")], extra].concat();
        send(&server, "OPTIONS", SUM_INFER, &headers, b"")
    };
    let reply = preflight("https://lab.example", &[("Access-Control-Request-Headers", "authorization,content-type")]);
    assert_eq!((reply.status, reply.header("access-control-allow-origin")), (204, Some("https://lab.example")));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("POST"));
    assert!(reply.header("access-control-allow-headers").unwrap().contains("Authorization"));
    assert_eq!(reply.header("access-control-allow-private-network"), None);
    let local = preflight("https://lab.example", &[("Access-Control-Request-Private-Network", "true")]);
    assert_eq!(local.header("access-control-allow-private-network"), Some("true"));
    let reply = preflight("https://evil.example", &[]);
    assert_eq!((reply.status, reply.header("access-control-allow-methods")), (403, None));
    // A refusal can be read by the page too.
    let wrong = send(&server, "GET", "/nowhere", &[("Origin", "https://lab.example")], b"");
    assert_eq!((wrong.status, wrong.header("access-control-allow-origin")), (404, Some("https://lab.example")));
}

#[test]
fn a_preflight_needs_no_token_and_its_request_does() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let security = Security { token, ..Security::default() };
    let server = serve(Settings { security, ..with_web(&["*"], "") });
    let origin = ("Origin", "https://any.example");
    let headers = [origin, ("Access-Control-Request-Method", "GET")];
    assert_eq!(send(&server, "OPTIONS", "/v2", &headers, b"").status, 204);
    let refused = send(&server, "GET", "/v2", &[origin], b"");
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, Some("https://any.example")));
    assert_eq!(send(&server, "GET", "/v2", &[origin, ("Authorization", "Bearer 0123456789abcdef")], b"").status, 200);
    let open = Server::start(tiny(), with_web(&["*"], ""), None).err().unwrap();
    assert!(open.to_string().contains("so a token is needed"), "{open}");
}

#[test]
fn a_proxys_path_stands_before_every_path() {
    let server = serve(with_web(&[], "/models/textures"));
    for path in
        ["/models/textures/v2", "/models/textures/", "/models/textures/metrics", "/models/textures/v2/health/ready"]
    {
        assert_eq!(get(&server, path).status, 200, "{path}");
    }
    // Probes and scrapers come without the proxy.
    for path in ["/v2/health/live", "/v2/health/ready", "/metrics"] {
        assert_eq!(get(&server, path).status, 200, "{path}");
    }
    for path in ["/v2", "/", "/models/texturesv2", "/models", "/other/v2"] {
        let reply = get(&server, path);
        assert!(reply.status == 404 && reply.sentence().contains("but under `/models/textures/`"), "{path}: {reply:?}");
    }
    // The page asks for paths beside its own.
    let bare = get(&server, "/models/textures");
    assert_eq!((bare.status, bare.header("location")), (308, Some("/models/textures/")));
}

#[test]
fn compressed_bodies_are_read() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let json = sum_request(2.0).to_string().into_bytes();
    let raw: Vec<u8> = [2f32; 24].iter().flat_map(|value| value.to_le_bytes()).collect();
    let head = serde_json::json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": [1, 3, 2, 2, 2],
        "parameters": {"binary_data_size": 96}}]})
    .to_string();
    let both = [head.as_bytes(), &raw].concat();
    let length = head.len().to_string();
    let halves = [gzip(&json[..100]), gzip(&json[100..])].concat();
    for (coding, body) in [
        ("gzip", gzip(&json)),
        ("x-gzip", gzip(&json)),
        ("GZIP", halves),
        ("deflate", zlib(&json)),
        ("deflate", raw_deflate(&json)),
        ("identity", json.clone()),
    ] {
        let reply = send(&server, "POST", SUM_INFER, &[("Content-Encoding", coding)], &body);
        assert_eq!((reply.status, &reply.json()["outputs"][0]["data"]), (200, &serde_json::json!([48.0])), "{coding}");
    }
    // The length is that of the JSON before it was compressed, as Triton's clients have it.
    for (length, body) in [(length.as_str(), &both), ("0", &raw)] {
        let headers = [("Content-Encoding", "gzip"), ("Inference-Header-Content-Length", length)];
        assert_eq!(send(&server, "POST", SUM_INFER, &headers, &gzip(body)).status, 200);
    }
    let cut = gzip(&json);
    let mut damaged = gzip(&json);
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    for (coding, body, status, words) in [
        ("gzip", cut[..cut.len() - 9].to_vec(), 400, "ends early"),
        ("gzip", damaged, 400, "gzip data"),
        ("gzip", json.clone(), 400, "not valid gzip data"),
        ("gzip", [gzip(&json), b"more".to_vec()].concat(), 400, "gzip data"),
        ("deflate", [zlib(&json), b"more".to_vec()].concat(), 400, "4 bytes follow the end"),
        ("br", json.clone(), 415, "use one of gzip, deflate"),
        ("gzip, gzip", gzip(&gzip(&json)), 415, "use one of"),
        ("zstd", json.clone(), 415, "`zstd`"),
    ] {
        let reply = send(&server, "POST", SUM_INFER, &[("Content-Encoding", coding)], &body);
        assert!(reply.status == status && reply.sentence().contains(words), "{words}: {reply:?}");
        assert_eq!(reply.header("accept-encoding"), (status == 415).then_some("gzip, deflate"), "{words}");
    }
    let plain = send(&server, "POST", SUM_INFER, &[], &gzip(&json));
    assert!(plain.sentence().contains("`Content-Encoding: gzip`"), "{plain:?}");
}

#[test]
fn small_bodies_that_would_be_large_are_refused() {
    let limits = Limits { body: 8 << 20, bodies: 16 << 20, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let bomb = vec![b' '; 256 << 20];
    let bombs = [("gzip", gzip(&bomb)), ("deflate", zlib(&bomb)), ("deflate", raw_deflate(&bomb))];
    drop(bomb);
    for (coding, body) in &bombs {
        assert!(body.len() < 1 << 20);
        for path in [SUM_INFER, "/v1/classify", "/v2/repository/index"] {
            let reply = send(&server, "POST", path, &[("Content-Encoding", coding)], body);
            assert!(
                reply.status == 413 && reply.sentence().contains("decompressed, the body is larger than 8388608"),
                "{reply:?}"
            );
        }
    }
    // Together they share the memory for bodies.
    let limits = Limits { body: 8 << 20, bodies: 4 << 20, ..Limits::default() };
    let server = serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()));
    let reply = send(&server, "POST", SUM_INFER, &[("Content-Encoding", "gzip")], &bombs[0].1);
    assert!(reply.status == 503 && reply.sentence().contains("fill the memory"), "{reply:?}");
}

#[test]
fn answers_are_compressed_for_who_accepts_it() {
    let server = serve_long(settings(), 5_000);
    let body = sum_request(1.0).to_string();
    let ask = |accept: &str| send(&server, "POST", SUM_INFER, &[("Accept-Encoding", accept)], body.as_bytes());
    let plain = ask("identity");
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), (None, Some("Accept-Encoding")));
    let packed = ask("gzip, deflate, br");
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(packed.body.as_slice()).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    let packed = ask("deflate, gzip;q=0.5");
    assert_eq!(packed.header("content-encoding"), Some("deflate"));
    text.clear();
    flate2::read::ZlibDecoder::new(packed.body.as_slice()).read_to_end(&mut text).unwrap();
    assert_eq!(text, plain.body);
    let short = send(&server, "GET", "/v2", &[("Accept-Encoding", "gzip")], b"");
    assert_eq!(short.header("content-encoding"), None);
}

#[test]
fn metrics_come_in_the_form_that_is_asked_for() {
    let server = serve(settings());
    let ask = |accept: &[(&str, &str)]| {
        let reply = send(&server, "GET", "/metrics", accept, b"");
        (reply.header("content-type").unwrap().to_owned(), String::from_utf8(reply.body).unwrap())
    };
    get(&server, "/v2");
    for accept in
        [vec![], vec![("Accept", "text/plain;version=0.0.4")], vec![("Accept", "*/*")], vec![("Accept", "text/html")]]
    {
        let (kind, text) = ask(&accept);
        assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
        for line in [
            "# TYPE vjepa_requests_total counter\n",
            "# HELP vjepa_requests_total Requests by endpoint and status.\n",
            "# TYPE vjepa_clips_total counter\n",
            "# TYPE vjepa_build_info gauge\n",
            "# TYPE vjepa_queue_depth gauge\n",
            "# TYPE vjepa_compute_seconds histogram\n",
            "vjepa_requests_total{endpoint=\"metadata\",status=\"200\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("# UNIT") && !text.contains("# EOF") && !text.contains(" info\n"), "{text}");
        // Every sample is of a type that stands before it.
        let mut types = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                types.insert(rest.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
                assert!(types.contains(name) || base.is_some_and(|base| types.contains(base)), "{line}");
            }
        }
    }
    let (kind, text) = ask(&[("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")]);
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(text.contains("# TYPE vjepa_requests counter\n") && text.ends_with("# EOF\n"), "{text}");
}

/// An answer over HTTP/2, with prior knowledge: status, headers and body.
async fn over_http2(
    port: std::net::SocketAddr,
    request: hyper::Request<tonic::body::Body>,
) -> (u16, hyper::HeaderMap, String) {
    let mut channel = Channel::from_shared(format!("http://{port}")).unwrap().connect().await.unwrap();
    let ready = tower::ServiceExt::ready(&mut channel).await.unwrap();
    let (parts, body) = tower::Service::call(ready, request).await.unwrap().into_parts();
    let body = http_body_util::BodyExt::collect(body).await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn ask(method: &str, path: &str, kind: &str, body: &str) -> hyper::Request<tonic::body::Body> {
    let body = tonic::body::Body::new(http_body_util::Full::new(body.to_owned().into()));
    let request = hyper::Request::builder().method(method).uri(format!("http://localhost{path}"));
    request.header("content-type", kind).body(body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_without_tls_is_served_at_the_http_port() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let (status, headers, _) = over_http2(server.http(), ask("GET", "/v2/health/ready", "", "")).await;
    assert!(status == 200 && !headers.contains_key("keep-alive") && !headers.contains_key("connection"), "{headers:?}");
    let request = ask("POST", SUM_INFER, "application/json", &sum_request(2.0).to_string());
    let (status, _, body) = over_http2(server.http(), request).await;
    assert!(status == 200 && body.contains("[48.0]"), "{body}");
    let request = hyper::Request::get("http://evil.example/v2").body(tonic::body::Body::empty()).unwrap();
    let mut channel = {
        let endpoint = Channel::from_shared(format!("http://{}", server.http())).unwrap();
        endpoint.origin("http://evil.example".parse().unwrap()).connect().await.unwrap()
    };
    let ready = tower::ServiceExt::ready(&mut channel).await.unwrap();
    assert_eq!(tower::Service::call(ready, request).await.unwrap().status(), 403, "a name of another site");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_port_names_the_right_one() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let (http, grpc) = (server.http(), server.grpc().unwrap());
    let names_http = format!("HTTP is answered at port {}", http.port());
    // HTTP/1.1 at gRPC's port: with and without a body, once and again.
    let mut stream = TcpStream::connect(grpc).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(&request("POST", SUM_INFER, &[], &vec![b'x'; 1 << 18])).unwrap();
    let reply = read_reply(&mut stream).unwrap();
    assert!(reply.status == 400 && reply.sentence().contains(&names_http), "{reply:?}");
    let mut stream = TcpStream::connect(grpc).unwrap();
    stream.write_all(&request("GET", "/v2/health/ready", &[], b"")).unwrap();
    assert!(read_reply(&mut stream).unwrap().sentence().contains(&names_http));
    // HTTP/2 that is not gRPC at gRPC's port.
    let (status, _, body) = over_http2(grpc, ask("GET", "/v2", "", "")).await;
    assert!(status == 400 && body.contains(&names_http), "{body}");
    // gRPC at HTTP's port.
    let mut channel = Channel::from_shared(format!("http://{http}")).unwrap().connect().await.unwrap();
    let mut client =
        vjepa_serve::proto::grpc_inference_service_client::GrpcInferenceServiceClient::new(channel.clone());
    let status = client.server_live(vjepa_serve::proto::ServerLiveRequest {}).await.unwrap_err();
    let names_grpc = format!("gRPC is answered at port {}", grpc.port());
    assert!(status.code() == tonic::Code::Unimplemented && status.message().contains(&names_grpc), "{status:?}");
    let _ = tower::ServiceExt::ready(&mut channel).await.unwrap();
    // TLS at a port without it.
    let mut stream = TcpStream::connect(http).unwrap();
    stream.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]).unwrap();
    let reply = read_reply(&mut stream).unwrap();
    assert!(reply.status == 400 && reply.sentence().contains("does not use TLS"), "{reply:?}");
    let metrics = String::from_utf8(get(&server, "/metrics").body).unwrap();
    assert!(metrics.contains("vjepa_requests_rejected_total{reason=\"wrong_port\"} 5\n"), "{metrics}");
    let alone = serve(Settings { grpc: None, ..settings() });
    let (_, headers, _) = over_http2(alone.http(), ask("POST", "/a/b", "application/grpc", "")).await;
    let message = headers["grpc-message"].to_str().unwrap();
    assert!(message.contains("no%20gRPC") && message.contains("--grpc-port"), "{message}");
}

#[test]
fn a_client_that_says_nothing_is_still_cut_off() {
    let limits = Limits { head: Duration::from_millis(200), ..Limits::default() };
    let server = serve(Settings { limits, ..settings() });
    for port in [server.http(), server.grpc().unwrap()] {
        for first in [&b""[..], b"P", b"PRI * HTTP/2.0\r\n"] {
            let mut stream = TcpStream::connect(port).unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            stream.write_all(first).unwrap();
            let mut rest = Vec::new();
            stream.read_to_end(&mut rest).unwrap_or_else(|error| panic!("it is still there: {error}"));
        }
    }
}
