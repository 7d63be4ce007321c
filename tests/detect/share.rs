//! Training on shares of the videos, and with actions that have no name.

use std::path::Path;

use super::support::{refused, write};
use super::{Annotated, json, textures};

#[test]
fn actions_without_a_name_are_counted() {
    let data = Annotated::new();
    let map = write(
        data.folder.path(),
        "map.pbtxt",
        "item {\n name: \"one\"\n id: 1\n}\nitem {\n name: \"two\"\n id: 2\n}\n",
    );
    let people = write(
        data.folder.path(),
        "labelled.csv",
        "t0_d0_s0,900,0.1,0.1,0.9,0.9,9,0.95\nt0_d0_s0,900,0.1,0.1,0.9,0.9,1,0.95\n",
    );
    let mut train = data.detect("train");
    train.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
    train.args(["--side", "48", "--step", "1", "--epochs", "1", "--layers", "0,1,2"]);
    let summary = json(train.arg("--actions").arg(&map).arg("--people").arg(&people));
    // AVA's boxes show 80 actions, of which its map names 60: outputs are as many as the highest id.
    assert_eq!(summary["actions"], 9, "{summary}");
    let text = std::fs::read_to_string(&data.boxes).unwrap();
    let unnamed = |line: &str| line.ends_with(",3,0") || line.ends_with(",4,0");
    let (count, line) =
        (text.lines().filter(|line| unnamed(line)).count(), text.lines().position(unnamed).unwrap() + 1);
    let notes = summary["notes"].to_string();
    let words = format!("boxes.csv: {count} boxes show 2 actions that");
    assert!(notes.contains(&words) && notes.contains(&format!("first 3 of the box in line {line};")), "{notes}");
    assert!(notes.contains("map.pbtxt does not name"), "{notes}");
    assert!(notes.contains("labelled.csv: 1 box shows 1 action that"), "{notes}");
}

#[test]
fn a_share_of_the_videos_is_trained_on() {
    let data = Annotated::new();
    let train = |more: &[&str]| {
        let mut train = data.detect("train");
        train.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
        train.args(["--side", "48", "--step", "1", "--epochs", "2", "--layers", "0,1,2"]).args(more);
        json(&mut train)
    };
    let (all, half) = (train(&[]), train(&["--subset", "50%", "--split-seed", "0"]));
    let count = |summary: &serde_json::Value, key: &str| summary[key].as_u64().unwrap();
    // Whole videos, with both of their key frames.
    assert_eq!(2 * count(&half, "key_frames"), count(&all, "key_frames"), "{half}");
    assert_eq!((count(&half, "boxes") % 2, &half["actions"]), (0, &all["actions"]));
    assert!(half["notes"].to_string().contains("videos are trained on, with"), "{half}");
    let one = train(&["--subset", "1%", "--split-seed", "0"]);
    assert_eq!(count(&one, "key_frames"), 2);
    assert!(one["notes"].to_string().contains("3 of 4 actions do not occur in them"), "{one}");
    // Three draws where none is named, each with a detector of its own.
    let drawn = train(&["--subset", "50%"]);
    let runs = drawn["runs"].as_array().unwrap();
    let losses: Vec<f64> = runs.iter().map(|run| run["loss"].as_f64().unwrap()).collect();
    assert_eq!((runs.len(), drawn["splits"].as_u64(), &drawn["actions"]), (3, Some(3), &all["actions"]), "{drawn}");
    assert_eq!((&runs[0]["loss"], &runs[0]["boxes"]), (&half["loss"], &half["boxes"]));
    assert!((drawn["loss"].as_f64().unwrap() - losses.iter().sum::<f64>() / 3.0).abs() < 1e-9);
    let second = train(&["--subset", "50%", "--split-seed", "1"]);
    assert_eq!(second["loss"], runs[1]["loss"]);
    assert_ne!(second["loss"], half["loss"]);
    let files: Vec<&str> = runs.iter().map(|run| run["detector"].as_str().unwrap()).collect();
    assert!(files[1].ends_with("detector-split-1.safetensors"), "{files:?}");
    assert_eq!(std::fs::read(files[1]).unwrap(), std::fs::read(data.detector()).unwrap());
    // Their evaluation is the mean of theirs.
    let eval = |files: &[&str]| {
        let mut eval = data.detect("eval");
        for file in files {
            eval.args(["--detector", file]);
        }
        eval.arg("--boxes").arg(&data.boxes).arg("--videos").arg(textures());
        eval
    };
    let maps: Vec<f64> =
        files.iter().map(|file| json(&mut eval(&[file]))["evaluation"]["map"].as_f64().unwrap()).collect();
    let mean = json(&mut eval(&files));
    assert!((mean["map"].as_f64().unwrap() - maps.iter().sum::<f64>() / 3.0).abs() < 1e-9, "{mean} {maps:?}");
    assert!(mean["map_standard_error"].as_f64().unwrap() > 0.0 && mean["splits"] == 3, "{mean}");
    let text = eval(&files).assert().success().get_output().stdout.clone();
    assert!(String::from_utf8_lossy(&text).contains("mean of 3 detectors: mAP@0.5"));
    let told = eval(&files).arg("--out").arg(data.detector()).assert().failure().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&told).contains("--out is for the detections of one --detector"));
}

