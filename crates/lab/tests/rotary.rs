//! V-JEPA 2 and 2.1 through compiled plans equal the official code: `vjepa verify golden` on the folders of `tests/golden`, and
//! on those that are too large to carry where they lie beside the repository.
//! With `VJEPA_GOLDEN=DIR` every folder of golden data there is compared too, such as one of other sizes and seeds.

use std::path::{Path, PathBuf};

use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{Execution, Kind, folders, recognise, run};

/// All checks of a folder hold; how many could not be made.
fn verified(dir: &Path, kind: Kind) -> usize {
    let mut checks: Vec<Check> = Vec::new();
    let outcome = run(Execution::default(), dir, kind, &mut |check| checks.push(check));
    let left_out = checks.iter().filter(|check| matches!(check, Check::Unsupported { .. })).count();
    let bad: Vec<String> = checks.iter().filter(|check| check.failed()).map(Check::to_string).collect();
    println!("{}: {} quantities, {} left out", dir.display(), checks.len(), left_out);
    assert!(bad.is_empty(), "{}\n{outcome:?}", bad.join("\n"));
    outcome.unwrap();
    left_out
}

/// A folder of this repository or beside it, of which every quantity is compared.
fn own(folder: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places: [PathBuf; 2] = ["tests/golden", "../shared/golden"].map(|place| root.join(place).join(folder));
    let Some(dir) = places.into_iter().find(|dir| dir.is_dir()) else {
        println!("{folder} is not here: not compared");
        return;
    };
    let kind = recognise(&dir).expect("a folder of golden data");
    assert_ne!(kind, Kind::Other);
    assert_eq!(verified(&dir, kind), 0, "{folder}");
}

/// A folder beside the repository, whose part that is carried has no expected outputs.
fn own_beside(folder: &str, left_out: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden").join(folder);
    match recognise(&dir) {
        Some(kind) => assert_eq!(verified(&dir, kind), left_out, "{folder}"),
        None => println!("{folder} is not here: not compared"),
    }
}

#[test]
fn a_small_model() {
    own("vjepa2_tiny");
}

#[test]
fn pre_training_and_cool_down() {
    own("vjepa2_train");
}

#[test]
fn probes() {
    own("vjepa2_probe");
}

#[test]
fn levels_images_and_the_dense_loss() {
    own("vjepa21_tiny");
}

#[test]
fn released_files() {
    own_beside("vjepa2_hub", 0);
    own_beside("vjepa2_hf", 0);
}

#[test]
fn every_folder_that_is_given() {
    let Some(root) = std::env::var_os("VJEPA_GOLDEN") else { return };
    for (dir, kind) in folders(Path::new(&root)).unwrap() {
        verified(&dir, kind);
    }
}
