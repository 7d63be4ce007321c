//! A checkpoint compiled ahead of time: `*.vjg` behind the session, and files that are not what they were.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use support::{compile, refused, texture, vjepa};
use vjepa_compiler::serialize::{Artifact, decode, encode};
use vjepa_runtime::{ClipBatch, Options, Runtime, Session};

/// `model.vjg` of the golden encoder in `folder`.
fn compiled(folder: &Path) -> PathBuf {
    let out = folder.join("model.vjg");
    compile(folder, "plan", &out).args(["--head", "features"]).assert().success();
    out
}

fn plan() -> Options {
    Options { runtime: Runtime::Plan, ..Options::default() }
}

#[test]
fn a_session_of_the_plan_gives_what_the_exported_model_gives() {
    fn shared<T: Send + Sync>(_: &T) {}
    let folder = tempfile::tempdir().unwrap();
    let model = compiled(folder.path());
    let session = Session::open(&model, &Options::default()).unwrap();
    shared(&session);
    assert_eq!(session.input().to_string(), "clip f32[batch, 3, 8, 64, 64]");
    assert_eq!(session.outputs()[0].to_string(), "features f32[batch, 96]");
    assert_eq!(session.preprocessing().unwrap().num_frames, 8);
    assert!(session.runtime().starts_with("the compiled plan on cpu"), "{}", session.runtime());

    let onnx = folder.path().join("model.onnx");
    compile(folder.path(), "onnx", &onnx).args(["--head", "features"]).assert().success();
    let other = Session::open(&onnx, &Options::default()).unwrap();
    let values: Vec<f32> = (0..2 * 3 * 8 * 64 * 64).map(|i| ((i * 37 % 101) as f32 - 50.0) / 25.0).collect();
    let clips = ClipBatch::new([2, 3, 8, 64, 64], &values).unwrap();
    let (ours, theirs) = (session.run(&clips).unwrap(), other.run(&clips).unwrap());
    assert_eq!(ours[0].shape, [2, 96]);
    let worst = ours[0].data.iter().zip(&theirs[0].data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst < 1e-4, "{worst}");
    let error = session.run(&ClipBatch::new([1, 3, 8, 32, 128], &values[..3 * 8 * 64 * 64]).unwrap()).unwrap_err();
    assert!(error.to_string().contains("[batch, 3, 8, 64, 64]"), "{error}");

    let ran = vjepa().arg("run").arg(&model).arg(texture("t0_d0_s0.mp4")).arg("--json").assert().success();
    assert!(String::from_utf8_lossy(&ran.get_output().stdout).contains("\"name\":\"features\""));
}

#[test]
fn files_for_other_runtimes_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let model = compiled(folder.path());
    let open = |runtime| Session::open(&model, &Options { runtime, ..Options::default() }).unwrap_err().to_string();
    assert!(open(Runtime::Tract).contains("--export onnx"), "{}", open(Runtime::Tract));
    assert!(open(Runtime::Ort).contains("--runtime plan"));
    let error = Session::open(Path::new("model.onnx"), &plan()).unwrap_err().to_string();
    assert!(error.contains("--export plan"), "{error}");
    let mut command = compile(folder.path(), "plan", &folder.path().join("half.vjg"));
    command.args(["--precision", "f16"]);
    assert!(refused(&mut command).contains("a compiled plan is f32"));
}

#[test]
fn a_file_that_was_changed_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let model = compiled(folder.path());
    let weights = folder.path().join("model.safetensors");
    let error = || Session::open(&model, &plan()).unwrap_err().to_string();
    let (good, good_weights) = (fs::read(&model).unwrap(), fs::read(&weights).unwrap());

    let mut changed = good_weights.clone();
    *changed.last_mut().unwrap() ^= 1;
    fs::write(&weights, &changed).unwrap();
    assert!(error().contains("does not hold the weights it was written with"), "{}", error());
    fs::remove_file(&weights).unwrap();
    assert!(error().contains("cannot be read"), "{}", error());
    #[cfg(unix)]
    {
        let outside = tempfile::tempdir().unwrap();
        let elsewhere = outside.path().join("elsewhere");
        fs::write(&elsewhere, &good_weights).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &weights).unwrap();
        assert!(error().contains("is a link that leads out"), "{}", error());
        fs::remove_file(&weights).unwrap();
        let inside = folder.path().join("inside");
        fs::write(&inside, &good_weights).unwrap();
        std::os::unix::fs::symlink("inside", &weights).unwrap();
        Session::open(&model, &plan()).unwrap();
        fs::remove_file(&weights).unwrap();
        fs::hard_link(&inside, &weights).unwrap();
        Session::open(&model, &plan()).unwrap();
        fs::remove_file(&weights).unwrap();
    }
    fs::write(&weights, &good_weights).unwrap();

    let with = |key: &str, value: Option<&str>| {
        let Artifact { graph, plan, mut record } = decode(&good).unwrap();
        match value {
            Some(value) => record.insert(key.to_owned(), value.to_owned()),
            None => record.remove(key),
        };
        fs::write(&model, encode(&Artifact { graph, plan, record })).unwrap();
        error()
    };
    for (key, value, said) in [
        ("weights", Some("../model.safetensors"), "not a name in its folder"),
        ("weights", Some("/etc/passwd"), "not a name in its folder"),
        ("weights", None, "says no `weights`"),
        ("program", Some("vjepa 99"), "compiled by vjepa 99"),
        ("device", Some("abacus"), "there is no device `abacus`"),
        ("vjepa.labels", Some("{}"), "vjepa.labels"),
    ] {
        let told = with(key, value);
        assert!(told.contains(said), "{key}: {told}");
    }
    for end in (0..good.len()).step_by(97) {
        fs::write(&model, &good[..end]).unwrap();
        assert!(error().contains("--export plan"), "{}", error());
    }
    fs::write(&model, &good).unwrap();
    assert!(Session::open(&model, &plan()).is_ok());
}
