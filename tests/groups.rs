//! Steps of several groups: gradients added up group after group, then applied.

mod support;

use std::collections::BTreeMap;
use std::path::Path;

use support::{TINY, losses, losses_and_norms, tiny, train, vjepa};
use vjepa_compiler::accumulate::SUM;
use vjepa_compiler::interp;
use vjepa_compiler::ir::{Graph, Sizes};
use vjepa_compiler::plan::Plan;
use vjepa_graphs::{AnyObjective, EncoderConfig, Jepa, JepaLoss, PredictorConfig};
use vjepa_lab::golden::Compare as _;
use vjepa_lab::golden::check::Limit;
use vjepa_programs::{self as compile, MaskSizes, Passes, TrainOptions, initial_weights, mask_sizes};
use vjepa_recipe::config::Config;
use vjepa_runtime::Normalization;
use vjepa_runtime::plan::{Cpu, Executor, HostTensor, Params};
use vjepa_train::Checkpoint;
use vjepa_weights::TensorFile;

const GROUPS: usize = 8;

fn halves(objective: &AnyObjective) -> (Graph, Graph) {
    let options = TrainOptions::default();
    let gradients = compile::gradients_with(objective, options, &mut Passes::default()).unwrap();
    let update = compile::update(objective, options, &gradients).unwrap();
    (gradients, update)
}

/// Shapes of a graph's parameters, which do not depend on sizes.
fn shapes(graph: &Graph) -> BTreeMap<String, Vec<usize>> {
    let shape = |id| graph.ty(id).shape.iter().map(|dim| dim.as_const().unwrap() as usize).collect();
    graph.params.iter().map(|id| (graph.source_name(*id).unwrap().to_owned(), shape(*id))).collect()
}

fn zero(params: &mut Params<Cpu>, graph: &Graph, prefix: &str) {
    for (name, shape) in shapes(graph).into_iter().filter(|(name, _)| name.starts_with(prefix)) {
        params.zeros(&name, &shape);
    }
}

fn sums(params: &Params<Cpu>, graph: &Graph) -> BTreeMap<String, Vec<f32>> {
    let names = shapes(graph).into_keys().filter(|name| name.starts_with(SUM));
    names.map(|name| (name.clone(), params.get(&name).unwrap().1)).collect()
}

/// The relative distance, without the rows of keys, whose bias has a gradient of rounding only.
fn apart(name: &str, got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "{name}");
    let keys = if name.ends_with("qkv.bias") { want.len() / 3..want.len() / 3 * 2 } else { 0..0 };
    let (mut error, mut norm) = (0f64, 0f64);
    for (_, (got, want)) in got.iter().zip(want).enumerate().filter(|(i, _)| !keys.contains(i)) {
        error += f64::from(got - want).powi(2);
        norm += f64::from(*want).powi(2);
    }
    (error / norm.max(1e-16)).sqrt()
}

/// Clips and masks of the recorded run's first steps, as so many groups of one.
fn golden_groups() -> Vec<Vec<(String, HostTensor)>> {
    let forward = TensorFile::read(tiny("forward.safetensors")).unwrap();
    let masks = TensorFile::read(tiny("masks_10steps.safetensors")).unwrap();
    let shape = forward.shape("clip_u8").unwrap().to_vec();
    let sample = shape[1..].iter().product::<usize>();
    let pixels = forward.u8("clip_u8").unwrap().chunks_exact(sample);
    let clip: Vec<f32> = pixels.flat_map(|sample| Normalization::Imagenet.of_planes(sample)).collect();
    let group = |number: usize| {
        let mut clip = clip.clone();
        clip.rotate_right(number % shape[0] * sample);
        let mut inputs = vec![("clip".to_owned(), HostTensor::f32(shape.clone(), clip).unwrap())];
        for name in ["mask_enc.0", "mask_pred.0", "mask_enc.1", "mask_pred.1"] {
            // The golden gradients are of the masks beside them.
            let (file, stored) = match number {
                0 => (&forward, name.to_owned()),
                _ => (&masks, format!("step{number}.{name}")),
            };
            let tokens = file.i64(&stored).unwrap().into_iter().map(|token| token as i32).collect();
            inputs.push((name.to_owned(), HostTensor::i32(file.shape(&stored).unwrap(), tokens).unwrap()));
        }
        inputs
    };
    (0..GROUPS).map(group).collect()
}

