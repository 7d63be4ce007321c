//! Frozen evaluations beyond one probe on cached videos: several probes at once, augmentation, official files, pictures, shares
//! of the labels, models and features of others.

#[path = "frozen/frames.rs"]
mod frames;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{refused, vjepa, write};
use vjepa_graphs::init::{self, Init};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::Config;
use vjepa_view::Canvas;
use vjepa_weights::{Tensors, save_safetensors};

/// A small encoder for pictures and the carried texture clips: 4 frames of 32 by 32 pixels.
const CONFIG: &str = "
data: {num_frames: 4, tubelet_size: 2, crop_size: 32, patch_size: 8, sampling_rate: 1, sampling: exact}
model: {embed_dim: 48, depth: 1, num_heads: 4, pred_embed_dim: 12, pred_depth: 1, pred_num_heads: 2, init: xavier}
";

fn textures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets").join("textures")
}

/// A folder with a random encoder, its configuration, lists of the carried clips, and class folders of pictures.
struct Scene {
    folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "run.yaml", CONFIG);
        encoder(&folder.path().join("encoder.safetensors"), CONFIG);
        let list = std::fs::read_to_string(textures().join("labels.csv")).unwrap();
        for (name, offset) in [("train.csv", 0), ("val.csv", 1)] {
            let lines = list.lines().skip(offset).step_by(2).take(20);
            let text: String = lines.map(|line| format!("{}\n", textures().join(line).display())).collect();
            write(folder.path(), name, text);
        }
        for (split, salt) in [("train", 0), ("val", 100)] {
            for (class, rgb) in [("moss", [40, 160, 60]), ("rust", [170, 70, 40]), ("sky", [70, 120, 210])] {
                let own = folder.path().join("images").join(split).join(class);
                std::fs::create_dir_all(&own).unwrap();
                (0..6).for_each(|number| picture(&own.join(format!("{number}.png")), rgb, salt + number));
            }
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The program in the folder.
    fn command(&self, name: &str) -> assert_cmd::Command {
        let mut command = vjepa();
        command.current_dir(self.folder.path()).arg(name);
        command
    }

    /// The same with the random encoder.
    fn encoded(&self, name: &str) -> assert_cmd::Command {
        let mut command = self.command(name);
        command.args(["--checkpoint", "encoder.safetensors", "--config", "run.yaml"]);
        command
    }
}

/// Writes the random encoder of a configuration.
fn encoder(path: &Path, config: &str) {
    let sizes = encoder_config(&Config::unchecked(config, "", &[]).unwrap()).unwrap();
    let weights = init::encoder(&sizes, Init::Xavier, 0);
    let tensors: Tensors =
        weights.into_iter().map(|(name, tensor)| (format!("target_encoder.{name}"), tensor)).collect();
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    save_safetensors(path, &tensors, &BTreeMap::new()).unwrap();
}

/// A picture of one colour with a grain.
fn picture(path: &Path, rgb: [u8; 3], salt: usize) {
    let mut canvas = Canvas::new(52, 44);
    for (y, x) in (0..44).flat_map(|y| (0..52).map(move |x| (y, x))) {
        let grain = ((x * 7 + y * 13 + salt * 29) % 40) as u8;
        canvas.fill(x, y, 1, 1, rgb.map(|value| value.saturating_add(grain)));
    }
    canvas.save(path).unwrap();
}

fn json(command: &mut assert_cmd::Command) -> Value {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

fn said(command: &mut assert_cmd::Command) -> String {
    String::from_utf8(command.assert().success().get_output().stderr.clone()).unwrap()
}

/// The command fails with a sentence that has these words, after notes on what has no effect.
fn ends(command: &mut assert_cmd::Command, words: &[&str]) {
    let text = String::from_utf8(command.assert().code(1).get_output().stderr.clone()).unwrap();
    let (notes, last): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with("note: "));
    assert!(!notes.is_empty() && last.len() == 1 && last[0].starts_with("error: "), "{text}");
    assert!(words.iter().all(|word| last[0].contains(word)), "{words:?} are not in: {text}");
}

