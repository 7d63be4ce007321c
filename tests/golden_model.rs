//! The compiled model against the official code's numbers, and against itself on other paths.
//!
//! The parity ladder: eager Burn modules with Burn's autodiff, the IR interpreter (f64 inside), and the plan that training
//! runs, all on one tiny step. Then `vjepa verify golden` on the carried data.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use burn::tensor::{Device, Int, Tensor, TensorData};
use predicates::prelude::PredicateBooleanExt;
use predicates::str::contains;
use vjepa_compiler::interp;
use vjepa_compiler::ir::{Def, Graph, Sizes};
use vjepa_graphs::init::{self, Init};
use vjepa_graphs::{
    AttentiveClassifier, Encoder, EncoderConfig, Jepa, JepaLoss, MaskPair, NamedTensors, Predictor, PredictorConfig,
    ProbeConfig, cross_entropy, gradients, load_parameters, one_hot,
};
use vjepa_lab::golden;
use vjepa_lab::golden::{Execution, Kind};
use vjepa_programs as compile;
use vjepa_programs::{Passes, Probe, TrainOptions};
use vjepa_runtime::plan::{Cpu, Executor, HostTensor, Params};

const BATCH: usize = 3;
const LOSS: JepaLoss = JepaLoss { loss_exp: 1.0, reg_coeff: 0.5 };
/// Token indices of each generator, the same for every sample but for a shift: context, then target.
const MASKS: [(&[usize], &[usize]); 2] = [(&[0, 2, 5], &[1, 3, 4, 6]), (&[1, 7], &[0, 2, 3, 5, 6])];

fn small() -> (EncoderConfig, PredictorConfig) {
    let encoder = EncoderConfig { embed_dim: 32, depth: 2, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
    let encoder = encoder.with_clip(4, 16, 16);
    let predictor = PredictorConfig { embed_dim: 16, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
    (encoder, predictor)
}

/// Something without structure, the same everywhere.
fn noise(count: usize, scale: f32) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 1013) as f32 / 506.5 - 1.0) * scale).collect()
}

fn masks() -> Vec<(String, Vec<usize>, Vec<i32>)> {
    let index = |tokens: &[usize]| -> Vec<i32> {
        (0..BATCH).flat_map(|b| tokens.iter().map(move |token| ((token + b) % 8) as i32)).collect()
    };
    let generators = MASKS.iter().enumerate();
    let named = generators
        .flat_map(|(i, (context, target))| [(format!("mask_enc.{i}"), *context), (format!("mask_pred.{i}"), *target)]);
    named.map(|(name, tokens)| (name, vec![BATCH, tokens.len()], index(tokens))).collect()
}

/// Everything a step reads, by name: inputs, weights, zero moments.
fn sources(graph: &Graph) -> BTreeMap<String, HostTensor> {
    let (encoder, predictor) = small();
    let clip = [BATCH, 3, 4, 16, 16];
    let clip = HostTensor::f32(clip, noise(clip.iter().product(), 1.5)).unwrap();
    let mut sources = BTreeMap::from([("clip".to_owned(), clip)]);
    for (name, shape, data) in masks() {
        sources.insert(name, HostTensor::i32(shape, data).unwrap());
    }
    for (name, value) in [("lr", 1e-3), ("wd", 0.04), ("c1", 0.1), ("c2", 1e-3), ("max_norm", 0.5), ("momentum", 0.9)] {
        sources.insert(name.to_owned(), HostTensor::scalar(value));
    }
    let weights = [
        ("encoder", init::encoder(&encoder, Init::Xavier, 1)),
        ("target_encoder", init::encoder(&encoder, Init::Xavier, 1)),
        ("predictor", init::predictor(&predictor, Init::Xavier, false, 1)),
    ];
    for (model, weights) in weights {
        for (name, (shape, data)) in weights {
            sources.insert(format!("{model}.{name}"), HostTensor::f32(shape, data).unwrap());
        }
    }
    for id in &graph.params {
        let Def::Param(name) = &graph.value(*id).def else { continue };
        if name.starts_with("adam.") {
            let shape: Vec<usize> = graph.ty(*id).shape.iter().map(|dim| dim.as_const().unwrap() as usize).collect();
            let zeros = vec![0.0; shape.iter().product()];
            sources.insert(name.clone(), HostTensor::f32(shape, zeros).unwrap());
        }
    }
    sources
}

