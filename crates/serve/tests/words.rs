//! What is refused is refused in this server's words, with the place and what to do, not in a parser's.

mod support;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use support::*;
use vjepa_serve::{Server, Tls, VideoReader};

/// What a parser would say.
const FOREIGN: [&str; 12] = [
    "expected value",
    " expected `",
    "expected u",
    "invalid type",
    "EOF",
    "struct ",
    "multipart stream",
    "hyper",
    "connection error",
    "base64 decode error",
    "no items found",
    "InvalidCharacter",
];

fn is_ours(sentence: &str) {
    for words in FOREIGN {
        assert!(!sentence.contains(words), "{words}: {sentence}");
    }
    assert!(sentence.len() < 1_000, "{sentence}");
}

#[test]
fn json_that_cannot_be_read() {
    let server = serve(settings());
    let good = serde_json::json!({"inputs": [{"name": "clip", "datatype": "FP32", "shape": clips(1), "data": input(&clips(1))}]});
    let good = good.to_string();
    let with = |from: &str, to: &str| good.replacen(from, to, 1).into_bytes();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (with("\"data\":[", "\"data\":[NaN,"), "`NaN` is not a JSON number; send finite values"),
        (with("\"data\":[", "\"data\":[-Infinity,"), "`-Infinity` is not a JSON number"),
        ([b"\xEF\xBB\xBF", good.as_bytes()].concat(), "begins with a byte order mark"),
        (with("\"shape\":[1", "\"shape\":[-1"), "a size of the shape is negative"),
        (with("\"shape\":[1", "\"shape\":[1.5"), "expected an integer in `shape`, got `1.5`"),
        (with("\"shape\":[1", "\"shape\":[\"1\""), "got the text \"1\""),
        (with("\"FP32\"", "None"), "`None` is not JSON"),
        (with("\"FP32\"", "7"), "expected a string"),
        (with("]}]", "],}]"), "a comma before a closing bracket"),
        (good.replace('"', "'").into_bytes(), "double quotes"),
        (good.as_bytes()[..good.len() - 3].to_vec(), "a bracket, a brace or a quote open"),
        (good.encode_utf16().flat_map(u16::to_le_bytes).collect(), "is not UTF-8"),
        ([good.as_bytes(), b"}"].concat(), "there is more after its end"),
        (with("\"data\":[", &format!("\"data\":[{}", "[".repeat(500))), "nested too deeply"),
        (b"[1]".to_vec(), "expected an object with `inputs`, got an array"),
        (b"inputs=1&outputs=2".to_vec(), "unexpected `inputs`"),
        (b"".to_vec(), "the body is empty"),
        (with("\"name\":\"clip\"", &format!("\"name\":\"{}\"", "x".repeat(100_000))), "there is no input `xxx"),
    ];
    for (body, words) in cases {
        let reply = send(&server, "POST", INFER, &[], &body);
        assert!(reply.status == 400 && reply.sentence().contains(words), "{words}: {reply:?}");
        is_ours(&reply.sentence());
    }
    let place = send(&server, "POST", INFER, &[], b"{\n  \"inputs\": [NaN]\n}").sentence();
    assert!(place.contains("(line 2, column 14)"), "{place}");
}

#[test]
fn forms_that_cannot_be_read() {
    let reader: Arc<VideoReader> = Arc::new(|_: &Path| Ok(input(&clips(1))));
    let server = Server::start(tiny(), settings(), Some(reader)).unwrap();
    let part = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nclip";
    for (kind, body, words) in [
        ("multipart/form-data", format!("{part}\r\n--x--\r\n"), "names no `boundary`"),
        ("multipart/form-data; boundary=", format!("{part}\r\n--x--\r\n"), ""),
        ("multipart/form-data; boundary=other", format!("{part}\r\n--x--\r\n"), "ends before its last boundary"),
        ("multipart/form-data; boundary=x", part.to_owned(), "ends before its last boundary"),
        ("multipart/form-data; boundary=x", "--x\r\nContent-Disposition".to_owned(), "ends before its last boundary"),
        (
            "multipart/form-data; boundary=x",
            "--x\r\n\u{1}bad\r\n\r\nclip\r\n--x--\r\n".to_owned(),
            "headers that are not valid",
        ),
        ("multipart/form-data; boundary=x", "--x--\r\n".to_owned(), "it has no file"),
    ] {
        let reply = send(&server, "POST", "/v1/classify", &[("Content-Type", kind)], body.as_bytes());
        assert!(reply.status == 400 && reply.sentence().contains(words), "{kind} {words}: {reply:?}");
        assert!(reply.sentence().starts_with("the form cannot be read: "), "{reply:?}");
        is_ours(&reply.sentence());
    }
}