fn borrowed(inputs: &[(String, HostTensor)]) -> Vec<(&str, HostTensor)> {
    inputs.iter().map(|(name, tensor)| (name.as_str(), tensor.clone())).collect()
}

fn rates(share: f32) -> Vec<(&'static str, HostTensor)> {
    let rates = [("lr", 1e-3), ("wd", 0.04), ("c1", 0.1), ("c2", 1e-3), ("max_norm", f32::INFINITY), ("momentum", 0.9)];
    rates.into_iter().chain([("share", share)]).map(|(name, rate)| (name, HostTensor::scalar(rate))).collect()
}

#[test]
fn eight_groups_of_the_golden_model_add_up_to_their_mean() {
    let config = Config::from_yaml(TINY, "", &["meta.dtype=float32".into()]).unwrap();
    let (gradients, update) = halves(&compile::objective(&config).unwrap());
    let mut executor = Executor::<Cpu>::new(&gradients).unwrap();
    let mut params = Params::<Cpu>::new(Default::default());
    let weights = TensorFile::read(tiny("weights.safetensors")).unwrap();
    for name in weights.names().map(str::to_owned).collect::<Vec<_>>() {
        let tensor = HostTensor::f32(weights.shape(&name).unwrap(), weights.f32(&name).unwrap()).unwrap();
        params.set(&name, tensor.clone());
        if let Some(name) = name.strip_prefix("encoder.") {
            params.set(&format!("target_encoder.{name}"), tensor);
        }
    }
    let groups = golden_groups();
    // Each group from zero, and the sum by hand.
    let mut by_hand: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        zero(&mut params, &gradients, SUM);
        executor.run(&mut params, borrowed(group)).unwrap();
        let alone = sums(&params, &gradients);
        if number == 0 {
            let golden = TensorFile::read(tiny("grads_reg0.safetensors")).unwrap();
            for (name, values) in alone.iter().filter(|(name, _)| !name.ends_with("qkv.bias")) {
                let check = golden.compare(name, values, Limit::RelL2(1e-4)).unwrap();
                assert!(!check.failed(), "{name}: {check:?}");
            }
        }
        for (name, values) in alone {
            let sum = by_hand.entry(name).or_insert_with(|| vec![0.0; values.len()]);
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
    }
    // All eight in place.
    zero(&mut params, &gradients, SUM);
    groups.iter().for_each(|group| drop(executor.run(&mut params, borrowed(group)).unwrap()));
    let together = sums(&params, &gradients);
    assert_eq!(together.keys().collect::<Vec<_>>(), by_hand.keys().collect::<Vec<_>>());
    for (name, sum) in &together {
        let apart = apart(name, sum, &by_hand[name]);
        assert!(apart <= 2e-6, "{name}: {apart:e}");
    }
    // What is applied is the mean: its norm is reported.
    zero(&mut params, &update, "adam.");
    let outputs = Executor::<Cpu>::new(&update).unwrap().run(&mut params, rates(1.0 / GROUPS as f32)).unwrap();
    for set in ["encoder", "predictor"] {
        let of_set = by_hand.iter().filter(|(name, _)| name.starts_with(&format!("{SUM}{set}.")));
        let squares = of_set.flat_map(|(_, sum)| sum).map(|value| (f64::from(*value) / GROUPS as f64).powi(2));
        let (want, got) = (squares.sum::<f64>().sqrt(), outputs[&format!("grad_norm.{set}")].floats()[0]);
        assert!((f64::from(got) / want - 1.0).abs() < 1e-5, "{set}: {got} against {want}");
    }
}

