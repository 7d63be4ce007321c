//! The recorded fine-tuning runs, through the compiled step: logits, first gradients, five steps of AdamW with layer decay, and
//! a pass with recorded drops.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use vjepa_graphs::objectives::{Finetune, Gate};
use vjepa_graphs::{AnyObjective, EncoderConfig, Objective, Probe, TunedHead};
use vjepa_programs::{self as programs, DROP_KEY, TrainOptions};
use vjepa_recipe::finetune::{FinetuneSchedule, Pooling};
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::run::{
    Execution, compare_kept, float, has_gradient, norm, run_once, scalar, stored, values, zero_moments,
};
use super::super::sampled::Compare;
use super::finetune_info::{Dropped, Hparams, Info, Run, Sizes};
use super::wrong;

/// Logits before training.
const LOGITS: f64 = 1e-5;
/// Gradients, and their norms.
const GRADIENT: f64 = 1e-4;
/// Losses of the run.
const LOSS: f64 = 1e-5;
/// Logits after training.
const AFTER: f64 = 1e-4;
/// Largest difference of a parameter after training, in learning rates.
const PARAMETER: f64 = 0.02;
/// Learning rates and their factors.
const RATE: f64 = 1e-12;

/// Weights of the pass with recorded drops.
const FC_NORM: &str = "weights_fc_norm.safetensors";

/// A recorded folder.
struct Recorded {
    execution: Execution,
    dir: PathBuf,
    info: Info,
    io: TensorFile,
    clip: Clip,
}

/// Compares with the steps of a folder.
pub(super) fn check(execution: Execution, dir: &Path) -> Result<Vec<Check>, GoldenError> {
    let path = dir.join("io.safetensors");
    if !path.is_file() {
        return Ok(Vec::new());
    }
    let info: Info = read_json(&dir.join("info.json"))?;
    let io = TensorFile::read(path)?;
    let clip = Clip::read(&io, "clip_u8")?.into_iter().next();
    let clip = clip.ok_or_else(|| wrong(&dir.join("io.safetensors"), "`clip_u8` is empty"))?;
    let recorded = Recorded { execution, dir: dir.to_owned(), info, io, clip };
    let mut checks = vec![recorded.rates()?];
    for (name, run) in &recorded.info.runs {
        let pooling = match name.as_str() {
            "fc_norm" => Pooling::FcNorm,
            "norm" => Pooling::Norm,
            _ => {
                checks.push(Check::unsupported(format!("finetune.{name}"), "this program knows no such pooling"));
                continue;
            }
        };
        recorded.run(name, pooling, run, &mut checks)?;
    }
    if let Some(dropped) = &recorded.info.droppath {
        recorded.dropped(dropped, &mut checks)?;
    }
    Ok(checks)
}

/// A parameter's recorded name under its set.
fn full(name: &str) -> String {
    let set = if name.starts_with("head.") || name.starts_with("fc_norm.") { "probe" } else { "encoder" };
    format!("{set}.{name}")
}

impl Recorded {
    fn objective(&self, pooling: Pooling) -> Finetune {
        let Sizes { img, frames, patch, tubelet, dim, depth, heads, classes } = self.info.config;
        let encoder = EncoderConfig {
            patch,
            tubelet,
            depth,
            num_heads: heads,
            embed_dim: dim,
            mlp_ratio: 4.0,
            ..EncoderConfig::tiny()
        };
        Finetune {
            encoder: encoder.with_clip(frames, img, img),
            head: TunedHead { embed_dim: dim, num_classes: classes, pooling },
            drop_path: 0.0,
            head_dropout: 0.0,
            layer_decay: self.info.hparams.layer_decay,
            init_scale: 1.0,
        }
    }

    /// The learning rate of every step.
    fn rates(&self) -> Result<Check, GoldenError> {
        let Hparams { lr, min_lr, epochs, steps_per_epoch, warmup_epochs, warmup_steps, .. } = self.info.hparams;
        let schedule = FinetuneSchedule::new([lr, min_lr], epochs, steps_per_epoch, warmup_epochs, warmup_steps)
            .map_err(|error| wrong(&self.dir.join("info.json"), error))?;
        let got: Vec<f64> = (0..).take(self.info.lr_schedule.len()).map(|step| schedule.at(step)).collect();
        Ok(Check::series_rel("finetune.lr_schedule", &got, &self.info.lr_schedule, RATE))
    }

