//! The recorded data of the official code on a GPU's back end: `VJEPA_TEST_DEVICE`, else `wgpu`, which may be a software
//! device. The whole of `tiny`: forward, gradients of the first batch, ten optimiser steps.
#![cfg(feature = "wgpu-base")]

use std::path::Path;
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{self, Engine, Kind};
use vjepa_programs::Precision;
use vjepa_runtime::plan::Device;

fn check(lowered: &str) {
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    let device = Device::open(&format!("{device}{lowered}")).unwrap();
    let engine = Engine { device, ..Engine::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
    let mut checks = Vec::new();
    golden::run(engine, &folder, Kind::Training, &mut |check| checks.push(check)).unwrap();
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

/// Forward, the rest being training: the encoder's and the predictor's activations keep f16's three digits.
#[test]
fn products_in_f16_are_near_the_official_numbers() {
    let device = std::env::var("VJEPA_TEST_DEVICE").unwrap_or_else(|_| "wgpu".to_owned());
    for lowered in ["", "-lowered"] {
        let device = Device::open(&format!("{device}{lowered}")).unwrap();
        let engine = Engine { device, precision: Precision::F16, ..Engine::default() };
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
        let (mut count, mut worst) = (0, 0f64);
        let refused = golden::run(engine, &folder, Kind::Training, &mut |check| {
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
    let engine = Engine { device: Device::open(&device).unwrap(), ..Engine::default() };
    for (folder, kind) in golden::folders(Path::new(&folder)).unwrap() {
        let began = std::time::Instant::now();
        let mut checks = Vec::new();
        golden::run(engine, &folder, kind, &mut |check| checks.push(check)).unwrap();
        let of = |which: fn(&Check) -> bool| checks.iter().filter(|check| which(check)).count();
        let [failed, left] = [of(Check::failed), of(|check| matches!(check, Check::Unsupported { .. }))];
        checks.iter().filter(|check| check.failed()).for_each(|check| println!("{check}"));
        let (name, time) = (folder.display(), began.elapsed().as_secs());
        println!("{name}: {} comparisons, {failed} failed, {left} not supported, {time} s", checks.len() - left);
        assert_eq!(failed, 0);
    }
}
