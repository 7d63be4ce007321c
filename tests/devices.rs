//! The same numbers on every path: with the CPU's kernels, lowered to Burn's operations as other devices take them, and in
//! bf16.

mod support;

use std::path::Path;
use support::{refused, tiny, vjepa};
use vjepa_graphs::NamedTensors;
use vjepa_lab::golden;
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{Execution, Kind};
use vjepa_programs::Precision;
use vjepa_programs::initial_weights;
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::Device;
use vjepa_train::{StepReport, TrainState};

const STEPS: u64 = 5;

fn config(dtype: &str) -> Config {
    let yaml = format!(
        "model: {{embed_dim: 32, depth: 2, num_heads: 2, pred_embed_dim: 16, pred_depth: 1, pred_num_heads: 2}}\n\
         data: {{dataset_type: DriftingTextures, batch_size: 3, num_frames: 4, crop_size: 32, patch_size: 8}}\n\
         mask: [{{num_blocks: 2, spatial_scale: [0.2, 0.2]}}, {{num_blocks: 1, spatial_scale: [0.5, 0.5]}}]\n\
         meta: {{dtype: {dtype}, seed: 3}}\n\
         optimization: {{steps: 20, warmup_steps: 0, clip_grad: 1.0, start_lr: 1.0e-3, lr: 1.0e-3, final_lr: 1.0e-3}}\n"
    );
    Config::from_yaml(&yaml, "the test's", &[]).unwrap()
}

/// A few optimiser steps from the same weights on the same clips.
fn steps(device: &str, dtype: &str) -> (Vec<StepReport>, NamedTensors) {
    let config = config(dtype);
    let plan = config.optimization.plan(Some(1)).unwrap();
    let mut state = TrainState::on(Device::open(device).unwrap(), &config, plan, false).unwrap();
    state.set_weights(initial_weights(&config.model, state.objective(), 1)).unwrap();
    let masks = config.masks().unwrap();
    let shape = [3, 3, 4, 32, 32];
    let report = |step| {
        let count = shape.iter().product::<usize>();
        let clips = (0..count).map(|i| ((i * 7919 + step as usize * 31) % 1013) as f32 / 506.5 - 1.0).collect();
        state.train_step(clips, shape, &masks.pairs(0, step, 0, 3).unwrap()).unwrap()
    };
    let reports = (0..STEPS).map(report).collect();
    (reports, state.weights())
}

fn relative(a: f64, b: f64) -> f64 {
    (a - b).abs() / b.abs().max(1e-12)
}

fn compare(
    name: &str,
    (a, weights): &(Vec<StepReport>, NamedTensors),
    (b, others): &(Vec<StepReport>, NamedTensors),
    limit: f64,
) {
    for (a, b) in a.iter().zip(b) {
        assert!(relative(a.loss, b.loss) <= limit, "{name}, step {}: {} and {}", a.step, a.loss, b.loss);
        for ((_, a), (_, b)) in a.grad_norms.iter().zip(&b.grad_norms) {
            assert!(relative(*a, *b) <= 20.0 * limit, "{name}: norms {a} and {b}");
        }
    }
    assert_eq!(weights.keys().collect::<Vec<_>>(), others.keys().collect::<Vec<_>>());
    for (tensor, (_, values)) in weights.iter().filter(|(tensor, _)| !tensor.starts_with("adam.")) {
        // AdamW divides gradients by their size: where one is rounding only, steps differ by up to the rate.
        let pairs = values.iter().zip(&others[tensor].1);
        let far = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
        assert!(far <= 1.1e-3 * 2.0 * STEPS as f32, "{name}: `{tensor}` is {far} apart");
        let mean = values.iter().zip(&others[tensor].1).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>();
        // The bias of the keys has no gradient but rounding.
        let keys = if tensor.ends_with("qkv.bias") { 1e-3 } else { 0.0 };
        assert!(mean / values.len() as f64 <= 2.0 * limit + keys, "{name}: `{tensor}`, {mean}");
    }
}

#[test]
fn kernels_and_burns_operations_train_alike() {
    let kernels = steps("cpu", "float32");
    compare("lowered", &steps("cpu-lowered", "float32"), &kernels, 2e-5);
    // The emulation and Burn's own bf16 tensors round at different places.
    let narrow = steps("cpu", "bfloat16");
    compare("bf16, lowered", &steps("cpu-lowered", "bfloat16"), &narrow, 5e-3);
    compare("bf16", &narrow, &kernels, 1e-2);
    assert_ne!(narrow.0.first().map(|report| report.loss), kernels.0.first().map(|report| report.loss));
}

fn checks(execution: Execution, folder: &str, kind: Kind) -> Vec<Check> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let mut checks = Vec::new();
    golden::run(execution, &folder, kind, &mut |check| checks.push(check)).unwrap();
    checks
}

#[test]
fn the_lowered_model_is_the_official_one() {
    let execution = Execution { device: Device::open("cpu-lowered").unwrap(), ..Execution::default() };
    for (folder, kind) in [("tiny", Kind::Training), ("probe", Kind::Probe)] {
        let failed: Vec<String> =
            checks(execution, folder, kind).iter().filter(|check| check.failed()).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{}", failed.join("\n"));
    }
}

#[test]
fn bf16_activations_are_near_the_official_f32_ones() {
    for device in ["cpu", "cpu-lowered"] {
        let execution =
            Execution { device: Device::open(device).unwrap(), precision: Precision::Bf16, mask_buckets: None };
        let (mut count, mut worst) = (0, 0f64);
        for check in checks(execution, "tiny", Kind::Training) {
            if let Check::Measured { name, rel_l2, .. } = check
                && name.starts_with("forward.")
            {
                assert!(rel_l2 <= 2e-2, "{device}, {name}: {rel_l2}");
                (count, worst) = (count + 1, rel_l2.max(worst));
            }
        }
        assert!(count >= 10 && worst > 1e-4, "{device}: {count} compared, {worst} at most");
    }
}

#[test]
fn limits_can_be_widened_for_coarser_arithmetic() {
    let folder = tiny("");
    let narrow = ["verify", "golden", "--precision", "bf16"];
    vjepa().args(narrow).arg(&folder).assert().code(1);
    vjepa().args(["verify", "golden", "--relax", "0.5"]).arg(&folder).assert().code(1);
}

#[test]
fn devices_that_are_not_there_are_told_in_a_sentence() {
    for (device, words) in [("tpu", "cuda:N"), ("cuda:x", "cuda:N"), ("cuda:-1", "cuda:N")] {
        let error = refused(vjepa().args(["bench", "infer", "--device", device]));
        assert!(error.contains(&format!("--device {device}")) && error.contains(words), "{error}");
    }
    #[cfg(not(feature = "cuda-base"))]
    for command in [vec!["bench", "step"], vec!["verify", "golden", "."]] {
        let error = refused(vjepa().args(command).args(["--device", "cuda:0"]));
        assert!(error.contains("this build has no CUDA; build with --features cuda"), "{error}");
    }
}
