//! What clients may not do: lie, dawdle, flood. Each gets a sentence or is cut off; memory stays flat and the next good
//! request is served.

mod support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};
use support::*;
use vjepa_serve::{Limits, Security, Server, Settings, Token};

/// A small generator of numbers, the same at each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

/// A malformed request as bytes.
fn malformed(random: &mut Random) -> Vec<u8> {
    let good = sum_request(1.0).to_string();
    match random.below(8) {
        // Bytes of the JSON changed.
        0 | 1 => {
            let mut json = good.into_bytes();
            for _ in 0..1 + random.below(4) {
                let at = random.below(json.len());
                json[at] = random.below(256) as u8;
            }
            json.truncate(json.len() - random.below(3) * random.below(json.len()) / 3);
            // What is still right is not what this test is about.
            let parsed = serde_json::from_slice::<serde_json::Value>(&json);
            if let Some(mut still) = parsed.ok().filter(serde_json::Value::is_object) {
                still["inputs"] = serde_json::json!([]);
                json = still.to_string().into_bytes();
            }
            request("POST", SUM_INFER, &[], &json)
        }
        // Shapes that lie.
        2 => {
            let size = random.pick(&[
                "1152921504606846976",
                "18446744073709551615",
                "0",
                "-1",
                "1e3",
                "99999999999999999999",
                "7",
            ]);
            let shape = match random.below(3) {
                0 => format!("[{size},3,2,2,2]"),
                1 => format!("[1,3,{size},{size},{size}]"),
                _ => format!("[{}]", vec![size; random.below(100)].join(",")),
            };
            request("POST", SUM_INFER, &[], good.replace("[1,3,2,2,2]", &shape).as_bytes())
        }
        // Element types and names.
        3 => {
            let datatype = random.pick(&["FP16", "INT64", "BYTES", "", "fp32", "\u{fffd}"]);
            request("POST", SUM_INFER, &[], good.replace("FP32", datatype).as_bytes())
        }
        // Sizes of binary data, and of its header.
        4 | 5 => {
            let size = random.pick(&["96", "95", "97", "0", "1152921504606846976", "-4", "\"96\"", "1.5"]);
            let json = format!(
                "{{\"inputs\":[{{\"name\":\"clip\",\"datatype\":\"FP32\",\"shape\":[1,3,2,2,2],\"parameters\":{{\"binary_data_size\":{size}}}}}]}}"
            );
            let told =
                random.pick(&["right", "0", "1", "999999", "18446744073709551615", "99999999999999999999", "-1", "x"]);
            let told = if told == "right" { json.len().to_string() } else { told.to_owned() };
            let mut body = json.into_bytes();
            let data = if size == "96" && told != "0" { 92 } else { random.below(200) };
            body.extend(vec![7; data + usize::from(data == 96)]);
            // Whole clips of bytes and nothing else would be a good request.
            if told == "0" && body.len() % 96 == 0 {
                body.push(7);
            }
            request("POST", SUM_INFER, &[("Inference-Header-Content-Length", &told)], &body)
        }
        // Methods and paths.
        6 => {
            let path = random.pick(&[
                "/v2/models/sums/infer/x",
                "/v2/models//infer",
                "/v2/../etc/passwd",
                "/%2e%2e/%00",
                "/v1/classify?x=1",
                "//",
                "/v2/models/sums/versions/9/infer",
            ]);
            let method = random.pick(&["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"]);
            request(method, path, &[], b"")
        }
        // No HTTP at all.
        _ => (0..1 + random.below(300)).map(|_| random.below(256) as u8).chain(*b"\r\n\r\n").collect(),
    }
}

fn assert_serves(server: &Server) {
    let reply = post(server, SUM_INFER, &sum_request(2.0));
    assert_eq!(reply.json()["outputs"][0]["data"], serde_json::json!([48.0]));
}

