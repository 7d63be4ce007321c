//! RoIAlign of the interpreter against torchvision: outputs and gradients of features, in the settings of `eval_detection`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use vjepa_compiler::grad::differentiate;
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{Graph, Sizes, TensorType};
use vjepa_compiler::ops::{Op, RoiSampling};

fn folders() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let carried = root.join("tests/golden/eval_detection");
    assert!(carried.is_dir(), "{} is part of the repository", carried.display());
    let beside = root.join("../shared/golden/eval_detection");
    [carried, beside].into_iter().filter(|folder| folder.is_dir()).collect()
}

fn tensor(file: &SafeTensors<'_>, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let values = match view.dtype() {
        Dtype::F32 => view.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => view.data().as_chunks().0.iter().map(|bytes| half::f16::from_le_bytes(*bytes).to_f32()).collect(),
        other => panic!("{name} is {other:?}"),
    };
    Tensor::f32(view.shape().to_vec(), values)
}

/// The value of `"key": value` behind `from` in a line of JSON; this crate reads none otherwise.
fn field<'a>(line: &'a str, key: &str) -> &'a str {
    let rest = line.split_once(&format!("\"{key}\": ")).unwrap().1;
    rest.split([',', '}']).next().unwrap().trim().trim_matches('"')
}

#[test]
fn outputs_and_gradients_are_torchvisions() {
    let mut settings = 0;
    for folder in folders() {
        let bytes = std::fs::read(folder.join("detection.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let info = std::fs::read_to_string(folder.join("info.json")).unwrap();
        let (x, boxes) = (tensor(&file, "roi.x"), tensor(&file, "roi.boxes"));
        for line in info.lines().filter(|line| line.contains("\"spatial_scale\"") && line.contains("\"key\": \"roi")) {
            let key = field(line, "key");
            let sampling = RoiSampling {
                scale: field(line, "spatial_scale").parse().unwrap(),
                // -1 is as good as 0 for torchvision.
                samples: field(line, "sampling_ratio").parse::<i64>().unwrap().max(0) as usize,
                aligned: field(line, "aligned").parse().unwrap(),
            };
            let size = field(line, "output").parse().unwrap();
            let (y, gx) = run(&x, &boxes, &tensor(&file, &format!("{key}.g")), size, sampling);
            close(key, &y, &tensor(&file, &format!("{key}.y")));
            close(key, &gx, &tensor(&file, &format!("{key}.gx")));
            settings += 1;
        }
    }
    assert!(settings >= 5, "{settings}");
}

/// Bins, and the gradient of the features under the upstream gradient `g`.
fn run(x: &Tensor, boxes: &Tensor, g: &Tensor, size: usize, sampling: RoiSampling) -> (Tensor, Tensor) {
    let mut graph = Graph::new("roi", &[]);
    let ty = |tensor: &Tensor| TensorType::f32(tensor.shape.iter().map(|n| (*n).into()));
    let [features, regions, upstream] =
        [("x", x), ("boxes", boxes), ("g", g)].map(|(name, tensor)| graph.input(name, ty(tensor)).unwrap());
    let y = graph.push1(Op::RoiAlign { size, sampling }, &[features, regions]).unwrap();
    let weighted = graph.mul(y, upstream).unwrap();
    let loss = graph.sum_to(weighted, &[]).unwrap();
    let gx = differentiate(&mut graph, loss, &[features]).unwrap()[0];
    graph.output("y", y);
    graph.output("gx", gx);
    let inputs = BTreeMap::from([("x", x), ("boxes", boxes), ("g", g)]);
    let inputs = inputs.into_iter().map(|(name, tensor)| (name.to_owned(), tensor.clone())).collect();
    let mut outputs = interp::run(&graph, &Sizes::new(), &inputs).unwrap().outputs;
    (outputs.remove("y").unwrap(), outputs.remove("gx").unwrap())
}

fn close(key: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.shape, want.shape, "{key}");
    let pairs = got.as_f32().unwrap().iter().zip(want.as_f32().unwrap());
    let most = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(most <= 1e-5, "{key}: {most}");
}
