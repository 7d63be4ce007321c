//! V-JEPA 2's probes: three blocks on the features, then the query; several optimisers at once; several clips and levels;
//! what happens next, from predicted tokens.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use vjepa_graphs::{BlocksOn, EncoderConfig, PredictorConfig, ProbeConfig};
use vjepa_programs as compile;
use vjepa_programs::{Probe, TrainOptions};
use vjepa_recipe::schedules::{CosineWd, WarmupCosine};
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::probe::one_hot;
use super::super::run::{
    Execution, FORWARD, Outputs, compare_kept, float, has_gradient, load, run_once, scalar, stored, values,
    zero_moments,
};
use super::super::sampled::Compare;
use super::super::step::compare_gradients;
use super::super::training::Training;
use super::scores::{focal_loss, mean_of_views, side_by_side, softmax};
use super::wrong;

/// Logits and pooled tokens.
const LOGITS: Limit = Limit::RelL2(1e-5);
/// Losses of the steps, and logits after them.
const STEPS: f64 = 1e-4;
/// Gradient norms of the steps, and weights after them.
const TRAINED: f64 = 1e-3;

#[derive(Deserialize)]
struct Json {
    config: Config,
    heads: Vec<Head>,
    hparams: Hparams,
    train: Vec<Row>,
    #[serde(default)]
    multilevel: Option<Multilevel>,
    #[serde(default)]
    ek100: Option<Actions>,
}

#[derive(Deserialize)]
struct Config {
    dim: usize,
    num_heads: usize,
    num_probe_blocks: usize,
    classes: usize,
    ln_eps: f64,
    mlp_ratio: f64,
    labels: Vec<usize>,
}

#[derive(Deserialize)]
struct Hparams {
    iterations_per_epoch: u64,
    num_epochs: u64,
    betas: [f64; 2],
    eps: f64,
}

#[derive(Deserialize)]
struct Head {
    ref_wd: f64,
    final_wd: f64,
    start_lr: f64,
    ref_lr: f64,
    final_lr: f64,
    warmup: f64,
}

#[derive(Deserialize)]
struct Row {
    head: usize,
    lr: f64,
    wd: f64,
    loss: f64,
    grad_norm: f64,
}

#[derive(Deserialize)]
struct Multilevel {
    out_layers: Vec<usize>,
}

#[derive(Deserialize)]
struct Actions {
    one_step: Rolled,
    two_steps: Rolled,
    anticipation_times: Vec<f64>,
    frames_per_second: f64,
    depth: usize,
    classes: BTreeMap<String, usize>,
    labels: BTreeMap<String, Vec<usize>>,
    focal_loss: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Rolled {
    num_output_frames: usize,
    num_steps: usize,
}

/// Everything the checks start from.
struct Golden {
    execution: Execution,
    json: Json,
    weights: TensorFile,
    io: TensorFile,
    probe: ProbeConfig,
}

/// Compares with `weights_initial.safetensors` and `io.safetensors`. The encoder is that of the folder `vjepa2_train` beside
/// this one.
pub(in super::super) fn check(
    execution: Execution,
    dir: &Path,
    add: &mut dyn FnMut(Vec<Check>),
) -> Result<(), GoldenError> {
    let json: Json = read_json(&dir.join("config.json"))?;
    let weights = TensorFile::read(dir.join("weights_initial.safetensors"))?;
    let io = TensorFile::read(dir.join("io.safetensors"))?;
    let c = &json.config;
    let probe = ProbeConfig {
        depth: c.num_probe_blocks,
        blocks_on: BlocksOn::Features,
        eps: c.ln_eps,
        mlp_ratio: c.mlp_ratio,
        ..ProbeConfig::sized(c.dim, c.num_heads, c.classes)
    };
    probe.validate().map_err(|error| wrong(&weights, error))?;
    let golden = Golden { execution, json, weights, io, probe };
    add(golden.check_forward()?);
    for head in 0..golden.json.heads.len() {
        add(golden.check_head(head)?);
    }
    let beside = dir.parent().map(|above| above.join("vjepa2_train")).filter(|beside| beside.is_dir());
    let Some(beside) = beside else {
        add(vec![Check::unsupported(
            "clips",
            "the encoder is in the folder vjepa2_train, which is not beside this one",
        )]);
        return Ok(());
    };
    let training = Training::read(execution, &beside)?;
    add(golden.check_clips(&training)?);
    if let Some(actions) = &golden.json.ek100 {
        add(golden.check_actions(&training, actions)?);
    }
    Ok(())
}

impl Golden {
    fn params(&self) -> Result<DeviceParams, GoldenError> {
        let mut params = self.execution.params();
        load(&mut params, &self.weights, "clf.", "probe.")?;
        Ok(params)
    }