#[test]
fn ten_thousand_malformed_requests() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let mut random = Random(3);
    let mut stream = connect(&server);
    let mut before = 0;
    let mut sentences = 0;
    for number in 0..10_000 {
        if number == 2_000 {
            before = resident();
        }
        let bytes = malformed(&mut random);
        let is_http = bytes.windows(8).any(|window| window == b"HTTP/1.1");
        let sent = stream.write_all(&bytes);
        let reply = sent.ok().and_then(|()| read_reply(&mut stream));
        match reply {
            Some(reply) => {
                assert!((400..500).contains(&reply.status), "{number}: {reply:?}\n{}", String::from_utf8_lossy(&bytes));
                if !reply.body.is_empty() {
                    assert!(reply.sentence().len() > 10);
                    sentences += 1;
                }
                if reply.header("connection") == Some("close") || !is_http {
                    stream = connect(&server);
                }
            }
            None => {
                assert!(!is_http, "{number}: no answer to {}", String::from_utf8_lossy(&bytes));
                stream = connect(&server);
            }
        }
        if number % 1_000 == 0 {
            assert_serves(&server);
        }
    }
    assert!(sentences > 8_000, "{sentences}");
    let grown = resident().saturating_sub(before);
    assert!(grown < 16 << 10, "{grown} KiB more than before");
    assert_serves(&server);
}

fn patient(limits: Limits) -> Server {
    serve_scripted(Settings { limits, ..settings() }, 1, |_| Ok(()))
}

/// Reads until the server closes; false when it does not.
fn is_closed(stream: &mut std::net::TcpStream) -> bool {
    let mut rest = Vec::new();
    match stream.read_to_end(&mut rest) {
        Ok(_) => true,
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock && error.kind() != std::io::ErrorKind::TimedOut,
    }
}

