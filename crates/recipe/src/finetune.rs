//! Fine-tuning's tables: which learning rate a layer has, which branches are dropped, the rate of every step.
//!
//! Sources: MCG-NJU/VideoMAE `optim_factory.py`, `utils.py`, `modeling_finetune.py`, whose names V-JEPA's table 8 uses. Where
//! its arguments and its behaviour differ, the behaviour is kept: `warmup_lr` is read there and never used, so a warm-up starts
//! at 0.

use std::f64::consts::PI;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the tokens of a clip become the one vector that is classified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The mean of the last block's tokens, then a new norm; the encoder's final norm is not used (VideoMAE).
    #[default]
    FcNorm,
    /// The encoder's final norm, then the mean.
    Norm,
}

/// Learning rates that fall from the head to the pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerDecay {
    /// Factor from a layer to the one before it; 0.75 for VideoMAE, 0.8 in V-JEPA's table 8.
    pub decay: f64,
    /// Blocks of the encoder.
    pub depth: usize,
}

impl LayerDecay {
    /// The layer of a parameter, named as in the official state dict without prefixes: 0 for what makes tokens of pixels,
    /// then the blocks, then everything behind them. Blocks beyond the depth count as the last one.
    pub fn layer(&self, name: &str) -> usize {
        let is = |part: &str| name == part || name.strip_prefix(part).is_some_and(|rest| rest.starts_with('.'));
        let first = ["pos_embed", "cls_token", "mask_token", "patch_embed"];
        let of_images = ["patch_embed_img", "img_mod_embed", "video_mod_embed"];
        if first.into_iter().chain(of_images).any(is) {
            return 0;
        }
        let block = name.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        block.map_or(self.depth + 1, |block| block.saturating_add(1).min(self.depth.max(1)))
    }

    /// What multiplies the learning rate of a layer: 1 for the head, one factor less for each layer before it.
    pub fn scale(&self, layer: usize) -> f64 {
        let below = (self.depth + 1).saturating_sub(layer);
        self.decay.powi(i32::try_from(below).unwrap_or(i32::MAX))
    }

    /// The scales of all layers, 0 first.
    pub fn scales(&self) -> Vec<f64> {
        (0..self.depth + 2).map(|layer| self.scale(layer)).collect()
    }
}

/// Whether weight decay applies to a parameter: not to biases, norms and other vectors, nor to positions and tokens.
pub fn decayed(name: &str, shape: &[usize]) -> bool {
    let vectors = ["pos_embed", "cls_token", "img_mod_embed", "video_mod_embed"];
    shape.len() > 1 && !name.ends_with(".bias") && !vectors.contains(&name)
}

/// The probability that a block's branch is dropped, block by block: 0 for the first, `rate` for the last. In single precision,
/// from both ends, as `torch.linspace` has it.
pub fn drop_path_rates(rate: f32, depth: usize) -> Vec<f32> {
    let step = rate / depth.saturating_sub(1).max(1) as f32;
    let value = |block: usize| match block < depth / 2 {
        true => step * block as f32,
        false if depth == 1 => 0.0,
        // PyTorch's loop multiplies and adds in one rounding.
        false => (-step).mul_add((depth - 1 - block) as f32, rate),
    };
    (0..depth).map(value).collect()
}

/// The learning rate for a batch of `clips` per step on all devices, accumulation included: rates are given for 256. Clips that
/// are augmented several times count once.
pub fn scaled_lr(lr: f64, clips: usize) -> f64 {
    lr * clips as f64 / 256.0
}

/// The learning rate of every optimiser step: linear from 0, both ends included, then half a cosine that never quite reaches
/// its end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FinetuneSchedule {
    /// Rate at the end of the warm-up.
    pub base: f64,
    /// Rate that the cosine falls to.
    pub min: f64,
    /// Steps of warm-up. Their first has rate 0 and their last the full one, as has the step after it.
    pub warmup_steps: u64,
    /// Steps in all.
    pub total_steps: u64,
}

