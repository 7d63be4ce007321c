//! `vjepa detect`: from labelled boxes to a detector, its mean average precision, detections as a file, and ONNX.

#[path = "detect/share.rs"]
mod share;
mod support;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use support::{TINY, tiny, vjepa, write};
use vjepa_eval::cache::file_digest;
use vjepa_runtime::Runtime;
use vjepa_runtime::library::Search;

/// The carried textures as annotated videos: the texture is the action.
struct Annotated {
    folder: tempfile::TempDir,
    config: PathBuf,
    boxes: PathBuf,
    people: PathBuf,
}

/// Actions, of which every video shows one.
const ACTIONS: usize = 4;

impl Annotated {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (mut boxes, mut people) = (String::new(), String::new());
        let labels = std::fs::read_to_string(textures().join("labels.csv")).unwrap();
        for line in labels.lines() {
            let (file, label) = line.rsplit_once(' ').unwrap();
            let (id, _) = file.rsplit_once('.').unwrap();
            let texture: usize = label.parse().unwrap();
            if texture >= ACTIONS {
                continue;
            }
            for (second, corners) in [(900, "0.0,0.0,1.0,1.0"), (901, "0.1,0.1,0.7,0.9")] {
                writeln!(boxes, "{id},{second},{corners},{},0", texture + 1).unwrap();
                writeln!(people, "{id},{second},{corners},,0.95").unwrap();
            }
        }
        writeln!(people, "t0_d0_s0,900,0.2,0.2,0.4,0.4,,0.3").unwrap();
        writeln!(boxes, "not_here,900,0.2,0.2,0.4,0.4,1,0").unwrap();
        let config = write(folder.path(), "tiny.yaml", TINY);
        let (boxes, people) = (write(folder.path(), "boxes.csv", &boxes), write(folder.path(), "people.csv", &people));
        Self { folder, config, boxes, people }
    }

    fn detector(&self) -> PathBuf {
        self.folder.path().join("detector.safetensors")
    }

    /// `vjepa detect run` of exported models.
    fn of_models(&self, models: &[&Path], out: &Path) -> Command {
        let mut command = vjepa();
        command.args(["detect", "run"]);
        for model in models {
            command.arg("--model").arg(model);
        }
        command.arg("--people").arg(&self.people).arg("--videos").arg(textures()).arg("--out").arg(out);
        command
    }

    /// `vjepa detect WHAT` with the encoder.
    fn detect(&self, what: &str) -> Command {
        let mut command = vjepa();
        command.args(["detect", what, "--checkpoint"]).arg(tiny("weights.safetensors"));
        command.arg("--config").arg(&self.config);
        command
    }
}

fn textures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures")
}

fn json(command: &mut Command) -> serde_json::Value {
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    serde_json::from_slice(&output).unwrap()
}

#[test]
fn a_detector_is_trained_scored_run_and_exported() {
    let data = Annotated::new();
    let mut train = data.detect("train");
    train.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
    train.args(["--side", "48", "--step", "1", "--epochs", "60", "--lr", "0.01", "--layers", "0,1,2"]);
    let summary = json(&mut train);
    assert_eq!(summary["actions"], ACTIONS);
    assert!(summary["boxes"].as_u64().unwrap() >= 64, "{summary}");
    assert!(summary["notes"][0].as_str().unwrap().contains("1 videos have no file"), "{summary}");
    // Of eight frames none is that of second 901: the last ones stand for it.
    let text = std::fs::read_to_string(&data.boxes).unwrap();
    let (late, first) = (text.matches(",901,").count(), text.lines().find(|line| line.contains(",901,")).unwrap());
    let first = first.split(',').next().unwrap();
    let beyond = format!("{late} of {} key frames lie beyond the end of their video", 2 * late);
    let is_said =
        |told: &str| assert!(told.contains(&beyond) && told.contains(&format!("the first, {first} at 901")), "{told}");
    is_said(&summary["notes"].to_string());

    let detections = data.folder.path().join("detections.csv");
    let mut eval = data.detect("eval");
    eval.arg("--detector").arg(data.detector()).arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures());
    eval.arg("--out").arg(&detections);
    let found = json(&mut eval);
    is_said(&found["notes"].to_string());
    let map = found["evaluation"]["map"].as_f64().unwrap();
    // One action in four by chance.
    assert!(map > 0.6, "{map}");

    // What was written scores the same, in the three orders as well.
    for order in ["slowfast", "score", "activitynet"] {
        let mut again = vjepa();
        again.args(["detect", "eval", "--order", order, "--detections"]).arg(&detections);
        let again = json(again.arg("--boxes").arg(&data.boxes));
        assert!((again["evaluation"]["map"].as_f64().unwrap() - map).abs() < 0.05, "{order}: {again}");
    }

    // A person detector's boxes, those of low score left out.
    let ran = data.folder.path().join("ran.csv");
    let mut run = data.detect("run");
    run.arg("--detector").arg(data.detector()).arg("--people").arg(&data.people).arg("--videos").arg(textures());
    let output = run.arg("--out").arg(&ran).arg("--json").assert().success().get_output().clone();
    for told in [&output.stderr, &output.stdout].map(|told| String::from_utf8_lossy(told)) {
        assert!(told.contains("1 boxes are below the score of 0.8"), "{told}");
        is_said(&told);
    }
    let lines = |path: &Path| std::fs::read_to_string(path).unwrap().lines().count();
    assert_eq!(lines(&ran), lines(&detections));
    exported_gives_the_same(&data, map, &ran);
}

