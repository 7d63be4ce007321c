//! ONNX Runtimes that cannot be used: each is named with what is wrong and what to do, and none is called "not found".
#![cfg(all(feature = "ort", target_os = "linux"))]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use std::path::{Path, PathBuf};
use std::process::Command;
use vjepa_export::{OnnxOptions, to_onnx};
use vjepa_runtime::library::Search;
use vjepa_runtime::{Options, Runtime, Session};

/// A library that says it is this version of ONNX Runtime.
fn library(folder: &Path, version: &str) -> PathBuf {
    built(
        folder,
        &format!(
            "static const char *version(void) {{ return \"{version}\"; }}\n\
             static const void *api(unsigned number) {{ (void)number; return 0; }}\n\
             static const struct {{ const void *(*get)(unsigned); const char *(*version)(void); }} base = {{api, version}};\n\
             const void *OrtGetApiBase(void) {{ return &base; }}\n"
        ),
        &[],
    )
}

fn built(folder: &Path, code: &str, flags: &[&str]) -> PathBuf {
    let (source, library) = (folder.join("a.c"), folder.join("libonnxruntime.so.1"));
    std::fs::write(&source, code).unwrap();
    let output = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).args(flags).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// What is said when the library is named, and when its folder is searched.
fn told(library: &Path) -> String {
    let explicit = Search { explicit: Some(library.to_owned()), ..Search::default() };
    let named = Runtime::discover(&explicit).unwrap_err();
    assert!(named.is_of_a_named_library(), "{named}");
    let named = named.to_string();
    assert!(named.contains(&*library.to_string_lossy()) && named.contains("--ort-lib"), "{named}");
    assert!(named.len() < 1000 && !named.contains("not found"), "{named}");
    named
}

#[test]
fn too_old_and_unknown_versions() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["1.23.2", "1.16.3", "1.0.0"] {
        let said = told(&library(folder.path(), version));
        let minor = version.rsplit_once('.').unwrap().0;
        assert!(said.contains(&format!("is ONNX Runtime {minor}, but 1.24 or newer is needed")), "{said}");
        assert!(said.contains("pip install -U onnxruntime"), "{said}");
    }
    for version in ["2.0.0", "", "one"] {
        assert!(told(&library(folder.path(), version)).contains("does not say which version"));
    }
}

#[test]
fn other_files_machines_and_systems() {
    let folder = tempfile::tempdir().unwrap();
    let empty = built(folder.path(), "int nothing(void) { return 0; }\n", &[]);
    assert!(told(&empty).contains("is not a library of ONNX Runtime"), "{}", told(&empty));

    let mut bytes = std::fs::read(&empty).unwrap();
    let (machine, name) = if cfg!(target_arch = "aarch64") { (62u16, "x86_64") } else { (183, "aarch64") };
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    std::fs::write(&empty, &bytes).unwrap();
    assert!(told(&empty).contains(&format!("is built for {name}, but this program for")), "{}", told(&empty));

    for (bytes, said) in [
        (&b"version https://git-lfs.github.com/spec/v1\n"[..], "is not a library of ONNX Runtime"),
        (b"MZ\x90\0\x03\0\0\0\x04\0\0\0\xff\xff\0\0\xb8\0\0\0", "is built for Windows"),
        (b"\xcf\xfa\xed\xfe\x07\0\0\x01\x03\0\0\0\x06\0\0\0\x11\0\0\0", "is built for macOS"),
    ] {
        std::fs::write(&empty, bytes).unwrap();
        assert!(told(&empty).contains(said), "{}", told(&empty));
    }
    let missing = folder.path().join("libonnxruntime.so.9");
    assert!(told(&missing).contains("does not exist"), "{}", told(&missing));
}

