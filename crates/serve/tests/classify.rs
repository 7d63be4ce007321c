//! The endpoint for video files, with a reader that knows one kind of video.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use support::*;
use vjepa_runtime::top;
use vjepa_serve::{Limits, Model, Server, Settings, VideoReader};

/// Takes files that begin with `clip`, and fails in the ways that a decoder can.
fn reader() -> Arc<VideoReader> {
    Arc::new(|path: &Path| {
        let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
        match bytes.get(..4) {
            Some(b"clip") => Ok(input(&clips(1))),
            Some(b"slow") => {
                std::thread::sleep(Duration::from_millis(300));
                Ok(input(&clips(1)))
            }
            Some(b"bomb") => panic!("a decoder's bug"),
            Some(b"size") => Ok(vec![0.0; 7]),
            _ => Err(format!("{}: this is no video", path.display())),
        }
    })
}

fn server(settings: Settings) -> Server {
    Server::start(tiny(), settings, Some(reader())).unwrap()
}

#[test]
fn a_video_gives_labels() {
    let server = server(settings());
    let data = input(&clips(1));
    let labels = ["ant", "bee", "cat"].map(str::to_owned);
    let wanted = top(&logits(1, &data).data, &labels, 2);
    let form = "--x\r\nContent-Disposition: form-data; name=\"note\"\r\n\r\nhello\r\n--x\r\nContent-Disposition: form-data; \
                name=\"video\"; filename=\"a.mp4\"\r\n\r\nclip and more\r\n--x--\r\n";
    let multipart = [("Content-Type", "multipart/form-data; boundary=x")];
    for reply in [
        send(&server, "POST", "/v1/classify?top_k=2", &[], b"clip and more"),
        send(&server, "POST", "/v1/classify?top_k=2", &multipart, form.as_bytes()),
    ] {
        let reply = reply.json();
        let got = reply["top"].as_array().unwrap();
        assert_eq!(got.len(), 2);
        for (got, wanted) in got.iter().zip(&wanted) {
            assert_eq!(got["label"].as_str(), wanted.label.as_deref());
            assert!((got["probability"].as_f64().unwrap() - wanted.probability).abs() < 1e-5);
        }
        assert!(reply["timing_ms"]["total"].as_f64().unwrap() >= reply["timing_ms"]["compute"].as_f64().unwrap());
    }
}

#[test]
fn what_is_no_video_is_told_so() {
    let server = server(settings());
    let ask = |body: &[u8]| send(&server, "POST", "/v1/classify", &[], body);
    let refused = ask(b"hello");
    // Where the file lay is nobody's business.
    assert_eq!((refused.status, refused.sentence().as_str()), (400, "the video: this is no video"));
    assert_eq!((ask(b"bomb").status, ask(b"size").status), (500, 500));
    let form = send(
        &server,
        "POST",
        "/v1/classify",
        &[("Content-Type", "multipart/form-data; boundary=x")],
        b"--x\r\nnonsense",
    );
    assert!(form.status == 400 && form.sentence().contains("the form cannot be read"), "{form:?}");
    let unbounded = send(&server, "POST", "/v1/classify", &[("Content-Type", "multipart/form-data")], b"clip");
    assert_eq!(unbounded.status, 400);
    let late = send(&server, "POST", "/v1/classify?timeout_ms=50", &[], b"slow");
    assert_eq!((late.status, late.sentence().as_str()), (504, "the request was not finished within its 50 ms"));
    assert_eq!(ask(b"clip").status, 200);
}

#[test]
fn videos_wait_in_a_bounded_line() {
    let limits = Limits { queue: 1, decoders: 1, ..Limits::default() };
    let server = server(Settings { limits, ..settings() });
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = || send(&server, "POST", "/v1/classify", &[], b"slow").status;
        let threads: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.iter().all(|status| [200, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&200) && statuses.contains(&503), "{statuses:?}");
}

#[test]
fn decoded_clips_count_among_the_bodies() {
    let info = info("wide", [3, 8, 32, 32], "logits", 3);
    let ask = |bodies: usize| {
        let limits = Limits { bodies, ..Limits::default() };
        let model = Model::with_engines(info.clone(), vec![Box::new(Tiny)]).unwrap();
        let reader: Arc<VideoReader> = Arc::new(|_: &Path| Ok(input(&[1, 3, 8, 32, 32])));
        let server = Server::start(model, Settings { limits, ..settings() }, Some(reader)).unwrap();
        send(&server, "POST", "/v1/classify", &[], b"clip")
    };
    assert_eq!(ask(1 << 17).status, 200);
    let refused = ask(1 << 16);
    assert!(refused.status == 503 && refused.sentence().contains("fill the memory"), "{refused:?}");
}

#[test]
fn a_model_without_classes_gives_features() {
    let server = serve_scripted(settings(), 1, |_| Ok(()));
    let reply = send(&server, "POST", "/v1/classify", &[], b"clip");
    assert!(reply.status == 400 && reply.sentence().contains("does not accept videos"), "{reply:?}");
}

#[test]
fn the_page_is_there_with_its_policy() {
    let server = server(settings());
    let page = get(&server, "/");
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; script-src 'sha256-"));
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}
