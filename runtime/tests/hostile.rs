//! Damaged and hostile model files: errors, never panics.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, input};
use prost::Message;
use std::path::Path;
use vjepa_export::proto::ModelProto;
use vjepa_export::{ExternalData, OnnxOptions, to_onnx};
use vjepa_runtime::{ClipBatch, Options, Session, SessionError};

const SIZES: Sizes =
    Sizes { frames: 2, side: 4, tubelet: 2, patch: 2, width: 4, depth: 1, heads: 2, mlp: 1, classes: 2 };

fn bytes() -> Vec<u8> {
    let model = Model::new(SIZES, Head::Attentive, Split::Permuted).unwrap();
    to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).unwrap().to_bytes().unwrap()
}

/// Opens the bytes and, when they open, runs a clip.
fn open(folder: &Path, bytes: &[u8]) -> Result<(), SessionError> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, bytes).unwrap();
    let session = Session::open(&path, &Options::default())?;
    let data = input(&SIZES.clip(1));
    session.run(&ClipBatch::new(SIZES.clip(1), &data)?)?;
    Ok(())
}

#[test]
fn truncated_files_are_errors() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    open(folder.path(), &bytes).unwrap();
    for length in (0..bytes.len()).step_by(97) {
        assert!(open(folder.path(), &bytes[..length]).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn mutated_files_do_not_panic() {
    let (folder, bytes) = (tempfile::tempdir().unwrap(), bytes());
    let mut random = 1u64;
    let mut next = |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for _ in 0..400 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + next(4) {
            let at = next(damaged.len());
            damaged[at] = match next(3) {
                0 => 0xff,
                1 => damaged[at] ^ (1 << next(8)),
                _ => next(256) as u8,
            };
        }
        // Some still open and run, with other numbers.
        let _ = open(folder.path(), &damaged);
    }
}

/// Attributes that once made a runtime allocate or count without end.
#[test]
fn absurd_attributes_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelProto::decode(bytes().as_slice()).unwrap();
    for (op, attribute, int, ints) in [
        ("LayerNormalization", "axis", Some(-274_877_906_945), vec![]),
        ("Softmax", "axis", Some(i64::MIN), vec![]),
        ("Transpose", "perm", None, vec![0, 2, 2]),
        ("Transpose", "perm", None, vec![0, 2, 1 << 40]),
        ("Conv", "strides", None, vec![2, 2, 1 << 30]),
    ] {
        let mut bad = model.clone();
        let nodes = bad.graph.as_mut().unwrap().node.iter_mut();
        for node in nodes.filter(|node| node.op_type() == op) {
            for found in node.attribute.iter_mut().filter(|found| found.name() == attribute) {
                found.i = int;
                found.ints.clone_from(&ints);
            }
        }
        let error = open(folder.path(), &bad.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains(attribute), "{error}");
    }
    // A tensor that declares more than it has.
    let mut bad = model.clone();
    bad.graph.as_mut().unwrap().initializer[0].dims = vec![1 << 40, 1 << 10];
    assert!(open(folder.path(), &bad.encode_to_vec()).is_err());
}

#[test]
fn no_model_at_all() {
    let folder = tempfile::tempdir().unwrap();
    for bytes in [&b""[..], b"not a model", b"{\"json\": true}", &[0xff; 64]] {
        assert!(open(folder.path(), bytes).is_err());
    }
    assert!(Session::open(folder.path(), &Options::default()).is_err());
    let missing = Session::open(&folder.path().join("none.onnx"), &Options::default()).unwrap_err();
    assert!(missing.to_string().contains("none.onnx"), "{missing}");
}

/// External data elsewhere is refused before any runtime opens it.
#[test]
fn external_data_stays_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let options = OnnxOptions { external_data: ExternalData::Always, ..OnnxOptions::default() };
    let written = to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
    let data = written.data.unwrap();
    Session::open(&path, &Options::default()).unwrap();
    let refused = |what: &str| {
        let error = Session::open(&path, &Options::default()).expect_err(what).to_string();
        assert!(error.contains("refused"), "{what}: {error}");
    };
    let good = std::fs::read(&path).unwrap();
    // Same length, so that the file stays well formed.
    for other in ["../../x.onnx.da", "/etc/passwd.dat", "..//model.data."] {
        let text = b"model.onnx.data";
        assert_eq!(other.len(), text.len());
        let mut bad = good.clone();
        while let Some(at) = bad.windows(text.len()).position(|window| window == text) {
            bad[at..at + text.len()].copy_from_slice(other.as_bytes());
        }
        std::fs::write(&path, &bad).unwrap();
        refused(other);
    }
    std::fs::write(&path, &good).unwrap();
    let whole = std::fs::read(&data).unwrap();
    std::fs::write(&data, &whole[..whole.len() - 8]).unwrap();
    refused("a short file");
    #[cfg(unix)]
    {
        let elsewhere = folder.path().join("elsewhere");
        std::fs::write(&elsewhere, &whole).unwrap();
        std::fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &data).unwrap();
        refused("a link");
    }
}
