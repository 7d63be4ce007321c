//! `vjepa features`: official numbers from every kind of checkpoint, and checkpoints that are refused; which probe is taken of a
//! file.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use support::{TINY, assert_official_features, pytorch, refused, texture, tiny, vjepa, write};
use vjepa_eval::attentive::first_weights;
use vjepa_graphs::{BlocksOn, NamedTensors, ProbeConfig};
use vjepa_programs::Probe;
use vjepa_weights as weights;
use vjepa_weights::TensorFile as Stored;
use vjepa_weights::{RECORD_KEY, Tensors, save_safetensors};

fn features(folder: &Path, checkpoint: &Path, config: Option<&Path>, input: &Path) -> (assert_cmd::Command, PathBuf) {
    let out = folder.join("features.safetensors");
    let mut command = vjepa();
    command.arg("features").arg("--checkpoint").arg(checkpoint).arg("--input").arg(input).arg("--out").arg(&out);
    if let Some(config) = config {
        command.arg("--config").arg(config);
    }
    (command, out)
}

/// The golden weights, with `encoder.` replaced by `model.`.
fn golden_weights(model: &str) -> Tensors {
    let all = weights::load(&tiny("weights.safetensors")).unwrap().all().unwrap();
    let renamed = |(name, tensor): (String, _)| match name.strip_prefix("encoder.") {
        Some(rest) => (format!("{model}.{rest}"), tensor),
        None => (name, tensor),
    };
    all.into_iter().map(renamed).collect()
}

#[test]
fn safetensors_give_the_official_features() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let clips = tiny("forward.safetensors");
    let (mut command, out) = features(folder.path(), &tiny("weights.safetensors"), Some(&config), &clips);
    let output = command.arg("--json").assert().success().get_output().stdout.clone();
    let summary: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(summary["encoder_out"], serde_json::json!([4, 64, 96]));
    assert_eq!(summary["encoder"], "encoder");
    assert_eq!(Stored::read(&out).unwrap().shape("encoder_out").unwrap(), [4, 64, 96]);
    assert_official_features(&out);
}

#[test]
fn pytorch_checkpoints_give_the_official_features_of_the_target_encoder() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let mut tensors = golden_weights("target_encoder");
    // Another encoder beside it, which must not be taken.
    for (name, (shape, data)) in golden_weights("encoder") {
        tensors.entry(name).or_insert((shape, vec![0.0; data.len()]));
    }
    for (file, wrapper) in [("jepa-latest.pth.tar", "module.backbone."), ("plain.pt", "")] {
        let checkpoint = write(folder.path(), file, pytorch::official(&tensors, wrapper));
        let (mut command, out) = features(folder.path(), &checkpoint, Some(&config), &tiny("forward.safetensors"));
        command.assert().success();
        assert_official_features(&out);
    }
}

#[test]
fn our_own_checkpoints_need_no_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = folder.path().join("run-latest.safetensors");
    let mut tensors = golden_weights("target_encoder");
    tensors.insert("adam.m.encoder.norm.bias".to_owned(), (vec![96], vec![0.0; 96]));
    let record = serde_json::json!({"format": 1, "step": 10, "loss": 0.5, "config": TINY}).to_string();
    save_safetensors(&checkpoint, &tensors, &BTreeMap::from([(RECORD_KEY.to_owned(), record)])).unwrap();
    let (mut command, out) = features(folder.path(), &checkpoint, None, &tiny("forward.safetensors"));
    command.assert().success();
    assert_official_features(&out);
}

#[test]
fn a_clip_duration_that_only_training_knew_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY.replace("num_frames: 8", "num_frames: 8, clip_duration: 0.5"));
    let weights = tiny("weights.safetensors");
    let (mut command, _) = features(folder.path(), &weights, Some(&config), &texture("t0_d0_s0.mp4"));
    let output = command.assert().success().get_output().stderr.clone();
    assert!(String::from_utf8_lossy(&output).contains("`data.clip_duration` (0.5 s)"));
}

#[test]
fn a_video_is_cut_to_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    for video in ["t0_d0_s0.mp4", "t0_d0_s1.webm"] {
        let (mut command, out) = features(folder.path(), &tiny("weights.safetensors"), Some(&config), &texture(video));
        command.assert().success();
        let tokens = Stored::read(&out).unwrap();
        assert_eq!(tokens.shape("encoder_out").unwrap(), [1, 64, 96]);
        assert!(tokens.f32("encoder_out").unwrap().iter().all(|value| value.is_finite()));
    }
}

