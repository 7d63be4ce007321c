//! `vjepa quickstart`, shortened: every stage runs and the document has what it promises.

mod support;

use assert_cmd::Command;
use std::time::Duration;

fn quickstart(extra: &[&str], folder: &std::path::Path) -> serde_json::Value {
    let mut command = Command::cargo_bin("vjepa").unwrap();
    command.args(["quickstart", "--steps", "6", "--json", "--out"]).arg(folder).args(extra);
    let output = command.timeout(Duration::from_secs(900)).assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

fn exists(found: &serde_json::Value, names: &[&str]) {
    for name in names {
        let path = found["files"][name].as_str().unwrap_or_else(|| panic!("no `{name}` among the files"));
        assert!(std::path::Path::new(path).exists(), "{path} does not exist");
    }
}

/// Runs on ONNX Runtime too where the test command has brought it.
fn runtimes() -> Vec<&'static str> {
    let required = std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1");
    if required { vec!["tract", "ort"] } else { vec!["tract"] }
}

#[test]
fn on_textures() {
    let folder = tempfile::tempdir().unwrap();
    let found = quickstart(&["--seed", "3"], folder.path());
    for task in ["texture", "motion"] {
        for encoder in ["random", "pretrained"] {
            for probe in ["linear", "attentive"] {
                let accuracy = found["accuracy"][task][encoder][probe].as_f64().unwrap();
                assert!((0.05..=1.0).contains(&accuracy), "{task} {encoder} {probe}: {accuracy}");
            }
        }
    }
    for runtime in runtimes() {
        assert!(found["parity"][runtime]["max_abs"].as_f64().unwrap() <= 1e-4, "{}", found["parity"]);
        assert!(found["latency_ms"][runtime].as_f64().unwrap() > 0.0);
        // Even six steps in, a linear probe on 1,600 labels tells textures of decoded files far above chance, 1/8.
        assert!(found["file_accuracy"][runtime].as_f64().unwrap() > 0.3, "{}", found["file_accuracy"]);
    }
    exists(&found, &["checkpoint", "model", "probe", "masks", "features", "training", "videos", "metrics"]);
}

#[test]
fn on_a_folder_of_videos_with_a_broken_one() {
    let (videos, out) = (some_videos(), tempfile::tempdir().unwrap());
    std::fs::write(videos.path().join("broken.mp4"), vec![7u8; 4000]).unwrap();
    let found = quickstart(&["--videos", &videos.path().display().to_string()], out.path());
    whole_on_videos(&found);
}

/// Without the evaluation on textures, which takes minutes and knows no generations.
#[test]
fn of_the_second_generation() {
    let (videos, out) = (some_videos(), tempfile::tempdir().unwrap());
    let found = quickstart(&["--model", "vjepa2", "--videos", &videos.path().display().to_string()], out.path());
    whole_on_videos(&found);
    let checkpoint = vjepa_weights::load(found["files"]["checkpoint"].as_str().unwrap().as_ref()).unwrap();
    let name = checkpoint.later_generation().unwrap();
    assert!(name.starts_with("V-JEPA 2 "), "{name}");
}

fn some_videos() -> tempfile::TempDir {
    let videos = tempfile::tempdir().unwrap();
    let clips = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
    for (i, entry) in std::fs::read_dir(clips).unwrap().map(Result::unwrap).enumerate() {
        if entry.path().extension().is_some_and(|extension| extension == "mp4") && i % 4 == 0 {
            std::fs::copy(entry.path(), videos.path().join(entry.file_name())).unwrap();
        }
    }
    videos
}

/// The summary of a run on videos, and its files.
fn whole_on_videos(found: &serde_json::Value) {
    assert!(found["diagnostics"]["effective_rank"].as_f64().unwrap() > 1.0);
    for runtime in runtimes() {
        assert!(found["parity"][runtime]["max_abs"].as_f64().unwrap() <= 1e-4, "{}", found["parity"]);
    }
    exists(found, &["checkpoint", "model", "neighbours", "masks", "features", "training"]);
}

#[test]
fn another_runs_checkpoint_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    support::train(folder.path(), &["--stop-at", "1"]).assert().success();
    let files = ["jepa-latest.safetensors", "jepa-metrics.csv"].map(|name| folder.path().join(name));
    let before = files.each_ref().map(|file| std::fs::read(file).unwrap());
    let videos = tempfile::tempdir().unwrap();
    for extra in [None, Some(["--videos", &videos.path().display().to_string()])] {
        let mut command = support::vjepa();
        command.args(["quickstart", "--steps", "2", "--out"]).arg(folder.path()).args(extra.iter().flatten());
        let message = support::refused(&mut command);
        assert!(message.contains("jepa-latest.safetensors") && message.contains("another --out"), "{message}");
        assert_eq!(before, files.each_ref().map(|file| std::fs::read(file).unwrap()));
    }
}

/// `vjepa train` on the quickstart's own recipe is a run like any other.
#[test]
fn a_run_of_the_same_recipe_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let mut train = support::vjepa();
    train.args(["train", "--config"]).arg(support::recipe()).arg("--set");
    train.arg(format!("logging.folder={}", folder.path().display()));
    for set in ["optimization.steps=2", "optimization.warmup_steps=1", "logging.diagnostics_every=null"] {
        train.args(["--set", set]);
    }
    let told = train.assert().success().get_output().stderr.clone();
    // Of our own recipe every key has an effect.
    assert!(!String::from_utf8_lossy(&told).contains("of no effect"), "{}", String::from_utf8_lossy(&told));
    let message = support::refused(support::vjepa().args(["quickstart", "--steps", "2", "--out"]).arg(folder.path()));
    assert!(message.contains("was not written by `vjepa quickstart`"), "{message}");
}

#[test]
fn one_readable_video_is_refused_before_training() {
    let (videos, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::copy(support::texture("t0_d0_s0.mp4"), videos.path().join("good.mp4")).unwrap();
    std::fs::write(videos.path().join("broken.mp4"), vec![7u8; 4000]).unwrap();
    let mut command = support::vjepa();
    command.args(["quickstart", "--steps", "2", "--videos"]).arg(videos.path()).arg("--out").arg(out.path());
    let message = support::refused(&mut command);
    assert!(message.contains("fewer than two"), "{message}");
    assert!(!out.path().join("jepa-metrics.csv").exists());
}

#[test]
fn too_few_steps_are_refused_as_an_argument() {
    let output = support::vjepa().args(["quickstart", "--steps", "1"]).assert().code(2).get_output().stderr.clone();
    let message = String::from_utf8_lossy(&output);
    assert!(message.contains("--steps"), "{message}");
}

#[cfg(unix)]
#[test]
fn a_signal_after_training_ends_the_program() {
    use std::io::{BufRead, BufReader};
    let out = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_vjepa"));
    child.args(["quickstart", "--steps", "2", "--out"]).arg(out.path());
    let mut child = child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("evaluating the pretrained encoder")));
    std::process::Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
    assert_eq!(lines.filter(|line| line.contains("] pictures")).count(), 0);
}
