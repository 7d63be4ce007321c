//! Attentive probes, evaluation over several segments and views, still images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::check::{Check, GoldenError, read_json};
use super::clip::Clip;
use super::probe_train::{self, NO_FIRST_WEIGHTS, Probed};
use super::run::{Execution, FORWARD, float, load, values};
use super::sampled::Compare;
use vjepa_graphs::position::sincos_1d;
use vjepa_graphs::{EncoderConfig, NamedTensors, ProbeConfig};
use vjepa_metrics::aggregate::mean_softmax;
use vjepa_programs as compile;
use vjepa_recipe::config::Positions;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

/// `info.json`.
#[derive(Deserialize)]
pub(super) struct Info {
    pub(super) heads: usize,
    pub(super) labels: Vec<usize>,
    #[serde(default)]
    pub(super) train: Vec<TrainStep>,
}

/// One recorded step of training a probe.
#[derive(Deserialize)]
pub(super) struct TrainStep {
    pub(super) lr: f64,
    pub(super) wd: f64,
    pub(super) loss: f64,
    pub(super) grad_norm: f64,
}

/// Everything in the folder.
pub(super) struct Golden {
    pub(super) execution: Execution,
    pub(super) info: Info,
    pub(super) weights: TensorFile,
    pub(super) io: TensorFile,
    /// What probes are trained on, `[B, N, D]`.
    pub(super) features: HostTensor,
    /// Whether the folder holds a probe as it was before training beside those that lack it.
    pub(super) first_elsewhere: bool,
}

/// Compares with `weights.safetensors` and `io.safetensors`.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let io = TensorFile::read(dir.join("io.safetensors"))?;
    let initial = dir.join("weights_initial.safetensors");
    let golden = Golden {
        execution,
        info: read_json(&dir.join("info.json"))?,
        weights: TensorFile::read(dir.join("weights.safetensors"))?,
        features: float(&io, "features")?,
        io,
        first_elsewhere: initial.is_file(),
    };
    let mut checks = Vec::new();
    if golden.first_elsewhere {
        check_initial(&golden, dir, TensorFile::read(initial)?, &mut checks)?;
    }
    let mut probes = BTreeMap::new();
    for name in probe_names(&golden.weights) {
        let config = probe_config(&golden, &name)?;
        let probe = probe_train::check(&golden, &name, &config, &mut checks)?;
        probes.insert(name, probe);
    }
    if golden.io.contains("multiclip.clips_u8") {
        let clips = Clip::read(&golden.io, "multiclip.clips_u8")?;
        check_clips(&golden, &clips, probes.get("clf_depth1"), &mut checks)?;
    }
    Ok(checks)
}

/// `initial_info.json`.
#[derive(Deserialize)]
struct Initial {
    heads: usize,
    train: Vec<TrainStep>,
}

/// Probes whose weights were stored before training, on the same features and labels.
fn check_initial(golden: &Golden, dir: &Path, weights: TensorFile, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let Initial { heads, train } = read_json(&dir.join("initial_info.json"))?;
    let initial = Golden {
        execution: golden.execution,
        info: Info { heads, labels: golden.info.labels.clone(), train },
        weights,
        io: TensorFile::read(dir.join("initial_io.safetensors"))?,
        features: golden.features.clone(),
        first_elsewhere: true,
    };
    for name in probe_names(&initial.weights) {
        let config = probe_config(&initial, &name)?;
        let probe = probe_train::check(&initial, &name, &config, checks)?;
        if !probe.first {
            return Err(wrong(
                &initial.weights,
                format!("`{name}` is said to be untrained, but gives the trained logits"),
            ));
        }
    }
    Ok(())
}

/// `clf_depth1`, `clf_depth2`, ...
fn probe_names(weights: &TensorFile) -> BTreeSet<String> {
    let first = |name: &str| name.split_once('.').map(|(first, _)| first.to_owned());
    weights.names().filter_map(first).filter(|name| name.starts_with("clf")).collect()
}

