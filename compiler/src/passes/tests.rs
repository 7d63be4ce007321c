use super::*;
use crate::grad::differentiate;
use crate::optimizer::{ClipGroup, TrainSpec, append_optimizer};
use crate::testing::{
    Case, Rng, assert_close, assert_close_unless_overflowed, exact, random_graph, random_smooth_graph, random_sources,
    roots_of, sizes, weighted_sum, with_gradients,
};
use crate::text::parse;
use proptest::prelude::*;

/// A small model with everything a training step has: attention over packed q, k and v, a masked context, an averaged
/// target, an L1 loss.
const MODEL: &str = "\
graph step[B, N]
  input clip: f32[B, 1, 2, 4, 6]
  input context: i32[B, 2]
  param embed: f32[4, 1, 2, 2, 2]
  param embed.bias: f32[4]
  param pos: f32[1, 6, 4]
  param qkv: f32[12, 4]
  param norm.weight: f32[4]
  param norm.bias: f32[4]
  param target.qkv: f32[12, 4]
  %0: f32[B, 6, 4] = patch_embed(clip, embed, embed.bias) {tubelet: 2, patch: 2}
  %1: f32[B, 6, 4] = add(%0, pos)
  %2: f32[B, 2, 4] = gather_tokens(%1, context)
  %3: f32[B, 2, 4] = layer_norm(%2, norm.weight, norm.bias) {eps: 1e-6}
  %4: f32[B, 2, 12] = linear(%3, qkv)
  %5: f32[B, 2, 3, 2, 2] = reshape(%4) {shape: [B, 2, 3, 2, 2]}
  %6: f32[3, B, 2, 2, 2] = permute(%5) {axes: [2, 0, 3, 1, 4]}
  %7: f32[1, B, 2, 2, 2] = slice(%6) {axis: 0, start: 0, end: 1}
  %8: f32[B, 2, 2, 2] = reshape(%7) {shape: [B, 2, 2, 2]}
  %9: f32[1, B, 2, 2, 2] = slice(%6) {axis: 0, start: 1, end: 2}
  %10: f32[B, 2, 2, 2] = reshape(%9) {shape: [B, 2, 2, 2]}
  %11: f32[1, B, 2, 2, 2] = slice(%6) {axis: 0, start: 2, end: 3}
  %12: f32[B, 2, 2, 2] = reshape(%11) {shape: [B, 2, 2, 2]}
  %13: f32[B, 2, 2, 2] = attention(%8, %10, %12) {scale: 0.7}
  %14: f32[B, 2, 2, 2] = permute(%13) {axes: [0, 2, 1, 3]}
  %15: f32[B, 2, 4] = reshape(%14) {shape: [B, 2, 4]}
  %16: f32[B, 2, 4] = add(%2, %15)
  %17: f32[B, 2, 4] = abs(%16)
  %18: f32[1, 1, 1] = mean(%17) {axes: [0, 1, 2]}
  output loss = %18
";

/// The whole step, from a forward graph that went through the pipeline or one that did not.
fn step(forward: Graph) -> Graph {
    let mut graph = forward;
    let loss = graph.find_output("loss").unwrap();
    let trained: Vec<_> = ["embed", "embed.bias", "qkv", "norm.weight", "norm.bias"]
        .into_iter()
        .map(|name| graph.find(name).unwrap())
        .collect();
    let grads = differentiate(&mut graph, loss, &trained).unwrap();
    let ema = vec![(graph.find("target.qkv").unwrap(), trained[2])];
    let spec = TrainSpec {
        gradients: trained.iter().copied().zip(grads).collect(),
        decay: vec![trained[0], trained[2]],
        clip: vec![ClipGroup { name: "encoder".into(), params: trained, norm_of: None }],
        ema,
        ..TrainSpec::default()
    };
    append_optimizer(&mut graph, &spec).unwrap();
    graph
}

#[test]
fn the_pipeline_before_and_after_differentiation_keeps_the_step() {
    let plain = step(parse(MODEL).unwrap());
    let mut sources = random_sources(&plain, &sizes(), &mut Rng(3));
    // Second moments and bias corrections are positive.
    sources.values_mut().for_each(|array| array.data.iter_mut().for_each(|x| *x = x.abs()));
    let case = Case { graph: plain, sizes: sizes(), sources };
    let forward = Pipeline::forward().run(&parse(MODEL).unwrap()).unwrap();
    assert!(forward.log.iter().any(|(pass, _)| *pass == "sink-tokens"));
    let optimised = Pipeline::standard().run(&step(forward.graph)).unwrap().graph;
    assert_close(&exact(&case), &roots_of(&optimised, &case.sizes, &case.sources), 1e-9);
    let count = |graph: &Graph, name: &str| graph.nodes.iter().filter(|node| node.op.name() == name).count();
    assert_eq!((count(&case.graph, "pad"), count(&optimised, "pad"), count(&optimised, "concat")), (3, 0, 1));
    assert_eq!((count(&optimised, "adamw"), count(&optimised, "adamw_ema"), count(&optimised, "ema")), (4, 1, 0));
    assert!(optimised.nodes.len() < case.graph.nodes.len());
}

#[test]
fn unknown_names_are_told() {
    let graph = Graph::new("g", &[]);
    let error = Pipeline::standard().stopping_at("inline").run(&graph).unwrap_err().to_string();
    assert!(error.starts_with("there is no pass `inline`; the passes are clean-up, constants, "), "{error}");
}

