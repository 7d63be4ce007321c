//! Models that other tools have touched: what they write into a file changes nothing of what it computes, and a model that
//! tract cannot run is run by ONNX Runtime, or the error says how to get it.
#![cfg(feature = "tract")]

#[path = "../../export/tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{Head, Model, Sizes, Split, input};
use prost::Message;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use vjepa_export::proto::tensor_shape_proto::{Dimension, dimension};
use vjepa_export::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use vjepa_export::{OnnxOptions, to_onnx};
use vjepa_runtime::{ClipBatch, NamedOutput, OnNotice, Options, Runtime, Session, SessionError, Tolerance, compare};

/// The sizes of the files in `touched/`.
const SIZES: Sizes =
    Sizes { frames: 2, side: 4, tubelet: 2, patch: 2, width: 8, depth: 1, heads: 2, mlp: 1, classes: 3 };

fn model() -> ModelProto {
    let model = Model::new(SIZES, Head::Attentive, Split::Permuted).unwrap();
    let bytes = to_onnx(&model.graph, &model.weights, &OnnxOptions::default()).unwrap().to_bytes().unwrap();
    ModelProto::decode(bytes.as_slice()).unwrap()
}

fn write(folder: &Path, model: &ModelProto) -> PathBuf {
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path
}

fn tract() -> Options {
    Options { runtime: Runtime::Tract, ..Options::default() }
}

fn ort_is_there() -> bool {
    #[cfg(feature = "ort")]
    match Runtime::discover(&vjepa_runtime::library::Search::default()) {
        Ok(_) => return true,
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(error) => println!("skipping ONNX Runtime: {error}"),
    }
    false
}

/// Results of the untouched model on tract.
fn expected(batch: usize) -> Vec<NamedOutput> {
    let folder = tempfile::tempdir().unwrap();
    let session = Session::open(&write(folder.path(), &model()), &tract()).unwrap();
    let clips = input(&SIZES.clip(batch));
    session.run(&ClipBatch::new(SIZES.clip(batch), &clips).unwrap()).unwrap()
}

fn same(session: &Session, batch: usize, what: &str) {
    let clips = input(&SIZES.clip(batch));
    let clips = ClipBatch::new(SIZES.clip(batch), &clips).unwrap();
    compare(session, &clips, &expected(batch), Tolerance::default()).unwrap_or_else(|error| panic!("{what}: {error}"));
}

fn symbol(name: &str) -> Dimension {
    Dimension { value: Some(dimension::Value::DimParam(name.to_owned())), ..Default::default() }
}

fn size(size: i64) -> Dimension {
    Dimension { value: Some(dimension::Value::DimValue(size)), ..Default::default() }
}

fn info(name: &str, element: i32, dims: Vec<Dimension>) -> ValueInfoProto {
    let tensor = type_proto::Tensor { elem_type: Some(element), shape: Some(TensorShapeProto { dim: dims }) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.to_owned()), r#type: Some(ty), ..Default::default() }
}

/// The first dimension of an input or output.
fn batch_of(info: &mut ValueInfoProto) -> &mut Dimension {
    let Some(type_proto::Value::TensorType(tensor)) = info.r#type.as_mut().unwrap().value.as_mut() else {
        panic!("not a tensor")
    };
    &mut tensor.shape.as_mut().unwrap().dim[0]
}

/// What the convolution that embeds patches makes, with this batch.
fn patches(graph: &GraphProto, batch: Dimension) -> ValueInfoProto {
    let conv = graph.node.iter().find(|node| node.op_type() == "Conv").unwrap();
    info(&conv.output[0], 1, vec![batch, size(8), size(1), size(2), size(2)])
}

/// Constants as nodes, as several exporters write them.
fn constants_as_nodes(graph: &mut GraphProto) {
    let constants = std::mem::take(&mut graph.initializer).into_iter().map(|tensor| NodeProto {
        output: vec![tensor.name().to_owned()],
        op_type: Some("Constant".to_owned()),
        attribute: vec![AttributeProto {
            name: Some("value".to_owned()),
            r#type: Some(4),
            t: Some(tensor),
            ..Default::default()
        }],
        ..Default::default()
    });
    graph.node = constants.chain(std::mem::take(&mut graph.node)).collect();
}

