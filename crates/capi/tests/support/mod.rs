//! Models, and C programs against the library that the tests were built with.
#![allow(dead_code)]

#[path = "../../../../export/tests/fixtures/mod.rs"]
pub mod fixtures;

use fixtures::{Head, Model, Sizes, Split};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use vjepa_export::{OnnxOptions, to_onnx};

/// A model of seven classes with a record and names; the third name is one that C would cut.
pub fn small_model(folder: &Path) -> PathBuf {
    model(folder, Sizes::SMALL)
}

/// The same with other sizes; its clips have four frames too.
pub fn model(folder: &Path, sizes: Sizes) -> PathBuf {
    let record = r#"{"num_frames":4,"sampling_rate":2,"sampling":"exact","crop_size":32,"patch_size":16,"tubelet_size":2,
        "normalization":"imagenet","grayscale":false}"#;
    let record = record.replace("32", &sizes.side.to_string());
    let labels = r#"["zero", "größer", "cut\u0000off", "three", "four", "five", "six"]"#;
    let metadata = [("vjepa.preprocessing", record.as_str()), ("vjepa.labels", labels)];
    let metadata = BTreeMap::from(metadata.map(|(key, value)| (key.to_owned(), value.to_owned())));
    let model = Model::new(sizes, Head::Attentive, Split::Permuted).unwrap();
    let options = OnnxOptions { metadata, ..OnnxOptions::default() };
    let path = folder.join("model.onnx");
    to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
    path
}

/// Where cargo puts the libraries that this test was built with.
pub fn libraries() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    assert!(folder.join("libvjepa_capi.so").is_file(), "no library in {}", folder.display());
    folder
}

pub fn compiled(scratch: &Path, source: &str, library: &[String]) -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = scratch.join(source.replace(['/', '.'], "_"));
    let output = Command::new("cc")
        .args(["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", "-I"])
        .arg(here.join("include"))
        .arg(here.join(source))
        .arg("-o")
        .arg(&program)
        .args(library)
        .output()
        .unwrap();
    assert!(output.status.success(), "{source}: {}", String::from_utf8_lossy(&output.stderr));
    program
}

pub fn dynamic() -> Vec<String> {
    let folder = libraries().display().to_string();
    vec![format!("-L{folder}"), "-lvjepa_capi".to_owned(), format!("-Wl,-rpath,{folder}"), "-lm".to_owned()]
}

pub fn text(output: &Output) -> String {
    assert!(output.status.success(), "{:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}
