//! Batching, deadlines, the bounded queue, instances, panics and the end of a server.

mod support;

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use support::*;
use vjepa_serve::{Batching, Limits, Settings};

/// Holds engines back until it is opened, and counts what they ran.
#[derive(Default)]
struct Gate {
    state: Mutex<(bool, Vec<usize>)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self, batch: usize) {
        let mut state = self.state.lock().unwrap();
        state.1.push(batch);
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.0).unwrap());
    }

    fn open(&self) {
        self.state.lock().unwrap().0 = true;
        self.changed.notify_all();
    }

    /// Waits until `runs` runs began.
    fn began(&self, runs: usize) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |state| state.1.len() < runs).unwrap());
    }

    fn batches(&self) -> Vec<usize> {
        self.state.lock().unwrap().1.clone()
    }
}

fn gated(settings: Settings, engines: usize) -> (vjepa_serve::Server, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let inside = gate.clone();
    let server = serve_scripted(settings, engines, move |batch| {
        inside.pass(batch);
        Ok(())
    });
    (server, gate)
}

/// Sends a request and returns the connection on which its answer will come.
fn begin(server: &vjepa_serve::Server, body: &serde_json::Value) -> std::net::TcpStream {
    let mut stream = connect(server);
    stream.write_all(&request("POST", SUM_INFER, &[], body.to_string().as_bytes())).unwrap();
    stream
}

fn metric(server: &vjepa_serve::Server, name: &str) -> f64 {
    let text = String::from_utf8(get(server, "/metrics").body).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap_or("0");
    line.parse().unwrap()
}

