use super::*;
use crate::interp::{self, Tensor};
use crate::ir::{Graph, Sizes};
use crate::testing::{Rng, ty, with_gradients};
use std::collections::BTreeMap;

const SAMPLING: RoiSampling = RoiSampling { scale: 0.25, samples: 0, aligned: true };

fn weights(sampling: RoiSampling, row: [f32; 5], bins: usize) -> Result<RoiBox, String> {
    sampling.weights(&row, bins, [2, 4, 4])
}

#[test]
fn a_box_of_cells_reads_them() {
    // Cells 1 and 2 of 4 pixels each: one sample per bin, at a cell's centre.
    let found = weights(SAMPLING, [1.0, 4.0, 4.0, 12.0, 12.0], 2).unwrap();
    assert_eq!(found.batch, 1);
    assert_eq!(found.rows[0].cells().filter(|cell| cell.1 > 0.0).collect::<Vec<_>>(), [(1, 1.0)]);
    assert_eq!(found.columns[1].cells().filter(|cell| cell.1 > 0.0).collect::<Vec<_>>(), [(2, 1.0)]);
}

#[test]
fn boxes_without_a_side_read_nothing_unless_samples_are_counted() {
    for row in [[0.0, 5.0, 5.0, 5.0, 9.0], [0.0, 9.0, 0.0, 5.0, 9.0]] {
        assert!(weights(SAMPLING, row, 2).unwrap().columns.iter().all(|bin| bin.values.is_empty()));
        let counted = RoiSampling { samples: 2, ..SAMPLING };
        assert!(weights(counted, row, 2).unwrap().columns.iter().all(|bin| !bin.values.is_empty()));
        let old = RoiSampling { aligned: false, ..SAMPLING };
        assert!(weights(old, row, 2).unwrap().columns.iter().all(|bin| !bin.values.is_empty()));
    }
    let outside = weights(SAMPLING, [0.0, 100.0, 100.0, 200.0, 200.0], 2).unwrap();
    assert!(outside.rows.iter().all(|bin| bin.values.is_empty()));
}

#[test]
fn boxes_that_cannot_be_meant_are_refused() {
    let says = |row: [f32; 5], words: &str| {
        let error = weights(SAMPLING, row, 2).unwrap_err();
        assert!(error.contains(words), "{error}");
    };
    says([2.0, 0.0, 0.0, 1.0, 1.0], "sample 2");
    says([0.5, 0.0, 0.0, 1.0, 1.0], "sample 0.5");
    says([-1.0, 0.0, 0.0, 1.0, 1.0], "sample -1");
    says([0.0, f32::NAN, 0.0, 1.0, 1.0], "NaN");
    says([0.0, 0.0, 0.0, 1e30, 1.0], "pixels of the clip");
    assert!(SAMPLING.weights(&[0.0; 4], 2, [1, 4, 4]).is_err());
}

#[test]
fn operands_must_fit() {
    let infer = |op: Op, x: &str, boxes: &str| op.infer(&[&ty(x), &ty(boxes)]).map_err(|error| error.to_string());
    let align = Op::RoiAlign { size: 7, sampling: SAMPLING };
    assert_eq!(infer(align.clone(), "B 5 4 4", "N 5"), Ok(vec![ty("N 5 7 7")]));
    assert!(infer(align.clone(), "B 5 4 4", "N 4").unwrap_err().contains("sample, x1, y1, x2, y2"));
    assert!(infer(align, "B 5 4", "N 5").is_err());
    assert!(infer(Op::RoiAlign { size: 0, sampling: SAMPLING }, "B 5 4 4", "N 5").is_err());
    let flat = RoiSampling { scale: 0.0, ..SAMPLING };
    assert!(infer(Op::RoiAlign { size: 7, sampling: flat }, "B 5 4 4", "N 5").unwrap_err().contains("positive"));
    let grad = |shape: &str| Op::RoiAlignGrad { shape: ty(shape).shape, sampling: SAMPLING };
    assert_eq!(infer(grad("B 5 4 6"), "N 5 7 7", "N 5"), Ok(vec![ty("B 5 4 6")]));
    assert!(infer(grad("B 6 4 6"), "N 5 7 7", "N 5").is_err());
    assert!(infer(grad("B 5 4 6"), "N 5 7 6", "N 5").is_err());
}

