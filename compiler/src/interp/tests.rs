use super::*;
use crate::ir::Dim;
use crate::ops::Op;

fn sizes() -> Sizes {
    Sizes::from([("B".to_owned(), 2)])
}

fn graph() -> Graph {
    let mut g = Graph::new("g", &["B"]);
    let x = g.input("x", TensorType::f32([Dim::symbol("B"), Dim::from(3usize)])).unwrap();
    let w = g.param("w", TensorType::f32([Dim::from(1usize), Dim::from(3usize)])).unwrap();
    let y = g.push1(Op::Linear, &[x, w]).unwrap();
    g.output("y", y);
    g
}

#[test]
fn linear_is_computed_and_wrong_sources_are_told() {
    let x = Tensor::f32([2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mut sources =
        BTreeMap::from([("x".to_owned(), x), ("w".to_owned(), Tensor::f32([1, 3], vec![1.0, 0.0, -1.0]))]);
    let results = run(&graph(), &sizes(), &sources).unwrap();
    assert_eq!(results.outputs["y"], Tensor::f32([2, 1], vec![-2.0, -2.0]));
    sources.insert("w".into(), Tensor::i32([1, 3], vec![1, 2, 3]));
    let error = run(&graph(), &sizes(), &sources).unwrap_err().to_string();
    assert_eq!(error, "`w` should be f32[1, 3], here [1, 3] but is i32[1, 3] with 3 elements");
    sources.remove("w");
    assert_eq!(run(&graph(), &sizes(), &sources).unwrap_err().to_string(), "no tensor was given for `w`");
}

#[test]
fn an_index_out_of_range_is_an_error() {
    let mut g = Graph::new("g", &[]);
    let x = g.input("x", TensorType::f32([1usize, 2, 1].map(Dim::from))).unwrap();
    let index = g.input("i", TensorType::new(DType::I32, [1usize, 1].map(Dim::from))).unwrap();
    let y = g.push1(Op::GatherTokens, &[x, index]).unwrap();
    g.output("y", y);
    let mut sources = BTreeMap::from([("x".to_owned(), Tensor::f32([1, 2, 1], vec![5.0, 6.0]))]);
    for (token, result) in [(1, Some(6.0)), (2, None), (-1, None)] {
        sources.insert("i".into(), Tensor::i32([1, 1], vec![token]));
        let y = run(&g, &Sizes::new(), &sources).ok().map(|results| results.outputs["y"].as_f32().unwrap()[0]);
        assert_eq!(y, result, "token {token}");
    }
}

#[test]
fn results_are_rounded_to_their_element_type() {
    let mut g = Graph::new("g", &[]);
    let x = g.input("x", TensorType::f32([])).unwrap();
    let half = g.cast(x, DType::F16).unwrap();
    let brain = g.cast(x, DType::BF16).unwrap();
    g.output("f16", half);
    g.output("bf16", brain);
    let results = run(&g, &Sizes::new(), &BTreeMap::from([("x".to_owned(), Tensor::scalar(1.001))])).unwrap();
    assert_eq!(results.outputs["f16"], Tensor::scalar(1.000_976_6));
    assert_eq!(results.outputs["bf16"], Tensor::scalar(1.0));
}
