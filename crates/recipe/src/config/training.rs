//! The `loss`, `optimization`, `meta` and `logging` sections, and the step numbers they come down to.

use serde::Serialize;

use super::error::ConfigError;
use super::reader::{Section, words};

/// Arithmetic of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dtype {
    /// f32 throughout.
    Float32,
    /// Contractions in bf16, everything else and all weights in f32.
    #[default]
    Bfloat16,
    /// Contractions in f16; not supported.
    Float16,
}

words!(Dtype { Float32 = "float32", Bfloat16 = "bfloat16", Float16 = "float16" });

/// The `meta` section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MetaConfig {
    /// Start from the weights of `read_checkpoint`, which must be named. The run's own latest checkpoint is `--resume`'s.
    pub load_checkpoint: bool,
    /// The file, as seen from the current directory.
    pub read_checkpoint: Option<String>,
    /// Seed of weights, masks and the sample stream.
    pub seed: u64,
    /// Read by the official recipes and used nowhere.
    pub eval_freq: u64,
    /// Ignored by the official model too: attention is always the fused one.
    pub use_sdpa: bool,
    /// Arithmetic of the step.
    pub dtype: Dtype,
}

impl Default for MetaConfig {
    fn default() -> Self {
        Self {
            load_checkpoint: false,
            read_checkpoint: None,
            seed: 234,
            eval_freq: 100,
            use_sdpa: true,
            dtype: Dtype::Bfloat16,
        }
    }
}

impl MetaConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            load_checkpoint: section.or("load_checkpoint", d.load_checkpoint)?,
            read_checkpoint: section.opt("read_checkpoint", d.read_checkpoint)?,
            seed: section.or("seed", d.seed)?,
            eval_freq: section.or("eval_freq", d.eval_freq)?,
            use_sdpa: section.or("use_sdpa", d.use_sdpa)?,
            dtype: section.or("dtype", d.dtype)?,
        };
        section.finish()?;
        Ok(config)
    }
}

/// What a run minimises; each has a file of its own in `graphs/src/objectives/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ObjectiveName {
    /// Masked latent prediction against a moving average of the encoder: V-JEPA's.
    #[default]
    Jepa,
}

words!(ObjectiveName { Jepa = "jepa" });

impl ObjectiveName {
    /// Every objective there is.
    pub const ALL: [Self; 1] = [Self::Jepa];
}

/// The `loss` section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LossConfig {
    /// The loss is mean(|z - h|^p) / p with this p.
    pub loss_exp: f64,
    /// Weight of the variance regulariser.
    pub reg_coeff: f64,
    /// What is minimised (ours).
    pub objective: ObjectiveName,
}

impl Default for LossConfig {
    fn default() -> Self {
        Self { loss_exp: 1.0, reg_coeff: 0.0, objective: ObjectiveName::default() }
    }
}

impl LossConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            loss_exp: section.or("loss_exp", d.loss_exp)?,
            reg_coeff: section.or("reg_coeff", d.reg_coeff)?,
            objective: section.or("objective", d.objective)?,
        };
        section.finish()?;
        Ok(config)
    }
}

/// The `optimization` section. Defaults are those of the released recipes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OptimizationConfig {
    /// Iterations of an epoch; null: as many as the data set has batches.
    pub ipe: Option<u64>,
    /// Schedules are computed over this many times the run, which therefore stops before their end.
    pub ipe_scale: f64,
    /// Largest gradient norm, for encoder and predictor apart; null: no clipping.
    pub clip_grad: Option<f64>,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end of the schedule.
    pub final_weight_decay: f64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be a fraction.
    pub warmup: f64,
    /// Learning rate at the start of the warm-up.
    pub start_lr: f64,
    /// Learning rate at its end.
    pub lr: f64,
    /// Learning rate at the end of the schedule.
    pub final_lr: f64,
    /// Momentum of the target encoder at the start and at the end of the schedule.
    pub ema: [f64; 2],
    /// AdamW's decay rates.
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    pub eps: f64,
    /// Total steps, instead of `epochs * ipe` (ours).
    pub steps: Option<u64>,
    /// Steps of warm-up, instead of `warmup` epochs (ours).
    pub warmup_steps: Option<u64>,
    /// First step whose gradients are clipped; null: after the warm-up and one epoch, as the official code has it (ours).
    pub clip_from_step: Option<u64>,
}

