//! Bundles and calibration files from strangers: mutated, cut off, lying about sizes, leading elsewhere. Whatever is in
//! them, reading ends with an error that says something, and what is accepted is what was written.

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vjepa_runtime::Preprocessing;

use super::{bundle, calibrate, sha256};
use vjepa_data::clips;
use vjepa_recipe::config::Normalization;
use vjepa_runtime::ClipViews;
use vjepa_weights::{Tensors, save_safetensors};

/// A folder with the files of a bundle; the model file is not a model, which checking does not look at.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.onnx"), b"not looked at here").unwrap();
    let vectors = Tensors::from([
        ("clip".to_owned(), (vec![1, 3, 2, 4, 4], vec![0.5; 96])),
        ("expected.logits".to_owned(), (vec![1, 2], vec![1.0, 2.0])),
    ]);
    save_safetensors(&folder.path().join("parity.safetensors"), &vectors, &Default::default()).unwrap();
    write(folder.path(), &manifest(folder.path()).to_string());
    folder
}

/// Writes a manifest, and the sums that belong to it.
fn write(folder: &Path, manifest: &str) {
    fs::write(folder.join("bundle.json"), manifest).unwrap();
    let read = serde_json::from_str(manifest).ok();
    let sums = read.map(|manifest| bundle::sums(&manifest, folder).unwrap()).unwrap_or_default();
    fs::write(folder.join("SHA256SUMS"), sums).unwrap();
}

fn manifest(folder: &Path) -> serde_json::Value {
    let record = |name: &str| {
        let path = folder.join(name);
        serde_json::json!({"bytes": fs::metadata(&path).unwrap().len(), "sha256": sha256(&path).unwrap()})
    };
    serde_json::json!({
        "format": 1, "model": "model.onnx", "parity": "parity.safetensors", "tolerance": [1e-4, 1e-3],
        "licence": "MIT", "provenance": {},
        "files": {"model.onnx": record("model.onnx"), "parity.safetensors": record("parity.safetensors")},
    })
}

fn refused(folder: &Path) -> String {
    bundle::check(folder).expect_err("refused").to_string()
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let folder = folder();
    assert!(bundle::check(folder.path()).is_ok());
    let good = manifest(folder.path());
    for name in
        ["../model.onnx", "/etc/passwd", "a/model.onnx", "", ".", "..", "./model.onnx", "model.onnx/", "a\\..\\b"]
    {
        let mut changed = good.clone();
        changed["files"][name] = good["files"]["model.onnx"].clone();
        write(folder.path(), &changed.to_string());
        let told = refused(folder.path());
        assert!(told.contains("not the name of a file") || told.contains("cannot be read"), "{name}: {told}");
        changed = good.clone();
        changed["model"] = name.into();
        write(folder.path(), &changed.to_string());
        assert!(refused(folder.path()).contains("not among its files"), "{name}");
    }
}

#[test]
fn sizes_that_lie_are_refused_before_anything_is_read() {
    let folder = folder();
    let good = manifest(folder.path());
    for (key, value) in [
        ("bytes", serde_json::json!(u64::MAX)),
        ("bytes", serde_json::json!(1u64 << 60)),
        ("bytes", serde_json::json!(-1)),
        ("bytes", serde_json::json!(1e300)),
        ("sha256", serde_json::json!("")),
        ("sha256", serde_json::json!("0".repeat(64))),
    ] {
        let mut changed = good.clone();
        changed["files"]["model.onnx"][key] = value.clone();
        write(folder.path(), &changed.to_string());
        let told = refused(folder.path());
        assert!(told.contains("model.onnx") || told.contains("malformed"), "{key} {value}: {told}");
    }
    for tolerance in [serde_json::json!([1e-4]), serde_json::json!([-1.0, 1.0]), serde_json::json!([null, 1.0])] {
        let mut changed = good.clone();
        changed["tolerance"] = tolerance;
        write(folder.path(), &changed.to_string());
        refused(folder.path());
    }
    // A manifest without an end in sight is not read at all.
    fs::write(folder.path().join("bundle.json"), vec![b' '; (1 << 20) + 1]).unwrap();
    assert!(refused(folder.path()).contains("too large for a manifest"));
    let deep = "[".repeat(1 << 19);
    write(folder.path(), &deep);
    assert!(refused(folder.path()).contains("malformed"));
}

