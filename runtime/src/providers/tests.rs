//! The part of the GPU providers that needs no GPU.

use super::*;
use crate::onnx::Dimension;

fn model(batch: Dimension) -> OnnxFile {
    let shape = [batch].into_iter().chain([3, 16, 224, 224].map(Dimension::Size)).collect();
    OnnxFile {
        path: "model.onnx".into(),
        bytes: b"model".as_slice().into(),
        inputs: vec![TensorInfo { name: "clip".to_owned(), shape, is_f32: true }],
        outputs: Vec::new(),
        metadata: Default::default(),
        external: Vec::new(),
    }
}

fn library() -> Library {
    Library { path: "libonnxruntime.so".into(), minor: 31, found_by: "a test" }
}

fn machine() -> gpu::Machine {
    let [name, capability, driver, tensorrt] = ["H100", "90", "12080", "10.13.2"].map(str::to_owned);
    gpu::Machine { name, capability, driver, tensorrt }
}

#[test]
fn profiles_are_shapes_of_the_input() {
    let dynamic = model(Dimension::Symbol("batch".to_owned()));
    assert_eq!(dynamic.inputs[0].with_batch(8).as_deref(), Some("clip:8x3x16x224x224"));
    assert_eq!(batches(&dynamic, None).unwrap(), Some(Batches { min: 1, opt: 1, max: 1 }));
    let asked = Batches { min: 1, opt: 4, max: 8 };
    assert_eq!(batches(&dynamic, Some(asked)).unwrap(), Some(asked));
    assert!(batches(&dynamic, Some(Batches { opt: 9, ..asked })).is_err());
    assert!(batches(&dynamic, Some(Batches { min: 0, ..asked })).is_err());
    let fixed = model(Dimension::Size(2));
    assert_eq!(batches(&fixed, None).unwrap(), None);
    assert!(batches(&fixed, Some(asked)).unwrap_err().to_string().contains("--batch dynamic"));
}

#[test]
fn an_engines_folder_is_named_by_everything_it_depends_on() {
    let base = key(&model(Dimension::Size(1)), &library(), &machine(), None).unwrap();
    assert!(base.ends_with("-ort1.31-trt10.13.2-sm90-driver12080"), "{base}");
    let other_model = OnnxFile { bytes: b"another".as_slice().into(), ..model(Dimension::Size(1)) };
    let others = [
        key(&other_model, &library(), &machine(), None),
        key(&model(Dimension::Size(1)), &Library { minor: 32, ..library() }, &machine(), None),
        key(&model(Dimension::Size(1)), &library(), &gpu::Machine { capability: "89".to_owned(), ..machine() }, None),
        key(&model(Dimension::Size(1)), &library(), &gpu::Machine { driver: "13000".to_owned(), ..machine() }, None),
        key(&model(Dimension::Size(1)), &library(), &gpu::Machine { tensorrt: "10.9.0".to_owned(), ..machine() }, None),
        key(&model(Dimension::Size(1)), &library(), &machine(), Some(Batches { min: 1, opt: 4, max: 8 })),
    ];
    for other in others {
        assert_ne!(other.unwrap(), base);
    }
}

#[test]
fn weights_beside_the_model_count_too() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("model.onnx.data");
    let file = OnnxFile {
        path: folder.path().join("model.onnx"),
        external: vec!["model.onnx.data".to_owned()],
        ..model(Dimension::Size(1))
    };
    let named = |bytes: &[u8]| {
        std::fs::write(&data, bytes).unwrap();
        key(&file, &library(), &machine(), None).unwrap()
    };
    assert_ne!(named(b"one"), named(b"two"));
}

#[test]
fn a_long_build_is_told() {
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = said.clone();
    let on_notice = OnNotice(std::sync::Arc::new(move |text: &str| sink.lock().unwrap().push(text.to_owned())));
    let engine = TensorRtEngine { folder: "engines/x".into(), built: false, provider: cuda(0) };
    assert_eq!(watched(Some(&on_notice), &engine, || 7), 7);
    let said = said.lock().unwrap().join("\n");
    assert!(said.contains("building a TensorRT engine") && said.contains("engines/x"), "{said}");
}