/// The head of a detector: the largest of a box's bins. Equal ones share the gradient.
#[test]
fn the_largest_takes_the_gradient() {
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", ty("2 3")).unwrap();
    let y = graph.push1(Op::ReduceMax { axes: vec![1] }, &[x]).unwrap();
    let scale = graph.input("scale", ty("2 1")).unwrap();
    let weighted = graph.mul(y, scale).unwrap();
    let loss = graph.sum_to(weighted, &[]).unwrap();
    graph.output("y", y);
    graph.output("loss", loss);
    let graph = with_gradients(graph, &["x"]);
    let inputs = BTreeMap::from([
        ("x".to_owned(), Tensor::f32([2, 3], vec![1.0, 3.0, -2.0, 5.0, -1.0, 5.0])),
        ("scale".to_owned(), Tensor::f32([2, 1], vec![2.0, 6.0])),
    ]);
    let outputs = interp::run(&graph, &Sizes::new(), &inputs).unwrap().outputs;
    assert_eq!(outputs["y"].as_f32(), Some(&[3.0, 5.0][..]));
    assert_eq!(outputs["d x"].as_f32(), Some(&[0.0, 2.0, 0.0, 3.0, 0.0, 3.0][..]));
}

/// `loss = Σ wave·y` has the gradient `RoiAlignGrad(wave)`; being linear, differences are exact.
#[test]
fn the_gradient_is_the_transpose() {
    let mut graph = Graph::new("g", &[]);
    let [x, boxes, wave] = [("x", "2 3 4 5"), ("boxes", "3 5"), ("wave", "3 3 2 2")]
        .map(|(name, shape)| graph.input(name, ty(shape)).unwrap());
    let sampling = RoiSampling { samples: 3, ..SAMPLING };
    let y = graph.push1(Op::RoiAlign { size: 2, sampling }, &[x, boxes]).unwrap();
    let weighted = graph.mul(y, wave).unwrap();
    let loss = graph.sum_to(weighted, &[]).unwrap();
    graph.output("loss", loss);
    let graph = with_gradients(graph, &["x"]);
    let mut rng = Rng(5);
    let mut draw = |n: usize| (0..n).map(|_| rng.float() as f32).collect::<Vec<f32>>();
    let rows = vec![1.0, 2.0, 3.0, 17.0, 11.0, 0.0, -9.0, -3.0, 30.0, 14.0, 0.0, 9.0, 9.0, 4.0, 2.0];
    let (values, wave) = (draw(120), draw(36));
    let run = |values: &[f32]| {
        let inputs = BTreeMap::from([
            ("x".to_owned(), Tensor::f32([2, 3, 4, 5], values.to_vec())),
            ("boxes".to_owned(), Tensor::f32([3, 5], rows.clone())),
            ("wave".to_owned(), Tensor::f32([3, 3, 2, 2], wave.clone())),
        ]);
        interp::run(&graph, &Sizes::new(), &inputs).unwrap().outputs
    };
    let gradient = run(&values)["d x"].as_f32().unwrap().to_vec();
    assert!(gradient.iter().any(|x| *x != 0.0));
    // Σ x·gradient is the loss itself.
    let along: f64 = values.iter().zip(&gradient).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    let loss = f64::from(run(&values)["loss"].as_f32().unwrap()[0]);
    assert!((along - loss).abs() < 1e-5, "{along} {loss}");
    for cell in [0, 17, 59, 77, 119] {
        let mut moved = values.clone();
        moved[cell] += 1.0;
        let slope = f64::from(run(&moved)["loss"].as_f32().unwrap()[0]) - loss;
        assert!((slope - f64::from(gradient[cell])).abs() < 1e-5, "{cell}: {slope} {}", gradient[cell]);
    }
}
