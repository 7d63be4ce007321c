//! Models whose files are links, as installers leave them, load on every runtime; what leads out of the tree does not.
#![cfg(all(feature = "tract", unix))]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, input};
use std::fs::{copy, create_dir_all, hard_link, rename};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use vjepa_export::{ExternalData, OnnxOptions, to_onnx};
use vjepa_runtime::{ClipBatch, Options, Runtime, Session, SessionError};

/// A model of two files, `m.onnx` and `m.onnx.data`, in a folder.
fn model(folder: &Path) -> PathBuf {
    create_dir_all(folder).unwrap();
    let model = Model::new(Sizes::SMALL, Head::Linear, Split::Permuted).unwrap();
    let options = OnnxOptions { external_data: ExternalData::Always, ..OnnxOptions::default() };
    to_onnx(&model.graph, &model.weights, &options).unwrap().write(&folder.join("m.onnx")).unwrap();
    assert!(folder.join("m.onnx.data").is_file());
    folder.join("m.onnx")
}

fn runtimes() -> Vec<Runtime> {
    #[cfg(feature = "ort")]
    match Runtime::discover(&vjepa_runtime::library::Search::default()) {
        Ok(_) => return vec![Runtime::Tract, Runtime::Ort],
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(error) => println!("skipping ONNX Runtime: {error}"),
    }
    vec![Runtime::Tract]
}

fn open(path: &Path, runtime: Runtime) -> Result<Session, SessionError> {
    Session::open(path, &Options { runtime, threads: Some(1), ..Options::default() })
}

/// Opens and runs it everywhere.
fn loads(path: &Path) {
    for runtime in runtimes() {
        let session = open(path, runtime).unwrap_or_else(|error| panic!("{runtime}: {error}"));
        let clips = input(&Sizes::SMALL.clip(1));
        session.run(&ClipBatch::new(Sizes::SMALL.clip(1), &clips).unwrap()).unwrap();
    }
}

fn refused(path: &Path, said: &str) {
    for runtime in runtimes() {
        let error = open(path, runtime).unwrap_err().to_string();
        assert!(error.contains("is refused") && error.contains(said) && error.len() < 1000, "{runtime}: {error}");
    }
}

#[test]
fn copies_by_hard_links() {
    let root = tempfile::tempdir().unwrap();
    let original = model(&root.path().join("a"));
    create_dir_all(root.path().join("b")).unwrap();
    for name in ["m.onnx", "m.onnx.data"] {
        hard_link(root.path().join("a").join(name), root.path().join("b").join(name)).unwrap();
    }
    loads(&original);
    loads(&root.path().join("b/m.onnx"));
}

#[test]
fn the_cache_of_hugging_face() {
    let root = tempfile::tempdir().unwrap();
    let original = model(&root.path().join("a"));
    let (blobs, snapshot) =
        (root.path().join("models--a--b/blobs"), root.path().join("models--a--b/snapshots/f00/onnx"));
    create_dir_all(&blobs).unwrap();
    create_dir_all(&snapshot).unwrap();
    rename(&original, blobs.join("0123")).unwrap();
    rename(root.path().join("a/m.onnx.data"), blobs.join("4567")).unwrap();
    symlink("../../../blobs/0123", snapshot.join("m.onnx")).unwrap();
    symlink("../../../blobs/4567", snapshot.join("m.onnx.data")).unwrap();
    loads(&snapshot.join("m.onnx"));
}

#[test]
fn a_store_of_files_named_by_their_digest() {
    let root = tempfile::tempdir().unwrap();
    let original = model(&root.path().join("a"));
    let digest = "0123456789".repeat(3);
    for (spread, from, to) in [("d4", original, "m.onnx"), ("1d", root.path().join("a/m.onnx.data"), "m.onnx.data")] {
        let store = root.path().join(".dvc/cache/files/md5").join(spread);
        create_dir_all(&store).unwrap();
        create_dir_all(root.path().join("models")).unwrap();
        rename(from, store.join(&digest)).unwrap();
        symlink(format!("../.dvc/cache/files/md5/{spread}/{digest}"), root.path().join("models").join(to)).unwrap();
    }
    loads(&root.path().join("models/m.onnx"));
}

#[test]
fn links_to_a_version() {
    let root = tempfile::tempdir().unwrap();
    model(&root.path().join("v3"));
    // The folder, and the model alone: its weights are beside the target.
    symlink("v3", root.path().join("current")).unwrap();
    loads(&root.path().join("current/m.onnx"));
    symlink("v3/m.onnx", root.path().join("current.onnx")).unwrap();
    loads(&root.path().join("current.onnx"));
    // A volume of Kubernetes.
    symlink("v3", root.path().join("..data")).unwrap();
    for name in ["m.onnx", "m.onnx.data"] {
        symlink(Path::new("..data").join(name), root.path().join(name)).unwrap();
    }
    loads(&root.path().join("m.onnx"));
}

#[test]
fn what_leads_out_is_refused() {
    let (root, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = model(root.path());
    let data = root.path().join("m.onnx.data");
    rename(&data, outside.path().join("secret")).unwrap();
    refused(&path, "cannot be read");
    symlink(outside.path().join("secret"), &data).unwrap();
    refused(&path, "leads out of");
    // The model reached through a link of its own is no way out either.
    let link = root.path().join("link.onnx");
    symlink("m.onnx", &link).unwrap();
    refused(&link, "leads out of");
    std::fs::remove_file(&data).unwrap();
    symlink("nowhere", &data).unwrap();
    refused(&path, "not there");
    std::fs::remove_file(&data).unwrap();
    symlink("/dev/zero", &data).unwrap();
    refused(&path, "leads out of");
    std::fs::remove_file(&data).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&data).unwrap();
    refused(&path, "not a regular file");
    std::fs::remove_file(&data).unwrap();
    copy(outside.path().join("secret"), &data).unwrap();
    loads(&path);
    loads(&link);
}
