//! Files of V-JEPA 2 and 2.1 as they are released, read like every command reads them: the official hub's (`vjepa2_hub`) and
//! Hugging Face's folders (`vjepa2_hf`).

use std::path::Path;

use serde::Deserialize;
use vjepa_compiler::ir::Graph;
use vjepa_graphs::{EncoderConfig, Modality, PredictorConfig, ProbeConfig};
use vjepa_programs as compile;
use vjepa_programs::{DeployedHead, Probe, ProbeChoice, ProbeFile, encoder_config, load_probe_for, predictor_config};
use vjepa_recipe::config::{Generation, ModelConfig};
use vjepa_runtime::Preprocessing;
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::{TakenModel, TensorFile, Tensors, Weights, load};

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::run::{Execution, FORWARD, index, run_once, values};
use super::super::sampled::Compare;
use super::wrong;

/// Logits, and what a probe pools.
const LOGITS: Limit = Limit::RelL2(1e-5);
/// One step of a byte at the smallest deviation of a channel.
const GREY_LEVEL: Limit = Limit::MaxAbs(1.0 / 255.0 / 0.224 + 1e-5);
/// LayerNorm's epsilon in the official probes; Hugging Face's classifiers have 1e-6.
const OFFICIAL_EPS: f64 = 1e-5;

#[derive(Deserialize)]
struct Hub {
    config: Sizes,
}

#[derive(Deserialize)]
struct Sizes {
    img: usize,
    frames: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    pred_dim: usize,
    pred_depth: usize,
    pred_heads: usize,
    d21: usize,
    depth21: usize,
    h21: usize,
    pred_depth21: usize,
}

impl Sizes {
    /// What the files do not say of themselves.
    fn model(&self, generation: Generation) -> ModelConfig {
        let (embed_dim, depth, heads, pred_depth) = match generation {
            Generation::V21 => (self.d21, self.depth21, self.h21, self.pred_depth21),
            Generation::V1 | Generation::V2 => (self.dim, self.depth, self.heads, self.pred_depth),
        };
        ModelConfig {
            generation,
            embed_dim: Some(embed_dim),
            depth: Some(depth),
            num_heads: Some(heads),
            pred_embed_dim: Some(self.pred_dim),
            pred_depth: Some(pred_depth),
            pred_num_heads: Some(self.pred_heads),
            ..ModelConfig::default()
        }
    }
}

/// A model taken from a file, ready to run.
struct Released {
    execution: Execution,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    /// How its clips are prepared.
    clips: Preprocessing,
    params: DeviceParams,
}

impl Released {
    /// Takes a file for clips of this size, or of its own.
    fn take(
        execution: Execution,
        weights: &Weights,
        model: Option<&ModelConfig>,
        clip: Option<[usize; 2]>,
    ) -> Result<Self, GoldenError> {
        let bad = |why: String| GoldenError::Config { path: weights.path().into(), why };
        let TakenModel { about, encoder: tensors, predictor: more, probe } = weights.take_model(model)?;
        let mut config = about.config().map_err(bad)?;
        if let Some([frames, side]) = clip {
            (config.data.num_frames, config.data.crop_size) = (frames, side);
        }
        let encoder = encoder_config(&config).map_err(|error| bad(error.to_string()))?;
        let predictor = predictor_config(&config).map_err(|error| bad(error.to_string()))?;
        let mut params = execution.params();
        [tensors, more, probe].into_iter().for_each(|tensors| fill(&mut params, tensors));
        Ok(Self { execution, encoder, predictor, clips: config.preprocessing(), params })
    }

    fn encode(&mut self, clip: HostTensor) -> Result<Vec<f32>, GoldenError> {
        let HostTensor::F32 { shape, .. } = &clip else { return Ok(Vec::new()) };
        let &[_, _, frames, height, width] = shape.as_slice() else { return Ok(Vec::new()) };
        let encoder = self.encoder.clone().with_clip(frames, height, width);
        let graph = compile::encoder(&encoder, "encoder.")?;
        values(&run_once(self.execution, &graph, &mut self.params, vec![("clip", clip)])?, "encoder_out")
    }