    /// A part that is not compared, since the folder lacks its weights: the repository carries those of one pooling.
    fn missing(&self, label: &str, weights: &str) -> Option<Check> {
        let why = || Check::unsupported(format!("{label}.steps"), format!("{weights} is not in the folder"));
        (!self.dir.join(weights).is_file()).then(why)
    }

    /// Weights as the folder has them; a norm that the model does not use has values all the same.
    fn params(&self, file: &str, objective: &Finetune) -> Result<DeviceParams, GoldenError> {
        let weights = TensorFile::read(self.dir.join(file))?;
        let mut params = self.execution.params();
        for name in ["encoder.norm.weight", "encoder.norm.bias"] {
            let shape = vec![objective.encoder.embed_dim];
            params.set(name, HostTensor::F32 { data: vec![0.0; objective.encoder.embed_dim], shape });
        }
        for name in weights.names() {
            params.set(&full(name), float(&weights, name)?);
        }
        Ok(params)
    }

    fn options(&self, gates_given: bool) -> TrainOptions {
        let Hparams { betas, eps, .. } = self.info.hparams;
        let precision = self.execution.precision;
        TrainOptions { betas, eps, export_gradients: true, precision, gates_given, ..TrainOptions::default() }
    }

    /// Inputs of the 0-based step `step`, with these rates.
    fn inputs(&self, step: usize, lr: f64) -> Result<Vec<(&'static str, HostTensor)>, GoldenError> {
        let Hparams { betas: [beta1, beta2], weight_decay, .. } = self.info.hparams;
        let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let numbers = [
            ("lr", lr),
            ("wd", weight_decay),
            ("c1", 1.0 - beta1.powi(count)),
            ("c2", 1.0 - beta2.powi(count)),
            ("max_norm", f64::INFINITY),
        ];
        let mut inputs =
            vec![("clip", self.clip.of_step(step).host()), ("targets", float(&self.io, &format!("target{step}"))?)];
        inputs.extend(numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32))));
        Ok(inputs)
    }

    /// Logits of the first batch, as the deployed model gives them.
    fn logits(&self, objective: &Finetune, params: &mut DeviceParams) -> Result<Vec<f32>, GoldenError> {
        let graph = programs::frozen(&objective.encoder, Some(&Probe::Tuned(objective.head.clone())))?;
        values(&run_once(self.execution, &graph, params, vec![("clip", self.clip.host())])?, "logits")
    }

    fn run(&self, name: &str, pooling: Pooling, run: &Run, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
        let objective = self.objective(pooling);
        let label = format!("finetune.{name}");
        checks.extend(self.groups(&label, &objective, run));
        let weights = format!("weights_{name}.safetensors");
        if let Some(missing) = self.missing(&label, &weights) {
            checks.push(missing);
            return Ok(());
        }
        let mut params = self.params(&weights, &objective)?;
        let logits = self.logits(&objective, &mut params)?;
        checks.push(self.io.compare(&format!("{name}.logits0"), &logits, Limit::RelL2(LOGITS))?.under("finetune"));

        let graph = programs::step(&objective.clone().into(), self.options(false))?;
        zero_moments(&mut params, &graph);
        let mut executor = self.execution.plan_step(graph)?;
        let (mut got, mut want) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        for (step, row) in run.steps.iter().enumerate() {
            let outputs = executor.run(&mut params, self.inputs(step, row.lr)?)?;
            let norms = [scalar(&outputs, "grad_norm.encoder")?, scalar(&outputs, "grad_norm.probe")?];
            got[0].push(scalar(&outputs, "loss")?);
            got[1].push(norms[0].hypot(norms[1]));
            want[0].push(row.loss);
            want[1].push(row.grad_norm);
            if step == 0 {
                self.gradients(name, &outputs, checks)?;
            }
        }
        checks.push(Check::series_rel(format!("{label}.losses"), &got[0], &want[0], LOSS));
        checks.push(Check::series_rel(format!("{label}.grad_norms"), &got[1], &want[1], GRADIENT));
        self.after(name, run.steps.len(), &mut params, checks)?;
        let logits = self.logits(&objective, &mut params)?;
        let stored = format!("{name}.logits_after{}", run.steps.len());
        checks.push(self.io.compare(&stored, &logits, Limit::RelL2(AFTER))?.under("finetune"));
        Ok(())
    }

    /// Factors on rates, and which parameters decay.
    fn groups(&self, label: &str, objective: &Finetune, run: &Run) -> Vec<Check> {
        let shapes: BTreeMap<String, usize> = AnyObjective::from(objective.clone())
            .declaration()
            .parameters()
            .map(|(name, shape)| (name, shape.len()))
            .collect();
        let names = || run.groups.iter().flat_map(|group| group.names.iter().map(move |name| (full(name), group)));
        let got: Vec<f64> = names().map(|(name, _)| objective.rate(&name)).collect();
        let want: Vec<f64> = names().map(|(_, group)| group.lr_scale).collect();
        let rank = |name: &str| shapes.get(name).copied().unwrap_or(0);
        let decays: Vec<i64> = names().map(|(name, _)| i64::from(objective.decays(&name, rank(&name)))).collect();
        let wanted: Vec<i64> = names().map(|(_, group)| i64::from(group.weight_decay > 0.0)).collect();
        vec![
            Check::series_rel(format!("{label}.lr_scale"), &got, &want, RATE),
            Check::exact(format!("{label}.decays"), &decays, &wanted),
        ]
    }

    fn gradients(
        &self,
        name: &str,
        outputs: &super::super::run::Outputs,
        checks: &mut Vec<Check>,
    ) -> Result<(), GoldenError> {
        let golden = TensorFile::read(self.dir.join(format!("grads_{name}.safetensors")))?;
        for parameter in stored(&golden, "") {
            if norm(&golden, parameter)? < 1e-8 {
                continue;
            }
            let got = values(outputs, &format!("grad/{}", full(parameter))).unwrap_or_default();
            let keep = has_gradient(parameter, got.len());
            let check = compare_kept(&golden, parameter, &got, Limit::RelL2(GRADIENT), keep)?;
            checks.push(check.renamed(format!("finetune.{name}.grad.{parameter}")));
        }
        Ok(())
    }

    fn after(
        &self,
        name: &str,
        count: usize,
        params: &mut DeviceParams,
        checks: &mut Vec<Check>,
    ) -> Result<(), GoldenError> {
        let golden = TensorFile::read(self.dir.join(format!("after{count}_{name}.safetensors")))?;
        let limit = Limit::MaxAbs(PARAMETER * self.info.hparams.lr);
        for parameter in stored(&golden, "") {
            let got = params.get(&full(parameter)).map(|(_, values)| values).unwrap_or_default();
            let keep = has_gradient(parameter, got.len());
            let check = compare_kept(&golden, parameter, &got, limit, keep)?;
            checks.push(check.renamed(format!("finetune.{name}.after{count}.{parameter}")));
        }
        Ok(())
    }

    /// One pass with recorded drops, which go in as gates.
    fn dropped(&self, dropped: &Dropped, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
        let last = dropped.rates.last().copied().unwrap_or(0.0);
        let objective =
            Finetune { drop_path: last, head_dropout: dropped.head_drop, ..self.objective(Pooling::FcNorm) };
        let gates = objective.gates();
        let mut rates = vec![0.0; objective.encoder.depth];
        for gate in gates.iter().filter(|gate| gate.width.is_none()) {
            if let Some(rate) = rates.get_mut(gate.place / 2) {
                *rate = gate.rate;
            }
        }
        checks.push(Check::series_rel("finetune.droppath.rates", &rates, &dropped.rates, 1e-7));
        if let Some(missing) = self.missing("finetune.droppath", FC_NORM) {
            checks.push(missing);
            return Ok(());
        }
        let mut params = self.params(FC_NORM, &objective)?;
        let recorded = self.gates(&gates)?;
        let named = || recorded.iter().map(|(name, gate)| (name.as_str(), gate.clone()));

        let mut inputs = vec![("clip", self.clip.host())];
        inputs.extend(named());
        let logits =
            values(&run_once(self.execution, &programs::tuned_logits(&objective)?, &mut params, inputs)?, "logits")?;
        checks.push(self.io.compare("droppath.logits", &logits, Limit::RelL2(LOGITS))?.under("finetune"));

        let graph = programs::step(&objective.clone().into(), self.options(true))?;
        zero_moments(&mut params, &graph);
        let mut inputs: Vec<(&str, HostTensor)> = self.inputs(0, 0.0)?;
        inputs.extend(named());
        let outputs = self.execution.plan_step(graph)?.run(&mut params, inputs)?;
        checks.push(Check::scalar_rel("finetune.droppath.loss", scalar(&outputs, "loss")?, dropped.loss, LOSS));
        for parameter in stored(&self.io, "droppath.grad.") {
            let got = values(&outputs, &format!("grad/{}", full(parameter)))?;
            let stored = format!("droppath.grad.{parameter}");
            let keep = has_gradient(parameter, got.len());
            let check = compare_kept(&self.io, &stored, &got, Limit::RelL2(GRADIENT), keep)?;
            checks.push(check.under("finetune"));
        }
        checks.push(self.drawn(&objective)?);
        Ok(())
    }

    /// Recorded masks as gates: kept values are divided by the share that is kept.
    fn gates(&self, gates: &[Gate]) -> Result<Vec<(String, HostTensor)>, GoldenError> {
        let (paths, values) = (self.io.f32("droppath.mask")?, self.io.f32("dropout.mask")?);
        let batch = self.clip.shape[0];
        let gate = |gate: &Gate| {
            let mask = match gate.width {
                None => paths.get(gate.place * batch..(gate.place + 1) * batch),
                Some(_) => values.get(..),
            };
            let factor = (1.0 / (1.0 - gate.rate)) as f32;
            let data = mask.unwrap_or_default().iter().map(|kept| kept * factor).collect();
            let tensor = HostTensor::f32(vec![batch, 1, gate.width.unwrap_or(1)], data);
            let tensor = tensor.ok_or_else(|| wrong(self.io.path(), "the masks do not fit the model"))?;
            Ok((gate.name(), tensor))
        };
        gates.iter().map(gate).collect()
    }

    /// The step that draws its drops itself gives the loss of the gates that the generator says.
    fn drawn(&self, objective: &Finetune) -> Result<Check, GoldenError> {
        let key = vjepa_compiler::ops::DropKey::new(7, 3);
        let batch = self.clip.shape[0];
        let gates = objective.gates().into_iter().map(|gate| {
            let width = gate.width.unwrap_or(1);
            let factor = (1.0 / (1.0 - gate.rate)) as f32;
            let kept = key.kept(gate.place, gate.rate, batch * width);
            let data = kept.map(|kept| if kept { factor } else { 0.0 }).collect();
            (gate.name(), HostTensor::F32 { shape: vec![batch, 1, width], data })
        });
        let gates: Vec<(String, HostTensor)> = gates.collect();
        let mut losses = Vec::new();
        for given in [true, false] {
            let mut params = self.params(FC_NORM, objective)?;
            let graph = programs::step(&objective.clone().into(), self.options(given))?;
            zero_moments(&mut params, &graph);
            let mut inputs: Vec<(&str, HostTensor)> = self.inputs(0, 0.0)?;
            match given {
                true => inputs.extend(gates.iter().map(|(name, gate)| (name.as_str(), gate.clone()))),
                false => inputs.push((DROP_KEY, HostTensor::I32 { shape: vec![4], data: key.to_tensor().to_vec() })),
            }
            losses.push(scalar(&self.execution.plan_step(graph)?.run(&mut params, inputs)?, "loss")?);
        }
        let [gated, drawn] = [losses.first(), losses.get(1)].map(|loss| loss.copied().unwrap_or(f64::NAN));
        Ok(Check::scalar_rel("finetune.droppath.drawn", drawn, gated, 1e-6))
    }
}
