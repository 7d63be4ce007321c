//! Damaged and hostile model files: errors, never panics.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, input};
use prost::Message;
use std::path::Path;
use vjepa_export::proto::{AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto};
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
        let outside = tempfile::tempdir().unwrap();
        let elsewhere = outside.path().join("elsewhere");
        std::fs::write(&elsewhere, &whole).unwrap();
        std::fs::remove_file(&data).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &data).unwrap();
        refused("a link that leads out");
        // A folder that is a link leads out as well as a file.
        std::os::unix::fs::symlink(outside.path(), folder.path().join("door")).unwrap();
        std::fs::create_dir(folder.path().join("real")).unwrap();
        std::fs::write(folder.path().join("real/model.data"), &whole).unwrap();
        std::os::unix::fs::symlink("real", folder.path().join("link")).unwrap();
        let text = b"model.onnx.data";
        for (place, good_place) in [("door/elsewhere0", false), ("link/model.data", true), ("real/model.data", true)] {
            let mut moved = good.clone();
            while let Some(at) = moved.windows(text.len()).position(|window| window == text) {
                moved[at..at + text.len()].copy_from_slice(place.as_bytes());
            }
            std::fs::write(&path, &moved).unwrap();
            std::fs::write(outside.path().join("elsewhere0"), &whole).unwrap();
            assert_eq!(Session::open(&path, &Options::default()).is_ok(), good_place, "{place}");
        }
    }
}

/// Runtimes differ in which of two places they open, so neither may be.
#[test]
fn external_data_has_one_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = Model::new(Sizes::SMALL, Head::None, Split::Permuted).unwrap();
    let options = OnnxOptions { external_data: ExternalData::Always, ..OnnxOptions::default() };
    to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
    let mut twice = ModelProto::decode(std::fs::read(&path).unwrap().as_slice()).unwrap();
    let tensors = twice.graph.as_mut().unwrap().initializer.iter_mut();
    let tensor = tensors.into_iter().find(|tensor| !tensor.external_data.is_empty()).unwrap();
    let mut second = tensor.external_data[0].clone();
    assert_eq!(second.key(), "location");
    second.value = Some("/etc/passwd".to_owned());
    tensor.external_data.push(second);
    std::fs::write(&path, twice.encode_to_vec()).unwrap();
    let error = Session::open(&path, &Options::default()).unwrap_err().to_string();
    assert!(error.contains("names its location twice"), "{error}");
}

/// A tensor of 2^60 elements that has no data.
fn absurd() -> TensorProto {
    TensorProto {
        dims: vec![1 << 30, 1 << 30],
        data_type: Some(1),
        name: Some("absurd".to_owned()),
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], output: &str, attribute: Option<AttributeProto>) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(format!("{op} node")),
        op_type: Some(op.to_owned()),
        attribute: attribute.into_iter().collect(),
        ..Default::default()
    }
}

fn attribute(name: &str, tensor: Option<TensorProto>, graph: Option<GraphProto>) -> AttributeProto {
    AttributeProto { name: Some(name.to_owned()), t: tensor, g: graph, ..Default::default() }
}

