//! Properties of every operation: decompositions agree with the interpreter rule, costs with shapes.

use super::dispatch::Family;
use super::*;
use crate::ir::{Graph, ValueId};
use crate::passes::{Decompose, Pass};
use crate::testing::{
    Case, Rng, assert_close, assert_close_unless_overflowed, dims, exact, random_graph, random_sources, roots_of,
    sizes, ty,
};
use crate::verify::verify;
use proptest::prelude::*;

/// The graph with every semantic operation replaced by its decomposition.
fn decomposed(graph: &Graph) -> Graph {
    let changed = Decompose::all().run(graph).unwrap();
    let graph = changed.map_or_else(|| graph.clone(), |changed| changed.graph);
    verify(&graph).unwrap();
    graph
}

/// Operations that have parts, with the shapes of their operands; the optimiser's apart.
fn composed() -> Vec<(Op, Vec<&'static str>)> {
    let eps = 1e-3;
    let q = "B 2 N 4";
    let k = "B 2 5 4";
    vec![
        (Op::Unary(Unary::Gelu), vec!["B N 4"]),
        (Op::GeluGrad, vec!["B N 4"; 2]),
        (Op::GeluWithGrad, vec!["B N 4"; 2]),
        (Op::BiasGelu, vec!["B N 4", "4"]),
        (Op::BiasGeluGrad { result: false }, vec!["B N 4", "4", "B N 4"]),
        (Op::BiasGeluGrad { result: true }, vec!["N 4", "4", "N 4"]),
        (Op::BiasGelu, vec!["bf16 B N 4", "4"]),
        (Op::BiasGeluGrad { result: false }, vec!["f16 B N 4", "4", "f16 B N 4"]),
        (Op::Mean { axes: vec![0, 2] }, vec!["B N 4"]),
        (Op::Softmax, vec!["B N 4"]),
        (Op::SoftmaxGrad, vec!["B N 4"; 2]),
        (Op::LogSoftmax, vec!["B N 4"]),
        (Op::SquaredNorm, vec!["B N 4", "", "5 4"]),
        (Op::TokenL1 { eps }, vec!["B 2 4", "B N 4", "i32 B 2"]),
        (Op::TokenL1 { eps }, vec!["B 2 4", "1 N 4", "i32 B 2"]),
        (Op::TokenL1Grad { eps, scale: 0.25.into() }, vec!["B 2 4", "B N 4", "i32 B 2"]),
        (Op::Tubelets { tubelet: 2, patch: 3 }, vec!["B 2 4 3 6"]),
        (Op::PatchEmbed { tubelet: 2, patch: 3 }, vec!["B 2 4 3 6", "5 2 2 3 3", "5"]),
        (Op::Linear, vec!["B N 4", "5 4", "5"]),
        (Op::LayerNorm { eps }, vec!["B N 4", "4", "4"]),
        (Op::LayerNorm { eps }, vec!["B N 4"]),
        (Op::LayerNormGrad { eps }, vec!["B N 4", "B N 4", "4"]),
        (Op::LayerNormGrad { eps }, vec!["B N 4", "B N 4"]),
        (Op::LayerNormGrad { eps }, vec!["B N 4", "bf16 B N 4", "4"]),
        (Op::NarrowLayerNorm { eps, to: DType::F16 }, vec!["B N 4", "4", "4"]),
        (Op::NarrowLayerNorm { eps, to: DType::BF16 }, vec!["B N 4"]),
        (Op::AddWidened, vec!["B N 4", "bf16 B N 4"]),
        (Op::Attention { scale: 0.7 }, vec![q, k, k]),
        (Op::AttentionGrad { scale: 0.7 }, vec![q, k, k, q, q]),
        (Op::Rotate { transposed: false }, vec!["B 2 N 4", "B N 8"]),
        (Op::Rotate { transposed: true }, vec!["B 2 N 4", "1 N 8"]),
    ]
}

/// As [`composed`], of attention over rows as a linear layer makes them.
fn composed_of_rows() -> Vec<(Op, Vec<&'static str>)> {
    let parts = || dims("2 3 3 2");
    let forward = |sums| Op::PackedAttention { heads: 2, scale: 0.7, parts: parts(), sums };
    let backward = |sums| Op::PackedAttentionGrad { heads: 2, scale: 0.7, parts: parts(), sums };
    vec![
        (forward(false), vec!["12 12"]),
        (backward(false), vec!["12 12", "12 4", "12 4"]),
        (forward(false), vec!["12 12", "2 3 4", "1 2 4"]),
        (backward(false), vec!["12 12", "12 4", "12 4", "1 3 4", "3 2 4"]),
        (forward(true), vec!["12 12"]),
        (forward(true), vec!["12 12", "2 3 4", "1 2 4"]),
        (backward(true), vec!["12 12", "12 4", "12 4", "12 2", "1 3 4", "3 2 4"]),
    ]
}