/// A schedule that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ScheduleError {
    /// Only warm-up.
    #[error("the warm-up takes {warmup} steps, but the run has {total}: shorten it, or train longer")]
    Warmup {
        /// Steps of warm-up.
        warmup: u64,
        /// Steps in all.
        total: u64,
    },
    /// A setting of the source that its code refuses, too.
    #[error(
        "`warmup_steps` replaces `warmup_epochs` only where that is above 0: set `warmup_epochs` to 1, or `warmup_steps` to -1"
    )]
    NoEpochs,
}

impl FinetuneSchedule {
    /// Of settings as they are published: `warmup_steps` above 0 replaces the warm-up epochs, -1 does not.
    ///
    /// # Errors
    /// [`ScheduleError`].
    pub fn new(
        [base, min]: [f64; 2],
        epochs: u64,
        steps_per_epoch: u64,
        warmup_epochs: u64,
        warmup_steps: i64,
    ) -> Result<Self, ScheduleError> {
        let total = epochs.saturating_mul(steps_per_epoch);
        let warmup = match u64::try_from(warmup_steps) {
            Ok(steps @ 1..) if warmup_epochs > 0 => steps,
            Ok(1..) => return Err(ScheduleError::NoEpochs),
            _ => warmup_epochs.saturating_mul(steps_per_epoch),
        };
        if warmup >= total.max(1) {
            return Err(ScheduleError::Warmup { warmup, total });
        }
        Ok(Self { base, min, warmup_steps: warmup, total_steps: total })
    }

    /// Learning rate of the 0-based step `step`; steps behind the last keep its rate.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warmup_steps {
            let last = self.warmup_steps - 1;
            return if step == last && last > 0 { self.base } else { step as f64 * (self.base / last.max(1) as f64) };
        }
        let cosine = self.total_steps.saturating_sub(self.warmup_steps).max(1);
        let place = (step - self.warmup_steps).min(cosine - 1) as f64;
        self.min + 0.5 * (self.base - self.min) * (1.0 + (PI * place / cosine as f64).cos())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_by_name() {
        let decay = LayerDecay { decay: 0.5, depth: 3 };
        let names =
            ["pos_embed", "patch_embed.proj.bias", "blocks.0.norm1.weight", "blocks.2.mlp.fc2.bias", "head.bias"];
        assert_eq!(names.map(|name| decay.layer(name)), [0, 0, 1, 3, 4]);
        assert_eq!(decay.layer("fc_norm.weight"), 4);
        assert_eq!(decay.layer("patch_embedding.weight"), 4);
        assert_eq!(decay.scales(), [0.0625, 0.125, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn what_is_decayed() {
        assert!(decayed("blocks.0.attn.qkv.weight", &[6, 2]));
        assert!(!decayed("blocks.0.norm1.weight", &[2]) && !decayed("a.bias", &[2, 2]));
        assert!(!decayed("pos_embed", &[1, 8, 2]) && decayed("patch_embed.proj.weight", &[2, 3, 2, 16, 16]));
    }

    #[test]
    fn warm_ups() {
        let schedule = |epochs, steps| FinetuneSchedule::new([1e-3, 1e-6], 2, 5, epochs, steps);
        assert_eq!(schedule(1, -1).unwrap().warmup_steps, 5);
        assert_eq!(schedule(1, 2).unwrap().warmup_steps, 2);
        assert_eq!(schedule(0, 2), Err(ScheduleError::NoEpochs));
        assert_eq!(schedule(2, -1), Err(ScheduleError::Warmup { warmup: 10, total: 10 }));
        assert_eq!(schedule(0, -1).unwrap().at(0), 1e-3);
        assert_eq!(schedule(1, 1).unwrap().at(0), 0.0);
        assert_eq!(schedule(1, 2).unwrap().at(99), schedule(1, 2).unwrap().at(9));
        assert_eq!(scaled_lr(1e-3, 64), 2.5e-4);
        assert_eq!(drop_path_rates(0.2, 1), [0.0]);
        assert!(drop_path_rates(0.2, 0).is_empty());
    }
}