fn step(optimise: bool) -> Graph {
    let (encoder, predictor) = small();
    let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
    let mut passes = if optimise { Passes::default() } else { Passes::none() };
    let objective = Jepa::plain(encoder, predictor, MASKS.len(), LOSS);
    compile::step_with(&objective.into(), options, &mut passes).unwrap()
}

/// Outputs and updated parameters, by name.
type Results = BTreeMap<String, Vec<f32>>;

fn by_plan(graph: &Graph) -> Results {
    let mut params = Params::<Cpu>::new(Default::default());
    let mut inputs = Vec::new();
    let all = sources(graph);
    let is_input = |name: &str| graph.inputs.iter().any(|id| graph.source_name(*id) == Some(name));
    for (name, tensor) in &all {
        if is_input(name) {
            inputs.push((name.as_str(), tensor.clone()));
        } else {
            params.set(name, tensor.clone());
        }
    }
    let outputs = Executor::<Cpu>::new(graph).unwrap().run(&mut params, inputs).unwrap();
    let mut results: Results = outputs.into_iter().map(|(name, tensor)| (name, tensor.into_floats())).collect();
    for (param, _) in &graph.updates {
        let name = graph.source_name(*param).unwrap();
        results.insert(format!("new/{name}"), params.get(name).unwrap().1);
    }
    results
}

fn by_interpreter(graph: &Graph) -> Results {
    let mut sizes = Sizes::from([("B".to_owned(), BATCH)]);
    for (i, (context, target)) in MASKS.iter().enumerate() {
        sizes.insert(format!("N_ctx{i}"), context.len());
        sizes.insert(format!("N_pred{i}"), target.len());
    }
    let tensor = |tensor: HostTensor| match tensor {
        HostTensor::F32 { shape, data } => interp::Tensor::f32(shape, data),
        HostTensor::I32 { shape, data } => interp::Tensor::i32(shape, data),
        HostTensor::Pixels(pixels) => panic!("{pixels:?} is none of the inputs"),
    };
    let all = sources(graph).into_iter().map(|(name, source)| (name, tensor(source))).collect();
    let results = interp::run(graph, &sizes, &all).unwrap();
    let updates = results.updates.into_iter().map(|(name, tensor)| (format!("new/{name}"), tensor));
    let all = results.outputs.into_iter().chain(updates);
    all.map(|(name, tensor)| (name, tensor.as_f32().unwrap().to_vec())).collect()
}

/// Losses and gradients only.
fn by_eager() -> Results {
    let device = Device::flex().autodiff();
    let (encoder, predictor) = small();
    let load = |weights: NamedTensors| load_parameters(Encoder::empty(&encoder, &device).unwrap(), weights).unwrap();
    let weights = || init::encoder(&encoder, Init::Xavier, 1);
    let (student, teacher) = (load(weights()), load(weights()));
    let narrow = Predictor::empty(&predictor, &device).unwrap();
    let narrow = load_parameters(narrow, init::predictor(&predictor, Init::Xavier, false, 1)).unwrap();
    let clip = [BATCH, 3, 4, 16, 16];
    let clip = Tensor::from_data(TensorData::new(noise(clip.iter().product(), 1.5), clip), &device);
    let masks: Vec<Tensor<2, Int>> =
        masks().into_iter().map(|(_, shape, data)| Tensor::from_data(TensorData::new(data, shape), &device)).collect();
    let pairs: Vec<MaskPair> = masks
        .chunks(2)
        .map(|pair| MaskPair { context: pair[0].clone(), target: pair[1].clone(), weights: None })
        .collect();
    let out = LOSS.forward(&student, &narrow, &teacher, clip, &pairs).unwrap();
    let scalar = |tensor: Tensor<1>| tensor.into_data().try_into_vec_as::<f32>().unwrap();
    let mut results = Results::from([
        ("loss".to_owned(), scalar(out.loss.clone())),
        ("loss_jepa".to_owned(), scalar(out.loss_jepa)),
        ("loss_reg".to_owned(), scalar(out.loss_reg)),
    ]);
    let backward = out.loss.backward();
    for (model, found) in [("encoder", gradients(&student, &backward)), ("predictor", gradients(&narrow, &backward))] {
        results.extend(found.into_iter().map(|(name, (_, values))| (format!("grad/{model}.{name}"), values)));
    }
    results
}

