//! Behaviour of `vjepa train`: the real binary in a scratch folder.

mod support;

use std::path::Path;
use std::time::Duration;
use support::{SMALL_RUN, losses, losses_and_norms, recipe, train};
use vjepa_recipe::config::ObjectiveName;
use vjepa_train::Checkpoint;

#[test]
fn a_resumed_run_ends_where_an_uninterrupted_one_does() {
    let (whole, parts) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(whole.path(), &[]).assert().success();
    train(parts.path(), &["--stop-at", "3"]).assert().success();
    train(parts.path(), &["--resume"]).assert().success();
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap();
    let ((a, record), (b, resumed)) = (load(whole.path()), load(parts.path()));
    assert_eq!((record.step, resumed.step), (6, 6));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, (_, values)) in &a {
        assert!(values == &b[name].1, "`{name}` differs after resuming");
    }
    assert_eq!(losses_and_norms(whole.path()), losses_and_norms(parts.path()));
    assert_eq!(losses(whole.path()).len(), 6);
}

#[test]
fn the_compiled_step_and_burns_autodiff_agree_on_every_objective() {
    for objective in ObjectiveName::ALL.map(ObjectiveName::name) {
        let (compiled, eager) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let set = format!("loss.objective={objective}");
        let watched = ["--set", &set, "--set", "logging.diagnostics_every=3"];
        train(compiled.path(), &watched).assert().success();
        train(eager.path(), &["--eager", "--set", &set]).assert().success();
        let (compiled, eager) = (losses(compiled.path()), losses(eager.path()));
        assert_eq!((compiled.len(), eager.len()), (6, 6), "{objective}");
        for (step, (a, b)) in compiled.iter().zip(eager).enumerate() {
            assert!((a - b).abs() <= 1e-4 * b.abs(), "{objective}, step {step}: compiled {a}, eager {b}");
        }
    }
}

#[test]
fn a_teacher_is_the_encoder_of_its_checkpoint_and_stays() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    train(first.path(), &[]).assert().success();
    let of_teacher = format!("loss.teacher={}", first.path().join("jepa-latest.safetensors").display());
    let run = |more: &[&str]| {
        let sets = ["--set", "loss.objective=teacher", "--set", &of_teacher, "--set", "meta.seed=7"];
        train(second.path(), &[&sets[..], more].concat())
    };
    run(&["--stop-at", "3"]).assert().success();
    run(&["--resume"]).assert().success();
    let load = |folder: &Path| Checkpoint::new(folder, "jepa").load().unwrap().0;
    let (source, trained) = (load(first.path()), load(second.path()));
    let teacher: Vec<&String> = trained.keys().filter(|name| name.starts_with("teacher.")).collect();
    assert!(teacher.len() > 10 && !trained.keys().any(|name| name.contains("target_encoder")));
    for name in teacher {
        let taken = &source[&name.replace("teacher.", "target_encoder.")];
        assert!(taken.1 == trained[name].1, "`{name}` is not that of the checkpoint");
    }
    assert_ne!(trained["encoder.norm.weight"].1, source["encoder.norm.weight"].1);
    // A teacher of another size, and one that nobody asked for.
    for (sets, words) in [
        (vec![of_teacher.as_str(), "loss.objective=teacher", "model.embed_dim=48"], "encoder."),
        (vec![of_teacher.as_str()], "`loss.teacher`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let sets: Vec<&str> = sets.into_iter().flat_map(|set| ["--set", set]).collect();
        let output = train(folder.path(), &sets).assert().failure().get_output().stderr.clone();
        let text = String::from_utf8(output).unwrap();
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn a_second_run_does_not_overwrite_the_first() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "2"]).assert().success();
    let before = std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap();
    let output = train(folder.path(), &[]).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&output).contains("--resume"), "{}", String::from_utf8_lossy(&output));
    assert_eq!(before, std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap());
}

#[test]
fn a_run_without_a_step_saves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let summary = |extra: &[&str]| {
        let output = train(folder.path(), extra).arg("--json").assert().success().get_output().stdout.clone();
        let text = String::from_utf8(output).unwrap();
        serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).unwrap()
    };
    let nothing = summary(&["--stop-at", "0"]);
    assert!(nothing["loss"].is_null() && nothing["checkpoint"].is_null(), "{nothing}");
    assert!(!folder.path().join("jepa-latest.safetensors").exists());
    // Neither is the run after it refused, nor does a finished one forget its loss.
    let done = summary(&[]);
    assert!(done["loss"].is_number() && done["checkpoint"].is_string(), "{done}");
    let again = summary(&["--resume"]);
    assert_eq!((&again["loss"], &again["checkpoint"]), (&done["loss"], &done["checkpoint"]));
}

#[test]
fn a_loss_that_is_no_number_stops_the_run_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &["--stop-at", "3"]).assert().success();
    let before = std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap();
    let wild = ["--resume", "--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
    let output = train(folder.path(), &wild).assert().failure().get_output().stderr.clone();
    let message = String::from_utf8_lossy(&output);
    assert!(message.contains("at step") && message.contains("optimization.lr"), "{message}");
    assert_eq!(before, std::fs::read(folder.path().join("jepa-latest.safetensors")).unwrap());
}