#[test]
fn eight_groups_agree_with_the_interpreter() {
    let encoder = EncoderConfig { embed_dim: 32, depth: 2, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
    let encoder = encoder.with_clip(4, 16, 16);
    let predictor = PredictorConfig { embed_dim: 16, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
    let objective: AnyObjective = Jepa::plain(encoder, predictor, 2, JepaLoss::default()).into();
    let (gradients, update) = halves(&objective);
    let config = Config::from_yaml(TINY, "", &[]).unwrap();
    let mut params = Params::<Cpu>::new(Default::default());
    let mut sources: BTreeMap<String, interp::Tensor> = BTreeMap::new();
    let mut weights = initial_weights(&config.model, &objective, 3);
    objective.declaration().start_averages(&mut weights);
    for (name, (shape, data)) in weights {
        params.set(&name, HostTensor::f32(shape.clone(), data.clone()).unwrap());
        sources.insert(name, interp::Tensor::f32(shape, data));
    }
    for graph in [&gradients, &update] {
        for prefix in [SUM, "adam."] {
            zero(&mut params, graph, prefix);
            for (name, shape) in shapes(graph).into_iter().filter(|(name, _)| name.starts_with(prefix)) {
                let zeros = vec![0.0; shape.iter().product()];
                sources.insert(name, interp::Tensor::f32(shape, zeros));
            }
        }
    }
    let mut executor = Executor::<Cpu>::new(&gradients).unwrap();
    for group in 0..GROUPS {
        // Another length in every group.
        let (context, target) = (2 + group % 3, 5 - group % 2);
        let clip: Vec<f32> =
            (0..2 * 3 * 4 * 16 * 16).map(|i| ((i * 7919 + group * 131) % 1013) as f32 / 506.5 - 1.0).collect();
        let mut inputs = vec![("clip".to_owned(), HostTensor::f32([2, 3, 4, 16, 16], clip).unwrap())];
        let mut sizes = Sizes::from([("B".to_owned(), 2)]);
        for generator in 0..2 {
            for (kind, symbol, len) in [("mask_enc", "N_ctx", context), ("mask_pred", "N_pred", target)] {
                let tokens = (0..2 * len).map(|i| ((i * 3 + generator + group) % 8) as i32).collect();
                inputs.push((format!("{kind}.{generator}"), HostTensor::i32([2, len], tokens).unwrap()));
                sizes.insert(format!("{symbol}{generator}"), len);
            }
        }
        for (name, tensor) in &inputs {
            let tensor = match tensor.clone() {
                HostTensor::F32 { shape, data } => interp::Tensor::f32(shape, data),
                HostTensor::I32 { shape, data } => interp::Tensor::i32(shape, data),
                HostTensor::Pixels(_) => panic!("{name} is of floats"),
            };
            sources.insert(name.clone(), tensor);
        }
        executor.run(&mut params, borrowed(&inputs)).unwrap();
        sources.extend(interp::run(&gradients, &sizes, &sources).unwrap().updates);
    }
    for (name, sum) in sums(&params, &gradients) {
        let apart = apart(&name, &sum, sources[&name].as_f32().unwrap());
        assert!(apart <= 1e-5, "{name}: {apart:e}");
    }
    let share = 1.0 / GROUPS as f32;
    Executor::<Cpu>::new(&update).unwrap().run(&mut params, rates(share)).unwrap();
    let scalars =
        rates(share).into_iter().map(|(name, rate)| (name.to_owned(), interp::Tensor::scalar(rate.floats()[0])));
    sources.extend(scalars);
    for (name, want) in interp::run(&update, &Sizes::new(), &sources).unwrap().updates {
        let apart = apart(&name, &params.get(&name).unwrap().1, want.as_f32().unwrap());
        assert!(apart <= 1e-4, "{name}: {apart:e}");
    }
}

#[test]
fn shared_updates_make_together_what_one_makes() {
    let config = Config::from_yaml(TINY, "", &["meta.dtype=float32".into()]).unwrap();
    let objective = compile::objective(&config).unwrap();
    let (gradients, whole) = halves(&objective);
    // Which rank has a parameter does not matter: every third, and the others.
    let owner = |parameter: &str| parameter.len().is_multiple_of(3);
    let shard = |first: bool| {
        let mine = |parameter: &str| owner(parameter) == first;
        compile::update_of(&objective, TrainOptions::default(), &[&gradients], &mine).unwrap()
    };
    let run = |graph: &Graph| {
        let mut params = Params::<Cpu>::new(Default::default());
        for (name, shape) in shapes(graph) {
            // By its name, so that each graph begins with the same; second moments are not negative.
            let number = name.bytes().fold(7, |sum, byte| (sum * 31 + usize::from(byte)) % 1_000_003);
            let value = |at: usize| ((at * 7919 + number) % 1013) as f32 / 1013.0;
            let values = (0..shape.iter().product()).map(value).collect();
            params.set(&name, HostTensor::f32(shape, values).unwrap());
        }
        let clipped = rates(0.125).into_iter().map(|(name, rate)| match name {
            "max_norm" => (name, HostTensor::scalar(0.5)),
            _ => (name, rate),
        });
        let outputs = Executor::<Cpu>::new(graph).unwrap().run(&mut params, clipped.collect()).unwrap();
        let updated = graph.updates.iter().map(|(param, _)| graph.source_name(*param).unwrap().to_owned());
        let tensors: BTreeMap<String, Vec<f32>> =
            updated.map(|name| (name.clone(), params.get(&name).unwrap().1)).collect();
        let norms = ["encoder", "predictor"].map(|set| outputs[&format!("grad_norm.{set}")].floats()[0]);
        (norms, tensors)
    };
    let (norms, want) = run(&whole);
    let all = shapes(&whole).into_keys().filter(|name| name.starts_with("adam.m.")).count();
    let mut got = BTreeMap::new();
    for graph in [shard(true), shard(false)] {
        let moments = shapes(&graph).into_keys().filter(|name| name.starts_with("adam.m.")).count();
        assert!(moments > 0 && moments < all, "{moments} of {all}");
        let (own, tensors) = run(&graph);
        assert_eq!(own, norms);
        tensors.into_iter().for_each(|(name, tensor)| assert!(got.insert(name, tensor).is_none()));
    }
    assert!(got == want, "the shards' weights, averages or moments differ");
}

#[test]
fn groups_take_the_memory_of_one_and_a_set_of_gradients() {
    for (model, batch) in [("vit_tiny", 2), ("vit_small", 1)] {
        let yaml = format!(
            "model: {{model_name: {model}, pred_depth: 6}}\ndata: {{batch_size: {batch}}}\nmeta: {{dtype: float32}}"
        );
        let config = Config::from_yaml(&yaml, "", &[]).unwrap();
        let objective = compile::objective(&config).unwrap();
        let whole = compile::step(&objective, TrainOptions::default()).unwrap();
        let (gradients, update) = halves(&objective);
        let sizes = mask_sizes(config.masks().unwrap().as_ref(), 0, batch, MaskSizes::Largest).unwrap();
        let peak = |graph: &Graph| Plan::new(graph).unwrap().memory(graph, &sizes).unwrap().peak as f64;
        let bytes = |graph: &Graph, prefix: &str| -> f64 {
            let named = shapes(graph).into_iter().filter(|(name, _)| name.starts_with(prefix));
            named.map(|(_, shape)| 4.0 * shape.iter().product::<usize>() as f64).sum()
        };
        let (moments, sums) = (bytes(&update, "adam."), bytes(&gradients, SUM));
        let allowed = 1.05 * (peak(&whole) + sums);
        let (first, second) = (peak(&gradients) + moments, peak(&update));
        assert!(first <= allowed && second <= allowed, "{model}: {first:e} and {second:e}, allowed {allowed:e}");
    }
}

#[test]
fn a_run_of_several_groups_resumes_bit_for_bit() {
    let groups = ["--set", "optimization.groups=3", "--set", "data.batch_size=2"];
    let [whole, parts, eager] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let output = train(whole.path(), &groups).assert().success().get_output().stderr.clone();
    let said = String::from_utf8(output).unwrap();
    assert!(said.contains("3 groups of 2 clips a step, one after another here: about "), "{said}");
    assert!(said.contains("`--set optimization.groups=1` trains on 2"), "{said}");
    train(parts.path(), &groups).args(["--stop-at", "3"]).assert().success();
    train(parts.path(), &groups).arg("--resume").assert().success();
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap().0;
    assert!(load(whole.path()) == load(parts.path()), "weights or moments differ after resuming");
    assert!(load(whole.path()).keys().all(|name| !name.starts_with(SUM)));
    assert_eq!(losses_and_norms(whole.path()), losses_and_norms(parts.path()));
    train(eager.path(), &groups).arg("--eager").assert().success();
    for (compiled, eager) in losses(whole.path()).iter().zip(losses(eager.path())) {
        assert!((compiled - eager).abs() <= 1e-4 * eager, "compiled {compiled}, eager {eager}");
    }
}

#[test]
fn two_halves_compute_what_the_whole_step_does() {
    let [whole, halves] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    train(whole.path(), &[]).assert().success();
    // A limit that is never reached.
    train(halves.path(), &["--set", "optimization.skip_above=1e9"]).assert().success();
    let (whole, halves) = (losses(whole.path()), losses(halves.path()));
    assert_eq!((whole.len(), halves.len()), (6, 6));
    for (whole, halves) in whole.iter().zip(halves) {
        assert!((whole - halves).abs() <= 1e-6 * whole, "{whole} and {halves}");
    }
}

#[test]
fn steps_above_the_limit_change_nothing_and_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let skip = ["--set", "optimization.skip_above=1e-6"];
    train(folder.path(), &skip).args(["--stop-at", "1"]).assert().success();
    let load = || Checkpoint::new(folder.path(), "jepa").load().unwrap();
    let (before, _) = load();
    let output =
        train(folder.path(), &skip).args(["--resume", "--json"]).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(output).unwrap();
    let summary: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["steps"], &summary["skipped"]), (&6.into(), &6.into()), "{summary}");
    let (after, record) = load();
    assert!(before == after, "a skipped step changed something");
    assert_eq!((record.step, record.skipped), (6, 6));
}

