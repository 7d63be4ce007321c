//! V-JEPA 2's pre-training and its cool-down, and a batch of clips of two lengths, through the compiled step.

use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use vjepa_graphs::objectives::ClipStream;
use vjepa_graphs::{Jepa, JepaLoss, init};
use vjepa_programs as compile;
use vjepa_recipe::config::Init;
use vjepa_recipe::schedules::{LinearDecay, LinearEma, StepRates};
use vjepa_runtime::plan::HostTensor;
use vjepa_weights::TensorFile;

use super::super::check::{Check, GoldenError, Limit, read_json};
use super::super::clip::Clip;
use super::super::data;
use super::super::run::{FORWARD, Outputs, index, run_once, scalar, stored, values};
use super::super::sampled::Compare;
use super::super::schedules::training_schedule;
use super::super::training::{Hparams, Training};
use super::HeadWidths;
use super::dense::pair;
use super::groups::{self, Trained};
use super::steps::{Adam, GRADIENT, LOSS, RUN, Steps, Worst, compare_first_step, compare_gradients, compare_params};

/// Deviation of a matrix of a few thousand draws from its distribution's.
const SPREAD: f64 = 0.05;

#[derive(Deserialize)]
struct Config {
    hparams: OwnHparams,
    first_batch: BTreeMap<String, First>,
    #[serde(default)]
    mixed_fpc: Option<Mixed>,
    #[serde(default)]
    init_std_before_perturbation: BTreeMap<String, f64>,
    steps: Vec<Row>,
}

#[derive(Deserialize)]
struct OwnHparams {
    ipe: u64,
    ema: [f64; 2],
    wd: f64,
    ipe_scale: f64,
    cooldown: Cooldown,
}

#[derive(Deserialize)]
struct Cooldown {
    epochs: u64,
    lr: f64,
    final_lr: f64,
    steps: usize,
}

#[derive(Deserialize)]
struct First {
    loss: f64,
    enc_grad_norm: f64,
    pred_grad_norm: f64,
}

#[derive(Deserialize)]
struct Mixed {
    losses: BTreeMap<String, First>,
    fpcs: Vec<usize>,
}

#[derive(Deserialize)]
struct Row {
    stage: String,
    lr: f64,
    loss: f64,
    enc_grad_norm: f64,
    pred_grad_norm: f64,
    momentum: f64,
}

/// Compares losses, gradients, the recorded steps of both stages, and first weights.
pub(in super::super) fn check(training: &Training, add: &mut dyn FnMut(Vec<Check>)) -> Result<(), GoldenError> {
    let config: Config = read_json(&training.dir.join("config.json"))?;
    add(check_first_batch(training, &config)?);
    add(check_run(training, &config)?);
    if let Some(mixed) = &config.mixed_fpc {
        add(check_mixed(training, mixed)?);
    }
    add(check_first_weights(training, &config));
    if training.dir.join("fps_sampling.json").exists() {
        add(data::check_spacing(&training.dir)?);
    }
    Ok(())
}

fn heads(training: &Training) -> HeadWidths {
    HeadWidths { encoder: training.encoder.head_dim(), predictor: training.predictor.head_dim() }
}

fn adam(Hparams { betas, eps, .. }: &Hparams) -> Adam {
    Adam { betas: *betas, eps: *eps }
}

/// The exponent of `exp1`.
fn exponent(form: &str) -> Option<f64> {
    form.strip_prefix("exp")?.parse().ok()
}

fn batch(
    training: &Training,
    clip: &Clip,
    masks: &TensorFile,
    prefix: &str,
) -> Result<Vec<(String, HostTensor)>, GoldenError> {
    let mut batch = training.masks(masks, prefix)?;
    batch.push(("clip".to_owned(), clip.host()));
    Ok(batch)
}