/// The trained detector as a model: exported, refused by tract, and with ONNX Runtime the rows of `ran` and the score `map`.
fn exported_gives_the_same(data: &Annotated, map: f64, ran: &Path) {
    let export = |name: &str, more: &[&str]| {
        let onnx = data.folder.path().join(name);
        let mut export = data.detect("export");
        let summary = json(export.arg("--detector").arg(data.detector()).arg("--out").arg(&onnx).args(more));
        assert!(onnx.is_file());
        (onnx, summary)
    };
    let (narrow, unverified) = export("narrow.onnx", &["--width", "32", "--no-verify"]);
    assert_eq!(unverified["parity"], serde_json::json!({}));
    let (onnx, summary) = export("detector.onnx", &[]);
    assert!(summary["parity"]["tract"]["unable"].as_str().unwrap().contains("RoiAlign"), "{summary}");
    let on_tract = data.of_models(&[&onnx], ran).args(["--runtime", "tract"]).assert().failure();
    assert!(String::from_utf8_lossy(&on_tract.get_output().stderr).contains("lacks the operators RoiAlign"));
    if !ort() {
        assert!(summary["parity"]["ort"]["absent"].is_string(), "{summary}");
        return;
    }
    assert_eq!(summary["parity"]["ort"]["pass"], true, "{summary}");
    // The exported model in place of encoder and detector: the same rows.
    let by_model = data.folder.path().join("by-model.csv");
    data.of_models(&[&narrow, &onnx], &by_model).assert().success();
    same_detections(ran, &by_model);
    let mut eval = vjepa();
    eval.args(["detect", "eval", "--boxes"]).arg(&data.boxes).arg("--videos").arg(textures());
    let exported = json(eval.arg("--model").arg(&onnx));
    assert!((exported["evaluation"]["map"].as_f64().unwrap() - map).abs() < 1e-6, "{exported}");
    // A model for clips of another size, and no detector at all.
    let told = data.of_models(&[&narrow], &by_model).assert().failure().get_output().stderr.clone();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains("clips of 48x48 pixels") && told.contains("--height 48 --width 48"), "{told}");
    let told = data.of_models(&[&onnx, &onnx], &by_model).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&told).contains("takes clips of the same size as"));
    let encoder = data.folder.path().join("encoder.onnx");
    support::compile(data.folder.path(), "onnx", &encoder).arg("--no-verify").assert().success();
    let told = data.of_models(&[&encoder], &by_model).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&told).contains("give a model that `vjepa detect export` wrote"));
}

/// Whether ONNX Runtime is there.
fn ort() -> bool {
    match Runtime::discover(&Search::default()) {
        Ok(_) => true,
        Err(error) if std::env::var("VJEPA_REQUIRE_ORT").is_ok_and(|value| value == "1") => panic!("{error}"),
        Err(_) => false,
    }
}

/// Fails unless two files hold the same boxes and actions, with scores that are as near as runtimes are to the plan.
fn same_detections(one: &Path, other: &Path) {
    let rows = |path: &Path| -> Vec<(String, f64)> {
        let text = std::fs::read_to_string(path).unwrap();
        let row = |line: &str| line.rsplit_once(',').map(|(row, score)| (row.to_owned(), score.parse().unwrap()));
        text.lines().map(|line| row(line).unwrap()).collect()
    };
    let (one, other) = (rows(one), rows(other));
    assert_eq!(one.len(), other.len());
    for ((row, score), (same, near)) in one.iter().zip(&other) {
        assert_eq!(row, same);
        assert!((score - near).abs() <= 1e-4, "{row}: {score} and {near}");
    }
}

