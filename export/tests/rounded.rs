//! Rounded graphs compute what narrow types would.

use half::{bf16, f16};
use std::collections::BTreeMap;
use vjepa_compiler::interp::{self, Tensor};
use vjepa_compiler::ir::{DType, Dim, Graph, Sizes, TensorType};
use vjepa_compiler::ops::Op;
use vjepa_export::{Weights, round_to, rounded};

#[test]
fn values_are_rounded_to_the_nearest_and_half_overflows() {
    let size = 7;
    let mut graph = Graph::new("identity", &["B"]);
    let x = graph.input("x", TensorType::f32([Dim::symbol("B"), Dim::from(size)])).unwrap();
    let weight = graph.param("weight", TensorType::f32([Dim::from(size), Dim::from(size)])).unwrap();
    let y = graph.push1(Op::Linear, &[x, weight]).unwrap();
    graph.output("y", y);
    let identity: Vec<f32> = (0..size * size).map(|i| f32::from(u8::from(i % (size + 1) == 0))).collect();
    let run = |dtype: DType, values: [f32; 7]| {
        let sources = BTreeMap::from([
            ("x".to_owned(), Tensor::f32(vec![1, size], values.to_vec())),
            ("weight".to_owned(), Tensor::f32(vec![size, size], identity.clone())),
        ]);
        let sizes = Sizes::from([("B".to_owned(), 1)]);
        let found = interp::run(&rounded(&graph, dtype).unwrap(), &sizes, &sources).unwrap();
        found.outputs["y"].as_f32().unwrap().to_vec()
    };
    let values = [0.1f32, -3.333_333, 1234.567, 2049.0, 1e-3, 65504.0, -0.0];
    assert_eq!(run(DType::F16, values), values.map(|value| f16::from_f32(value).to_f32()));
    assert_eq!(run(DType::BF16, values), values.map(|value| bf16::from_f32(value).to_f32()));
    let large = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -70000.0];
    assert!(run(DType::F16, large).iter().any(|value| !value.is_finite()));
    assert!(run(DType::BF16, large).iter().all(|value| value.is_finite()));
}

#[test]
fn weights_of_products_are_rounded_and_others_are_not() {
    let mut graph = Graph::new("linear", &["B"]);
    let x = graph.input("x", TensorType::f32([Dim::symbol("B"), Dim::from(1usize)])).unwrap();
    let weight = graph.param("weight", TensorType::f32([Dim::from(1usize), Dim::from(1usize)])).unwrap();
    let shift = graph.param("shift", TensorType::f32([Dim::from(1usize)])).unwrap();
    let y = graph.push1(Op::Linear, &[x, weight]).unwrap();
    let y = graph.add(y, shift).unwrap();
    graph.output("y", y);
    let tensor = |shape: &[usize]| (shape.to_vec(), vec![0.1f32]);
    let weights = Weights::from([("weight".to_owned(), tensor(&[1, 1])), ("shift".to_owned(), tensor(&[1]))]);
    let read = |name: &str| round_to(&graph, DType::BF16, name, &weights).unwrap()[0];
    assert_eq!((read("weight"), read("shift")), (bf16::from_f32(0.1).to_f32(), 0.1));
}
