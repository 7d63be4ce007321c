//! The attentive figures of the protocol.

use super::TextureProtocol;
use super::clips::LabelledClips;
use crate::EvalError;
use crate::attentive::{ProbeOptions, ProbeRunner, ProbeTrainer, first_weights};
use crate::features::Features;
use vjepa_data::textures::{DIRECTIONS, TEXTURES};
use vjepa_graphs::{EncoderConfig, ProbeConfig};
use vjepa_metrics::{Figure, top_k};
use vjepa_programs::Probe;
use vjepa_recipe::counter::mix;

/// The attentive probes of one encoder.
pub(super) struct Attentive {
    trainer: ProbeTrainer,
    runner: ProbeRunner,
    classes: usize,
    validation: Features,
    test: Features,
}

/// Clips of the validation split that choose the attentive probe's learning rate; more would cost more than they tell.
pub(super) const VALIDATION: usize = 200;
/// Clips of a step.
pub(super) const BATCH: usize = 8;

impl Attentive {
    pub fn new(config: &EncoderConfig, clips: &LabelledClips, features: &Features) -> Result<Self, EvalError> {
        // Both tasks have as many classes, so one compiled probe serves both.
        let classes = TEXTURES.len().max(DIRECTIONS);
        let probe = Probe::Attentive(ProbeConfig::for_encoder(config, classes));
        Ok(Self {
            trainer: ProbeTrainer::new(&probe)?,
            runner: ProbeRunner::new(&probe, &first_weights(&probe, 0))?,
            classes,
            validation: features.select(Self::validation(clips)),
            test: features.select(&clips.test),
        })
    }

    fn validation(clips: &LabelledClips) -> &[usize] {
        &clips.validation[..VALIDATION.min(clips.validation.len())]
    }

    pub fn figure(
        &mut self,
        features: &Features,
        clips: &LabelledClips,
        task: usize,
        protocol: &TextureProtocol,
        done: &mut dyn FnMut(usize),
    ) -> Result<Figure, EvalError> {
        let validation_labels = clips.labels_of(task, Self::validation(clips));
        let test_labels = clips.labels_of(task, &clips.test);
        let mut chosen = protocol.attentive_lr.first().copied().unwrap_or(ProbeOptions::default().lr);
        let mut results = Vec::new();
        for (number, draw) in clips.draws[task].iter().take(protocol.attentive_draws).enumerate() {
            let mut options = ProbeOptions {
                epochs: protocol.attentive_epochs,
                batch: BATCH,
                seed: mix(&[protocol.seed, number as u64]),
                ..ProbeOptions::default()
            };
            let grid = if number == 0 { protocol.attentive_lr.clone() } else { vec![chosen] };
            let mut best = None;
            for lr in grid {
                options.lr = lr;
                let weights = self.trainer.fit(features, &clips.labels[task], draw, &options, &mut |_| ())?;
                self.runner.load(&weights)?;
                let probabilities = self.runner.probabilities(&self.validation)?;
                let score = top_k(&probabilities, self.classes, &validation_labels, 1);
                if best.as_ref().is_none_or(|(most, _, _)| score > *most) {
                    best = Some((score, lr, weights));
                }
            }
            if let Some((_, lr, weights)) = best {
                chosen = lr;
                self.runner.load(&weights)?;
                results.push(top_k(&self.runner.probabilities(&self.test)?, self.classes, &test_labels, 1));
            }
            done(number + 1);
        }
        Ok(Figure::of(&results))
    }
}