    /// Predictions from the context's tokens: of the targets, and of the context where there are any.
    fn predict(
        &mut self,
        clip: HostTensor,
        [enc, pred]: [HostTensor; 2],
        mask_index: usize,
    ) -> Result<[Option<Vec<f32>>; 2], GoldenError> {
        let levels = self.encoder.num_levels() > 1 && self.predictor.levels > 1;
        let (graph, name) = match levels {
            true => (compile::levels(&self.encoder, "encoder.", true)?, "encoder_levels"),
            false => (compile::encoder_masked(&self.encoder, "encoder.")?, "encoder_out"),
        };
        let inputs = vec![("clip", clip), ("mask_enc", enc.clone())];
        let context = run_once(self.execution, &graph, &mut self.params, inputs)?.remove(name);
        self.predict_from(context.ok_or_else(|| GoldenError::Missing(name.into()))?, [enc, pred], mask_index)
    }

    /// As [`Self::predict`], from tokens of the context.
    fn predict_from(
        &mut self,
        context: HostTensor,
        [enc, pred]: [HostTensor; 2],
        mask_index: usize,
    ) -> Result<[Option<Vec<f32>>; 2], GoldenError> {
        let inputs = vec![("context", context), ("mask_enc", enc), ("mask_pred", pred)];
        if !self.predictor.predicts_context {
            let graph = compile::predictor(&self.predictor, mask_index)?;
            let out = run_once(self.execution, &graph, &mut self.params, inputs)?;
            return Ok([Some(values(&out, "predictor_out")?), None]);
        }
        let graph = compile::predictions(&self.predictor, mask_index, Modality::Video)?;
        let out = run_once(self.execution, &graph, &mut self.params, inputs)?;
        Ok([Some(values(&out, "predictor_out")?), Some(values(&out, "predictor_context_out")?)])
    }
}

fn fill(params: &mut DeviceParams, tensors: Tensors) {
    for (name, (shape, data)) in tensors {
        params.set(&name, HostTensor::F32 { shape, data });
    }
}

/// Compares the files of `vjepa2_hub` with `expected.safetensors`.
pub(in super::super) fn hub(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let Hub { config } = read_json(&dir.join("config.json"))?;
    let expected = TensorFile::read(dir.join("expected.safetensors"))?;
    let clip = first(&expected, "clip_u8")?;
    let image = first(&expected, "image_u8")?;
    let size = Some([config.frames, config.img]);
    let mut checks = Vec::new();
    for (file, generation, name) in [
        ("vjepa2_tiny.pt", Generation::V2, "v2"),
        ("vjepa2_1_tiny_G.pt", Generation::V21, "v21.G"),
        ("vjepa2_1_tiny_distilled.pt", Generation::V21, "v21.distilled"),
    ] {
        let weights = load(&dir.join(file))?;
        let mut model = Released::take(execution, &weights, Some(&config.model(generation)), size)?;
        let masks = |encoder: &EncoderConfig| -> Result<[HostTensor; 2], GoldenError> {
            let tokens = encoder.tokens();
            Ok([index(&expected, "context_mask", tokens)?, index(&expected, "target_mask", tokens)?])
        };
        let features = model.encode(clip.host())?;
        if generation == Generation::V2 {
            checks.push(expected.compare("v2.target.out", &features, FORWARD)?);
            for mask_index in [0, 1] {
                let [targets, _] = model.predict(clip.host(), masks(&model.encoder)?, mask_index)?;
                let name = format!("v2.predictor.mask_index{mask_index}");
                checks.push(expected.compare(&name, &targets.unwrap_or_default(), FORWARD)?);
            }
            // Attention heads of a probe that is no released size are in no file.
            let choice = ProbeChoice { heads: Some(config.heads), ..ProbeChoice::default() };
            let probe = load_probe_for(&dir.join("probe_tiny.pt"), &model.encoder, choice)?;
            fill(&mut model.params, probe.tensors);
            let graph = compile::frozen(&model.encoder, Some(&probe.probe))?;
            let out = run_once(execution, &graph, &mut model.params, vec![("clip", clip.host())])?;
            let name = "probe.logits_on_target_encoder";
            checks.push(expected.compare(name, &values(&out, "logits")?, LOGITS)?);
            // The file's other encoder.
            fill(&mut model.params, weights.take("encoder", "encoder", model.encoder.parameter_shapes())?);
            checks.push(expected.compare("v2.encoder.out", &model.encode(clip.host())?, FORWARD)?);
            continue;
        }
        checks.push(expected.compare(&format!("{name}.out"), &features, FORWARD)?);
        checks.push(expected.compare(&format!("{name}.out_image"), &model.encode(image.host())?, FORWARD)?);
        let graph = compile::levels(&model.encoder, "encoder.", false)?;
        let out = run_once(execution, &graph, &mut model.params, vec![("clip", clip.host())])?;
        checks.push(expected.compare(&format!("{name}.levels"), &values(&out, "encoder_levels")?, FORWARD)?);
        let [targets, context] = model.predict(clip.host(), masks(&model.encoder)?, 1)?;
        for (what, got) in [("predictor_out", targets), ("predictor_context_out", context)] {
            checks.push(expected.compare(&format!("{name}.{what}"), &got.unwrap_or_default(), FORWARD)?);
        }
    }
    Ok(checks)
}