fn wait_for(what: impl Fn() -> bool) {
    let began = Instant::now();
    while !what() {
        assert!(began.elapsed() < Duration::from_secs(10), "it never happened");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn requests_of_many_clients_run_together_and_each_gets_its_own_result() {
    let batching = Batching { max_clips: 4, max_delay: Duration::ZERO };
    let (server, gate) = gated(Settings { batching, ..settings() }, 1);
    let first = begin(&server, &sum_request(0.0));
    gate.began(1);
    let others: Vec<_> = (1..=5).map(|value| begin(&server, &sum_request(value as f32))).collect();
    wait_for(|| metric(&server, "vjepa_queue_depth") == 5.0);
    gate.open();
    for (value, mut stream) in std::iter::once(first).chain(others).enumerate() {
        let reply = read_reply(&mut stream).unwrap().json();
        assert_eq!(reply["outputs"][0]["data"], serde_json::json!([24.0 * value as f64]), "{reply}");
        assert_eq!(reply["outputs"][0]["shape"], serde_json::json!([1, 1]));
    }
    assert_eq!(gate.batches(), [1, 4, 1]);
}

#[test]
fn batched_results_are_the_single_ones() {
    let server = serve(settings());
    let data = |seed: usize| -> Vec<f32> { (0..96).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 7.0 - 1.5).collect() };
    let ask = |seed: usize| {
        let tensor = serde_json::json!({"name": "clip", "datatype": "FP32", "shape": clips(1), "data": data(seed)});
        let reply = post(&server, INFER, &serde_json::json!({"inputs": [tensor]})).json();
        reply["outputs"][0]["data"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect::<Vec<_>>()
    };
    let single: Vec<Vec<f64>> = (0..24).map(ask).collect();
    let together: Vec<Vec<f64>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..24).map(|seed| scope.spawn(move || ask(seed))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (a, b) in single.iter().flatten().zip(together.iter().flatten()) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

#[test]
fn instances_run_at_the_same_time() {
    let batching = Batching { max_clips: 1, max_delay: Duration::ZERO };
    let (server, gate) = gated(Settings { batching, ..settings() }, 2);
    let streams: Vec<_> = (0..2).map(|value| begin(&server, &sum_request(value as f32))).collect();
    gate.began(2);
    gate.open();
    streams.into_iter().for_each(|mut stream| assert_eq!(read_reply(&mut stream).unwrap().status, 200));
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let batching = Batching { max_clips: 1, max_delay: Duration::ZERO };
    let limits = Limits { queue: 2, ..Limits::default() };
    let (server, gate) = gated(Settings { batching, limits, ..settings() }, 1);
    let mut streams = vec![begin(&server, &sum_request(0.0))];
    gate.began(1);
    streams.extend((0..2).map(|_| begin(&server, &sum_request(0.0))));
    wait_for(|| metric(&server, "vjepa_queue_depth") == 2.0);
    let refused = post(&server, SUM_INFER, &sum_request(0.0));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert!(refused.sentence().contains("2 requests are already waiting"), "{}", refused.sentence());
    assert_eq!(metric(&server, "vjepa_requests_rejected_total{reason=\"busy\"}"), 1.0);
    gate.open();
    streams.into_iter().for_each(|mut stream| assert_eq!(read_reply(&mut stream).unwrap().status, 200));
}

#[test]
fn expired_requests_leave_the_queue_and_never_run() {
    let batching = Batching { max_clips: 1, max_delay: Duration::ZERO };
    let (server, gate) = gated(Settings { batching, ..settings() }, 1);
    let mut running = begin(&server, &sum_request(0.0));
    gate.began(1);
    let mut body = sum_request(1.0);
    body["parameters"] = serde_json::json!({"timeout": 50_000});
    let expired = post(&server, SUM_INFER, &body);
    assert_eq!(expired.status, 504);
    assert_eq!(expired.sentence(), "the request was not finished within its 50 ms");
    assert_eq!(metric(&server, "vjepa_queue_depth"), 0.0);
    assert_eq!(metric(&server, "vjepa_requests_expired_total"), 1.0);
    // A client that goes away takes its request with it.
    let gone = begin(&server, &sum_request(2.0));
    wait_for(|| metric(&server, "vjepa_queue_depth") == 1.0);
    drop(gone);
    wait_for(|| metric(&server, "vjepa_queue_depth") == 0.0);
    gate.open();
    assert_eq!(read_reply(&mut running).unwrap().status, 200);
    assert_eq!(gate.batches(), [1]);
}

#[test]
fn a_panic_is_one_failed_request() {
    let runs = AtomicUsize::new(0);
    let server = serve_scripted(settings(), 1, move |_| match runs.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("out of luck"),
        1 => Err("no result today".to_owned()),
        _ => Ok(()),
    });
    let panicked = post(&server, SUM_INFER, &sum_request(1.0));
    assert!(panicked.status == 500 && panicked.sentence().contains("out of luck"), "{panicked:?}");
    let failed = post(&server, SUM_INFER, &sum_request(1.0));
    assert_eq!((failed.status, failed.sentence().as_str()), (500, "no result today"));
    assert_eq!(post(&server, SUM_INFER, &sum_request(1.0)).status, 200);
}

#[test]
fn a_drain_finishes_what_runs_and_lets_nothing_in() {
    let (server, gate) = gated(settings(), 1);
    let mut running = begin(&server, &sum_request(3.0));
    gate.began(1);
    let mut kept = connect(&server);
    let handle = server.handle();
    handle.drain();
    let mut ask = |bytes: Vec<u8>| {
        kept.write_all(&bytes).unwrap();
        read_reply(&mut kept).unwrap().status
    };
    wait_for(|| get(&server, "/v2/health/ready").status == 503);
    assert_eq!(ask(request("GET", "/v2/health/live", &[], b"")), 200);
    let late = post(&server, SUM_INFER, &sum_request(1.0));
    assert!(late.status == 503 && late.sentence().contains("shutting down"), "{late:?}");
    let address = server.http();
    let ended = std::thread::spawn(move || server.wait());
    std::thread::sleep(Duration::from_millis(50));
    assert!(!ended.is_finished());
    gate.open();
    assert_eq!(read_reply(&mut running).unwrap().json()["outputs"][0]["data"], serde_json::json!([72.0]));
    drop(running);
    ended.join().unwrap();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait() {
    let (server, gate) = gated(settings(), 1);
    let running = begin(&server, &sum_request(3.0));
    gate.began(1);
    let handle = server.handle();
    handle.drain();
    handle.stop();
    server.wait();
    drop(running);
    gate.open();
}
