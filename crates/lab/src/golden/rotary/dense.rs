//! V-JEPA 2.1: levels, images beside videos, predictions of the context, the dense loss and its runs.

mod json;
mod runs;

use std::path::{Path, PathBuf};

use vjepa_graphs::{EncoderConfig, Modality, PredictorConfig};
use vjepa_programs as compile;
use vjepa_recipe::config::{Positions, Rotary};
use vjepa_recipe::masks::{Geometry, IndexBatch, MaskPair};
use vjepa_recipe::schedules::ContextWeight;
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::masks::check_steps;
use super::super::run::{Execution, FORWARD, index, load, run_once, values};
use super::super::sampled::Compare;
use super::{HeadWidths, wrong};
use json::Json;

/// Everything the checks start from.
struct Golden {
    execution: Execution,
    dir: PathBuf,
    json: Json,
    weights: TensorFile,
    forward: TensorFile,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    clip: Clip,
    image: Clip,
}

/// Compares activations, losses, gradients and both runs.
pub(in super::super) fn check(
    execution: Execution,
    dir: &Path,
    add: &mut dyn FnMut(Vec<Check>),
) -> Result<(), GoldenError> {
    let golden = Golden::read(execution, dir)?;
    add(golden.check_lambda());
    add(golden.check_masks()?);
    add(golden.check_encoder()?);
    add(golden.check_predictor()?);
    add(golden.check_first_batch()?);
    add(golden.check_run("step10", &[Modality::Video])?);
    add(golden.check_run("joint4", &[Modality::Video, Modality::Image])?);
    add(golden.check_groups("joint4")?);
    Ok(())
}

impl Golden {
    fn read(execution: Execution, dir: &Path) -> Result<Self, GoldenError> {
        let json: Json = read_json(&dir.join("config.json"))?;
        let weights = TensorFile::read(dir.join("weights.safetensors"))?;
        let forward = TensorFile::read(dir.join("forward.safetensors"))?;
        let one = |name: &str| -> Result<Clip, GoldenError> {
            Clip::read(&forward, name)?.into_iter().next().ok_or_else(|| wrong(&forward, format!("`{name}` is empty")))
        };
        let (clip, image) = (one("clip_u8")?, one("image_u8")?);
        let c = &json.config;
        let rotary = |interpolate| Positions::Rotary(Rotary { tiled: false, interpolate });
        let encoder = EncoderConfig {
            tubelet: c.tubelet,
            patch: c.patch,
            embed_dim: c.dim,
            depth: c.depth,
            num_heads: c.heads,
            mlp_ratio: c.mlp_ratio,
            positions: rotary(c.interpolate_rope),
            levels: c.hierarchical_layers.clone(),
            image_tubelet: Some(c.image_tubelet),
            ..EncoderConfig::tiny().with_clip(c.frames, c.img, c.img)
        };
        encoder.validate().map_err(|error| wrong(&weights, error))?;
        let predictor = PredictorConfig {
            embed_dim: c.pred_dim,
            depth: c.pred_depth,
            num_heads: c.pred_heads,
            num_mask_tokens: c.num_mask_tokens,
            positions: rotary(c.pred_interpolate_rope),
            levels: c.levels,
            ..PredictorConfig::for_encoder(&encoder)
        };
        predictor.validate().map_err(|error| wrong(&weights, error))?;
        Ok(Self { execution, dir: dir.into(), json, weights, forward, encoder, predictor, clip, image })
    }

    fn params(&self) -> Result<DeviceParams, GoldenError> {
        let mut params = self.execution.params();
        for (from, to) in [("encoder.", "encoder."), ("predictor.", "predictor."), ("encoder.", "target_encoder.")] {
            load(&mut params, &self.weights, from, to)?;
        }
        Ok(params)
    }

    fn heads(&self) -> HeadWidths {
        HeadWidths { encoder: self.encoder.head_dim(), predictor: self.predictor.head_dim() }
    }

    fn input(&self, modality: Modality) -> &Clip {
        match modality {
            Modality::Video => &self.clip,
            Modality::Image => &self.image,
        }
    }

    /// The encoder for clips or images of the folder.
    fn encoder_for(&self, modality: Modality) -> EncoderConfig {
        let [_, _, frames, height, width] = self.input(modality).shape;
        self.encoder.clone().with_clip(frames, height, width)
    }

    fn generators(&self, modality: Modality) -> usize {
        match modality {
            Modality::Video => self.json.config.masks.len(),
            Modality::Image => self.json.config.img_masks.len(),
        }
    }

