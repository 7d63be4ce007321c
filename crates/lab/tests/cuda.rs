//! The recorded data of the official code on `cuda:0`: a GPU, or the stand-in for driver and compiler that runs kernels on the
//! processor (`tests/gpu/stand-in`). The whole of `tiny` in f32, whose products are TF32 there, and in bf16.
#![cfg(feature = "cuda-base")]

use std::path::Path;
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{self, Execution, Kind};
use vjepa_programs::Precision;
use vjepa_runtime::plan::Device;

/// The largest rel-L2 of each part: activations, gradients of the first batch, and of ten steps losses, norms and parameters.
fn check(precision: Precision, limits: [(&str, f64); 3]) {
    let device = Device::open("cuda:0").unwrap();
    let engine = Execution { device, precision, ..Execution::default() };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
    let mut checks = Vec::new();
    golden::run(engine, &folder, Kind::Training, &mut |check| checks.push(check)).unwrap();
    assert!(checks.len() > 300, "{} comparisons", checks.len());
    let unsupported = checks.iter().find(|check| matches!(check, Check::Unsupported { .. }));
    assert!(unsupported.is_none(), "{unsupported:?}");
    for (part, most) in limits {
        let found = checks.iter().filter_map(|check| match check {
            Check::Measured { name, rel_l2, .. } if name.starts_with(part) => Some((*rel_l2, name)),
            _ => None,
        });
        let found: Vec<(f64, &String)> = found.collect();
        let (largest, name) = found.iter().copied().max_by(|a, b| a.0.total_cmp(&b.0)).expect(part);
        println!(
            "{device}, {precision:?}, {part}*: {} comparisons, rel-L2 {largest:.1e} at most ({name})",
            found.len()
        );
        // Each by itself: a NaN is in no order.
        for (error, name) in &found {
            assert!(*error <= most, "{name}: {error}");
        }
    }
}

/// TF32 has ten bits.
#[test]
#[ignore = "needs a device that runs kernels"]
fn in_f32() {
    check(Precision::F32, [("forward.", 3e-3), ("grad_reg", 1e-2), ("run.", 1e-2)]);
}

/// bf16 has eight bits, and small gradients differ by more.
#[test]
#[ignore = "needs a device that runs kernels"]
fn in_bf16() {
    check(Precision::Bf16, [("forward.", 2e-2), ("grad_reg", 0.1), ("run.", 5e-2)]);
}
