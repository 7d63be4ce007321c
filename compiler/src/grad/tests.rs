use super::*;
use crate::ir::{DType, Dim};
use crate::ops::{Binary, Op, Unary};
use crate::testing::{Case, Rng, check_gradients, dims, random_smooth_graph, random_sources, sizes, ty, weighted_sum};
use proptest::prelude::*;

/// Checks one operation on random operands of these shapes (`i` in front marks an index).
fn check(op: Op, shapes: &[&str]) {
    let mut graph = Graph::new("g", &["B", "N"]);
    let operands: Vec<ValueId> = shapes
        .iter()
        .enumerate()
        .map(|(i, shape)| {
            let ty = match shape.strip_prefix('i') {
                Some(index) => TensorType::new(DType::I32, dims(index)),
                None => ty(shape),
            };
            graph.input(&format!("x{i}"), ty).unwrap()
        })
        .collect();
    let y = graph.push1(op, &operands).unwrap();
    let loss = weighted_sum(&mut graph, y);
    graph.output("loss", loss);
    let mut rng = Rng(7);
    let mut sources = random_sources(&graph, &sizes(), &mut rng);
    for array in sources.iter_mut().filter(|(name, _)| graph.ty(graph.find(name).unwrap()).dtype.is_float()) {
        // Positive and away from kinks, so that log, sqrt, powers and relu are smooth there.
        array.1.data.iter_mut().for_each(|x| *x = 0.3 + x.abs());
    }
    check_gradients(&Case { graph, sizes: sizes(), sources }, &mut rng);
}

#[test]
fn every_elementwise_rule_agrees_with_finite_differences() {
    for f in Unary::ALL {
        check(Op::Unary(f), &["B N 4"]);
    }
    for f in Binary::ALL {
        for shapes in [["B N 4", "B N 4"], ["B N 4", "4"], ["1 N 1", "B N 4"], ["", "B N"], ["N", "B 1"]] {
            check(Op::Binary(f), &shapes);
        }
    }
    for c in [0.0, 1.0, 2.0, -0.5, 3.5] {
        check(Op::AddScalar(c.into()), &["B 4"]);
        check(Op::MulScalar(c.into()), &["B 4"]);
        check(Op::PowScalar(c), &["B 4"]);
    }
    check(Op::Cast(DType::F16), &["B 4"]);
}

#[test]
fn every_shape_and_reduction_rule_agrees_with_finite_differences() {
    for axes in [vec![0], vec![1, 2], vec![0, 1, 2]] {
        check(Op::Sum { axes: axes.clone() }, &["B N 4"]);
        check(Op::Mean { axes }, &["B N 4"]);
    }
    check(Op::Softmax, &["B N 4"]);
    check(Op::LogSoftmax, &["B N 4"]);
    check(Op::SquaredNorm, &["B N 4"]);
    check(Op::SquaredNorm, &["B 4", "", "5 4"]);
    check(Op::Reshape { shape: dims("N B 4") }, &["B N 4"]);
    check(Op::Permute { axes: vec![2, 0, 1] }, &["B N 4"]);
    check(Op::Broadcast { shape: dims("B N 4") }, &["1 N 1"]);
    check(Op::Slice { axis: 1, start: Dim::from(1usize), end: Dim::symbol("N") }, &["B N 4"]);
    check(Op::Pad { axis: 1, before: Dim::from(1usize), after: Dim::symbol("B") }, &["B N 4"]);
    check(Op::Concat { axis: 1 }, &["B N 4", "B 2 4", "B N 4"]);
}

#[test]
fn every_semantic_rule_agrees_with_finite_differences() {
    check(Op::GatherTokens, &["B N 4", "iB 2"]);
    check(Op::GatherTokens, &["1 N 4", "iB 5"]);
    check(Op::ScatterTokens { tokens: Dim::symbol("N") }, &["B 2 4", "iB 2"]);
    check(Op::Tubelets { tubelet: 2, patch: 2 }, &["B 3 4 4 6"]);
    check(Op::PatchEmbed { tubelet: 2, patch: 2 }, &["B 3 4 4 6", "5 3 2 2 2", "5"]);
    check(Op::PatchEmbed { tubelet: 1, patch: 2 }, &["B 1 2 2 4", "5 1 1 2 2"]);
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        let (a, b) = (if ta { "B 5 N" } else { "B N 5" }, if tb { "B 4 5" } else { "B 5 4" });
        check(Op::MatMul { ta, tb }, &[a, b]);
        check(Op::MatMul { ta, tb }, &[a, b, "B N 4"]);
    }
    check(Op::Linear, &["B N 4", "5 4", "5"]);
    check(Op::Linear, &["4", "5 4"]);
    check(Op::LayerNorm { eps: 1e-2 }, &["B N 4", "4", "4"]);
    check(Op::LayerNorm { eps: 1e-2 }, &["B N 4"]);
    check(Op::Attention { scale: 0.7 }, &["B 2 N 4", "B 2 5 4", "B 2 5 4"]);
    for transposed in [false, true] {
        check(Op::Rotate { transposed }, &["B 2 N 4", "B N 8"]);
        check(Op::Rotate { transposed }, &["B 2 N 4", "1 N 8"]);
    }
    check(Op::PackedAttention { heads: 2, scale: 0.7, parts: dims("2 3 3 2"), sums: false }, &["12 12"]);
}

#[test]
fn only_what_wrt_needs_is_reversed() {
    let mut graph = Graph::new("g", &["B"]);
    let x = graph.input("x", ty("B 4")).unwrap();
    let frozen = graph.param("frozen", ty("4 4")).unwrap();
    let w = graph.param("w", ty("4 4")).unwrap();
    let unused = graph.param("unused", ty("3")).unwrap();
    let h = graph.push1(Op::Linear, &[x, frozen]).unwrap();
    let h = graph.unary(Unary::Gelu, h).unwrap();
    let y = graph.push1(Op::Linear, &[h, w]).unwrap();
    let loss = graph.mean(y, &[0, 1]).unwrap();
    let before = graph.nodes.len();
    let grads = differentiate(&mut graph, loss, &[w, unused]).unwrap();
    let names: Vec<&str> = graph.nodes[before..].iter().map(|node| node.op.name()).collect();
    assert_eq!(names, ["full", "mul_scalar", "broadcast", "matmul", "full"]);
    assert_eq!(graph.ty(grads[1]), &ty("3"));
}

#[test]
fn what_cannot_be_differentiated_says_so() {
    let mut graph = Graph::new("g", &[]);
    let x = graph.input("x", ty("2")).unwrap();
    let error = differentiate(&mut graph, x, &[x]).unwrap_err().to_string();
    assert_eq!(error, "the loss must be a single float, but %0 is f32[2]");
    let y = graph.push1(Op::SoftmaxGrad, &[x, x]).unwrap();
    let loss = graph.sum(y, &[0]).unwrap();
    let error = differentiate(&mut graph, loss, &[x]).unwrap_err().to_string();
    assert_eq!(error, "%1 is computed by softmax_grad, which has no gradient rule");
    assert!(differentiate(&mut graph, ValueId(99), &[x]).is_err());
}

proptest! {
    #[test]
    fn random_smooth_graphs_agree_with_finite_differences(seed in any::<u64>()) {
        let mut case = random_smooth_graph(seed);
        let loss = case.graph.outputs.clone().into_iter().fold(None, |total, (_, id)| {
            let sum = weighted_sum(&mut case.graph, id);
            Some(total.map_or(sum, |total| case.graph.add(total, sum).unwrap()))
        });
        case.graph.output("loss", loss.unwrap());
        check_gradients(&case, &mut Rng(seed));
    }
}
