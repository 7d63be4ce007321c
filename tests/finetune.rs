//! `vjepa finetune` on real video files: trained, stopped and resumed, tested, exported and run.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{refused, texture, vjepa, write};
use vjepa_graphs::init::{self, Init};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::Config;
use vjepa_train::Checkpoint;
use vjepa_weights::{Tensors, save_safetensors};

/// A small encoder for the carried texture clips: 8 frames of 48 by 48 pixels.
const MODEL: &str = "
data: {num_frames: 8, tubelet_size: 2, crop_size: 48, patch_size: 8, sampling_rate: 1, sampling: exact, normalization: per_clip, grayscale: true}
model: {embed_dim: 48, depth: 2, num_heads: 4, init: xavier}
";

const RUN: &str = "
data: {num_frames: 8, tubelet_size: 2, crop_size: 48, patch_size: 8, sampling_rate: 1, sampling: exact, normalization: per_clip, grayscale: true,
       batch_size: 4, num_workers: 1}
model: {embed_dim: 48, depth: 2, num_heads: 4, init: xavier}
finetune: {test_num_segment: 1, test_num_crop: 2, init_scale: 1.0, scale_lr: false, drop_path: 0.3}
optimization: {steps: 6, warmup_steps: 2, lr: 0.003}
logging: {metrics_every: 1, checkpoint_every: 3}
meta: {seed: 3}
";

/// A folder with a random encoder, a configuration, and two lists of the carried clips.
struct Scene {
    folder: tempfile::TempDir,
    config: PathBuf,
    checkpoint: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sizes = encoder_config(&Config::from_yaml(MODEL, "", &[]).unwrap()).unwrap();
        let tensors: Tensors = init::encoder(&sizes, Init::Xavier, 0)
            .into_iter()
            .map(|(name, tensor)| (format!("target_encoder.{name}"), tensor))
            .collect();
        let checkpoint = folder.path().join("encoder.safetensors");
        save_safetensors(&checkpoint, &tensors, &BTreeMap::new()).unwrap();
        let textures = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures");
        let list = std::fs::read_to_string(textures.join("labels.csv")).unwrap();
        for (name, offset) in [("train.csv", 0), ("val.csv", 1)] {
            let lines = list.lines().skip(offset).step_by(2).take(24);
            let text: String = lines.map(|line| format!("{}\n", textures.join(line).display())).collect();
            write(folder.path(), name, text);
        }
        let config = write(folder.path(), "run.yaml", RUN);
        Self { folder, config, checkpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The run into a folder.
    fn run(&self, folder: &str, extra: &[&str]) -> assert_cmd::Command {
        let mut command = vjepa();
        command.arg("finetune").arg("--config").arg(&self.config).arg("--checkpoint").arg(&self.checkpoint);
        command.arg("--data").arg(self.path("train.csv")).arg("--val").arg(self.path("val.csv"));
        command.arg("--set").arg(format!("logging.folder={}", self.path(folder).display())).args(extra);
        command
    }
}

/// The last line of a command's output, as JSON.
fn summary(command: &mut assert_cmd::Command) -> serde_json::Value {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_str(String::from_utf8(output).unwrap().lines().last().unwrap()).unwrap()
}

fn losses(folder: &Path) -> Vec<String> {
    let mut reader = csv::Reader::from_path(folder.join("finetune-metrics.csv")).unwrap();
    reader.records().map(|row| row.unwrap().get(2).unwrap().to_owned()).collect()
}

#[test]
fn a_run_is_resumed_to_the_bit_and_its_result_deployed_with_the_same_answers() {
    let scene = Scene::new();
    let whole = summary(&mut scene.run("whole", &[]));
    assert_eq!((whole["steps"].as_u64(), whole["classes"].as_u64()), (Some(6), Some(3)), "{whole}");
    let test = &whole["test"];
    assert_eq!(
        (test["videos"].as_u64(), test["crops"].as_u64(), test["top5"].as_f64()),
        (Some(24), Some(2), Some(1.0))
    );
    scene.run("parts", &["--stop-at", "3"]).assert().success();
    scene.run("parts", &["--resume"]).assert().success();
    let load = |folder: &str| Checkpoint::new(&scene.path(folder), "finetune").load().unwrap();
    let ((a, record), (b, _)) = (load("whole"), load("parts"));
    assert_eq!(record.step, 6);
    assert!(a.keys().eq(b.keys()) && a.contains_key("probe.fc_norm.weight"));
    for (name, (_, values)) in &a {
        assert!(values == &b[name].1, "`{name}` differs after resuming");
    }
    assert_eq!(losses(&scene.path("whole")), losses(&scene.path("parts")));
    assert_eq!(losses(&scene.path("whole")).len(), 6);
    let again = scene.run("whole", &[]).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&again).contains("add --resume"));

    // The test can be repeated, and gives the same.
    let tuned = scene.path("whole").join("finetune-latest.safetensors");
    let eval = |extra: &[&str]| {
        let mut command = vjepa();
        command.arg("eval").arg("--checkpoint").arg(&tuned).arg("--data").arg(scene.path("val.csv")).args(extra);
        summary(&mut command)
    };
    let again = eval(&[]);
    assert_eq!((&again["top1"], &again["views"]), (&test["top1"], &2.into()), "{again}");

    // One file is an encoder with its classifier: exported, it says what the evaluation says.
    let model = scene.path("tuned.onnx");
    let mut command = vjepa();
    command
        .args(["compile", "--export", "onnx", "--checkpoint"])
        .arg(&tuned)
        .arg("--out")
        .arg(&model)
        .assert()
        .success();
    let single = eval(&["--clips", "1", "--views", "1"]);
    let list = std::fs::read_to_string(scene.path("val.csv")).unwrap();
    for (line, expected) in list.lines().zip(single["predictions"].as_array().unwrap()).take(4) {
        let video = line.rsplit_once(' ').unwrap().0;
        for (runtime, file) in [("tract", &model), ("plan", &tuned)] {
            let mut command = vjepa();
            let line = summary(command.args(["run", "--runtime", runtime]).arg(file).arg(video));
            let top = &line["top"][0];
            assert_eq!(top["class"], expected[0], "{runtime}: {line}");
            let difference = top["probability"].as_f64().unwrap() - expected[1].as_f64().unwrap();
            assert!(difference.abs() < 1e-5, "{runtime}: {line} is not {expected}");
        }
    }
    let bundle = scene.path("bundle");
    let mut command = vjepa();
    command
        .args(["compile", "--export", "bundle", "--checkpoint"])
        .arg(&tuned)
        .arg("--out")
        .arg(&bundle)
        .assert()
        .success();
    let mut command = vjepa();
    command.args(["verify", "bundle", "--runtime", "tract"]).arg(&bundle).assert().success();
    // Its encoder is one for other commands, too.
    let mut command = vjepa();
    command.args(["features", "--checkpoint"]).arg(&tuned).arg("--input").arg(texture("t0_d0_s0.mp4"));
    command.arg("--out").arg(scene.path("features.safetensors")).assert().success();
}

