//! Small bytes that would be much memory: the server's memory stays near the size of what it is sent.

mod support;

use support::grpc::{body, channel, framed, infer};
use support::*;
use tonic::{Code, Status};
use vjepa_serve::{Security, Server, Settings, Token};

/// Bytes of a message here.
const SIZE: usize = 4 << 20;

/// What one of them may cost in KiB, on all its ways.
const COST: usize = 48 << 10;

/// The answer to a message of these bytes.
async fn answer(server: &Server, message: &[u8]) -> Status {
    infer(&mut channel(server).await, body(framed(0, message))).await
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_empty_parts_take_no_memory() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    for (part, words) in [
        (&b"\x2a\x00"[..], "more inputs"),
        (b"\x32\x00", "more outputs"),
        (b"\x3a\x00", "more raw_input_contents"),
        (b"\x22\x07\x0a\x01x\x12\x02\x10\x01", "more parameters"),
    ] {
        let before = peak();
        let status = answer(&server, &part.repeat(SIZE / part.len())).await;
        assert!(status.code() == Code::InvalidArgument && status.message().contains(words), "{status:?}");
        // The system's count may go back a little.
        let grown = peak().saturating_sub(before);
        assert!(grown < COST, "{words}: {grown} KiB");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_token_no_message_is_read() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let security = Security { token, ..Security::default() };
    let server = serve_scripted(Settings { security, ..settings() }, 1, |_| Ok(()));
    // The message is malformed; who has no token does not learn that.
    let status = answer(&server, b"\x2a").await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    let status = answer(&server, &vec![0; SIZE]).await;
    assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
}

#[test]
fn json_that_means_nothing_takes_no_memory() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let good = sum_request(2.0).to_string();
    let rest = good.strip_prefix('{').unwrap();
    let filled = |before: &str, part: &str, after: &str| {
        let parts = vec![part; SIZE / part.len()].join(",");
        format!("{{{before}{parts}{after}{rest}").into_bytes()
    };
    for (body, status) in [
        (filled("\"parameters\":{\"x\":[", "{\"\":0}", "]},"), 200),
        (filled("\"parameters\":{", "\"\":[]", "},"), 200),
        (filled("\"parameters\":{\"timeout\":[", "{\"\":0}", "]},"), 400),
        (filled("\"outputs\":[", "{\"name\":\"\"}", "],"), 400),
        (filled("\"x\":[", "{\"\":0}", "],"), 200),
    ] {
        let before = peak();
        let reply = send(&server, "POST", SUM_INFER, &[], &body);
        assert_eq!(reply.status, status, "{reply:?}");
        let grown = peak().saturating_sub(before);
        assert!(grown < COST, "{}: {grown} KiB", String::from_utf8_lossy(&body[..40]));
    }
}
