//! `vjepa probe` and `vjepa eval` on real video files, with a random encoder and few steps.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{refused, vjepa, write};
use vjepa_graphs::init::{self, Init};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::Config;
use vjepa_weights::{Tensors, save_safetensors};

/// A small encoder for the carried texture clips: 8 frames of 48 by 48 pixels.
const CONFIG: &str = "
data: {num_frames: 8, tubelet_size: 2, crop_size: 48, patch_size: 8, sampling_rate: 1, sampling: exact, normalization: per_clip, grayscale: true}
model: {embed_dim: WIDTH, depth: 1, num_heads: 4, pred_embed_dim: 12, pred_depth: 1, pred_num_heads: 2, init: xavier}
";

fn textures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join("textures")
}

/// A folder with a random encoder, its configuration, and two lists of the carried clips: every other one.
struct Scene {
    folder: tempfile::TempDir,
    config: PathBuf,
    checkpoint: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, checkpoint) = encoder(folder.path(), 48);
        let list = std::fs::read_to_string(textures().join("labels.csv")).unwrap();
        for (name, offset) in [("train.csv", 0), ("val.csv", 1)] {
            let lines = list.lines().skip(offset).step_by(2).take(40);
            let text: String = lines.map(|line| format!("{}\n", textures().join(line).display())).collect();
            write(folder.path(), name, text);
        }
        Self { folder, config, checkpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str) -> assert_cmd::Command {
        let mut command = vjepa();
        command.arg(name).arg("--checkpoint").arg(&self.checkpoint).arg("--config").arg(&self.config);
        command
    }
}

/// Writes a random encoder of this width and its configuration.
fn encoder(folder: &Path, width: usize) -> (PathBuf, PathBuf) {
    let text = CONFIG.replace("WIDTH", &width.to_string());
    let config = write(folder, &format!("{width}.yaml"), &text);
    let sizes = encoder_config(&Config::from_yaml(&text, "", &[]).unwrap()).unwrap();
    let tensors: Tensors = init::encoder(&sizes, Init::Xavier, 0)
        .into_iter()
        .map(|(name, tensor)| (format!("target_encoder.{name}"), tensor))
        .collect();
    let checkpoint = folder.join(format!("{width}.safetensors"));
    save_safetensors(&checkpoint, &tensors, &BTreeMap::new()).unwrap();
    (config, checkpoint)
}