    fn logits(&self, params: &mut DeviceParams, features: HostTensor) -> Result<Vec<f32>, GoldenError> {
        let graph = compile::probe(&Probe::Attentive(self.probe.clone()), false)?;
        values(&run_once(self.execution, &graph, params, vec![("features", features)])?, "logits")
    }

    /// Features `[batch, tokens, D]`, however many tokens.
    fn features(&self, values: Vec<f32>, batch: usize) -> HostTensor {
        let dim = self.probe.embed_dim;
        HostTensor::F32 { shape: vec![batch, values.len() / (batch * dim).max(1), dim], data: values }
    }

    fn check_forward(&self) -> Result<Vec<Check>, GoldenError> {
        let mut params = self.params()?;
        let logits = self.logits(&mut params, float(&self.io, "features")?)?;
        let graph = compile::pooled(&self.probe)?;
        let inputs = vec![("features", float(&self.io, "features")?)];
        let pooled = values(&run_once(self.execution, &graph, &mut params, inputs)?, "pooled")?;
        Ok(vec![
            self.io.compare("logits0", &logits, LOGITS)?.under("probe"),
            self.io.compare("pooled0", &pooled, LOGITS)?.under("probe"),
        ])
    }

    /// One optimiser's steps: it decays everything and clips nothing.
    fn check_head(&self, head: usize) -> Result<Vec<Check>, GoldenError> {
        let rows: Vec<&Row> = self.json.train.iter().filter(|row| row.head == head).collect();
        let Hparams { betas, eps, .. } = self.json.hparams;
        let options = TrainOptions { betas, eps, export_gradients: true, decay_all: true, ..TrainOptions::default() };
        let graph = compile::probe_step(&Probe::Attentive(self.probe.clone()), options)?;
        let mut executor = self.execution.plan_step(graph.clone())?;
        let mut params = self.params()?;
        zero_moments(&mut params, &graph);
        let mut outputs: Vec<Outputs> = Vec::new();
        for (count, row) in (1..).zip(&rows) {
            let numbers = [
                ("lr", row.lr),
                ("wd", row.wd),
                ("c1", 1.0 - betas[0].powi(count)),
                ("c2", 1.0 - betas[1].powi(count)),
                ("max_norm", f64::INFINITY),
            ];
            let mut inputs = vec![
                ("features", float(&self.io, "features")?),
                ("labels", one_hot(&self.json.config.labels, self.probe.num_classes)),
            ];
            inputs.extend(numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32))));
            outputs.push(executor.run(&mut params, inputs)?);
        }
        let label = format!("head{head}");
        let mut checks = self.check_rates(head, &rows);
        for (output, limit, want) in [
            ("loss", STEPS, rows.iter().map(|row| row.loss).collect::<Vec<_>>()),
            ("grad_norm.probe", TRAINED, rows.iter().map(|row| row.grad_norm).collect()),
        ] {
            let got = outputs.iter().map(|outputs| scalar(outputs, output)).collect::<Result<Vec<_>, _>>()?;
            checks.push(Check::series_rel(format!("{label}.{output}"), &got, &want, limit));
        }
        if let (0, Some(first)) = (head, outputs.first()) {
            compare_gradients(first, &self.io, ["grad0/", "probe."], "grad0", &mut checks)?;
        }
        let prefix = format!("{label}.after{}/", rows.len());
        for name in stored(&self.io, &prefix) {
            let got = params.get(&format!("probe.{name}")).map(|(_, values)| values).unwrap_or_default();
            let keep = has_gradient(name, got.len());
            let check = compare_kept(&self.io, &format!("{prefix}{name}"), &got, Limit::RelL2(TRAINED), keep)?;
            checks.push(check.renamed(format!("{prefix}{name}")));
        }
        let logits = self.logits(&mut params, float(&self.io, "features")?)?;
        checks.push(self.io.compare(&format!("{label}.after{}.logits", rows.len()), &logits, Limit::RelL2(STEPS))?);
        Ok(checks)
    }

    /// Learning rate and weight decay of a head.
    fn check_rates(&self, head: usize, rows: &[&Row]) -> Vec<Check> {
        let Some(of) = self.json.heads.get(head) else { return Vec::new() };
        let Hparams { iterations_per_epoch, num_epochs, .. } = self.json.hparams;
        let total_steps = iterations_per_epoch * num_epochs;
        let warmup_steps = (of.warmup * iterations_per_epoch as f64) as u64;
        let lr = WarmupCosine { start: of.start_lr, peak: of.ref_lr, end: of.final_lr, warmup_steps, total_steps };
        let wd = CosineWd { start: of.ref_wd, end: of.final_wd, total_steps };
        let got: Vec<f64> = (0..).zip(rows).flat_map(|(step, _)| [lr.at(step), wd.at(step)]).collect();
        let want: Vec<f64> = rows.iter().flat_map(|row| [row.lr, row.wd]).collect();
        vec![Check::series_rel(format!("head{head}.rates"), &got, &want, 1e-12)]
    }

    /// Several clips and views through the encoder, and several of its layers.
    fn check_clips(&self, training: &Training) -> Result<Vec<Check>, GoldenError> {
        let io = &self.io;
        let mut checks = Vec::new();
        let &[segments, views, batch, ..] = io.shape("multiclip.clips_u8")? else {
            return Err(wrong(io, "`multiclip.clips_u8` should be [segments, views, B, C, T, H, W]"));
        };
        let clips = Clip::read(io, "multiclip.clips_u8")?;
        let mut params = training.params()?;
        let mut probe = self.params()?;
        let graph = compile::encoder(&training.encoder, "encoder.")?;
        let mut encoder = self.execution.plan(&graph)?;
        let mut probabilities: Vec<Vec<f32>> = Vec::new();
        for view in 0..views {
            let mut tokens = Vec::new();
            for segment in 0..segments {
                let Some(clip) = clips.get(segment * views + view) else { continue };
                let out = encoder.run(&mut params, vec![("clip", clip.host())])?;
                tokens.push(values(&out, "encoder_out")?);
            }
            let joined = side_by_side(&tokens, batch);
            let name = format!("multiclip.features.view{view}");
            if io.contains(&name) {
                checks.push(io.compare(&name, &joined, FORWARD)?);
            }
            let logits = self.logits(&mut probe, self.features(joined, batch))?;
            checks.push(io.compare(&format!("multiclip.logits.view{view}"), &logits, LOGITS)?);
            probabilities.extend(logits.chunks_exact(self.probe.num_classes).map(softmax));
        }
        let mean = mean_of_views(&probabilities, batch);
        checks.push(io.compare("multiclip.probabilities", &mean, LOGITS)?);
        if let Some(Multilevel { out_layers }) = &self.json.multilevel {
            let layered = EncoderConfig { out_layers: Some(out_layers.clone()), ..training.encoder.clone() };
            let mut encoder = self.execution.plan(&compile::layers(&layered, "encoder.")?)?;
            let mut tokens = Vec::new();
            for segment in 0..segments {
                let Some(clip) = clips.get(segment * views) else { continue };
                let out = encoder.run(&mut params, vec![("clip", clip.host())])?;
                for layer in out_layers {
                    tokens.push(values(&out, &format!("layer_{layer}"))?);
                }
            }
            let joined = side_by_side(&tokens, batch);
            let logits = self.logits(&mut probe, self.features(joined, batch))?;
            checks.push(io.compare("multilevel.logits.view0", &logits, LOGITS)?);
        }
        Ok(checks)
    }

    /// The future rolled out by the predictor, and verb, noun and action from it.
    fn check_actions(&self, training: &Training, actions: &Actions) -> Result<Vec<Check>, GoldenError> {
        let io = &self.io;
        let mut checks = Vec::new();
        let features = io.f32("features")?;
        let mut params = training.params()?;
        let mut one_step = Vec::new();
        for (name, rolled) in [("one_step", &actions.one_step), ("two_steps", &actions.two_steps)] {
            let predicted = self.rolled(training, actions, rolled, &mut params)?;
            checks.push(io.compare(&format!("ek100.{name}.predicted"), &predicted, FORWARD)?);
            if name == "one_step" {
                one_step = predicted;
            }
        }
        let batch = training.clip.shape[0];
        let joined = side_by_side(&[features, one_step], batch);
        let mut params = self.execution.params();
        load(&mut params, &self.weights, "ek100.", "probe.")?;
        let kinds = ["verb", "noun", "action"];
        let classes = kinds.map(|kind| actions.classes.get(kind).copied().unwrap_or(0));
        let config = ProbeConfig { depth: actions.depth, ..self.probe.clone() };
        let graph = compile::actions(&config, classes)?;
        let out = run_once(self.execution, &graph, &mut params, vec![("features", self.features(joined, batch))])?;
        for kind in kinds {
            let logits = values(&out, kind)?;
            checks.push(io.compare(&format!("ek100.logits.{kind}"), &logits, LOGITS)?);
            if let (Some(labels), Some(want)) = (actions.labels.get(kind), actions.focal_loss.get(kind)) {
                let got = focal_loss(&logits, labels);
                checks.push(Check::scalar_rel(format!("ek100.focal_loss.{kind}"), got, *want, 1e-5));
            }
        }
        Ok(checks)
    }

    /// Tokens predicted for each sample's anticipation time. In further steps the window slides over what was predicted, while
    /// the positions stay what they were.
    fn rolled(
        &self,
        training: &Training,
        actions: &Actions,
        rolled: &Rolled,
        params: &mut DeviceParams,
    ) -> Result<Vec<f32>, GoldenError> {
        let encoder = &training.encoder;
        let [time, height, width] = encoder.grid();
        let (tokens, plane, dim) = (encoder.tokens(), height * width, encoder.embed_dim);
        let wanted = rolled.num_output_frames / encoder.tubelet * plane;
        let batch = actions.anticipation_times.len();
        let ahead = |seconds: &f64| (seconds * actions.frames_per_second / encoder.tubelet as f64) as usize;
        let furthest = actions.anticipation_times.iter().map(ahead).max().unwrap_or(0);
        // Room for the future: a predictor's angles do not depend on how many frames it was built for.
        let predictor = PredictorConfig {
            grid: [time + furthest + wanted / plane.max(1), height, width],
            ..training.predictor.clone()
        };
        let whole = |at: usize| i32::try_from(at).unwrap_or(i32::MAX);
        let context_ids: Vec<i32> = (0..batch).flat_map(|_| (0..tokens).map(whole)).collect();
        let starts = actions.anticipation_times.iter().map(|seconds| tokens + plane * ahead(seconds));
        let target_ids: Vec<i32> = starts.flat_map(|start| (start..start + wanted).map(whole)).collect();
        let mut plan = self.execution.plan(&compile::predictor(&predictor, 1)?)?;
        let mut window = self.io.f32("features")?;
        let mut steps: Vec<Vec<f32>> = Vec::new();
        for _ in 0..rolled.num_steps {
            let inputs = vec![
                ("context", HostTensor::F32 { shape: vec![batch, tokens, dim], data: window.clone() }),
                ("mask_enc", HostTensor::I32 { shape: vec![batch, tokens], data: context_ids.clone() }),
                ("mask_pred", HostTensor::I32 { shape: vec![batch, wanted], data: target_ids.clone() }),
            ];
            let predicted = values(&plan.run(params, inputs)?, "predictor_out")?;
            let samples = window.chunks_exact((tokens * dim).max(1)).zip(predicted.chunks_exact((wanted * dim).max(1)));
            window = samples.flat_map(|(kept, new)| kept.iter().skip(wanted * dim).chain(new)).copied().collect();
            steps.push(predicted);
        }
        Ok(side_by_side(&steps, batch))
    }
}
