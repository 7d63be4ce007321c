//! The recorded data of the official code on a GPU's back end: `VJEPA_TEST_DEVICE`, else `wgpu`, which may be a software
//! device. The whole of `tiny`: forward, gradients of the first batch, ten optimiser steps.
#![cfg(feature = "wgpu-base")]

use std::path::Path;
use vjepa_collective::Alone;
use vjepa_lab::bench::{DeviceKernel, device_kernels};
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{self, Execution, Kind};
use vjepa_programs::{Precision, initial_weights};
use vjepa_recipe::config::Config;
use vjepa_runtime::plan::{Device, Recorded};
use vjepa_train::{Interrupt, Observer, StepReport, TrainRun, TrainState, train};

fn check(lowered: &str) {
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let device = Device::open(&format!("{device}{lowered}")).unwrap();
    let execution = Execution { device, ..Execution::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
    let mut checks = Vec::new();
    golden::run(execution, &folder, Kind::Training, &mut |check| checks.push(check)).unwrap();
    let failed: Vec<String> = checks.iter().filter(|check| check.failed()).map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), checks.len(), failed.join("\n"));
    // All that `tiny` records, and none of it left out.
    assert!(checks.len() > 300, "{} comparisons", checks.len());
    for (part, most) in [("forward.", 1e-5), ("grad_reg", 1e-4), ("run.", 1e-3)] {
        let worst = checks.iter().filter_map(|check| match check {
            Check::Measured { name, rel_l2, .. } if name.starts_with(part) => Some(*rel_l2),
            _ => None,
        });
        let worst: Vec<f64> = worst.collect();
        let largest = worst.iter().copied().fold(0.0, f64::max);
        println!("{device}, {part}*: {} comparisons, rel-L2 {largest:.1e} at most", worst.len());
        assert!(!worst.is_empty() && largest <= most, "{part}: {largest}");
    }
    println!("{device}: {} comparisons, 0 failed", checks.len());
}

#[test]
fn our_kernels_compute_the_official_numbers() {
    check("");
}

#[test]
fn burns_operations_compute_the_official_numbers() {
    check("-lowered");
}

/// Steps of a small model on the device, and the clips and masks that it is fed.
struct Small {
    config: Config,
    state: TrainState,
}

impl Small {
    /// Of an encoder of so many blocks, with this mask generator.
    fn new(depth: usize, mask: &str) -> Self {
        let text = format!(
            "model: {{embed_dim: 32, depth: {depth}, num_heads: 2, pred_embed_dim: 16, pred_depth: 1, pred_num_heads: 2}}\n\
             data: {{dataset_type: DriftingTextures, batch_size: 2, num_frames: 4, crop_size: 32, patch_size: 8}}\n\
             mask: [{mask}]\n\
             meta: {{dtype: float32, seed: 3}}\n\
             optimization: {{steps: 20, warmup_steps: 5, start_lr: 1.0e-3, lr: 4.0e-3, final_lr: 1.0e-3}}\n"
        );
        let config = Config::from_yaml(&text, "the test's", &[]).unwrap();
        let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
        let plan = config.optimization.plan(Some(1)).unwrap();
        let mut state = TrainState::on(Device::open(&device).unwrap(), &config, plan, false).unwrap();
        state.set_weights(initial_weights(&config.model, state.objective(), 1)).unwrap();
        Self { config, state }
    }

    /// One step; what is read when its losses are, or those of the step before.
    fn step(&mut self, step: usize) -> Option<StepReport> {
        let shape = [2, 3, 4, 32, 32];
        let clips = (0..shape.iter().product::<usize>()).map(|i| ((i * 7919 + step * 31) % 1013) as f32 / 506.5 - 1.0);
        let pairs = self.config.masks().unwrap().pairs(0, step as u64, 0, 2).unwrap();
        self.state.add_group(clips.collect(), shape, &pairs).unwrap();
        self.state.end_step(&Alone).unwrap()
    }
}

/// The losses of a few steps, read when they are computed or when the next step has been sent.
fn losses(late: bool) -> Vec<f64> {
    let mut small = Small::new(1, "{num_blocks: 2, spatial_scale: [0.2, 0.2]}");
    if late {
        small.state.read_late();
    }
    let mut reports = Vec::new();
    for step in 0..4 {
        reports.extend(small.step(step));
        assert_eq!(reports.len(), if late { step } else { step + 1 });
    }
    reports.extend(small.state.settle().unwrap());
    assert!(small.state.settle().unwrap().is_none());
    assert_eq!(reports.iter().map(|report| report.step).collect::<Vec<_>>(), [0, 1, 2, 3]);
    reports.iter().map(|report| report.loss).collect()
}

#[test]
fn losses_that_are_read_late_are_the_same() {
    let (now, late) = (losses(false), losses(true));
    assert!(now == late && now.iter().all(|loss| loss.is_finite()), "{now:?} {late:?}");
}

/// The losses and a weight of steps of one size and of several, launched one by one or recorded and replayed.
fn recorded(blocks: usize, record: bool) -> (Vec<f64>, Vec<f32>, Recorded) {
    let mask = format!("{{num_blocks: {blocks}, spatial_scale: [0.3, 0.3], aspect_ratio: [1.0, 1.0]}}");
    let mut small = Small::new(2, &mask);
    small.state.read_late();
    if record {
        small.state.record_launches();
    }
    let mut reports: Vec<StepReport> = (0..12).filter_map(|step| small.step(step)).collect();
    reports.extend(small.state.settle().unwrap());
    assert_eq!(reports.len(), 12);
    let weight = small.state.params().get("encoder.blocks.1.mlp.fc1.weight").expect("a weight").1;
    let losses = reports.iter().map(|report| report.loss).collect();
    (losses, weight, small.state.recorded().unwrap_or_default())
}

