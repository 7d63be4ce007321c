//! Steps whose mask lists are padded, against the recorded data of the official code.

use std::path::{Path, PathBuf};
use vjepa_compiler::passes::REAL;
use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{self, Execution};
use vjepa_programs::{Passes, TrainOptions, gradients_with, mask_shapes, objective, variants};
use vjepa_recipe::config::Config;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn checks(folder: &Path, mask_buckets: Option<usize>) -> Vec<Check> {
    let mut checks = Vec::new();
    let (execution, kind) = (Execution { mask_buckets, ..Execution::default() }, golden::recognise(folder).unwrap());
    golden::run(execution, folder, kind, &mut |check| checks.push(check)).unwrap();
    checks
}

/// Losses, gradients and ten steps within the limits of a step without padding, and not the same in the last digits: sums of
/// other lengths are rounded in another order.
fn compare(folder: &Path, multiples: &[usize]) {
    let told = |checks: &[Check]| checks.iter().map(ToString::to_string).collect::<Vec<String>>();
    let plain = told(&checks(folder, None));
    for &multiple in multiples {
        let padded = checks(folder, Some(multiple));
        let failed: Vec<String> = padded.iter().filter(|check| check.failed()).map(ToString::to_string).collect();
        assert!(failed.is_empty(), "{multiple}: {} of {}:\n{}", failed.len(), padded.len(), failed.join("\n"));
        assert_eq!(padded.len(), plain.len());
        assert_ne!(told(&padded), plain, "nothing was padded");
    }
}

#[test]
fn padded_masks_compute_the_official_numbers() {
    compare(&root("tests/golden/tiny"), &[16, 100]);
}

/// Rotary positions, a cool-down, and clips of two lengths.
#[test]
fn padded_masks_compute_the_official_numbers_of_the_second_generation() {
    compare(&root("tests/golden/vjepa2_train"), &[16]);
}

/// V-JEPA 2.1: the dense loss with its weights, images beside videos in one graph and in groups; where the folder is.
#[test]
fn padded_masks_compute_the_official_numbers_of_the_dense_loss() {
    let folder = root("../shared/golden/vjepa21_tiny");
    match folder.is_dir() {
        true => compare(&folder, &[16]),
        false => println!("{} is not here: not compared", folder.display()),
    }
}

/// Every computation of every generation takes lists with padding.
#[test]
fn all_generations_are_padded() {
    for (file, set) in [
        ("tiny.yaml", &["model.generation=vjepa"][..]),
        ("tiny-vjepa2.yaml", &["model.generation=vjepa2"]),
        ("tiny-vjepa2.yaml", &["model.generation=vjepa2_1"]),
        ("tiny-vjepa2.yaml", &["data.datasets=[a, b]", "data.dataset_fpcs=[4, 8]"]),
        ("mixture-vjepa2_1.yaml", &[]),
        ("vitl16.yaml", &["model.generation=vjepa2"]),
    ] {
        let sets: Vec<String> = set.iter().map(|set| (*set).to_owned()).collect();
        let config = Config::from_file(&root("configs").join(file), &sets).unwrap();
        let options = TrainOptions { mask_buckets: Some(16), ..TrainOptions::of(&config).unwrap() };
        for variant in variants(&config).unwrap() {
            let graph = gradients_with(&variant.objective, options, &mut Passes::default());
            let graph = graph.unwrap_or_else(|error| panic!("{file}, {set:?}, {}: {error}", variant.name()));
            let lists =
                graph.inputs.iter().filter_map(|id| graph.source_name(*id)).filter(|name| name.starts_with(REAL));
            assert!(lists.count() >= 2, "{file}, {set:?}, {}", variant.name());
        }
    }
}

/// Of 1,000 steps of the official ViT-L. Nearly each has a shape of its own; with buckets most have one that was there before.
#[test]
fn few_shapes_for_a_little_arithmetic() {
    let config = Config::from_file(&root("configs/vitl16.yaml"), &[]).unwrap();
    let (masks, objective) = (config.masks().unwrap(), objective(&config).unwrap());
    let drawn = (config.meta.seed, config.data.batch_size, 1000);
    let options = TrainOptions::of(&config).unwrap();
    let shapes = mask_shapes(masks.as_ref(), drawn, &objective, (options, 128)).unwrap();
    let more = shapes.padded_flops / shapes.flops;
    println!("{shapes:?}, {more:.4} times the arithmetic");
    assert!(shapes.padded < shapes.drawn / 2 && more > 1.0 && more < 1.3, "{shapes:?}");
}