/// Sizes of a probe, from the shapes of its weights.
fn probe_config(golden: &Golden, name: &str) -> Result<ProbeConfig, GoldenError> {
    let weights = &golden.weights;
    let [num_classes, embed_dim] = matrix(weights, &format!("{name}.linear.weight"))?;
    let cross = format!("{name}.pooler.cross_attention_block");
    let hidden = match weights.contains(&format!("{cross}.mlp.fc1.weight")) {
        true => matrix(weights, &format!("{cross}.mlp.fc1.weight"))?[0],
        false => 4 * embed_dim,
    };
    let config = ProbeConfig {
        embed_dim,
        num_heads: golden.info.heads,
        mlp_ratio: hidden as f64 / embed_dim as f64,
        depth: 1 + blocks(weights, &format!("{name}.pooler.blocks.")),
        complete_block: weights.contains(&format!("{cross}.norm1.weight")),
        num_classes,
        ..ProbeConfig::sized(embed_dim, golden.info.heads, num_classes)
    };
    config.validate().map_err(|error| wrong(weights, error.to_string()))?;
    Ok(config)
}

/// Sizes of the encoder, from the shapes of its weights and of the clips.
fn encoder_config(golden: &Golden, clip: &Clip) -> Result<EncoderConfig, GoldenError> {
    let weights = &golden.weights;
    let kernel = weights.shape("encoder.patch_embed.proj.weight")?;
    let &[embed_dim, channels, tubelet, patch, _] = kernel else {
        return Err(wrong(weights, format!("`encoder.patch_embed.proj.weight` should have 5 axes, but is {kernel:?}")));
    };
    let [hidden, _] = matrix(weights, "encoder.blocks.0.mlp.fc1.weight")?;
    let [_, _, num_frames, height, width] = clip.shape;
    let config = EncoderConfig {
        num_frames,
        height,
        width,
        tubelet,
        patch,
        channels,
        embed_dim,
        depth: blocks(weights, "encoder.blocks."),
        num_heads: golden.info.heads,
        mlp_ratio: hidden as f64 / embed_dim.max(1) as f64,
        uniform_power: true,
        out_layers: None,
        positions: Positions::Table,
        levels: Vec::new(),
        image_tubelet: None,
    };
    config.validate().map_err(|error| wrong(weights, error.to_string()))?;
    Ok(config)
}

fn matrix(tensors: &TensorFile, name: &str) -> Result<[usize; 2], GoldenError> {
    let shape = tensors.shape(name)?;
    shape.try_into().map_err(|_| wrong(tensors, format!("`{name}` should be a matrix, but is {shape:?}")))
}

/// How many blocks have weights under a prefix.
fn blocks(tensors: &TensorFile, prefix: &str) -> usize {
    let number = |name: &str| name.strip_prefix(prefix).and_then(|rest| rest.split('.').next()).map(str::to_owned);
    tensors.names().filter_map(number).collect::<BTreeSet<_>>().len()
}

pub(super) fn wrong(tensors: &TensorFile, why: String) -> GoldenError {
    GoldenError::Config { path: tensors.path().into(), why }
}

/// Features, logits and probabilities of several segments and views, and features of a still image.
fn check_clips(
    golden: &Golden,
    clips: &[Clip],
    probe: Option<&Probed>,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let io = &golden.io;
    let (&[segments, views, _, _, _, _, _], Some(first)) = (io.shape("multiclip.clips_u8")?, clips.first()) else {
        return Err(wrong(io, "`multiclip.clips_u8` should be [segments, views, B, C, T, H, W]".to_owned()));
    };
    let config = encoder_config(golden, first)?;
    let mut params = golden.execution.params();
    load(&mut params, &golden.weights, "encoder.", "encoder.")?;
    let mut encoder = golden.execution.plan(&compile::encoder(&config, "encoder.")?)?;
    let mut encode = |clip: &Clip| -> Result<Vec<f32>, GoldenError> {
        values(&encoder.run(&mut params, vec![("clip", clip.host())])?, "encoder_out")
    };
    let features = clips.iter().map(&mut encode).collect::<Result<Vec<_>, _>>()?;
    if io.contains("image.enc_out") {
        let still = encode(&first.still(config.num_frames))?;
        checks.push(io.compare("image.enc_out", &still, FORWARD)?.under("probe"));
    }

    let batch = first.shape[0];
    let token_values = config.tokens() * config.embed_dim;
    let (mut attended, mut separate) = (Vec::new(), Vec::new());
    for view in 0..views {
        let of_view: Vec<&[f32]> = (0..segments).map(|segment| features[segment * views + view].as_slice()).collect();
        let joined = join(&of_view, batch, token_values);
        let name = format!("multiclip.attend.feat_view{view}");
        if io.contains(&name) {
            checks.push(io.compare(&name, &joined, FORWARD)?.under("probe"));
        }
        let name = format!("multiclip.attend_posembed.feat_view{view}");
        if io.contains(&name) {
            let positioned = positioned(golden, &config, &joined, [segments, batch])?;
            checks.push(io.compare(&name, &positioned, FORWARD)?.under("probe"));
        }
        let Some(probe) = probe else { continue };
        attended.extend(probe.logits(&joined, batch)?);
        for features in of_view {
            separate.extend(probe.logits(features, batch)?);
        }
    }
    let Some(probe) = probe else { return Ok(()) };
    for (kind, logits) in [("attend", attended), ("noattend", separate)] {
        let name = format!("multiclip.{kind}.logits");
        if !io.contains(&name) {
            continue;
        }
        if !probe.first {
            checks.push(Check::unsupported(format!("probe.{name}"), NO_FIRST_WEIGHTS));
            check_probabilities(golden, kind, batch, checks)?;
            continue;
        }
        // A folder may hold the pixels of the first views only.
        if logits.len() != io.shape(&name)?.iter().product::<usize>() {
            checks.push(Check::unsupported(format!("probe.{name}"), "the folder lacks the pixels of some views"));
            check_probabilities(golden, kind, batch, checks)?;
            continue;
        }
        checks.push(io.compare(&name, &logits, FORWARD)?.under("probe"));
        let probabilities = mean_probabilities(io, &logits, batch, probe.config.num_classes)?;
        checks.push(io.compare(&format!("multiclip.{kind}.probs"), &probabilities, FORWARD)?.under("probe"));
    }
    Ok(())
}