#[test]
fn replayed_launches_compute_the_same_steps() {
    // One block of fixed size leaves one size, two that may overlap several.
    for blocks in [1, 2] {
        let (plain, weight, none) = recorded(blocks, false);
        let (replayed, after, how) = recorded(blocks, true);
        println!("{blocks} blocks: {how:?}");
        assert_eq!(none, Recorded::default());
        assert_eq!(how.refused, None);
        match blocks {
            1 => assert_eq!((how.sizes, how.replays), (1, 10)),
            _ => assert!(how.sizes >= 1 && how.replays >= 1, "{how:?}"),
        }
        assert!(plain == replayed && weight == after, "{plain:?} {replayed:?}");
        assert!(plain.windows(2).all(|two| two[0] != two[1]));
    }
}

/// `vjepa bench kernels --device`: every kernel runs there, and the library's operations in its place.
#[test]
fn kernels_are_timed_beside_the_librarys_operations() {
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let timed = device_kernels(Device::open(&device).unwrap(), 1, true).unwrap();
    assert!(timed.len() > 10, "{}", timed.len());
    for DeviceKernel { name, ours, library, .. } in timed {
        println!("{name}: {ours:.3} ms, {library:.3} ms by the library");
        assert!(ours > 0.0 && ours.is_finite() && library > 0.0 && library.is_finite(), "{name}");
    }
}

/// Forward, the rest being training: the encoder's and the predictor's activations keep f16's three digits.
#[test]
fn products_in_f16_are_near_the_official_numbers() {
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    for lowered in ["", "-lowered"] {
        let device = Device::open(&format!("{device}{lowered}")).unwrap();
        let execution = Execution { device, precision: Precision::F16, ..Execution::default() };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
        let (mut count, mut worst) = (0, 0f64);
        let refused = golden::run(execution, &folder, Kind::Training, &mut |check| {
            if let Check::Measured { name, rel_l2, .. } = check
                && name.starts_with("forward.")
            {
                (count, worst) = (count + 1, rel_l2.max(worst));
            }
        });
        println!("{device}, f16: {count} comparisons, rel-L2 {worst:.1e} at most");
        assert!(count >= 10 && worst > 1e-5 && worst <= 1e-3, "{device}: {count} compared, {worst} at most");
        let said = refused.unwrap_err().to_string();
        assert!(said.contains("a training step in f16 needs its gradients scaled"), "{said}");
    }
}

/// Any folder of golden data, by hand: `VJEPA_GOLDEN=FOLDER cargo test ... --test gpu -- --ignored --nocapture`.
#[test]
#[ignore = "reads VJEPA_GOLDEN"]
fn another_folder_by_hand() {
    let Some(folder) = std::env::var_os("VJEPA_GOLDEN") else { return };
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let execution = Execution { device: Device::open(&device).unwrap(), ..Execution::default() };
    for (folder, kind) in golden::folders(Path::new(&folder)).unwrap() {
        let began = std::time::Instant::now();
        let mut checks = Vec::new();
        golden::run(execution, &folder, kind, &mut |check| checks.push(check)).unwrap();
        let of = |which: fn(&Check) -> bool| checks.iter().filter(|check| which(check)).count();
        let [failed, left] = [of(Check::failed), of(|check| matches!(check, Check::Unsupported { .. }))];
        checks.iter().filter(|check| check.failed()).for_each(|check| println!("{check}"));
        let (name, time) = (folder.display(), began.elapsed().as_secs());
        println!("{name}: {} comparisons, {failed} failed, {left} not supported, {time} s", checks.len() - left);
        assert_eq!(failed, 0);
    }
}

/// Keeps losses.
#[derive(Default)]
struct Losses(Vec<f64>);

impl Observer for Losses {
    fn phase(&mut self, _: &str) {}

    fn step(&mut self, report: &StepReport) {
        self.0.push(report.loss);
    }
}

/// Twenty steps of `configs/quickstart.yaml` on the device and on the CPU, by hand; minutes on a software device.
#[test]
#[ignore = "minutes"]
fn the_quickstart_trains_as_on_the_cpu() {
    let losses = |device: &str| {
        let (folder, began) = (tempfile::tempdir().unwrap(), std::time::Instant::now());
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/quickstart.yaml");
        let sets = [format!("logging.folder={}", folder.path().display()), "logging.diagnostics_every=null".to_owned()];
        let config = Config::from_file(&recipe, &sets).unwrap();
        let run = TrainRun { device: Device::open(device).unwrap(), stop_at: Some(20), ..TrainRun::default() };
        let mut seen = Losses::default();
        train(&config, &run, &Alone, &Interrupt::default(), &mut seen).unwrap();
        println!("{device}: {} steps in {} s, losses {:?}", seen.0.len(), began.elapsed().as_secs(), seen.0);
        seen.0
    };
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let (cpu, gpu) = (losses("cpu"), losses(&device));
    let apart = cpu.iter().zip(&gpu).map(|(cpu, gpu)| (cpu - gpu).abs() / cpu).fold(0.0, f64::max);
    println!("{device}: losses within {apart:.1e} of the CPU's");
    assert!(cpu.len() == 20 && gpu.len() == 20 && apart <= 1e-4, "{apart}");
}
