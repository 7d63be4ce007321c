//! Learning rate, weight decay and EMA momentum by training step (official `utils/schedulers.py`, `app/vjepa/train.py`).
//!
//! Steps count from 0. The official code advances its learning rate and weight decay schedulers *before* it uses them,
//! so step `i` runs at their position `i + 1`: the peak is reached exactly at step `warmup_steps - 1`. The momentum is
//! not advanced first: step 0 uses its start value. All schedules are stretched by `ipe_scale` (1.25) and training stops
//! at 80 % of them, so no end value is ever reached.
//!
//! V-JEPA 2 and 2.1 have the same schedules with equal ends, which are constant after the warm-up; their second stage, the
//! cool-down, goes down in a straight line ([`LinearDecay`]), stretched like the others, so it stops far above its end.

use std::f64::consts::PI;

use crate::finetune::FinetuneSchedule;

/// Linear warm-up, then half a cosine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarmupCosine {
    /// Learning rate the warm-up starts from.
    pub start: f64,
    /// Learning rate at the end of the warm-up.
    pub peak: f64,
    /// Learning rate at the end of the cosine.
    pub end: f64,
    /// Steps of warm-up; 0 starts at the peak.
    pub warmup_steps: u64,
    /// Steps of warm-up and cosine together. Later steps stay at `end`.
    pub total_steps: u64,
}

impl WarmupCosine {
    /// Learning rate of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        let position = step.saturating_add(1);
        if position < self.warmup_steps {
            let progress = position as f64 / self.warmup_steps as f64;
            return self.start + progress * (self.peak - self.start);
        }
        let cosine_steps = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let progress = (position - self.warmup_steps) as f64 / cosine_steps as f64;
        half_cosine(self.peak, self.end, progress)
    }
}

/// A straight line from `start` to `end`, without a warm-up (official `LinearDecaySchedule` of the cool-down).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearDecay {
    /// Learning rate before the first step.
    pub start: f64,
    /// Learning rate at the end.
    pub end: f64,
    /// Steps until `end`. Later steps stay there.
    pub total_steps: u64,
}

impl LinearDecay {
    /// Learning rate of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        let progress = step.saturating_add(1) as f64 / self.total_steps.max(1) as f64;
        self.start + progress.min(1.0) * (self.end - self.start)
    }
}

/// The learning rate of a run: of a first stage, of a cool-down, or of fine-tuning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum LearningRate {
    /// Warm-up and half a cosine, which is constant where its ends are equal.
    Cosine(WarmupCosine),
    /// A straight line down.
    Linear(LinearDecay),
    /// Warm-up from 0, both ends included, then half a cosine.
    Finetune(FinetuneSchedule),
}

impl LearningRate {
    /// Learning rate of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        match self {
            Self::Cosine(cosine) => cosine.at(step),
            Self::Linear(line) => line.at(step),
            Self::Finetune(schedule) => schedule.at(step),
        }
    }
}

/// Weight of V-JEPA 2.1's loss on context tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContextWeight {
    /// The weight, or what it grows to.
    pub value: f64,
    /// Whether it is 0 until step 15000 and then grows in a straight line until step 30000, as in pre-training; else it is
    /// constant, as in the cool-down.
    pub progressive: bool,
}

impl ContextWeight {
    /// Steps between which a progressive weight grows; constants of the official code.
    const GROWTH: [u64; 2] = [15_000, 30_000];

    /// Weight of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        let [first, last] = Self::GROWTH;
        match self.progressive && step < last {
            true => self.value * (step.saturating_sub(first) as f64 / (last - first) as f64),
            false => self.value,
        }
    }
}

/// Half a cosine from the first step on, up or down.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CosineWd {
    /// Weight decay before the first step.
    pub start: f64,
    /// Weight decay at the end.
    pub end: f64,
    /// Steps until `end`. Later steps stay there.
    pub total_steps: u64,
}

impl CosineWd {
    /// Weight decay of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        let progress = step.saturating_add(1) as f64 / self.total_steps.max(1) as f64;
        half_cosine(self.start, self.end, progress)
    }
}

/// From `start` at progress 0 to `end` at progress 1 and later, never beyond `end`.
fn half_cosine(start: f64, end: f64, progress: f64) -> f64 {
    let value = end + (start - end) * 0.5 * (1.0 + (PI * progress.min(1.0)).cos());
    if end <= start { value.max(end) } else { value.min(end) }
}

/// Momentum of the target encoder, linear in the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearEma {
    /// Momentum of step 0.
    pub start: f64,
    /// Momentum at the end.
    pub end: f64,
    /// Steps until `end`, possibly fractional, unlike in the other two. Later steps stay at `end`.
    pub total_steps: f64,
}

impl LinearEma {
    /// Momentum of the 0-based step `step`.
    pub fn at(&self, step: u64) -> f64 {
        if step as f64 >= self.total_steps {
            return self.end;
        }
        self.start + step as f64 * (self.end - self.start) / self.total_steps
    }
}