#[test]
fn diagnostics_survive_a_run_that_fails_and_one_that_is_resumed() {
    let folder = tempfile::tempdir().unwrap();
    let steps = || -> Vec<u64> {
        let text = std::fs::read_to_string(folder.path().join("jepa-diagnostics.jsonl")).unwrap();
        let step = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["step"].as_u64().unwrap();
        text.lines().map(step).collect()
    };
    let watched = ["--set", "logging.diagnostics_every=2"];
    train(folder.path(), &watched).args(["--stop-at", "3"]).assert().success();
    assert_eq!(steps(), [2, 3]);
    train(folder.path(), &watched).args(["--resume", "--stop-at", "5"]).assert().success();
    assert_eq!(steps(), [2, 3, 4, 5]);
    // What was measured after the checkpoint at 5 is measured again, and what was before it stays, in a run that fails too.
    let wild = ["--resume", "--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
    let longer = ["--set", "optimization.steps=20"];
    train(folder.path(), &watched).args(wild).args(longer).assert().failure();
    assert_eq!(steps(), [2, 3, 4, 5, 6]);
}

#[cfg(unix)]
#[test]
fn signals_of_schedulers_save_and_leave_with_a_code_of_their_own() {
    for signal in ["-TERM", "-USR1"] {
        stopped_by(signal);
    }
}

#[cfg(unix)]
fn stopped_by(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_vjepa"));
    child.args(["train", "--config"]).arg(recipe());
    for set in SMALL_RUN {
        child.args(["--set", set]);
    }
    child.args(["--set", "optimization.steps=100000", "--set", "logging.checkpoint_every=100000"]);
    child.arg("--set").arg(format!("logging.folder={}", folder.path().display()));
    let mut child = child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Metrics are written every step: once there are rows, training is under way.
    let metrics = folder.path().join("jepa-metrics.csv");
    let deadline = std::time::Instant::now() + Duration::from_secs(120);
    while std::fs::read_to_string(&metrics).map_or(0, |text| text.lines().count()) < 3 {
        assert!(std::time::Instant::now() < deadline, "the run did not start");
        std::thread::sleep(Duration::from_millis(50));
    }
    std::process::Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75), "{signal}");
    let (_, record) = Checkpoint::new(folder.path(), "jepa").load().unwrap();
    assert!(record.step > 0 && record.step < 100_000);
}

#[test]
fn clips_that_evaluation_spaces_otherwise_are_told() {
    let folder = tempfile::tempdir().unwrap();
    let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    let datasets = format!("data.datasets=[{}]", textures.display());
    let seconds = ["--stop-at", "0", "--set", "data.clip_duration=0.3"];
    let videos = ["--set", "data.dataset_type=VideoDataset", "--set", &datasets];
    let told = |extra: &[&str]| {
        let output = train(folder.path(), extra).assert().success().get_output().stderr.clone();
        String::from_utf8(output).unwrap()
    };
    let note = told(&[&seconds[..], &videos].concat());
    assert!(note.contains("`data.clip_duration` (0.3 s)") && note.contains("`data.sampling_rate` (1)"), "{note}");
    // In one line with every key of the file that means nothing, also where it says the default.
    let useless = told(&[&seconds[..], &["--set", "data.pin_mem=true", "--set", "meta.use_sdpa=true"]].concat());
    let lines: Vec<&str> = useless.lines().filter(|line| line.contains("of no effect here")).collect();
    assert_eq!(lines.len(), 1, "{useless}");
    assert!(
        ["`data.clip_duration`", "`data.pin_mem`", "`meta.use_sdpa`"].iter().all(|key| lines[0].contains(key)),
        "{useless}"
    );
    assert!(!useless.contains("decode_one_clip"), "{useless}");
    assert!(!told(&["--stop-at", "0"]).contains("clip_duration"));
}

/// Rounding to whole pixels is all that distinguishes the two; a resumed run has the same bytes.
#[test]
fn clips_of_bytes_train_like_those_of_floats() {
    let folder = tempfile::tempdir().unwrap();
    let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    let datasets = format!("data.datasets=[{}]", textures.display());
    let videos = ["data.dataset_type=VideoDataset", &datasets, "data.normalization=imagenet", "data.num_clips=2"];
    let run = |name: &str, extra: &[&str]| {
        let mut command = train(&folder.path().join(name), extra);
        command.args(videos.iter().flat_map(|set| ["--set", *set]));
        command.assert().success();
        losses(&folder.path().join(name))
    };
    let bytes = ["--set", "data.clip_bytes=true"];
    let (floats, whole) = (run("floats", &[]), run("bytes", &bytes));
    assert!(floats.len() == 6 && floats != whole, "{whole:?}");
    for (a, b) in floats.iter().zip(&whole) {
        assert!((a - b).abs() < 5e-3 * a, "{floats:?} {whole:?}");
    }
    run("parts", &[&bytes[..], &["--stop-at", "3"]].concat());
    let workers = ["--resume", "--set", "data.num_workers=0"];
    assert_eq!(run("parts", &[&bytes[..], &workers].concat()), whole);
    let eager = run("eager", &[&bytes[..], &["--eager"]].concat());
    assert!(eager.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-4 * a), "{eager:?} {whole:?}");
    for (more, why) in [("data.normalization=per_clip", "per_clip"), ("data_aug.reprob=0.3", "erases")] {
        let mut refused = train(&folder.path().join("no"), &bytes);
        refused.args(videos.iter().chain([&more]).flat_map(|set| ["--set", *set]));
        let told = refused.assert().failure().get_output().stderr.clone();
        assert!(String::from_utf8_lossy(&told).contains(why), "{more}: {told:?}");
    }
}

#[test]
fn wrong_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (set, words) in [
        ("data.crop_size=33", "crop_size"),
        ("model.num_heads=5", "num_heads"),
        ("optimization.lrr=1", "lr"),
        ("meta.dtype=float16", "bfloat16"),
    ] {
        let output = train(folder.path(), &["--set", set]).assert().failure().get_output().stderr.clone();
        let message = String::from_utf8_lossy(&output);
        assert!(message.contains(words), "{set}: {message}");
    }
}
