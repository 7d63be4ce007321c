//! The `optimization`, `meta` and `logging` sections, and the step counts that follow from them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ConfigError;
use crate::schedules::{CosineWd, LearningRate, LinearDecay, LinearEma, Schedule, WarmupCosine};

/// Arithmetic of a training step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Dtype {
    /// f32 throughout.
    Float32,
    /// Matrix products in bf16; everything else, and all weights, in f32.
    #[default]
    Bfloat16,
    /// Matrix products in f16; not supported.
    Float16,
}

/// The `meta` section: seed, arithmetic, and the checkpoint to start from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetaConfig {
    /// Start from the weights of `read_checkpoint`, which must then be given. To continue a run from its own latest checkpoint,
    /// use `--resume`.
    pub load_checkpoint: bool,
    /// The checkpoint file, relative to the current directory (officially to `logging.folder`).
    pub read_checkpoint: Option<String>,
    /// Seed of weights, masks and the sample stream.
    pub seed: u64,
    /// Has no effect.
    #[schemars(extend("x-unread" = "the official training loop does not read it either"))]
    pub eval_freq: u64,
    /// Has no effect.
    #[schemars(extend("x-unread" = "attention is always the fused one, as in the official model"))]
    pub use_sdpa: bool,
    /// Arithmetic of a training step.
    pub dtype: Dtype,
    /// Has no effect.
    #[schemars(extend("x-unread" = "see `logging.checkpoint_every`", "x-expected" = "a whole number"))]
    pub save_every_freq: i64,
    /// Has no effect.
    #[schemars(extend("x-unread" = "a resumed run continues where it stopped", "x-expected" = "a whole number"))]
    pub skip_batches: i64,
    /// Has no effect.
    #[schemars(extend("x-unread" = "there is no garbage collector"))]
    pub sync_gc: bool,
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
            save_every_freq: -1,
            skip_batches: -1,
            sync_gc: false,
        }
    }
}

/// The `optimization` section: steps, learning rates, momentum. Defaults are those of the released ViT-L recipe.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OptimizationConfig {
    /// Iterations per epoch; null: as many as the data set has batches.
    pub ipe: Option<u64>,
    /// Length of the schedules relative to the run: above 1, the run stops before they end.
    pub ipe_scale: f64,
    /// Largest gradient norm, for encoder and predictor separately; null: no clipping.
    pub clip_grad: Option<f64>,
    /// Weight decay at the start.
    pub weight_decay: f64,
    /// Weight decay at the end of the schedule.
    pub final_weight_decay: f64,
    /// Epochs of the run.
    pub epochs: u64,
    /// Epochs of linear warm-up; may be fractional.
    pub warmup: f64,
    /// Learning rate at the start of the warm-up.
    pub start_lr: f64,
    /// Peak learning rate, at the end of the warm-up.
    pub lr: f64,
    /// Learning rate at the end of the schedule.
    pub final_lr: f64,
    /// Momentum of the target encoder's moving average, at the start and at the end of the schedule.
    pub ema: [f64; 2],
    /// AdamW's decay rates.
    #[schemars(extend("x-ours" = true))]
    pub betas: [f64; 2],
    /// AdamW's epsilon.
    #[schemars(extend("x-ours" = true))]
    pub eps: f64,
    /// Steps of the whole run, instead of `epochs * ipe`.
    #[schemars(extend("x-ours" = true))]
    pub steps: Option<u64>,
    /// Steps of warm-up, instead of `warmup` epochs.
    #[schemars(extend("x-ours" = true))]
    pub warmup_steps: Option<u64>,
    /// First step whose gradients are clipped; null: one epoch after the warm-up, as in the official code.
    #[schemars(extend("x-ours" = true))]
    pub clip_from_step: Option<u64>,
    /// The run is a cool-down: the learning rate goes from `lr` to `final_lr` in a straight line, without a warm-up.
    pub is_anneal: bool,
    /// The checkpoint that a cool-down starts from: its weights, its target encoder and its optimiser's state.
    pub anneal_ckpt: Option<String>,
    /// A cool-down that has a checkpoint of its own continues from that one.
    pub resume_anneal: bool,
    /// RAdam instead of Adam; true is not supported (in the official code it refers to a file that does not exist).
    pub use_radamw: bool,
    /// Skip steps whose loss is this many deviations above the mean; not supported.
    pub loss_reg_std_mult: Option<f64>,
    /// Has no effect.
    #[schemars(extend("x-unread" = "it belongs to `loss_reg_std_mult`, which is not supported"))]
    pub loss_reg_num_tracking_steps: Option<u64>,
    /// Has no effect.
    #[schemars(extend("x-unread" = "it belongs to `loss_reg_std_mult`, which is not supported"))]
    pub loss_reg_min_epoch: Option<u64>,
    /// Whether the run may end within its warm-up, as released recipes of V-JEPA 2 do. The generation decides it.
    #[serde(skip)]
    pub ends_in_warmup: bool,
    /// Groups of `data.batch_size` clips per step. Clips of a group share their mask lengths, and gradients are the mean over
    /// groups. In the official code, a group is one GPU's batch. Null: `nodes * tasks_per_node` of an official file, else 1.
    #[schemars(extend("x-ours" = true))]
    pub groups: Option<u64>,
    /// Loss above which a step changes nothing: no weight, no moment, no average. Skipped steps are counted, and schedules
    /// continue. Null: no step is skipped.
    #[schemars(extend("x-ours" = true))]
    pub skip_above: Option<f64>,
    /// Ranks share the optimiser's state (ZeRO-1): each rank keeps the moments of its part of the parameters, updates these and
    /// their averages, and sends them to the others. The weights are the same, bit for bit. A single process keeps everything.
    #[schemars(extend("x-ours" = true))]
    pub shard_states: bool,
    /// Send gradients between ranks while the rest of the backward pass is computed. The sums are the same, bit for bit.
    #[schemars(extend("x-ours" = true))]
    pub overlap: bool,
    /// MiB of gradients that are sent between ranks together (the name is that of PyTorch's DistributedDataParallel); a larger
    /// gradient is sent alone. With more than two ranks this may change the last bits of sums.
    #[schemars(extend("x-ours" = true))]
    pub bucket_cap_mb: f64,
    /// Round the lengths of mask lists up to a multiple of this number. The padding changes nothing but the last bits of
    /// results, and steps have few different shapes, which a GPU measures once and keeps. Null: lengths stay as drawn.
    #[schemars(extend("x-ours" = true))]
    pub mask_buckets: Option<usize>,
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
            is_anneal: false,
            anneal_ckpt: None,
            resume_anneal: false,
            use_radamw: false,
            loss_reg_std_mult: None,
            loss_reg_num_tracking_steps: None,
            loss_reg_min_epoch: None,
            ends_in_warmup: false,
            groups: None,
            skip_above: None,
            shard_states: false,
            overlap: true,
            bucket_cap_mb: 4.0,
            mask_buckets: None,
        }
    }
}