#[test]
fn bodies_that_break_off() {
    let server = serve(settings());
    let head = format!("POST {INFER} HTTP/1.1\r\nHost: localhost\r\n");
    for (rest, words) in [
        ("Content-Length: 100\r\n\r\n{", "fewer bytes arrived than"),
        ("Transfer-Encoding: chunked\r\n\r\n5\r\n{", "fewer bytes arrived than"),
        ("Transfer-Encoding: chunked\r\n\r\nxyz\r\n{", "the body ended early: "),
    ] {
        let mut stream = connect(&server);
        stream.write_all(format!("{head}{rest}").as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        if let Some(reply) = read_reply(&mut stream) {
            assert!(reply.status == 400 && reply.sentence().contains(words), "{reply:?}");
            is_ours(&reply.sentence());
        }
    }
}

#[test]
fn certificates_and_keys_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let inside: String = key.lines().filter(|line| !line.starts_with("-----")).collect();
    let section = |label: &str, inside: &str| format!("-----BEGIN {label}-----\n{inside}\n-----END {label}-----\n");
    let old = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00112233445566778899AABBCCDDEEFF\n\n";
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good = (write("good.pem", chain.as_bytes()), write("good.key", key.as_bytes()));
    Tls::read(&good.0, &good.1).unwrap();
    let second_line = key.lines().nth(1).unwrap();
    for (name, bytes, words) in [
        ("pkcs8", section("ENCRYPTED PRIVATE KEY", &inside).into_bytes(), "the key is encrypted"),
        (
            "pkcs1",
            section("RSA PRIVATE KEY", &format!("{old}{inside}")).into_bytes(),
            "decrypt it with `openssl pkey -in ",
        ),
        ("ec", section("EC PRIVATE KEY", &format!("{old}{inside}")).into_bytes(), "the key is encrypted"),
        ("empty", Vec::new(), "the file is empty"),
        ("der", made.signing_key.serialize_der(), "it is DER (or PKCS#12)"),
        ("chain", chain.clone().into_bytes(), "is it the file for --tls-cert?"),
        ("public", section("PUBLIC KEY", &inside).into_bytes(), "give the private one"),
        ("openssh", section("OPENSSH PRIVATE KEY", &inside).into_bytes(), "ssh-keygen -p -m PEM"),
        ("text", b"0123456789abcdef".to_vec(), "`-----BEGIN PRIVATE KEY-----`"),
        ("cut", key.as_bytes()[..key.len() / 2].to_vec(), "ends before its line `-----END`"),
        ("damaged", key.replace(second_line, "not!base64").into_bytes(), "line 2 is not base64"),
        ("another", other.signing_key.serialize_pem().into_bytes(), "is not the key of"),
        ("kind", section("PRIVATE KEY", "AAAA").into_bytes(), "of a kind that is not supported"),
    ] {
        let path = write(name, &bytes);
        let sentence = Tls::read(&good.0, &path).unwrap_err().to_string();
        assert!(sentence.contains(words) && sentence.contains(name), "{words}: {sentence}");
        is_ours(&sentence);
    }
    for (name, bytes, words) in [
        ("cert-key", key.clone().into_bytes(), "is it the file for --tls-key?"),
        ("cert-der", made.cert.der().to_vec(), "openssl x509 -inform DER"),
        (
            "cert-request",
            section("CERTIFICATE REQUEST", &inside).into_bytes(),
            "the certificate that the authority issued",
        ),
        ("cert-cut", chain.as_bytes()[..chain.len() / 2].to_vec(), "ends before its line `-----END`"),
        ("cert-empty", Vec::new(), "the file is empty"),
    ] {
        let path = write(name, &bytes);
        let sentence = Tls::read(&path, &good.1).unwrap_err().to_string();
        assert!(sentence.contains(words) && sentence.contains(name), "{words}: {sentence}");
        is_ours(&sentence);
    }
    let missing = Tls::read(&folder.path().join("missing"), &good.1).unwrap_err().to_string();
    assert!(missing.contains("missing: cannot be read"), "{missing}");
}