fn first(tensors: &TensorFile, name: &str) -> Result<Clip, GoldenError> {
    Clip::read(tensors, name)?.into_iter().next().ok_or_else(|| wrong(tensors, format!("`{name}` is empty")))
}

/// Compares the folders of `vjepa2_hf` with `expected.safetensors`.
pub(in super::super) fn hugging_face(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let expected = TensorFile::read(dir.join("expected.safetensors"))?;
    let mut model = Released::take(execution, &load(&dir.join("model"))?, None, None)?;
    let mut checks = pixels(&model.clips, &expected)?;
    checks.extend(backbone(&mut model, &expected)?);
    checks.extend(classifier(execution, &dir.join("classifier"), &expected)?);
    Ok(checks)
}

/// Frames as `video_preprocessor_config.json` says, against those of its processor and of the official evaluation.
fn pixels(clips: &Preprocessing, expected: &TensorFile) -> Result<Vec<Check>, GoldenError> {
    let &[_, height, width, 3] = expected.shape("clip_u8_thwc")? else {
        return Err(wrong(expected, "`clip_u8_thwc` should be frames of colours"));
    };
    let frames: Vec<&[u8]> = expected.u8("clip_u8_thwc")?.chunks_exact((height * width * 3).max(1)).collect();
    let got = clips.prepare(&frames, height, width).map_err(|error| wrong(expected, error))?;
    let HostTensor::F32 { data, .. } = channels_first(expected, "pixel_values_videos")? else { return Ok(Vec::new()) };
    Ok(vec![
        Check::compare("pixel_values_videos", &got, &data, GREY_LEVEL),
        expected.compare("official_eval_cthw", &got, GREY_LEVEL)?,
    ])
}

/// Features and predictions.
fn backbone(model: &mut Released, expected: &TensorFile) -> Result<Vec<Check>, GoldenError> {
    let clip = channels_first(expected, "pixel_values_videos")?;
    let features = model.encode(clip.clone())?;
    let mut checks = vec![expected.compare("last_hidden_state", &features, FORWARD)?];
    let graph = compile::layers(&model.encoder, "encoder.")?;
    let out = run_once(model.execution, &graph, &mut model.params, vec![("clip", clip.clone())])?;
    for (name, output) in [("hidden_states.0", "patch_embed"), ("hidden_states.1", "after_block0")] {
        checks.push(expected.compare(name, &values(&out, output)?, FORWARD)?);
    }
    // All tokens are context and targets, with the second mask token.
    let tokens = i32::try_from(model.encoder.tokens()).unwrap_or(i32::MAX);
    let all = HostTensor::I32 { shape: vec![1, model.encoder.tokens()], data: (0..tokens).collect() };
    let [targets, _] = model.predict(clip.clone(), [all.clone(), all], 1)?;
    checks.push(expected.compare("predictor_last_hidden_state", &targets.unwrap_or_default(), FORWARD)?);
    // Theirs never masks the encoder: it takes the context from the features of the whole clip.
    let dim = model.encoder.embed_dim;
    let mask = |name| index(expected, name, model.encoder.tokens());
    let (enc, pred) = (mask("context_mask")?, mask("target_mask")?);
    let context = taken(&features, &enc, dim);
    checks.push(expected.compare("masked.masked_hidden_state", &context, FORWARD)?);
    checks.push(expected.compare("masked.target_hidden_state", &taken(&features, &pred, dim), FORWARD)?);
    let context = HostTensor::F32 { shape: vec![1, context.len() / dim.max(1), dim], data: context };
    let [targets, _] = model.predict_from(context, [enc, pred], 1)?;
    checks.push(expected.compare("masked.predictor_last_hidden_state", &targets.unwrap_or_default(), FORWARD)?);
    let frame = still(model, &clip);
    checks.push(expected.compare("one_frame.last_hidden_state", &model.encode(frame)?, FORWARD)?);
    Ok(checks)
}

