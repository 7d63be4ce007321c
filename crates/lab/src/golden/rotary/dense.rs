//! V-JEPA 2.1: levels, images beside videos, predictions of the context, the dense loss and its runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;
use vjepa_graphs::objectives::{Dense, Stream};
use vjepa_graphs::{AnyObjective, EncoderConfig, Jepa, JepaLoss, Modality, PredictorConfig};
use vjepa_programs as compile;
use vjepa_recipe::config::{Positions, Rotary};
use vjepa_recipe::masks::{Geometry, IndexBatch, MaskPair};
use vjepa_recipe::schedules::{ContextWeight, Schedule, ScheduleConfig};
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::masks::check_steps;
use super::super::run::{Engine, FORWARD, Outputs, index, load, run_once, scalar, values};
use super::super::sampled::Compare;
use super::groups::{self, Trained};
use super::steps::{Adam, GRADIENT, LOSS, RUN, Steps, Worst, compare_first_step, compare_gradients, compare_params};
use super::{HeadWidths, wrong};

#[derive(Deserialize)]
struct Json {
    config: Config,
    hparams: Hparams,
    first_batch: BTreeMap<String, serde_json::Value>,
    runs: BTreeMap<String, RunJson>,
    lambda_schedule: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Config {
    img: usize,
    frames: usize,
    patch: usize,
    tubelet: usize,
    image_tubelet: usize,
    dim: usize,
    depth: usize,
    heads: usize,
    mlp_ratio: f64,
    hierarchical_layers: Vec<usize>,
    interpolate_rope: bool,
    pred_dim: usize,
    pred_depth: usize,
    pred_heads: usize,
    pred_interpolate_rope: bool,
    levels: usize,
    num_mask_tokens: usize,
    masks: Vec<serde_json::Map<String, serde_json::Value>>,
    img_masks: Vec<serde_json::Map<String, serde_json::Value>>,
    mask_global_seed: u64,
    img_mask_global_seed: u64,
    distilled: Distilled,
}

#[derive(Deserialize)]
struct Distilled {
    pred_dim: usize,
    depth: usize,
    heads: usize,
    levels: usize,
    teacher_embed_dim: usize,
    num_mask_tokens: usize,
    interpolate_rope: bool,
}

#[derive(Deserialize)]
struct Hparams {
    ipe: u64,
    epochs: u64,
    warmup: u64,
    start_lr: f64,
    lr: f64,
    final_lr: f64,
    wd: f64,
    final_wd: f64,
    ema: [f64; 2],
    ipe_scale: f64,
    loss_exp: f64,
    lambda_value: f64,
    lambda_progressive: bool,
    weight_distance_loss: bool,
    betas: [f64; 2],
    eps: f64,
}

#[derive(Deserialize)]
struct First {
    loss: f64,
    loss_pred: f64,
    loss_context: f64,
    enc_grad_norm: f64,
    pred_grad_norm: f64,
}

#[derive(Deserialize)]
struct RunJson {
    steps: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    lr: f64,
    wd: f64,
    momentum: f64,
    loss: f64,
    loss_pred: f64,
    loss_context: f64,
    enc_grad_norm: f64,
    pred_grad_norm: f64,
    image_loss: Option<f64>,
    image_loss_pred: Option<f64>,
    image_loss_context: Option<f64>,
}

/// Everything the checks start from.
struct Golden {
    engine: Engine,
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
pub(in super::super) fn check(engine: Engine, dir: &Path, add: &mut dyn FnMut(Vec<Check>)) -> Result<(), GoldenError> {
    let golden = Golden::read(engine, dir)?;
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
    fn read(engine: Engine, dir: &Path) -> Result<Self, GoldenError> {
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
        Ok(Self { engine, dir: dir.into(), json, weights, forward, encoder, predictor, clip, image })
    }

    fn params(&self) -> Result<DeviceParams, GoldenError> {
        let mut params = self.engine.params();
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
        let (engine, forward) = (self.engine, &self.forward);
        let mut params = self.params()?;
        let mut checks = Vec::new();
        let mut compare = |name: &str, got: &[f32]| -> Result<(), GoldenError> {
            checks.push(forward.compare(name, got, FORWARD)?.under("forward"));
            Ok(())
        };
        let mut run = |graph, clip: &Clip| run_once(engine, &graph, &mut params, vec![("clip", clip.host())]);
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
            let mut masked = self.engine.plan(&compile::levels(&encoder, "encoder.", true)?)?;
            let graph = compile::predictions(&self.predictor, 0, modality)?;
            let mut predictor = self.engine.plan(&graph)?;
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
        let mut out = run_once(self.engine, &masked, &mut params, inputs)?;
        let Some(context) = out.remove("encoder_out") else { return Ok(Vec::new()) };
        let mut params = self.engine.params();
        load(&mut params, &self.weights, "predictor_distilled.", "predictor.")?;
        let mut checks = Vec::new();
        for (modality, label) in [(Modality::Video, "video"), (Modality::Image, "as_image")] {
            let graph = compile::predictions(&config, 0, modality)?;
            let inputs = vec![("context", context.clone()), ("mask_enc", enc.clone()), ("mask_pred", pred.clone())];
            let out = run_once(self.engine, &graph, &mut params, inputs)?;
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

    /// The objective over one or both modalities; the first is the step's first stream.
    fn objective(&self, modalities: &[Modality], loss_exp: f64, weighted: bool) -> AnyObjective {
        let Hparams { lambda_value: value, lambda_progressive: progressive, .. } = self.json.hparams;
        let first = modalities.first().copied().unwrap_or_default();
        let others = modalities.iter().skip(1).map(|modality| {
            let [_, _, frames, height, width] = self.input(*modality).shape;
            Stream { clip: [frames, height, width], generators: self.generators(*modality) }
        });
        let objective = Jepa {
            encoder: self.encoder_for(first),
            predictor: self.predictor.clone(),
            generators: self.generators(first),
            loss: JepaLoss { loss_exp, reg_coeff: 0.0 },
            dense: Some(Dense { weighted, share: ContextWeight { value, progressive } }),
            others: others.collect(),
            bucket: 0,
        };
        objective.into()
    }

    /// Inputs of a step: each modality with the masks under its prefix in a file.
    fn inputs(
        &self,
        streams: &[(Modality, Clip, &TensorFile, String)],
        weighted: bool,
    ) -> Result<Vec<(String, HostTensor)>, GoldenError> {
        let mut inputs = Vec::new();
        let mut number = 0;
        for (stream, (modality, clip, masks, prefix)) in streams.iter().enumerate() {
            inputs.push((if stream == 0 { "clip".to_owned() } else { format!("clip{stream}") }, clip.host()));
            let encoder = self.encoder_for(*modality);
            for generator in 0..self.generators(*modality) {
                let [enc, pred] = self.masks(masks, prefix, generator, &encoder)?;
                if weighted {
                    let weights = compile::context_weights(&pair(&enc, &pred), self.rows());
                    inputs.push((format!("weights.{number}"), weights));
                }
                inputs.push((format!("mask_enc.{number}"), enc));
                inputs.push((format!("mask_pred.{number}"), pred));
                number += 1;
            }
        }
        let Hparams { lambda_value: value, lambda_progressive: progressive, .. } = self.json.hparams;
        let share = ContextWeight { value, progressive }.at(0) as f32;
        inputs.push(("context_share".to_owned(), HostTensor::F32 { shape: vec![1, 1], data: vec![share] }));
        Ok(inputs)
    }

    fn steps(&self, objective: &AnyObjective, gradients: bool) -> Result<Steps, GoldenError> {
        let adam = Adam { betas: self.json.hparams.betas, eps: self.json.hparams.eps };
        Steps::new(self.engine, objective, adam, gradients, self.params()?)
    }

    /// `<video|image>_exp<1|2>_<weighted|plain>`.
    fn check_first_batch(&self) -> Result<Vec<Check>, GoldenError> {
        let mut checks = Vec::new();
        for (form, want) in self.json.first_batch.iter().filter(|(_, want)| want.is_object()) {
            let want: First = serde_json::from_value(want.clone())
                .map_err(|source| GoldenError::Json { path: self.dir.join("config.json"), source })?;
            let parts: Vec<&str> = form.split('_').collect();
            let (modality, label) = match parts.first() {
                Some(&"video") => (Modality::Video, "video"),
                Some(&"image") => (Modality::Image, "image"),
                _ => {
                    checks.push(Check::unsupported(format!("loss.{form}"), "this program knows no such form"));
                    continue;
                }
            };
            let exponent = parts.get(1).and_then(|part| part.strip_prefix("exp")?.parse().ok());
            let (Some(exponent), Some(&kind)) = (exponent, parts.get(2)) else {
                checks.push(Check::unsupported(format!("loss.{form}"), "this program knows no such form"));
                continue;
            };
            let weighted = kind == "weighted";
            let objective = self.objective(&[modality], exponent, weighted);
            let stream = (modality, self.input(modality).clone(), &self.forward, format!("{label}."));
            let outputs = self.steps(&objective, true)?.look(self.inputs(&[stream], weighted)?)?;
            for (name, want, limit) in [
                ("loss", want.loss, LOSS),
                ("loss_pred", want.loss_pred, LOSS),
                ("loss_context", want.loss_context, LOSS),
                ("grad_norm.encoder", want.enc_grad_norm, GRADIENT),
                ("grad_norm.predictor", want.pred_grad_norm, GRADIENT),
            ] {
                checks.push(Check::scalar_rel(format!("{form}.{name}"), scalar(&outputs, name)?, want, limit));
            }
            if exponent == 1.0 && weighted {
                let golden = TensorFile::read(self.dir.join(format!("grads_{label}.safetensors")))?;
                checks.extend(compare_gradients(&outputs, &golden, self.heads(), &format!("grad_{label}"))?);
            }
        }
        Ok(checks)
    }

    fn schedule(&self) -> Schedule {
        let h = &self.json.hparams;
        Schedule::new(&ScheduleConfig {
            ipe_scale: h.ipe_scale,
            lr: [h.start_lr, h.lr, h.final_lr],
            wd: [h.wd, h.final_wd],
            ema: h.ema,
            clip_from_step: None,
            ..ScheduleConfig::official(h.ipe, h.epochs, h.warmup)
        })
    }

    /// A recorded run: its masks, rates, scalars, and what it left.
    fn check_run(&self, name: &str, modalities: &[Modality]) -> Result<Vec<Check>, GoldenError> {
        let Some(run) = self.json.runs.get(name) else { return Ok(Vec::new()) };
        let Hparams { loss_exp, weight_distance_loss: weighted, lr, .. } = self.json.hparams;
        let objective = self.objective(modalities, loss_exp, weighted);
        let mut steps = self.steps(&objective, false)?;
        let schedule = self.schedule();
        let masks = TensorFile::read(self.dir.join("masks_10steps.safetensors"))?;
        let (mut worst, mut checks) = (Worst::default(), Vec::new());
        let (mut got, mut want) = (Vec::new(), Vec::new());
        for (step, row) in run.steps.iter().enumerate() {
            let rates = schedule.at(step as u64);
            got.extend([rates.lr, rates.wd, rates.momentum]);
            want.extend([row.lr, row.wd, row.momentum]);
            let streams: Vec<_> = modalities
                .iter()
                .map(|modality| {
                    let prefix = match modality {
                        Modality::Video => format!("step{step}."),
                        Modality::Image => format!("image.step{step}."),
                    };
                    (*modality, self.input(*modality).of_step(step), &masks, prefix)
                })
                .collect();
            let outputs = steps.step(self.inputs(&streams, weighted)?, rates)?;
            worst.add(&outputs, &row.recorded())?;
            if step == 0 && modalities.len() == 1 {
                checks.extend(self.check_first_step(&steps, &objective, &streams, (weighted, rates.lr))?);
            }
        }
        checks.push(Check::series_rel(format!("{name}.rates"), &got, &want, 1e-12));
        checks.extend(worst.checks(name));
        let golden = TensorFile::read(self.dir.join(format!("params_{name}.safetensors")))?;
        let limit = Limit::Both { rel_l2: RUN, max_abs: lr };
        checks.extend(compare_params(&steps.params, &golden, self.heads(), (name, limit))?);
        for model in ["encoder", "target_encoder"] {
            let stored = format!("{model}_levels_b0");
            if golden.contains(&stored) || golden.contains(&format!("{stored}#val")) {
                let graph = compile::levels(&self.encoder, &format!("{model}."), false)?;
                let sample = vec![("clip", self.clip.first_sample().host())];
                let out = run_once(self.engine, &graph, &mut steps.params, sample)?;
                let got = values(&out, "encoder_levels")?;
                checks.push(golden.compare(&stored, &got, Limit::RelL2(RUN))?.under(name));
            }
        }
        Ok(checks)
    }

    /// The configuration of the recorded run as the training program reads it: one group of images, one of videos.
    fn configuration(&self) -> Result<vjepa_recipe::config::Config, GoldenError> {
        let (c, h) = (&self.json.config, &self.json.hparams);
        let values = json!({
            "model": {
                "generation": "vjepa2_1", "embed_dim": c.dim, "depth": c.depth, "num_heads": c.heads,
                "mlp_ratio": c.mlp_ratio, "levels": c.hierarchical_layers, "interpolate_rope": c.interpolate_rope,
                "pred_embed_dim": c.pred_dim, "pred_depth": c.pred_depth, "pred_num_heads": c.pred_heads,
                "pred_interpolate_rope": c.pred_interpolate_rope, "levels_predictor": c.levels,
                "num_mask_tokens": c.num_mask_tokens, "lambda_value_vid": h.lambda_value, "lambda_value_img": h.lambda_value,
                "lambda_progressive": h.lambda_progressive,
            },
            "data": {
                "num_frames": c.frames, "crop_size": c.img, "patch_size": c.patch, "tubelet_size": c.tubelet,
                "batch_size": self.clip.shape[0],
            },
            "img_data": {"crop_size": c.img, "batch_size": self.image.shape[0], "rank_ratio": 0.5},
            "mask": c.masks, "img_mask": c.img_masks,
            "loss": {"loss_exp": h.loss_exp, "weight_distance_loss": h.weight_distance_loss},
            "optimization": {
                "groups": 2, "ipe": h.ipe, "epochs": h.epochs, "warmup": h.warmup, "start_lr": h.start_lr, "lr": h.lr,
                "final_lr": h.final_lr, "weight_decay": h.wd, "final_weight_decay": h.final_wd, "ema": h.ema,
                "ipe_scale": h.ipe_scale, "betas": h.betas, "eps": h.eps, "clip_grad": null,
            },
        });
        groups::configuration(self.engine, values, &self.weights)
    }

    /// The recorded run of images beside videos as the training program does it: a step of two groups, each by a gradient graph
    /// of its own, whose sums one update applies.
    fn check_groups(&self, name: &str) -> Result<Vec<Check>, GoldenError> {
        let Some(run) = self.json.runs.get(name) else { return Ok(Vec::new()) };
        let config = self.configuration()?;
        let mut trained = Trained::new(self.engine, &config, &self.weights)?;
        let masks = TensorFile::read(self.dir.join("masks_10steps.safetensors"))?;
        let label = format!("{name}.groups");
        let (mut worst, mut got, mut want) = (Worst::default(), Vec::new(), Vec::new());
        for (step, row) in run.steps.iter().enumerate() {
            let kinds = [(Modality::Image, format!("image.step{step}.")), (Modality::Video, format!("step{step}."))];
            let mut parts = Vec::new();
            for (variant, (modality, prefix)) in kinds.into_iter().enumerate() {
                let encoder = self.encoder_for(modality);
                let drawn = (0..self.generators(modality)).map(|generator| {
                    let [enc, pred] = self.masks(&masks, &prefix, generator, &encoder)?;
                    Ok(pair(&enc, &pred))
                });
                let pairs = drawn.collect::<Result<Vec<_>, GoldenError>>()?;
                parts.push(vec![groups::part(&self.input(modality).of_step(step), pairs, (variant, 1.0))]);
            }
            let (outputs, report) = trained.step(parts, &self.weights)?;
            worst.add(&outputs, &row.recorded())?;
            got.extend([report.lr, report.wd, report.momentum]);
            want.extend([row.lr, row.wd, row.momentum]);
        }
        let mut checks = vec![Check::series_rel(format!("{label}.rates"), &got, &want, 1e-12)];
        checks.extend(worst.checks(&label));
        let golden = TensorFile::read(self.dir.join(format!("params_{name}.safetensors")))?;
        let limit = Limit::Both { rel_l2: RUN, max_abs: self.json.hparams.lr };
        checks.extend(compare_params(trained.state.params(), &golden, self.heads(), (&label, limit))?);
        Ok(checks)
    }

    /// Parameters after one step, where the gradient is more than rounding.
    fn check_first_step(
        &self,
        steps: &Steps,
        objective: &AnyObjective,
        streams: &[(Modality, Clip, &TensorFile, String)],
        (weighted, lr): (bool, f64),
    ) -> Result<Vec<Check>, GoldenError> {
        let golden = TensorFile::read(self.dir.join("params_step1.safetensors"))?;
        let gradients: Outputs = self.steps(objective, true)?.look(self.inputs(streams, weighted)?)?;
        compare_first_step(&steps.params, &gradients, &golden, (self.heads(), lr))
    }
}

impl Row {
    /// Output names with what was recorded; of two modalities the mean of their losses.
    fn recorded(&self) -> Vec<(&'static str, f64)> {
        let mean = |video: f64, image: Option<f64>| image.map_or(video, |image| 0.5 * (video + image));
        vec![
            ("loss", mean(self.loss, self.image_loss)),
            ("loss_pred", mean(self.loss_pred, self.image_loss_pred)),
            ("loss_context", mean(self.loss_context, self.image_loss_context)),
            ("grad_norm.encoder", self.enc_grad_norm),
            ("grad_norm.predictor", self.pred_grad_norm),
        ]
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
        HostTensor::F32 { .. } => IndexBatch { batch: 0, len: 0, indices: Vec::new() },
    };
    MaskPair { context: indices(enc), target: indices(pred) }
}