/// The step counts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StepPlan {
    /// Optimiser steps in the whole run.
    pub steps: u64,
    /// Steps per epoch, for epoch numbers and checkpoints.
    pub steps_per_epoch: u64,
    /// Steps of linear warm-up.
    pub warmup_steps: u64,
    /// Steps the schedules are computed over, `int(ipe_scale * steps)`; the run stops before it when the scale is above 1.
    pub schedule_steps: u64,
    /// First step (0-based) whose gradients are clipped; `u64::MAX` for never.
    pub clip_from_step: u64,
}

impl StepPlan {
    /// Steps between checkpoints unless configured: an epoch, as in the official loop (`checkpoint_freq` is 1, and an epoch
    /// has 300 steps); where epochs are shorter than 100 steps, as many whole ones as make 100.
    pub fn checkpoint_every(&self) -> u64 {
        let epoch = self.steps_per_epoch.max(1);
        epoch * 100u64.div_ceil(epoch)
    }
}

impl OptimizationConfig {
    /// Groups that one step sees.
    pub fn groups(&self) -> u64 {
        self.groups.unwrap_or(1)
    }

    /// Values of gradients that travel between ranks together.
    pub fn bucket(&self) -> usize {
        (self.bucket_cap_mb * f64::from(1 << 18)) as usize
    }

    /// Whether gradients are added up before anything is updated: over groups, or to leave a step out by its loss.
    pub fn adds_up(&self) -> bool {
        self.groups() > 1 || self.skip_above.is_some()
    }

    /// The step counts. `dataset_steps` is the number of whole batches in the data set, used where `ipe` is null; a data set
    /// smaller than a batch still makes one step, which repeats videos.
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
        if warmup_steps >= schedule_steps && !self.ends_in_warmup {
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

    /// The official schedules over a run's own step numbers.
    pub fn schedule(&self, plan: &StepPlan) -> Schedule {
        let (peak, end, total_steps) = (self.lr, self.final_lr, plan.schedule_steps);
        let lr = match self.is_anneal {
            true => LearningRate::Linear(LinearDecay { start: peak, end, total_steps }),
            false => {
                let (start, warmup_steps) = (self.start_lr, plan.warmup_steps);
                LearningRate::Cosine(WarmupCosine { start, peak, end, warmup_steps, total_steps })
            }
        };
        let [start, end] = self.ema;
        Schedule {
            lr,
            wd: CosineWd { start: self.weight_decay, end: self.final_weight_decay, total_steps },
            // The official expression is ipe·epochs·ipe_scale, not rounded.
            ema: LinearEma { start, end, total_steps: plan.steps as f64 * self.ipe_scale },
            clip_from_step: (plan.clip_from_step != u64::MAX).then_some(plan.clip_from_step),
        }
    }
}

/// The `logging` section: where checkpoints and metrics go, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// Folder for checkpoints and metrics.
    pub folder: Option<String>,
    /// Prefix of the names of these files.
    pub write_tag: String,
    /// Steps between checkpoints; null: one epoch, as in the official code, or if that is under 100 steps, as many whole epochs
    /// as make 100. A checkpoint is always saved at the end, and on Ctrl-C.
    #[schemars(extend("x-ours" = true))]
    pub checkpoint_every: Option<u64>,
    /// Number of checkpoints to keep, the latest included; a run resumes from the newest intact one.
    #[schemars(extend("x-ours" = true))]
    pub keep_last: u64,
    /// Checkpoints saved at a multiple of this number of steps are kept for good; null: none.
    #[schemars(extend("x-ours" = true))]
    pub keep_every: Option<u64>,
    /// Steps between lines of metrics.
    #[schemars(extend("x-ours" = true))]
    pub metrics_every: u64,
    /// Steps between diagnostics (context gap, effective rank); null: none.
    #[schemars(extend("x-ours" = true))]
    pub diagnostics_every: Option<u64>,
}

impl Default for LoggingConfig {
    fn default() -> Self {
        Self {
            folder: None,
            write_tag: "jepa".into(),
            checkpoint_every: None,
            keep_last: 2,
            keep_every: None,
            metrics_every: 10,
            diagnostics_every: None,
        }
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