#[test]
fn what_the_loader_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let needed = folder.path().join("libneeded.so");
    std::fs::rename(built(folder.path(), "int needed(void) { return 1; }\n", &[]), &needed).unwrap();
    let place = format!("-L{}", folder.path().display());
    let code = "int needed(void);\nint OrtGetApiBase(void) { return needed(); }\n";
    let library = built(folder.path(), code, &[&place, "-lneeded"]);
    std::fs::remove_file(&needed).unwrap();
    let said = told(&library);
    assert!(said.contains("cannot be loaded") && said.contains("libneeded.so"), "{said}");
    // Cut off behind its first bytes.
    let bytes = std::fs::read(&library).unwrap();
    std::fs::write(&library, &bytes[..64]).unwrap();
    assert!(told(&library).contains("cannot be loaded"), "{}", told(&library));
}

/// The child of the test below: what a search says, with the environment that it was given.
#[test]
#[ignore = "run by the test of searches"]
fn search() {
    let folders = std::env::var_os("SEARCHED").into_iter().map(PathBuf::from).collect();
    match Runtime::discover(&Search { folders, ..Search::default() }) {
        Ok(library) => println!("found {library}"),
        Err(error) => println!("named {}: {error}", error.is_of_a_named_library()),
    }
}

/// What a search says that comes to `folder`, or to the Python environment `python`.
fn searched(folder: Option<&Path>, python: Option<&Path>) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "search", "--ignored", "--nocapture"]);
    for variable in ["ORT_DYLIB_PATH", "VJEPA_ORT_DIR", "VIRTUAL_ENV", "CONDA_PREFIX", "SEARCHED"] {
        command.env_remove(variable);
    }
    folder.map(|folder| command.env("SEARCHED", folder));
    python.map(|python| command.env("VIRTUAL_ENV", python));
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

#[test]
fn a_search_says_why_what_it_found_is_of_no_use() {
    // With one that can be used in the build tree or the system, that one is found.
    if searched(None, None).contains("found ") {
        println!("skipping: an ONNX Runtime is installed where every search finds it");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(searched(None, None).contains("named false: ONNX Runtime was not found"), "{}", searched(None, None));
    library(folder.path(), "1.20.1");
    let said = searched(Some(folder.path()), None);
    assert!(said.contains("named false") && said.contains("is ONNX Runtime 1.20, but 1.24 or newer"), "{said}");

    // A wheel of 1.20, whose library is too old, and one of 1.16, which has none.
    let python = tempfile::tempdir().unwrap();
    let capi = python.path().join("lib/python3.11/site-packages/onnxruntime/capi");
    std::fs::create_dir_all(&capi).unwrap();
    let about = "package_name = 'onnxruntime'\n__version__ = '1.16.3'\n";
    std::fs::write(capi.join("build_and_package_info.py"), about).unwrap();
    let said = searched(None, Some(python.path()));
    assert!(said.contains("(the Python environment) is ONNX Runtime 1.16.3, but 1.24 or newer"), "{said}");
    library(&capi, "1.20.1");
    let said = searched(None, Some(python.path()));
    assert!(said.contains("(the Python environment) is ONNX Runtime 1.20, but"), "{said}");
    // The first that was found is told.
    let said = searched(Some(folder.path()), Some(python.path()));
    assert!(said.contains("(a folder given) is ONNX Runtime 1.20"), "{said}");
}

/// The child of the test below.
#[test]
#[ignore = "run by the test of interfaces"]
fn open() {
    let folder = PathBuf::from(std::env::var_os("OPENED").unwrap());
    let ort_lib = Some(folder.join("libonnxruntime.so.1"));
    let options = Options { runtime: Runtime::Ort, ort_lib, ..Options::default() };
    for _ in 0..2 {
        println!("said {}", Session::open(&folder.join("model.onnx"), &options).unwrap_err());
    }
}

/// The version is new enough, and what it stands for is not there.
#[test]
fn a_library_without_its_interface_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    library(folder.path(), "1.32.0");
    let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let model = to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).unwrap();
    model.write(&folder.path().join("model.onnx")).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "open", "--ignored", "--nocapture"]).env("OPENED", folder.path());
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(said.matches("said cannot use").count(), 2, "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("libonnxruntime.so.1") && said.contains("pip install -U onnxruntime"), "{said}");
}