#[test]
fn a_detector_is_trained_on_crops_and_on_a_person_detectors_boxes() {
    let data = Annotated::new();
    let mut people = String::new();
    for line in std::fs::read_to_string(&data.boxes).unwrap().lines().filter(|line| line.contains(",900,")) {
        let fields: Vec<&str> = line.split(',').collect();
        let [id, second, .., action, _] = fields[..] else { panic!("{line}") };
        writeln!(people, "{id},{second},0.05,0.05,0.95,0.95,{action},0.92").unwrap();
    }
    // Nobody does anything here, and here it is not sure that there is somebody.
    writeln!(people, "t0_d0_s0,901,0.8,0.8,0.9,0.9,,0.99\nt0_d0_s0,901,0.1,0.8,0.2,0.9,1,0.7").unwrap();
    let people = write(data.folder.path(), "predicted.csv", &people);
    let train = |more: &[&str]| {
        let mut train = data.detect("train");
        train.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
        train.args(["--side", "48", "--step", "1", "--epochs", "6", "--lr", "0.01", "--layers", "0,1,2"]).args(more);
        json(&mut train)
    };
    let plain = train(&[]);
    let people = ["--people", people.to_str().unwrap()];
    let with_people = train(&people);
    let count = |summary: &serde_json::Value| summary["boxes"].as_u64().unwrap();
    // One more in every video's first frame, that of a missing video aside, and one without an action.
    assert_eq!(count(&with_people), count(&plain) / 2 * 3 + 1, "{with_people}");
    let notes = with_people["notes"].to_string();
    assert!(notes.contains("1 of them without an action; 1 are below the score of 0.8"), "{notes}");
    let loss = |summary: &serde_json::Value| summary["loss"].as_f64().unwrap();
    let augmented = train(&[&people[..], &["--augment"]].concat());
    assert!(loss(&augmented).is_finite() && loss(&augmented) != loss(&with_people), "{augmented}");
    assert_eq!(loss(&augmented), loss(&train(&[&people[..], &["--augment"]].concat())), "by the seed alone");
    assert!(augmented["features"].as_str().unwrap().contains("random crops"), "{augmented}");
}

#[test]
fn an_encoder_of_a_folder_is_trained_on_and_exported() {
    let data = Annotated::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/vjepa2_hf/model");
    let at = |name: &str| data.folder.path().join(name);
    let detect = |what: &str| {
        let mut command = vjepa();
        command.args(["detect", what, "--checkpoint"]).arg(&folder);
        command
    };
    let exported = |name: &str, seed: &str, width: &str| {
        let (detector, onnx) = (at(&format!("{name}.safetensors")), at(&format!("{name}.onnx")));
        let mut train = detect("train");
        train.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures()).arg("--out").arg(&detector);
        json(train.args(["--side", "48", "--step", "1", "--epochs", "2", "--seed", seed]));
        let mut export = detect("export");
        export.arg("--detector").arg(&detector).arg("--out").arg(&onnx);
        json(export.args(["--width", width, "--no-verify"]));
        onnx
    };
    let (square, other) = (exported("square", "0", "48"), exported("other", "1", "32"));
    let digest = file_digest(&folder.join("model.safetensors")).unwrap();
    let bytes = std::fs::read(&square).unwrap();
    // Of the detector's record and of the model itself.
    let found = bytes.windows(digest.len()).filter(|window| *window == digest.as_bytes()).count();
    assert_eq!(found, 2);
    if ort() {
        // Two detectors on one encoder, which say the same of themselves but for the file.
        let told = data.of_models(&[&square, &other], &at("out.csv")).assert().failure().get_output().stderr.clone();
        assert!(String::from_utf8_lossy(&told).contains("is of another detector than"));
        data.of_models(&[&square], &at("out.csv")).assert().success();
    }
}

