//! Properties of every operation: decompositions agree with the interpreter rule, costs with shapes.

use super::*;
use crate::testing::{assert_close, exact, random_graph, roots_of};
use crate::verify::verify;
use proptest::prelude::*;

/// The graph with every semantic operation replaced by its decomposition.
fn decomposed(graph: &Graph) -> Graph {
    let mut new = Graph::new(&graph.name, &[]);
    new.symbols = graph.symbols.clone();
    let mut map = vec![ValueId(0); graph.values.len()];
    for id in &graph.inputs {
        map[id.0] = new.input(graph.source_name(*id).unwrap(), graph.ty(*id).clone()).unwrap();
    }
    for id in &graph.params {
        map[id.0] = new.param(graph.source_name(*id).unwrap(), graph.ty(*id).clone()).unwrap();
    }
    for node in &graph.nodes {
        let inputs: Vec<ValueId> = node.inputs.iter().map(|id| map[id.0]).collect();
        let results = match node.op.decompose(&mut new, &inputs).unwrap() {
            Some(results) => results,
            None => new.push(node.op.clone(), &inputs).unwrap(),
        };
        for (old, result) in node.outputs.iter().zip(results) {
            assert_eq!(graph.ty(*old), new.ty(result), "{}", node.op.name());
            map[old.0] = result;
        }
    }
    for (name, id) in &graph.outputs {
        new.output(name, map[id.0]);
    }
    for (param, id) in &graph.updates {
        new.update(map[param.0], map[id.0]).unwrap();
    }
    verify(&new).unwrap();
    new
}

#[test]
fn names_and_prototypes_agree() {
    for name in ["neg", "gelu", "max", "add_scalar", "layer_norm_grad", "scatter_tokens", "adamw_ema", "ema"] {
        assert_eq!(Op::prototype(name).map(|op| op.name()), Some(name));
    }
    assert_eq!(Op::prototype("convolution"), None);
}

proptest! {
    #[test]
    fn decompositions_compute_the_same(seed in any::<u64>()) {
        let case = random_graph(seed);
        let once = decomposed(&case.graph);
        assert_close(&exact(&case), &roots_of(&once, &case.sizes, &case.sources), 1e-6);
        let twice = decomposed(&once);
        assert_close(&exact(&case), &roots_of(&twice, &case.sizes, &case.sources), 1e-6);
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
