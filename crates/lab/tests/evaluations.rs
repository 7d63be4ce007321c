//! What evaluations compute equals the official code's: every quantity of the folders in `tests/golden`, and of the whole ones
//! beside the repository where they are there.

use std::path::{Path, PathBuf};

use vjepa_lab::golden::check::Check;
use vjepa_lab::golden::{Execution, Kind, recognise, run};
use vjepa_runtime::plan::Device;

/// All checks of a folder, of which none fails.
fn verified(dir: &Path) -> Vec<Check> {
    verified_on(Execution::default(), dir)
}

fn verified_on(execution: Execution, dir: &Path) -> Vec<Check> {
    let kind = recognise(dir).expect("a folder of golden data");
    assert_ne!(kind, Kind::Other, "{}", dir.display());
    let mut checks = Vec::new();
    run(execution, dir, kind, &mut |check| checks.push(check)).unwrap();
    let bad: Vec<String> = checks.iter().filter(|check| check.failed()).map(Check::to_string).collect();
    assert!(bad.is_empty(), "{}: {}", dir.display(), bad.join("\n"));
    checks
}

/// The places that a folder may be in.
fn places(folder: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let all = ["tests/golden", "../shared/golden"].map(|place| root.join(place).join(folder));
    all.into_iter().filter(|dir| dir.is_dir()).collect()
}

fn left_out(checks: &[Check]) -> Vec<&str> {
    checks.iter().filter(|check| matches!(check, Check::Unsupported { .. })).map(Check::name).collect()
}

#[test]
fn augmentation_and_pictures() {
    for (folder, least) in [("eval_augment", 100), ("eval_images", 60), ("eval_mixup", 20)] {
        let places = places(folder);
        assert!(!places.is_empty(), "{folder} is part of the repository");
        for dir in places {
            let checks = verified(&dir);
            println!("{}: {} quantities", dir.display(), checks.len());
            assert!(checks.len() > least, "{}: {} quantities", dir.display(), checks.len());
            let stills_without_weights = folder == "eval_images" && !dir.join("../tiny/weights.safetensors").is_file();
            assert_eq!(left_out(&checks).len(), usize::from(stills_without_weights), "{}", dir.display());
        }
    }
}

#[test]
fn a_probe_with_its_first_weights_is_compared_whole() {
    for dir in places("probe") {
        let checks = verified(&dir);
        let initial = dir.join("weights_initial.safetensors").is_file();
        let names: Vec<&str> = checks.iter().map(Check::name).collect();
        let trained = names.iter().filter(|name| name.contains("clf_initial.train")).count();
        assert_eq!(trained, if initial { 2 } else { 0 }, "{names:?}");
        // The logits of several clips were recorded with weights that are in no file.
        assert_eq!(left_out(&checks).len(), if initial { 2 } else { 4 }, "{:?}", left_out(&checks));
    }
}

/// Logits, first gradients, five steps of AdamW with layer decay. The repository carries one of two poolings, and no drops.
#[test]
fn fine_tuning_steps_of_the_compiled_plan() {
    let places = places("eval_finetune");
    assert!(!places.is_empty(), "eval_finetune is part of the repository");
    for dir in places {
        let checks = verified(&dir);
        let whole = dir.join("weights_fc_norm.safetensors").is_file();
        let steps = |pooling: &str| {
            let part = |name: &str| name.starts_with(&format!("finetune.{pooling}."));
            checks.iter().filter(|check| part(check.name()) && matches!(check, Check::Measured { .. })).count()
        };
        println!("{}: {} quantities, {} and {}", dir.display(), checks.len(), steps("norm"), steps("fc_norm"));
        assert!(steps("norm") > 60 && (!whole || steps("fc_norm") > 60 && steps("droppath") > 5));
        let absent = ["finetune.fc_norm.steps", "finetune.droppath.steps"];
        assert_eq!(left_out(&checks), if whole { &[][..] } else { &absent });
    }
}

/// `cpu-lowered` computes RoIAlign with its gradient as devices do.
#[test]
fn boxes_on_the_cpu_and_as_devices_compute_them() {
    for dir in places("eval_detection") {
        let [cpu, lowered] = ["cpu", "cpu-lowered"].map(|device| {
            let execution = Execution { device: Device::open(device).unwrap(), ..Execution::default() };
            verified_on(execution, &dir)
        });
        let names = |checks: &[Check]| checks.iter().map(|check| check.name().to_owned()).collect::<Vec<_>>();
        println!("{}: {} quantities, {:?} left out", dir.display(), lowered.len(), left_out(&lowered));
        assert_eq!((names(&lowered), left_out(&lowered)), (names(&cpu), left_out(&cpu)));
        assert!(!left_out(&lowered).iter().any(|name| name.contains("roi")), "{:?}", left_out(&lowered));
    }
}

#[test]
fn wrong_numbers_fail_and_damage_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let from = places("eval_mixup").remove(0);
    for name in ["info.json", "mixup.safetensors"] {
        std::fs::copy(from.join(name), folder.path().join(name)).unwrap();
    }
    let path = folder.path().join("info.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let fails = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut failed = Vec::new();
        let kind = recognise(folder.path()).unwrap();
        run(Execution::default(), folder.path(), kind, &mut |check| {
            if check.failed() {
                failed.push(check.name().to_owned());
            }
        })
        .map(|()| failed)
        .map_err(|error| error.to_string())
    };
    assert_eq!(fails(&text), Ok(Vec::new()));
    // One more unit in the last place of a random number.
    let wrong = text.replacen("0.4236547993389047", "0.42365479933890476", 1);
    assert_ne!(wrong, text);
    assert_eq!(fails(&wrong), Ok(vec!["mixup.seed0.next_numpy".to_owned()]));
    assert!(fails(&text.replacen("\"lam\"", "\"lan\"", 1)).unwrap_err().contains("info.json"));
}
