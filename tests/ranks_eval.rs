//! Several ranks share the samples of `features`, `probe` and `eval`: rank 0 writes what one process writes. Needs the feature `mpi`
//! and `mpirun`.
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
        let out = self.path(&format!("{name}-{ranks}"));
        std::fs::create_dir_all(&out).unwrap();
        let mut command = Command::new(if ranks == 1 { env!("CARGO_BIN_EXE_vjepa") } else { "mpirun" });
        // The number of threads decides the last bits of what trains a probe, on one rank too.
        command.env("RAYON_NUM_THREADS", "1");
        if ranks > 1 {
            command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
            command.args(["--oversubscribe", "-n", &ranks.to_string(), env!("CARGO_BIN_EXE_vjepa")]);
        }
        command.arg(name).arg("--checkpoint").arg(&self.checkpoint).arg("--config").arg(&self.config).arg("--json");
        arguments(&mut command, &out);
        let output = command.output().expect("mpirun is installed (openmpi-bin)");
        assert!(output.status.success(), "{ranks}: {}", String::from_utf8_lossy(&output.stderr));
        (output, out)
    }

    /// Fails unless one, two and three ranks say the same, but for the folder's name, and write the same files.
    fn same(&self, name: &str, files: &[&str], arguments: &dyn Fn(&mut Command, &Path)) {
        let [one, two, three] = [1, 2, 3].map(|ranks| {
            let (output, out) = self.run(ranks, name, arguments);
            let said = String::from_utf8_lossy(&output.stdout).replace(&out.display().to_string(), "OUT");
            assert_eq!(said.trim().lines().count(), 1, "{ranks} ranks: rank 0 speaks alone: {said}");
            let written: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(out.join(file)).unwrap()).collect();
            (said, written)
        });
        assert!(one.0.contains("broken.mp4") || one.0.contains("\"bad\":1"), "{}", one.0);
        for (ranks, many) in [(2, two), (3, three)] {
            assert_eq!(many.0, one.0, "{name} on {ranks} ranks");
            for (file, (many, one)) in files.iter().zip(many.1.iter().zip(&one.1)) {
                assert!(many == one, "{name} on {ranks} ranks: {file} differs");
            }
        }
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
