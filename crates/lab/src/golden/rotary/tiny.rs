//! A small V-JEPA 2 model: square, non-square, longer and masked inputs, its predictor and a probe of depth 2.

use std::path::Path;

use serde::Deserialize;
use vjepa_graphs::{BlocksOn, EncoderConfig, PredictorConfig, ProbeConfig};
use vjepa_programs as compile;
use vjepa_programs::Probe;
use vjepa_recipe::config::Generation;
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::run::{Execution, FORWARD, float, index, load, run_once, values};
use super::super::sampled::Compare;
use super::wrong;

#[derive(Deserialize)]
struct Config {
    img: usize,
    frames: usize,
    tubelet: usize,
    patch: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    pred_dim: usize,
    pred_depth: usize,
    pred_heads: usize,
    num_mask_tokens: usize,
    mask_index: usize,
}

/// Compares with `weights.safetensors` and `io.safetensors`.
pub(in super::super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let config: Config = read_json(&dir.join("config.json"))?;
    let weights = TensorFile::read(dir.join("weights.safetensors"))?;
    let io = TensorFile::read(dir.join("io.safetensors"))?;
    let encoder = encoder(&config, &weights)?;
    let mut params = execution.params();
    for model in ["encoder.", "predictor."] {
        load(&mut params, &weights, model, model)?;
    }
    load(&mut params, &weights, "clf.", "probe.")?;

    let clip = float(&io, "clip_f16")?;
    let mut checks = Vec::new();
    let mut encode = |config: &EncoderConfig, clip: HostTensor| -> Result<Vec<f32>, GoldenError> {
        values(
            &run_once(execution, &compile::encoder(config, "encoder.")?, &mut params, vec![("clip", clip)])?,
            "encoder_out",
        )
    };
    let features = encode(&encoder, clip.clone())?;
    checks.push(io.compare("encoder_out", &features, FORWARD)?);
    for (name, input) in
        [("encoder_out_nonsquare", float(&io, "clip_nonsquare_f16")?), ("encoder_out_16frames", there_and_back(&io)?)]
    {
        let HostTensor::F32 { shape, .. } = &input else { continue };
        let &[_, _, frames, height, width] = shape.as_slice() else {
            return Err(wrong(&io, format!("the input of `{name}` should be a clip, but is {shape:?}")));
        };
        let other = encoder.clone().with_clip(frames, height, width);
        checks.push(io.compare(name, &encode(&other, input)?, FORWARD)?);
    }

    let tokens = encoder.tokens();
    let [mask_enc, mask_pred] = [index(&io, "mask_enc", tokens)?, index(&io, "mask_pred", tokens)?];
    let masked = compile::encoder_masked(&encoder, "encoder.")?;
    let inputs = vec![("clip", clip), ("mask_enc", mask_enc.clone())];
    let mut context = run_once(execution, &masked, &mut params, inputs)?;
    checks.push(io.compare("encoder_out_masked", &values(&context, "encoder_out")?, FORWARD)?);
    let predictor = PredictorConfig {
        embed_dim: config.pred_dim,
        depth: config.pred_depth,
        num_heads: config.pred_heads,
        num_mask_tokens: config.num_mask_tokens,
        ..PredictorConfig::for_encoder(&encoder)
    };
    if let Some(context) = context.remove("encoder_out") {
        let graph = compile::predictor(&predictor, config.mask_index)?;
        let inputs = vec![("context", context), ("mask_enc", mask_enc), ("mask_pred", mask_pred)];
        let predicted = values(&run_once(execution, &graph, &mut params, inputs)?, "predictor_out")?;
        checks.push(io.compare("predictor_out", &predicted, FORWARD)?);
    }

    for name in io.names().filter(|name| name.starts_with("clf_depth") && name.ends_with("_logits")) {
        let depth = name
            .trim_start_matches("clf_depth")
            .trim_end_matches("_logits")
            .parse()
            .map_err(|_| wrong(&io, format!("`{name}` should name the depth of a probe")))?;
        let classes = io.shape(name)?.last().copied().unwrap_or(0);
        let sized = ProbeConfig::sized(config.dim, config.heads, classes);
        let probe = Probe::Attentive(ProbeConfig { depth, blocks_on: BlocksOn::Features, ..sized });
        let batch = io.shape(name)?.first().copied().unwrap_or(0);
        let shape = vec![batch, features.len() / (batch * config.dim).max(1), config.dim];
        let input = HostTensor::F32 { shape, data: features.clone() };
        let graph = compile::probe(&probe, false)?;
        let logits = values(&run_once(execution, &graph, &mut params, vec![("features", input)])?, "logits")?;
        checks.push(io.compare(name, &logits, Limit::RelL2(1e-5))?);
    }
    Ok(checks)
}

fn encoder(config: &Config, weights: &TensorFile) -> Result<EncoderConfig, GoldenError> {
    let hidden = weights.shape("encoder.blocks.0.mlp.fc1.weight")?.first().copied().unwrap_or(0);
    let encoder = EncoderConfig {
        tubelet: config.tubelet,
        patch: config.patch,
        embed_dim: config.dim,
        depth: config.depth,
        num_heads: config.heads,
        mlp_ratio: hidden as f64 / config.dim.max(1) as f64,
        positions: Generation::V2.positions(None),
        ..EncoderConfig::tiny().with_clip(config.frames, config.img, config.img)
    };
    encoder.validate().map_err(|error| wrong(weights, error))?;
    Ok(encoder)
}

/// The first sample's frames, then the same backwards.
fn there_and_back(io: &TensorFile) -> Result<HostTensor, GoldenError> {
    let shape = io.shape("clip_f16")?;
    let &[_, channels, frames, height, width] = shape else {
        return Err(wrong(io, format!("`clip_f16` should be clips, but is {shape:?}")));
    };
    let clip = io.f32("clip_f16")?;
    let pixels = height * width;
    let mut data = Vec::with_capacity(2 * channels * frames * pixels);
    for channel in clip.chunks_exact((frames * pixels).max(1)).take(channels) {
        data.extend_from_slice(channel);
        channel.chunks_exact(pixels.max(1)).rev().for_each(|frame| data.extend_from_slice(frame));
    }
    Ok(HostTensor::F32 { shape: vec![1, channels, 2 * frames, height, width], data })
}
