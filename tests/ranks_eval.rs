//! Several ranks share the samples of `features`, `probe`, `eval`, `detect` and `anticipate`: rank 0 writes what one process
//! writes. Needs the feature `mpi` and `mpirun`.
#![cfg(feature = "mpi")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use support::{texture, write};
use vjepa_graphs::init::{self, Init};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::Config;
use vjepa_weights::{Tensors, save_safetensors};

/// A small encoder for the carried texture clips.
const CONFIG: &str = "
data: {num_frames: 8, tubelet_size: 2, crop_size: 48, patch_size: 8, sampling_rate: 1, sampling: exact, normalization: per_clip, grayscale: true}
model: {embed_dim: 48, depth: 1, num_heads: 4, pred_embed_dim: 12, pred_depth: 1, pred_num_heads: 2, init: xavier}
";

/// An encoder and lists of videos, one of which cannot be read.
struct Scene {
    folder: tempfile::TempDir,
    config: PathBuf,
    checkpoint: PathBuf,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = write(folder.path(), "encoder.yaml", CONFIG);
        let sizes = encoder_config(&Config::from_yaml(CONFIG, "", &[]).unwrap()).unwrap();
        let tensors: Tensors = init::encoder(&sizes, Init::Xavier, 0)
            .into_iter()
            .map(|(name, tensor)| (format!("target_encoder.{name}"), tensor))
            .collect();
        let checkpoint = folder.path().join("encoder.safetensors");
        save_safetensors(&checkpoint, &tensors, &BTreeMap::new()).unwrap();
        let broken = write(folder.path(), "broken.mp4", b"no video");
        let list = std::fs::read_to_string(texture("labels.csv")).unwrap();
        for (name, offset) in [("train.csv", 0), ("val.csv", 1)] {
            let lines = list.lines().skip(offset).step_by(2).take(37);
            let mut lines: Vec<String> = lines.map(|line| texture(line).display().to_string()).collect();
            lines.insert(11, format!("{} 1", broken.display()));
            write(folder.path(), name, lines.join("\n"));
        }
        Self { folder, config, checkpoint }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A command on one rank, or on several under `mpirun`; its folder of results is named after them.
    fn run(&self, ranks: usize, name: &str, arguments: &dyn Fn(&mut Command, &Path)) -> (Output, PathBuf) {
        let out = self.path(&format!("{}-{ranks}", name.replace(' ', "-")));
        std::fs::create_dir_all(&out).unwrap();
        let mut command = Command::new(if ranks == 1 { env!("CARGO_BIN_EXE_vjepa") } else { "mpirun" });
        // The number of threads decides the last bits of what trains a probe, on one rank too.
        command.env("RAYON_NUM_THREADS", "1");
        if ranks > 1 {
            command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
            command.args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_vjepa")]);
        }
        command
            .args(name.split(' '))
            .arg("--checkpoint")
            .arg(&self.checkpoint)
            .arg("--config")
            .arg(&self.config)
            .arg("--json");
        arguments(&mut command, &out);
        let output = command.output().expect("mpirun is installed (openmpi-bin)");
        assert!(output.status.success(), "{ranks}: {}", String::from_utf8_lossy(&output.stderr));
        (output, out)
    }

    /// Fails unless one, two and three ranks say the same, but for the folder's name, and write the same files; what they say.
    /// Of the broken video all of them speak.
    fn same(&self, name: &str, files: &[&str], arguments: &dyn Fn(&mut Command, &Path)) -> String {
        let [one, two, three] = [1, 2, 3].map(|ranks| {
            let (output, out) = self.run(ranks, name, arguments);
            let said = String::from_utf8_lossy(&output.stdout).replace(&out.display().to_string(), "OUT");
            assert_eq!(said.trim().lines().count(), 1, "{ranks} ranks: rank 0 speaks alone: {said}");
            let written: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(out.join(file)).unwrap()).collect();
            let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
            (said, written, all)
        });
        for (ranks, many) in [(2, two), (3, three)] {
            assert_eq!(many.0, one.0, "{name} on {ranks} ranks");
            for (file, (many, one)) in files.iter().zip(many.1.iter().zip(&one.1)) {
                assert!(many == one, "{name} on {ranks} ranks: {file} differs");
            }
        }
        assert!(one.2.contains("broken") || one.2.contains("\"bad\":1"), "{}", one.2);
        one.0
    }
}

#[test]
fn features_are_the_same_rows() {
    let scene = Scene::new();
    for (every, pool) in [("0.3", "mean"), ("100", "tokens")] {
        scene.same("features", &["rows.safetensors"], &|command, out| {
            let _ = std::fs::remove_dir_all(out);
            std::fs::create_dir_all(out).unwrap();
            command.arg("--input").arg(scene.path("train.csv")).arg("--out").arg(out.join("rows.safetensors"));
            command.args(["--every", every, "--pool", pool]);
        });
    }
}

#[test]
fn probes_and_their_evaluation_are_the_same() {
    let scene = Scene::new();
    let data = |command: &mut Command| {
        command.arg("--data").arg(scene.path("train.csv")).arg("--val").arg(scene.path("val.csv"));
    };
    scene.same("probe", &["probe.safetensors"], &|command, out| {
        data(command);
        command
            .args(["--kind", "attentive,linear", "--epochs", "2", "--no-cache", "--out"])
            .arg(out.join("probe.safetensors"));
    });
    scene.same("eval", &[], &|command, _| {
        command.arg("--probe").arg(scene.path("probe-1").join("probe.safetensors")).arg("--no-cache");
        command.arg("--data").arg(scene.path("val.csv")).args(["--clips", "2", "--views", "2"]);
    });
    // With the encoder in the loop.
    scene.same("probe", &["probe.safetensors"], &|command, out| {
        data(command);
        command.args(["--online", "--clips", "2", "--epochs", "1", "--no-cache", "--out"]);
        command.arg(out.join("probe.safetensors"));
    });
}