#[test]
fn every_misfit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let refuse = |name: &str, change: &dyn Fn(&mut Tensors)| {
        let mut tensors = golden_weights("encoder");
        change(&mut tensors);
        let path = folder.path().join(name);
        save_safetensors(&path, &tensors, &BTreeMap::new()).unwrap();
        refused(&mut features(folder.path(), &path, Some(&config), &tiny("forward.safetensors")).0)
    };
    let message = refuse("missing.safetensors", &|tensors| {
        tensors.remove("encoder.norm.bias");
        tensors.remove("encoder.blocks.1.mlp.fc2.weight");
    });
    assert!(message.contains("missing.safetensors"), "{message}");
    assert!(message.contains("missing: encoder.blocks.1.mlp.fc2.weight, encoder.norm.bias"), "{message}");
    let message = refuse("shape.safetensors", &|tensors| {
        if let Some(tensor) = tensors.get_mut("encoder.blocks.0.attn.qkv.weight") {
            tensor.0.reverse();
        }
    });
    assert!(message.contains("encoder.blocks.0.attn.qkv.weight must be [288, 96], got [96, 288]"), "{message}");
    let message = refuse("unexpected.safetensors", &|tensors| {
        tensors.insert("encoder.cls_token".to_owned(), (vec![1], vec![0.0]));
        tensors.insert("decoder.weight".to_owned(), (vec![1], vec![0.0]));
    });
    assert!(message.contains("unexpected: decoder.weight, encoder.cls_token"), "{message}");
    let message = refuse("predictor.safetensors", &|tensors| tensors.retain(|name, _| !name.starts_with("encoder.")));
    assert!(message.contains("only predictor"), "{message}");
    let message = refuse("nan.safetensors", &|tensors| {
        if let Some((_, data)) = tensors.get_mut("encoder.norm.weight") {
            data[0] = f32::NAN;
        }
    });
    assert!(message.contains("NaN or infinite"), "{message}");
}

#[test]
fn damaged_checkpoints_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let refuse = |name: &str, bytes: &[u8]| {
        let path = write(folder.path(), name, bytes);
        let (mut command, out) = features(folder.path(), &path, Some(&config), &tiny("forward.safetensors"));
        let message = refused(&mut command);
        assert!(message.contains(name) && !out.exists(), "{message}");
        message
    };
    let stored = std::fs::read(tiny("weights.safetensors")).unwrap();
    assert!(refuse("half.safetensors", &stored[..stored.len() / 2]).contains("cut off"));
    assert!(refuse("empty.pt", b"").contains("empty"));
    assert!(refuse("text.pt", b"not weights").contains("is a text file"));
    let archive = pytorch::official(&golden_weights("target_encoder"), "module.backbone.");
    assert!(refuse("half.pth.tar", &archive[..archive.len() / 2]).contains("cut off"));
    // In the pickle, which is checked by its checksum.
    let mut flipped = archive.clone();
    flipped[2000] ^= 0x40;
    refuse("flipped.pth.tar", &flipped);
    // A tensor far larger than the file: refused before anything is allocated for it.
    let huge = pytorch::Value::Tensor { shape: vec![1 << 20, 1 << 20], data: vec![0.0] };
    let root = [("encoder".to_owned(), pytorch::Value::Dict(vec![("pos_embed".to_owned(), huge)]))];
    assert!(refuse("huge.pth.tar", &pytorch::checkpoint(&root)).contains("too short"));
    let root = [("epoch".to_owned(), pytorch::Value::Int(3))];
    assert!(refuse("nothing.pth.tar", &pytorch::checkpoint(&root)).contains("target_encoder"));
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = write(folder.path(), "tiny.yaml", TINY);
    let refuse = |config: Option<&Path>, input: &Path| {
        refused(&mut features(folder.path(), &tiny("weights.safetensors"), config, input).0)
    };
    let clips = tiny("forward.safetensors");
    assert!(refuse(None, &clips).contains("pass --config"));
    assert!(refuse(Some(&config), &tiny("weights.safetensors")).contains("clip_u8"));
    assert!(refuse(Some(&config), &tiny("config.json")).contains("not a video"));
    assert!(refuse(Some(&config), Path::new("/no/such/clip.mp4")).contains("no such file"));
    let empty = write(folder.path(), "empty.mp4", "");
    assert!(refuse(Some(&config), &empty).contains("empty"));
    let video = std::fs::read(texture("t0_d0_s0.mp4")).unwrap();
    let cut = write(folder.path(), "cut.mp4", &video[..video.len() / 3]);
    assert!(refuse(Some(&config), &cut).contains("cut.mp4"));
    // A model for longer clips has other positions.
    let longer = write(folder.path(), "longer.yaml", TINY.replace("num_frames: 8", "num_frames: 16"));
    assert!(refuse(Some(&longer), &clips).contains("pos_embed must be [1, 128, 96], got [1, 64, 96]"));
    let odd = write(folder.path(), "odd.yaml", TINY.replace("crop_size: 64", "crop_size: 65"));
    assert!(refuse(Some(&odd), &clips).contains("crop_size"));
}