/// Every result of `want` is in `got`, within `limit` of its norm. Key biases have gradients of rounding only.
fn assert_close(path: &str, got: &Results, want: &Results, limit: f64) {
    for (name, want) in want {
        let got = got.get(name).unwrap_or_else(|| panic!("{path} has no {name}"));
        assert_eq!(got.len(), want.len(), "{path} {name}");
        let keys = match name {
            name if name.ends_with("qkv.bias") => want.len() / 3..want.len() / 3 * 2,
            name if name.ends_with("kv.bias") => 0..want.len() / 2,
            _ => 0..0,
        };
        let (mut error, mut norm) = (0f64, 0f64);
        for (i, (got, want)) in got.iter().zip(want).enumerate().filter(|(i, _)| !keys.contains(i)) {
            assert!(got.is_finite(), "{path} {name}[{i}] is {got}");
            error += f64::from(got - want).powi(2);
            norm += f64::from(*want).powi(2);
        }
        let rel = (error / norm.max(1e-20)).sqrt();
        assert!(rel <= limit, "{path} {name}: {rel:e}");
    }
}

#[test]
fn plan_interpreter_and_eager_modules_agree() {
    let graph = step(true);
    let (plan, interpreter, eager) = (by_plan(&graph), by_interpreter(&graph), by_eager());
    assert_eq!(plan.keys().collect::<Vec<_>>(), interpreter.keys().collect::<Vec<_>>());
    assert!(eager.len() > 50);
    // AdamW's first step divides gradients by their own size, so rounding shows more in what it makes.
    let (updates, direct): (Results, Results) = interpreter.into_iter().partition(|(name, _)| name.starts_with("new/"));
    assert_close("plan against interpreter,", &plan, &direct, 1e-5);
    assert_close("plan against interpreter,", &plan, &updates, 1e-4);
    assert_close("plan against eager modules,", &plan, &eager, 1e-5);
}

#[test]
fn passes_keep_what_the_step_computes() {
    let (plain, optimised) = (step(false), step(true));
    assert!(optimised.nodes.len() < plain.nodes.len());
    let (plain, optimised) = (by_plan(&plain), by_plan(&optimised));
    assert_eq!(plain.keys().collect::<Vec<_>>(), optimised.keys().collect::<Vec<_>>());
    let (updates, direct): (Results, Results) = plain.into_iter().partition(|(name, _)| name.starts_with("new/"));
    assert_close("optimised", &optimised, &direct, 1e-5);
    assert_close("optimised", &optimised, &updates, 1e-4);
}

#[test]
fn a_probe_step_has_the_gradients_of_the_eager_probe() {
    let config = ProbeConfig::for_encoder(&small().0, 4);
    let (shape, labels) = ([BATCH, 5, 32], [2usize, 0, 3]);
    let weights = init::probe(&config, 1);

    let device = Device::flex().autodiff();
    let probe = AttentiveClassifier::empty(&config, &device).unwrap();
    let probe = load_parameters(probe, weights.clone()).unwrap();
    let features = Tensor::from_data(TensorData::new(noise(shape.iter().product(), 1.0), shape), &device);
    let loss = cross_entropy(probe.forward(features).unwrap(), one_hot(&labels, 4, &device).unwrap()).unwrap();
    let found = gradients(&probe, &loss.backward());
    let eager: Results = found.into_iter().map(|(name, (_, values))| (format!("grad/probe.{name}"), values)).collect();

    let options = TrainOptions { export_gradients: true, ..TrainOptions::default() };
    let graph = compile::probe_step(&Probe::Attentive(config), options).unwrap();
    let mut params = Params::<Cpu>::new(Default::default());
    for (name, (shape, data)) in weights {
        let zeros = HostTensor::f32(shape.clone(), vec![0.0; data.len()]).unwrap();
        params.set(&format!("adam.m.probe.{name}"), zeros.clone());
        params.set(&format!("adam.v.probe.{name}"), zeros);
        params.set(&format!("probe.{name}"), HostTensor::f32(shape, data).unwrap());
    }
    let rows = labels.iter().flat_map(|label| (0..4).map(move |class| f32::from(u8::from(class == *label))));
    let mut inputs = vec![
        ("features", HostTensor::f32(shape, noise(shape.iter().product(), 1.0)).unwrap()),
        ("labels", HostTensor::f32([BATCH, 4], rows.collect()).unwrap()),
    ];
    let rates = [("lr", 1e-3), ("wd", 0.01), ("c1", 0.1), ("c2", 1e-3), ("max_norm", 1.0)];
    inputs.extend(rates.map(|(name, value)| (name, HostTensor::scalar(value))));
    let outputs = Executor::<Cpu>::new(&graph).unwrap().run(&mut params, inputs).unwrap();
    let plan: Results = outputs.into_iter().map(|(name, tensor)| (name, tensor.into_floats())).collect();
    let exported = plan.keys().filter(|name| name.starts_with("grad/")).count();
    assert_eq!(exported, eager.len(), "the projection that is never applied has no gradient");
    assert_close("plan against eager probe,", &plan, &eager, 1e-5);
}

