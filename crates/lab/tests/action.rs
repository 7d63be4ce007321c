//! V-JEPA 2-AC against a PyTorch model written from its description (`action.py`): the compiled plans, and the ONNX files on
//! ONNX Runtime where Python has one.

use std::path::{Path, PathBuf};
use std::process::Command;

use vjepa_compiler::ir::Graph;
use vjepa_deploy::{Export, Form, Origin, action};
use vjepa_programs::{self as programs, ActionModel};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, HostTensor};
use vjepa_weights::{TensorFile, Weights};

/// Heads that shapes do not show, and the size of frames.
const CONFIG: &str = "
data: {num_frames: 2, tubelet_size: 2, crop_size: 48, patch_size: 16}
model: {generation: vjepa2, embed_dim: 48, depth: 2, num_heads: 3, pred_embed_dim: 36, pred_depth: 2, pred_num_heads: 2}
";
const FRAMES: usize = 3;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/vjepa2_ac").join(name)
}

fn config() -> Config {
    Config::from_yaml(CONFIG, "", &[]).unwrap()
}

fn opened() -> (Weights, ActionModel) {
    let weights = vjepa_weights::load(&golden("released.pt")).unwrap();
    let model = programs::action_model(&weights, Some(&config()), FRAMES).unwrap();
    (weights, model)
}

/// What a graph gives, by the plan.
fn run(graph: &Graph, weights: &Weights, model: &ActionModel, inputs: &[(&str, &str)]) -> Vec<f32> {
    let io = TensorFile::read(golden("io.safetensors")).unwrap();
    let graph = programs::optimised(graph).unwrap();
    let mut params = Device::CPU.params();
    for id in &graph.params {
        let name = graph.source_name(*id).unwrap();
        let stored = name.strip_prefix("encoder.").map(|rest| format!("{}.{rest}", model.entry));
        let (shape, data) = weights.get(stored.as_deref().unwrap_or(name)).unwrap();
        params.set(name, HostTensor::F32 { shape, data });
    }
    let tensor =
        |stored: &str| HostTensor::F32 { shape: io.shape(stored).unwrap().to_vec(), data: io.f32(stored).unwrap() };
    let inputs = inputs.iter().map(|(input, stored)| (*input, tensor(stored))).collect();
    let outputs = Device::CPU.plan(&graph).unwrap().run(&mut params, inputs).unwrap();
    outputs.into_values().next().unwrap().floats().to_vec()
}

/// Relative L2 distance from a recorded tensor.
fn distance(got: &[f32], stored: &str) -> f64 {
    let want = TensorFile::read(golden("io.safetensors")).unwrap().f32(stored).unwrap();
    assert_eq!(got.len(), want.len(), "{stored}");
    let apart: f64 = got.iter().zip(&want).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let size: f64 = want.iter().map(|b| f64::from(*b).powi(2)).sum();
    (apart / size).sqrt()
}

#[test]
fn plans_give_the_numbers_of_the_description() {
    let (weights, model) = opened();
    let frames = programs::frame_tokens(&model.encoder, FRAMES).unwrap();
    let apart = distance(&run(&frames, &weights, &model, &[("clip", "clip")]), "tokens");
    assert!(apart <= 1e-5, "tokens: {apart:.1e}");
    let predictor = programs::action_predictor(&model.predictor).unwrap();
    let inputs = [("tokens", "tokens"), ("states", "states"), ("actions", "actions")];
    let next = run(&predictor, &weights, &model, &inputs);
    let apart = distance(&next, "next_tokens");
    assert!(apart <= 1e-5, "next_tokens: {apart:.1e}");
    // The comparison would notice poses taken for actions.
    let swapped = [("tokens", "tokens"), ("states", "actions"), ("actions", "states")];
    assert!(distance(&run(&predictor, &weights, &model, &swapped), "next_tokens") > 1e-2);
}

#[test]
fn its_encoder_is_one_of_the_second_generation() {
    let (weights, model) = opened();
    let described = programs::describe(&weights, Some(&config())).unwrap();
    assert_eq!(described.encoder.parameter_shapes(), model.encoder.parameter_shapes());
}

#[test]
fn both_files_are_written_and_run() {
    let folder = tempfile::tempdir().unwrap();
    let (checkpoint, config, out) = (golden("released.pt"), config(), folder.path().join("action"));
    let request = Export {
        origin: Origin::Checkpoint(&checkpoint),
        probe: None,
        config: Some(&config),
        out: &out,
        shown_as: &out,
        verify: true,
        ort_lib: None,
        form: Form { frames: Some(FRAMES), ..Form::default() },
    };
    let exported = action::write(&request).unwrap();
    for parity in [&exported.encoder_parity, &exported.predictor_parity] {
        let runs = |wanted: &str| {
            parity.iter().any(|(name, parity)| *name == wanted && matches!(parity, vjepa_deploy::Parity::Agrees { .. }))
        };
        assert!(runs("tract"));
        assert!(runs("ort") || std::env::var("VJEPA_REQUIRE_ORT").is_err());
    }
    let Ok(python) = std::env::var("VJEPA_PYTHON") else {
        assert!(std::env::var("VJEPA_REQUIRE_ORT").is_err(), "VJEPA_PYTHON is not set");
        return;
    };
    let script = "
import sys, numpy, onnxruntime
from safetensors.numpy import load_file
io = load_file(sys.argv[2])
for name, outputs in ('encoder', 'tokens'), ('predictor', 'next_tokens'):
    session = onnxruntime.InferenceSession(f'{sys.argv[1]}/{name}.onnx', providers=['CPUExecutionProvider'])
    for batch in 2, 1:
        feed = {i.name: io[i.name][:batch] for i in session.get_inputs()}
        apart = numpy.abs(session.run([outputs], feed)[0] - io[outputs][:batch]).max()
        assert apart <= 1e-4, f'{name}, batch {batch}: {apart}'
";
    let run = Command::new(python).args(["-c", script]).arg(&out).arg(golden("io.safetensors")).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn other_models_are_refused_by_name() {
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/vjepa2_hf/model");
    let weights = vjepa_weights::load(&other).unwrap();
    let told = programs::action_model(&weights, None, FRAMES).unwrap_err().to_string();
    assert!(told.contains("V-JEPA 2") && told.contains("reads actions"), "{told}");
    // Nothing says how many heads an unreleased size has.
    let weights = vjepa_weights::load(&golden("released.pt")).unwrap();
    let told = programs::action_model(&weights, None, FRAMES).unwrap_err().to_string();
    assert!(told.contains("model.num_heads"), "{told}");
}
