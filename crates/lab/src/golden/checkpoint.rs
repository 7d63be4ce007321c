//! A checkpoint of the official code: its names and shapes, and what its encoders give.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::{Check, GoldenError, Limit, read_json};
use super::clip::Clip;
use super::run::{Execution, FORWARD, run_once, values};
use super::sampled::Compare;
use vjepa_graphs::EncoderConfig;
use vjepa_programs as compile;
use vjepa_recipe::config::Positions;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights as weights;
use vjepa_weights::TensorFile;
use vjepa_weights::Weights;

/// `expected.json`: official name, shape and type of every tensor.
#[derive(Deserialize)]
struct Expected {
    encoder_keys: Vec<(String, Vec<usize>, String)>,
    predictor_keys: Vec<(String, Vec<usize>, String)>,
}

/// Compares with `expected.json` and `expected.safetensors`.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let expected: Expected = read_json(&dir.join("expected.json"))?;
    let golden = TensorFile::read(dir.join("expected.safetensors"))?;
    let weights = weights::load(&file(dir)?)?;
    let mut checks = Vec::new();
    for (model, keys) in [
        ("encoder", &expected.encoder_keys),
        ("target_encoder", &expected.encoder_keys),
        ("predictor", &expected.predictor_keys),
    ] {
        let own = weights.tensors().filter(|(name, ..)| name.split('.').next() == Some(model)).count();
        let name = |official: &str| format!("{model}.{}", official.replace("module.", "").replace("backbone.", ""));
        let found = keys.iter().filter(|(key, shape, _)| weights.shape(&name(key)) == Some(shape)).count();
        let got = [found as i64, own as i64];
        checks.push(Check::exact(format!("checkpoint.{model}.keys"), &got, &[keys.len() as i64; 2]));
    }
    let clips = Clip::read(&golden, "clip_u8")?;
    let Some(clip) = clips.first() else { return Ok(checks) };
    for model in ["encoder", "target_encoder"] {
        let stored = format!("{model}_out");
        if golden.contains(&stored) {
            checks.push(outputs(execution, &weights, [model, &stored], clip, &golden)?.under("checkpoint"));
        }
    }
    Ok(checks)
}

/// The checkpoint in the folder.
fn file(dir: &Path) -> Result<PathBuf, GoldenError> {
    let read = |source| GoldenError::Read { path: dir.into(), source };
    for entry in std::fs::read_dir(dir).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.ends_with(".pth.tar") || name.ends_with(".pt") {
            return Ok(path);
        }
    }
    Err(read(std::io::Error::new(std::io::ErrorKind::NotFound, "it holds no .pth.tar or .pt file")))
}

/// Compares one encoder's output. A checkpoint does not say how many heads its encoder has, and the folder does not
/// either: the number that fits best counts.
fn outputs(
    execution: Execution,
    weights: &Weights,
    [model, stored]: [&str; 2],
    clip: &Clip,
    golden: &TensorFile,
) -> Result<Check, GoldenError> {
    let mut best: Option<(f64, Check)> = None;
    let config = sizes(weights, model, clip)?;
    for num_heads in (1..=config.embed_dim.min(64)).filter(|heads| config.embed_dim.is_multiple_of(*heads)) {
        let config = EncoderConfig { num_heads, ..config.clone() };
        let mut params = execution.params();
        for (name, (shape, data)) in weights.take(model, "encoder", config.parameter_shapes())? {
            params.set(&name, HostTensor::F32 { shape, data });
        }
        let graph = compile::encoder(&config, "encoder.")?;
        let got = values(&run_once(execution, &graph, &mut params, vec![("clip", clip.host())])?, "encoder_out")?;
        let check = golden.compare(stored, &got, FORWARD)?;
        let Check::Measured { rel_l2, .. } = check else { continue };
        if best.as_ref().is_none_or(|(least, _)| rel_l2 < *least) {
            best = Some((rel_l2, check));
        }
    }
    Ok(best
        .map_or_else(|| Check::mismatch(stored, 0, golden.shape(stored).map_or(0, <[_]>::len), Limit::Exact), |b| b.1))
}

/// Sizes of an encoder from the shapes of its weights and of the clip; heads are left at 1.
fn sizes(weights: &Weights, model: &str, clip: &Clip) -> Result<EncoderConfig, GoldenError> {
    let wrong = |why: String| GoldenError::Config { path: weights.path().into(), why };
    let kernel = format!("{model}.patch_embed.proj.weight");
    let hidden = format!("{model}.blocks.0.mlp.fc1.weight");
    let (Some(&[embed_dim, channels, tubelet, patch, _]), Some(&[hidden, _])) =
        (weights.shape(&kernel), weights.shape(&hidden))
    else {
        return Err(wrong(format!("`{kernel}` or `{hidden}` is missing or has not the official shape")));
    };
    let blocks = format!("{model}.blocks.");
    let numbers = weights.tensors().filter_map(|(name, ..)| name.strip_prefix(&blocks)?.split('.').next());
    let depth = numbers.collect::<std::collections::BTreeSet<_>>().len();
    let [_, _, num_frames, height, width] = clip.shape;
    let config = EncoderConfig {
        num_frames,
        height,
        width,
        tubelet,
        patch,
        channels,
        embed_dim,
        depth,
        num_heads: 1,
        mlp_ratio: hidden as f64 / embed_dim.max(1) as f64,
        uniform_power: true,
        out_layers: None,
        positions: Positions::Table,
        levels: Vec::new(),
        image_tubelet: None,
    };
    config.validate().map_err(|error| wrong(error.to_string()))?;
    Ok(config)
}
