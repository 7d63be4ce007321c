//! A frozen teacher: predict the features of masked tokens, as an encoder sees them that never changes.
//!
//! V-JEPA's objective with the moving average taken away: distance, regulariser and predictor are its own. The teacher has the
//! encoder's sizes; its weights are those of `loss.teacher`, or drawn, and then what is predicted are random features.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use vjepa_recipe::config::LossConfig;

use super::jepa::{Jepa, normalised_targets};
use super::{Batch, Declaration, Losses, Models, Monitor, Objective, ParameterSet, Role, Start};
use crate::encoder::Encoder;
use crate::error::{ConfigError, ShapeError};
use crate::init;
use crate::params::NamedTensors;
use crate::predictor::Predictor;

/// A frozen teacher, over modules of given sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Teacher {
    /// Sizes, distance and regulariser.
    pub jepa: Jepa,
}

/// Its modules.
#[derive(Module, Debug)]
pub struct TeacherModel {
    /// Sees the context.
    pub encoder: Encoder,
    /// Predicts the targets from it.
    pub predictor: Predictor,
    /// Sees the whole clip, and stays as it is.
    pub teacher: Encoder,
}

impl Teacher {
    /// The objective of a `loss` section.
    pub fn new(loss: &LossConfig, models: &Models) -> Self {
        Self { jepa: Jepa::new(loss, models) }
    }
}

impl Objective for Teacher {
    type Model = TeacherModel;

    fn declaration(&self) -> Declaration {
        let own = self.jepa.declaration();
        let teacher = ParameterSet { name: "teacher", shapes: self.jepa.encoder.parameter_shapes(), role: Role::Fixed };
        let kept = own.sets.into_iter().filter(|set| set.role == Role::Trained);
        Declaration {
            sets: kept.chain([teacher]).collect(),
            // The teacher cannot collapse; the encoder can.
            monitor: Monitor { gradient: "encoder", features: "encoder" },
            ..own
        }
    }

    fn model(&self, device: &Device) -> Result<TeacherModel, ConfigError> {
        if self.jepa.dense.is_some() {
            return Err(ConfigError::new("predict_all", "must be off, a frozen teacher has no loss on the context"));
        }
        let super::JepaModel { encoder, predictor, target_encoder } = self.jepa.model(device)?;
        Ok(TeacherModel { encoder, predictor, teacher: target_encoder })
    }

    fn initial(&self, start: Start) -> NamedTensors {
        let mut tensors = self.jepa.initial(start);
        let teacher = init::encoder(&self.jepa.encoder, start.init, start.seed.wrapping_add(2));
        tensors.extend(teacher.into_iter().map(|(name, tensor)| (format!("teacher.{name}"), tensor)));
        tensors
    }

    fn losses(&self, model: &TeacherModel, batch: &Batch) -> Result<Losses, ShapeError> {
        self.jepa.losses_of((&model.encoder, &model.predictor, &model.teacher), batch)
    }

    /// The encoder's tokens, normalised like targets.
    fn monitored(&self, model: &TeacherModel, clips: Tensor<5>) -> Result<Tensor<3>, ShapeError> {
        normalised_targets(&model.encoder, clips)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AnyObjective, open};
    use super::*;
    use crate::config::{EncoderConfig, PredictorConfig};
    use vjepa_recipe::config::{Init, Normalization, ObjectiveName};

    #[test]
    fn a_teacher_is_no_copy_and_no_average() {
        let encoder = EncoderConfig { embed_dim: 24, depth: 1, num_heads: 2, patch: 8, ..EncoderConfig::tiny() };
        let encoder = encoder.with_clip(4, 16, 16);
        let predictor = PredictorConfig { embed_dim: 12, depth: 1, ..PredictorConfig::for_encoder(&encoder) };
        let models = Models {
            encoder,
            predictor,
            generators: 1,
            context_weight: None,
            normalization: Normalization::Imagenet,
            bucket: 0,
        };
        let loss = LossConfig { objective: ObjectiveName::Teacher, ..LossConfig::default() };
        let objective: AnyObjective = open(&loss, &models);
        assert_eq!(objective.declaration().averages().count(), 0);
        let first = objective.initial(Start { init: Init::Xavier, zero_mask_tokens: true, seed: 3 });
        let name = "blocks.0.attn.qkv.weight";
        assert_ne!(first[&format!("encoder.{name}")], first[&format!("teacher.{name}")]);
    }
}
