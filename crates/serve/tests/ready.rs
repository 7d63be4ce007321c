//! Ready means able: what requests will need is tried at the start and by readiness; clients learn no paths.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use support::*;
use vjepa_serve::{Limits, Model, ServeError, Server, Settings, VideoReader};

fn reader() -> Arc<VideoReader> {
    Arc::new(|_: &Path| Ok(input(&clips(1))))
}

#[test]
fn a_temporary_folder_that_is_missing_is_noticed_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let settings = || Settings { temporary: Some(missing.clone()), ..settings() };
    let error = Server::start(tiny(), settings(), Some(reader())).err().unwrap();
    assert!(matches!(&error, ServeError::Temporary { folder, .. } if *folder == missing), "{error}");
    assert!(error.to_string().contains("set TMPDIR"), "{error}");
    // Without videos nothing is stored.
    Server::start(tiny(), settings(), None).unwrap();
}

#[test]
fn readiness_follows_the_temporary_folder() {
    let outer = tempfile::tempdir().unwrap();
    let folder = outer.path().join("videos");
    std::fs::create_dir(&folder).unwrap();
    let settings = Settings { temporary: Some(folder.clone()), ..settings() };
    let server = Server::start(tiny(), settings, Some(reader())).unwrap();
    assert_eq!(get(&server, "/v2/health/ready").status, 200);
    std::fs::remove_dir(&folder).unwrap();
    wait_for(|| get(&server, "/v2/health/ready").status == 503);
    let secret = outer.path().display().to_string();
    for path in ["/v2/health/ready", "/v2/models/tiny/ready"] {
        let reply = get(&server, path);
        assert_eq!((reply.status, &reply.json()["ready"]), (503, &serde_json::json!(false)));
        assert!(reply.sentence().contains("cannot be stored") && !reply.sentence().contains(&secret), "{reply:?}");
    }
    assert_eq!(get(&server, "/v2/health/live").status, 200, "another start would not help");
    let reply = send(&server, "POST", "/v1/classify", &[], b"clip");
    assert!(reply.status == 500 && reply.sentence().contains("could not store the video"), "{reply:?}");
    assert!(!reply.sentence().contains(&secret), "{reply:?}");
    let index = send(&server, "POST", "/v2/repository/index", &[], b"").json();
    assert_eq!(index[0]["state"], "UNAVAILABLE");
    assert_eq!(send(&server, "POST", "/v2/repository/index", &[], b"{\"ready\": true}").json(), serde_json::json!([]));
    std::fs::create_dir(&folder).unwrap();
    wait_for(|| get(&server, "/v2/health/ready").status == 200);
    assert_eq!(send(&server, "POST", "/v1/classify", &[], b"clip").status, 200);
}

#[test]
fn readiness_runs_a_clip_after_a_failed_one() {
    let broken = Arc::new(AtomicUsize::new(0));
    let seen = broken.clone();
    let server = serve_scripted(settings(), 1, move |_| match seen.load(Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err("cannot allocate /dev/nvidia0: out of memory".to_owned()),
    });
    assert_eq!(get(&server, "/v2/health/ready").status, 200);
    broken.store(1, Ordering::SeqCst);
    let failed = post(&server, SUM_INFER, &sum_request(1.0));
    assert_eq!((failed.status, failed.sentence().as_str()), (500, "cannot allocate a file: out of memory"));
    wait_for(|| get(&server, "/v2/health/ready").status == 503);
    let reply = get(&server, "/v2/health/ready");
    assert!(reply.sentence().contains("so did another one: cannot allocate a file: out of memory"), "{reply:?}");
    broken.store(0, Ordering::SeqCst);
    // No request has to come by for it to be found well again.
    wait_for(|| get(&server, "/v2/health/ready").status == 200);
}

#[test]
fn one_request_that_fails_does_not_make_the_server_unready() {
    let runs = AtomicUsize::new(0);
    let server = serve_scripted(settings(), 1, move |_| match runs.fetch_add(1, Ordering::SeqCst) {
        0 => Err("this one".to_owned()),
        _ => Ok(()),
    });
    assert_eq!(post(&server, SUM_INFER, &sum_request(1.0)).status, 500);
    assert_eq!(get(&server, "/v2/health/ready").status, 200);
}

#[cfg(target_os = "linux")]
#[test]
fn readiness_looks_at_the_memory_that_a_request_needs() {
    // Clips of 3 TiB: no machine has that.
    let info = info("sums", [3, 1 << 18, 1 << 10, 1 << 10], "sum", 1);
    let engine = Scripted(Arc::new(|_| Ok(())));
    let server = Server::start(Model::with_engines(info, vec![Box::new(engine)]).unwrap(), settings(), None).unwrap();
    let reply = get(&server, "/v2/health/ready");
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.sentence().starts_with("a request needs 6291456.0 MiB, and "), "{reply:?}");
    assert_eq!(get(&server, "/v2/health/live").status, 200, "another start would not help");
}

#[test]
fn a_reader_that_names_files_is_not_quoted() {
    let reader: Arc<VideoReader> = Arc::new(|path: &Path| {
        Err(format!("{}: cannot open the codec at /usr/lib/secret/codec.so or `/etc/other.conf`", path.display()))
    });
    let server = Server::start(tiny(), settings(), Some(reader)).unwrap();
    let reply = send(&server, "POST", "/v1/classify", &[], b"clip");
    assert_eq!(reply.sentence(), "the video: cannot open the codec at a file or `a file`");
}

#[test]
fn limits_with_which_nothing_could_be_served_are_refused() {
    let fits = |body: usize, bodies: usize| tiny().fits(&Limits { body, bodies, ..Limits::default() });
    fits(1 << 20, 1 << 20).unwrap();
    fits(384, 384).unwrap();
    let refused = fits(1 << 20, 1 << 19).unwrap_err().to_string();
    assert!(refused.contains("--max-body is 1048576 bytes") && refused.contains("give --max-bodies"), "{refused}");
    let refused = fits(100, 383).unwrap_err().to_string();
    assert!(refused.contains("384 bytes for the smallest request") && refused.contains("1MiB"), "{refused}");
}

#[test]
fn the_largest_batch_is_tried_before_the_first_request() {
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let batches = seen.clone();
    let script = Arc::new(move |batch| {
        batches.lock().unwrap().push(batch);
        if batch > 4 { Err("no memory for so many".to_owned()) } else { Ok(()) }
    });
    let info = vjepa_serve::ModelInfo { batch_sizes: vjepa_serve::BatchSizes::Any, ..info("sums", SUM_CLIP, "sum", 1) };
    let mut model = Model::with_engines(info, vec![Box::new(Scripted(script))]).unwrap();
    model.warm_up(4).unwrap();
    assert_eq!(model.warm_up(8).unwrap_err(), "no memory for so many");
    assert_eq!(*seen.lock().unwrap(), [1, 4, 1, 8]);
}