/// As [`composed`], of the optimiser, whose second moments are positive.
fn composed_of_updates() -> Vec<(Op, Vec<&'static str>)> {
    let adamw = ["4 5"; 4].into_iter().chain([""; 5]).collect::<Vec<_>>();
    let adamw_ema = adamw.iter().copied().chain(["4 5", ""]).collect::<Vec<_>>();
    let (beta1, beta2, eps) = (0.9, 0.99, 1e-3);
    let all = |rates: usize, each: &[&'static str]| [vec![""; rates], each.to_vec(), vec!["3"; each.len()]].concat();
    vec![
        (Op::Ema, vec!["4 5", "4 5", ""]),
        (Op::AdamW { beta1, beta2, eps }, adamw),
        (Op::AdamWEma { beta1, beta2, eps }, adamw_ema),
        (Op::AdamWAll { beta1, beta2, eps, average: false }, all(5, &["4 5"; 4])),
        (Op::AdamWAll { beta1, beta2, eps, average: true }, all(6, &["4 5"; 5])),
    ]
}

#[test]
fn every_decomposition_computes_the_same() {
    let typed = |shape: &str| {
        let named = shape.split_once(' ').and_then(|(name, shape)| Some((DType::from_name(name)?, shape)));
        named.map_or_else(|| ty(shape), |(dtype, shape)| TensorType::new(dtype, dims(shape)))
    };
    for (op, shapes) in [composed(), composed_of_rows(), composed_of_updates()].concat() {
        let mut graph = Graph::new("g", &["B", "N"]);
        let operands: Vec<ValueId> =
            shapes.iter().enumerate().map(|(i, shape)| graph.input(&format!("x{i}"), typed(shape)).unwrap()).collect();
        for (i, y) in graph.push(op.clone(), &operands).unwrap().into_iter().enumerate() {
            graph.output(&format!("y{i}"), y);
        }
        let mut sources = random_sources(&graph, &sizes(), &mut Rng(11));
        if matches!(op.family(), Family::Optimizer(_)) {
            sources.values_mut().for_each(|array| array.data.iter_mut().for_each(|x| *x = 0.1 + x.abs()));
        }
        let case = Case { graph, sizes: sizes(), sources };
        let parts = decomposed(&case.graph);
        assert!(parts.nodes.iter().all(|node| node.op != op), "{} stayed whole", op.name());
        assert_close(&exact(&case), &roots_of(&parts, &case.sizes, &case.sources), 1e-9);
    }
}

#[test]
fn packed_attention_needs_parts_that_are_its_rows() {
    let infer = |heads, parts: &str, qkv| {
        let op = Op::PackedAttention { heads, scale: 1.0, parts: dims(parts), sums: false };
        op.infer(&[&ty(qkv)]).map_err(|error| error.to_string())
    };
    assert_eq!(infer(2, "2 3 3 2", "12 12"), Ok(vec![ty("12 4")]));
    for parts in ["", "2", "2 3", "2 3 3 2 1", "B N"] {
        assert!(infer(2, parts, "12 12").unwrap_err().starts_with("the parts, B and N in turn"), "{parts}");
    }
    for (heads, qkv) in [(0, "12 12"), (5, "12 12"), (2, "B 12 12"), (2, "12 N"), (usize::MAX, "12 12")] {
        assert!(infer(heads, "2 3 3 2", qkv).unwrap_err().starts_with("needs floats [R, 3·H·d]"), "{heads} {qkv}");
    }
}

#[test]
fn names_and_prototypes_agree() {
    let all = Op::prototypes();
    for op in &all {
        assert_eq!(Op::prototype(op.name()).as_ref(), Some(op));
    }
    let names: std::collections::BTreeSet<&str> = all.iter().map(Op::name).collect();
    assert_eq!(names.len(), all.len(), "two operations of one name");
    assert_eq!(Op::prototype("convolution"), None);
}

proptest! {
    #[test]
    fn decompositions_compute_the_same(seed in any::<u64>()) {
        let case = random_graph(seed);
        let once = decomposed(&case.graph);
        assert_close_unless_overflowed(&exact(&case), &roots_of(&once, &case.sizes, &case.sources));
        let twice = decomposed(&once);
        assert_close_unless_overflowed(&exact(&case), &roots_of(&twice, &case.sizes, &case.sources));
    }

    #[test]
    fn costs_are_numbers_under_sizes(seed in any::<u64>()) {
        let case = random_graph(seed);
        for node in &case.graph.nodes {
            let operands: Vec<_> = node.inputs.iter().map(|id| case.graph.ty(*id)).collect();
            let results: Vec<_> = node.outputs.iter().map(|id| case.graph.ty(*id)).collect();
            let cost = node.op.cost(&operands, &results);
            prop_assert!(cost.flops.eval(&case.sizes).is_some() && cost.bytes.eval(&case.sizes).is_some());
        }
    }
}