#[test]
fn a_share_of_the_videos_is_the_list_that_data_subset_writes() {
    let scene = Scene::new();
    let part = ["--subset", "25%", "--split-seed", "1"];
    let run = |folder: &str, more: &[&str]| {
        let mut command = scene.run(folder, &["--stop-at", "2"]);
        let summary = summary(command.args(more));
        assert_eq!(summary["classes"].as_u64(), Some(3), "{summary}");
        losses(&scene.path(folder))
    };
    let shared = run("shared", &part);
    let list = scene.path("part.csv");
    let mut subset = vjepa();
    subset.args(["data", "subset", "--share", "25%", "--split", "1"]).arg(scene.path("train.csv"));
    subset.arg("--out").arg(&list).assert().success();
    assert_eq!(run("listed", &["--set", &format!("data.datasets=[{}]", list.display())]), shared);
    assert_ne!(run("other", &["--subset", "25%", "--splits", "1"]), shared, "another draw");
    // A run goes on with the videos that it began with.
    let mut other = scene.run("shared", &["--resume"]);
    let told = other.args(["--subset", "50%", "--split-seed", "1"]).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&told).contains("`finetune.subset`"), "{}", String::from_utf8_lossy(&told));
    let told = refused(&mut scene.run("wrong", &["--set", "finetune.subset=1.5"]));
    assert!(told.contains("finetune.subset") && told.contains("at most 1"), "{told}");
}