#[test]
fn a_manifest_that_its_sum_does_not_cover_is_refused() {
    let folder = folder();
    let sums = fs::read_to_string(folder.path().join("SHA256SUMS")).unwrap();
    // Every key of the manifest, here the limit within which results count as right.
    let mut changed = manifest(folder.path());
    changed["tolerance"] = serde_json::json!([1e9, 1e9]);
    fs::write(folder.path().join("bundle.json"), changed.to_string()).unwrap();
    assert!(refused(folder.path()).contains("was changed"));
    write(folder.path(), &manifest(folder.path()).to_string());
    assert!(bundle::check(folder.path()).is_ok());
    for other in ["".to_owned(), sums.replace("model.onnx", "other.onnx"), sums.clone() + &sums, sums[..9].to_owned()] {
        fs::write(folder.path().join("SHA256SUMS"), other).unwrap();
        assert!(refused(folder.path()).contains("was changed"));
    }
    fs::remove_file(folder.path().join("SHA256SUMS")).unwrap();
    assert!(refused(folder.path()).contains("`SHA256SUMS` cannot be read"));
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused() {
    let folder = folder();
    let model = folder.path().join("model.onnx");
    fs::remove_file(&model).unwrap();
    fs::create_dir(&model).unwrap();
    assert!(refused(folder.path()).contains("not a regular file"));
    fs::remove_dir(&model).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &model).unwrap();
    assert!(refused(folder.path()).contains("is a link that leads out"));
    let clips = folder.path().join("clips.safetensors");
    std::os::unix::fs::symlink("/dev/zero", &clips).unwrap();
    let error = clips::read(&clips, &record()).err().unwrap().to_string();
    assert!(error.contains("not a regular file"), "{error}");
}

fn record() -> Preprocessing {
    let json = r#"{"num_frames":2,"sampling_rate":1,"sampling":"exact","crop_size":4,"patch_size":4,"tubelet_size":2,
                   "normalization":"imagenet","grayscale":false,"framing":"centre"}"#;
    Preprocessing::from_json(json).unwrap()
}

/// A safetensors file with this header and these bytes after it.
fn stored(folder: &Path, header: &str, length: u64, data: &[u8]) -> PathBuf {
    let path = folder.join("clips.safetensors");
    let bytes = [length.to_le_bytes().as_slice(), header.as_bytes(), data].concat();
    fs::write(&path, bytes).unwrap();
    path
}

fn clip_header(shape: &str, end: &str) -> String {
    format!(r#"{{"clip_u8":{{"dtype":"U8","shape":{shape},"data_offsets":[0,{end}]}}}}"#)
}

#[test]
fn calibration_files_that_lie_about_sizes_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let read = |header: &str, length: Option<u64>, data: &[u8]| {
        let path = stored(folder.path(), header, length.unwrap_or(header.len() as u64), data);
        calibrate::clips(&[path], 1, ClipViews::SINGLE, &record(), Normalization::Imagenet).map(|found| found.count)
    };
    let one = [7u8; 96];
    assert_eq!(read(&clip_header("[1,3,2,4,4]", "96"), None, &one).unwrap(), 1);
    let good = clip_header("[1,3,2,4,4]", "96");
    for (header, length) in [
        (clip_header("[1152921504606846976,3,2,4,4]", "96"), None),
        (clip_header("[18446744073709551615,3,2,4,4]", "96"), None),
        (clip_header("[0,3,2,4,4]", "0"), None),
        (clip_header("[1,3,2,4,4]", "1152921504606846976"), None),
        (clip_header("[]", "96"), None),
        (clip_header("[96]", "96"), None),
        (clip_header("[1,3,2,4]", "24"), None),
        (clip_header("[-1,3,2,4,4]", "96"), None),
        (good.replace("U8", "F32"), None),
        (good.replace("clip_u8", "clips"), None),
        (good.clone(), Some(1 << 60)),
        (good.clone(), Some(u64::MAX)),
        (good.clone(), Some(0)),
        ("{}".to_owned(), None),
        (String::new(), None),
    ] {
        assert!(read(&header, length, &one).is_err(), "{header} {length:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Changed manifests are refused, or say what the true one says.
    #[test]
    fn mutated_manifests_end_in_a_sentence(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<usize>()) {
        let folder = folder();
        let good = manifest(folder.path()).to_string().into_bytes();
        let mut bytes = good.clone();
        for (place, byte) in &changes {
            let place = place % bytes.len();
            bytes[place] = *byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(cut / 3 % bytes.len());
        }
        fs::write(folder.path().join("bundle.json"), &bytes).unwrap();
        match bundle::check(folder.path()) {
            Ok(found) => prop_assert!(found.model == "model.onnx" || found.model == "parity.safetensors"),
            Err(error) => prop_assert!(error.to_string().len() > 20, "{error}"),
        }
    }

    /// Mutated clips are an error, or as many values as their shape says.
    #[test]
    fn mutated_calibration_files_end_in_a_sentence(changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..5), cut in any::<usize>()) {
        let folder = tempfile::tempdir().unwrap();
        let header = clip_header("[2,3,2,4,4]", "192");
        let path = stored(folder.path(), &header, header.len() as u64, &[9; 192]);
        let mut bytes = fs::read(&path).unwrap();
        for (place, byte) in &changes {
            let place = place % (header.len() + 8);
            bytes[place] = *byte;
        }
        if cut % 3 == 0 {
            bytes.truncate(cut / 3 % bytes.len());
        }
        fs::write(&path, &bytes).unwrap();
        match calibrate::clips(&[path], 1, ClipViews::SINGLE, &record(), Normalization::Imagenet) {
            Ok(found) => prop_assert_eq!(found.data.len(), found.count * 96),
            Err(error) => prop_assert!(error.to_string().len() > 10, "{}", error),
        }
    }
}
