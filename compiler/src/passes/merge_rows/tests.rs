use super::*;
use crate::ir::TensorType;
use crate::testing::{
    Case, Rng, assert_close, exact, random_sources, roots_of, sizes, ty, weighted_sum, with_gradients,
};
use crate::verify::verify;
use proptest::prelude::*;

/// The same random layers over two or three inputs of different lengths, as mask pairs go through one encoder; sums join
/// what went through equally many of them, and what is read in between is an output.
fn towers(seed: u64) -> Graph {
    let mut rng = Rng(seed);
    let mut graph = Graph::new("towers", &["B", "N"]);
    for (name, shape) in [("w", "4 4"), ("v", "4 4"), ("b", "4")] {
        graph.param(name, ty(shape)).unwrap();
    }
    let lengths = ["N", "2", "5"];
    let count = 2 + rng.below(2);
    let inputs = lengths[..count].iter().map(|n| graph.input(&format!("x{n}"), ty(&format!("B {n} 4"))).unwrap());
    let inputs: Vec<ValueId> = inputs.collect();
    let layers: Vec<(usize, u64)> = (0..3 + rng.below(8)).map(|_| (rng.below(7), rng.next())).collect();
    let [w, v, b] = ["w", "v", "b"].map(|name| graph.find(name).unwrap());
    for (tower, input) in inputs.into_iter().enumerate() {
        let mut made = vec![input];
        for (layer, draw) in &layers {
            let mut rng = Rng(*draw);
            let (x, skip) = (made[made.len() - 1], rng.pick(&made));
            let y = match layer {
                0 => graph.push1(Op::Linear, &[x, w, b]),
                1 => graph.push1(Op::Linear, &[x, v]),
                2 => graph.push1(Op::LayerNorm { eps: 0.5 }, &[x, b, b]),
                3 => graph.unary(Unary::Gelu, x),
                4 => graph.push1(Op::LayerNorm { eps: 0.5 }, &[x]),
                5 => graph.mean(x, &[1]).and_then(|mean| graph.sub(x, mean)),
                _ => graph.add(x, skip),
            };
            made.push(y.unwrap());
        }
        let read = rng.pick(&made);
        graph.output(&format!("read{tower}"), read);
        graph.output(&format!("last{tower}"), made[made.len() - 1]);
    }
    verify(&graph).unwrap();
    graph
}

fn case(graph: Graph, seed: u64) -> Case {
    let sources = random_sources(&graph, &sizes(), &mut Rng(seed));
    Case { graph, sizes: sizes(), sources }
}

fn merged(graph: &Graph) -> Graph {
    let changed = MergeRows.run(graph).unwrap();
    let graph = changed.map_or_else(|| graph.clone(), |changed| changed.graph);
    verify(&graph).unwrap();
    graph
}

fn linears(graph: &Graph) -> usize {
    graph.nodes.iter().filter(|node| node.op == Op::Linear).count()
}

#[test]
fn values_that_depend_on_each_other_stay_apart() {
    // The second layer reads what the first one made: one weight, but nothing to be done at once.
    let mut graph = Graph::new("deep", &["B"]);
    let x = graph.input("x", ty("B 4")).unwrap();
    let w = graph.param("w", ty("4 4")).unwrap();
    let y = graph.push1(Op::Linear, &[x, w]).unwrap();
    let z = graph.push1(Op::Linear, &[y, w]).unwrap();
    graph.output("z", z);
    assert!(MergeRows.run(&graph).unwrap().is_none());
}

#[test]
fn norms_and_sums_alone_stay_apart() {
    let mut graph = Graph::new("norms", &["B", "N"]);
    let b = graph.param("b", ty("4")).unwrap();
    for name in ["N", "2"] {
        let x = graph.input(&format!("x{name}"), ty(&format!("B {name} 4"))).unwrap();
        let y = graph.push1(Op::LayerNorm { eps: 0.5 }, &[x, b, b]).unwrap();
        let y = graph.add(y, x).unwrap();
        graph.output(&format!("y{name}"), y);
    }
    assert!(MergeRows.run(&graph).unwrap().is_none());
}

#[test]
fn a_weight_that_is_computed_comes_first() {
    let mut graph = Graph::new("late", &["B", "N"]);
    let w = graph.param("w", ty("4 4")).unwrap();
    let x = graph.input("x", ty("B N 4")).unwrap();
    let first = graph.push1(Op::Linear, &[x, w]).unwrap();
    let y = graph.input("y", ty("B 2 4")).unwrap();
    let second = graph.push1(Op::Linear, &[y, w]).unwrap();
    let computed = graph.mul(w, w).unwrap();
    let [third, fourth] = [first, second].map(|x| graph.push1(Op::Linear, &[x, computed]).unwrap());
    graph.output("third", third);
    graph.output("fourth", fourth);
    let case = case(graph, 1);
    let merged = merged(&case.graph);
    assert_eq!(linears(&merged), 2);
    assert_close(&exact(&case), &roots_of(&merged, &case.sizes, &case.sources), 1e-12);
}

#[test]
fn a_thousand_layers_need_no_stack() {
    let mut graph = Graph::new("deep", &["B"]);
    let w = graph.param("w", ty("2 2")).unwrap();
    let last: Vec<ValueId> = ["a", "b"]
        .into_iter()
        .map(|name| {
            let x = graph.input(name, ty("B 2")).unwrap();
            (0..3000).fold(x, |x, _| graph.push1(Op::Linear, &[x, w]).unwrap())
        })
        .collect();
    graph.output("a", last[0]);
    graph.output("b", last[1]);
    assert_eq!(linears(&merged(&graph)), 3000);
}

proptest! {
    #[test]
    fn towers_compute_the_same_and_each_layer_once(seed in any::<u64>()) {
        let case = case(towers(seed), seed);
        let merged = merged(&case.graph);
        assert_close(&exact(&case), &roots_of(&merged, &case.sizes, &case.sources), 1e-9);
        let count = case.graph.inputs.len();
        prop_assert_eq!(linears(&merged) * count, linears(&case.graph));
        prop_assert!(MergeRows.run(&merged).unwrap().is_none());
    }

    #[test]
    fn gradients_of_merged_towers_are_those_of_the_plain_ones(seed in any::<u64>()) {
        let mut plain = towers(seed);
        let lasts: Vec<ValueId> = plain.outputs.iter().map(|(_, id)| *id).collect();
        let mut loss = plain.full(0.0, TensorType::f32([])).unwrap();
        for id in lasts {
            let sum = weighted_sum(&mut plain, id);
            loss = plain.add(loss, sum).unwrap();
        }
        plain.output("loss", loss);
        let case = case(plain, seed);
        let gradients = |graph: Graph| with_gradients(graph, &["w", "v", "b", "xN", "x2"]);
        let expected = roots_of(&gradients(case.graph.clone()), &case.sizes, &case.sources);
        let found = roots_of(&gradients(merged(&case.graph)), &case.sizes, &case.sources);
        assert_close(&expected, &found, 1e-9);
    }
}