    /// The share grows from step 15000 to 30000.
    fn check_lambda(&self) -> Vec<Check> {
        let share = ContextWeight { value: self.json.hparams.lambda_value, progressive: true };
        let rows = self.json.lambda_schedule.iter().filter_map(|(step, want)| Some((step.parse().ok()?, *want)));
        let (got, want): (Vec<f64>, Vec<f64>) = rows.map(|(step, want)| (share.at(step), want)).unzip();
        vec![Check::series_rel("lambda_schedule", &got, &want, 1e-12)]
    }

    /// Masks of every step, of videos and of images.
    fn check_masks(&self) -> Result<Vec<Check>, GoldenError> {
        let tensors = TensorFile::read(self.dir.join("masks_10steps.safetensors"))?;
        let c = &self.json.config;
        let geometry = |frames, tubelet| Geometry { frames, height: c.img, width: c.img, tubelet, patch: c.patch };
        let video = geometry(c.frames, c.tubelet);
        let mut checks = check_steps(&tensors, video, c.masks.clone(), c.mask_global_seed, "step")?;
        let image = geometry(c.image_tubelet, c.image_tubelet);
        checks.extend(check_steps(&tensors, image, c.img_masks.clone(), c.img_mask_global_seed, "image.step")?);
        Ok(checks)
    }

    /// Levels, images, non-square clips, single blocks, and what training predicts.
    fn check_encoder(&self) -> Result<Vec<Check>, GoldenError> {
        let (execution, forward) = (self.execution, &self.forward);
        let mut params = self.params()?;
        let mut checks = Vec::new();
        let mut compare = |name: &str, got: &[f32]| -> Result<(), GoldenError> {
            checks.push(forward.compare(name, got, FORWARD)?.under("forward"));
            Ok(())
        };
        let mut run = |graph, clip: &Clip| run_once(execution, &graph, &mut params, vec![("clip", clip.host())]);
        for (modality, last, levels, embed) in [
            (Modality::Video, "encoder_out", "encoder_levels_b01", "patch_embed_b0"),
            (Modality::Image, "encoder_out_image", "encoder_levels_image_b01", "patch_embed_img_b0"),
        ] {
            let (encoder, clip) = (self.encoder_for(modality), self.input(modality));
            let out = run(compile::encoder(&encoder, "encoder.")?, clip)?;
            compare(last, &values(&out, "encoder_out")?)?;
            let out = run(compile::levels(&encoder, "encoder.", false)?, clip)?;
            compare(levels, first_rows(&values(&out, "encoder_levels")?, forward.shape(levels)?))?;
            compare(embed, first_rows(&values(&out, "patch_embed")?, forward.shape(embed)?))?;
        }
        if let Some(clip) = Clip::read(forward, "nonsquare_u8")?.first() {
            let [_, _, frames, height, width] = clip.shape;
            let encoder = self.encoder.clone().with_clip(frames, height, width);
            let out = run(compile::levels(&encoder, "encoder.", false)?, clip)?;
            compare("encoder_levels_nonsquare", &values(&out, "encoder_levels")?)?;
        }
        let first = self.clip.first_sample();
        let plain = Positions::Rotary(Rotary { tiled: false, interpolate: false });
        let plain = EncoderConfig { positions: plain, ..self.encoder.clone() };
        let out = run(compile::encoder(&plain, "encoder.")?, &first)?;
        compare("encoder_out_no_interpolation_b0", &values(&out, "encoder_out")?)?;
        // The second and the last level.
        let wanted: Vec<usize> = [1, 3].iter().filter_map(|level| self.encoder.levels.get(*level).copied()).collect();
        let layered = EncoderConfig { out_layers: Some(wanted.clone()), ..self.encoder.clone() };
        let out = run(compile::layers(&layered, "encoder.")?, &first)?;
        for (number, layer) in wanted.iter().enumerate() {
            compare(&format!("out_layers_b0.{number}"), &values(&out, &format!("layer_{layer}"))?)?;
        }
        for (name, output) in [
            ("after_block0_b0", "after_block0"),
            ("block0_q_rot_b0", "block0_q_rot"),
            ("block0_k_rot_b0", "block0_k_rot"),
        ] {
            compare(name, &values(&out, output)?)?;
        }
        let out = run(compile::targets(&self.encoder, "encoder.")?, &first)?;
        compare("video.target_levels_b0", &values(&out, "targets")?)?;
        Ok(checks)
    }

