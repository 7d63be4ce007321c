//! An HTTP proxy that injects faults between a store and its client.
#![allow(dead_code, reason = "each test uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// What is done to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is answered.
    Timeout,
    /// 503 Slow Down.
    Unavailable,
    /// Half of the body, then the connection ends.
    Short,
    /// Half of the body as if it were all.
    Clipped,
    /// S3's answer to a token that has expired.
    Expired,
    /// Google's.
    Unauthorized,
    /// The answer where there is no such bucket.
    NoBucket,
}

/// Counts of a proxy.
#[derive(Debug, Default)]
pub struct Counts {
    pub requests: AtomicUsize,
    pub faults: AtomicUsize,
    pub open: AtomicUsize,
    pub most_open: AtomicUsize,
    /// From now on every request meets the fault.
    pub always: AtomicBool,
}

/// Starts a proxy for `upstream` (`127.0.0.1:5000`) and returns its address. Every `every`-th request for an object's bytes meets
/// the fault; 0 means none until [`Counts::always`].
pub fn start(upstream: String, fault: Fault, every: usize) -> (String, Arc<Counts>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let counts = Arc::new(Counts::default());
    let shared = Arc::clone(&counts);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let (counts, upstream) = (Arc::clone(&shared), upstream.clone());
            std::thread::spawn(move || {
                let open = counts.open.fetch_add(1, Ordering::SeqCst) + 1;
                counts.most_open.fetch_max(open, Ordering::SeqCst);
                let answer = answer(&client, &upstream, fault, every, &counts).unwrap_or_default();
                let (last, first) = answer.split_last().map_or((None, &[][..]), |(last, first)| (Some(*last), first));
                // A client that has gone is its own matter. One that has the last byte may come again at once: it counts no more.
                let sent = (&client).write_all(first);
                counts.open.fetch_sub(1, Ordering::SeqCst);
                let _ = sent.and_then(|()| (&client).write_all(last.as_slice()));
            });
        }
    });
    (address, counts)
}

/// What the client gets; nothing for one that says nothing.
fn answer(client: &TcpStream, upstream: &str, fault: Fault, every: usize, counts: &Counts) -> std::io::Result<Vec<u8>> {
    let mut head = String::new();
    let mut reader = BufReader::new(client.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(Vec::new());
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let number = counts.requests.fetch_add(1, Ordering::SeqCst) + 1;
    let of_bytes = head.starts_with("GET") && head.to_lowercase().contains("\nrange:");
    let periodic = every > 0 && of_bytes && number.is_multiple_of(every);
    let answer = if periodic || counts.always.load(Ordering::SeqCst) {
        counts.faults.fetch_add(1, Ordering::SeqCst);
        match fault {
            Fault::Timeout => {
                std::thread::sleep(Duration::from_secs(3));
                return Ok(Vec::new());
            }
            Fault::Unavailable => return Ok(plain("503 Slow Down", "<Error><Code>SlowDown</Code></Error>")),
            Fault::Expired => {
                return Ok(refusal("400 Bad Request", "ExpiredToken", "The provided token has expired."));
            }
            Fault::Unauthorized => {
                return Ok(refusal("401 Unauthorized", "AuthenticationRequired", "Authentication required."));
            }
            Fault::NoBucket => {
                return Ok(refusal("404 Not Found", "NoSuchBucket", "The specified bucket does not exist."));
            }
            Fault::Short => {
                let mut answer = forward(&head, upstream)?;
                let body = body_at(&answer);
                answer.truncate(body + (answer.len() - body) / 2);
                answer
            }
            Fault::Clipped => {
                let answer = forward(&head, upstream)?;
                let body = body_at(&answer);
                let half = (answer.len() - body) / 2;
                let lines = String::from_utf8_lossy(&answer[..body]).into_owned();
                let other = |line: &&str| !line.to_lowercase().starts_with("content-length") && !line.is_empty();
                let mut clipped: String = lines.split("\r\n").filter(other).map(|line| format!("{line}\r\n")).collect();
                clipped.push_str(&format!("Content-Length: {half}\r\n\r\n"));
                let mut clipped = clipped.into_bytes();
                clipped.extend_from_slice(&answer[body..body + half]);
                clipped
            }
        }
    } else {
        forward(&head, upstream)?
    };
    Ok(answer)
}

fn body_at(answer: &[u8]) -> usize {
    answer.windows(4).position(|four| four == b"\r\n\r\n").map_or(answer.len(), |at| at + 4)
}

fn forward(head: &str, upstream: &str) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(upstream)?;
    write!(server, "{head}Connection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn refusal(status: &str, code: &str, message: &str) -> Vec<u8> {
    plain(status, &format!("<Error><Code>{code}</Code><Message>{message}</Message></Error>"))
}

fn plain(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}