fn carried(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder)
}

/// Nothing fails, and at least `count` quantities are compared.
fn assert_verified(folder: &str, kind: Kind, count: usize) {
    assert_eq!(golden::recognise(&carried(folder)), Some(kind));
    let mut checks = Vec::new();
    golden::run(Execution::default(), &carried(folder), kind, &mut |check| checks.push(check)).unwrap();
    let failures: Vec<String> = checks.iter().filter(|check| check.failed()).map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let passed = checks.iter().filter(|check| matches!(check, golden::check::Check::Measured { .. })).count();
    assert!(passed >= count, "{folder}: {passed}");
}

#[test]
fn forward_losses_gradients_and_ten_steps_are_the_official_ones() {
    // Schedules, masks, activations, losses and norms, two sets of gradients, step 1, step 10 with averages, outputs.
    assert_verified("tiny", Kind::Training, 4 + 40 + 13 + 20 + 2 * 73 + 72 + 112 + 7);
}

#[test]
fn probes_and_views_are_the_official_ones() {
    assert_verified("probe", Kind::Probe, 11);
}

#[test]
fn tables_gelu_and_first_weights_are_the_official_ones() {
    assert_verified("extra", Kind::Extra, 28);
}

fn verify() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vjepa"));
    command.args(["verify", "golden"]);
    command
}

#[test]
fn the_command_prints_a_line_a_quantity() {
    let output = verify().arg(carried("schedules")).arg("--json").assert().success();
    let lines = String::from_utf8(output.get_output().stdout.clone()).unwrap();
    assert_eq!(lines.lines().count(), 15);
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["name", "rel_l2", "max_abs", "limit", "pass"] {
            assert!(line.get(key).is_some(), "{line}");
        }
    }
    // A folder of folders: every one it holds, each line under its folder's name.
    verify().arg(carried("")).assert().success().stdout(contains("tiny.forward.encoder_out:"));
}

#[test]
fn a_difference_fails_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(carried("schedules/schedules.json")).unwrap();
    std::fs::write(folder.path().join("schedules.json"), text.replacen("0.0002000", "0.0002001", 1)).unwrap();
    let failed = verify().arg(folder.path()).assert().code(1);
    failed.stdout(contains("FAIL schedules.vitl16.0")).stderr(contains("1 of 15 quantities"));
}

#[test]
fn nothing_to_compare_with_is_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    verify().arg(folder.path()).assert().code(1).stderr(contains("holds no golden data"));
    verify().arg(folder.path().join("nowhere")).assert().code(1).stderr(contains("nowhere"));
    // A rotary model's configuration without its sizes.
    std::fs::write(folder.path().join("config.json"), r#"{"img": 64, "d_dim": 10}"#).unwrap();
    verify().arg(folder.path()).assert().code(1).stderr(contains("config.json").and(contains("missing field")));
    std::fs::write(folder.path().join("config.json"), "{").unwrap();
    verify().arg(folder.path()).assert().code(1).stderr(contains("config.json"));
}
