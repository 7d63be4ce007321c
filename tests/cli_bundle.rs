//! Bundles: written whole, proven, run; changed, cut off, linked or added to, they are refused.

mod support;

use std::path::{Path, PathBuf};

use support::{TINY, compile, refused, texture, tiny, vjepa, write};

fn bundle(folder: &Path) -> PathBuf {
    let out = folder.join("bundle");
    compile(folder, "bundle", &out).args(["--licence", "test"]).assert().success();
    out
}

fn verify(folder: &Path) -> assert_cmd::Command {
    let mut command = vjepa();
    command.args(["verify", "bundle"]).arg(folder).args(["--runtime", "tract"]);
    command
}

#[test]
fn a_bundle_is_complete_proven_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let mut names: Vec<String> =
        std::fs::read_dir(&bundle).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["SHA256SUMS", "bundle.json", "model.onnx", "parity.safetensors", "preprocessing.json"]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&std::fs::read(bundle.join("bundle.json")).unwrap()).unwrap();
    assert_eq!((&manifest["licence"], &manifest["model"]), (&"test".into(), &"model.onnx".into()));
    assert_eq!(manifest["provenance"]["vjepa.checkpoint_sha256"].as_str().unwrap().len(), 64);
    let output = verify(&bundle).arg("--json").assert().success().get_output().stdout.clone();
    let line: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert!(line["pass"] == true && line["max_abs"].as_f64().unwrap() < 1e-4, "{line}");
    vjepa().arg("run").arg(&bundle).arg(texture("t0_d0_s0.mp4")).assert().success();
    // Nothing is left beside it, and it is not written over.
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let mut again = vjepa();
    again.args(["compile", "--export", "bundle", "--checkpoint"]).arg(tiny("weights.safetensors"));
    again.arg("--config").arg(folder.path().join("tiny.yaml")).arg("--out").arg(&bundle);
    assert!(refused(&mut again).contains("already exists"));
}

#[test]
fn an_8_bit_bundle_names_its_judge_and_warns_where_sums_would_saturate() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bundle");
    let mut command = compile(folder.path(), "bundle", &out);
    command.args(["--precision", "int8", "--int8-range", "full", "--min-agreement", "0"]).assert().success();
    let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(out.join("bundle.json")).unwrap()).unwrap();
    let provenance = &manifest["provenance"];
    assert_eq!(provenance["vjepa.int8_range"], "full");
    let processor = vjepa_runtime::cpu::Processor::here();
    assert_eq!(provenance["judged.processor"], processor.to_string());
    assert!(!provenance["judged.runtime"].as_str().unwrap().is_empty(), "{provenance}");
    // tract adds exactly everywhere.
    verify(&out).assert().success().stderr("");
    let mut command = vjepa();
    let output = command.args(["verify", "bundle", "--runtime", "ort"]).arg(&out).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    let required = std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1");
    assert!(output.status.success() || !required, "{told}");
    if output.status.success() {
        assert_eq!(told.matches("warning: ").count(), usize::from(processor.saturates()), "{told}");
    }
}

#[test]
fn the_report_of_a_refused_bundle_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("bundle");
    let mut command = compile(folder.path(), "bundle", &out);
    let told = refused(command.args(["--precision", "bf16", "--min-agreement", "1"]));
    let report = folder.path().join("bundle.accuracy.json");
    assert!(told.contains(&*report.to_string_lossy()) && report.exists() && !out.exists(), "{told}");
}