    /// Masked levels, predictions of targets and context, distances, and the distilled form.
    fn check_predictor(&self) -> Result<Vec<Check>, GoldenError> {
        let forward = &self.forward;
        let mut params = self.params()?;
        let mut checks = Vec::new();
        for (modality, label) in [(Modality::Video, "video"), (Modality::Image, "image")] {
            let encoder = self.encoder_for(modality);
            let mut masked = self.execution.plan(&compile::levels(&encoder, "encoder.", true)?)?;
            let graph = compile::predictions(&self.predictor, 0, modality)?;
            let mut predictor = self.execution.plan(&graph)?;
            for generator in 0..self.generators(modality) {
                let [enc, pred] = self.masks(forward, &format!("{label}."), generator, &encoder)?;
                let clip = ("clip", self.input(modality).host());
                let mut out = masked.run(&mut params, vec![clip, ("mask_enc", enc.clone())])?;
                let name = format!("{label}.encoder_levels_masked.{generator}");
                checks.push(forward.compare(&name, &values(&out, "encoder_levels")?, FORWARD)?);
                let Some(context) = out.remove("encoder_levels") else { continue };
                let inputs = vec![("context", context), ("mask_enc", enc.clone()), ("mask_pred", pred.clone())];
                let out = predictor.run(&mut params, inputs)?;
                for output in ["predictor_out", "predictor_context_out"] {
                    let name = format!("{label}.{output}.{generator}");
                    checks.push(forward.compare(&name, &values(&out, output)?, FORWARD)?);
                }
                // Stored is the root of the distance, whose inverse is the weight.
                let weights = compile::context_weights(&pair(&enc, &pred), self.rows()).floats().to_vec();
                let distances: Vec<f32> = weights.iter().map(|weight| 1.0 / weight).collect();
                checks.push(forward.compare(
                    &format!("{label}.distance.{generator}"),
                    &distances,
                    Limit::MaxAbs(1e-6),
                )?);
            }
        }
        checks.extend(self.check_distilled(params)?);
        Ok(checks)
    }

    /// A predictor of one level and a wider teacher, on the last level of the first context.
    fn check_distilled(&self, mut params: DeviceParams) -> Result<Vec<Check>, GoldenError> {
        let (forward, d) = (&self.forward, &self.json.config.distilled);
        let config = PredictorConfig {
            embed_dim: d.pred_dim,
            depth: d.depth,
            num_heads: d.heads,
            levels: d.levels,
            output_dim: Some(d.teacher_embed_dim),
            num_mask_tokens: d.num_mask_tokens,
            positions: Positions::Rotary(Rotary { tiled: false, interpolate: d.interpolate_rope }),
            ..self.predictor.clone()
        };
        config.validate().map_err(|error| wrong(&self.weights, error))?;
        let [enc, pred] = self.masks(forward, "video.", 0, &self.encoder)?;
        let masked = compile::encoder_masked(&self.encoder, "encoder.")?;
        let inputs = vec![("clip", self.clip.host()), ("mask_enc", enc.clone())];
        let mut out = run_once(self.execution, &masked, &mut params, inputs)?;
        let Some(context) = out.remove("encoder_out") else { return Ok(Vec::new()) };
        let mut params = self.execution.params();
        load(&mut params, &self.weights, "predictor_distilled.", "predictor.")?;
        let mut checks = Vec::new();
        for (modality, label) in [(Modality::Video, "video"), (Modality::Image, "as_image")] {
            let graph = compile::predictions(&config, 0, modality)?;
            let inputs = vec![("context", context.clone()), ("mask_enc", enc.clone()), ("mask_pred", pred.clone())];
            let out = run_once(self.execution, &graph, &mut params, inputs)?;
            for output in ["predictor_out", "predictor_context_out"] {
                let name = format!("distilled.{label}.{output}");
                checks.push(forward.compare(&name, &values(&out, output)?, FORWARD)?);
            }
        }
        Ok(checks)
    }

    /// Height and width of the grid.
    fn rows(&self) -> [usize; 2] {
        let [_, height, width] = self.predictor.grid;
        [height, width]
    }

    fn masks(
        &self,
        tensors: &TensorFile,
        prefix: &str,
        generator: usize,
        encoder: &EncoderConfig,
    ) -> Result<[HostTensor; 2], GoldenError> {
        let mask = |kind: &str| index(tensors, &format!("{prefix}{kind}.{generator}"), encoder.tokens());
        Ok([mask("mask_enc")?, mask("mask_pred")?])
    }
}

/// The first samples, of as many as a stored tensor holds.
fn first_rows<'a>(values: &'a [f32], stored: &[usize]) -> &'a [f32] {
    &values[..stored.iter().product::<usize>().min(values.len())]
}

/// Two masks as a pair of index batches.
pub(super) fn pair(enc: &HostTensor, pred: &HostTensor) -> MaskPair {
    let indices = |mask: &HostTensor| match mask {
        HostTensor::I32 { shape, data } => {
            let [batch, len] = [0, 1].map(|axis| shape.get(axis).copied().unwrap_or(0));
            IndexBatch { batch, len, indices: data.clone() }
        }
        HostTensor::F32 { .. } | HostTensor::Pixels(_) => IndexBatch { batch: 0, len: 0, indices: Vec::new() },
    };
    MaskPair { context: indices(enc), target: indices(pred) }
}
