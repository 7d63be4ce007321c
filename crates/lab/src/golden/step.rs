//! Losses, gradients and the recorded training run of a training configuration, through the compiled step.

use super::check::{Check, GoldenError, Limit, nan_max};
use super::run::{
    Execution, Outputs, compare_kept, has_gradient, norm, run_once, run_step, scalar, stored, values, zero_moments,
};
use super::sampled::Compare;
use super::schedules::training_schedule;
use super::training::{FirstLosses, Hparams, Step, Training};
use vjepa_compiler::ir::Graph;
use vjepa_graphs::JepaLoss;
use vjepa_programs as compile;
use vjepa_programs::TrainOptions;
use vjepa_recipe::schedules::StepRates;
use vjepa_runtime::plan::{DeviceParams, HostTensor};
use vjepa_weights::TensorFile;

/// Losses of the first batch.
const LOSS: f64 = 1e-5;
/// Gradients, and norms of the first batch's.
const GRADIENT: f64 = 1e-4;
/// Losses of the run.
const RUN_LOSS: f64 = 1e-4;
/// Gradient norms, parameters and outputs of the run.
const RUN: f64 = 1e-3;
/// Gradients below this are rounding, which AdamW's first step turns into steps of up to the learning rate.
const NO_GRADIENT: f32 = 1e-8;

/// Losses and gradients of the first batch, under every form of the loss that was recorded.
pub(super) fn check_first_batch(training: &Training) -> Result<Vec<Check>, GoldenError> {
    let mut checks = Vec::new();
    for (form, want) in &training.losses {
        let Some(loss) = parse_form(form) else {
            checks.push(Check::unsupported(format!("loss.{form}"), "this program knows no such form of the loss"));
            continue;
        };
        let outputs = first_batch(training, loss)?;
        compare_losses(&outputs, form, want, &mut checks)?;
        let file = training.dir.join(format!("grads_reg{}.safetensors", loss.reg_coeff));
        if loss.loss_exp == 1.0 && file.exists() {
            let golden = TensorFile::read(file)?;
            compare_gradients(&outputs, &golden, ["grad/", ""], &format!("grad_reg{}", loss.reg_coeff), &mut checks)?;
        }
    }
    Ok(checks)
}

/// `exp1_reg0.5`.
fn parse_form(form: &str) -> Option<JepaLoss> {
    let (exponent, coefficient) = form.strip_prefix("exp")?.split_once("_reg")?;
    Some(JepaLoss { loss_exp: exponent.parse().ok()?, reg_coeff: coefficient.parse().ok()? })
}

/// One step from the first weights, with gradients; it changes nothing that is kept.
fn first_batch(training: &Training, loss: JepaLoss) -> Result<Outputs, GoldenError> {
    let graph = step_graph(training, loss, true)?;
    let mut params = training.params()?;
    zero_moments(&mut params, &graph);
    let masks = training.masks(&training.forward, "")?;
    let rates = StepRates { lr: 0.0, wd: 0.0, momentum: 1.0, clip_active: false };
    let inputs = inputs(training, training.clip.host(), &masks, rates, 1);
    run_step(&mut training.execution.plan_step(graph.clone())?, &mut params, inputs)
}

fn step_graph(training: &Training, loss: JepaLoss, export_gradients: bool) -> Result<Graph, GoldenError> {
    let Hparams { betas, eps, .. } = &training.hparams;
    let Execution { precision, mask_buckets, .. } = training.execution;
    let options =
        TrainOptions { betas: *betas, eps: *eps, export_gradients, precision, mask_buckets, ..TrainOptions::default() };
    Ok(compile::step(&training.objective(loss), options)?)
}