#[test]
fn a_share_is_drawn_three_times_and_its_tests_averaged() {
    let scene = Scene::new();
    let run = |folder: &str, more: &[&str]| {
        let mut command = scene.run(folder, &["--subset", "25%", "--set", "optimization.steps=3"]);
        command.args(more);
        command
    };
    let all = summary(&mut run("all", &[]));
    let split = |number: usize| scene.path("all").join(format!("split-{number}"));
    let of = |run: &serde_json::Value| run["test"]["top1"].as_f64().unwrap();
    let tops: Vec<f64> = all["runs"].as_array().unwrap().iter().map(of).collect();
    assert_eq!((tops.len(), all["splits"].as_u64(), all["classes"].as_u64()), (3, Some(3), Some(3)), "{all}");
    let mean = tops.iter().sum::<f64>() / 3.0;
    let error = (tops.iter().map(|top| (top - mean).powi(2)).sum::<f64>() / 6.0).sqrt();
    assert!(
        (of(&all) - mean).abs() < 1e-9 && (all["test_standard_error"].as_f64().unwrap() - error).abs() < 1e-9,
        "{all}"
    );
    assert_eq!(all["split_seeds"], serde_json::json!([0, 1, 2]), "{all}");
    // Each is the run of its draw.
    let second = summary(&mut run("second", &["--split-seed", "1"]));
    assert_eq!((of(&second), losses(&scene.path("second"))), (tops[1], losses(&split(1))));
    // A share in the configuration means the same as that of the flag.
    let configured = |folder: &str, more: &[&str]| {
        let sets = ["--set", "finetune.subset=0.25", "--set", "optimization.steps=3"];
        let mut command = scene.run(folder, &sets);
        command.args(more);
        summary(&mut command)
    };
    let file = configured("file", &[]);
    assert_eq!((&file["test"], &file["split_seeds"]), (&all["test"], &all["split_seeds"]), "{file}");
    assert_eq!(losses(&scene.path("file").join("split-1")), losses(&split(1)));
    let file = configured("drawn", &["--set", "finetune.subset_split=1"]);
    assert_eq!((of(&file), &file["split_seeds"]), (tops[1], &serde_json::json!([1])), "{file}");
    let told = refused(&mut scene.run("none", &["--splits", "2"]));
    assert!(told.contains("--splits") && told.contains("--subset 5%"), "{told}");
    assert_ne!(losses(&split(0)), losses(&split(1)));
    // What was begun goes on, and what was not begins.
    std::fs::remove_dir_all(split(2)).unwrap();
    let resumed = summary(&mut run("all", &["--resume"]));
    assert_eq!((&resumed["test"], &resumed["runs"][2]["test"]), (&all["test"], &all["runs"][2]["test"]));
    let text = run("text", &["--splits", "2"]).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(text).unwrap();
    assert!(
        text.contains("\u{b1}")
            && text.contains("over 2 splits (seeds 0, 1)")
            && text.matches("to export").count() == 2,
        "{text}"
    );
    let mut both = run("both", &["--split-seed", "1", "--splits", "2"]);
    both.assert().code(2);
}

#[test]
fn training_learns_with_the_encoders_own_norm_and_groups() {
    let scene = Scene::new();
    let sets = [
        "finetune.pooling=norm",
        "finetune.mixup=0.0",
        "finetune.cutmix=0.0",
        "finetune.smoothing=0.0",
        "finetune.drop_path=0.0",
        "finetune.fc_drop_rate=0.0",
        "data_aug.auto_augment=false",
        "data_aug.reprob=0.0",
        "data_aug.random_resize_scale=[0.9, 1.0]",
        "optimization.groups=2",
        "optimization.steps=40",
    ];
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let done = summary(&mut scene.run("groups", &sets));
    let losses: Vec<f64> = losses(&scene.path("groups")).iter().map(|loss| loss.parse().unwrap()).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&losses[35..]) < 0.8 * mean(&losses[..5]), "{losses:?}");
    assert!(done["test"]["top1"].as_f64().unwrap() > 0.4, "{done}");
}

#[test]
fn what_cannot_be_fine_tuned_is_refused_in_a_sentence() {
    let scene = Scene::new();
    let says = |command: &mut assert_cmd::Command, words: &[&str]| {
        let text = refused(command);
        assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
    };
    let set = |setting: &str| scene.run("refused", &["--set", setting]);
    says(&mut set("finetune.num_sample=0"), &["finetune.num_sample", "between 1 and 16"]);
    says(&mut set("finetune.drop_path=1.0"), &["finetune.drop_path", "below 1"]);
    says(&mut set("finetune.layer_decay=0"), &["finetune.layer_decay"]);
    says(&mut set("model.embed_dim=96"), &["48 wide", "96"]);
    let mut odd = scene.run("refused", &["--set", "finetune.num_sample=1", "--set", "data.batch_size=3"]);
    says(&mut odd, &["data.batch_size", "even"]);
    let names = write(scene.folder.path(), "names.txt", "left\nright\n");
    let mut few = scene.run("refused", &[]);
    says(few.arg("--names").arg(&names), &["label 2", "2 classes"]);
    let numbered = write(scene.folder.path(), "numbered.txt", "1 left\n2 right\n3 up\n");
    says(
        scene.run("refused", &[]).arg("--names").arg(&numbered),
        &["train.csv: line", "the label 0", "numbered.txt names the labels 1 to 3"],
    );
    let unlabelled = write(scene.folder.path(), "unlabelled.csv", format!("{}\n", texture("t0_d0_s0.mp4").display()));
    let mut command = scene.run("refused", &[]);
    command.arg("--set").arg(format!("data.datasets=[{}]", unlabelled.display()));
    says(&mut command, &["has no label"]);
}

