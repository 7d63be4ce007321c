//! A folder with videos, a configuration, and lists of all kinds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_data::read_list;
use vjepa_graphs::init::{self, Init};
use vjepa_programs::encoder_config;
use vjepa_recipe::config::Config;
use vjepa_weights::{Tensors, save_safetensors};

use super::support::{texture, vjepa, write};

/// A small model for the carried texture clips: 8 frames of 48 by 48 pixels.
pub const CONFIG: &str = "\
data: {batch_size: 2, num_workers: 0, num_frames: 8, tubelet_size: 2, crop_size: 48, patch_size: 8, sampling_rate: 1, sampling: exact}
model: {embed_dim: 24, depth: 1, num_heads: 2, pred_embed_dim: 12, pred_depth: 1, init: xavier}
meta: {dtype: float32}
optimization: {steps: 2, warmup_steps: 1}
logging: {folder: run}
";

/// A folder with four videos `videos/CLASS_N.mp4` of three classes, and a configuration.
pub struct Scene(pub tempfile::TempDir);

pub const VIDEOS: [(&str, usize); 6] =
    [("dots", 0), ("dots", 0), ("lines", 1), ("lines", 1), ("waves", 2), ("waves", 2)];

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("my videos")).unwrap();
        for (index, name) in Self::names().enumerate() {
            // Of the carried clips every other one is an mp4.
            let label = VIDEOS[index].1;
            let carried = format!("t{label}_d{}_s0.mp4", 2 * (index % 2) + label % 2);
            std::fs::copy(texture(&carried), folder.path().join(name)).unwrap();
        }
        write(folder.path(), "run.yaml", CONFIG);
        Self(folder)
    }

    pub fn names() -> impl Iterator<Item = String> {
        VIDEOS.iter().enumerate().map(|(index, (class, _))| format!("my videos/{class}_{index}.mp4"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A list of one line per video, made from its path as it stands in lists, its class's name and its label.
    pub fn list(&self, name: &str, line: impl Fn(&str, &str, usize) -> String) -> PathBuf {
        let lines = Self::names().zip(VIDEOS).map(|(path, (class, label))| line(&path, class, label) + "\n");
        write(self.0.path(), name, lines.collect::<String>())
    }

    /// A command in the scene's folder.
    pub fn command(&self, name: &str) -> assert_cmd::Command {
        let mut command = vjepa();
        command.arg(name).current_dir(self.0.path());
        command
    }

    pub fn train(&self, list: &str) -> assert_cmd::Command {
        let mut command = self.command("train");
        command.args(["--config", "run.yaml", "--set"]).arg(format!("data.datasets=[{list}]"));
        command
    }

    /// `vjepa probe` with a random encoder.
    pub fn probe(&self, data: &Path) -> assert_cmd::Command {
        let checkpoint = self.path("encoder.safetensors");
        if !checkpoint.exists() {
            let sizes = encoder_config(&Config::from_yaml(CONFIG, "", &[]).unwrap()).unwrap();
            let tensors: Tensors = init::encoder(&sizes, Init::Xavier, 0)
                .into_iter()
                .map(|(name, tensor)| (format!("target_encoder.{name}"), tensor))
                .collect();
            save_safetensors(&checkpoint, &tensors, &BTreeMap::new()).unwrap();
        }
        let mut command = self.command("probe");
        command.args(["--checkpoint", "encoder.safetensors", "--config", "run.yaml", "--kind", "linear"]);
        command.args(["--out", "probe.safetensors", "--data"]).arg(data);
        command
    }

    pub fn eval(&self, data: &Path) -> assert_cmd::Command {
        let mut command = self.command("eval");
        command.args(["--checkpoint", "encoder.safetensors", "--config", "run.yaml", "--probe", "probe.safetensors"]);
        command.arg("--data").arg(data);
        command
    }

    pub fn labels(&self) -> Vec<String> {
        vjepa_programs::load_probe(&self.path("probe.safetensors")).unwrap().labels
    }
}

/// The command succeeds; what it says on standard error.
pub fn said(command: &mut assert_cmd::Command) -> String {
    String::from_utf8(command.assert().success().get_output().stderr.clone()).unwrap()
}

pub fn assert_words(text: &str, words: &[&str]) {
    assert!(words.iter().all(|word| text.contains(word)) && text.len() < 1000, "{words:?} are not all in: {text}");
}

/// What a list holds, paths without the scene's folder.
pub fn entries(scene: &Scene, list: &Path) -> Vec<(String, Option<i64>)> {
    let own = |path: &Path| path.strip_prefix(scene.0.path()).unwrap_or(path).display().to_string();
    read_list(list).unwrap().entries.iter().map(|entry| (own(&entry.path), entry.label)).collect()
}