fn check_first_batch(training: &Training, config: &Config) -> Result<Vec<Check>, GoldenError> {
    let mut checks = Vec::new();
    for (form, want) in &config.first_batch {
        let Some(loss_exp) = exponent(form) else {
            checks.push(Check::unsupported(format!("loss.{form}"), "this program knows no such form of the loss"));
            continue;
        };
        let objective = training.objective(JepaLoss { loss_exp, reg_coeff: 0.0 });
        let mut steps = Steps::new(training.execution, &objective, adam(&training.hparams), true, training.params()?)?;
        let outputs = steps.look(batch(training, &training.clip, &training.forward, "")?)?;
        checks.extend(compare_first(&outputs, form, want)?);
        if loss_exp == 1.0 {
            let golden = TensorFile::read(training.dir.join("grads.safetensors"))?;
            checks.extend(compare_gradients(&outputs, &golden, heads(training), "grad")?);
        }
    }
    Ok(checks)
}

fn compare_first(outputs: &Outputs, label: &str, want: &First) -> Result<Vec<Check>, GoldenError> {
    let compare = |(name, want, limit): (&str, f64, f64)| {
        Ok(Check::scalar_rel(format!("{label}.{name}"), scalar(outputs, name)?, want, limit))
    };
    [
        ("loss", want.loss, LOSS),
        ("grad_norm.encoder", want.enc_grad_norm, GRADIENT),
        ("grad_norm.predictor", want.pred_grad_norm, GRADIENT),
    ]
    .into_iter()
    .map(compare)
    .collect()
}

/// Both stages: the cool-down goes on with the optimiser's state, and starts schedules and inputs anew.
fn check_run(training: &Training, config: &Config) -> Result<Vec<Check>, GoldenError> {
    let schedule = training_schedule(&training.dir)?;
    let masks = TensorFile::read(training.dir.join("masks_10steps.safetensors"))?;
    let Hparams { loss_exp, reg_coeff, .. } = training.hparams;
    let objective = training.objective(JepaLoss { loss_exp, reg_coeff });
    let new =
        |gradients| Steps::new(training.execution, &objective, adam(&training.hparams), gradients, training.params()?);
    let mut steps = new(false)?;
    let mut checks = Vec::new();
    let cool = cooldown(&config.hparams);
    for (stage, label) in [("pretrain", "run"), ("cooldown", "cooldown")] {
        let rows: Vec<&Row> = config.steps.iter().filter(|row| row.stage == stage).collect();
        let mut worst = Worst::default();
        let (mut rates_got, mut rates_want) = (Vec::new(), Vec::new());
        for (step, row) in rows.iter().enumerate() {
            let rates = if stage == "pretrain" { schedule.at(step as u64) } else { cool(step as u64) };
            rates_got.extend([rates.lr, rates.momentum]);
            rates_want.extend([row.lr, row.momentum]);
            let inputs = batch(training, &training.clip.of_step(step), &masks, &format!("step{step}."))?;
            let outputs = steps.step(inputs.clone(), rates)?;
            let norms = [("grad_norm.encoder", row.enc_grad_norm), ("grad_norm.predictor", row.pred_grad_norm)];
            worst.add(&outputs, &[&[("loss", row.loss)], &norms[..]].concat())?;
            if step == 0 && stage == "pretrain" {
                let golden = TensorFile::read(training.dir.join("params_step1.safetensors"))?;
                let gradients = new(true)?.look(inputs)?;
                checks.extend(compare_first_step(&steps.params, &gradients, &golden, (heads(training), rates.lr))?);
            }
        }
        checks.push(Check::series_rel(format!("{label}.rates"), &rates_got, &rates_want, 1e-12));
        checks.extend(worst.checks(label));
        let after = if stage == "pretrain" { format!("step{}", rows.len()) } else { format!("cool{}", rows.len()) };
        checks.extend(check_after(training, &mut steps, &after)?);
    }
    let cooled = config.steps.iter().filter(|row| row.stage == "cooldown").count();
    checks.push(Check::exact("cooldown.steps", &[cooled as i64], &[config.hparams.cooldown.steps as i64]));
    Ok(checks)
}

/// The rates of the cool-down.
fn cooldown(hparams: &OwnHparams) -> impl Fn(u64) -> StepRates {
    let OwnHparams { ipe, ema: [start, end], wd, ipe_scale, cooldown } = hparams;
    let stretched = ipe_scale * (cooldown.epochs * ipe) as f64;
    let lr = LinearDecay { start: cooldown.lr, end: cooldown.final_lr, total_steps: stretched as u64 };
    let ema = LinearEma { start: *start, end: *end, total_steps: stretched };
    let wd = *wd;
    move |step| StepRates { lr: lr.at(step), wd, momentum: ema.at(step), clip_active: false }
}