impl Default for OptimizationConfig {
    fn default() -> Self {
        Self {
            ipe: Some(300),
            ipe_scale: 1.25,
            clip_grad: Some(10.0),
            weight_decay: 0.04,
            final_weight_decay: 0.4,
            epochs: 300,
            warmup: 40.0,
            start_lr: 2e-4,
            lr: 6.25e-4,
            final_lr: 1e-6,
            ema: [0.998, 1.0],
            betas: [0.9, 0.999],
            eps: 1e-8,
            steps: None,
            warmup_steps: None,
            clip_from_step: None,
        }
    }
}

/// The step numbers a run comes down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepPlan {
    /// Optimiser steps of the whole run.
    pub steps: u64,
    /// Steps of an epoch, for epoch numbers and checkpoints.
    pub steps_per_epoch: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps the schedules are computed over, `int(ipe_scale * steps)`; the run stops before it when the scale is above 1.
    pub schedule_steps: u64,
    /// First step (0-based) whose gradients are clipped; `u64::MAX` for never.
    pub clip_from_step: u64,
}

impl StepPlan {
    /// Steps between checkpoints where the configuration says nothing: an epoch, as in the official loop (`checkpoint_freq`
    /// is 1, and an epoch has 300 steps); where epochs are shorter than 100 steps, as many whole ones as make 100.
    pub fn checkpoint_every(&self) -> u64 {
        let epoch = self.steps_per_epoch.max(1);
        epoch * 100u64.div_ceil(epoch)
    }
}

impl OptimizationConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            ipe: section.opt("ipe", d.ipe)?,
            ipe_scale: section.or("ipe_scale", d.ipe_scale)?,
            clip_grad: section.opt("clip_grad", d.clip_grad)?,
            weight_decay: section.or("weight_decay", d.weight_decay)?,
            final_weight_decay: section.or("final_weight_decay", d.final_weight_decay)?,
            epochs: section.or("epochs", d.epochs)?,
            warmup: section.or("warmup", d.warmup)?,
            start_lr: section.or("start_lr", d.start_lr)?,
            lr: section.or("lr", d.lr)?,
            final_lr: section.or("final_lr", d.final_lr)?,
            ema: section.or("ema", d.ema)?,
            betas: section.or("betas", d.betas)?,
            eps: section.or("eps", d.eps)?,
            steps: section.opt("steps", d.steps)?,
            warmup_steps: section.opt("warmup_steps", d.warmup_steps)?,
            clip_from_step: section.opt("clip_from_step", d.clip_from_step)?,
        };
        section.finish()?;
        Ok(config)
    }

    /// The step numbers. `dataset_steps` is the number of whole batches in the data set, used where `ipe` is null; less than
    /// one batch still makes a step, which takes videos twice.
    ///
    /// With `steps`, an epoch is a share `1 / epochs` of it, so that `warmup` keeps its meaning unless `warmup_steps` is
    /// given.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] where `ipe` is null and the data set has no length; [`ConfigError::Rule`] where the warm-up
    /// does not fit into the schedule.
    pub fn plan(&self, dataset_steps: Option<u64>) -> Result<StepPlan, ConfigError> {
        let dataset_steps = dataset_steps.map(|steps| steps.max(1));
        let (steps, per_epoch) = match self.steps {
            Some(steps) => (steps, (steps as f64 / self.epochs.max(1) as f64).max(f64::MIN_POSITIVE)),
            None => {
                let ipe = self.ipe.or(dataset_steps).ok_or_else(|| {
                    ConfigError::missing("optimization.ipe", "an endless data set needs `ipe` or `steps`")
                })?;
                (self.epochs.saturating_mul(ipe), ipe as f64)
            }
        };
        let warmup_steps = self.warmup_steps.unwrap_or((self.warmup * per_epoch) as u64);
        // The same product, in the same order, as the official `int(ipe_scale * num_epochs * ipe)`.
        let schedule_steps = match (self.steps, self.ipe.or(dataset_steps)) {
            (None, Some(ipe)) => (self.ipe_scale * self.epochs as f64 * ipe as f64) as u64,
            _ => (self.ipe_scale * steps as f64) as u64,
        };
        if warmup_steps >= schedule_steps {
            let key = if self.warmup_steps.is_some() { "warmup_steps" } else { "warmup" };
            return Err(ConfigError::rule(
                format!("optimization.{key}"),
                format!("gives {warmup_steps} steps of warm-up, but the schedule has only {schedule_steps}"),
            ));
        }
        let clip_from_step = match (self.clip_grad, self.clip_from_step) {
            (None, _) => u64::MAX,
            (Some(_), Some(step)) => step,
            // `if epoch > warmup`, with 0-based epochs.
            (Some(_), None) => match self.warmup_steps {
                Some(warm) => warm.saturating_add(per_epoch.ceil() as u64),
                None => ((self.warmup.floor() + 1.0) * per_epoch).ceil() as u64,
            },
        };
        let steps_per_epoch = (per_epoch.round() as u64).max(1);
        Ok(StepPlan { steps, steps_per_epoch, warmup_steps, schedule_steps, clip_from_step })
    }
}