/// Wherever a tensor can stand, one that declares more than the file holds is refused before anything is allocated.
#[test]
fn tensors_larger_than_the_file_are_refused_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelProto::decode(bytes().as_slice()).unwrap();
    let constant = || node("Constant", &[], "big", Some(attribute("value", Some(absurd()), None)));
    let inner = || GraphProto { node: vec![constant()], ..Default::default() };
    type Change = fn(&mut GraphProto, TensorProto, NodeProto, GraphProto);
    let changes: [(&str, Change); 5] = [
        ("an initializer", |graph, tensor, _, _| graph.initializer.push(tensor)),
        ("with negative dimensions", |graph, tensor, _, _| {
            graph.initializer.push(TensorProto { dims: vec![-4, -4], ..tensor });
        }),
        ("whose product overflows", |graph, tensor, _, _| {
            graph.initializer.push(TensorProto { dims: vec![1 << 40; 4], ..tensor });
        }),
        ("a constant", |graph, _, constant, _| graph.node.insert(0, constant)),
        ("in a branch", |graph, _, _, inner| {
            graph.node.insert(0, node("If", &["clip"], "x", Some(attribute("then_branch", None, Some(inner)))));
        }),
    ];
    for (what, change) in changes {
        let mut bad = model.clone();
        change(bad.graph.as_mut().unwrap(), absurd(), constant(), inner());
        let error = open(folder.path(), &bad.encode_to_vec()).expect_err(what).to_string();
        assert!(error.contains("absurd"), "{what}: {error}");
    }
    let mut bad = model.clone();
    bad.functions.push(FunctionProto { node: vec![constant()], ..Default::default() });
    let error = open(folder.path(), &bad.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("absurd"), "a function: {error}");
    // One value of a sparse tensor that is 2^60 large when it is made dense.
    let sparse = || vjepa_export::proto::SparseTensorProto { dims: vec![1 << 30, 1 << 30], ..Default::default() };
    let mut bad = model.clone();
    bad.graph.as_mut().unwrap().sparse_initializer.push(sparse());
    let mut branch = model.clone();
    let inner = GraphProto { sparse_initializer: vec![sparse()], ..Default::default() };
    let choice = node("If", &["clip"], "x", Some(attribute("then_branch", None, Some(inner))));
    branch.graph.as_mut().unwrap().node.insert(0, choice);
    for bad in [bad, branch] {
        let error = open(folder.path(), &bad.encode_to_vec()).unwrap_err().to_string();
        assert!(error.contains("a sparse tensor"), "{error}");
    }
}

/// A list of 64-bit integers, in a typed field or as bytes.
fn list(name: &str, values: &[i64], raw: bool) -> TensorProto {
    let mut tensor = TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(7),
        name: Some(name.to_owned()),
        ..Default::default()
    };
    if raw {
        tensor.raw_data = Some(values.iter().flat_map(|value| value.to_le_bytes()).collect());
    } else {
        tensor.int64_data = values.to_vec();
    }
    tensor
}

/// A few bytes that a runtime would blow up while it loads.
#[test]
fn constants_that_grow_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelProto::decode(bytes().as_slice()).unwrap();
    for (op, inputs) in [
        ("ConstantOfShape", vec!["sizes"]),
        ("Expand", vec!["one", "sizes"]),
        ("Tile", vec!["one", "sizes"]),
        ("Pad", vec!["one", "sizes"]),
        ("Range", vec!["zero", "end", "one"]),
    ] {
        for raw in [false, true] {
            let form = |name, values| list(name, values, raw);
            let mut bad = model.clone();
            let graph = bad.graph.as_mut().unwrap();
            graph.initializer.extend([form("sizes", &[1 << 20; 4]), form("one", &[1])]);
            graph.initializer.extend([form("zero", &[0]), form("end", &[1 << 60])]);
            graph.node.insert(0, node(op, &inputs, "grown", None));
            let error = open(folder.path(), &bad.encode_to_vec()).expect_err(op).to_string();
            assert!(error.contains(op) && error.contains("out of constants"), "{op}, {raw}: {error}");
        }
    }
    // Few repeats of many values.
    let mut bad = model.clone();
    let graph = bad.graph.as_mut().unwrap();
    graph.initializer.extend([list("repeats", &[1 << 28], false), list("many", &[7; 1024], true)]);
    graph.node.insert(0, node("Tile", &["many", "repeats"], "grown", None));
    let error = open(folder.path(), &bad.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("out of constants"), "{error}");
}

/// A record of clips that are none for the model would only be found out after they were made.
#[test]
fn records_that_do_not_fit_the_input_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let model = Model::new(Sizes::SMALL, Head::Attentive, Split::Permuted).unwrap();
    for (frames, side, fits) in [(4, 32, true), (4, 4096, false), (8, 32, false)] {
        let record = format!(
            r#"{{"num_frames":{frames},"sampling_rate":1,"sampling":"exact","crop_size":{side},"patch_size":16,
            "tubelet_size":2,"normalization":"imagenet","grayscale":false}}"#
        );
        let options =
            OnnxOptions { metadata: [("vjepa.preprocessing".to_owned(), record)].into(), ..OnnxOptions::default() };
        to_onnx(&model.graph, &model.weights, &options).unwrap().write(&path).unwrap();
        let session = Session::open(&path, &Options::default()).unwrap();
        let record = session.preprocessing();
        assert_eq!(record.is_ok(), fits, "{record:?}");
        assert!(fits || record.unwrap_err().to_string().contains("the model takes"));
    }
}