#[test]
fn both_halves_are_shown_and_the_first_can_be_compiled_ahead_of_time() {
    let folder = tempfile::tempdir().unwrap();
    let graph = |name: &str, extra: &[&str]| {
        let mut command = vjepa();
        command.args(["graph", name, "--config"]).arg(support::recipe());
        for set in support::SMALL_RUN {
            command.args(["--set", set]);
        }
        let output = command.args(extra).assert().success().get_output().stdout.clone();
        String::from_utf8(output).unwrap()
    };
    let gradients = graph("gradients", &["--emit", "ir"]);
    assert!(gradients.contains("grad/encoder.") && !gradients.contains("adam."), "{gradients}");
    let update = graph("update", &["--emit", "ir"]);
    assert!(update.contains("adamw_ema") && update.contains("share") && !update.contains("linear("), "{update}");
    let plan = folder.path().join("gradients.vjg");
    graph("gradients", &["--out", plan.to_str().unwrap()]);
    let [now, ahead] = ["now", "ahead"].map(|name| folder.path().join(name));
    let groups = ["--set", "optimization.groups=2"];
    train(&now, &groups).assert().success();
    train(&ahead, &groups).arg("--plan").arg(&plan).assert().success();
    assert_eq!(losses(&now), losses(&ahead));
    // The whole step has one group.
    let step = folder.path().join("step.vjg");
    graph("step", &["--out", step.to_str().unwrap()]);
    let output = train(&folder.path().join("other"), &groups).arg("--plan").arg(&step).assert().failure();
    let said = String::from_utf8_lossy(&output.get_output().stderr).into_owned();
    assert!(said.contains("is the graph `step`") && said.contains("vjepa graph gradients"), "{said}");
}