#[test]
fn a_dry_run_counts_key_frames_and_epochs() {
    let data = Annotated::new();
    let train = |boxes: &Path, more: &[&str]| {
        let mut train = data.detect("train");
        train.arg("--boxes").arg(boxes).arg("--videos").arg(textures()).arg("--out").arg(data.detector());
        json(train.args(["--side", "48", "--step", "1", "--epochs", "4", "--dry-run"]).args(more))
    };
    let flops = |bill: &serde_json::Value, what: &str| {
        let parts = bill["parts"].as_array().unwrap().iter();
        parts
            .filter(|part| part["what"].as_str().unwrap().starts_with(what))
            .map(|part| part["flops"].as_f64().unwrap())
            .sum::<f64>()
    };
    let (once, augmented) = (train(&data.boxes, &[]), train(&data.boxes, &["--augment"]));
    assert!(flops(&once, "classifier, ") > 0.0 && once["not_counted"] == serde_json::json!([]), "{once}");
    // Square clips either way, of every key frame in every epoch.
    let (one, four) = (flops(&once, "encoder, training"), flops(&augmented, "encoder, training"));
    assert!(one > 0.0 && (four - 4.0 * one).abs() <= 1e-6 * four, "{one} {four}");
    let half = train(&data.boxes, &["--subset", "50%", "--split-seed", "0"]);
    assert!((flops(&half, "encoder, training") - one / 2.0).abs() <= 1e-6 * one, "{half}");
    let absent = data.folder.path().join("absent.csv");
    let told = train(&absent, &[])["not_counted"].to_string();
    assert!(told.contains("absent.csv is not here") && told.contains("train=N"), "{told}");
    let given = train(&absent, &["--assume", "train=211000,classes=80"]);
    assert!(
        given["parts"].to_string().contains("211000 (given)") && given["not_counted"].to_string().contains("square")
    );
    assert!(!data.detector().exists());
}

#[test]
fn what_would_train_nothing_or_read_nothing_is_refused() {
    let data = Annotated::new();
    let train = |more: &[&str]| {
        let mut train = data.detect("train");
        train.arg("--boxes").arg(&data.boxes).arg("--out").arg(data.detector()).args(["--side", "48", "--step", "1"]);
        train.args(more);
        train
    };
    let videos = textures().display().to_string();
    for (more, words) in [
        (["--videos", &videos, "--lr=nan"], "--lr must be positive"),
        (["--videos", &videos, "--lr=0"], "--lr must be positive"),
        (["--videos", &videos, "--wd=-1"], "--wd must not be negative"),
        (["--videos", &videos, "--frames=7"], "--frames 7"),
        (["--videos", "absent", "--lr=1"], "--videos absent: no such file or folder"),
    ] {
        // What is to be said of the boxes may stand before.
        let told = train(&more).assert().code(1).get_output().stderr.clone();
        let told = String::from_utf8(told).unwrap();
        assert!(told.lines().last().is_some_and(|last| last.starts_with("error: ") && last.contains(words)), "{told}");
    }
    let run = |more: &[&str]| {
        let mut run = data.detect("run");
        run.arg("--detector").arg(data.detector()).arg("--people").arg(&data.people).args(["--videos", &videos]);
        run.arg("--out").arg(data.folder.path().join("detections.csv")).args(more);
        run
    };
    train(&["--videos", &videos, "--epochs", "1"]).assert().success();
    run(&["--threshold", "1.5"]).assert().code(2);
    let told = refused(&mut run(&["--threshold", "0.99"]));
    assert!(told.contains("are below the score of 0.99: lower --threshold"), "{told}");
}