/// Parameters and averages after a stage, and what the encoders then give for the first sample.
fn check_after(training: &Training, steps: &mut Steps, label: &str) -> Result<Vec<Check>, GoldenError> {
    let limit = Limit::Both { rel_l2: RUN, max_abs: training.hparams.lr };
    let golden = TensorFile::read(training.dir.join(format!("params_{label}.safetensors")))?;
    let mut checks = compare_params(&steps.params, &golden, heads(training), (label, limit))?;
    let golden = TensorFile::read(training.dir.join("after10.safetensors"))?;
    for model in ["encoder", "target_encoder"] {
        let graph = compile::encoder(&training.encoder, &format!("{model}."))?;
        let sample = ("clip", training.clip.first_sample().host());
        let got = values(&run_once(training.execution, &graph, &mut steps.params, vec![sample])?, "encoder_out")?;
        checks.push(golden.compare(&format!("{label}.{model}_out_b0"), &got, Limit::RelL2(RUN))?.under("after"));
    }
    Ok(checks)
}

/// One batch with clips of two lengths: whole clips 0 and 1; the first half of clip 2 and the second half of clip 1.
fn check_mixed(training: &Training, mixed: &Mixed) -> Result<Vec<Check>, GoldenError> {
    let golden = TensorFile::read(training.dir.join("mixed_fpc.safetensors"))?;
    let whole = training.clip.shape[2];
    let &[long, short] = mixed.fpcs.as_slice() else {
        return Ok(vec![Check::unsupported("mixed_fpc", "it should have clips of two lengths")]);
    };
    if long != whole || short > whole || training.clip.shape[0] < 3 {
        return Ok(vec![Check::unsupported("mixed_fpc", "the longer clips should be whole, and of three samples")]);
    }
    let parts = [vec![(0, 0..whole), (1, 0..whole)], vec![(2, 0..short), (1, whole - short..whole)]];
    let clips: Vec<Clip> = parts.iter().map(|parts| training.clip.cut(parts)).collect();
    let mut inputs = Vec::new();
    let mut checks = Vec::new();
    let mut params = training.params()?;
    for (group, clip) in clips.iter().enumerate() {
        let name = if group == 0 { "clip".to_owned() } else { format!("clip{group}") };
        inputs.push((name, clip.host()));
        let frames = clip.shape[2];
        let encoder = training.encoder.clone().with_clip(frames, clip.shape[3], clip.shape[4]);
        let mut masked = training.execution.plan(&compile::encoder_masked(&encoder, "encoder.")?)?;
        for generator in 0..training.generators {
            let [enc, pred] = ["mask_enc", "mask_pred"].map(|kind| format!("group{group}.{kind}.{generator}"));
            let [enc, pred] = [index(&golden, &enc, encoder.tokens())?, index(&golden, &pred, encoder.tokens())?];
            let number = group * training.generators + generator;
            inputs.push((format!("mask_enc.{number}"), enc.clone()));
            inputs.push((format!("mask_pred.{number}"), pred.clone()));
            let mut context = masked.run(&mut params, vec![("clip", clip.host()), ("mask_enc", enc.clone())])?;
            let Some(context) = context.remove("encoder_out") else { continue };
            let graph = compile::predictor(&training.predictor, group)?;
            let given = vec![("context", context), ("mask_enc", enc), ("mask_pred", pred)];
            let got = values(&run_once(training.execution, &graph, &mut params, given)?, "predictor_out")?;
            let name = format!("group{group}.predictor_out.{generator}");
            checks.push(golden.compare(&name, &got, FORWARD)?.under("mixed_fpc"));
        }
    }
    checks.extend(check_parts(training, mixed, &clips, &golden)?);
    for (form, want) in &mixed.losses {
        let Some(loss_exp) = exponent(form) else { continue };
        let clip = [short, training.encoder.height, training.encoder.width];
        let loss = JepaLoss { loss_exp, reg_coeff: 0.0 };
        let (encoder, predictor) = (training.encoder.clone(), training.predictor.clone());
        let objective = Jepa {
            others: vec![ClipStream { clip, generators: training.generators }],
            ..Jepa::plain(encoder, predictor, training.generators, loss)
        };
        let mut steps =
            Steps::new(training.execution, &objective.into(), adam(&training.hparams), true, training.params()?)?;
        let outputs = steps.look(inputs.clone())?;
        checks.extend(compare_first(&outputs, &format!("mixed_fpc.{form}"), want)?);
        if loss_exp == 1.0 {
            for name in stored(&golden, "grad/") {
                let got = values(&outputs, &format!("grad/{name}"))?;
                let check = golden.compare(&format!("grad/{name}"), &got, Limit::RelL2(GRADIENT))?;
                checks.push(check.under("mixed_fpc"));
            }
        }
    }
    Ok(checks)
}