#[test]
fn first_key_frames_that_cannot_be_read_only_cost_the_estimate() {
    let data = Annotated::new();
    let videos = data.folder.path().join("videos");
    std::fs::create_dir(&videos).unwrap();
    for file in std::fs::read_dir(textures()).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap();
        if name.starts_with("t0_d0") || name.starts_with("t1_d0") {
            std::fs::copy(&file, videos.join(name)).unwrap();
        }
    }
    std::fs::write(videos.join("a_broken.mp4"), "no video").unwrap();
    let mut boxes: String = (900..904).map(|second| format!("a_broken,{second},0.1,0.1,0.9,0.9,1,0\n")).collect();
    boxes += &std::fs::read_to_string(&data.boxes).unwrap();
    let boxes = write(data.folder.path(), "with-broken.csv", &boxes);
    let mut train = data.detect("train");
    train.arg("--boxes").arg(&boxes).arg("--videos").arg(&videos).arg("--out").arg(data.detector()).arg("--augment");
    train.args(["--side", "48", "--step", "1", "--epochs", "2", "--layers", "0,1,2"]);
    let output = train.assert().success().get_output().stderr.clone();
    let told = String::from_utf8(output).unwrap();
    assert!(told.contains("4 of ") && told.contains("key frames were left out; the first, a_broken at 900"), "{told}");
    assert!(!told.contains("the encoder sees"), "{told}");
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let data = Annotated::new();
    let (file, out) = (data.folder.path().join("any"), data.folder.path().join("out.csv"));
    let refused = |command: &mut Command, words: &str| {
        let told = String::from_utf8(command.assert().failure().get_output().stderr.clone()).unwrap();
        assert!(told.contains(words), "{words}: {told}");
    };
    let model = || data.of_models(&[&file], &out);
    refused(model().args(["--device", "cpu"]), "cannot be used with '--device");
    refused(model().arg("--checkpoint").arg(&file), "cannot be used with");
    refused(model().args(["--set", "data.sampling_rate=2"]), "cannot be used with '--set");
    for flag in [["--ort-lib", "lib.so"], ["--gpu", "0"], ["--batches", "1:1:1"], ["--engine-cache", "x"]] {
        let mut run = data.detect("run");
        run.arg("--detector").arg(&file).arg("--people").arg(&data.people).arg("--videos").arg(textures());
        refused(run.arg("--out").arg(&out).args(flag), &format!("cannot be used with '{}", flag[0]));
    }
    for flag in [
        ["--device", "cpu"],
        ["--gpu", "0"],
        ["--videos", "x"],
        ["--people", "x"],
        ["--checkpoint", "x"],
        ["--set", "a=1"],
    ] {
        let mut eval = vjepa();
        eval.args(["detect", "eval", "--detections"]).arg(&file).arg("--boxes").arg(&data.boxes).args(flag);
        refused(&mut eval, &format!("cannot be used with '{}", flag[0]));
    }
}

#[test]
fn what_is_no_detector_or_no_annotation_is_refused() {
    let data = Annotated::new();
    let refused = |command: &mut Command| {
        let output = command.assert().failure().get_output().stderr.clone();
        let told = String::from_utf8(output).unwrap();
        assert!(told.len() < 1000, "{told}");
        told
    };
    let train = |boxes: &Path| {
        let mut command = data.detect("train");
        command.arg("--boxes").arg(boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
        command
    };
    let reversed = write(data.folder.path(), "reversed.csv", "t0_d0_s0,900,0.5,0.1,0.2,0.9,1,0\n");
    assert!(refused(&mut train(&reversed)).contains("reversed or empty"));
    let zero = write(data.folder.path(), "zero.csv", "t0_d0_s0,900,0.1,0.1,0.2,0.9,0,0\n");
    assert!(refused(&mut train(&zero)).contains("ids from 1"));
    let nowhere = write(data.folder.path(), "nowhere.csv", "other,900,0.1,0.1,0.2,0.9,1,0\n");
    assert!(refused(&mut train(&nowhere)).contains("names no key frame whose video is in"));
    let score = |truth: &str| {
        let found = write(data.folder.path(), "found.csv", "t0_d0_s0,900,0.1,0.1,0.9,0.9,1,0.5\n");
        let mut command = vjepa();
        command.args(["detect", "eval", "--detections"]).arg(found).arg("--boxes");
        command.arg(write(data.folder.path(), "truth.csv", truth));
        command
    };
    let flat = "t0_d0_s0,900,0.1,0.1,0.2,0.2,,0\nt0_d0_s0,900,0.5,0.1,0.2,0.9,1,0\nt0_d0_s0,900,0.5,0.9,0.6,0.2,1,0\n";
    let told = refused(&mut score(flat));
    assert!(
        told.contains("truth.csv has no box that counts") && told.contains("of 2 rows 2 reversed or empty"),
        "{told}"
    );
    assert!(told.contains("the first in line 2"), "{told}");
    let some =
        score(&format!("{flat}t0_d0_s0,900,0.1,0.1,0.9,0.9,1,0\n")).assert().success().get_output().stdout.clone();
    let some = String::from_utf8(some).unwrap();
    assert!(some.contains("left out of the ground truth: of 3 rows 2 reversed or empty"), "{some}");
    let mut eval = data.detect("eval");
    eval.arg("--detector").arg(tiny("weights.safetensors")).arg("--boxes").arg(&data.boxes);
    let told = refused(eval.arg("--videos").arg(textures()));
    assert!(told.contains("weights.safetensors"), "{told}");
}