/// The command fails with one sentence that has these words.
fn says(command: &mut assert_cmd::Command, words: &[&str]) {
    let text = refused(command);
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not in: {text}");
}

fn top1(of: &Value) -> f64 {
    of["top1"].as_f64().unwrap_or_else(|| panic!("{of} has no accuracy"))
}

#[test]
fn many_heads_on_one_pass_give_the_numbers_of_each_alone() {
    let scene = Scene::new();
    let probe = |kinds: &str, lrs: &str, out: &str| {
        let mut command = scene.encoded("probe");
        command.args(["--data", "train.csv", "--val", "val.csv", "--epochs", "3", "--batch", "8", "--neighbours", "3"]);
        command.args(["--kind", kinds, "--lr", lrs, "--out", out, "--results", "results"]);
        json(&mut command)
    };
    let all = probe("attentive,average,linear,knn", "1e-3,1e-2", "all.safetensors");
    let heads = all["heads"].as_array().unwrap();
    let kinds: Vec<&str> = heads.iter().map(|head| head["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["attentive", "attentive", "average", "average", "linear", "knn"], "{all}");
    assert!(heads[5]["train"].is_null() && heads[5]["val"]["top1"].is_number(), "{all}");
    // The one that is written is the best of those with weights.
    let best = all["best"].as_u64().unwrap() as usize;
    assert!(heads[..5].iter().all(|head| top1(&head["val"]) <= top1(&heads[best]["val"])), "{all}");
    assert_eq!(all["val"], heads[best]["val"]);
    let lines = std::fs::read_to_string(scene.path("results/heads.csv")).unwrap();
    assert_eq!(lines.lines().count(), 7, "{lines}");
    let matrix = std::fs::read_to_string(scene.path("results/confusion.csv")).unwrap();
    let counts = matrix.lines().skip(1).flat_map(|line| line.split(',').skip(1));
    assert_eq!(counts.map(|count| count.parse::<u64>().unwrap()).sum::<u64>(), 20, "{matrix}");
    let classes = std::fs::read_to_string(scene.path("results/per-class.csv")).unwrap();
    assert!(classes.starts_with("class,samples,right,accuracy\n") && classes.lines().count() == 4, "{classes}");
    assert!(std::fs::metadata(scene.path("results/confusion.png")).unwrap().len() > 1000);
    // Each on its own has the same numbers.
    for (place, kind, lr) in [(1, "attentive", "1e-2"), (2, "average", "1e-3"), (5, "knn", "1")] {
        let alone = probe(kind, lr, "alone.safetensors");
        assert_eq!(alone["heads"][0]["val"], heads[place]["val"], "{kind} {alone}");
    }
    let mut only = scene.encoded("probe");
    only.args(["--data", "train.csv", "--val", "val.csv", "--kind", "knn", "--out", "none.safetensors"]);
    only.assert().success().stdout(predicates::str::contains("nothing: no probe with weights"));
    assert!(!scene.path("none.safetensors").exists());
}

#[test]
fn training_with_augmentation_says_how_long_it_takes() {
    let scene = Scene::new();
    let probe = |more: &[&str]| {
        let mut command = scene.encoded("probe");
        command.args([
            "--data",
            "train.csv",
            "--val",
            "val.csv",
            "--epochs",
            "2",
            "--batch",
            "8",
            "--out",
            "p.safetensors",
        ]);
        command.args(more);
        command
    };
    let text = said(&mut probe(&["--online", "--kind", "attentive,average"]));
    assert!(text.contains("training takes about") && text.contains("the encoder in the loop"), "{text}");
    let first = std::fs::read(scene.path("p.safetensors")).unwrap();
    let again = json(&mut probe(&["--online", "--kind", "attentive,average"]));
    assert_eq!((again["augmented"].as_bool(), again["train"].is_null()), (Some(true), true), "{again}");
    assert_eq!(std::fs::read(scene.path("p.safetensors")).unwrap(), first, "the same draws, the same probe");
    says(&mut probe(&["--online", "--kind", "knn"]), &["knn", "--cached"]);
    // The configuration decides, unless a flag does.
    let asked = json(&mut probe(&["--set", "data_aug.auto_augment=true"]));
    assert_eq!(asked["augmented"], true);
    let forced = json(&mut probe(&["--set", "data_aug.auto_augment=true", "--cached"]));
    assert_eq!((forced["augmented"].as_bool(), forced["train"]["videos"].as_u64()), (Some(false), Some(20)));
}

/// An official file of a video evaluation, unchanged but for paths and sizes.
const VIDEO: &str = "nodes: 1\ntasks_per_node: 1\ntag: mine\neval_name: video_classification_frozen\nresume_checkpoint: false\n\
    data:\n  dataset_train: train.csv\n  dataset_val: val.csv\n  dataset_type: VideoDataset\n  num_classes: 3\n  frames_per_clip: 4\n\
    \x20 num_segments: 2\n  num_views_per_segment: 3\n  frame_step: 1\n\
    optimization:\n  attend_across_segments: true\n  num_epochs: 1\n  resolution: 32\n  batch_size: 8\n  weight_decay: 0.01\n\
    \x20 lr: 0.001\n  start_lr: 0.001\n  final_lr: 0.0\n  warmup: 0.\n  use_bfloat16: true\n";
const PRETRAIN: &str = "pretrain:\n  model_name: vit_tiny\n  checkpoint_key: target_encoder\n  clip_duration: null\n  frames_per_clip: 4\n\
    \x20 frame_step: 1\n  tubelet_size: 2\n  uniform_power: true\n  use_silu: false\n  tight_silu: false\n  use_sdpa: true\n  patch_size: 16\n\
    \x20 folder: models/\n  checkpoint: tiny.safetensors\n  write_tag: jepa\n";
const TINY: &str = "
data: {num_frames: 4, tubelet_size: 2, crop_size: 32, patch_size: 16}
model: {model_name: vit_tiny, uniform_power: true}
";

#[test]
fn official_video_and_image_files_are_read_unchanged() {
    let scene = Scene::new();
    encoder(&scene.path("models/tiny.safetensors"), TINY);
    write(scene.folder.path(), "video.yaml", format!("{VIDEO}{PRETRAIN}"));
    let image = format!(
        "nodes: 1\ntag: mine\neval_name: image_classification_frozen\nresume_checkpoint: false\ndata:\n  root_path: {}/\n\
         \x20 image_folder: images/\n  num_classes: 3\n  resolution: 32\n  dataset_name: Ours\noptimization:\n  num_epochs: 2\n\
         \x20 batch_size: 6\n  weight_decay: 0.001\n  lr: 0.001\n  start_lr: 0.001\n  final_lr: 0.0\n  warmup: 0.\n  use_bfloat16: true\n{PRETRAIN}",
        scene.folder.path().display()
    );
    write(scene.folder.path(), "image.yaml", image);
    for (file, videos, clips) in [("image.yaml", 18, 1), ("video.yaml", 20, 2)] {
        let mut command = scene.command("probe");
        let text = said(command.args(["--config", file, "--out", "p.safetensors"]));
        for words in ["`optimization.use_bfloat16` has no effect", "`nodes` has no effect", "asks for augmentation"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let mut command = scene.command("probe");
        let trained = json(command.args(["--config", file, "--out", "p.safetensors", "--cached", "--batch", "4"]));
        assert_eq!((trained["val"]["videos"].as_u64(), trained["clips"].as_u64()), (Some(videos), Some(clips)));
        let mut command = scene.command("eval");
        let evaluated = json(command.args(["--config", file, "--probe", "p.safetensors"]));
        assert_eq!(evaluated["top1"], trained["val"]["top1"], "{evaluated}");
    }
    // Numbers that do not fit are named, and changed by --set.
    let mut command = scene.command("probe");
    command.args(["--config", "video.yaml", "--set", "data.num_classes=7", "--out", "q.safetensors"]);
    ends(&mut command, &["`data.num_classes` is 7", "3 classes"]);
    let mut command = scene.command("probe");
    command.args(["--config", "video.yaml", "--set", "pretrain.clip_duration=2", "--out", "q.safetensors"]);
    ends(&mut command, &["`pretrain.clip_duration`"]);
    // Random validation clips are a function of the seed.
    let random = |seed: &str| {
        let mut command = scene.command("eval");
        command.args(["--config", "video.yaml", "--probe", "p.safetensors", "--official-validation", "--no-cache"]);
        json(command.args(["--seed", seed]))
    };
    assert_eq!(random("1"), random("1"));
}

#[test]
fn pictures_in_class_folders_from_training_to_evaluation() {
    let scene = Scene::new();
    for frames in ["4", "2"] {
        let mut command = scene.encoded("probe");
        command.args(["--data", "images/train", "--val", "images/val", "--kind", "linear,attentive", "--epochs", "4"]);
        let trained = json(command.args(["--still-frames", frames, "--out", "p.safetensors"]));
        assert_eq!((trained["classes"].as_u64(), trained["val"]["videos"].as_u64()), (Some(3), Some(18)));
        assert!(top1(&trained["val"]) > 0.9, "three colours: {trained}");
        assert_eq!(vjepa_programs::load_probe(&scene.path("p.safetensors")).unwrap().labels, ["moss", "rust", "sky"]);
        let mut command = scene.encoded("eval");
        command.args(["--probe", "p.safetensors", "--data", "images/val", "--still-frames", frames]);
        let evaluated = json(&mut command);
        assert_eq!(evaluated["top1"], trained["val"]["top1"], "{evaluated}");
        // Exported and run on pictures, it says the same of each.
        let mut command = scene.encoded("compile");
        command.args(["--probe", "p.safetensors", "--frames", frames, "--export", "onnx", "--out", "m.onnx"]);
        command.assert().success();
        for class in ["moss", "rust", "sky"] {
            let mut command = scene.command("run");
            let said = json(command.args(["m.onnx", &format!("images/val/{class}/1.png"), "--runtime", "tract"]));
            assert_eq!(said["top"][0]["label"], class, "{said}");
        }
    }
    let probe = |data: &str, more: &[&str]| {
        let mut command = scene.encoded("probe");
        command.args(["--kind", "linear", "--data", data, "--out", "q.safetensors"]).args(more);
        command
    };
    says(&mut probe("images/train", &["--clips", "2"]), &["a picture is one clip"]);
    says(&mut probe("images/train", &["--still-frames", "3"]), &["tubelet"]);
    says(&mut probe("train.csv", &["--still-frames", "2"]), &["--still-frames is for pictures"]);
    says(&mut probe("images/train/moss", &[]), &["no class folder"]);
    let mixed = std::fs::read_to_string(scene.path("train.csv")).unwrap();
    write(scene.folder.path(), "mixed.csv", format!("{mixed}images/train/moss/0.png 3\n"));
    says(&mut probe("mixed.csv", &[]), &["1 pictures and 20 videos"]);
    std::fs::create_dir(scene.path("images/val/empty")).unwrap();
    says(&mut probe("images/train", &["--val", "images/val"]), &["empty"]);
    std::fs::rename(scene.path("images/val/empty"), scene.path("images/val/zebra")).unwrap();
    std::fs::copy(scene.path("images/val/sky/0.png"), scene.path("images/val/zebra/0.png")).unwrap();
    says(&mut probe("images/train", &["--val", "images/val"]), &["different class folders", "`zebra`"]);
    // What else the folders hold is counted, as `vjepa data list imagenet` does.
    for name in ["train/moss/a.webp", "train/moss/b.webp", "train/rust/c.bmp", "train/sky/note.txt", "val/sky/d.tiff"] {
        write(scene.folder.path(), &format!("images/{name}"), "x");
    }
    std::fs::remove_dir_all(scene.path("images/val/zebra")).unwrap();
    for how in ["--cached", "--online"] {
        let mut command = scene.encoded("probe");
        command.args(["--data", "images/train", "--val", "images/val", "--kind", "average", "--epochs", "1"]);
        let found = json(command.args([how, "--out", "q.safetensors"]));
        let notes = found["notes"].to_string();
        for words in
            ["train: 4 left out: 2 .webp, which is not read", "1 .bmp", "1 not pictures", "val: 1 left out: 1 .tiff"]
        {
            assert!(notes.contains(words), "{words}: {notes}");
        }
    }
    let mut eval = scene.encoded("eval");
    let output =
        eval.args(["--probe", "q.safetensors", "--data", "images/val"]).assert().success().get_output().clone();
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("1 left out: 1 .tiff").count(), 1);
    // A picture that is text is named and left out.
    write(scene.folder.path(), "images/train/sky/0.png", "no picture");
    let found = json(&mut probe("images/train", &[]));
    assert_eq!((found["train"]["videos"].as_u64(), found["bad_videos"].as_array().unwrap().len()), (Some(17), 1));
}

#[test]
fn a_share_of_the_labels_is_drawn_several_times() {
    let scene = Scene::new();
    let mut command = scene.encoded("probe");
    command.args([
        "--data",
        "train.csv",
        "--val",
        "val.csv",
        "--kind",
        "linear,knn",
        "--subset",
        "50%",
        "--out",
        "p.safetensors",
    ]);
    let found = json(&mut command);
    assert_eq!((found["splits"].as_u64(), found["train"]["videos"].as_u64()), (Some(3), Some(10)), "{found}");
    assert!(found["heads"][0]["val_standard_error"].is_number(), "{found}");
    assert_eq!(found["split_seeds"], serde_json::json!([0, 1, 2]), "{found}");
    scene.encoded("probe").args(["--data", "train.csv", "--out", "p", "--splits", "2"]).assert().code(2);
    let mut one = scene.encoded("probe");
    one.args(["--data", "train.csv", "--val", "val.csv", "--kind", "linear", "--subset", "50%", "--split-seed", "1"]);
    let one = json(one.args(["--out", "p.safetensors"]));
    assert_eq!((one["splits"].as_u64(), &one["split_seeds"]), (Some(1), &serde_json::json!([1])), "{one}");
}

#[test]
fn features_and_encoders_of_others_go_through_the_same_probes() {
    let scene = Scene::new();
    let probe = |more: &[&str]| {
        let mut command = scene.command("probe");
        command.args(["--kind", "linear,attentive", "--epochs", "2", "--out", "p.safetensors"]).args(more);
        command
    };
    let own =
        ["--checkpoint", "encoder.safetensors", "--config", "run.yaml", "--data", "train.csv", "--val", "val.csv"];
    let ours = json(&mut probe(&[&own[..], &["--cache", "cache"]].concat()));
    // What our own encoder has cached is features of another to the flag.
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(scene.path("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort_by_key(|file| file.metadata().unwrap().modified().unwrap());
    let [train, val] = files.as_slice() else { panic!("{files:?}") };
    let names = [train, val].map(|file| file.to_str().unwrap());
    let given = json(&mut probe(&["--features", names[0], "--val-features", names[1], "--probe-heads", "4"]));
    assert_eq!(given["heads"], ours["heads"]);
    says(&mut probe(&["--features", names[0]]), &["48 wide", "--probe-heads"]);
    says(&mut probe(&["--features", "run.yaml"]), &["run.yaml"]);

    let mut compile = scene.encoded("compile");
    compile.args(["--export", "onnx", "--out", "encoder.onnx"]).assert().success();
    let exported = ["--encoder", "encoder.onnx", "--probe-heads", "4", "--data", "train.csv", "--val", "val.csv"];
    let onnx = json(&mut probe(&exported));
    for (theirs, ours) in onnx["heads"].as_array().unwrap().iter().zip(ours["heads"].as_array().unwrap()) {
        assert!((top1(&theirs["val"]) - top1(&ours["val"])).abs() <= 0.1, "{theirs} {ours}");
    }
    says(&mut probe(&[&exported[..], &["--per-frame"]].concat()), &["clips of 4 frames", "--per-frame"]);
    says(&mut probe(&["--data", "train.csv"]), &["name the encoder", "--encoder FILE.onnx"]);
}

#[test]
fn samples_are_evaluated_alike_from_the_cache_and_a_part_at_a_time() {
    let scene = Scene::new();
    let probe = |more: &[&str]| {
        let mut command = scene.encoded("probe");
        command.args([
            "--data",
            "train.csv",
            "--val",
            "val.csv",
            "--kind",
            "attentive,average,linear,knn",
            "--epochs",
            "2",
        ]);
        command.args(["--subset", "50%", "--splits", "2", "--out", "p.safetensors", "--results", "tables"]).args(more);
        let found = json(&mut command);
        (found, std::fs::read(scene.path("tables/confusion.csv")).unwrap())
    };
    let (cached, matrix) = probe(&["--cache", "cache"]);
    let (parts, same) = probe(&["--no-cache"]);
    assert_eq!((&parts["heads"], &parts["val"], same), (&cached["heads"], &cached["val"], matrix), "{parts}");
    let eval = |more: &[&str]| {
        let mut command = scene.encoded("eval");
        json(command.args(["--probe", "p.safetensors", "--data", "val.csv"]).args(more))
    };
    let (cached, parts) = (eval(&["--cache", "cache"]), eval(&["--no-cache"]));
    for key in ["top1", "top5", "class_mean", "videos"] {
        assert_eq!(cached[key], parts[key], "{key}");
    }
}

#[test]
fn a_dry_run_of_a_probe_says_what_is_computed_how_often() {
    let scene = Scene::new();
    let probe = |more: &[&str]| {
        let mut command = scene.encoded("probe");
        command.args(["--data", "train.csv", "--val", "val.csv", "--out", "p.safetensors", "--dry-run"]).args(more);
        command
    };
    let whats = |bill: &serde_json::Value| {
        let parts = bill["parts"].as_array().unwrap().iter();
        parts.map(|part| part["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let online = json(&mut probe(&["--online", "--epochs", "3", "--clips", "2", "--views", "3", "--lr", "1e-3,1e-4"]));
    let expected = [
        "encoder, training: 20 samples x 2 clips x 3 epochs",
        "encoder, evaluation: 20 samples x 2 clips x 3 views, once",
        "attentive, training: 6 steps of 16 samples, 2 at once",
    ];
    let found = whats(&online);
    assert!(expected.iter().all(|what| found.iter().any(|part| part == what)), "{found:?}");
    // As many clips in three epochs as in the three views of as many samples.
    let parts = online["parts"].as_array().unwrap();
    assert_eq!(parts[0]["flops"], parts[1]["flops"], "{online}");
    let cached = whats(&json(&mut probe(&["--cached"])));
    assert!(cached.contains(&"encoder, training: 20 samples x 1 clips x 1 views, once".to_owned()), "{cached:?}");
    let text = probe(&["--speed", "0.5"]).assert().success().get_output().stdout.clone();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("h at 0.5 TFLOP/s") && text.contains("nothing was trained or written"), "{text}");
    assert!(!scene.path("p.safetensors").exists());
    probe(&["--speed", "0"]).assert().code(2);
    let told = refused(&mut probe(&["--assume", "samples=3"]));
    assert!(told.contains("samples=3") && told.contains("train=N"), "{told}");
}

#[test]
fn a_vote_without_others_and_flags_of_another_encoder_are_refused() {
    let scene = Scene::new();
    let probe = |more: &[&str]| {
        let mut command = scene.encoded("probe");
        command.args(["--data", "train.csv", "--out", "p.safetensors", "--no-cache"]).args(more);
        command
    };
    let told = refused(&mut probe(&["--kind", "knn"]));
    assert!(told.contains("knn") && told.contains("--val"), "{told}");
    probe(&["--per-frame"]).assert().code(2);
    probe(&["--runtime", "tract"]).assert().code(2);
}