/// Probes as V-JEPA 2's evaluation saves them: one file for each seed, and one that holds them all.
fn official_probes(folder: &Path) -> [PathBuf; 3] {
    let config = ProbeConfig { blocks_on: BlocksOn::Features, ..ProbeConfig::sized(96, 16, 3) };
    let drawn = [1, 2].map(|seed| first_weights(&Probe::Attentive(config.clone()), seed));
    let saved = |name: &str, probes: &[&NamedTensors]| {
        let named = probes.iter().zip(0..).flat_map(|(probe, number)| {
            let named = move |(name, tensor): (&String, &(Vec<usize>, Vec<f32>))| {
                (format!("classifiers.{number}.module.{name}"), tensor.clone())
            };
            probe.iter().map(named)
        });
        let path = folder.join(name);
        save_safetensors(&path, &named.collect(), &BTreeMap::new()).unwrap();
        path
    };
    let [first, second] = &drawn;
    [
        saved("first.safetensors", &[first]),
        saved("second.safetensors", &[second]),
        saved("both.safetensors", &[first, second]),
    ]
}

/// Every command that reads a probe takes one of several alike: what it makes of `both --probe-number N` is what it makes of that
/// probe alone.
#[test]
fn any_of_several_official_probes_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (config, [first, second, both]) =
        (write(folder.path(), "tiny.yaml", TINY).display().to_string(), official_probes(folder.path()));
    let (weights, clip) = (tiny("weights.safetensors").display().to_string(), at("clip.webm"));
    std::fs::copy(texture("t0_d0_s1.webm"), &clip).unwrap();
    write(folder.path(), "list.csv", "clip.webm 0\n");
    let [rows, picture, plan, list] = ["rows.npy", "attention.png", "plan.vjg", "list.csv"].map(at);
    let [results, cache] = ["results", "cache"].map(at);
    let own = ["--checkpoint", &weights, "--config", &config];
    let commands = [
        ("features", vec!["features", "--input", &clip, "--pool", "attentive", "--out", &rows], Some(&rows)),
        ("attention", vec!["visualize", "attention", "--input", &clip, "--out", &picture], Some(&picture)),
        ("compile", vec!["compile", "--export", "plan", "--out", &plan, "--no-verify"], None),
        ("eval", vec!["eval", "--data", &list, "--results", &results, "--cache", &cache], None),
    ];
    for (name, words, out) in commands {
        let run = |probe: &Path, more: &[&str]| {
            let mut command = vjepa();
            command.args(&words).args(own).arg("--probe").arg(probe).args(more);
            if let Some(out) = out {
                let _ = std::fs::remove_file(out);
            }
            command
        };
        let made = |probe: &Path, more: &[&str]| {
            let output = run(probe, more).assert().success().get_output().clone();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            (out.map(|out| std::fs::read(out).unwrap()), told)
        };
        let ([one, other], (unnamed, told)) = ([&first, &second].map(|probe| made(probe, &[]).0), made(&both, &[]));
        assert!(told.contains("holds 2 probes, of which number 0 is taken: --probe-number N"), "{name}: {told}");
        let (chosen, told) = made(&both, &["--probe-number", "1"]);
        assert!(!told.contains("holds 2 probes"), "{name}: {told}");
        assert!(out.is_none() || (one != other && unnamed == one && chosen == other), "{name} takes another probe");
        let message = refused(&mut run(&both, &["--probe-number", "2"]));
        assert!(message.contains("holds 2 probes: give --probe-number a number from 0 to 1"), "{name}: {message}");
    }
    let top = |model: &str, more: &[&str]| {
        let mut command = vjepa();
        command.args(["run", model, &clip, "--runtime", "plan", "--json"]).args(more);
        let line: serde_json::Value = serde_json::from_slice(&command.assert().success().get_output().stdout).unwrap();
        line["top"].to_string()
    };
    let [first, second, both] = [first, second, both].map(|path| path.display().to_string());
    let of = |probe: &str, more: &[&str]| top(&weights, &[&["--config", &config, "--probe", probe], more].concat());
    let one = of(&second, &[]);
    assert_eq!(of(&both, &["--probe-number", "1"]), one);
    assert!(of(&both, &[]) == of(&first, &[]) && of(&both, &[]) != one);
    let mut command = vjepa();
    command.args(["compile", "--export", "plan", "--out", &plan, "--no-verify", "--probe", &both]).args(own);
    let output = command.args(["--probe-number", "1", "--json"]).assert().success().get_output().stdout.clone();
    let summary: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!((top(&plan, &[]), &summary["metadata"]["vjepa.probe_number"]), (one, &"1".into()));
    // Of no file there is none to choose.
    let mut command = vjepa();
    command.args(["compile", "--export", "plan", "--out", &plan, "--probe-number", "1"]).args(own);
    assert!(refused(&mut command).contains("there is none: leave it out"));
}