/// Boxes of some texture videos in a folder of theirs, two key frames each, and of one that cannot be read.
fn annotated(scene: &Scene) -> PathBuf {
    let videos = scene.path("videos");
    std::fs::create_dir(&videos).unwrap();
    std::fs::copy(scene.path("broken.mp4"), videos.join("broken.mp4")).unwrap();
    let (mut boxes, mut people) = (String::new(), String::new());
    let mut annotate = |id: &str, action: u32| {
        for (second, corners) in [(900, "0.0,0.0,1.0,1.0"), (901, "0.1,0.1,0.7,0.9"), (901, "0.0,0.0,0.3,0.2")] {
            boxes += &format!("{id},{second},{corners},{action},0\n");
            people += &format!("{id},{second},{corners},,0.95\n");
        }
    };
    let list = std::fs::read_to_string(texture("labels.csv")).unwrap();
    for line in list.lines().step_by(9) {
        let (file, label) = line.rsplit_once(' ').unwrap();
        std::fs::copy(texture(file), videos.join(file)).unwrap();
        annotate(file.rsplit_once('.').unwrap().0, label.parse::<u32>().unwrap() + 1);
    }
    annotate("broken", 1);
    write(scene.folder.path(), "boxes.csv", boxes);
    write(scene.folder.path(), "people.csv", people);
    videos
}

#[test]
fn detectors_and_their_detections_are_the_same() {
    let scene = Scene::new();
    let videos = annotated(&scene);
    let train = |command: &mut Command, out: &Path| {
        command.arg("--boxes").arg(scene.path("boxes.csv")).arg("--videos").arg(&videos);
        command.args(["--side", "48", "--step", "1", "--epochs", "3", "--lr", "0.01", "--out"]);
        command.arg(out.join("detector.safetensors"));
    };
    let told = scene.same("detect train", &["detector.safetensors"], &train);
    assert!(told.contains("\"left_out\":2"), "{told}");
    // Crops show different boxes in every epoch.
    let augmented = |command: &mut Command, out: &Path| {
        train(command, out);
        command.arg("--augment");
    };
    assert_ne!(scene.same("detect train", &["detector.safetensors"], &augmented), told);
    let detector = scene.path("detect-train-1").join("detector.safetensors");
    scene.same("detect eval", &["found.csv"], &|command, out| {
        command.arg("--detector").arg(&detector).arg("--boxes").arg(scene.path("boxes.csv"));
        command.arg("--videos").arg(&videos).arg("--out").arg(out.join("found.csv"));
    });
    scene.same("detect run", &["found.csv"], &|command, out| {
        command.arg("--detector").arg(&detector).arg("--people").arg(scene.path("people.csv"));
        command.arg("--videos").arg(&videos).arg("--out").arg(out.join("found.csv"));
    });
}

/// A V-JEPA 2 whose predictor sees the future, after two steps of training.
const SECOND: &str = "
model: {generation: vjepa2, embed_dim: 32, depth: 2, num_heads: 2, pred_embed_dim: 16, pred_depth: 1, pred_num_heads: 1}
data: {num_frames: 4, batch_size: 2, crop_size: 32, patch_size: 8}
meta: {dtype: float32}
optimization: {steps: 2, warmup_steps: 1}
";

#[test]
fn anticipated_actions_are_the_same() {
    let mut scene = Scene::new();
    let videos = annotated(&scene);
    scene.config = write(scene.folder.path(), "second.yaml", SECOND);
    let list = format!("data.datasets=[{}]", texture("").display());
    let folder = format!("logging.folder={}", scene.path("run").display());
    let mut train = Command::new(env!("CARGO_BIN_EXE_vjepa"));
    train.args(["train", "--config"]).arg(&scene.config).args(["--set", &list, "--set", &folder]);
    assert!(train.output().unwrap().status.success());
    scene.checkpoint = scene.path("run").join("jepa-latest.safetensors");
    let mut actions = "participant_id,video_id,start_frame,stop_frame,verb_class,noun_class\n".to_owned();
    for (number, video) in std::fs::read_dir(&videos).unwrap().enumerate() {
        let name = video.unwrap().file_name().into_string().unwrap();
        actions += &format!("P01,{},12,20,{},{}\n", name.rsplit_once('.').unwrap().0, number % 3, number % 2);
    }
    let actions = write(scene.folder.path(), "actions.csv", actions);
    scene.same("anticipate train", &["actions.safetensors"], &|command, out| {
        command.arg("--videos").arg(&videos).arg("--train").arg(&actions).arg("--val").arg(&actions);
        command.args(["--frames", "4", "--seconds", "0.25", "--epochs", "2", "--out"]);
        command.arg(out.join("actions.safetensors"));
    });
    let probe = scene.path("anticipate-train-1").join("actions.safetensors");
    let told = scene.same("anticipate eval", &[], &|command, _| {
        command.arg("--videos").arg(&videos).arg("--actions").arg(&actions).arg("--probe").arg(&probe);
    });
    assert!(told.contains("recall_at_5"), "{told}");
}