#[test]
fn labels_and_the_list_of_the_test_are_checked_before_the_first_step() {
    let scene = Scene::new();
    let text = std::fs::read_to_string(scene.path("train.csv")).unwrap();
    let lines: Vec<(&str, &str)> = text.lines().map(|line| line.rsplit_once(' ').unwrap()).collect();
    let list = |name: &str, relabel: &dyn Fn(i64) -> String| {
        let line = |(path, label): &(&str, &str)| format!("{path}{}\n", relabel(label.parse().unwrap()));
        write(scene.folder.path(), name, lines.iter().map(line).collect::<String>())
    };
    let set = |key: &str, path: &Path| match key {
        "data.datasets" => format!("{key}=[{}]", path.display()),
        _ => format!("{key}={}", path.display()),
    };
    let says = |key: &str, path: &Path, words: &[&str]| {
        let told = refused(&mut scene.run("refused", &["--set", &set(key, path)]));
        assert!(words.iter().all(|word| told.contains(word)), "{key} {}: {words:?} are not in: {told}", path.display());
        assert!(!scene.path("refused").join("finetune-metrics.csv").exists(), "{told} was said after training");
    };
    says("finetune.val", &scene.path("nowhere.csv"), &["nowhere.csv", "there is no such file"]);
    says("finetune.val", &list("bare.csv", &|_| String::new()), &["bare.csv", "line 1 has no label"]);
    let from_one = list("from-one.csv", &|label| format!(" {}", label + 1));
    says(
        "finetune.val",
        &from_one,
        &["from-one.csv", "has the label 3", "not one of the classes of", "train.csv", "0, 1, 2"],
    );
    // What `vjepa probe` refuses.
    let negative = list("negative.csv", &|label| format!(" {}", if label == 2 { -3 } else { label }));
    says("data.datasets", &negative, &["negative.csv", "has the label -3", "labels are 0 or more"]);
    let (path, label) = lines[0];
    let other = if label == "0" { "1" } else { "0" };
    let twice = write(scene.folder.path(), "twice.csv", format!("{text}{path} {other}\n"));
    says("data.datasets", &twice, &["twice.csv", "line 1 gives", "but line 25", "keep one of them"]);
    says("finetune.val", &twice, &["twice.csv", "keep one of them"]);
    // What is odd and works is said: a video that is listed again, and a class that the test lacks.
    let again = write(scene.folder.path(), "again.csv", format!("{text}{path} {label}\n"));
    let without: String =
        lines.iter().filter(|(_, label)| *label != "2").map(|(path, label)| format!("{path} {label}\n")).collect();
    let without = write(scene.folder.path(), "without.csv", without);
    let (again, without) = (set("data.datasets", &again), set("finetune.val", &without));
    let mut run = scene.run("odd", &["--stop-at", "1", "--set", &again, "--set", &without]);
    let notes = summary(&mut run)["notes"].to_string();
    assert!(notes.contains("1 line repeats a video") && notes.contains("has 1 of the 3 labels: 2"), "{notes}");
    // So is a list for a model that is trained, before it is tested.
    let mut eval = vjepa();
    eval.arg("eval").arg("--checkpoint").arg(scene.path("odd").join("finetune-latest.safetensors"));
    let told = refused(eval.arg("--data").arg(&from_one));
    assert!(told.contains("from-one.csv: line") && told.contains("has the label 3"), "{told}");
}

#[test]
fn a_dry_run_counts_training_and_test_and_a_file_of_pre_training_is_refused() {
    let scene = Scene::new();
    let told = summary(&mut scene.run("none", &["--dry-run"]));
    let whats: Vec<&str> =
        told["parts"].as_array().unwrap().iter().map(|part| part["what"].as_str().unwrap()).collect();
    assert_eq!(
        whats,
        [
            "training: 6 steps of 1 x 4 of 24 videos, each augmented 2 times",
            "test: 24 videos x 1 clips x 2 crops, 1 times"
        ]
    );
    assert!(told["flops"].as_f64().unwrap() > 0.0 && told["not_counted"] == serde_json::json!([]), "{told}");
    // Every clip of a step goes forward and back, twice as many in all as are tested once.
    let each = |at: usize| told["parts"][at]["flops"].as_f64().unwrap();
    assert!(each(0) > 2.0 * each(1), "{told}");
    let drawn = summary(&mut scene.run("none", &["--dry-run", "--subset", "25%"]));
    assert_eq!(drawn["parts"].as_array().unwrap().len(), 4, "{drawn}");
    assert!(!scene.path("none").exists());

    let config = write(scene.folder.path(), "pretraining.yaml", MODEL);
    let mut command = vjepa();
    command.arg("finetune").arg("--config").arg(config).arg("--checkpoint").arg(&scene.checkpoint);
    let told = refused(command.arg("--data").arg(scene.path("train.csv")));
    assert!(
        told.contains("pretraining.yaml") && told.contains("`finetune`") && told.contains("finetune: {}"),
        "{told}"
    );
}
