//! `vjepa serve`: a model and real videos over the wire; what must not be opened up; how it ends.

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{compile, probe, refused, texture, vjepa, write};

fn model(folder: &Path) -> PathBuf {
    let out = folder.join("model.onnx");
    compile(folder, "onnx", &out).arg("--probe").arg(probe(folder)).assert().success();
    out
}

/// A running server; killed when it is dropped.
struct Served {
    process: Child,
    about: serde_json::Value,
}

impl Served {
    fn start(model: &Path, extra: &[&str]) -> Self {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin("vjepa"));
        command.arg("serve").arg(model).args(["--port", "0", "--grpc-port", "0", "--json"]).args(extra);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let about = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no line of JSON: {line}"));
        Self { process, about }
    }

    /// Status and document of an answer.
    fn ask(&self, method: &str, path: &str, body: &[u8]) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(self.about["http"].as_str().unwrap()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        )
        .unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap_or_default())
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn videos_are_classified_as_run_does_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let video = texture("t0_d0_s0.mp4");
    let run = vjepa().arg("run").args([&model, &video]).arg("--json").assert().success().get_output().stdout.clone();
    let run: serde_json::Value = serde_json::from_slice(&run).unwrap();
    let served = Served::start(&model, &["--instances", "2"]);
    assert_eq!((&served.about["model"], &served.about["event"]), (&"model".into(), &"listening".into()));
    let (status, answer) = served.ask("POST", "/v1/classify?top_k=3", &std::fs::read(&video).unwrap());
    assert_eq!(status, 200, "{answer}");
    for (here, there) in answer["top"].as_array().unwrap().iter().zip(run["top"].as_array().unwrap()) {
        assert_eq!(here["label"], there["label"]);
        let [a, b] = [here, there].map(|entry| entry["probability"].as_f64().unwrap());
        assert!((a - b).abs() < 1e-5, "{answer} {run}");
    }
    let (status, answer) = served.ask("POST", "/v1/classify", b"this is no video");
    let sentence = answer["error"].as_str().unwrap();
    assert!(status == 400 && sentence.starts_with("the video") && !sentence.contains("/tmp"), "{sentence}");
    let (status, answer) = served.ask("GET", "/v2/models/model", b"");
    assert_eq!((status, &answer["inputs"][0]["shape"]), (200, &serde_json::json!([-1, 3, 8, 64, 64])));
}

#[test]
fn a_name_of_this_machine_can_be_listened_on_and_a_proxys_path_served() {
    let folder = tempfile::tempdir().unwrap();
    let served = Served::start(&model(folder.path()), &["--host", "localhost", "--path-prefix", "/models/a/"]);
    assert!(served.about["http"].as_str().unwrap().starts_with("127.0.0.1:"), "{}", served.about);
    assert_eq!(served.ask("GET", "/models/a/v2/models/model", b"").0, 200);
    assert_eq!(served.ask("GET", "/v2/models/model", b"").0, 404);
}

#[cfg(unix)]
#[test]
fn a_temporary_folder_that_is_not_there_is_noticed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = vjepa();
    command.arg("serve").arg(model(folder.path())).args(["--port", "0", "--no-grpc"]);
    let sentence = refused(command.env("TMPDIR", folder.path().join("none")).timeout(Duration::from_secs(60)));
    assert!(
        sentence.contains("cannot write videos to the temporary folder") && sentence.contains("TMPDIR"),
        "{sentence}"
    );
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_in_good_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut served = Served::start(&model(folder.path()), &["--no-grpc"]);
    assert_eq!(served.about["grpc"], serde_json::Value::Null);
    assert_eq!(served.ask("GET", "/v2/health/ready", b"").0, 200);
    assert!(Command::new("kill").arg(served.process.id().to_string()).status().unwrap().success());
    assert!(served.process.wait().unwrap().success());
}

#[test]
fn it_is_not_opened_up_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let model = model(folder.path());
    let serve = |arguments: &[&str]| {
        let mut command = vjepa();
        command.arg("serve").arg(&model).args(["--port", "0", "--grpc-port", "0"]).args(arguments);
        command.timeout(Duration::from_secs(60));
        command
    };
    let token = write(folder.path(), "token", "0123456789abcdef\n");
    let short = write(folder.path(), "short", "1234");
    let (token, short) = (token.to_str().unwrap(), short.to_str().unwrap());
    for (arguments, words) in [
        (vec!["--host", "0.0.0.0"], "so a token is needed: give --token-file"),
        (
            vec!["--host", "0.0.0.0", "--token-file", token],
            "without TLS the token and the clips are sent in clear text",
        ),
        (vec!["--token-file", short], "is too short"),
        (vec!["--token-file", "nowhere"], "cannot read the token nowhere"),
        (vec!["--tls-cert", token, "--tls-key", token], "it holds no certificate"),
        (vec!["--name", "a/b"], "a model name may contain only letters"),
        (vec!["--instances", "0"], "--instances must be at least 1"),
        (vec!["--max-batch", "0"], "must be at least 1"),
        (vec!["--runtime", "tensorrt", "--batches", "1:2:4"], "give --max-batch 4, or 8 as MAX"),
        (vec!["--runtime", "tensorrt", "--batches", "2:8:8"], "give 1 as MIN"),
        (vec!["--max-delay=-1"], "--max-delay must be 0 or more"),
        (vec!["--keep-alive=-1"], "--keep-alive must be 0 or more, got -1"),
        (vec!["--max-body", "much"], "--max-body must be a size such as 64MiB, got much"),
        (vec!["--max-bodies", "1MiB"], "give --max-bodies as much or more"),
        (vec!["--max-body", "1KiB", "--max-bodies", "2KiB"], "for the smallest request"),
        (vec!["--allow-origin", "lab.example"], "give scheme, host and port"),
        (vec!["--allow-origin", "*"], "so a token is needed"),
        (vec!["--path-prefix", "models"], "give a path of letters"),
        (vec!["--host", "not a name"], "--host not a name is neither an address nor a host name of this machine"),
    ] {
        let sentence = refused(&mut serve(&arguments));
        assert!(sentence.contains(words), "{words}: {sentence}");
    }
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1308415264\n";
    let page = "<!DOCTYPE html><html>sign in</html>";
    for (name, contents, words) in [("lfs.onnx", pointer, "git lfs pull"), ("page.onnx", page, "an HTML page")] {
        let model = write(folder.path(), name, contents);
        let sentence = refused(vjepa().arg("serve").arg(&model).args(["--port", "0"]).timeout(Duration::from_secs(60)));
        assert!(sentence.contains(words) && sentence.contains(name), "{sentence}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = vjepa();
    let sentence = refused(command.arg("serve").arg(&model).args(["--port", &port]).timeout(Duration::from_secs(60)));
    assert!(sentence.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{sentence}");
}