/// Values in the fields for them instead of bytes.
fn typed_fields(tensor: &mut TensorProto) {
    let Some(raw) = tensor.raw_data.take() else { return };
    match tensor.data_type() {
        1 => tensor.float_data = raw.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect(),
        7 => tensor.int64_data = raw.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect(),
        _ => tensor.raw_data = Some(raw),
    }
}

#[test]
fn what_tools_add_changes_nothing() {
    type Change = fn(&mut GraphProto);
    let changes: [(&str, Change); 9] = [
        ("a batch that has a name", |graph| graph.value_info.push(patches(graph, symbol("batch")))),
        ("a batch of 1", |graph| graph.value_info.push(patches(graph, size(1)))),
        ("a batch of another name", |graph| graph.value_info.push(patches(graph, symbol("unk__7")))),
        ("a batch without a name", |graph| graph.value_info.push(patches(graph, Dimension::default()))),
        ("another rank", |graph| {
            let mut wrong = patches(graph, symbol("batch"));
            let Some(type_proto::Value::TensorType(tensor)) = wrong.r#type.as_mut().unwrap().value.as_mut() else {
                panic!("not a tensor")
            };
            tensor.shape.as_mut().unwrap().dim.pop();
            graph.value_info.push(wrong);
        }),
        ("initializers that are inputs", |graph| {
            let inputs = graph.initializer.iter().map(|tensor| {
                info(tensor.name(), tensor.data_type(), tensor.dims.iter().map(|dim| size(*dim)).collect())
            });
            graph.input = inputs.chain(std::mem::take(&mut graph.input)).collect();
        }),
        ("constants that are nodes", constants_as_nodes),
        ("values in typed fields", |graph| graph.initializer.iter_mut().for_each(typed_fields)),
        ("a renamed batch", |graph| {
            *batch_of(&mut graph.input[0]) = symbol("N");
            *batch_of(&mut graph.output[0]) = Dimension::default();
            graph.value_info.push(patches(graph, symbol("N")));
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let ort = ort_is_there();
    for (what, change) in changes {
        let mut model = model();
        change(model.graph.as_mut().unwrap());
        let path = write(folder.path(), &model);
        let session = Session::open(&path, &tract()).unwrap_or_else(|error| panic!("{what}: {error}"));
        (1..=3).for_each(|batch| same(&session, batch, what));
        // What is wrong about a rank is an error there.
        if ort && what != "another rank" {
            let options = Options { runtime: Runtime::Ort, threads: Some(1), ..Options::default() };
            let session = Session::open(&path, &options).unwrap_or_else(|error| panic!("{what}: {error}"));
            same(&session, 2, what);
        }
    }
}

#[test]
fn a_batch_that_a_tool_fixed_stays_fixed() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = model();
    let graph = model.graph.as_mut().unwrap();
    *batch_of(&mut graph.input[0]) = size(2);
    *batch_of(&mut graph.output[0]) = size(2);
    graph.value_info.push(patches(graph, symbol("batch")));
    let session = Session::open(&write(folder.path(), &model), &tract()).unwrap();
    same(&session, 2, "a fixed batch");
    let clips = input(&SIZES.clip(1));
    let error = session.run(&ClipBatch::new(SIZES.clip(1), &clips).unwrap()).unwrap_err();
    assert!(matches!(error, SessionError::Shape { .. }), "{error}");
}

/// `touched/` has the model of this test and what `make.py` there made of it with onnxslim, onnxsim, ONNX's shape inference
/// and version converter, and ONNX Runtime's optimiser.
#[test]
fn files_of_other_tools_run() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/touched");
    if std::env::var_os("UPDATE_TOUCHED").is_some() {
        write(&folder, &model());
    }
    let mut seen = 0;
    let ort = ort_is_there();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "onnx") {
            continue;
        }
        seen += 1;
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let only_ort = name.contains("only-ort");
        match Session::open(&path, &tract()) {
            Ok(session) if !only_ort => (1..=2).for_each(|batch| same(&session, batch, &name)),
            Ok(_) => panic!("{name} runs on tract"),
            Err(error) if only_ort => assert!(error.to_string().contains("com.microsoft"), "{name}: {error}"),
            Err(error) => panic!("{name}: {error}"),
        }
        if ort {
            let session = Session::open(&path, &Options { threads: Some(1), ..Options::default() }).unwrap();
            assert_eq!(session.runs_on(), if only_ort { Runtime::Ort } else { Runtime::Tract }, "{name}");
            same(&session, 2, &name);
        }
    }
    assert!(seen >= 6, "{seen} files");
}