/// The same batch as the training program does it: the length buckets are parts of one group, each with half of its weight.
fn check_parts(
    training: &Training,
    mixed: &Mixed,
    clips: &[Clip],
    golden: &TensorFile,
) -> Result<Vec<Check>, GoldenError> {
    let (encoder, predictor, hparams) = (&training.encoder, &training.predictor, &training.hparams);
    let mut checks = Vec::new();
    for (form, want) in &mixed.losses {
        let Some(loss_exp) = exponent(form) else { continue };
        let values = json!({
            "model": {
                "generation": "vjepa2", "embed_dim": encoder.embed_dim, "depth": encoder.depth, "num_heads": encoder.num_heads,
                "mlp_ratio": encoder.mlp_ratio, "pred_embed_dim": predictor.embed_dim, "pred_depth": predictor.depth,
                "pred_num_heads": predictor.num_heads, "num_mask_tokens": predictor.num_mask_tokens,
            },
            "data": {
                "dataset_fpcs": mixed.fpcs, "crop_size": encoder.height, "patch_size": encoder.patch,
                "tubelet_size": encoder.tubelet, "batch_size": clips.iter().map(|clip| clip.shape[0]).sum::<usize>(),
            },
            "loss": {"loss_exp": loss_exp},
            "optimization": {"lr": hparams.lr, "betas": hparams.betas, "eps": hparams.eps, "clip_grad": null},
        });
        let config = groups::configuration(training.execution, values, &training.weights)?;
        // The variants are the longer clips, then the shorter ones as the first and as the second bucket of their group.
        let mut parts = Vec::new();
        for (group, (clip, variant)) in clips.iter().zip([0, 2]).enumerate() {
            let encoder = encoder.clone().with_clip(clip.shape[2], clip.shape[3], clip.shape[4]);
            let drawn = (0..training.generators).map(|generator| {
                let mask = |kind: &str| index(golden, &format!("group{group}.{kind}.{generator}"), encoder.tokens());
                Ok(pair(&mask("mask_enc")?, &mask("mask_pred")?))
            });
            parts.push(groups::part(clip, drawn.collect::<Result<Vec<_>, GoldenError>>()?, (variant, 0.5)));
        }
        let (outputs, _) =
            Trained::new(training.execution, &config, &training.weights)?.step(vec![parts], &training.weights)?;
        checks.extend(compare_first(&outputs, &format!("mixed_fpc.parts.{form}"), want)?);
    }
    Ok(checks)
}

/// Standard deviations of fresh weights: the depth rescale of the constructors is in force.
fn check_first_weights(training: &Training, config: &Config) -> Vec<Check> {
    let encoder = init::encoder(&training.encoder, Init::Official, 1);
    let predictor = init::predictor(&training.predictor, Init::Official, true, 2);
    let check = |(name, want): (&String, &f64)| {
        let own = name.trim_start_matches("backbone.");
        let drawn = encoder.get(own).or_else(|| predictor.get(own)).map(|(_, values)| values.as_slice());
        let values = drawn.unwrap_or_default();
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        let got = (squares / values.len() as f64).sqrt();
        Check::scalar_rel(format!("init_std.{own}"), got, *want, SPREAD)
    };
    config.init_std_before_perturbation.iter().map(check).collect()
}
