//! Shards where commands take a list: one, a folder of them, and a pattern.

use std::path::Path;

use super::scene::{Scene, VIDEOS, assert_words, said};
use super::support::refused;
use vjepa_weights::TensorFile;

/// A scene whose videos are packed into several shards, too.
fn packed() -> Scene {
    let scene = Scene::new();
    scene.list("plain.csv", |path, _, label| format!("{path} {label}"));
    let mut pack = scene.command("data");
    pack.args(["pack", "plain.csv", "--out", "shards", "--name", "s", "--copy", "--shard-size", "1KiB"]);
    pack.assert().success();
    assert!(scene.path("shards/s-000001.tar").is_file());
    scene
}

fn json(command: &mut assert_cmd::Command) -> serde_json::Value {
    serde_json::from_slice(&command.arg("--json").assert().success().get_output().stdout).unwrap()
}

#[test]
fn a_probe_takes_shards_as_it_takes_their_list() {
    let scene = packed();
    let wanted = json(&mut scene.probe(Path::new("plain.csv")));
    assert_eq!(wanted["train"]["videos"], VIDEOS.len(), "{wanted}");
    for data in ["shards", "shards/s-*.tar", "shards/s-{000000..000005}.tar"] {
        assert_eq!(json(&mut scene.probe(Path::new(data)))["train"], wanted["train"], "{data}");
        assert_eq!(json(&mut scene.eval(Path::new(data)))["videos"], VIDEOS.len(), "{data}");
    }
    assert_eq!(json(&mut scene.eval(Path::new("shards/s-000000.tar")))["videos"], 1);
    let one = refused(&mut scene.probe(Path::new("shards/s-000000.tar")));
    assert_words(&one, &["s-000000.tar", "at least two classes"]);
}

#[test]
fn features_pictures_and_the_loaders_measurement_take_shards() {
    let scene = packed();
    // Writes the encoder.
    scene.probe(Path::new("plain.csv")).assert().success();
    let encoder = ["--checkpoint", "encoder.safetensors", "--config", "run.yaml"];
    let features = |input: &str| {
        let mut command = scene.command("features");
        command.args(encoder).args(["--pool", "mean", "--out", "f.safetensors", "--input", input]).assert().success();
        TensorFile::read(scene.path("f.safetensors")).unwrap().f32("features").unwrap()
    };
    let wanted = features("plain.csv");
    for input in ["shards", "shards/s-*.tar"] {
        assert!(features(input) == wanted, "{input}");
    }
    assert!(features("shards/s-000000.tar") == wanted[..wanted.len() / VIDEOS.len()]);

    for data in ["plain.csv", "shards", "shards/s-*.tar"] {
        let mut command = scene.command("visualize");
        command.arg("neighbours").args(encoder).args(["--data", data, "--out", "near.png"]);
        assert!(!said(&mut command).contains("skipped"), "{data}");
        let picture = std::fs::read(scene.path("near.png")).unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 4096, "{data}: {}", picture.len());
        std::fs::remove_file(scene.path("near.png")).unwrap();
    }
    for data in ["shards", "shards/s-000000.tar"] {
        let mut command = scene.command("bench");
        command.args(["loader", "--config", "run.yaml", "--rounds", "1", "--batches", "1", "--workers", "1"]);
        let report = json(command.args(["--set", &format!("data.datasets=[{data}]")]));
        assert!(report["rounds"][0]["alone_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{report}");
    }
}