#[test]
fn connections_that_dawdle_are_closed() {
    let limits = Limits {
        head: Duration::from_millis(400),
        body_time: Duration::from_millis(400),
        connections: 40,
        ..Limits::default()
    };
    let server = patient(limits);
    let mut slow: Vec<_> = (0..30).map(|_| connect(&server)).collect();
    let mut begun = connect(&server);
    begun.write_all(b"POST /v2/models/sums/infer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{").unwrap();
    let mut grpc = std::net::TcpStream::connect(server.grpc().unwrap()).unwrap();
    grpc.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A byte of the head now and then; half of them say nothing at all.
    for byte in b"GET / HT" {
        slow.iter_mut().skip(15).for_each(|stream| drop(stream.write_all(&[*byte])));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_serves(&server);
    let reply = read_reply(&mut begun).unwrap();
    assert_eq!((reply.status, reply.sentence().as_str()), (408, "the body did not arrive within 0.4 s"));
    assert!(slow.iter_mut().all(is_closed));
    assert!(is_closed(&mut grpc));
    assert_serves(&server);
}

#[test]
fn more_connections_than_may_be_are_turned_away() {
    let server = patient(Limits { connections: 4, ..Limits::default() });
    let mut held: Vec<_> = (0..4).map(|_| connect(&server)).collect();
    for stream in &mut held {
        stream.write_all(&request("GET", "/v2/health/live", &[], b"")).unwrap();
        assert_eq!(read_reply(stream).unwrap().status, 200);
    }
    let mut late = connect(&server);
    let reply = read_reply(&mut late).unwrap();
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("1")));
    assert!(reply.sentence().contains("too many connections"));
    drop(held);
    let began = Instant::now();
    loop {
        let mut stream = connect(&server);
        let _ = stream.write_all(&request("GET", "/v2/health/live", &[], b""));
        if read_reply(&mut stream).is_some_and(|reply| reply.status == 200) {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn bodies_are_bounded_alone_and_together() {
    let server =
        patient(Limits { body: 1 << 20, bodies: 3 << 20, body_time: Duration::from_secs(5), ..Limits::default() });
    let told = send(&server, "POST", SUM_INFER, &[], &vec![b' '; (1 << 20) + 1]);
    assert_eq!(told.status, 413);
    assert!(told.sentence().contains("larger than 1048576 bytes"));
    // Without a length it is noticed on the way.
    let mut stream = connect(&server);
    stream.write_all(b"POST /v1/classify HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    let chunk = [format!("{:x}\r\n", 1 << 18).into_bytes(), vec![b' '; 1 << 18], b"\r\n".to_vec()].concat();
    for _ in 0..8 {
        if stream.write_all(&chunk).is_err() {
            break;
        }
    }
    assert!(read_reply(&mut stream).is_none_or(|reply| reply.status == 413));
    // Bodies that hang fill the memory set aside; the next one has to come again.
    let head = format!("POST {SUM_INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    let mut hanging: Vec<_> = (0..3).map(|_| connect(&server)).collect();
    for stream in &mut hanging {
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&vec![b' '; (1 << 20) - 100]).unwrap();
    }
    std::thread::sleep(Duration::from_millis(300));
    let refused = send(&server, "POST", SUM_INFER, &[], &vec![b' '; 1 << 20]);
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(hanging);
    let began = Instant::now();
    while post(&server, SUM_INFER, &sum_request(2.0)).status != 200 {
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_token_is_asked_for_everywhere_but_at_the_door() {
    let token = Some(Token::new("correct horse battery".replace(' ', "-").as_str()).unwrap());
    let server =
        serve_scripted(Settings { security: Security { token, ..Security::default() }, ..settings() }, 1, |_| Ok(()));
    for open in ["/v2/health/live", "/v2/health/ready", "/"] {
        assert_eq!(get(&server, open).status, 200, "{open}");
    }
    for closed in ["/metrics", "/v2", "/v2/models/sums", "/v2/models/sums/stats"] {
        let reply = get(&server, closed);
        assert_eq!((reply.status, reply.header("www-authenticate")), (401, Some("Bearer")), "{closed}");
    }
    // Who has no token does not learn what is there.
    for hidden in ["/v2/models/other", "/v2/models/sums/versions/9", "/nowhere"] {
        let reply = send(&server, "DELETE", hidden, &[], b"");
        assert!(reply.status == 401 && !reply.sentence().contains("sums"), "{hidden}: {reply:?}");
    }
    let body = sum_request(2.0).to_string();
    let ask = |value: &str| send(&server, "POST", SUM_INFER, &[("Authorization", value)], body.as_bytes()).status;
    assert_eq!(ask("Bearer correct-horse-battery"), 200);
    assert_eq!(ask("Bearer correct-horse-batterz"), 401);
    assert_eq!(ask("Basic correct-horse-battery"), 401);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let body = sum_request(2.0).to_string();
    let ask = |headers: &[(&str, &str)]| send(&server, "POST", SUM_INFER, headers, body.as_bytes()).status;
    assert_eq!(ask(&[("Origin", "http://evil.example")]), 403);
    assert_eq!(ask(&[("Origin", "null")]), 403);
    assert_eq!(ask(&[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(ask(&[("Origin", "http://localhost")]), 200);
    assert_eq!(ask(&[("Sec-Fetch-Site", "same-origin"), ("Origin", "http://elsewhere")]), 200);
}

/// A page whose site gives its own name to this machine is of the same origin for a browser.
#[test]
fn names_of_other_sites_are_refused_where_there_is_no_token() {
    let ask = |server: &Server, headers: &str| {
        let mut stream = connect(server);
        write!(stream, "GET /v2/models/sums HTTP/1.1\r\n{headers}\r\n").unwrap();
        read_reply(&mut stream).unwrap()
    };
    let open = serve_scripted(settings(), 1, |_| Ok(()));
    let rebound = "Host: evil.example:8000\r\nOrigin: http://evil.example:8000\r\nSec-Fetch-Site: same-origin\r\n";
    let refused = ask(&open, rebound);
    assert!(refused.status == 403 && refused.sentence().contains("not to `evil.example:8000`"), "{refused:?}");
    for own in ["Host: localhost:8000\r\n", "Host: 127.0.0.1:8000\r\n", "Host: [::1]\r\n", ""] {
        assert_eq!(ask(&open, own).status, 200, "{own}");
    }
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let security = Security { token, ..Security::default() };
    let closed = serve_scripted(Settings { security, ..settings() }, 1, |_| Ok(()));
    let named = "Host: models.example\r\nAuthorization: Bearer 0123456789abcdef\r\n";
    assert_eq!(ask(&closed, named).status, 200);
}