/// Inputs of the step that is the `count`th from 1.
fn inputs<'a>(
    training: &Training,
    clip: HostTensor,
    masks: &'a [(String, HostTensor)],
    rates: StepRates,
    count: i32,
) -> Vec<(&'a str, HostTensor)> {
    let Hparams { betas: [beta1, beta2], clip_grad, .. } = training.hparams;
    let max_norm = clip_grad.filter(|_| rates.clip_active).unwrap_or(f64::INFINITY);
    let numbers = [
        ("lr", rates.lr),
        ("wd", rates.wd),
        ("c1", 1.0 - beta1.powi(count)),
        ("c2", 1.0 - beta2.powi(count)),
        ("max_norm", max_norm),
        ("momentum", rates.momentum),
    ];
    let masks = masks.iter().map(|(name, mask)| (name.as_str(), mask.clone()));
    let numbers = numbers.map(|(name, value)| (name, HostTensor::scalar(value as f32)));
    std::iter::once(("clip", clip)).chain(masks).chain(numbers).collect()
}

fn compare_losses(
    outputs: &Outputs,
    form: &str,
    want: &FirstLosses,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    for (name, want, limit) in [
        ("loss", want.loss, LOSS),
        ("loss_jepa", want.loss_jepa, LOSS),
        ("loss_reg", want.loss_reg, LOSS),
        ("grad_norm.encoder", want.enc_grad_norm, GRADIENT),
        ("grad_norm.predictor", want.pred_grad_norm, GRADIENT),
    ] {
        checks.push(Check::scalar_rel(format!("{form}.{name}"), scalar(outputs, name)?, want, limit));
    }
    Ok(())
}

/// Compares every gradient stored under `prefix` that is more than rounding with the outputs `grad/<group><parameter>`.
pub(super) fn compare_gradients(
    outputs: &Outputs,
    golden: &TensorFile,
    [prefix, group]: [&str; 2],
    label: &str,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let names: Vec<&str> = stored(golden, prefix).collect();
    let exported = outputs.keys().filter(|name| name.starts_with("grad/")).count();
    checks.push(Check::exact(format!("{label}.tensors"), &[exported as i64], &[names.len() as i64]));
    for name in names {
        let key = format!("{prefix}{name}");
        if norm(golden, &key)? < 1e-8 {
            continue;
        }
        let got = values(outputs, &format!("grad/{group}{name}")).unwrap_or_default();
        let check = compare_kept(golden, &key, &got, Limit::RelL2(GRADIENT), has_gradient(name, got.len()))?;
        checks.push(check.renamed(format!("{label}.{name}")));
    }
    Ok(())
}

/// The recorded run: losses and norms of every step, parameters after the first and the last, and outputs after it.
pub(super) fn check_run(training: &Training) -> Result<Vec<Check>, GoldenError> {
    let schedule = training_schedule(&training.dir)?;
    let masks = TensorFile::read(training.dir.join("masks_10steps.safetensors"))?;
    let Hparams { loss_exp, reg_coeff, .. } = training.hparams;
    let graph = step_graph(training, JepaLoss { loss_exp, reg_coeff }, false)?;
    let mut executor = training.execution.plan_step(graph.clone())?;
    let mut params = training.params()?;
    zero_moments(&mut params, &graph);
    let mut checks = Vec::new();
    let mut worst = [[0.0f64; 2]; 5];
    for (step, row) in training.steps.iter().enumerate() {
        let rates = schedule.at(step as u64);
        let masks = training.masks(&masks, &format!("step{step}."))?;
        let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let inputs = inputs(training, training.clip.of_step(step).host(), &masks, rates, count);
        let outputs = run_step(&mut executor, &mut params, inputs)?;
        for (worst, (name, want)) in worst.iter_mut().zip(recorded(row)) {
            let difference = (scalar(&outputs, name)? - want).abs();
            *worst = [nan_max(worst[0], difference / want.abs()), nan_max(worst[1], difference)];
        }
        if step == 0 {
            check_first_step(training, &params, &masks, rates, &mut checks)?;
        }
    }
    let Some(last) = training.steps.last() else { return Ok(checks) };
    for (i, ([rel, abs], (name, _))) in worst.into_iter().zip(recorded(last)).enumerate() {
        let limit = Limit::RelL2(if i < 3 { RUN_LOSS } else { RUN });
        checks.push(Check::measured(format!("run.{name}"), rel, abs, limit));
    }
    check_last_step(training, &mut params, &mut checks)?;
    Ok(checks)
}