/// The prediction of several views from their recorded logits.
fn check_probabilities(golden: &Golden, kind: &str, batch: usize, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let logits = format!("multiclip.{kind}.logits");
    let classes = golden.io.shape(&logits)?.last().copied().unwrap_or(0).max(1);
    let got = mean_probabilities(&golden.io, &golden.io.f32(&logits)?, batch, classes)?;
    checks.push(golden.io.compare(&format!("multiclip.{kind}.probs"), &got, FORWARD)?.under("probe"));
    Ok(())
}

/// Features `[B, N, D]` of several segments, joined along the tokens.
fn join(segments: &[&[f32]], batch: usize, token_values: usize) -> Vec<f32> {
    let sample = |b: usize| segments.iter().map(move |features| &features[b * token_values..][..token_values]);
    (0..batch).flat_map(sample).flatten().copied().collect()
}

/// Joined features with the position of their frames in the video added, which no released evaluation does.
fn positioned(
    golden: &Golden,
    config: &EncoderConfig,
    joined: &[f32],
    [segments, batch]: [usize; 2],
) -> Result<Vec<f32>, GoldenError> {
    let frames = golden.io.i64("multiclip.clip_indices")?; // [segments, B, T]
    if frames.len() != segments * batch * config.num_frames {
        return Err(wrong(&golden.io, "`multiclip.clip_indices` does not fit the clips".to_owned()));
    }
    let [times, height, width] = config.grid();
    let (dim, plane) = (config.embed_dim, height * width);
    let mut features = joined.to_vec();
    for (row, token) in features.chunks_exact_mut(dim).enumerate() {
        let (sample, rest) = (row / (segments * times * plane), row % (segments * times * plane));
        let (segment, time) = (rest / (times * plane), rest % (times * plane) / plane);
        let frame = frames[(segment * batch + sample) * config.num_frames + time * config.tubelet];
        token.iter_mut().zip(sincos_1d(dim, &[frame as f64])).for_each(|(value, position)| *value += position);
    }
    Ok(features)
}

/// Mean over all leading axes of the softmax of logits `[.., B, classes]`.
fn mean_probabilities(io: &TensorFile, logits: &[f32], batch: usize, classes: usize) -> Result<Vec<f32>, GoldenError> {
    mean_softmax(logits, batch, classes).map_err(|error| wrong(io, error.to_string()))
}

/// The weights of one probe, whole.
pub(super) fn probe_weights(weights: &TensorFile, name: &str) -> Result<NamedTensors, GoldenError> {
    let prefix = format!("{name}.");
    let own = weights.names().filter_map(|full| Some((full, full.strip_prefix(&prefix)?)));
    own.map(|(full, name)| Ok((name.to_owned(), (weights.shape(full)?.to_vec(), weights.f32(full)?)))).collect()
}

/// Labels as rows with a single 1.
pub(super) fn one_hot(labels: &[usize], classes: usize) -> HostTensor {
    let rows = labels.iter().flat_map(|&label| (0..classes).map(move |class| f32::from(u8::from(class == label))));
    HostTensor::F32 { shape: vec![labels.len(), classes], data: rows.collect() }
}
