//! RoIAlign as ONNX, and what is written for its two conventions.

use std::path::Path;
use std::process::Command;

use prost::Message;
use vjepa_compiler::ir::{Dim, Graph, TensorType};
use vjepa_compiler::ops::{Op, RoiSampling};
use vjepa_export::proto::{ModelProto, NodeProto};
use vjepa_export::{OnnxOptions, Weights, to_onnx};

fn model(size: usize, sampling: RoiSampling) -> Vec<u8> {
    let mut graph = Graph::new("boxes", &["B", "R"]);
    let dims = |leading: &str, rest: &[usize]| {
        [Dim::symbol(leading)].into_iter().chain(rest.iter().map(|size| Dim::from(*size))).collect::<Vec<_>>()
    };
    let x = graph.input("x", TensorType::f32(dims("B", &[5, 14, 14]))).unwrap();
    let boxes = graph.input("boxes", TensorType::f32(dims("R", &[5]))).unwrap();
    let y = graph.push1(Op::RoiAlign { size, sampling }, &[x, boxes]).unwrap();
    graph.output("y", y);
    to_onnx(&graph, &Weights::new(), &OnnxOptions::default()).unwrap().to_bytes().unwrap()
}

fn text(node: &NodeProto, name: &str) -> String {
    let found = node.attribute.iter().find(|attribute| attribute.name() == name).unwrap();
    String::from_utf8(found.s().to_vec()).unwrap()
}

#[test]
fn conventions_are_written_out() {
    for (aligned, mode) in [(true, "half_pixel"), (false, "output_half_pixel")] {
        let bytes = model(7, RoiSampling { scale: 0.0625, samples: 0, aligned });
        let graph = ModelProto::decode(bytes.as_slice()).unwrap().graph.unwrap();
        let node = graph.node.iter().find(|node| node.op_type() == "RoiAlign").unwrap();
        assert_eq!(text(node, "coordinate_transformation_mode"), mode);
        assert_eq!(text(node, "mode"), "avg");
        let number = |name: &str| node.attribute.iter().find(|attribute| attribute.name() == name).unwrap();
        assert_eq!(number("output_height").i(), 7);
        assert_eq!(number("sampling_ratio").i(), 0);
        assert_eq!(number("spatial_scale").f(), 0.0625);
    }
}

/// ONNX Runtime through Python, where `VJEPA_PYTHON` names one that has it: every setting of the recorded data.
#[test]
fn onnx_runtime_gives_the_recorded_bins() {
    let Ok(python) = std::env::var("VJEPA_PYTHON") else { return };
    let folder = tempfile::tempdir().unwrap();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/eval_detection");
    for (key, size, samples, aligned) in
        [("roi0", 7, 0, true), ("roi1", 7, 0, false), ("roi2", 7, 2, true), ("roi3", 3, 1, true), ("roi4", 7, 0, true)]
    {
        let bytes = model(size, RoiSampling { scale: 0.0625, samples, aligned });
        std::fs::write(folder.path().join(format!("{key}.onnx")), bytes).unwrap();
    }
    let script = "import sys, numpy, onnx, onnxruntime, safetensors.numpy as s\n\
        golden = s.load_file(sys.argv[2] + '/detection.safetensors')\n\
        for i in range(5):\n\
        \x20   path = f'{sys.argv[1]}/roi{i}.onnx'\n\
        \x20   onnx.checker.check_model(path, full_check=True)\n\
        \x20   run = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider']).run\n\
        \x20   y = run(None, {'x': golden['roi.x'], 'boxes': golden['roi.boxes']})[0]\n\
        \x20   off = numpy.abs(y - golden[f'roi{i}.y']).max()\n\
        \x20   print(f'roi{i}', off)\n\
        \x20   assert off <= 1e-5, off\n";
    let run = Command::new(python).arg("-c").arg(script).arg(folder.path()).arg(golden).output().unwrap();
    assert!(run.status.success(), "{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
}
