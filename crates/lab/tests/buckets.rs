//! Steps whose mask lists are padded, against the recorded data of the official code.

use std::path::Path;
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{self, Engine, Kind};
use vjepa_programs::{TrainOptions, mask_shapes, objective};
use vjepa_recipe::config::Config;

fn checks(mask_buckets: Option<usize>) -> Vec<Check> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/tiny");
    let mut checks = Vec::new();
    let engine = Engine { mask_buckets, ..Engine::default() };
    golden::run(engine, &folder, Kind::Training, &mut |check| checks.push(check)).unwrap();
    checks
}

/// Losses, gradients and ten steps within the limits of a step without padding.
#[test]
fn padded_masks_compute_the_official_numbers() {
    let plain = checks(None).len();
    for multiple in [16, 100] {
        let padded = checks(Some(multiple));
        let failed: Vec<String> = padded.iter().filter(|check| check.failed()).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{multiple}: {} of {}:\n{}", failed.len(), padded.len(), failed.join("\n"));
        assert_eq!(padded.len(), plain);
    }
}

/// Of 1,000 steps of the official ViT-L. Nearly each has a shape of its own; with buckets most have one that was there before.
#[test]
fn few_shapes_for_a_little_arithmetic() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/vitl16.yaml");
    let config = Config::from_file(&file, &[]).unwrap();
    let (masks, objective) = (config.masks().unwrap(), objective(&config).unwrap());
    let drawn = (config.meta.seed, config.data.batch_size, 1000);
    let options = TrainOptions::of(&config).unwrap();
    let shapes = mask_shapes(masks.as_ref(), drawn, &objective, (options, 128)).unwrap();
    let more = shapes.padded_flops / shapes.flops;
    println!("{shapes:?}, {more:.4} times the arithmetic");
    assert!(shapes.padded < shapes.drawn / 2 && more > 1.0 && more < 1.3, "{shapes:?}");
}
