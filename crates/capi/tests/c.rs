//! A C program against header and library: what it gets is what a Rust session gives, and its mistakes are codes.
#![cfg(all(target_os = "linux", feature = "tract"))]

mod support;

use std::path::Path;
use std::process::Command;
use support::{compiled, dynamic, libraries, small_model as model, text};
use vjepa_runtime::{Options, Runtime, Session};

const HEIGHT: usize = 36;
const WIDTH: usize = 44;

/// The pixels of `check.c`.
fn frames() -> Vec<Vec<u8>> {
    (0..4).map(|t| (0..HEIGHT * WIDTH * 3).map(|i| ((i + t * HEIGHT * WIDTH * 3) * 31 % 251) as u8).collect()).collect()
}

/// The archive, and what `rustc --print native-static-libs` says goes with it.
fn linked_in() -> Vec<String> {
    let archive = libraries().join("libvjepa_capi.a").display().to_string();
    let system = ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];
    std::iter::once(archive).chain(system.map(str::to_owned)).collect()
}

#[test]
fn a_c_program_gets_what_a_session_gives() {
    let scratch = tempfile::tempdir().unwrap();
    let path = model(scratch.path());
    let damaged = scratch.path().join("damaged.onnx");
    std::fs::write(&damaged, &std::fs::read(&path).unwrap()[..5000]).unwrap();

    let session = Session::open(&path, &Options { runtime: Runtime::Tract, ..Options::default() }).unwrap();
    let expected = session.classify(&frames(), HEIGHT, WIDTH).unwrap();
    let expected: String = expected
        .iter()
        .map(|found| {
            let label = found.label.clone().unwrap_or_default().replace('\0', "\u{fffd}");
            format!("{} {:.9} {label}\n", found.class, found.probability)
        })
        .collect();
    for library in [dynamic(), linked_in()] {
        let program = compiled(scratch.path(), "tests/c/check.c", &library);
        let printed = text(&Command::new(program).args([&path, &damaged]).output().unwrap());
        assert_eq!(printed, expected, "{library:?}");
    }
}

#[test]
fn the_examples_classify_raw_frames() {
    let scratch = tempfile::tempdir().unwrap();
    let path = model(scratch.path());
    // Every second frame makes the clip, so there are seven.
    let raw = scratch.path().join("clip.rgb");
    let frames = frames();
    let stream: Vec<u8> = (0..7).flat_map(|t| frames[t / 2].clone()).collect();
    std::fs::write(&raw, stream).unwrap();
    let program = compiled(scratch.path(), "examples/classify.c", &dynamic());
    let sizes = [HEIGHT.to_string(), WIDTH.to_string()];
    let c = text(&Command::new(program).arg(&path).arg(&raw).args(&sizes).output().unwrap());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("VJEPA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let python = Command::new(python)
        .arg(here.join("examples/classify.py"))
        .args(["--library".as_ref(), libraries().join("libvjepa_capi.so").as_os_str()])
        .arg(&path)
        .arg(&raw)
        .args(&sizes)
        .output()
        .unwrap();
    assert_eq!(text(&python), c);
    let session = Session::open(&path, &Options::default()).unwrap();
    let best = &session.classify(&frames, HEIGHT, WIDTH).unwrap()[0];
    let line = format!("{:6.2} %  {}\n", 100.0 * best.probability, best.label.clone().unwrap());
    assert!(c.starts_with(&line), "{c}does not begin with {line}");
}
