use super::*;
use crate::interp::{Tensor, run};
use crate::ir::{Dim, Sizes};
use crate::verify::verify;
use std::collections::BTreeMap;

/// A graph with trained `w` and `b`, a fixed `pos`, and targets of `w` and `pos`.
fn graph(clip: bool) -> Graph {
    let mut g = Graph::new("step", &[]);
    let two = || TensorType::f32([Dim::from(2usize)]);
    let [w, b, pos, tw, tpos] = ["w", "b", "pos", "t.w", "t.pos"].map(|name| g.param(name, two()).unwrap());
    let [gw, gb] = ["gw", "gb"].map(|name| g.input(name, two()).unwrap());
    let clip =
        if clip { vec![ClipGroup { name: "all".into(), params: vec![w, b], norm_of: None }] } else { Vec::new() };
    let spec = TrainSpec {
        gradients: vec![(w, gw), (b, gb)],
        decay: vec![w],
        clip,
        ema: vec![(tw, w), (tpos, pos)],
        ..TrainSpec::default()
    };
    append_optimizer(&mut g, &spec).unwrap();
    verify(&g).unwrap();
    g
}

fn sources(max_norm: f32) -> BTreeMap<String, Tensor> {
    let pair = |a, b| Tensor::f32([2], vec![a, b]);
    let mut sources: BTreeMap<String, Tensor> = [
        ("w", pair(1.0, -2.0)),
        ("b", pair(0.5, 0.5)),
        ("pos", pair(4.0, 8.0)),
        ("t.w", pair(0.0, 1.0)),
        ("t.pos", pair(2.0, 2.0)),
        ("gw", pair(3.0, 0.0)),
        ("gb", pair(0.0, -4.0)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into();
    for name in ["w", "b"] {
        sources.insert(format!("adam.m.{name}"), pair(0.0, 0.0));
        sources.insert(format!("adam.v.{name}"), pair(0.0, 0.0));
    }
    let rates = [("lr", 0.1), ("wd", 0.5), ("c1", 0.1), ("c2", 0.001), ("momentum", 0.75), ("max_norm", max_norm)];
    sources.extend(rates.map(|(name, rate)| (name.to_owned(), Tensor::scalar(rate))));
    sources
}

fn close(tensor: &Tensor, expected: [f32; 2]) {
    let got = tensor.as_f32().unwrap();
    assert!(got.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{got:?}, not {expected:?}");
}

#[test]
fn the_first_step_is_the_sign_of_the_gradient() {
    let results = run(&graph(true), &Sizes::new(), &sources(f32::INFINITY)).unwrap();
    // 1·(1 − 0.1·0.5) − 0.1 and −2·(1 − 0.05); `b` does not decay.
    close(&results.updates["w"], [0.85, -1.9]);
    close(&results.updates["b"], [0.5, 0.6]);
    close(&results.updates["adam.m.w"], [0.3, 0.0]);
    close(&results.updates["adam.v.b"], [0.0, 0.016]);
    close(&results.updates["t.w"], [0.25 * 0.85, 0.75 - 0.25 * 1.9]);
    close(&results.updates["t.pos"], [2.5, 3.5]);
    assert_eq!(results.outputs["grad_norm.all"], Tensor::scalar(5.0));
    assert!(!results.updates.contains_key("pos"));
}

#[test]
fn clipping_scales_the_group_by_its_global_norm() {
    let results = run(&graph(true), &Sizes::new(), &sources(1.0)).unwrap();
    close(&results.updates["adam.m.w"], [0.3 / 5.0, 0.0]);
    close(&results.updates["adam.m.b"], [0.0, -0.4 / 5.0]);
    let unclipped = run(&graph(false), &Sizes::new(), &sources(1.0)).unwrap();
    close(&unclipped.updates["adam.m.w"], [0.3, 0.0]);
}

#[test]
fn wrong_specifications_are_told() {
    let mut g = Graph::new("step", &[]);
    let p = g.param("p", TensorType::f32([])).unwrap();
    let clip = vec![ClipGroup { name: "all".into(), params: vec![p], norm_of: None }];
    let error = append_optimizer(&mut g, &TrainSpec { clip, ..TrainSpec::default() }).unwrap_err();
    assert_eq!(error.to_string(), "`p` is in clip group `all` but is not trained");
    let mut g = Graph::new("step", &[]);
    let x = g.input("x", TensorType::f32([])).unwrap();
    let spec = TrainSpec { gradients: vec![(x, x)], ..TrainSpec::default() };
    assert_eq!(append_optimizer(&mut g, &spec).unwrap_err().to_string(), "%0 is trained but is not a parameter");
}

#[test]
fn a_parameter_may_learn_at_a_rate_of_its_own() {
    let mut g = Graph::new("step", &[]);
    let two = || TensorType::f32([Dim::from(2usize)]);
    let [w, b, c] = ["w", "b", "c"].map(|name| g.param(name, two()).unwrap());
    let gradients = [(w, "gw"), (b, "gb"), (c, "gc")].map(|(param, name)| (param, g.input(name, two()).unwrap()));
    let spec = TrainSpec {
        gradients: gradients.to_vec(),
        decay: vec![w],
        rates: vec![(w, 0.5), (c, 0.5)],
        ..TrainSpec::default()
    };
    append_optimizer(&mut g, &spec).unwrap();
    verify(&g).unwrap();
    // One product for both parameters of that factor.
    let products = g.nodes.iter().filter(|node| node.op.name() == "mul_scalar").count();
    assert_eq!(products, 1);
    let mut sources = sources(f32::INFINITY);
    for name in ["c", "adam.m.c", "adam.v.c"] {
        sources.insert(name.to_owned(), Tensor::f32([2], vec![0.0, 0.0]));
    }
    sources.insert("gc".to_owned(), Tensor::f32([2], vec![1.0, -1.0]));
    let results = run(&g, &Sizes::new(), &sources).unwrap();
    // The decay is decoupled, and goes with the rate.
    close(&results.updates["w"], [1.0 * (1.0 - 0.05 * 0.5) - 0.05, -2.0 * (1.0 - 0.05 * 0.5)]);
    close(&results.updates["b"], [0.5, 0.6]);
    close(&results.updates["c"], [-0.05, 0.05]);
}