#[test]
fn passes_of_one_name_are_told_apart() {
    let labels = Pipeline::forward().labels();
    assert!(labels.contains(&"dead-code".to_owned()) && labels.contains(&"dead-code.2".to_owned()));
    let distinct: std::collections::BTreeSet<_> = labels.iter().collect();
    assert_eq!(distinct.len(), labels.len());
}

#[test]
fn stopping_at_cuts_the_list_and_wrong_input_is_told() {
    let case = random_graph(5);
    let all = Pipeline::standard().run(&case.graph).unwrap();
    let one = Pipeline::standard().stopping_at("clean-up").run(&case.graph).unwrap();
    assert!(one.log.len() <= 1 && one.log.len() <= all.log.len());
    let mut broken = case.graph.clone();
    broken.nodes.pop();
    assert!(matches!(Pipeline::standard().run(&broken), Err(PassError::Input(_))));
}

#[test]
fn what_is_computed_again_is_not_kept() {
    let mut plain = parse(&MODEL.replace("abs(%16)", "gelu(%16)")).unwrap();
    plain = step(plain);
    let mut sources = random_sources(&plain, &sizes(), &mut Rng(4));
    sources.values_mut().for_each(|array| array.data.iter_mut().for_each(|x| *x = x.abs()));
    let case = Case { graph: plain, sizes: sizes(), sources };
    let count = |graph: &Graph, name: &str| graph.nodes.iter().filter(|node| node.op.name() == name).count();
    for (what, norms, linears) in [(Recomputed::Elementwise, 2, 1), (Recomputed::Blocks, 2, 2)] {
        let pass = Recompute { output: "loss".to_owned(), what };
        let again = pass.run(&case.graph).unwrap().unwrap().graph;
        verify(&again).unwrap();
        assert_eq!((count(&again, "layer_norm"), count(&again, "linear")), (norms, linears));
        assert_close(&exact(&case), &roots_of(&again, &case.sizes, &case.sources), 1e-12);
    }
    let nothing = Recompute { output: "no such output".to_owned(), what: Recomputed::Blocks };
    assert!(nothing.run(&case.graph).unwrap().is_none());
}

/// The results of linear layers that come back to a GELU keep their bias.
#[test]
fn a_bias_is_left_to_the_gelu_of_its_layer_alone() {
    let case = random_graph(9_927_388_429_565_676_859);
    let fused = FuseBiasGelu.run(&case.graph).unwrap();
    assert!(fused.is_none_or(|fused| fused.graph.nodes.iter().any(|node| node.op.name() == "linear")));
}

proptest! {
    #[test]
    fn every_pass_keeps_what_is_computed(seed in any::<u64>()) {
        let case = random_graph(seed);
        let expected = exact(&case);
        for pass in all() {
            if let Some(changed) = pass.run(&case.graph).unwrap() {
                verify(&changed.graph).unwrap();
                prop_assert!(!changed.changes.is_empty());
                let found = roots_of(&changed.graph, &case.sizes, &case.sources);
                if pass.name() == "decompose" {
                    assert_close_unless_overflowed(&expected, &found);
                } else {
                    assert_close(&expected, &found, 1e-6);
                }
            }
        }
        let optimised = Pipeline::standard().with_verify(true).run(&case.graph).unwrap();
        assert_close(&expected, &roots_of(&optimised.graph, &case.sizes, &case.sources), 1e-6);
        prop_assert!(optimised.graph.nodes.len() <= case.graph.nodes.len() + 20);
    }

    /// What bisection stands on: wherever the list is cut, the graph computes the same.
    #[test]
    fn every_cut_of_the_pipeline_keeps_what_is_computed(seed in any::<u64>(), cut in any::<prop::sample::Index>()) {
        let case = random_graph(seed);
        let training = || Pipeline::training("y", Some(Recomputed::Elementwise), false);
        let labels = training().labels();
        let cut = cut.index(labels.len());
        let mut ran = Vec::new();
        let pipeline = training().stopping_at(&labels[cut]);
        let optimised = pipeline.run_observed(&case.graph, &mut |run| ran.push(run.label.to_owned())).unwrap();
        prop_assert_eq!(&ran, &labels[..=cut]);
        assert_close(&exact(&case), &roots_of(&optimised.graph, &case.sizes, &case.sources), 1e-6);
    }

    /// Gradients of an optimised forward graph, optimised again, are those of the plain one.
    #[test]
    fn passes_around_differentiation_keep_the_gradients(seed in any::<u64>()) {
        let mut case = random_smooth_graph(seed);
        // A pass may move the new value of a parameter, and updates are no part of this.
        case.graph.updates.clear();
        let y = case.graph.find_output("y").unwrap();
        let loss = weighted_sum(&mut case.graph, y);
        case.graph.output("loss", loss);
        let gradients = |graph: Graph| with_gradients(graph, &["x", "w", "b", "kernel"]);
        let plain = roots_of(&gradients(case.graph.clone()), &case.sizes, &case.sources);
        let forward = Pipeline::forward().with_verify(true).run(&case.graph).unwrap().graph;
        let optimised = Pipeline::standard().with_verify(true).run(&gradients(forward)).unwrap().graph;
        assert_close(&plain, &roots_of(&optimised, &case.sizes, &case.sources), 1e-6);
    }
}