/// The model with its first addition as a node of another domain, and that domain imported.
fn foreign(domain: &str, op: &str) -> ModelProto {
    let mut model = model();
    let import = OperatorSetIdProto { domain: Some(domain.to_owned()), version: Some(1) };
    model.opset_import.push(import);
    let node = model.graph.as_mut().unwrap().node.iter_mut().find(|node| node.op_type() == "Add").unwrap();
    (node.domain, node.op_type) = (Some(domain.to_owned()), Some(op.to_owned()));
    model
}

#[test]
fn operators_of_other_domains_are_never_taken_for_standard_ones() {
    let folder = tempfile::tempdir().unwrap();
    // tract knows `Add` and `Attention` by these names.
    for (domain, op) in [
        ("com.microsoft.nchwc", "Add"),
        ("com.microsoft", "Attention"),
        ("com.microsoft", "FusedMatMul"),
        ("my.company", "Add"),
    ] {
        let path = write(folder.path(), &foreign(domain, op));
        let error = Session::open(&path, &tract()).unwrap_err().to_string();
        assert!(error.contains(&format!("{op} ({domain})")), "{error}");
        assert!(error.len() < 1000, "{error}");
    }
    // However many there are, and however long their names.
    let mut many = foreign("my.company", "Add");
    for (number, node) in many.graph.as_mut().unwrap().node.iter_mut().enumerate() {
        node.op_type = Some(format!("{number}{}", "x".repeat(2000)));
    }
    let error = Session::open(&write(folder.path(), &many), &tract()).unwrap_err().to_string();
    assert!(error.contains("more") && error.len() < 1000, "{error}");
}

/// The addition as a function of the model's own: tract has no functions, ONNX Runtime has.
fn with_function() -> ModelProto {
    let mut model = foreign("my.company", "Sum2");
    let body = NodeProto {
        input: vec!["a".to_owned(), "b".to_owned()],
        output: vec!["c".to_owned()],
        op_type: Some("Add".to_owned()),
        ..Default::default()
    };
    model.functions.push(FunctionProto {
        name: Some("Sum2".to_owned()),
        domain: Some("my.company".to_owned()),
        input: body.input.clone(),
        output: body.output.clone(),
        opset_import: model.opset_import.clone(),
        node: vec![body],
        ..Default::default()
    });
    model
}

#[test]
fn auto_falls_back_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &with_function());
    let said = Arc::new(Mutex::new(Vec::new()));
    let hear = said.clone();
    let on_notice = OnNotice(Arc::new(move |text: &str| hear.lock().unwrap().push(text.to_owned())));
    let options = Options { on_notice: Some(on_notice), threads: Some(1), ..Options::default() };
    if ort_is_there() {
        let session = Session::open(&path, &options).unwrap();
        assert_eq!(session.runs_on(), Runtime::Ort);
        same(&session, 2, "a function");
        let said = said.lock().unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("Sum2 (my.company)") && said[0].contains("running it on ONNX Runtime"), "{said:?}");
    }
    // Nothing is said of a model that tract runs.
    let before = said.lock().unwrap().len();
    assert_eq!(Session::open(&write(folder.path(), &model()), &options).unwrap().runs_on(), Runtime::Tract);
    assert_eq!(said.lock().unwrap().len(), before);
}

/// What neither runs is one sentence with both reasons and what to do. An ONNX Runtime that is named and not there stands
/// for none at all; a process that has loaded one keeps to it, so the name is looked at in any case.
#[cfg(feature = "ort")]
#[test]
fn without_another_runtime_the_error_has_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = write(folder.path(), &with_function());
    let missing = Some(folder.path().join("libonnxruntime.so"));
    let error = Session::open(&path, &Options { ort_lib: missing, ..Options::default() }).unwrap_err();
    assert!(matches!(error, SessionError::NoRuntime { .. }), "{error}");
    let text = error.to_string();
    for part in ["tract cannot load", "Sum2 (my.company)", "ONNX Runtime", "libonnxruntime.so"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(text.len() < 1000, "{text}");
}
