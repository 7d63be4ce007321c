//! What tests of the command line share: the binary, the golden data, small files.
#![allow(dead_code)] // Each test program uses its own part.

pub mod pytorch;
pub mod ranks;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assert_cmd::Command;
use vjepa_lab::golden::Compare as _;
use vjepa_lab::golden::check::Limit;
use vjepa_programs::PROBE_KEY;
use vjepa_weights as weights;
use vjepa_weights::TensorFile;
use vjepa_weights::save_safetensors;

/// Sizes of the golden model `tiny`.
pub const TINY: &str = "\
model: {embed_dim: 96, depth: 3, num_heads: 3, pred_embed_dim: 48, pred_depth: 2}
data: {crop_size: 64, num_frames: 8, tubelet_size: 2, patch_size: 16, batch_size: 4}
";

/// A run of seconds: a tiny model on small texture clips.
pub const SMALL_RUN: [&str; 16] = [
    "data.batch_size=4",
    "data.crop_size=32",
    "model.embed_dim=32",
    "model.depth=2",
    "model.num_heads=2",
    "model.pred_embed_dim=16",
    "model.pred_depth=1",
    "model.pred_num_heads=2",
    "optimization.steps=6",
    "optimization.warmup_steps=2",
    "logging.checkpoint_every=3",
    "logging.metrics_every=1",
    "logging.diagnostics_every=null",
    "mask.0.num_blocks=4",
    "mask.1.num_blocks=1",
    "meta.seed=5",
];

/// The configuration that [`SMALL_RUN`] makes small.
pub fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/quickstart.yaml")
}

/// `vjepa train` of the small run into a folder.
pub fn train(folder: &Path, extra: &[&str]) -> Command {
    let mut command = Command::cargo_bin("vjepa").unwrap();
    command.args(["train", "--config"]).arg(recipe()).timeout(Duration::from_secs(300));
    for set in SMALL_RUN {
        command.args(["--set", set]);
    }
    command.arg("--set").arg(format!("logging.folder={}", folder.display())).args(extra);
    command
}

/// Losses of all steps of a run.
pub fn losses(folder: &Path) -> Vec<f64> {
    let mut reader = csv::Reader::from_path(folder.join("jepa-metrics.csv")).unwrap();
    reader.records().map(|row| row.unwrap().get(2).unwrap().parse().unwrap()).collect()
}

/// Loss and gradient norms of every step, as they were written: what two runs have alike that are the same bit for bit.
pub fn losses_and_norms(folder: &Path) -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(folder.join("jepa-metrics.csv")).unwrap();
    let header = reader.headers().unwrap().clone();
    let kept = |name: &str| name.starts_with("loss") || name.starts_with("grad_norm_");
    let columns: Vec<usize> = header.iter().enumerate().filter(|(_, name)| kept(name)).map(|(at, _)| at).collect();
    assert!(header.iter().filter(|name| name.starts_with("grad_norm_")).count() >= 2, "{header:?}");
    let row = |row: csv::StringRecord| columns.iter().map(|at| row[*at].to_owned()).collect();
    reader.records().map(|line| row(line.unwrap())).collect()
}

/// The program.
pub fn vjepa() -> Command {
    Command::cargo_bin("vjepa").expect("the program is built with its tests")
}

/// A file of the golden model `tiny`.
pub fn tiny(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/tiny").join(name)
}

/// `vjepa compile --export` of the golden model `tiny`, with its configuration beside `out` in `folder`.
pub fn compile(folder: &Path, export: &str, out: &Path) -> Command {
    let config = write(folder, "tiny.yaml", TINY);
    let mut command = vjepa();
    command.args(["compile", "--export", export, "--checkpoint"]).arg(tiny("weights.safetensors"));
    command.arg("--config").arg(config).arg("--out").arg(out);
    command
}

/// A linear probe of three classes that reads nothing but the first value of the mean token.
pub fn probe(folder: &Path) -> PathBuf {
    let mut weight = vec![0.0; 3 * 96];
    (weight[0], weight[96]) = (5.0, -5.0);
    let tensors = weights::Tensors::from([
        ("probe.linear.weight".to_owned(), (vec![3, 96], weight)),
        ("probe.linear.bias".to_owned(), (vec![3], vec![0.0, 0.1, 0.2])),
    ]);
    let record =
        serde_json::json!({"kind": "linear", "classes": 3, "labels": ["left", "right", "up"], "embed_dim": 96});
    let path = folder.join("probe.safetensors");
    save_safetensors(&path, &tensors, &BTreeMap::from([(PROBE_KEY.to_owned(), record.to_string())])).unwrap();
    path
}

/// A file of the texture clips.
pub fn texture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/textures").join(name)
}

/// Writes a file into a folder.
pub fn write(folder: &Path, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, contents).expect("scratch folders can be written to");
    path
}

/// Runs a command that must fail with exit code 1 and one line on standard error; returns that line.
pub fn refused(command: &mut Command) -> String {
    let output = command.assert().code(1).get_output().clone();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.starts_with("error: ") && text.trim_end().lines().count() == 1, "one sentence, not: {text}");
    assert!(output.stdout.is_empty());
    text
}

/// Fails unless `encoder_out` in `path` is what the official encoder gave for the golden clips.
pub fn assert_official_features(path: &Path) {
    let got = TensorFile::read(path).expect("features were written").f32("encoder_out").expect("they hold encoder_out");
    let golden = TensorFile::read(tiny("forward.safetensors")).expect("golden data are there");
    let limit = Limit::Both { rel_l2: 1e-5, max_abs: 1e-4 };
    let check = golden.compare("encoder_out", &got, limit).expect("golden data hold encoder_out");
    assert!(!check.failed(), "{check}");
}