/// The scheduled values of one training step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepRates {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay of the decayed parameter groups.
    pub wd: f64,
    /// Momentum `m` of the EMA update `target = m * target + (1 - m) * online`.
    pub momentum: f64,
    /// Whether gradients are clipped.
    pub clip_active: bool,
}

/// Lengths and values of a pre-training run's schedules.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleConfig {
    /// Steps per epoch (official `ipe`).
    pub steps_per_epoch: u64,
    /// Epochs of training.
    pub epochs: u64,
    /// Length of all schedules over that of the run.
    pub ipe_scale: f64,
    /// Steps of warm-up.
    pub warmup_steps: u64,
    /// Learning rates: start of the warm-up, peak, end.
    pub lr: [f64; 3],
    /// Weight decay at start and end.
    pub wd: [f64; 2],
    /// EMA momentum at start and end.
    pub ema: [f64; 2],
    /// First 0-based step whose gradients are clipped; `None` never clips.
    pub clip_from_step: Option<u64>,
    /// Whether it is a cool-down: a straight line from the peak to the end, without a warm-up.
    pub anneal: bool,
}

impl ScheduleConfig {
    /// ViT-L/16's values with warm-up given in epochs. Clipping starts in the epoch *after* the one that follows the
    /// warm-up (`epoch > warmup`, counted from 0).
    pub fn official(steps_per_epoch: u64, epochs: u64, warmup_epochs: u64) -> Self {
        Self {
            steps_per_epoch,
            epochs,
            ipe_scale: 1.25,
            warmup_steps: warmup_epochs.saturating_mul(steps_per_epoch),
            lr: [2.0e-4, 6.25e-4, 1.0e-6],
            wd: [0.04, 0.4],
            ema: [0.998, 1.0],
            clip_from_step: Some(warmup_epochs.saturating_add(1).saturating_mul(steps_per_epoch)),
            anneal: false,
        }
    }
}

/// All schedules of a pre-training run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Learning rate.
    pub lr: LearningRate,
    /// Weight decay.
    pub wd: CosineWd,
    /// EMA momentum.
    pub ema: LinearEma,
    /// First 0-based step whose gradients are clipped; `None` never clips.
    pub clip_from_step: Option<u64>,
}

impl Schedule {
    /// The schedules of `config`: the cosines over `int(ipe_scale * epochs * steps_per_epoch)` steps.
    pub fn new(config: &ScheduleConfig) -> Self {
        let (epochs, per_epoch) = (config.epochs as f64, config.steps_per_epoch as f64);
        // The official code multiplies in another order for the momentum; at 1e-12 it is the same number.
        let stretched = config.ipe_scale * epochs * per_epoch;
        let total_steps = stretched as u64;
        let [start, peak, end] = config.lr;
        let [wd_start, wd_end] = config.wd;
        let [ema_start, ema_end] = config.ema;
        let lr = match config.anneal {
            true => LearningRate::Linear(LinearDecay { start: peak, end, total_steps }),
            false => {
                LearningRate::Cosine(WarmupCosine { start, peak, end, warmup_steps: config.warmup_steps, total_steps })
            }
        };
        Self {
            lr,
            wd: CosineWd { start: wd_start, end: wd_end, total_steps },
            ema: LinearEma { start: ema_start, end: ema_end, total_steps: stretched },
            clip_from_step: config.clip_from_step,
        }
    }

    /// Rates of the 0-based step `step`.
    pub fn at(&self, step: u64) -> StepRates {
        StepRates {
            lr: self.lr.at(step),
            wd: self.wd.at(step),
            momentum: self.ema.at(step),
            clip_active: self.clip_from_step.is_some_and(|first| step >= first),
        }
    }
}

/// Schedules of the frozen evaluation's probe: learning rate to 0, weight decay *down* to 1e-6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProbeSchedule {
    /// Learning rate.
    pub lr: WarmupCosine,
    /// Weight decay.
    pub wd: CosineWd,
}

impl ProbeSchedule {
    /// Over `total_steps` = epochs times steps per epoch; `start_lr` counts only when there is a warm-up. The official
    /// evaluations have none, `lr` 1e-3 and `wd` 0.01.
    pub fn new(total_steps: u64, warmup_steps: u64, start_lr: f64, lr: f64, wd: f64) -> Self {
        Self {
            lr: WarmupCosine { start: start_lr, peak: lr, end: 0.0, warmup_steps, total_steps },
            wd: CosineWd { start: wd, end: 1.0e-6, total_steps },
        }
    }

    /// Learning rate and weight decay of the 0-based step `step`.
    pub fn at(&self, step: u64) -> (f64, f64) {
        (self.lr.at(step), self.wd.at(step))
    }
}

#[cfg(test)]
#[path = "schedules_tests.rs"]
mod tests;