fn json(command: &mut assert_cmd::Command) -> serde_json::Value {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

/// The command fails with one sentence that has these words.
fn says(command: &mut assert_cmd::Command, words: &[&str]) {
    let text = refused(command);
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn both_probes_are_trained_saved_and_evaluated() {
    let scene = Scene::new();
    // Chance is .2; fifteen passes over forty videos do not take an attentive probe far from it.
    for (kind, least) in [("linear", 0.5), ("attentive", 0.22)] {
        let probe = scene.path(kind).join("probe.safetensors");
        let train = || {
            let mut command = scene.command("probe");
            command.args(["--kind", kind, "--epochs", "15", "--lr", "3e-3"]);
            command.arg("--data").arg(scene.path("train.csv")).arg("--val").arg(scene.path("val.csv"));
            command.arg("--out").arg(&probe);
            json(&mut command)
        };
        let first = train();
        assert_eq!((first["classes"].as_u64(), first["kind"].as_str()), (Some(5), Some(kind)), "{first}");
        assert_eq!(first["features_from_cache"], false);
        assert!(number(&first["train"]["top1"]) > least, "{first}");
        assert_eq!(number(&first["val"]["top5"]), 1.0, "five classes: {first}");
        let file = vjepa_programs::load_probe(&probe).unwrap();
        assert_eq!(file.labels, ["0", "1", "2", "3", "4"]);

        // The same again, features from the cache, to the bit.
        let bytes = std::fs::read(&probe).unwrap();
        let again = train();
        assert_eq!(again["features_from_cache"], true);
        assert_eq!(again["val"], first["val"]);
        assert_eq!(std::fs::read(&probe).unwrap(), bytes);

        let evaluate = |clips: &str, views: &str| {
            let mut command = scene.command("eval");
            command.arg("--probe").arg(&probe).arg("--data").arg(scene.path("val.csv"));
            json(command.args(["--clips", clips, "--views", views]))
        };
        let plain = evaluate("1", "1");
        assert_eq!((&plain["top1"], &plain["videos"]), (&first["val"]["top1"], &first["val"]["videos"]));
        let many = evaluate("2", "3");
        assert_eq!((many["clips"].as_u64(), many["views"].as_u64()), (Some(2), Some(3)));
        assert!((0.0..=1.0).contains(&number(&many["top1"])) && many["top1"] != 0.0, "{many}");
    }
}

#[test]
fn bad_videos_are_named_counted_and_left_out() {
    let scene = Scene::new();
    let list = std::fs::read_to_string(scene.path("train.csv")).unwrap();
    let broken = write(scene.folder.path(), "broken.mp4", vec![7u8; 5000]);
    write(scene.folder.path(), "empty.webm", "");
    let text = format!("{list}broken.mp4 1\nmissing.mp4 2\nempty.webm 0\n");
    let data = write(scene.folder.path(), "mixed.csv", text);
    let mut command = scene.command("probe");
    command
        .args(["--kind", "linear", "--no-cache"])
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(scene.path("p.safetensors"));
    let summary = json(&mut command);
    let bad = summary["bad_videos"].as_array().unwrap();
    assert_eq!(bad.len(), 3, "{summary}");
    assert_eq!(bad[0]["path"], broken.display().to_string());
    assert!(bad[1]["reason"].as_str().unwrap().contains("cannot be opened"));
    assert!(bad[2]["reason"].as_str().unwrap().contains("1 KiB"));
    assert_eq!(summary["train"]["videos"], 40);
    assert!(!scene.path("feature-cache").exists());

    let none = write(scene.folder.path(), "none.csv", "broken.mp4 0\nmissing.mp4 1\n");
    let mut command = scene.command("probe");
    command.arg("--data").arg(none).arg("--out").arg(scene.path("q.safetensors"));
    says(&mut command, &["none of the 2 videos can be used", "broken.mp4"]);
    assert!(!scene.path("q.safetensors").exists());
}

#[test]
fn what_does_not_fit_is_one_sentence() {
    let scene = Scene::new();
    let out = scene.path("p.safetensors");
    let probe = |data: &Path| {
        let mut command = scene.command("probe");
        command.args(["--kind", "linear"]).arg("--data").arg(data).arg("--out").arg(&out);
        command
    };
    let video = textures().join("t0_d0_s0.mp4");
    let unlabelled = write(scene.folder.path(), "unlabelled.csv", format!("{}\n", video.display()));
    says(&mut probe(&unlabelled), &["has no label", "path label"]);
    let one = write(scene.folder.path(), "one.csv", format!("{0} 3\n{0} 3\n", video.display()));
    says(&mut probe(&one), &["at least two classes"]);
    says(&mut probe(&scene.path("absent.csv")), &["--data", "absent.csv: no such file or folder"]);

    probe(&scene.path("train.csv")).assert().success();
    let evaluate = |data: &Path| {
        let mut command = scene.command("eval");
        command.arg("--probe").arg(&out).arg("--data").arg(data);
        command
    };
    says(&mut evaluate(&write(scene.folder.path(), "new.csv", format!("{} 77\n", video.display()))), &["label 77"]);
    let (config, checkpoint) = encoder(scene.folder.path(), 96);
    let mut command = vjepa();
    command.arg("eval").arg("--checkpoint").arg(checkpoint).arg("--config").arg(config);
    command.arg("--probe").arg(&out).arg("--data").arg(scene.path("val.csv"));
    says(&mut command, &["48 wide", "96 wide"]);
    let mut command = scene.command("eval");
    command.arg("--probe").arg(&scene.checkpoint).arg("--data").arg(scene.path("val.csv"));
    says(&mut command, &["probe"]);
}

/// `eval` says it too, and has no flag of that name.
#[cfg(target_os = "linux")]
#[test]
fn tokens_that_would_not_fit_into_memory_are_refused() {
    let scene = Scene::new();
    let list = std::fs::read_to_string(scene.path("train.csv")).unwrap();
    let many = write(scene.folder.path(), "many.csv", list.repeat(25));
    let mut command = scene.command("probe");
    command.args(["--clips", "65535", "--data"]).arg(many).arg("--out").arg(scene.path("p.safetensors"));
    let said = String::from_utf8(command.assert().code(1).get_output().stderr.clone()).unwrap();
    for words in ["lines repeat a video", "of memory", "linear probe (`vjepa probe --kind linear`)"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn classes_can_have_names() {
    let scene = Scene::new();
    let names = write(scene.folder.path(), "names.txt", "stripes\nchecks\ndots\ncrosses\nwaves\nhexagons\n");
    let out = scene.path("p.safetensors");
    let mut command = scene.command("probe");
    command.args(["--kind", "linear"]).arg("--names").arg(names);
    command.arg("--data").arg(scene.path("train.csv")).arg("--out").arg(&out);
    assert_eq!(json(&mut command)["classes"], 6);
    assert_eq!(vjepa_programs::load_probe(&out).unwrap().labels[5], "hexagons");
    let mut command = scene.command("eval");
    command.arg("--probe").arg(&out).arg("--data").arg(scene.path("val.csv"));
    assert_eq!(json(&mut command)["classes"], 6);

    // A blank line would give every later label another's name; at the end it names nothing.
    for (text, words) in [
        ("stripes\n\ndots\ncrosses\nwaves\nhexagons\n", &["line 2", "names.txt", "label 1"]),
        ("\nstripes\nchecks\ndots\ncrosses\nwaves\n", &["line 1", "names.txt", "label 0"]),
    ] {
        let names = write(scene.folder.path(), "names.txt", text);
        let mut command = scene.command("probe");
        command.args(["--kind", "linear"]).arg("--names").arg(names);
        says(command.arg("--data").arg(scene.path("train.csv")).arg("--out").arg(&out), words);
    }
    let names = write(scene.folder.path(), "names.txt", "stripes\nchecks\ndots\ncrosses\nwaves\n\n \n");
    let mut command = scene.command("probe");
    command.args(["--kind", "linear"]).arg("--names").arg(names);
    command.arg("--data").arg(scene.path("train.csv")).arg("--out").arg(&out);
    assert_eq!(json(&mut command)["classes"], 5);
}