/// Output names of the step with what was recorded; losses first.
fn recorded(row: &Step) -> [(&'static str, f64); 5] {
    [
        ("loss", row.loss),
        ("loss_jepa", row.loss_jepa),
        ("loss_reg", row.loss_reg),
        ("grad_norm.encoder", row.enc_grad_norm_raw),
        ("grad_norm.predictor", row.pred_grad_norm_raw),
    ]
}

/// Parameters after one step, where the gradient is more than rounding.
fn check_first_step(
    training: &Training,
    params: &DeviceParams,
    masks: &[(String, HostTensor)],
    rates: StepRates,
    checks: &mut Vec<Check>,
) -> Result<(), GoldenError> {
    let file = training.dir.join("params_step1.safetensors");
    if !file.exists() {
        return Ok(());
    }
    let golden = TensorFile::read(file)?;
    let Hparams { loss_exp, reg_coeff, .. } = training.hparams;
    let graph = step_graph(training, JepaLoss { loss_exp, reg_coeff }, true)?;
    let mut fresh = training.params()?;
    zero_moments(&mut fresh, &graph);
    let inputs = inputs(training, training.clip.host(), masks, rates, 1);
    let gradients = run_step(&mut training.execution.plan_step(graph.clone())?, &mut fresh, inputs)?;
    let limit = Limit::MaxAbs(0.02 * rates.lr);
    for name in stored(&golden, "param/") {
        let got = params.get(name).map(|(_, values)| values).unwrap_or_default();
        let gradient = values(&gradients, &format!("grad/{name}")).unwrap_or_default();
        let learned = has_gradient(name, got.len());
        // A position table has no gradient and is compared whole.
        let keep = |i: usize| learned(i) && gradient.get(i).is_none_or(|g| g.abs() >= NO_GRADIENT);
        checks
            .push(compare_kept(&golden, &format!("param/{name}"), &got, limit, keep)?.renamed(format!("step1.{name}")));
    }
    Ok(())
}

/// Parameters and moving averages after the last step, and what the encoders then give for the first sample.
fn check_last_step(training: &Training, params: &mut DeviceParams, checks: &mut Vec<Check>) -> Result<(), GoldenError> {
    let limit = Limit::Both { rel_l2: RUN, max_abs: training.hparams.lr };
    let count = training.steps.len();
    let file = training.dir.join(format!("params_step{count}.safetensors"));
    if file.exists() {
        let golden = TensorFile::read(file)?;
        for prefix in ["param/", "ema/"] {
            for name in stored(&golden, prefix) {
                let got = params.get(name).map(|(_, values)| values).unwrap_or_default();
                let check =
                    compare_kept(&golden, &format!("{prefix}{name}"), &got, limit, has_gradient(name, got.len()))?;
                checks.push(check.renamed(format!("step{count}.{name}")));
            }
        }
    }
    let file = training.dir.join(format!("after{count}.safetensors"));
    if file.exists() {
        let golden = TensorFile::read(file)?;
        for model in ["encoder", "target_encoder"] {
            let graph = compile::encoder(&training.encoder, &format!("{model}."))?;
            let sample = ("clip", training.clip.first_sample().host());
            let got = values(&run_once(training.execution, &graph, params, vec![sample])?, "encoder_out")?;
            let check = golden.compare(&format!("{model}_out_b0"), &got, Limit::RelL2(RUN))?;
            checks.push(check.under(&format!("after{count}")));
        }
    }
    Ok(())
}