/// A classifier's outputs, with the epsilon of its `config.json` and with the official one.
fn classifier(execution: Execution, folder: &Path, expected: &TensorFile) -> Result<Vec<Check>, GoldenError> {
    let clip = channels_first(expected, "pixel_values_videos")?;
    let mut model = Released::take(execution, &load(folder)?, None, None)?;
    let ProbeFile { probe, .. } = load_probe_for(folder, &model.encoder, ProbeChoice::default())?;
    let mut compare = |graph: Graph, output: &str, name: &str| -> Result<Check, GoldenError> {
        let out = run_once(execution, &graph, &mut model.params, vec![("clip", clip.clone())])?;
        Ok(expected.compare(name, &values(&out, output)?, LOGITS)?)
    };
    let encoder = &model.encoder;
    let mut checks = vec![
        compare(compile::frozen(encoder, Some(&probe))?, "logits", "logits")?,
        compare(compile::deployed(encoder, Some(&probe), DeployedHead::Pooled)?, "pooled", "pooler_output")?,
    ];
    if let Probe::Attentive(config) = probe {
        let official = Probe::Attentive(ProbeConfig { eps: OFFICIAL_EPS, ..config });
        checks.push(compare(compile::frozen(encoder, Some(&official))?, "logits", "official_logits")?);
    }
    Ok(checks)
}

/// The features of the tokens of a mask.
fn taken(features: &[f32], mask: &HostTensor, dim: usize) -> Vec<f32> {
    let HostTensor::I32 { data, .. } = mask else { return Vec::new() };
    let row = |token: &i32| usize::try_from(*token).ok().and_then(|token| features.chunks_exact(dim.max(1)).nth(token));
    data.iter().filter_map(row).flatten().copied().collect()
}

/// The first frame of a clip, once for each frame of a tubelet, as theirs takes fewer frames than those.
fn still(model: &Released, clip: &HostTensor) -> HostTensor {
    let HostTensor::F32 { shape, data } = clip else { return clip.clone() };
    let &[one, channels, frames, height, width] = shape.as_slice() else { return clip.clone() };
    let (frame, tubelet) = (height * width, model.encoder.tubelet);
    let first = data.chunks_exact((frame * frames).max(1)).map(|channel| &channel[..frame]);
    let data = first.flat_map(|channel| std::iter::repeat_n(channel, tubelet).flatten().copied()).collect();
    HostTensor::F32 { shape: vec![one, channels, tubelet, height, width], data }
}

/// A clip `f32[1, T, C, H, W]` as `[1, C, T, H, W]`.
fn channels_first(tensors: &TensorFile, name: &str) -> Result<HostTensor, GoldenError> {
    let &[1, frames, channels, height, width] = tensors.shape(name)? else {
        return Err(wrong(tensors, format!("`{name}` should be one clip of frames of channels")));
    };
    let values = tensors.f32(name)?;
    let planes: Vec<&[f32]> = values.chunks_exact((height * width).max(1)).collect();
    let plane = |c: usize, t: usize| planes.get(t * channels + c).copied().unwrap_or_default();
    let data = (0..channels).flat_map(|c| (0..frames).flat_map(move |t| plane(c, t).to_vec()));
    Ok(HostTensor::F32 { shape: vec![1, channels, frames, height, width], data: data.collect() })
}
