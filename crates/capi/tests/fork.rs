//! Sessions in child processes: what a parent opened runs there or fails at once, and nothing waits for threads that are
//! not there.
#![cfg(all(target_os = "linux", feature = "tract"))]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;
use support::fixtures::Sizes;
use support::{compiled, dynamic, libraries, model, text};

/// Wide enough that tract's products and ONNX Runtime's use their threads.
const WIDE: Sizes =
    Sizes { frames: 4, side: 64, tubelet: 2, patch: 16, width: 192, depth: 2, heads: 3, mlp: 4, classes: 7 };

/// The lines of `c/fork.c`, which fails when a child had to be killed or has another result.
fn lines(
    program: &Path,
    model: &Path,
    runtime: &str,
    threads: &str,
    library: Option<&Path>,
    when: &str,
) -> Vec<String> {
    let library = library.unwrap_or(Path::new("-"));
    let output = Command::new(program).arg(model).args([runtime, threads]).arg(library).arg(when).output().unwrap();
    text(&output).lines().map(str::to_owned).collect()
}

#[cfg(feature = "ort")]
fn onnx_runtime() -> Option<PathBuf> {
    match vjepa_runtime::Runtime::discover(&vjepa_runtime::library::Search::default()) {
        Ok(library) => return Some(library.path),
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(error) => println!("skipping ONNX Runtime: {error}"),
    }
    None
}

#[cfg(not(feature = "ort"))]
fn onnx_runtime() -> Option<PathBuf> {
    None
}

#[test]
fn what_tract_runs_runs_in_children_too() {
    let scratch = tempfile::tempdir().unwrap();
    let model = model(scratch.path(), WIDE);
    let program = compiled(scratch.path(), "tests/c/fork.c", &dynamic());
    for (threads, when) in [("1", "opened"), ("2", "opened"), ("1", "run"), ("4", "run"), ("0", "run")] {
        let lines = lines(&program, &model, "tract", threads, None, when);
        let (parent, children) = lines.split_last().unwrap();
        assert_eq!((parent.as_str(), children.len()), ("parent: 0", 7), "{lines:?}");
        for line in children {
            assert!(line.ends_with("child: inherited 0, own 0"), "{threads} threads, {when}: {line}");
        }
    }
}

/// Which it is depends on where the other thread was. Sessions of the child's own always work: the parent has run once.
#[test]
fn forks_while_another_thread_runs_do_not_hang() {
    let scratch = tempfile::tempdir().unwrap();
    let model = model(scratch.path(), WIDE);
    let program = compiled(scratch.path(), "tests/c/fork.c", &dynamic());
    let ort = onnx_runtime();
    let cases = [("tract", "1", None), ("tract", "2", None)].into_iter();
    let cases = cases.chain(ort.iter().flat_map(|ort| [("ort", "1", Some(&**ort)), ("ort", "2", Some(&**ort))]));
    for (runtime, threads, library) in cases {
        let lines = lines(&program, &model, runtime, threads, library, "running");
        let (parent, children) = lines.split_last().unwrap();
        assert_eq!((parent.as_str(), children.len()), ("parent: 0", 7), "{lines:?}");
        for line in children {
            // ONNX Runtime on several threads needs the parent's, wherever the other thread was.
            let needs_threads = (runtime, threads) == ("ort", "2") && line.contains("opened by process");
            let refused = line.contains("inherited 3") && (line.contains("forked while") || needs_threads);
            let known = line.contains("inherited 0") || refused;
            assert!(known && line.contains(", own 0"), "{runtime}, {threads} threads: {line}");
        }
    }
}

#[test]
fn onnx_runtimes_threads_are_an_error_at_once() {
    let Some(library) = onnx_runtime() else { return };
    let scratch = tempfile::tempdir().unwrap();
    let model = model(scratch.path(), WIDE);
    let program = compiled(scratch.path(), "tests/c/fork.c", &dynamic());
    for (threads, when) in [("1", "opened"), ("1", "run"), ("2", "opened"), ("2", "run"), ("0", "run")] {
        let lines = lines(&program, &model, "ort", threads, Some(&library), when);
        let (parent, children) = lines.split_last().unwrap();
        assert_eq!((parent.as_str(), children.len()), ("parent: 0", 7), "{lines:?}");
        for line in children {
            let wanted =
                if threads == "1" { "inherited 0, own 0" } else { "inherited 3, own 0; this session was opened by" };
            assert!(line.contains(wanted), "{threads} threads, {when}: {line}");
        }
    }
}

/// gunicorn's `--preload`, `multiprocessing`.
#[test]
fn python_workers_share_a_preloaded_session() {
    let scratch = tempfile::tempdir().unwrap();
    let model = model(scratch.path(), WIDE);
    let python = std::env::var("VJEPA_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let run = |runtime: &str, threads: &str, library: Option<&Path>| {
        let mut command = Command::new(&python);
        command.arg(here.join("tests/python/preload.py")).arg(libraries().join("libvjepa_capi.so"));
        command.arg(&model).args([runtime, threads]);
        if let Some(library) = library {
            command.env("ORT_DYLIB_PATH", library);
        }
        text(&command.output().unwrap())
    };
    for threads in ["0", "1", "2"] {
        assert_eq!(run("tract", threads, None), "same\n".repeat(6), "{threads} threads");
    }
    if let Some(library) = onnx_runtime() {
        assert_eq!(run("ort", "1", Some(&library)), "same\n".repeat(6));
        for line in run("ort", "2", Some(&library)).lines() {
            assert!(line.contains("open the session after fork()") && line.ends_with("its own: same"), "{line}");
        }
    }
}