/// The `logging` section.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LoggingConfig {
    /// Where checkpoints and metrics go.
    pub folder: Option<String>,
    /// First part of their names.
    pub write_tag: String,
    /// Steps between checkpoints; null: [`StepPlan::checkpoint_every`] (ours).
    pub checkpoint_every: Option<u64>,
    /// Steps between lines of metrics (ours).
    pub metrics_every: u64,
    /// Steps between diagnostics (context gap, effective rank); null: none (ours).
    pub diagnostics_every: Option<u64>,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            folder: None,
            write_tag: "jepa".into(),
            checkpoint_every: None,
            metrics_every: 10,
            diagnostics_every: None,
        }
    }
}

impl LoggingConfig {
    pub(super) fn read(mut section: Section) -> Result<Self, ConfigError> {
        let d = Self::default();
        let config = Self {
            folder: section.opt("folder", d.folder)?,
            write_tag: section.or("write_tag", d.write_tag)?,
            checkpoint_every: section.opt("checkpoint_every", d.checkpoint_every)?,
            metrics_every: section.or("metrics_every", d.metrics_every)?,
            diagnostics_every: section.opt("diagnostics_every", d.diagnostics_every)?,
        };
        section.finish()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_official_step_numbers() {
        let plan = OptimizationConfig::default().plan(None).unwrap();
        assert_eq!(
            plan,
            StepPlan {
                steps: 90_000,
                steps_per_epoch: 300,
                warmup_steps: 12_000,
                schedule_steps: 112_500,
                clip_from_step: 41 * 300
            }
        );
    }

    #[test]
    fn steps_replace_epochs() {
        let own = OptimizationConfig { steps: Some(750), ..OptimizationConfig::default() };
        let plan = own.plan(None).unwrap();
        assert_eq!((plan.steps, plan.warmup_steps, plan.schedule_steps), (750, 100, 937));
        // An epoch is 2.5 steps, which is no time between checkpoints.
        assert_eq!((plan.steps_per_epoch, plan.checkpoint_every()), (3, 102));
        assert_eq!(OptimizationConfig::default().plan(None).unwrap().checkpoint_every(), 300);
        let own = OptimizationConfig { warmup_steps: Some(75), clip_from_step: Some(0), ..own };
        let plan = own.plan(None).unwrap();
        assert_eq!((plan.warmup_steps, plan.clip_from_step), (75, 0));
    }

    #[test]
    fn an_epoch_is_the_data_set_where_ipe_is_null() {
        let own = OptimizationConfig { ipe: None, epochs: 10, warmup: 1.0, ..OptimizationConfig::default() };
        assert_eq!(own.plan(Some(7)).unwrap().steps, 70);
        assert_eq!(own.plan(None).unwrap_err().key(), Some("optimization.ipe"));
        // Fewer videos than a batch.
        assert_eq!(own.plan(Some(0)).unwrap(), own.plan(Some(1)).unwrap());
    }

    #[test]
    fn a_warm_up_longer_than_the_schedule_is_refused() {
        let own = OptimizationConfig { epochs: 20, ..OptimizationConfig::default() };
        assert_eq!(own.plan(None).unwrap_err().key(), Some("optimization.warmup"));
    }
}
