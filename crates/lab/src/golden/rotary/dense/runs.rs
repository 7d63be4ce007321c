//! The dense loss, its gradients, and the recorded runs.

use serde_json::json;
use vjepa_graphs::objectives::{ClipStream, Dense};
use vjepa_graphs::{AnyObjective, Jepa, JepaLoss, Modality};
use vjepa_programs as compile;
use vjepa_recipe::schedules::{ContextWeight, Schedule, ScheduleConfig};
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::json::{First, Hparams};
use super::{Golden, pair};
use crate::golden::check::{Check, GoldenError, Limit};
use crate::golden::clip::Clip;
use crate::golden::rotary::groups::{self, Trained};
use crate::golden::rotary::steps::{
    Adam, GRADIENT, LOSS, RUN, Steps, Worst, compare_first_step, compare_gradients, compare_params,
};
use crate::golden::run::{Outputs, run_once, scalar, values};
use crate::golden::sampled::Compare;

impl Golden {
    /// The objective over one or both modalities; the first is the step's first stream.
    fn objective(&self, modalities: &[Modality], loss_exp: f64, weighted: bool) -> AnyObjective {
        let Hparams { lambda_value: value, lambda_progressive: progressive, .. } = self.json.hparams;
        let first = modalities.first().copied().unwrap_or_default();
        let others = modalities.iter().skip(1).map(|modality| {
            let [_, _, frames, height, width] = self.input(*modality).shape;
            ClipStream { clip: [frames, height, width], generators: self.generators(*modality) }
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
        Steps::new(self.execution, objective, adam, gradients, self.params()?)
    }

    /// `<video|image>_exp<1|2>_<weighted|plain>`.
    pub(super) fn check_first_batch(&self) -> Result<Vec<Check>, GoldenError> {
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
    pub(super) fn check_run(&self, name: &str, modalities: &[Modality]) -> Result<Vec<Check>, GoldenError> {
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
                let out = run_once(self.execution, &graph, &mut steps.params, sample)?;
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
        groups::configuration(self.execution, values, &self.weights)
    }

    /// The recorded run of images beside videos as the training program does it: a step of two groups, each by a gradient graph
    /// of its own, whose sums one update applies.
    pub(super) fn check_groups(&self, name: &str) -> Result<Vec<Check>, GoldenError> {
        let Some(run) = self.json.runs.get(name) else { return Ok(Vec::new()) };
        let config = self.configuration()?;
        let mut trained = Trained::new(self.execution, &config, &self.weights)?;
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
