//! What a run leaves for people: `run.json`, event files, `vjepa report`, `vjepa watch`, `vjepa visualize`.

mod support;

use std::path::Path;

use serde_json::Value;
use support::{TINY, recipe, refused, texture, tiny, train, vjepa, write};

const WATCHED: [&str; 2] = ["--set", "logging.diagnostics_every=2"];

fn starts(folder: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join("run.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["starts"].as_array().unwrap().clone()
}

fn event_files(folder: &Path) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("events.out.tfevents.")).count()
}

#[test]
fn a_run_can_be_watched_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    train(folder.path(), &WATCHED).args(["--stop-at", "3"]).assert().success();
    let first = starts(folder.path());
    assert_eq!((first.len(), &first[0]["ended"]["how"]), (1, &Value::from("stopped")));
    assert_eq!(first[0]["config"]["data"]["batch_size"], 4);
    train(folder.path(), &WATCHED).args(["--resume", "--set", "data.batch_size=2"]).assert().success();
    let both = starts(folder.path());
    assert_eq!((both.len(), &both[1]["from"], &both[1]["ended"]["how"]), (2, &Value::from(3), &Value::from("done")));
    assert_eq!(event_files(folder.path()), 2);
    let pictures = |name: &str| folder.path().join("pictures").join(name).is_file();
    assert!(pictures("masks-0000000.png") && pictures("features-0000002.png") && pictures("features-0000006.png"));
    // Four clips in each of the first three steps, then two.
    let mut reader = csv::Reader::from_path(folder.path().join("jepa-metrics.csv")).unwrap();
    let column = reader.headers().unwrap().iter().position(|name| name == "clips").unwrap();
    let clips: Vec<u64> = reader.records().map(|row| row.unwrap()[column].parse().unwrap()).collect();
    assert_eq!(clips, [4, 8, 12, 14, 16, 18]);

    vjepa().arg("report").arg(folder.path()).assert().success();
    let page = std::fs::read_to_string(folder.path().join("report.html")).unwrap();
    for wanted in ["Context gap, %", "data:image/png;base64,", "resumed after step 3", "data.batch_size=2"] {
        assert!(page.contains(wanted), "{wanted}");
    }
    let output = vjepa().args(["watch", "--once", "--json"]).arg(folder.path()).assert().success().get_output().clone();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&summary["state"], &summary["steps_done"]), (&Value::from("done"), &Value::from(6)));
    // There is no terminal here.
    assert!(refused(vjepa().arg("watch").arg(folder.path())).contains("--once"));
}

#[test]
fn a_run_that_fails_says_so_in_its_record() {
    let folder = tempfile::tempdir().unwrap();
    let wild = ["--set", "optimization.lr=1e30", "--set", "optimization.start_lr=1e30"];
    train(folder.path(), &wild).assert().failure();
    let failed = starts(folder.path())[0]["ended"]["how"]["failed"].as_str().unwrap().to_owned();
    assert!(failed.contains("at step"), "{failed}");
}

#[test]
fn folders_without_a_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["report", "watch"] {
        assert!(refused(vjepa().arg(command).arg(folder.path())).contains("logging.folder"));
    }
}

#[test]
fn masks_and_features_are_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let out = |name: &str| folder.path().join(name);
    let video = texture("t0_d0_s0.mp4");
    let mut masks = vjepa();
    masks.args(["visualize", "masks", "--config"]).arg(recipe()).arg("--input").arg(&video);
    masks.arg("--out").arg(out("masks.png")).assert().success();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let features = |name: &str| {
        let mut command = vjepa();
        command.args(["visualize", "features", "--checkpoint"]).arg(tiny("weights.safetensors"));
        command.arg("--config").arg(&config).args(["--set", "data.sampling_rate=1"]);
        command.arg("--input").arg(&video).arg("--out").arg(out(name));
        command
    };
    features("features.png").assert().success();
    features("features.gif").assert().success();
    for (name, magic) in [("masks.png", &b"\x89PNG"[..]), ("features.png", b"\x89PNG"), ("features.gif", b"GIF89a")] {
        assert!(std::fs::read(out(name)).unwrap().starts_with(magic), "{name}");
    }
    assert!(refused(&mut features("features.jpg")).contains(".png or .gif or .mp4"));
    if cfg!(feature = "ffmpeg") {
        features("features.mp4").assert().success();
        assert_eq!(vjepa_video::open(out("features.mp4")).unwrap().info().frames, 8);
    } else {
        let without = refused(&mut features("features.mp4"));
        assert!(without.contains("--features ffmpeg") && without.contains(".gif"), "{without}");
    }
    let probe = support::probe(folder.path());
    let mut attention = vjepa();
    attention.args(["visualize", "attention", "--checkpoint"]).arg(tiny("weights.safetensors"));
    attention.arg("--config").arg(&config).arg("--input").arg(&video).arg("--probe").arg(probe);
    assert!(refused(attention.arg("--out").arg(out("attention.png"))).contains("linear probe"));
}