#[test]
fn what_was_tampered_with_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let original = bundle(folder.path());
    let copy = |name: &str| {
        let copy = folder.path().join(name);
        std::fs::create_dir(&copy).unwrap();
        for entry in std::fs::read_dir(&original).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
        }
        copy
    };
    let edit = |copy: &Path, from: &str, to: &str| {
        let path = copy.join("bundle.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        std::fs::write(path, text.replace(from, to)).unwrap();
    };

    let changed = copy("changed");
    let mut bytes = std::fs::read(changed.join("model.onnx")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(changed.join("model.onnx"), &bytes).unwrap();
    assert!(refused(&mut verify(&changed)).contains("`model.onnx` was changed"));
    assert!(refused(vjepa().arg("run").arg(&changed).arg(texture("t0_d0_s0.mp4"))).contains("was changed"));

    let cut = copy("cut");
    std::fs::write(cut.join("parity.safetensors"), b"short").unwrap();
    assert!(refused(&mut verify(&cut)).contains("has 5 bytes instead of"));

    let added = copy("added");
    std::fs::write(added.join("more"), b"").unwrap();
    assert!(refused(&mut verify(&added)).contains("`more` does not belong"));

    let missing = copy("missing");
    std::fs::remove_file(missing.join("preprocessing.json")).unwrap();
    assert!(refused(&mut verify(&missing)).contains("`preprocessing.json` cannot be read"));

    let outside = copy("outside");
    edit(&outside, "\"preprocessing.json\"", "\"../tiny.yaml\"");
    assert!(refused(&mut verify(&outside)).contains("not the name of a file in the folder"));

    for manifest in ["{}", "[", "", "{\"format\": 9}"] {
        let damaged = copy(&format!("damaged{}", manifest.len()));
        std::fs::write(damaged.join("bundle.json"), manifest).unwrap();
        assert!(refused(&mut verify(&damaged)).contains("malformed"));
    }
    assert!(refused(&mut verify(folder.path())).contains("not a bundle"));
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_are_refused_and_others_followed() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = bundle(folder.path());
    let (model, elsewhere) = (bundle.join("model.onnx"), folder.path().join("elsewhere.onnx"));
    // `cp -al`, DVC, conda.
    std::fs::hard_link(&model, &elsewhere).unwrap();
    verify(&bundle).assert().success();
    std::fs::remove_file(&model).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &model).unwrap();
    assert!(refused(&mut verify(&bundle)).contains("is a link that leads out"));
    std::fs::remove_file(&model).unwrap();
    std::fs::rename(&elsewhere, &model).unwrap();

    // The Hugging Face cache: every file of a snapshot is a link to a blob.
    let (blobs, snapshot) = (folder.path().join("hub/blobs"), folder.path().join("hub/snapshots/f00"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    for (number, entry) in std::fs::read_dir(&bundle).unwrap().enumerate() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), blobs.join(number.to_string())).unwrap();
        let target = format!("../../blobs/{number}");
        std::os::unix::fs::symlink(target, snapshot.join(entry.file_name())).unwrap();
    }
    verify(&snapshot).assert().success();
}

#[test]
fn a_triton_repository_has_a_configuration_beside_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let repository = folder.path().join("models");
    let compile = |flags: &[&str]| {
        let mut command = vjepa();
        command.args(["compile", "--export", "triton", "--no-verify", "--checkpoint"]).arg(tiny("weights.safetensors"));
        command.arg("--config").arg(&config).arg("--out").arg(&repository).args(flags);
        command
    };
    compile(&["--name", "cpu", "--head", "features"]).assert().success();
    let text = std::fs::read_to_string(repository.join("cpu/config.pbtxt")).unwrap();
    assert!(text.contains("max_batch_size: 8") && text.contains("dims: [ 3, 8, 64, 64 ]") && text.contains("KIND_CPU"));
    assert!(repository.join("cpu/1/model.onnx").is_file());
    compile(&["--name", "gpu", "--target", "tensorrt", "--batch", "2"]).assert().success();
    let text = std::fs::read_to_string(repository.join("gpu/config.pbtxt")).unwrap();
    assert!(text.contains("max_batch_size: 0") && text.contains("dims: [ 2, 3, 8, 64, 64 ]"), "{text}");
    assert!(text.contains("name: \"tensorrt\"") && !text.contains("dynamic_batching"));
    assert!(refused(&mut compile(&["--name", "cpu"])).contains("already exists"));
    assert!(refused(&mut compile(&["--name", "../up"])).contains("letters"));
    assert_eq!(std::fs::read_dir(&repository).unwrap().count(), 2);
}
